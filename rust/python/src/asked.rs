//! What a call asks beside its prompts: parsed, checked, and kept with its decision.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyString};
use uniroute_core::choice::{Request, Stay};
use uniroute_core::constraints::Compiled;
use uniroute_core::router::{PerRow, Requests, Snapshot, estimate_tokens};
use uniroute_core::{Error, Result};

use crate::arrays::array;
use crate::constraints::Constraints;
use crate::errors::{to_py, wrong_type};
use crate::text::Texts;

/// What a request asked, kept with its decision.
pub(crate) struct Asked {
    pub(crate) cost_weight: f64,
    pub(crate) constraints: Option<Arc<Compiled>>,
    pub(crate) tokens: Option<u64>,
    pub(crate) fallback: Option<u32>,
    pub(crate) stay: Option<Stay>,
}

impl Asked {
    /// The constraints; where none were given, those that only stop disabled models.
    pub(crate) fn compiled(&self, snapshot: &Snapshot) -> Arc<Compiled> {
        let none = || snapshot.compile(&Arc::default());
        self.constraints.as_ref().map_or_else(none, Arc::clone)
    }

    /// The same as the core takes it.
    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            cost_weight: self.cost_weight,
            constraints: self.constraints.as_deref(),
            tokens: self.tokens,
            fallback: self.fallback,
            stay: self.stay,
            counted: false,
        }
    }
}

/// The arguments of a call as Python gave them.
pub(crate) struct Arguments<'a, 'py> {
    pub(crate) constraints: Option<&'a Bound<'py, PyAny>>,
    pub(crate) tokens: Option<&'a Bound<'py, PyAny>>,
    pub(crate) fallback: Option<&'a Bound<'py, PyAny>>,
    pub(crate) current_model: Option<&'a Bound<'py, PyAny>>,
    pub(crate) switch_cost: Option<&'a Bound<'py, PyAny>>,
    pub(crate) cached_tokens: Option<&'a Bound<'py, PyAny>>,
}

impl Arguments<'_, '_> {
    /// What one prompt's call asks.
    pub(crate) fn one(
        &self,
        py: Python<'_>,
        snapshot: &Snapshot,
        cost_weight: f64,
    ) -> PyResult<Asked> {
        let constraints = self.constraints.map(|object| {
            let expected = "Constraints, or None";
            let one = object.cast::<Constraints>();
            let one = one.map_err(|_| wrong(object, "constraints", expected))?;
            Ok::<_, PyErr>(snapshot.compile(&one.get().inner))
        });
        let tokens = self.tokens.map(|object| one_count("tokens", object));
        let current = self
            .current_model
            .map(|object| name("current_model", object));
        let switch_cost = self.switch_cost.map(|object| {
            number(object).ok_or_else(|| wrong(object, "switch_cost", "one number, 0 or more"))
        });
        let cached = self
            .cached_tokens
            .map(|object| one_count("cached_tokens", object));
        let (switch_cost, cached) = (switch_cost.transpose()?, cached.transpose()?);
        Stay::check(current.is_some(), switch_cost.is_some(), cached.is_some())
            .map_err(|e| to_py(py, &e))?;
        let stay = match current.transpose()? {
            None => None,
            Some(name) => Stay::with(snapshot.pool(), &name, switch_cost, cached)
                .map_err(|e| to_py(py, &e))?,
        };
        Ok(Asked {
            cost_weight,
            constraints: constraints.transpose()?,
            tokens: tokens.transpose()?,
            fallback: self.fallback(py, snapshot)?,
            stay,
        })
    }

