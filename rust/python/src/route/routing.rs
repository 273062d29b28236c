//! `Snapshot`, and what it has in common with `Router`: the path of a prompt.

use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use uniroute_core::route::router as core;
use uniroute_core::route::snapshot::Snapshot;

use crate::checks::scalars::{one_cost_weight, one_name};
use crate::clusters::cluster_map;
use crate::errors::to_py;
use crate::pool::model_info::ModelInfo;
use crate::request::asked::{Arguments, token_counts};
use crate::request::prompts::Prompts;
use crate::route::decision::{Decision, Decisions, Names};
use crate::route::view::View;

/// What is routed by.
enum Source {
    /// A router: whatever is current when a call begins. What it routes counts as its traffic.
    Current(Arc<core::Router>),
    /// One moment of it.
    Fixed(Arc<Snapshot>),
}

/// What `Router` and `Snapshot` have in common: the path of a prompt.
#[pyclass(frozen, subclass, module = "uniroute_fast._native")]
pub struct Routing {
    source: Source,
}

impl Routing {
    /// Routes by what a router holds at each call.
    pub fn of(router: Arc<core::Router>) -> Self {
        Self {
            source: Source::Current(router),
        }
    }

    fn now(&self) -> View {
        match &self.source {
            Source::Current(router) => View {
                snapshot: router.snapshot(),
                counted: true,
            },
            Source::Fixed(snapshot) => View {
                snapshot: Arc::clone(snapshot),
                counted: false,
            },
        }
    }
}

#[pymethods]
impl Routing {
    /// What embeds texts, or None.
    #[getter]
    fn embedder(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let now = self.now();
        now.embedder().map(|embedder| embedder.clone_ref(py))
    }

    /// Names of the models, in index order.
    #[getter]
    fn models(&self) -> Vec<String> {
        let now = self.now();
        let names = now.snapshot.pool().names();
        names.iter().map(ToString::to_string).collect()
    }

