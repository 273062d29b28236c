//! `Decision` and `Decisions`: what was chosen, and what else there was.

use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};
use uniroute_core::Result;
use uniroute_core::choice::{self, Blend};
use uniroute_core::cluster_map::Phi;
use uniroute_core::lexical::Status;
use uniroute_core::router::{Choice, Row, Snapshot};

use crate::asked::Asked;
use crate::errors::to_py;
use crate::text::status_name;

/// Which model answers one prompt.
#[pyclass(frozen, module = "uniroute_fast")]
pub struct Decision {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) choice: Choice,
    /// `None` where one cluster decides alone.
    pub(crate) phi: Option<Phi>,
    pub(crate) asked: Asked,
    pub(crate) coverage: f32,
}

impl Decision {
    /// The prompt's clusters.
    fn blend(&self) -> Blend<'_> {
        let cluster = self.choice.cluster;
        match &self.phi {
            None => Blend::One(cluster),
            Some(phi) => Blend::Mixed { phi, cluster },
        }
    }

    /// What every model costs on this prompt.
    fn costs(&self) -> Result<Vec<f64>> {
        choice::costs(self.snapshot.pool(), self.blend(), self.asked.tokens)
    }

    /// The other models that may answer, at most `gap` behind the chosen one, best first.
    fn others(&self, gap: f64) -> Result<Vec<Alternative>> {
        let pool = self.snapshot.pool();
        let compiled = self.asked.compiled(&self.snapshot);
        let allowed = compiled.allowed(pool, self.asked.tokens)?.mask();
        let costs = self.costs()?;
        let mut losses = vec![0.0; pool.len()];
        choice::losses(pool, self.blend(), &mut losses);
        let may_answer = |m: usize| allowed.contains(m) && costs[m] <= compiled.max_cost();
        let objective = |loss: f32, cost: f64| f64::from(loss) + self.asked.cost_weight * cost;
        let limit = objective(self.choice.predicted_loss, self.choice.cost) + gap;
        let mut others: Vec<Alternative> = (0..pool.len())
            .filter(|&m| m as u32 != self.choice.model && may_answer(m))
            .filter(|&m| objective(losses[m], costs[m]) <= limit)
            .map(|m| Alternative {
                model: pool.names()[m].to_string(),
                index: m as u32,
                predicted_loss: losses[m],
                cost: costs[m],
                objective: objective(losses[m], costs[m]),
            })
            .collect();
        others.sort_by(|a, b| {
            (a.objective.total_cmp(&b.objective))
                .then(a.cost.total_cmp(&b.cost))
                .then(a.index.cmp(&b.index))
        });
        Ok(others)
    }
}

#[pymethods]
impl Decision {
    /// Name of the model.
    #[getter]
    fn model(&self) -> &str {
        &self.snapshot.pool().names()[self.choice.model as usize]
    }

    /// Its index in `router.models` at the time of the decision.
    #[getter]
    fn index(&self) -> u32 {
        self.choice.model
    }

    /// gamma: its predicted loss on the prompt.
    #[getter]
    fn predicted_loss(&self) -> f32 {
        self.choice.predicted_loss
    }

    /// Its cost, in the unit in which costs were given; where it is charged by the token, what it is
    /// expected to cost on this prompt.
    #[getter]
    fn cost(&self) -> f64 {
        self.choice.cost
    }

    /// Cluster that weighs most for the prompt.
    #[getter]
    fn cluster(&self) -> u32 {
        self.choice.cluster
    }

    /// Cost weight that the decision was made at.
    #[getter]
    fn cost_weight(&self) -> f64 {
        self.asked.cost_weight
    }

    /// Length of the prompt in tokens, as given or estimated; None where it was not told.
    #[getter]
    fn tokens(&self) -> Option<u64> {
        self.asked.tokens
    }

    /// Whether the model is the caller's fallback, because none met the constraints.
    #[getter]
    fn fallback(&self) -> bool {
        self.choice.fallback
    }

    /// Whether it is `current_model`, though another one would have won without the switching cost.
    #[getter]
    fn stayed(&self) -> bool {
        self.choice.stayed
    }

    /// Share of the prompt's feature weight that the embedder knows; 1 where embeddings were given.
    #[getter]
    fn coverage(&self) -> f32 {
        self.coverage
    }

    /// Version of the pool that the decision was made over.
    #[getter]
    fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// The other models that may answer, best first. Worked out when asked for: O(M log M).
    #[getter]
    fn alternatives(&self, py: Python<'_>) -> PyResult<Vec<Alternative>> {
        self.others(f64::INFINITY).map_err(|e| to_py(py, &e))
    }

    /// Those alternatives whose predicted loss + cost weight x cost is at most `gap` above that of
    /// the chosen model, best first. O(M).
    fn contenders(&self, py: Python<'_>, gap: f64) -> PyResult<Vec<Alternative>> {
        self.others(gap).map_err(|e| to_py(py, &e))
    }

    /// The models that may not answer, in index order, each with its reasons: disabled, or stopped
    /// by the constraints. Worked out when asked for: O(M).
    #[getter]
    fn excluded(&self, py: Python<'_>) -> PyResult<Vec<Exclusion>> {
        let pool = self.snapshot.pool();
        let compiled = self.asked.compiled(&self.snapshot);
        let excluded = self
            .costs()
            .and_then(|costs| compiled.excluded(pool, self.asked.tokens, &costs))
            .map_err(|e| to_py(py, &e))?;
        Ok(excluded
            .into_iter()
            .map(|e| Exclusion {
                model: pool.names()[e.model as usize].to_string(),
                index: e.model,
                reasons: e.reasons,
            })
            .collect())
    }