    /// What the calls of a batch of `rows` prompts ask; `texts` as in [`token_counts`].
    pub(crate) fn many(
        &self,
        py: Python<'_>,
        snapshot: &Snapshot,
        cost_weight: Option<&Bound<'_, PyAny>>,
        rows: usize,
        texts: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<AskedMany> {
        let cost_weights = match cost_weight {
            None => PerPrompt::Same(0.0),
            Some(object) => numbers("cost_weight", object)?,
        };
        Ok(AskedMany {
            cost_weights,
            constraints: self.compile_each(snapshot)?,
            tokens: token_counts(self.tokens, texts)?,
            fallback: self.fallback(py, snapshot)?,
            stay: self.stay_each(py, snapshot, rows)?,
        })
    }

    fn fallback(&self, py: Python<'_>, snapshot: &Snapshot) -> PyResult<Option<u32>> {
        let found = self.fallback.map(|object| {
            let name = name("fallback", object)?;
            let found = snapshot.pool().find("fallback", &name);
            found.map_err(|e| to_py(py, &e))
        });
        found.transpose()
    }

    /// The constraints of a batch: one for all prompts, or one for each.
    fn compile_each(&self, snapshot: &Snapshot) -> PyResult<PerPrompt<Option<Arc<Compiled>>>> {
        let Some(constraints) = self.constraints else {
            return Ok(PerPrompt::Same(None));
        };
        let compile = |one: &Bound<'_, Constraints>| Some(snapshot.compile(&one.get().inner));
        if let Ok(one) = constraints.cast::<Constraints>() {
            return Ok(PerPrompt::Same(compile(one)));
        }
        let expected = "Constraints, or a sequence of Constraints or None";
        let refuse = |object: &Bound<'_, PyAny>| wrong(object, "constraints", expected);
        let Ok(items) = constraints.try_iter() else {
            return Err(refuse(constraints));
        };
        let each = |item: PyResult<Bound<'_, PyAny>>| {
            let item = item?;
            match item.cast::<Constraints>() {
                Ok(one) => Ok(compile(one)),
                Err(_) if item.is_none() => Ok(None),
                Err(_) => Err(refuse(&item)),
            }
        };
        items
            .map(each)
            .collect::<PyResult<_>>()
            .map(PerPrompt::Each)
    }

    /// The models that the conversations of a batch are with.
    fn stay_each(
        &self,
        py: Python<'_>,
        snapshot: &Snapshot,
        rows: usize,
    ) -> PyResult<PerPrompt<Option<Stay>>> {
        Stay::check(
            self.current_model.is_some(),
            self.switch_cost.is_some(),
            self.cached_tokens.is_some(),
        )
        .map_err(|e| to_py(py, &e))?;
        let Some(current) = self.current_model else {
            return Ok(PerPrompt::Same(None));
        };
        let switch_costs = match self.switch_cost {
            None => PerPrompt::Same(None),
            Some(object) => numbers("switch_cost", object)?.map(Some),
        };
        let cached = match self.cached_tokens {
            None => PerPrompt::Same(None),
            Some(object) => counts("cached_tokens", object)?,
        };
        let names = match current.cast::<PyString>() {
            Ok(_) => PerPrompt::Same(Some(name("current_model", current)?)),
            Err(_) => PerPrompt::Each(names("current_model", current)?),
        };
        let lengths = [names.len(), switch_costs.len(), cached.len()];
        if let Some(found) = lengths.into_iter().flatten().find(|&n| n != rows) {
            let problem = format!("{found} values for {rows} prompts");
            let expected = "one, or one for each prompt, as with their switch costs";
            return Err(to_py(
                py,
                &Error::invalid("current_model", problem, expected),
            ));
        }
        if lengths == [None; 3] {
            let name = names.at(0).as_deref().unwrap_or_default();
            return Stay::with(snapshot.pool(), name, *switch_costs.at(0), *cached.at(0))
                .map(PerPrompt::Same)
                .map_err(|e| to_py(py, &e));
        }
        let each = (0..rows).map(|row| match names.at(row) {
            None => Ok(None),
            Some(name) => Stay::with(
                snapshot.pool(),
                name,
                *switch_costs.at(row),
                *cached.at(row),
            ),
        });
        each.collect::<Result<_>>()
            .map(PerPrompt::Each)
            .map_err(|e| to_py(py, &e))
    }
}

