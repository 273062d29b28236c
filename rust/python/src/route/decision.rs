//! `Decision` and `Decisions`: what was chosen, and what else there was.

use std::collections::BTreeMap;
use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyType};
use uniroute_core::clusters::cluster_map::{ClusterMap, Phi};
use uniroute_core::pool::hull::Candidate;
use uniroute_core::pool::{Pool, names};
use uniroute_core::request::{Request, constraints};
use uniroute_core::route::choose::{self, Blend, Choice};
use uniroute_core::route::explain;
use uniroute_core::route::snapshot::Row;
use uniroute_core::text::lexical::Status;
use uniroute_core::{Error, Result};

use crate::checks::scalars::{number, wrong};
use crate::checks::texts::status_name;
use crate::request::asked::Asked;
use crate::run::released;

/// Which model answers one prompt.
///
/// Pickled, it keeps what it says of the model that was chosen; the pool it was chosen from stays
/// behind, and with it `alternatives`, `contenders` and `excluded`.
#[pyclass(frozen, module = "uniroute_fast")]
pub struct Decision {
    pub(crate) choice: Choice,
    pub(crate) coverage: f32,
    pub(crate) cost_weight: f64,
    pub(crate) tokens: Option<u64>,
    pub(crate) origin: Origin,
}

/// Where a decision comes from.
pub(crate) enum Origin {
    /// It was made here.
    Pool(Grounds),
    /// It was pickled: the model's name, and the version of the pool.
    Pickle(String, u64),
}

/// What a decision was made on, which tells what else there was. The pool shares with its later
/// versions whatever a change left alone; what only speeds up further decisions is not held.
pub(crate) struct Grounds {
    pub(crate) pool: Arc<Pool>,
    pub(crate) map: Arc<ClusterMap>,
    pub(crate) version: u64,
    /// `None` where one cluster decides alone.
    pub(crate) phi: Option<Phi>,
    pub(crate) asked: Asked,
}

impl Grounds {
    /// The prompt's clusters.
    fn blend(&self, cluster: u32) -> Blend<'_> {
        match &self.phi {
            None => Blend::One(cluster),
            Some(phi) => Blend::Mixed { phi, cluster },
        }
    }

    /// The other models that may answer, at most `gap` behind the chosen one, best first.
    fn others(&self, choice: &Choice, gap: f64) -> Result<Vec<Alternative>> {
        let mut ranked = Vec::new();
        let request = Request {
            ranked: usize::MAX,
            ..self.asked.request()
        };
        choose::rank(
            &self.pool,
            self.blend(choice.cluster),
            &request,
            &mut ranked,
        )?;
        let weight = self.asked.cost_weight;
        let limit = f64::from(choice.predicted_loss) + weight * choice.cost + gap;
        ranked.retain(|c| c.model != choice.model && c.objective(weight) <= limit);
        Ok(ranked.iter().map(|c| self.alternative(c)).collect())
    }

    fn alternative(&self, candidate: &Candidate) -> Alternative {
        Alternative {
            model: self.name(candidate.model),
            index: candidate.model,
            predicted_loss: candidate.loss as f32,
            cost: candidate.cost,
            objective: candidate.objective(self.asked.cost_weight),
        }
    }

    fn exclusion(&self, excluded: constraints::Exclusion) -> Exclusion {
        Exclusion {
            model: self.name(excluded.model),
            index: excluded.model,
            reasons: excluded.reasons,
        }
    }

    fn name(&self, model: u32) -> String {
        self.pool.names()[model as usize].to_string()
    }
}

/// What `Explanation` in Python is made of.
#[derive(IntoPyObject)]
pub(crate) struct Explained {
    clusters: Vec<(u32, f32)>,
    backgrounds: Vec<u32>,
    out_of_distribution: f64,
    alternatives: Vec<Alternative>,
    excluded: Vec<Exclusion>,
    runner_up: Option<Alternative>,
    margin: Option<f64>,
    flip_up: Option<(f64, String)>,
    flip_down: Option<(f64, String)>,
    flip_price: Option<f64>,
}

impl Decision {
    /// What it was made on; `wanted` is what that is asked for.
    fn grounds(&self, wanted: &'static str) -> Result<&Grounds> {
        match &self.origin {
            Origin::Pool(grounds) => Ok(grounds),
            Origin::Pickle(..) => Err(Error::invalid(
                wanted,
                "asked of a decision that was pickled, which left its pool behind",
                "the decision as `route` returned it",
            )),
        }
    }

    fn others(&self, wanted: &'static str, gap: f64) -> Result<Vec<Alternative>> {
        self.grounds(wanted)?.others(&self.choice, gap)
    }
}

#[pymethods]
impl Decision {
    /// Name of the model.
    #[getter]
    fn model(&self) -> &str {
        match &self.origin {
            Origin::Pool(grounds) => &grounds.pool.names()[self.choice.model as usize],
            Origin::Pickle(model, _) => model,
        }
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
        self.cost_weight
    }

