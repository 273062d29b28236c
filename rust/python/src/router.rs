//! `Router` and `Snapshot`: the path of a prompt, and the pool that changes.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use uniroute_core::artifact::{self, Artifact};
use uniroute_core::centroids::Centroids;
use uniroute_core::changes::Action;
use uniroute_core::choice;
use uniroute_core::cluster_map::{ClusterMap, Head, Softmax};
use uniroute_core::lexical::Status;
use uniroute_core::metadata::Metadata;
use uniroute_core::metering::Usage;
use uniroute_core::persist::{self, Extra};
use uniroute_core::profiles::Pool;
use uniroute_core::router::{Prompts, Request, Requests, Row, Scratch, Snapshot, estimate_tokens};
use uniroute_core::{Error, Result, drift, router as core};

use crate::arrays::array;
use crate::asked::{
    Arguments, Asked, number, one_cost, one_cost_weight, refuse_booleans, token_counts,
};
use crate::constraints::strings;
use crate::decision::{Decision, Decisions};
use crate::drift::DriftReport;
use crate::errors::{to_py, unroutable, wrong_type};
use crate::lexical::LexicalEmbedder;
use crate::run::detached;
use crate::tensors::{from_tensors, to_tensors};
use crate::text::{Texts, status_name};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One head of a cluster map, as Python gives it: `("nearest", centroids)` or
/// `("softmax", weights, bias, floor)`.
#[derive(FromPyObject)]
enum HeadParts<'py> {
    Softmax(String, Bound<'py, PyAny>, Bound<'py, PyAny>, f32),
    Nearest(String, Bound<'py, PyAny>),
}

impl HeadParts<'_> {
    fn to_head(&self, py: Python<'_>) -> PyResult<Head> {
        match self {
            Self::Nearest(kind, centroids) if kind == "nearest" => {
                let centroids = array::<f32>(centroids, "centroids", 2, "[n_clusters, dim]")?;
                let dim = centroids.shape()[1];
                Centroids::new(centroids.as_slice()?, dim).map(Head::Nearest)
            }
            Self::Softmax(kind, weights, bias, floor) if kind == "softmax" => {
                let weights = array::<f32>(weights, "weights", 2, "[n_clusters, dim]")?;
                let bias = array::<f32>(bias, "bias", 1, "[n_clusters]")?;
                Softmax::new(weights.as_slice()?, bias.as_slice()?, *floor).map(Head::Softmax)
            }
            Self::Nearest(kind, ..) | Self::Softmax(kind, ..) => Err(Error::invalid(
                "heads",
                format!("a head of kind {kind:?} with other parts than that kind has"),
                "(\"nearest\", centroids) or (\"softmax\", weights, bias, floor)",
            )),
        }
        .map_err(|e| to_py(py, &e))
    }
}

/// What a router is made from.
#[derive(FromPyObject)]
enum HeadsOrLoaded<'py> {
    Loaded(Bound<'py, Loaded>),
    Heads(Vec<HeadParts<'py>>),
}

/// Prompts as one call got them: texts, or embeddings given or made by a foreign embedder.
enum Input<'py> {
    Texts(Texts<'py>),
    Embeddings(numpy::PyReadonlyArrayDyn<'py, f32>),
}

impl Input<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Embeddings(embeddings) => embeddings.shape()[0],
        }
    }

    /// The texts whose tokens are to be counted here: those that the core does not see.
    fn measured<'a, T>(&self, texts: Option<&'a T>) -> Option<&'a T> {
        texts.filter(|_| matches!(self, Self::Embeddings(_)))
    }
}

/// An immutable view of a router at one moment: the same methods for routing, and always the same
/// answers, whatever becomes of the router.
///
/// Made by `Router.snapshot`. It shares what it holds with the router: O(1) to make and to keep,
/// apart from what has changed since.
#[pyclass(frozen, name = "Snapshot", module = "uniroute_fast")]
pub struct View {
    snapshot: Arc<Snapshot>,
    /// Whether what it routes counts as the router's traffic.
    counted: bool,
}

impl View {
    /// What embeds texts: a `LexicalEmbedder`, or any object with `embed(texts)`.
    fn foreign(&self) -> Option<&Py<PyAny>> {
        self.snapshot.companion()?.downcast_ref()
    }

    fn input<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Input<'py>> {
        let dim = self.snapshot.map().dim();
        let made;
        let embeddings = match (texts, embeddings) {
            (None, Some(embeddings)) => embeddings,
            (Some(texts), None) => {
                if self.snapshot.embedder().is_some() {
                    return Texts::collect(texts).map(Input::Texts);
                }
                let Some(embedder) = self.foreign() else {
                    let expected = "embeddings=: this router has no embedder";
                    return Err(to_py(
                        py,
                        &Error::invalid("texts", "texts were given", expected),
                    ));
                };
                made = embedder.bind(py).call_method1("embed", (texts,))?;
                &made
            }
            _ => {
                let problem = if texts.is_some() {
                    "both were given"
                } else {
                    "neither was given"
                };
                let error = Error::invalid("texts, embeddings", problem, "exactly one of them");
                return Err(to_py(py, &error));
            }
        };
        let embeddings = array::<f32>(embeddings, "embeddings", 2, &format!("[n, {dim}]"))?;
        if embeddings.shape()[1] != dim {
            let found = format!("shape {:?}", embeddings.shape());
            let error = Error::invalid("embeddings", found, format!("shape [n, {dim}]"));
            return Err(to_py(py, &error));
        }
        Ok(Input::Embeddings(embeddings))
    }

    /// Runs `work` on the prompts of a call, without the GIL.
    fn with_prompts<T: Send>(
        &self,
        py: Python<'_>,
        input: &Input<'_>,
        work: impl FnOnce(&Snapshot, Prompts<'_>, &uniroute_core::threads::Run<'_>) -> Result<T> + Send,
    ) -> PyResult<T> {
        let rows;
        let prompts = match input {
            Input::Texts(texts) => {
                rows = texts.rows();
                Prompts::Texts(&rows)
            }
            Input::Embeddings(embeddings) => Prompts::Embeddings(embeddings.as_slice()?),
        };
        detached(py, |run| work(&self.snapshot, prompts, run))
    }
}