    /// Cost of each model, float64[M], in index order.
    #[getter]
    fn costs<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        let now = self.now();
        PyArray1::from_slice(py, now.snapshot.pool().costs())
    }

    /// Profiles Psi, float32[K, M].
    #[getter]
    fn profiles<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let now = self.now();
        let profiles = now.snapshot.pool().profiles();
        let flat: Vec<f32> = (0..profiles.clusters())
            .flat_map(|k| profiles.row(k))
            .collect();
        flat.into_pyarray(py)
            .reshape([profiles.clusters(), now.snapshot.pool().len()])
    }

    /// Which models may be chosen, bool[M], in index order.
    #[getter]
    fn enabled<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        let now = self.now();
        let enabled = now.snapshot.pool().enabled();
        let switches: Vec<bool> = (0..enabled.len()).map(|m| enabled.contains(m)).collect();
        switches.into_pyarray(py)
    }

    /// Which models are charged by the token, bool[M], in index order.
    #[getter]
    fn metered<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        let now = self.now();
        let pool = now.snapshot.pool();
        let metered = |m| pool.metering().is_some_and(|all| all.metered().contains(m));
        (0..pool.len())
            .map(metered)
            .collect::<Vec<bool>>()
            .into_pyarray(py)
    }

    /// Number of clusters: length of Phi.
    #[getter]
    fn n_clusters(&self) -> usize {
        let now = self.now();
        now.snapshot.map().clusters()
    }

    /// Dimension of the embeddings.
    #[getter]
    fn dim(&self) -> usize {
        let now = self.now();
        now.snapshot.map().dim()
    }

    /// Number of changes to the router since it was made or loaded.
    #[getter]
    fn version(&self) -> u64 {
        let now = self.now();
        now.snapshot.version()
    }

    /// What is known of one model; raises `UnknownModelError` if there is none of that name.
    fn info(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = one_name)] name: String,
    ) -> PyResult<ModelInfo> {
        let now = self.now();
        let pool = now.snapshot.pool();
        let index = pool.find("name", &name).map_err(|e| to_py(py, &e))?;
        Ok(ModelInfo::of(pool, index as usize))
    }

    /// Choose the LLM that answers one prompt.
    ///
    /// Parameters
    /// ----------
    /// text : str, or Prompts of one
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
        let arguments = Arguments {
            constraints,
            tokens,
            fallback,
            current_model,
            switch_cost,
            cached_tokens,
        };
        let asked = arguments.one(py, &now.snapshot, cost_weight)?;
        let prompt = now.one(py, text, embeddings)?;
        now.decide(py, asked, &prompt)
    }

    /// Choose the LLM that answers each of many prompts.
    ///
    /// Parameters
    /// ----------
    /// texts : list[str], NumPy array of strings, Arrow string array or Prompts, N of them
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
        let input = now.input(py, texts, embeddings)?;
        let arguments = Arguments {
            constraints,
            tokens,
            fallback,
            current_model,
            switch_cost,
            cached_tokens,
        };
        let measured = input.measured(texts);
        let (rows, counted) = (input.len(), now.counted);
        let requests = arguments.many(py, &now.snapshot, cost_weight, rows, measured, counted)?;
        let rows = now.with_prompts(py, &input, |snapshot, prompts, run| {
            snapshot.route_batch(prompts, &requests, run)
        })?;
        let names = Arc::clone(now.snapshot.pool().names());
        Ok(Decisions {
            names: Names::Pool(names),
            rows,
        })
    }

    /// gamma: the predicted loss of every model on every prompt.
    ///
    /// Parameters
    /// ----------
    /// texts : list[str], NumPy array of strings, Arrow string array or Prompts, N of them
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
        let now = self.now();
        let input = now.input(py, texts, embeddings)?;
        let models = now.snapshot.pool().len();
        now.matrix(py, &input, models, Snapshot::predict_loss)
    }

    /// What every model is expected to cost on every prompt.
    ///
    /// Parameters
    /// ----------
    /// texts : list[str], NumPy array of strings, Arrow string array or Prompts, N of them
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
        let now = self.now();
        let input = now.input(py, texts, embeddings)?;
        let tokens = token_counts(tokens, input.measured(texts))?;
        let models = now.snapshot.pool().len();
        now.matrix(py, &input, models, |snapshot, prompts, costs, run| {
            snapshot.predict_cost(prompts, tokens, costs, run)
        })
    }

    /// Embed prompts once, for all calls to come; see `Router.embed`, which gives them keys.
    #[pyo3(signature = (texts=None, *, embeddings=None))]
    fn embed(
        &self,
        py: Python<'_>,
        texts: Option<&Bound<'_, PyAny>>,
        embeddings: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Prompts> {
        Prompts::embed(py, &self.now(), texts, embeddings)
    }

    /// Phi: how much each cluster counts for each prompt, float32[N, K].
    #[pyo3(signature = (texts=None, *, embeddings=None))]
    fn phi<'py>(
        &self,
        py: Python<'py>,
        texts: Option<&Bound<'py, PyAny>>,
        embeddings: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let now = self.now();
        let input = now.input(py, texts, embeddings)?;
        let clusters = now.snapshot.map().clusters();
        now.matrix(py, &input, clusters, Snapshot::phi)
    }

    /// The parts of the cluster map: `("nearest", centroids)` or `("softmax", weights, bias, floor,
    /// background)`, and `("familiarity", landmarks, distance)` at the end where there are landmarks.
    fn heads<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        cluster_map::to_python(py, self.now().snapshot.map())
    }
}

/// An immutable view of a router at one moment: the same methods for routing, and always the same
/// answers, whatever becomes of the router.
///
/// Made by `Router.snapshot`. It shares what it holds with the router: O(1) to make and to keep,
/// apart from what has changed since.
#[pyclass(frozen, extends = Routing, name = "Snapshot", module = "uniroute_fast")]
pub struct PySnapshot;

impl PySnapshot {
    /// A router at this moment.
    pub fn of(router: &core::Router) -> PyClassInitializer<Self> {
        let source = Source::Fixed(router.snapshot());
        PyClassInitializer::from(Routing { source }).add_subclass(Self)
    }
}

#[pymethods]
impl PySnapshot {
    fn __repr__(this: PyRef<'_, Self>) -> String {
        let View { snapshot, .. } = this.as_super().now();
        let (version, models) = (snapshot.version(), snapshot.pool().len());
        format!("Snapshot(version={version}, {models} models)")
    }
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Routing>()?;
    m.add_class::<PySnapshot>()
}