    fn __repr__(&self) -> String {
        format!(
            "Decision(model={:?}, predicted_loss={:.4}, cost={}, cluster={}, cost_weight={})",
            self.model(),
            self.choice.predicted_loss,
            self.choice.cost,
            self.choice.cluster,
            self.asked.cost_weight
        )
    }
}

/// A model that could have answered instead.
#[pyclass(frozen, get_all, module = "uniroute_fast")]
pub struct Alternative {
    /// Name of the model.
    model: String,
    /// Its index in `router.models` at the time of the decision.
    index: u32,
    /// Its predicted loss on the prompt.
    predicted_loss: f32,
    /// Its cost.
    cost: f64,
    /// What the rule minimises: predicted loss + cost weight x cost.
    objective: f64,
}

#[pymethods]
impl Alternative {
    fn __repr__(&self) -> String {
        format!(
            "Alternative(model={:?}, predicted_loss={:.4}, cost={}, objective={:.4})",
            self.model, self.predicted_loss, self.cost, self.objective
        )
    }
}

/// A model that may not answer.
#[pyclass(frozen, get_all, module = "uniroute_fast")]
pub struct Exclusion {
    /// Name of the model.
    model: String,
    /// Its index in `router.models` at the time of the decision.
    index: u32,
    /// Why, each starting with the argument of `Constraints` that says so, or "disabled".
    reasons: Vec<String>,
}

#[pymethods]
impl Exclusion {
    fn __repr__(&self) -> String {
        format!(
            "Exclusion(model={:?}, reasons={:?})",
            self.model, self.reasons
        )
    }
}

/// Which model answers each of many prompts: columns, made when asked for.
#[pyclass(frozen, module = "uniroute_fast")]
pub struct Decisions {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) rows: Vec<Row>,
}

impl Decisions {
    fn column<'py, T: numpy::Element>(
        &self,
        py: Python<'py>,
        value: impl Fn(&Row) -> T,
    ) -> Bound<'py, PyArray1<T>> {
        self.rows
            .iter()
            .map(value)
            .collect::<Vec<T>>()
            .into_pyarray(py)
    }
}

#[pymethods]
impl Decisions {
    fn __len__(&self) -> usize {
        self.rows.len()
    }

    /// Index of each model in `router.models` at the time of the call, uint32[N]; 4294967295 where
    /// the status is not "ok".
    #[getter]
    fn index<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        self.column(py, |row| row.choice.map_or(u32::MAX, |c| c.model))
    }

    /// Name of each model, list[str | None]; None where the status is not "ok".
    #[getter]
    fn models<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let pool = self.snapshot.pool();
        let mut names: Vec<Option<Bound<'py, PyString>>> = vec![None; pool.len()];
        let rows = self.rows.iter().map(|row| {
            row.choice.map(|c| {
                let at = c.model as usize;
                names[at]
                    .get_or_insert_with(|| PyString::new(py, &pool.names()[at]))
                    .clone()
            })
        });
        PyList::new(py, rows.collect::<Vec<_>>())
    }

    /// Predicted loss of each chosen model, float32[N]; NaN where the status is not "ok".
    #[getter]
    fn predicted_loss<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        self.column(py, |row| row.choice.map_or(f32::NAN, |c| c.predicted_loss))
    }

    /// Cost of each chosen model, float64[N]; NaN where the status is not "ok".
    #[getter]
    fn cost<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.column(py, |row| row.choice.map_or(f64::NAN, |c| c.cost))
    }

    /// Cluster of each prompt, uint32[N]; 4294967295 where the status is not "ok".
    #[getter]
    fn cluster<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        self.column(py, |row| row.choice.map_or(u32::MAX, |c| c.cluster))
    }

    /// Share of each prompt's feature weight that the embedder knows, float32[N].
    #[getter]
    fn coverage<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        self.column(py, |row| row.coverage)
    }

    /// Whether each prompt was routed, bool[N].
    #[getter]
    fn ok<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        self.column(py, |row| row.choice.is_some())
    }

    /// Whether each model is the caller's fallback, because none met the constraints, bool[N].
    #[getter]
    fn fallback<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        self.column(py, |row| row.choice.is_some_and(|c| c.fallback))
    }

    /// Whether each model is `current_model`, though another one would have won without the switching
    /// cost, bool[N].
    #[getter]
    fn stayed<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        self.column(py, |row| row.choice.is_some_and(|c| c.stayed))
    }

    /// What became of each prompt, list[str]: "ok", or why it could not be routed.
    #[getter]
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let name = |row: &Row| match (row.status, row.choice) {
            (Status::Ok, None) => "no_candidate",
            (status, _) => status_name(status),
        };
        PyList::new(py, self.rows.iter().map(name))
    }

    fn __repr__(&self) -> String {
        let ok = self.rows.iter().filter(|row| row.choice.is_some()).count();
        format!("Decisions({} prompts, {ok} routed)", self.rows.len())
    }
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Decision>()?;
    m.add_class::<Alternative>()?;
    m.add_class::<Exclusion>()?;
    m.add_class::<Decisions>()
}