#[pymethods]
impl View {
    /// Names of the models, in index order.
    #[getter]
    fn models(&self) -> Vec<String> {
        let names = self.snapshot.pool().names();
        names.iter().map(ToString::to_string).collect()
    }

    /// Cost of each model, float64[M], in index order.
    #[getter]
    fn costs<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        PyArray1::from_slice(py, self.snapshot.pool().costs())
    }

    /// Profiles Psi, float32[K, M].
    #[getter]
    fn profiles<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let profiles = self.snapshot.pool().profiles();
        let flat: Vec<f32> = (0..profiles.clusters())
            .flat_map(|k| profiles.row(k))
            .collect();
        flat.into_pyarray(py)
            .reshape([profiles.clusters(), self.snapshot.pool().len()])
    }

    /// Which models may be chosen, bool[M], in index order.
    #[getter]
    fn enabled<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        let enabled = self.snapshot.pool().enabled();
        let switches: Vec<bool> = (0..enabled.len()).map(|m| enabled.contains(m)).collect();
        switches.into_pyarray(py)
    }

    /// Which models are charged by the token, bool[M], in index order.
    #[getter]
    fn metered<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        let pool = self.snapshot.pool();
        let metered = |m| pool.metering().is_some_and(|all| all.metered().contains(m));
        (0..pool.len())
            .map(metered)
            .collect::<Vec<bool>>()
            .into_pyarray(py)
    }

    /// Number of clusters: length of Phi.
    #[getter]
    fn n_clusters(&self) -> usize {
        self.snapshot.map().clusters()
    }

    /// Dimension of the embeddings.
    #[getter]
    fn dim(&self) -> usize {
        self.snapshot.map().dim()
    }

    /// Number of changes to the router before this view was taken.
    #[getter]
    fn version(&self) -> u64 {
        self.snapshot.version()
    }

    /// What embeds texts, or None.
    #[getter]
    fn embedder(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.foreign().map(|embedder| embedder.clone_ref(py))
    }

    /// What is known of one model; raises `UnknownModelError` if there is none of that name.
    fn info(&self, py: Python<'_>, name: &str) -> PyResult<ModelInfo> {
        let pool = self.snapshot.pool();
        let index = pool.find("name", name).map_err(|e| to_py(py, &e))?;
        Ok(ModelInfo::of(pool, index as usize))
    }

    /// As `Router.route`.
    #[pyo3(signature = (
        text=None, cost_weight=0.0, *, embeddings=None, constraints=None, tokens=None,
        fallback=None, current_model=None, switch_cost=None, cached_tokens=None
    ))]
    #[allow(clippy::too_many_arguments)]
    fn route<'py>(
        &self,
        py: Python<'py>,
        text: Option<&Bound<'py, PyAny>>,
        #[pyo3(from_py_with = one_cost_weight)] cost_weight: f64,
        embeddings: Option<&Bound<'py, PyAny>>,
        constraints: Option<&Bound<'py, PyAny>>,
        tokens: Option<&Bound<'py, PyAny>>,
        fallback: Option<&Bound<'py, PyAny>>,
        current_model: Option<&Bound<'py, PyAny>>,
        switch_cost: Option<&Bound<'py, PyAny>>,
        cached_tokens: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Decision> {
        let arguments = Arguments {
            constraints,
            tokens,
            fallback,
            current_model,
            switch_cost,
            cached_tokens,
        };
        let asked = arguments.one(py, &self.snapshot, cost_weight)?;
        // The common case first: one string, and an embedder in Rust.
        if let (Some(text), None) = (text, embeddings)
            && let Ok(text) = text.cast::<PyString>()
            && self.snapshot.embedder().is_some()
        {
            let text = crate::text::row(text);
            return self.decide(py, asked, text.ok(), |snapshot, request, scratch| {
                snapshot.route_text(text, request, scratch)
            });
        }
        let texts = match text {
            Some(text) => {
                let Ok(string) = text.cast::<PyString>() else {
                    let found = format!("a {}", text.get_type().name()?);
                    return Err(wrong_type(
                        py,
                        "text",
                        &found,
                        "a str; `route_batch` takes many",
                    ));
                };
                Some((PyList::new(py, [text])?.into_any(), string))
            }
            None => None,
        };
        let embeddings = match embeddings {
            // One embedding may come as [dim] or as [1, dim].
            Some(one) => {
                let numpy = PyModule::import(py, "numpy")?;
                Some(numpy.call_method1("atleast_2d", (one,))?)
            }
            None => None,
        };
        match self.input(
            py,
            texts.as_ref().map(|(list, _)| list),
            embeddings.as_ref(),
        )? {
            Input::Embeddings(embedding) => {
                let embedding = embedding.as_slice()?;
                let text = texts.and_then(|(_, string)| crate::text::row(string).ok());
                self.decide(py, asked, text, |snapshot, request, scratch| {
                    snapshot.route_embedding(embedding, request, scratch)
                })
            }
            Input::Texts(_) => unreachable!("a native embedder took the first branch"),
        }
    }

    /// As `Router.route_batch`.
    #[pyo3(signature = (
        texts=None, cost_weight=None, *, embeddings=None, constraints=None, tokens=None,
        fallback=None, current_model=None, switch_cost=None, cached_tokens=None
    ))]
    #[allow(clippy::too_many_arguments)]
    fn route_batch<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        cost_weight: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
        constraints: Option<&Bound<'py, PyAny>>,
        tokens: Option<&Bound<'py, PyAny>>,
        fallback: Option<&Bound<'py, PyAny>>,
        current_model: Option<&Bound<'py, PyAny>>,
        switch_cost: Option<&Bound<'py, PyAny>>,
        cached_tokens: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Decisions> {
        let input = self.input(py, texts, embeddings)?;
        let arguments = Arguments {
            constraints,
            tokens,
            fallback,
            current_model,
            switch_cost,
            cached_tokens,
        };
        let measured = input.measured(texts);
        let asked = arguments.many(py, &self.snapshot, cost_weight, input.len(), measured)?;
        let rows = self.with_prompts(py, &input, |snapshot, prompts, run| {
            asked.with(|requests| {
                let counted = self.counted;
                snapshot.route_batch(
                    prompts,
                    &Requests {
                        counted,
                        ..*requests
                    },
                    run,
                )
            })
        })?;
        let snapshot = Arc::clone(&self.snapshot);
        Ok(Decisions { snapshot, rows })
    }

    /// As `Router.predict_loss`.
    #[pyo3(signature = (texts=None, *, embeddings=None))]
    fn predict_loss<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let input = self.input(py, texts, embeddings)?;
        let shape = [input.len(), self.snapshot.pool().len()];
        let losses = self.with_prompts(py, &input, |snapshot, prompts, run| {
            let mut losses = vec![0.0; shape[0] * shape[1]];
            snapshot.predict_loss(prompts, &mut losses, run)?;
            Ok(losses)
        })?;
        losses.into_pyarray(py).reshape(shape)
    }

    /// As `Router.predict_cost`.
    #[pyo3(signature = (texts=None, *, embeddings=None, tokens=None))]
    fn predict_cost<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
        tokens: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let input = self.input(py, texts, embeddings)?;
        let tokens = token_counts(tokens, input.measured(texts))?;
        let shape = [input.len(), self.snapshot.pool().len()];
        let costs = self.with_prompts(py, &input, |snapshot, prompts, run| {
            let mut costs = vec![0.0; shape[0] * shape[1]];
            snapshot.predict_cost(prompts, tokens.as_rows(), &mut costs, run)?;
            Ok(costs)
        })?;
        costs.into_pyarray(py).reshape(shape)
    }

    /// As `Router.phi`.
    #[pyo3(signature = (texts=None, *, embeddings=None))]
    fn phi<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let input = self.input(py, texts, embeddings)?;
        let shape = [input.len(), self.snapshot.map().clusters()];
        let phi = self.with_prompts(py, &input, |snapshot, prompts, run| {
            let mut phi = vec![0.0; shape[0] * shape[1]];
            snapshot.phi(prompts, &mut phi, run)?;
            Ok(phi)
        })?;
        phi.into_pyarray(py).reshape(shape)
    }

    /// The heads of the cluster map: `("nearest", centroids)` or `("softmax", weights, bias, floor)`.
    fn heads<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let dim = self.snapshot.map().dim();
        let matrix = |values: Vec<f32>| {
            let rows = values.len() / dim;
            values.into_pyarray(py).reshape([rows, dim])
        };
        let parts = self.snapshot.map().heads().iter().map(|head| match head {
            Head::Nearest(c) => Ok(("nearest", matrix(c.as_slice().to_vec())?)
                .into_pyobject(py)?
                .into_any()),
            Head::Softmax(s) => {
                let bias = PyArray1::from_slice(py, s.bias());
                let parts = ("softmax", matrix(s.weights())?, bias, s.floor());
                Ok(parts.into_pyobject(py)?.into_any())
            }
        });
        parts.collect()
    }

    fn __repr__(&self) -> String {
        let (version, models) = (self.version(), self.snapshot.pool().len());
        format!("Snapshot(version={version}, {models} models)")
    }
}

