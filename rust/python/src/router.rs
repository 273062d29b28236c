//! `Router`, `Decision`, `Decisions`: the path of a prompt.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use uniroute_core::artifact::{self, Artifact};
use uniroute_core::centroids::Centroids;
use uniroute_core::cluster_map::{ClusterMap, Head, Phi, Softmax};
use uniroute_core::persist::{self, Extra};
use uniroute_core::router::{Choice, CostWeights, Prompts, Row, Scratch, Snapshot};
use uniroute_core::{Error, Result, router as core};

use crate::arrays::array;
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

/// Routes prompts over a pool of models; see `uniroute_fast.Router`, which adds fitting.
#[pyclass(subclass, frozen, module = "uniroute_fast._native")]
pub struct Router {
    core: core::Router,
    /// What embeds texts: a `LexicalEmbedder`, any object with `embed(texts)`, or `None`.
    embedder: Option<Py<PyAny>>,
}

/// Prompts as one call got them: texts, or embeddings given or made by a foreign embedder.
enum Input<'py> {
    Texts(Texts<'py>),
    Embeddings(numpy::PyReadonlyArrayDyn<'py, f32>),
}

impl Router {
    fn input<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Input<'py>> {
        let dim = self.core.snapshot().map().dim();
        let made;
        let embeddings = match (texts, embeddings) {
            (None, Some(embeddings)) => embeddings,
            (Some(texts), None) => {
                if self.core.snapshot().embedder().is_some() {
                    return Texts::collect(texts).map(Input::Texts);
                }
                let Some(embedder) = &self.embedder else {
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
    ) -> PyResult<(Arc<Snapshot>, T)> {
        let snapshot = self.core.snapshot();
        let rows;
        let prompts = match input {
            Input::Texts(texts) => {
                rows = texts.rows();
                Prompts::Texts(&rows)
            }
            Input::Embeddings(embeddings) => Prompts::Embeddings(embeddings.as_slice()?),
        };
        let done = detached(py, |run| work(&snapshot, prompts, run))?;
        Ok((snapshot, done))
    }
}

fn len(input: &Input<'_>) -> usize {
    match input {
        Input::Texts(texts) => texts.len(),
        Input::Embeddings(embeddings) => embeddings.shape()[0],
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
        let heads = match heads {
            HeadsOrLoaded::Heads(heads) => heads,
            HeadsOrLoaded::Loaded(loaded) => {
                let core = core::Router::new(loaded.get().snapshot.clone());
                return Ok(Self {
                    core,
                    embedder: embedder.map(Bound::unbind),
                });
            }
        };
        let native = embedder
            .as_ref()
            .and_then(|e| e.cast::<LexicalEmbedder>().ok())
            .map(|e| Arc::clone(&e.get().inner));
        let heads: Vec<Head> = heads
            .iter()
            .map(|h| h.to_head(py))
            .collect::<PyResult<_>>()?;
        let snapshot = ClusterMap::new(heads).and_then(|map| Snapshot::new(native, map));
        let core = core::Router::new(snapshot.map_err(|e| to_py(py, &e))?);
        Ok(Self {
            core,
            embedder: embedder.map(Bound::unbind),
        })
    }

    /// What embeds texts, or None.
    #[getter]
    fn embedder(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.embedder.as_ref().map(|e| e.clone_ref(py))
    }

    /// Names of the models, in index order.
    #[getter]
    fn models(&self) -> Vec<String> {
        self.core
            .snapshot()
            .pool()
            .names()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// Cost of each model, float64[M], in index order.
    #[getter]
    fn costs<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        PyArray1::from_slice(py, self.core.snapshot().pool().costs())
    }

    /// Profiles Psi, float32[K, M].
    #[getter]
    fn profiles<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let snapshot = self.core.snapshot();
        let profiles = snapshot.pool().profiles();
        let flat: Vec<f32> = (0..profiles.clusters())
            .flat_map(|k| profiles.row(k))
            .collect();
        flat.into_pyarray(py)
            .reshape([profiles.clusters(), snapshot.pool().len()])
    }

    /// Number of clusters: length of Phi.
    #[getter]
    fn n_clusters(&self) -> usize {
        self.core.snapshot().map().clusters()
    }

    /// Dimension of the embeddings.
    #[getter]
    fn dim(&self) -> usize {
        self.core.snapshot().map().dim()
    }

    /// Number of changes to the pool since the router was made or loaded.
    #[getter]
    fn version(&self) -> u64 {
        self.core.snapshot().version()
    }

    /// The heads of the cluster map: `("nearest", centroids)` or `("softmax", weights, bias, floor)`.
    fn heads<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let snapshot = self.core.snapshot();
        let dim = snapshot.map().dim();
        let matrix = |values: Vec<f32>| {
            let rows = values.len() / dim;
            values.into_pyarray(py).reshape([rows, dim])
        };
        let parts = snapshot.map().heads().iter().map(|head| match head {
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

    /// Appends models with these costs and profiles, float32[K, added].
    fn insert(
        &self,
        py: Python<'_>,
        names: Vec<String>,
        costs: &Bound<'_, PyAny>,
        profiles: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let costs = array::<f64>(costs, "costs", 1, "[models]")?;
        let profiles = array::<f32>(profiles, "profiles", 2, "[n_clusters, models]")?;
        let (costs, profiles) = (costs.as_slice()?, profiles.as_slice()?);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        detached(py, |_| {
            self.core.change(|pool| pool.with(&names, costs, profiles))
        })
    }

    /// Takes a model out of the pool; later ones move down by one index.
    ///
    /// Raises `UnknownModelError` if there is none of that name. O(clusters x models).
    fn remove_model(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        detached(py, |_| self.core.change(|pool| pool.without(name)))
    }

    /// Changes what a model costs: a finite number, 0 or more, in the unit of the others.
    ///
    /// Raises `UnknownModelError` or `InvalidArgumentError`. O(clusters x hull).
    fn set_cost(&self, py: Python<'_>, name: &str, cost: f64) -> PyResult<()> {
        detached(py, |_| self.core.change(|pool| pool.with_cost(name, cost)))
    }

    /// Replaces a model's profile, float32[K].
    fn set_profile(&self, py: Python<'_>, name: &str, profile: &Bound<'_, PyAny>) -> PyResult<()> {
        let profile = array::<f32>(profile, "profile", 1, "[n_clusters]")?;
        let profile = profile.as_slice()?;
        detached(py, |_| {
            self.core.change(|pool| pool.with_profile(name, profile))
        })
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
    ///
    /// Returns
    /// -------
    /// Decision
    ///     `.model`, `.index`, `.predicted_loss`, `.cost`, `.cluster`, `.coverage`, and
    ///     `.alternatives`: the other models, best first.
    ///
    /// Raises
    /// ------
    /// UnroutableError
    ///     The text is empty, blank or not valid Unicode, or has nothing the embedder knows.
    /// EmptyPoolError
    ///     There is no model.
    /// InvalidArgumentError, ArgumentTypeError
    ///     A cost weight or an embedding that cannot be used.
    ///
    /// Notes
    /// -----
    /// Linear in the text; then O(K D + log hull) where one cluster decides, O(K D + K M) where
    /// several do. The GIL is released.
    ///
    /// Examples
    /// --------
    /// See `uniroute_fast.Router`.
    #[pyo3(signature = (text=None, cost_weight=0.0, *, embeddings=None))]
    fn route<'py>(
        &self,
        py: Python<'py>,
        text: Option<&Bound<'py, PyAny>>,
        cost_weight: f64,
        embeddings: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Decision> {
        // The common case first: one string, and an embedder in Rust.
        if let (Some(text), None) = (text, embeddings)
            && let Ok(text) = text.cast::<PyString>()
        {
            let snapshot = self.core.snapshot();
            if snapshot.embedder().is_some() {
                let text = crate::text::row(text);
                return decide(py, snapshot, cost_weight, |snapshot, scratch| {
                    snapshot.route_text(text, cost_weight, scratch)
                });
            }
        }
        let texts = match text {
            Some(text) if !text.is_instance_of::<PyString>() => {
                let found = format!("a {}", text.get_type().name()?);
                return Err(wrong_type(
                    py,
                    "text",
                    &found,
                    "a str; `route_batch` takes many",
                ));
            }
            Some(text) => Some(PyList::new(py, [text])?.into_any()),
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
        match self.input(py, texts.as_ref(), embeddings.as_ref())? {
            Input::Embeddings(embedding) => {
                let embedding = embedding.as_slice()?;
                decide(
                    py,
                    self.core.snapshot(),
                    cost_weight,
                    |snapshot, scratch| snapshot.route_embedding(embedding, cost_weight, scratch),
                )
            }
            Input::Texts(_) => unreachable!("a native embedder took the first branch"),
        }
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
    ///
    /// Returns
    /// -------
    /// Decisions
    ///     Columns `.index`, `.models`, `.predicted_loss`, `.cost`, `.cluster`, `.coverage`, `.ok`
    ///     and `.status`. A prompt that cannot be routed has a status other than "ok" and no model.
    ///
    /// Raises
    /// ------
    /// EmptyPoolError
    ///     There is no model.
    /// InvalidArgumentError, ArgumentTypeError
    ///     Cost weights, embeddings or texts that cannot be used; NaN is named by row and column.
    ///
    /// Notes
    /// -----
    /// Row by row the same as `route`, bit for bit, on any number of threads. The GIL is released;
    /// Ctrl-C ends the call.
    #[pyo3(signature = (texts=None, cost_weight=None, *, embeddings=None))]
    fn route_batch<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        cost_weight: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Decisions> {
        let each;
        let cost_weights = match cost_weight {
            None => CostWeights::Same(0.0),
            Some(weight) => {
                if let Ok(weight) = weight.extract::<f64>() {
                    CostWeights::Same(weight)
                } else {
                    each = array::<f64>(weight, "cost_weight", 1, "[], or one for each prompt")?;
                    CostWeights::Each(each.as_slice()?)
                }
            }
        };
        let input = self.input(py, texts, embeddings)?;
        let (snapshot, rows) = self.with_prompts(py, &input, |snapshot, prompts, run| {
            snapshot.route_batch(prompts, cost_weights, run)
        })?;
        Ok(Decisions { snapshot, rows })
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
        let input = self.input(py, texts, embeddings)?;
        let prompts = len(&input);
        let (_, (losses, shape)) = self.with_prompts(py, &input, |snapshot, texts, run| {
            let shape = [prompts, snapshot.pool().len()];
            let mut losses = vec![0.0; shape[0] * shape[1]];
            snapshot.predict_loss(texts, &mut losses, run)?;
            Ok((losses, shape))
        })?;
        losses.into_pyarray(py).reshape(shape)
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
        let input = self.input(py, texts, embeddings)?;
        let prompts = len(&input);
        let (_, (phi, shape)) = self.with_prompts(py, &input, |snapshot, texts, run| {
            let shape = [prompts, snapshot.map().clusters()];
            let mut phi = vec![0.0; shape[0] * shape[1]];
            snapshot.phi(texts, &mut phi, run)?;
            Ok((phi, shape))
        })?;
        phi.into_pyarray(py).reshape(shape)
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

/// Routes one prompt without the GIL, in this thread's scratch.
fn decide(
    py: Python<'_>,
    snapshot: Arc<Snapshot>,
    cost_weight: f64,
    route: impl FnOnce(&Snapshot, &mut Scratch) -> Result<Row> + Send,
) -> PyResult<Decision> {
    let routed = py.detach(|| {
        SCRATCH.with_borrow_mut(|scratch| {
            let row = route(&snapshot, scratch)?;
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
        snapshot,
        choice,
        phi,
        cost_weight,
        coverage: row.coverage,
    })
}

/// Which model answers one prompt.
#[pyclass(frozen, module = "uniroute_fast")]
pub struct Decision {
    snapshot: Arc<Snapshot>,
    choice: Choice,
    /// `None` where one cluster decides alone.
    phi: Option<Phi>,
    cost_weight: f64,
    coverage: f32,
}

impl Decision {
    /// Predicted loss of every model for this prompt.
    fn losses(&self) -> Vec<f32> {
        let pool = self.snapshot.pool();
        match &self.phi {
            None => pool.profiles().row(self.choice.cluster as usize).collect(),
            Some(phi) => {
                let mut losses = vec![0.0; pool.len()];
                self.snapshot.gamma(phi, &mut losses);
                losses
            }
        }
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

    /// Its cost, in the unit in which costs were given.
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

    /// The other models, best first. Worked out when asked for: O(M log M).
    #[getter]
    fn alternatives(&self) -> Vec<Alternative> {
        let pool = self.snapshot.pool();
        let mut others: Vec<Alternative> = self
            .losses()
            .into_iter()
            .enumerate()
            .filter(|&(index, _)| index as u32 != self.choice.model)
            .map(|(index, predicted_loss)| Alternative {
                model: pool.names()[index].to_string(),
                index: index as u32,
                predicted_loss,
                cost: pool.costs()[index],
                objective: f64::from(predicted_loss) + self.cost_weight * pool.costs()[index],
            })
            .collect();
        others.sort_by(|a, b| {
            (a.objective.total_cmp(&b.objective))
                .then(a.cost.total_cmp(&b.cost))
                .then(a.index.cmp(&b.index))
        });
        others
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

/// Which model answers each of many prompts: columns, made when asked for.
#[pyclass(frozen, module = "uniroute_fast")]
pub struct Decisions {
    snapshot: Arc<Snapshot>,
    rows: Vec<Row>,
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

    /// What became of each prompt, list[str]: "ok", or why it could not be routed.
    #[getter]
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.rows.iter().map(|row| status_name(row.status)))
    }

    fn __repr__(&self) -> String {
        let ok = self.rows.iter().filter(|row| row.choice.is_some()).count();
        format!("Decisions({} prompts, {ok} routed)", self.rows.len())
    }
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Router>()?;
    m.add_class::<Loaded>()?;
    m.add_class::<Decision>()?;
    m.add_class::<Alternative>()?;
    m.add_class::<Decisions>()
}