    /// Length of the prompt in tokens, as given or estimated; None where it was not told.
    #[getter]
    fn tokens(&self) -> Option<u64> {
        self.tokens
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
        match &self.origin {
            Origin::Pool(grounds) => grounds.version,
            Origin::Pickle(_, version) => *version,
        }
    }

    /// The other models that may answer, best first. Worked out when asked for: O(M log M).
    #[getter]
    fn alternatives(&self, py: Python<'_>) -> PyResult<Vec<Alternative>> {
        released(py, || self.others("alternatives", f64::INFINITY))
    }

    /// Those alternatives whose predicted loss + cost weight x cost is at most `gap` above that of
    /// the chosen model, best first. O(M).
    fn contenders(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = one_gap)] gap: f64,
    ) -> PyResult<Vec<Alternative>> {
        released(py, || self.others("contenders", gap))
    }

    /// The models that may not answer, in index order, each with its reasons: disabled, or stopped
    /// by the constraints. Worked out when asked for: O(M).
    #[getter]
    fn excluded(&self, py: Python<'_>) -> PyResult<Vec<Exclusion>> {
        released(py, || {
            let grounds = self.grounds("excluded")?;
            let (blend, request) = (grounds.blend(self.choice.cluster), grounds.asked.request());
            let (excluded, _) = explain::excluded(&grounds.pool, blend, &request, usize::MAX)?;
            Ok(excluded.into_iter().map(|e| grounds.exclusion(e)).collect())
        })
    }

    /// What stands behind the decision: the parts of `Explanation`.
    fn _explain(&self, py: Python<'_>) -> PyResult<Explained> {
        released(py, || {
            let grounds = self.grounds("explanation")?;
            let (blend, request) = (grounds.blend(self.choice.cluster), grounds.asked.request());
            let (pool, map, choice) = (&grounds.pool, &grounds.map, &self.choice);
            let found = explain::explain(pool, map, blend, &request, choice, usize::MAX)?;
            let flip = |flip: explain::Flip| (flip.cost_weight, grounds.name(flip.model));
            let alternatives = found.alternatives.iter();
            let excluded = found.excluded.into_iter();
            Ok(Explained {
                clusters: found.clusters,
                backgrounds: found.backgrounds,
                out_of_distribution: found.out_of_distribution,
                alternatives: alternatives.map(|c| grounds.alternative(c)).collect(),
                excluded: excluded.map(|e| grounds.exclusion(e)).collect(),
                runner_up: found.runner_up.map(|c| grounds.alternative(&c)),
                margin: found.margin,
                flip_up: found.flip_up.map(flip),
                flip_down: found.flip_down.map(flip),
                flip_price: found.flip_price,
            })
        })
    }

    fn __repr__(&self) -> String {
        format!(
            "Decision(model={:?}, predicted_loss={:.4}, cost={}, cluster={}, cost_weight={})",
            self.model(),
            self.choice.predicted_loss,
            self.choice.cost,
            self.choice.cluster,
            self.cost_weight
        )
    }

    fn __copy__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __deepcopy__(this: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        this
    }

    fn __reduce__<'py>(this: &Bound<'py, Self>) -> PyResult<Reduced<'py, PickledDecision>> {
        let own = this.get();
        let choice = own.choice;
        let parts = (
            own.model().to_owned(),
            own.version(),
            (choice.model, choice.cluster),
            (choice.predicted_loss, choice.cost),
            (choice.fallback, choice.stayed),
            (own.coverage, own.cost_weight, own.tokens),
        );
        Ok((this.get_type().getattr("_unpickled")?, (parts,)))
    }

    /// The decision that was pickled as these parts.
    #[classmethod]
    fn _unpickled(_class: &Bound<'_, PyType>, parts: PickledDecision) -> Self {
        let (model, version, place, value, flags, (coverage, cost_weight, tokens)) = parts;
        Self {
            choice: Choice {
                model: place.0,
                cluster: place.1,
                predicted_loss: value.0,
                cost: value.1,
                fallback: flags.0,
                stayed: flags.1,
            },
            coverage,
            cost_weight,
            tokens,
            origin: Origin::Pickle(model, version),
        }
    }
}

/// A way to unpickle, and what it takes.
type Reduced<'py, T> = (Bound<'py, PyAny>, (T,));

/// Name and version; index and cluster; loss and cost; fallback and stayed; coverage, cost weight and
/// tokens.
type PickledDecision = (
    String,
    u64,
    (u32, u32),
    (f32, f64),
    (bool, bool),
    (f32, f64, Option<u64>),
);

/// The argument of `contenders`.
fn one_gap(object: &Bound<'_, PyAny>) -> PyResult<f64> {
    number(object).ok_or_else(|| wrong(object, "gap", "one number"))
}

/// A model that could have answered instead.
#[pyclass(frozen, get_all, module = "uniroute_fast.decisions")]
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

    fn __reduce__<'py>(this: &Bound<'py, Self>) -> PyResult<Reduced<'py, PickledAlternative>> {
        let own = this.get();
        let value = (own.predicted_loss, own.cost, own.objective);
        let parts = (own.model.clone(), own.index, value);
        Ok((this.get_type().getattr("_unpickled")?, (parts,)))
    }

    /// The alternative that was pickled as these parts.
    #[classmethod]
    fn _unpickled(_class: &Bound<'_, PyType>, parts: PickledAlternative) -> Self {
        let (model, index, (predicted_loss, cost, objective)) = parts;
        Self {
            model,
            index,
            predicted_loss,
            cost,
            objective,
        }
    }
}