impl View {
    /// Routes one prompt without the GIL, in this thread's scratch.
    fn decide(
        &self,
        py: Python<'_>,
        asked: Asked,
        text: Option<&str>,
        route: impl FnOnce(&Snapshot, &Request<'_>, &mut Scratch) -> Result<Row> + Send,
    ) -> PyResult<Decision> {
        let tokens = asked.tokens.or_else(|| text.map(estimate_tokens));
        let asked = Asked { tokens, ..asked };
        let snapshot = &self.snapshot;
        let request = Request {
            counted: self.counted,
            ..asked.request()
        };
        let routed = py.detach(|| {
            SCRATCH.with_borrow_mut(|scratch| {
                let row = route(snapshot, &request, scratch)?;
                if row.status == Status::Ok && row.choice.is_none() {
                    let (pool, blend) = (snapshot.pool(), snapshot.blend(scratch.phi()));
                    let costs = choice::costs(pool, blend, tokens)?;
                    return Err(asked.compiled(snapshot).nobody(pool, tokens, &costs));
                }
                let phi = snapshot
                    .map()
                    .single_nearest()
                    .is_none()
                    .then(|| scratch.phi().clone());
                Ok((row, phi))
            })
        });
        let (row, phi) = routed.map_err(|e| to_py(py, &e))?;
        let Some(choice) = row.choice else {
            let name = status_name(row.status);
            let expected = "text that the embedder knows; `route_batch` gives each row its status";
            return Err(unroutable(
                py,
                &format!("text: {name}; expected {expected}"),
            ));
        };
        Ok(Decision {
            snapshot: Arc::clone(snapshot),
            choice,
            phi,
            asked,
            coverage: row.coverage,
        })
    }
}

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
    fn of(pool: &Pool, index: usize) -> Self {
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

/// One change to a router.
#[pyclass(frozen, get_all, module = "uniroute_fast", name = "Change")]
pub struct PyChange {
    /// Version that the change made.
    version: u64,
    /// When, in seconds since 1970.
    time: f64,
    /// "add", "remove", "cost", "profile", "enable", "disable", "metadata", "usage" or "replace".
    action: &'static str,
    /// Names of the models concerned, the first 8.
    models: Vec<String>,
    /// How many models were concerned.
    count: usize,
}

#[pymethods]
impl PyChange {
    fn __repr__(&self) -> String {
        format!(
            "Change(version={}, action={:?}, models={:?}, count={})",
            self.version, self.action, self.models, self.count
        )
    }
}

/// Routes prompts over a pool of models; see `uniroute_fast.Router`, which adds fitting.
#[pyclass(subclass, frozen, module = "uniroute_fast._native")]
pub struct Router {
    pub(crate) core: Arc<core::Router>,
}

impl Router {
    fn now(&self) -> View {
        let snapshot = self.core.snapshot();
        View {
            snapshot,
            counted: true,
        }
    }

    /// Makes the next pool from the current one, without the GIL.
    fn change(
        &self,
        py: Python<'_>,
        action: Action,
        models: &[&str],
        change: impl FnOnce(&Pool) -> Result<Pool> + Send,
    ) -> PyResult<()> {
        detached(py, |_| self.core.change(action, models, change))
    }
}

#[pymethods]
impl Router {
    #[new]
    #[pyo3(signature = (embedder, heads))]
    fn new(
        py: Python<'_>,
        embedder: Option<Bound<'_, PyAny>>,
        heads: HeadsOrLoaded<'_>,
    ) -> PyResult<Self> {
        let snapshot = match heads {
            HeadsOrLoaded::Loaded(loaded) => loaded.get().snapshot.clone(),
            HeadsOrLoaded::Heads(heads) => {
                let native = embedder
                    .as_ref()
                    .and_then(|e| e.cast::<LexicalEmbedder>().ok())
                    .map(|e| Arc::clone(&e.get().inner));
                let heads: Vec<Head> = heads
                    .iter()
                    .map(|h| h.to_head(py))
                    .collect::<PyResult<_>>()?;
                ClusterMap::new(heads)
                    .and_then(|map| Snapshot::new(native, map))
                    .map_err(|e| to_py(py, &e))?
            }
        };
        let snapshot = match embedder {
            Some(embedder) => snapshot.with_companion(Arc::new(embedder.unbind())),
            None => snapshot,
        };
        let core = Arc::new(core::Router::new(snapshot));
        Ok(Self { core })
    }

    /// An immutable view of what is current: it routes as the router does now, for ever.
    ///
    /// O(1).
    fn snapshot(&self) -> View {
        View {
            counted: false,
            ..self.now()
        }
    }

    /// What embeds texts, or None.
    #[getter]
    fn embedder(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.now().embedder(py)
    }

    /// Names of the models, in index order.
    #[getter]
    fn models(&self) -> Vec<String> {
        self.now().models()
    }

    /// Cost of each model, float64[M], in index order.
    #[getter]
    fn costs<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.now().costs(py)
    }

    /// Profiles Psi, float32[K, M].
    #[getter]
    fn profiles<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.now().profiles(py)
    }