/// What the requests of a batch asked.
pub(crate) struct AskedMany {
    cost_weights: PerPrompt<f64>,
    constraints: PerPrompt<Option<Arc<Compiled>>>,
    tokens: PerPrompt<Option<u64>>,
    fallback: Option<u32>,
    stay: PerPrompt<Option<Stay>>,
}

impl AskedMany {
    /// Hands the same, as the core takes it, to `work`.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Requests<'_>) -> T) -> T {
        let each: Vec<Option<&Compiled>>;
        let constraints = match &self.constraints {
            PerPrompt::Same(one) => PerRow::Same(one.as_deref()),
            PerPrompt::Each(all) => {
                each = all.iter().map(Option::as_deref).collect();
                PerRow::Each(&each)
            }
        };
        work(&Requests {
            cost_weights: self.cost_weights.as_rows(),
            constraints,
            tokens: self.tokens.as_rows(),
            fallback: self.fallback,
            stay: self.stay.as_rows(),
            counted: false,
        })
    }
}

/// An argument of a batch: one value for all prompts, or one for each.
pub(crate) enum PerPrompt<T> {
    Same(T),
    Each(Vec<T>),
}

impl<T> PerPrompt<T> {
    /// How many there are, where there is one for each prompt.
    fn len(&self) -> Option<usize> {
        match self {
            Self::Same(_) => None,
            Self::Each(all) => Some(all.len()),
        }
    }

    fn at(&self, row: usize) -> &T {
        match self {
            Self::Same(value) => value,
            Self::Each(all) => &all[row],
        }
    }

    fn map<U>(self, change: impl FnMut(T) -> U) -> PerPrompt<U> {
        let mut change = change;
        match self {
            Self::Same(value) => PerPrompt::Same(change(value)),
            Self::Each(all) => PerPrompt::Each(all.into_iter().map(change).collect()),
        }
    }
}

impl<T: Copy> PerPrompt<T> {
    pub(crate) fn as_rows(&self) -> PerRow<'_, T> {
        match self {
            Self::Same(value) => PerRow::Same(*value),
            Self::Each(all) => PerRow::Each(all),
        }
    }
}

/// Lengths of prompts in tokens: as given, or estimated from `texts` that a foreign embedder turned
/// into embeddings; texts that reach the core are measured there.
pub(crate) fn token_counts(
    tokens: Option<&Bound<'_, PyAny>>,
    texts: Option<&Bound<'_, PyAny>>,
) -> PyResult<PerPrompt<Option<u64>>> {
    match (tokens, texts) {
        (Some(object), _) => counts("tokens", object),
        (None, Some(texts)) => {
            let texts = Texts::collect(texts)?;
            let estimate = |text: Result<&str, _>| text.ok().map(estimate_tokens);
            Ok(PerPrompt::Each(
                texts.rows().into_iter().map(estimate).collect(),
            ))
        }
        (None, None) => Ok(PerPrompt::Same(None)),
    }
}

fn wrong(object: &Bound<'_, PyAny>, argument: &str, expected: &str) -> PyErr {
    let found = match object.get_type().name() {
        Ok(name) => format!("a {name}"),
        Err(error) => return error,
    };
    wrong_type(object.py(), argument, &found, expected)
}

/// A number; booleans are none.
pub(crate) fn number(object: &Bound<'_, PyAny>) -> Option<f64> {
    if let Ok(float) = object.cast::<PyFloat>() {
        return float.extract().ok();
    }
    let truth = object.is_instance_of::<PyBool>() || is_numpy_bool(object);
    if truth { None } else { object.extract().ok() }
}

fn is_numpy_bool(object: &Bound<'_, PyAny>) -> bool {
    let name = object.get_type().name();
    name.is_ok_and(|name| name == "bool" || name == "bool_")
}