/// Name, index; loss, cost and objective.
type PickledAlternative = (String, u32, (f32, f64, f64));

/// A model that may not answer.
#[pyclass(frozen, get_all, module = "uniroute_fast.decisions")]
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

    fn __reduce__<'py>(this: &Bound<'py, Self>) -> PyResult<Reduced<'py, PickledExclusion>> {
        let own = this.get();
        let parts = (own.model.clone(), own.index, own.reasons.clone());
        Ok((this.get_type().getattr("_unpickled")?, (parts,)))
    }

    /// The exclusion that was pickled as these parts.
    #[classmethod]
    fn _unpickled(_class: &Bound<'_, PyType>, parts: PickledExclusion) -> Self {
        let (model, index, reasons) = parts;
        Self {
            model,
            index,
            reasons,
        }
    }
}

/// Name, index and reasons.
type PickledExclusion = (String, u32, Vec<String>);

/// Which model answers each of many prompts: columns, made when asked for.
///
/// Pickled, they are the same columns.
#[pyclass(frozen, module = "uniroute_fast")]
pub struct Decisions {
    pub(crate) names: Names,
    pub(crate) rows: Vec<Row>,
}

/// What the chosen models are called.
pub(crate) enum Names {
    /// In the pool that they were chosen from.
    Pool(Arc<names::Names>),
    /// Those that were pickled, by index.
    Pickle(BTreeMap<u32, String>),
}

impl Names {
    fn of(&self, model: u32) -> &str {
        match self {
            Self::Pool(names) => &names[model as usize],
            Self::Pickle(names) => &names[&model],
        }
    }
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
        let chosen = self.rows.iter().filter_map(|row| row.choice);
        let most = chosen.map(|c| c.model as usize + 1).max().unwrap_or(0);
        let mut names: Vec<Option<Bound<'py, PyString>>> = vec![None; most];
        let rows = self.rows.iter().map(|row| {
            row.choice.map(|c| {
                let name = || PyString::new(py, self.names.of(c.model));
                names[c.model as usize].get_or_insert_with(name).clone()
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

    fn __copy__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __deepcopy__(this: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        this
    }

    fn __reduce__<'py>(this: &Bound<'py, Self>) -> PyResult<Reduced<'py, Columns<'py>>> {
        let (py, own) = (this.py(), this.get());
        let chosen = own.rows.iter().filter_map(|row| row.choice);
        let names = chosen.map(|c| (c.model, own.names.of(c.model).to_owned()));
        let state = own.column(py, |row| row.status as u8);
        let flags = own.column(py, |row| {
            let flags = row.choice.map(|c| [true, c.fallback, c.stayed]);
            let bits = flags.unwrap_or_default().map(u8::from);
            bits[0] | bits[1] << 1 | bits[2] << 2
        });
        let parts = (
            names.collect(),
            (state, flags),
            (own.index(py), own.cluster(py)),
            (own.predicted_loss(py), own.cost(py), own.coverage(py)),
        );
        Ok((this.get_type().getattr("_unpickled")?, (parts,)))
    }

    /// The decisions that were pickled as these columns.
    #[classmethod]
    fn _unpickled(_class: &Bound<'_, PyType>, parts: Columns<'_>) -> PyResult<Self> {
        let (names, (state, flags), (index, cluster), (loss, cost, coverage)) = parts;
        let (state, flags) = (state.to_vec()?, flags.to_vec()?);
        let (index, cluster) = (index.to_vec()?, cluster.to_vec()?);
        let (loss, cost, coverage) = (loss.to_vec()?, cost.to_vec()?, coverage.to_vec()?);
        let row = |i: usize| Row {
            status: Status::ALL[usize::from(state[i])],
            coverage: coverage[i],
            choice: (flags[i] & 1 > 0).then(|| Choice {
                model: index[i],
                cluster: cluster[i],
                predicted_loss: loss[i],
                cost: cost[i],
                fallback: flags[i] & 2 > 0,
                stayed: flags[i] & 4 > 0,
            }),
        };
        Ok(Self {
            names: Names::Pickle(names),
            rows: (0..state.len()).map(row).collect(),
        })
    }
}

/// Names by index; status and flags; index and cluster; loss, cost and coverage.
type Columns<'py> = (
    BTreeMap<u32, String>,
    (Bound<'py, PyArray1<u8>>, Bound<'py, PyArray1<u8>>),
    (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<u32>>),
    (
        Bound<'py, PyArray1<f32>>,
        Bound<'py, PyArray1<f64>>,
        Bound<'py, PyArray1<f32>>,
    ),
);

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Decision>()?;
    m.add_class::<Alternative>()?;
    m.add_class::<Exclusion>()?;
    m.add_class::<Decisions>()
}