    /// Which models may be chosen, bool[M], in index order.
    #[getter]
    fn enabled<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        self.now().enabled(py)
    }

    /// Which models are charged by the token, bool[M], in index order.
    #[getter]
    fn metered<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        self.now().metered(py)
    }

    /// Number of clusters: length of Phi.
    #[getter]
    fn n_clusters(&self) -> usize {
        self.now().n_clusters()
    }

    /// Dimension of the embeddings.
    #[getter]
    fn dim(&self) -> usize {
        self.now().dim()
    }

    /// Number of changes since the router was made or loaded.
    #[getter]
    fn version(&self) -> u64 {
        self.now().version()
    }

    /// What is known of one model; raises `UnknownModelError` if there is none of that name.
    fn info(&self, py: Python<'_>, name: &str) -> PyResult<ModelInfo> {
        self.now().info(py, name)
    }

    /// The latest changes, oldest first: those that made versions above `since`.
    ///
    /// The last 1,024 changes are kept, in this process: they are not saved.
    #[pyo3(signature = (since=0))]
    fn changes(&self, py: Python<'_>, since: u64) -> Vec<PyChange> {
        let changes = py.detach(|| self.core.changes(since)).into_iter();
        changes
            .map(|c| PyChange {
                version: c.version,
                time: c.time,
                action: c.action.name(),
                models: c.models,
                count: c.count,
            })
            .collect()
    }

    /// The heads of the cluster map: `("nearest", centroids)` or `("softmax", weights, bias, floor)`.
    fn heads<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.now().heads(py)
    }

    /// Appends models with these costs and profiles, float32[K, added]; with prices of a million
    /// tokens, float64[added] each, and what they use (see `set_usage`) where given.
    #[pyo3(signature = (names, costs, profiles, *, prices=None, usage=None))]
    fn insert(
        &self,
        py: Python<'_>,
        names: Vec<String>,
        costs: &Bound<'_, PyAny>,
        profiles: &Bound<'_, PyAny>,
        prices: Option<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
        usage: Option<(Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>)>,
    ) -> PyResult<()> {
        refuse_booleans("costs", costs)?;
        let costs = array::<f64>(costs, "costs", 1, "[models]")?;
        let profiles = array::<f32>(profiles, "profiles", 2, "[n_clusters, models]")?;
        let (costs, profiles) = (costs.as_slice()?, profiles.as_slice()?);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let prices = prices.map(|(input, output)| {
            let input = array::<f64>(&input, "input_prices", 1, "[models]")?;
            let output = array::<f64>(&output, "output_prices", 1, "[models]")?;
            Ok::<_, PyErr>((input.as_slice()?.to_vec(), output.as_slice()?.to_vec()))
        });
        let prices = prices.transpose()?;
        let usages = usage
            .map(|usage| usages(py, names.len(), &usage))
            .transpose()?;
        self.change(py, Action::Add, &names, |pool| {
            let mut pool = pool.with(&names, costs, profiles)?;
            if let Some((input, output)) = &prices {
                pool = pool.with_prices(&names, input, output)?;
            }
            if let Some(usages) = &usages {
                pool = pool.with_usage(&names, usages)?;
            }
            Ok(pool)
        })
    }

    /// Says what tokens models use: output tokens in each cluster, float32[K, n], and the line
    /// ``scale * tokens of the prompt + extra`` of their input tokens, float64[n] each.
    fn set_usage(
        &self,
        py: Python<'_>,
        names: Vec<String>,
        output_tokens: Bound<'_, PyAny>,
        input_scale: Bound<'_, PyAny>,
        input_extra: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let usages = usages(py, names.len(), &(output_tokens, input_scale, input_extra))?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.change(py, Action::Usage, &names, |pool| {
            pool.with_usage(&names, &usages)
        })
    }

    /// Takes a model out of the pool; later ones move down by one index.
    ///
    /// Raises `UnknownModelError` if there is none of that name. O(clusters x models).
    fn remove_model(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.change(py, Action::Remove, &[name], |pool| pool.without(name))
    }

    /// Changes what a model costs: a finite number, 0 or more, in the unit of the others.
    ///
    /// Raises `UnknownModelError` or `InvalidArgumentError`. O(clusters x hull), and O(models) for
    /// each cluster where the model is on the hull.
    fn set_cost(
        &self,
        py: Python<'_>,
        name: &str,
        #[pyo3(from_py_with = one_cost)] cost: f64,
    ) -> PyResult<()> {
        self.change(py, Action::Cost, &[name], |pool| pool.with_cost(name, cost))
    }

    /// Replaces a model's profile, float32[K].
    fn set_profile(&self, py: Python<'_>, name: &str, profile: &Bound<'_, PyAny>) -> PyResult<()> {
        let profile = array::<f32>(profile, "profile", 1, "[n_clusters]")?;
        let profile = profile.as_slice()?;
        self.change(py, Action::Profile, &[name], |pool| {
            pool.with_profiles(&[name], profile)
        })
    }

    /// Replaces the profiles of some models at once, float32[K, len(names)].
    fn set_profiles(
        &self,
        py: Python<'_>,
        names: Vec<String>,
        profiles: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let profiles = array::<f32>(profiles, "profiles", 2, "[n_clusters, models]")?;
        let profiles = profiles.as_slice()?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.change(py, Action::Profile, &names, |pool| {
            pool.with_profiles(&names, profiles)
        })
    }

    /// Keeps a model from being chosen until `enable_model`; it stays listed, and is saved so.
    ///
    /// Raises `UnknownModelError`. Costs what `set_cost` does.
    fn disable_model(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.change(py, Action::Disable, &[name], |pool| {
            pool.with_enabled(name, false)
        })
    }

    /// Lets a model be chosen again after `disable_model`.
    ///
    /// Raises `UnknownModelError`. Costs what `set_cost` does.
    fn enable_model(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.change(py, Action::Enable, &[name], |pool| {
            pool.with_enabled(name, true)
        })
    }

    /// Says what is known of a model beside its cost; fields that are not named stay as they are,
    /// None makes one unknown.
    ///
    /// Parameters
    /// ----------
    /// name : str
    /// tags : sequence of str
    ///     Free strings, such as "region:eu", "licence:apache-2.0", "modality:image", "tools".
    /// context_length : int
    ///     Tokens of prompt and answer together that it takes at most.
    /// latency : float
    ///     Typical seconds to answer.
    /// input_price, output_price : float
    ///     Price of a million tokens of the prompt, of the answer. Where both are known, and what
    ///     tokens the LLM uses (`fit_tokens`), it is charged by the token.
    /// cached_input_price : float
    ///     Price of a million tokens of the prompt that the LLM finds in its cache.
    ///
    /// Raises
    /// ------
    /// UnknownModelError, InvalidArgumentError, ArgumentTypeError
    ///     Another field, or a value that cannot be used.
    ///
    /// O(models).
    #[pyo3(signature = (name, **fields))]
    fn set_metadata(
        &self,
        py: Python<'_>,
        name: &str,
        fields: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let fields = Fields::parse(py, fields)?;
        self.change(py, Action::Metadata, &[name], |pool| {
            let model = pool.find("name", name)? as usize;
            let known = &pool.directory().models()[model];
            pool.with_metadata(name, fields.over(known))
        })
    }

    /// Compares prompts to come with these: `Router.set_baseline`, or with `leave_out` those that the
    /// router was fitted on.
    #[pyo3(signature = (texts=None, *, embeddings=None, window=None, leave_out=false))]
    fn measure_baseline(
        &self,
        py: Python<'_>,
        texts: Option<&Bound<'_, PyAny>>,
        embeddings: Option<&Bound<'_, PyAny>>,
        window: Option<u64>,
        leave_out: bool,
    ) -> PyResult<()> {
        let now = self.now();
        let input = now.input(py, texts, embeddings)?;
        now.with_prompts(py, &input, |snapshot, prompts, run| {
            let baseline = snapshot.baseline_of(prompts, leave_out, run)?;
            self.core
                .set_baseline(Some(baseline), window.unwrap_or(drift::WINDOW))
        })
    }

    /// Compares no longer what is routed with what the router was fitted on, nor counts it.
    fn drop_baseline(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, |_| self.core.set_baseline(None, drift::WINDOW))
    }

    /// How prompts compare with those that the router was fitted on.
    ///
    /// Parameters
    /// ----------
    /// texts : list[str], NumPy array of strings or Arrow string array, N of them, optional
    ///     Prompts to compare. Default: those routed lately, the latest complete window of them;
    ///     before the first one is complete, all so far. What `Router.route` and `route_batch` get
    ///     is counted, what a snapshot routes is not.
    /// embeddings : float32[N, D], optional
    ///     In place of `texts`.
    ///
    /// Returns
    /// -------
    /// DriftReport
    ///     `.alarm`, and the statistics behind it, each beside its threshold: `.psi` over the
    ///     clusters, `.distance` to the cluster's centre, `.coverage`. `.clusters`: the shares then
    ///     and now, those that moved most first. `.cost` beside `.cost_in_baseline_mix`.
    ///
    /// Raises
    /// ------
    /// InvalidArgumentError
    ///     There is no baseline: the router was neither fitted nor given one with `set_baseline`.
    ///
    /// Notes
    /// -----
    /// A window of prompts like those of the baseline exceeds a threshold about once in 20,000
    /// windows. The baseline is saved with the router; counts are of this process. Some
    /// milliseconds.
    #[pyo3(signature = (texts=None, *, embeddings=None))]
    fn drift(
        &self,
        py: Python<'_>,
        texts: Option<&Bound<'_, PyAny>>,
        embeddings: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<DriftReport> {
        if texts.is_none() && embeddings.is_none() {
            let (report, complete) = detached(py, |_| self.core.snapshot().drift())?;
            return Ok(DriftReport::new(&report, complete));
        }
        let now = self.now();
        let input = now.input(py, texts, embeddings)?;
        let report = now.with_prompts(py, &input, |snapshot, prompts, run| {
            snapshot.compare(prompts, run)
        })?;
        Ok(DriftReport::new(&report, true))
    }

    /// Puts everything that another router holds in place of this one's, at once: embedder,
    /// cluster map and models. Calls under way end with what they began with.
    fn swap_in(&self, py: Python<'_>, other: &Bound<'_, Router>) -> PyResult<()> {
        let snapshot = other.get().core.snapshot();
        detached(py, |_| self.core.replace(&snapshot))
    }

    /// Choose the LLM that answers one prompt.
    ///
    /// Parameters
    /// ----------
    /// text : str
    /// cost_weight : float
    ///     Loss that one unit of cost is worth: finite, 0 or more. 0 asks for quality alone.
    /// embeddings : float32[D] or float32[1, D], optional
    ///     In place of `text`.
    /// constraints : Constraints, optional
    ///     What the LLM must meet.
    /// tokens : int, optional
    ///     Length of the prompt in tokens, for `fit_context` and for LLMs charged by the token.
    ///     Default: a quarter of the UTF-8 bytes of `text`, rounded up.
    /// fallback : str, optional
    ///     The LLM to choose where none meets the constraints, whether it meets them or not.
    /// current_model : str, optional
    ///     The LLM that this conversation is with. It is left only for one that is better by more
    ///     than `cost_weight` times the cost of the switch; one that the pool no longer has, or that
    ///     may not answer, is left at no cost.
    /// switch_cost : float, optional
    ///     What a switch costs, in the unit of costs, 0 or more: the prompt cache that is lost.
    /// cached_tokens : int, optional
    ///     In place of `switch_cost`: tokens of the prompt that `current_model` has in its cache.
    ///     Their value is the difference of its `input_price` and its `cached_input_price`.
    ///
    /// Returns
    /// -------
    /// Decision
    ///     `.model`, `.index`, `.predicted_loss`, `.cost`, `.cluster`, `.coverage`, and
    ///     `.alternatives`: the other models that may answer, best first. `.excluded`: those that
    ///     may not, with the reasons. `.fallback`: whether it is the caller's fallback.
    ///     `.stayed`: whether it is `current_model`, though another one would have won otherwise.
    ///
    /// Raises
    /// ------
    /// UnroutableError
    ///     The text is empty, blank or not valid Unicode, or has nothing the embedder knows.
    /// EmptyPoolError
    ///     There is no model.
    /// NoCandidateError
    ///     No model may answer, and no fallback is named or it is disabled.
    /// UnknownModelError
    ///     A fallback that is not in the pool.
    /// InvalidArgumentError, ArgumentTypeError
    ///     A cost weight or an embedding that cannot be used.
    ///
    /// Notes
    /// -----
    /// Linear in the text; then O(K D + log hull) where one cluster decides, O(K D + K M) where
    /// several do. Constraints add O(M) where they exclude the winner. The GIL is released.
    ///
    /// Examples
    /// --------
    /// See `uniroute_fast.Router`.
    #[pyo3(signature = (
        text=None, cost_weight=0.0, *, embeddings=None, constraints=None, tokens=None,
        fallback=None, current_model=None, switch_cost=None, cached_tokens=None
    ))]
    #[allow(clippy::too_many_arguments)]
    fn route<'py>(
        &self,
        py: Python<'py>,
        text: Option<&Bound<'py, PyAny>>,
        #[pyo3(from_py_with = one_cost_weight)] cost_weight: f64,
        embeddings: Option<&Bound<'py, PyAny>>,
        constraints: Option<&Bound<'py, PyAny>>,
        tokens: Option<&Bound<'py, PyAny>>,
        fallback: Option<&Bound<'py, PyAny>>,
        current_model: Option<&Bound<'py, PyAny>>,
        switch_cost: Option<&Bound<'py, PyAny>>,
        cached_tokens: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Decision> {
        let now = self.now();
        now.route(
            py,
            text,
            cost_weight,
            embeddings,
            constraints,
            tokens,
            fallback,
            current_model,
            switch_cost,
            cached_tokens,
        )
    }

    /// Choose the LLM that answers each of many prompts.
    ///
    /// Parameters
    /// ----------
    /// texts : list[str], NumPy array of strings or Arrow string array, N of them
    ///     Arrow columns are read in place.
    /// cost_weight : float or float64[N]
    ///     As in `route`; one for all prompts or one for each. Default 0.
    /// embeddings : float32[N, D], optional
    ///     In place of `texts`.
    /// constraints : Constraints, or a sequence of N Constraints or None, optional
    ///     As in `route`; one for all prompts or one for each.
    /// tokens : int or uint64[N], optional
    ///     As in `route`.
    /// fallback : str, optional
    ///     As in `route`.
    /// current_model : str, or a sequence of N str or None, optional
    /// switch_cost : float or float64[N], optional
    /// cached_tokens : int or uint64[N], optional
    ///     As in `route`; one for all prompts or one for each.
    ///
    /// Returns
    /// -------
    /// Decisions
    ///     Columns `.index`, `.models`, `.predicted_loss`, `.cost`, `.cluster`, `.coverage`, `.ok`,
    ///     `.status`, `.fallback` and `.stayed`. A prompt that cannot be routed has a status other than "ok"
    ///     and no model; where no model may answer, that is "no_candidate".
    ///
    /// Raises
    /// ------
    /// EmptyPoolError
    ///     There is no model.
    /// UnknownModelError
    ///     A fallback that is not in the pool.
    /// InvalidArgumentError, ArgumentTypeError
    ///     Cost weights, embeddings or texts that cannot be used; NaN is named by row and column.
    ///
    /// Notes
    /// -----
    /// Row by row the same as `route`, bit for bit, on any number of threads. The GIL is released;
    /// Ctrl-C ends the call.
    #[pyo3(signature = (
        texts=None, cost_weight=None, *, embeddings=None, constraints=None, tokens=None,
        fallback=None, current_model=None, switch_cost=None, cached_tokens=None
    ))]
    #[allow(clippy::too_many_arguments)]
    fn route_batch<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        cost_weight: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
        constraints: Option<&Bound<'py, PyAny>>,
        tokens: Option<&Bound<'py, PyAny>>,
        fallback: Option<&Bound<'py, PyAny>>,
        current_model: Option<&Bound<'py, PyAny>>,
        switch_cost: Option<&Bound<'py, PyAny>>,
        cached_tokens: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Decisions> {
        let now = self.now();
        now.route_batch(
            py,
            texts,
            cost_weight,
            embeddings,
            constraints,
            tokens,
            fallback,
            current_model,
            switch_cost,
            cached_tokens,
        )
    }

    /// gamma: the predicted loss of every model on every prompt.
    ///
    /// Parameters
    /// ----------
    /// texts : list[str], NumPy array of strings or Arrow string array, N of them
    /// embeddings : float32[N, D], optional
    ///     In place of `texts`.
    ///
    /// Returns
    /// -------
    /// float32[N, M]
    ///     Models in index order; NaN in the rows of prompts that cannot be embedded.
    ///
    /// Raises
    /// ------
    /// EmptyPoolError, InvalidArgumentError, ArgumentTypeError
    ///     As in `route_batch`.
    ///
    /// Notes
    /// -----
    /// `route` minimises float64(gamma) + cost_weight * cost over exactly these values. O(N K M).
    #[pyo3(signature = (texts=None, *, embeddings=None))]
    fn predict_loss<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.now().predict_loss(py, texts, embeddings)
    }

    /// What every model is expected to cost on every prompt.
    ///
    /// Parameters
    /// ----------
    /// texts : list[str], NumPy array of strings or Arrow string array, N of them
    /// embeddings : float32[N, D], optional
    ///     In place of `texts`.
    /// tokens : int or uint64[N], optional
    ///     As in `route`.
    ///
    /// Returns
    /// -------
    /// float64[N, M]
    ///     In the unit of the costs, models in index order; NaN in the rows of prompts that cannot
    ///     be embedded. For models that are not charged by the token, their cost.
    ///
    /// Raises
    /// ------
    /// EmptyPoolError, InvalidArgumentError, ArgumentTypeError
    ///     As in `route_batch`.
    ///
    /// Notes
    /// -----
    /// `route` minimises float64(`predict_loss`) + cost_weight * `predict_cost`. O(N K M).
    #[pyo3(signature = (texts=None, *, embeddings=None, tokens=None))]
    fn predict_cost<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
        tokens: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f64>>> {
        self.now().predict_cost(py, texts, embeddings, tokens)
    }

    /// Writes an artifact file, with JSON and tensors of the caller's own in it.
    #[pyo3(signature = (path, json, tensors))]
    fn write(
        &self,
        py: Python<'_>,
        path: PathBuf,
        json: &str,
        tensors: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let extra = extra(py, json, tensors)?;
        let snapshot = self.core.snapshot();
        detached(py, |_| persist::to_artifact(&snapshot, extra).save(&path))
    }

    /// What tells two routers apart: "embedder" (None where embeddings come from outside),
    /// "cluster_map" and "pool", each a digest of its content, 16 hexadecimal digits.
    ///
    /// Equal wherever the same is served, whatever file or process it came from. O(size).
    fn fingerprint<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let snapshot = self.core.snapshot();
        let found = detached(py, |_| Ok(persist::fingerprint(&snapshot)))?;
        let parts = PyDict::new(py);
        parts.set_item("embedder", found.embedder)?;
        parts.set_item("cluster_map", found.cluster_map)?;
        parts.set_item("pool", found.pool)?;
        Ok(parts)
    }

    /// The bytes that `write` would put into a file.
    #[pyo3(signature = (json, tensors))]
    fn to_bytes<'py>(
        &self,
        py: Python<'py>,
        json: &str,
        tensors: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let extra = extra(py, json, tensors)?;
        let snapshot = self.core.snapshot();
        let bytes = detached(py, |_| persist::to_artifact(&snapshot, extra).to_bytes())?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Phi: how much each cluster counts for each prompt, float32[N, K].
    #[pyo3(signature = (texts=None, *, embeddings=None))]
    fn phi<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.now().phi(py, texts, embeddings)
    }
}

