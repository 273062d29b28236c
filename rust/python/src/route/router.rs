//! `Router`: the pool that changes.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use uniroute_core::Result;
use uniroute_core::drift;
use uniroute_core::file::persist;
use uniroute_core::pool::Pool;
use uniroute_core::pool::changes::Action;
use uniroute_core::route::router as core;
use uniroute_core::route::snapshot::Snapshot;

use crate::checks::arrays::array;
use crate::checks::scalars::{
    all_names, boolean, count, one_cost, one_name, refuse_booleans, wrong,
};
use crate::clusters::cluster_map;
use crate::drift::DriftReport;
use crate::embedding::lexical::LexicalEmbedder;
use crate::errors::to_py;
use crate::file::loaded::{Loaded, extra};
use crate::pool::changes::PyChange;
use crate::pool::model_info::{self, Fields, usages};
use crate::route::routing::{PySnapshot, Routing};
use crate::route::view::View;
use crate::run::{detached, released};

/// Routes prompts over a pool of models; `uniroute_fast.Router` adds fitting, and explains each method.
#[pyclass(subclass, frozen, extends = Routing, module = "uniroute_fast._native")]
pub struct Router {
    pub(crate) core: Arc<core::Router>,
}

impl Router {
    fn now(&self) -> View {
        View {
            snapshot: self.core.snapshot(),
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
        detached(py, |_| self.core.change(action, models, change)).map(drop)
    }
}

#[pymethods]
impl Router {
    #[new]
    #[pyo3(signature = (embedder, heads))]
    fn new(
        py: Python<'_>,
        embedder: Option<Bound<'_, PyAny>>,
        heads: &Bound<'_, PyAny>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let snapshot = if let Ok(loaded) = heads.cast::<Loaded>() {
            loaded.get().snapshot.clone()
        } else {
            let native = embedder
                .as_ref()
                .and_then(|e| e.cast::<LexicalEmbedder>().ok())
                .map(|e| Arc::clone(&e.get().inner));
            Snapshot::new(native, cluster_map::from_python(heads)?).map_err(|e| to_py(py, &e))?
        };
        let snapshot = match embedder {
            Some(embedder) => snapshot.with_companion(Arc::new(embedder.unbind())),
            None => snapshot,
        };
        let core = Arc::new(core::Router::new(snapshot));
        let routing = Routing::of(Arc::clone(&core));
        Ok(PyClassInitializer::from(routing).add_subclass(Self { core }))
    }

    /// What is current.
    fn snapshot(&self, py: Python<'_>) -> PyResult<Py<PySnapshot>> {
        Py::new(py, PySnapshot::of(&self.core))
    }

    /// The latest changes.
    #[pyo3(signature = (since=None), text_signature = "($self, since=0)")]
    fn changes(&self, py: Python<'_>, since: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<PyChange>> {
        let since = since.map_or(Ok(0), |object| count("since", object))?;
        let changes = released(py, || Ok(self.core.changes(since)))?;
        Ok(changes.into_iter().map(PyChange::from).collect())
    }

