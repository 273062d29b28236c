//! What is known of a model: shown, and read from what Python says of it.

use numpy::PyUntypedArrayMethods;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use uniroute_core::Error;
use uniroute_core::pool::Pool;
use uniroute_core::pool::metadata::Metadata;
use uniroute_core::pool::tokens::Usage;

use crate::checks::arrays::array;
use crate::checks::scalars::{count, number, strings, wrong};
use crate::errors::{to_py, wrong_type};

/// What is known of a model.
#[pyclass(frozen, get_all, module = "uniroute_fast")]
pub struct ModelInfo {
    /// Name of the model.
    name: String,
    /// Its index in `models`.
    index: usize,
    /// Its cost per prompt.
    cost: f64,
    /// Whether it may be chosen.
    enabled: bool,
    /// Its tags, sorted.
    tags: Vec<String>,
    /// Tokens of prompt and answer that it takes at most, or None.
    context_length: Option<u64>,
    /// Typical seconds to answer, or None.
    latency: Option<f64>,
    /// Price of a million tokens of the prompt, or None.
    input_price: Option<f64>,
    /// Price of a million tokens of the answer, or None.
    output_price: Option<f64>,
    /// Price of a million tokens of the prompt that it finds in its cache, or None.
    cached_input_price: Option<f64>,
    /// Whether it is charged by the token: both prices and its usage are known.
    metered: bool,
    /// Tokens of its answer in each cluster, or None.
    output_tokens: Option<Vec<f32>>,
    /// Tokens that it counts for one of the prompt, or None.
    input_scale: Option<f64>,
    /// Tokens that it is sent beside the prompt, or None.
    input_extra: Option<f64>,
}

impl ModelInfo {
    /// What a pool knows of one of its models.
    pub fn of(pool: &Pool, index: usize) -> Self {
        let metadata = &pool.directory().models()[index];
        let usage = pool.usage().and_then(|metering| metering.usage(index));
        let metered = pool.metering().is_some_and(|m| m.metered().contains(index));
        Self {
            name: pool.names()[index].to_string(),
            index,
            cost: pool.costs()[index],
            enabled: pool.enabled().contains(index),
            tags: metadata.tags.iter().cloned().collect(),
            context_length: metadata.context_length,
            latency: metadata.latency,
            input_price: metadata.input_price,
            output_price: metadata.output_price,
            cached_input_price: metadata.cached_input_price,
            metered,
            input_scale: usage.as_ref().map(|usage| usage.input_scale),
            input_extra: usage.as_ref().map(|usage| usage.input_extra),
            output_tokens: usage.map(|usage| usage.output_tokens),
        }
    }
}

#[pymethods]
impl ModelInfo {
    fn __repr__(&self) -> String {
        format!(
            "ModelInfo(name={:?}, cost={}, enabled={}, tags={:?})",
            self.name,
            self.cost,
            if self.enabled { "True" } else { "False" },
            self.tags
        )
    }
}

/// What so many models use of tokens, from output tokens [clusters, models], scales and extras.
pub fn usages(
    py: Python<'_>,
    models: usize,
    (output_tokens, scale, extra): &(Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>),
) -> PyResult<Vec<Usage>> {
    let table = array::<f32>(output_tokens, "output_tokens", 2, "[n_clusters, models]")?;
    let scale = array::<f64>(scale, "input_scale", 1, "[models]")?;
    let extra = array::<f64>(extra, "input_extra", 1, "[models]")?;
    let counts = [table.shape()[1], scale.len(), extra.len()];
    if let Some(found) = counts.into_iter().find(|&n| n != models) {
        let problem = format!("{found} columns");
        let error = Error::invalid(
            "output_tokens",
            problem,
            format!("{models}, one for each name"),
        );
        return Err(to_py(py, &error));
    }
    let (table, scale, extra) = (table.as_slice()?, scale.as_slice()?, extra.as_slice()?);
    let usage = |m: usize| Usage {
        output_tokens: table.iter().skip(m).step_by(models).copied().collect(),
        input_scale: scale[m],
        input_extra: extra[m],
    };
    Ok((0..models).map(usage).collect())
}

/// The new value of a field of the metadata; `None` makes it unknown.
enum Value {
    Tags(Vec<String>),
    Count(Option<u64>),
    Number(Option<f64>),
}

/// Fields of the metadata that a call names; others stay as they are.
#[derive(Default)]
pub struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Reads the keyword arguments of `Router.set_metadata`.
    pub fn parse(py: Python<'_>, fields: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut parsed = Vec::new();
        for (key, value) in fields.into_iter().flatten() {
            let key = key.extract::<String>()?;
            let given = Some(&value).filter(|value| !value.is_none());
            let number =
                |value| number(value).ok_or_else(|| wrong(value, &key, "a number or None"));
            let value = match key.as_str() {
                "tags" => {
                    let tags = given.map(|value| strings("tags", value));
                    Value::Tags(tags.transpose()?.unwrap_or_default())
                }
                "context_length" => {
                    let length = given.map(|value| count("context_length", value));
                    Value::Count(length.transpose()?)
                }
                name if Metadata::FIELDS.contains(&name) => {
                    Value::Number(given.map(number).transpose()?)
                }
                _ => {
                    let expected = format!("one of {}", Metadata::FIELDS.join(", "));
                    return Err(wrong_type(py, &key, "no such field", &expected));
                }
            };
            parsed.push((key, value));
        }
        Ok(Self(parsed))
    }

    /// These fields, and the others as known.
    pub fn over(self, known: &Metadata) -> Metadata {
        let mut metadata = known.clone();
        for (name, value) in self.0 {
            match value {
                Value::Tags(tags) => metadata.tags = tags.into_iter().collect(),
                Value::Count(count) => metadata.context_length = count,
                Value::Number(number) => {
                    if let Some(field) = metadata.number_mut(&name) {
                        *field = number;
                    }
                }
            }
        }
        metadata
    }
}

/// What is known of each of some models: a sequence of mappings, or None for one.
pub fn each(py: Python<'_>, all: &Bound<'_, PyAny>, models: usize) -> PyResult<Vec<Metadata>> {
    let expected = "a dict, or None, for each of the models";
    // One dict is no list of dicts, though its keys are one after another.
    let items = all
        .try_iter()
        .ok()
        .filter(|_| !all.is_instance_of::<PyDict>());
    let Some(items) = items else {
        return Err(wrong(
            all,
            "metadata",
            "a list with a dict, or None, for each of the models",
        ));
    };
    let one = |item: PyResult<Bound<'_, PyAny>>| {
        let item = item?;
        let fields = match item.cast::<PyDict>() {
            Ok(fields) => Some(fields),
            Err(_) if item.is_none() => None,
            Err(_) => return Err(wrong(&item, "metadata", expected)),
        };
        Ok(Fields::parse(py, fields)?.over(&Metadata::default()))
    };
    let each = items
        .take(models + 1)
        .map(one)
        .collect::<PyResult<Vec<_>>>()?;
    if each.len() != models {
        let found = if each.len() > models { "more" } else { "fewer" };
        let problem = format!("{found} of them than the {models} models");
        return Err(to_py(py, &Error::invalid("metadata", problem, expected)));
    }
    Ok(each)
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<ModelInfo>()
}
