//! What a call asks beside its prompts: parsed, checked, and kept with its decision.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyString;
use uniroute_core::request::constraints::Compiled;
use uniroute_core::request::{
    Leaving, PerPrompt, Request, Requests, Stay, check_numbers, estimate_tokens, positive_zero,
};
use uniroute_core::route::snapshot::Snapshot;
use uniroute_core::{Error, Result};

use crate::checks::scalars::{count, counts, model_name, number, numbers, optional_names, wrong};
use crate::checks::texts::Texts;
use crate::errors::to_py;
use crate::request::constraints::Constraints;

/// What a request asked, kept with its decision.
pub(crate) struct Asked {
    pub(crate) cost_weight: f64,
    pub(crate) constraints: Option<Arc<Compiled>>,
    pub(crate) tokens: Option<u64>,
    pub(crate) fallback: Option<u32>,
    pub(crate) stay: Option<Stay>,
}

impl Asked {
    /// The same as the core takes it.
    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            cost_weight: self.cost_weight,
            constraints: self.constraints.as_deref(),
            tokens: self.tokens,
            fallback: self.fallback,
            stay: self.stay,
            ..Request::default()
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
        let tokens = self.tokens.map(|object| count("tokens", object));
        let current = (self.current_model).map(|object| model_name("current_model", object));
        let switch_cost = self.switch_cost.map(|object| {
            number(object).ok_or_else(|| wrong(object, "switch_cost", "one number, 0 or more"))
        });
        let cached = self
            .cached_tokens
            .map(|object| count("cached_tokens", object));
        let (current, switch_cost) = (current.transpose()?, switch_cost.transpose()?);
        let cached = cached.transpose()?;
        let stay = check_numbers("switch_cost", switch_cost.into_iter())
            .and_then(|()| Leaving::of(switch_cost, cached))
            .and_then(|leaving| Stay::with(snapshot.pool(), current.as_deref(), leaving));
        Ok(Asked {
            cost_weight: positive_zero(cost_weight),
            constraints: constraints.transpose()?,
            tokens: tokens.transpose()?,
            fallback: self.fallback(py, snapshot)?,
            stay: stay.map_err(|e| to_py(py, &e))?,
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
        counted: bool,
    ) -> PyResult<Requests> {
        let cost_weights = match cost_weight {
            None => PerPrompt::Same(0.0),
            Some(object) => numbers("cost_weight", object)?,
        };
        Ok(Requests {
            cost_weights,
            constraints: self.compile_each(snapshot)?,
            tokens: token_counts(self.tokens, texts)?,
            fallback: self.fallback(py, snapshot)?,
            stay: self.stay_each(py, snapshot, rows)?,
            counted,
        })
    }

    fn fallback(&self, py: Python<'_>, snapshot: &Snapshot) -> PyResult<Option<u32>> {
        let found = self.fallback.map(|object| {
            let name = model_name("fallback", object)?;
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
        let names = match self.current_model {
            None => PerPrompt::Same(None),
            Some(one) if one.is_instance_of::<PyString>() => {
                PerPrompt::Same(Some(model_name("current_model", one)?))
            }
            Some(each) => PerPrompt::Each(optional_names("current_model", each)?),
        };
        let switch_costs = self
            .switch_cost
            .map(|object| numbers("switch_cost", object));
        let cached = self
            .cached_tokens
            .map(|object| counts("cached_tokens", object));
        let leaving = match (switch_costs.transpose()?, cached.transpose()?) {
            (Some(costs), None) => check_numbers("switch_cost", costs.values().iter().copied())
                .and_then(|()| costs.try_map(|cost| Leaving::of(Some(cost), None))),
            (None, Some(cached)) => cached.try_map(|tokens| Leaving::of(None, tokens)),
            (None, None) => Ok(PerPrompt::Same(None)),
            // Refused there.
            (Some(_), Some(_)) => Leaving::of(Some(0.0), Some(0)).map(PerPrompt::Same),
        };
        let stays = leaving.and_then(|leaving| {
            if let (PerPrompt::Same(name), PerPrompt::Same(leaving)) = (&names, &leaving) {
                return Stay::with(snapshot.pool(), name.as_deref(), *leaving).map(PerPrompt::Same);
            }
            if matches!(leaving, PerPrompt::Same(None)) {
                return Err(Leaving::missing());
            }
            let lengths = [names.count(), leaving.count()];
            if let Some(found) = lengths.into_iter().flatten().find(|&n| n != rows) {
                let problem = format!("{found} values for {rows} prompts");
                let expected = "one, or one for each prompt, as with their switch costs";
                return Err(Error::invalid("current_model", problem, expected));
            }
            let stay =
                |row| Stay::with(snapshot.pool(), names.at(row).as_deref(), *leaving.at(row));
            (0..rows)
                .map(stay)
                .collect::<Result<_>>()
                .map(PerPrompt::Each)
        });
        stays.map_err(|e| to_py(py, &e))
    }
}

/// Lengths of prompts in tokens: as given, or estimated from `texts` that an embedder in Python turned
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