/// What so many models use of tokens, from output tokens [clusters, models], scales and extras.
fn usages(
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

/// Fields of the metadata that a call names: `None` leaves one as it is, `Some(None)` makes it unknown.
#[derive(Default)]
#[allow(clippy::option_option)]
struct Fields {
    tags: Option<Vec<String>>,
    context_length: Option<Option<u64>>,
    latency: Option<Option<f64>>,
    input_price: Option<Option<f64>>,
    output_price: Option<Option<f64>>,
    cached_input_price: Option<Option<f64>>,
}

impl Fields {
    fn parse(py: Python<'_>, fields: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut parsed = Self::default();
        for (key, value) in fields.into_iter().flatten() {
            let key = key.extract::<String>()?;
            let refuse =
                |expected: &str| wrong_type(py, &key, &format!("a {}", value.get_type()), expected);
            let number = || match number(&value) {
                None if !value.is_none() => Err(refuse("a number or None")),
                number => Ok(number),
            };
            match key.as_str() {
                "tags" if value.is_none() => parsed.tags = Some(Vec::new()),
                "tags" => parsed.tags = Some(strings("tags", &value)?),
                "context_length" => {
                    let length = value.extract();
                    let expected = "a number of tokens, 0 or more, or None";
                    parsed.context_length = Some(length.map_err(|_| refuse(expected))?);
                }
                "latency" => parsed.latency = Some(number()?),
                "input_price" => parsed.input_price = Some(number()?),
                "output_price" => parsed.output_price = Some(number()?),
                "cached_input_price" => parsed.cached_input_price = Some(number()?),
                _ => {
                    let expected = "tags, context_length, latency, input_price, output_price or \
                                    cached_input_price";
                    return Err(wrong_type(py, &key, "no such field", expected));
                }
            }
        }
        Ok(parsed)
    }

    /// These fields, and the others as known.
    fn over(self, known: &Metadata) -> Metadata {
        Metadata {
            tags: self
                .tags
                .map_or_else(|| known.tags.clone(), |tags| tags.into_iter().collect()),
            context_length: self.context_length.unwrap_or(known.context_length),
            latency: self.latency.unwrap_or(known.latency),
            input_price: self.input_price.unwrap_or(known.input_price),
            output_price: self.output_price.unwrap_or(known.output_price),
            cached_input_price: self.cached_input_price.unwrap_or(known.cached_input_price),
        }
    }
}

fn extra(py: Python<'_>, json: &str, tensors: &Bound<'_, PyDict>) -> PyResult<Extra> {
    let json = serde_json::from_str(json).map_err(|e| {
        to_py(
            py,
            &Error::invalid("json", e.to_string(), "a JSON document"),
        )
    })?;
    Ok(Extra {
        json,
        tensors: to_tensors(tensors)?,
    })
}

/// What a file held, before it becomes a router.
#[pyclass(frozen, module = "uniroute_fast._native")]
pub struct Loaded {
    snapshot: Snapshot,
    extra: Extra,
}

#[pymethods]
impl Loaded {
    /// Reads an artifact file.
    #[staticmethod]
    fn read(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let (snapshot, extra) = detached(py, |_| {
            Artifact::load(&path)
                .and_then(persist::from_artifact)
                .map_err(|e| artifact::at(&path.display().to_string(), e))
        })?;
        Ok(Self { snapshot, extra })
    }

    /// Takes an artifact from its bytes.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        let (snapshot, extra) = detached(py, |_| {
            Artifact::from_bytes(bytes)
                .and_then(persist::from_artifact)
                .map_err(|e| artifact::at("artifact", e))
        })?;
        Ok(Self { snapshot, extra })
    }

    /// The embedder in the file, or None.
    #[getter]
    fn embedder(&self) -> Option<LexicalEmbedder> {
        self.snapshot.embedder().map(|e| LexicalEmbedder {
            inner: Arc::clone(e),
        })
    }

    /// The JSON that was written with it.
    #[getter]
    fn json(&self) -> String {
        self.extra.json.to_string()
    }

    /// The tensors that were written with it.
    #[getter]
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        from_tensors(py, &self.extra.tensors)
    }
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Router>()?;
    m.add_class::<View>()?;
    m.add_class::<ModelInfo>()?;
    m.add_class::<PyChange>()?;
    m.add_class::<Loaded>()
}