    /// Appends models.
    #[pyo3(signature = (
        names, costs, profiles, *, prices=None, usage=None, metadata=None, enabled=None
    ))]
    #[pyo3(
        text_signature = "($self, names, costs, profiles, *, prices=None, usage=None, metadata=None, enabled=True)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn insert(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = all_names)] names: Vec<String>,
        costs: &Bound<'_, PyAny>,
        profiles: &Bound<'_, PyAny>,
        prices: Option<&Bound<'_, PyAny>>,
        usage: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        enabled: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        refuse_booleans("costs", costs)?;
        let costs = array::<f64>(costs, "costs", 1, "[models]")?;
        let profiles = array::<f32>(profiles, "profiles", 2, "[n_clusters, models]")?;
        let (costs, profiles) = (costs.as_slice()?, profiles.as_slice()?);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let prices = prices.map(|prices| {
            let parts = prices.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>();
            let expected = "a tuple of input and output prices";
            let (input, output) = parts.map_err(|_| wrong(prices, "prices", expected))?;
            let input = array::<f64>(&input, "input_prices", 1, "[models]")?;
            let output = array::<f64>(&output, "output_prices", 1, "[models]")?;
            Ok::<_, PyErr>((input.as_slice()?.to_vec(), output.as_slice()?.to_vec()))
        });
        let prices = prices.transpose()?;
        let usages = usage.map(|usage| {
            let parts = usage.extract();
            let expected = "a tuple of output tokens, input scales and input extras";
            let parts = parts.map_err(|_| wrong(usage, "usage", expected))?;
            usages(py, names.len(), &parts)
        });
        let usages = usages.transpose()?;
        let metadata = metadata.map(|all| model_info::each(py, all, names.len()));
        let metadata = metadata.transpose()?.unwrap_or_default();
        let enabled = enabled.map_or(Ok(true), |enabled| boolean("enabled", enabled))?;
        self.change(py, Action::Add, &names, |pool| {
            let mut pool = pool.with(&names, costs, profiles)?;
            for (name, one) in names.iter().zip(metadata) {
                pool = pool.with_metadata(name, one)?;
            }
            if let Some((input, output)) = &prices {
                pool = pool.with_prices(&names, input, output)?;
            }
            if let Some(usages) = &usages {
                pool = pool.with_usage(&names, usages)?;
            }
            if !enabled {
                for name in &names {
                    pool = pool.with_enabled(name, false)?;
                }
            }
            Ok(pool)
        })
    }

    /// Says what tokens models use.
    fn set_usage(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = all_names)] names: Vec<String>,
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

    /// Takes a model out of the pool.
    fn remove_model(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = one_name)] name: String,
    ) -> PyResult<()> {
        self.change(py, Action::Remove, &[&name], |pool| pool.without(&name))
    }

    /// Changes what a model costs.
    fn set_cost(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = one_name)] name: String,
        #[pyo3(from_py_with = one_cost)] cost: f64,
    ) -> PyResult<()> {
        self.change(py, Action::Cost, &[&name], |pool| {
            pool.with_cost(&name, cost)
        })
    }

    /// Replaces a model's profile.
    fn set_profile(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = one_name)] name: String,
        profile: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let profile = array::<f32>(profile, "profile", 1, "[n_clusters]")?;
        let profile = profile.as_slice()?;
        self.change(py, Action::Profile, &[&name], |pool| {
            pool.with_profiles(&[&name], profile)
        })
    }

    /// Replaces the profiles of some models at once.
    fn set_profiles(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = all_names)] names: Vec<String>,
        profiles: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let profiles = array::<f32>(profiles, "profiles", 2, "[n_clusters, models]")?;
        let profiles = profiles.as_slice()?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.change(py, Action::Profile, &names, |pool| {
            pool.with_profiles(&names, profiles)
        })
    }

    /// Keeps a model from being chosen.
    fn disable_model(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = one_name)] name: String,
    ) -> PyResult<()> {
        self.change(py, Action::Disable, &[&name], |pool| {
            pool.with_enabled(&name, false)
        })
    }

    /// Lets a model be chosen again.
    fn enable_model(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = one_name)] name: String,
    ) -> PyResult<()> {
        self.change(py, Action::Enable, &[&name], |pool| {
            pool.with_enabled(&name, true)
        })
    }

    /// Says what is known of a model beside its cost.
    #[pyo3(signature = (name, **fields))]
    fn set_metadata(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = one_name)] name: String,
        fields: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let fields = Fields::parse(py, fields)?;
        self.change(py, Action::Metadata, &[&name], |pool| {
            let model = pool.find("name", &name)? as usize;
            let known = &pool.directory().models()[model];
            pool.with_metadata(&name, fields.over(known))
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
        window: Option<&Bound<'_, PyAny>>,
        leave_out: bool,
    ) -> PyResult<()> {
        let window = window.map_or(Ok(drift::WINDOW), |window| count("window", window))?;
        let now = self.now();
        let input = now.input(py, texts, embeddings)?;
        now.with_prompts(py, &input, |snapshot, prompts, run| {
            let baseline = snapshot.baseline_of(prompts, leave_out, run)?;
            self.core.set_baseline(Some(baseline), window)
        })
    }

    /// Compares and counts no longer.
    fn drop_baseline(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, |_| self.core.set_baseline(None, drift::WINDOW))
    }

    /// How prompts compare with the baseline.
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

    /// What tells two routers apart.
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
    fn write_bytes<'py>(
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
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Router>()
}