/// A count: an integer, 0 or more; booleans are none.
fn one_count(argument: &'static str, object: &Bound<'_, PyAny>) -> PyResult<u64> {
    let expected = "an integer, 0 or more";
    let refused = || wrong(object, argument, expected);
    if object.is_instance_of::<PyBool>() || is_numpy_bool(object) {
        return Err(refused());
    }
    if let Ok(count) = object.extract::<u64>() {
        return Ok(count);
    }
    // An integer out of range, or no integer.
    let index = object.call_method0("__index__").map_err(|_| refused())?;
    let error = Error::invalid(argument, index.str()?.to_string(), expected);
    Err(to_py(object.py(), &error))
}

/// A name: a str.
fn name(argument: &str, object: &Bound<'_, PyAny>) -> PyResult<String> {
    let string = object.cast::<PyString>();
    let string = string.map_err(|_| wrong(object, argument, "the name of a model, a str"))?;
    Ok(string.to_str()?.to_owned())
}

/// Names or None, one for each prompt.
fn names(argument: &str, object: &Bound<'_, PyAny>) -> PyResult<Vec<Option<String>>> {
    let expected = "the name of a model, or one or None for each prompt";
    let items = object
        .try_iter()
        .map_err(|_| wrong(object, argument, expected))?;
    let each = |item: PyResult<Bound<'_, PyAny>>| {
        let item = item?;
        if item.is_none() {
            return Ok(None);
        }
        name(argument, &item).map(Some)
    };
    items.map(each).collect()
}

/// A cost.
pub(crate) fn one_cost(object: &Bound<'_, PyAny>) -> PyResult<f64> {
    number(object).ok_or_else(|| wrong(object, "cost", "one number, finite, 0 or more"))
}

/// The cost weight of one prompt.
pub(crate) fn one_cost_weight(object: &Bound<'_, PyAny>) -> PyResult<f64> {
    let expected = "one number, finite, 0 or more";
    number(object).ok_or_else(|| wrong(object, "cost_weight", expected))
}

/// Numbers: one for all prompts, or one for each; booleans are none.
fn numbers(argument: &'static str, object: &Bound<'_, PyAny>) -> PyResult<PerPrompt<f64>> {
    let shape = "[], or one for each prompt";
    if let Some(number) = number(object) {
        return Ok(PerPrompt::Same(number));
    }
    refuse_booleans(argument, object)?;
    let each = array::<f64>(object, argument, 1, shape)?;
    Ok(PerPrompt::Each(each.as_slice()?.to_vec()))
}

/// Counts: one for all prompts, or one for each.
fn counts(argument: &'static str, object: &Bound<'_, PyAny>) -> PyResult<PerPrompt<Option<u64>>> {
    if !object.hasattr("__len__")? {
        return one_count(argument, object).map(|count| PerPrompt::Same(Some(count)));
    }
    refuse_booleans(argument, object)?;
    // As float64, so that a negative number stays one; counts are far below 2^53.
    let each = array::<f64>(object, argument, 1, "[], or one for each prompt")?;
    let each = each.as_slice()?;
    if let Some(at) = each.iter().position(|v| !(*v >= 0.0 && v.fract() == 0.0)) {
        let problem = format!("{} at index {at}", each[at]);
        let error = Error::invalid(argument, problem, "integers, 0 or more");
        return Err(to_py(object.py(), &error));
    }
    Ok(PerPrompt::Each(
        each.iter().map(|&v| Some(v as u64)).collect(),
    ))
}

/// Fails on an array, or a list, of booleans.
pub(crate) fn refuse_booleans(argument: &str, object: &Bound<'_, PyAny>) -> PyResult<()> {
    let numpy = PyModule::import(object.py(), "numpy")?;
    let kind = numpy
        .call_method1("asarray", (object,))
        .and_then(|array| array.getattr("dtype")?.getattr("kind")?.extract::<String>());
    // What is no array is refused elsewhere, with a better message.
    if kind.is_ok_and(|kind| kind == "b") {
        return Err(wrong_type(
            object.py(),
            argument,
            "booleans",
            "real numbers",
        ));
    }
    Ok(())
}
