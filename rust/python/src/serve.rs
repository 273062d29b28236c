//! `Server`: the decision service, over a router that Python holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyLookupError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use uniroute_core::Error;
use uniroute_core::route::snapshot::Snapshot;
use uniroute_server::{
    Backend, Change, Config, Newcomer, Observed, Outcomes, Prompts, Refusal, Server as Service,
    StatusCode,
};

use crate::errors::to_py;
use crate::route::router::Router;
use crate::run::{caught, released};

/// How long a wait goes on before it looks for signals.
const SLICE: Duration = Duration::from_millis(50);

/// What Python does for the service: a `uniroute_fast.serving.keeper.Keeper`.
struct Keeper(Py<PyAny>);

impl Keeper {
    /// Calls Python and says in HTTP's terms what it raised.
    fn call<T>(&self, work: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>) -> Result<T, Refusal> {
        Python::attach(|py| work(self.0.bind(py)).map_err(|error| refusal(py, &error)))
    }
}

fn refusal(py: Python<'_>, error: &PyErr) -> Refusal {
    let is = |known: bool, status, code| known.then_some((status, code));
    let bad_value =
        error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyTypeError>(py);
    // Another request has added the model since this one looked.
    let is_duplicate = error
        .get_type(py)
        .name()
        .is_ok_and(|name| name == "DuplicateModelError");
    let (status, code) = is(is_duplicate, StatusCode::CONFLICT, "duplicate_model")
        .or_else(|| is(bad_value, StatusCode::BAD_REQUEST, "invalid_argument"))
        .or_else(|| {
            let unknown = error.is_instance_of::<PyLookupError>(py);
            is(unknown, StatusCode::NOT_FOUND, "unknown_model")
        })
        .unwrap_or((StatusCode::INTERNAL_SERVER_ERROR, "internal"));
    let message = error.value(py).to_string();
    // Messages begin with the argument that was wrong.
    let argument = message.split_once(": ").map(|(argument, _)| argument);
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.[]".contains(c);
    let param = argument.filter(|argument| bad_value && argument.chars().all(is_name));
    let refusal = Refusal::new(status, code, message.as_str());
    match param {
        Some(param) => refusal.of(param),
        None => refusal,
    }
}

impl Backend for Keeper {
    fn reload(&self) -> Result<(), Refusal> {
        self.call(|keeper| keeper.call_method0("reload").map(drop))
    }

    fn add(&self, newcomer: &Newcomer<'_>) -> Result<(), Refusal> {
        let Newcomer {
            name,
            cost,
            outcomes,
            metadata,
            enabled,
        } = newcomer;
        // Only a map with keys that are no strings could fail.
        let metadata = serde_json::to_string(metadata).unwrap_or_default();
        self.call(|keeper| {
            let arguments = (
                name,
                cost,
                &outcomes.texts,
                &outcomes.losses,
                metadata,
                enabled,
            );
            keeper.call_method1("add", arguments).map(drop)
        })
    }

    fn replacing(&self, name: &str, change: &mut Change<'_>) -> Result<Arc<Snapshot>, Refusal> {
        // The lock is Python's and belongs to this thread; the change itself needs no GIL. It is
        // given back whatever becomes of the change.
        self.call(|keeper| keeper.call_method0("hold").map(drop))?;
        let changed = caught(change);
        self.call(|keeper| {
            keeper
                .call_method1("release", (name, changed.is_ok()))
                .map(drop)
        })?;
        Ok(changed?)
    }

    fn profile(&self, outcomes: &Outcomes) -> Result<Vec<f32>, Refusal> {
        self.call(|keeper| {
            let arguments = (&outcomes.texts, &outcomes.losses);
            keeper.call_method1("profile", arguments)?.extract()
        })
    }

    fn observe(&self, observed: &Observed) -> Result<Vec<bool>, Refusal> {
        self.call(|keeper| {
            let py = keeper.py();
            let prompts = match &observed.prompts {
                Prompts::Texts(texts) => texts.into_pyobject(py)?,
                Prompts::Clusters(clusters) => clusters.into_pyobject(py)?,
            };
            let (models, losses) = (&observed.models, &observed.losses);
            let arguments = (
                prompts,
                models,
                losses,
                &observed.weights,
                observed.half_life,
            );
            keeper.call_method1("observe", arguments)?.extract()
        })
    }
}

/// A running decision service; see `uniroute_fast.serving.Server`.
#[pyclass(frozen, module = "uniroute_fast._native")]
pub struct Server(Service);

#[pymethods]
impl Server {
    /// Opens the port and answers, on threads of its own, which never hold the GIL to decide.
    #[new]
    #[pyo3(signature = (router, keeper, settings, config=None, artifact=None))]
    fn new(
        py: Python<'_>,
        router: &Bound<'_, Router>,
        keeper: Py<PyAny>,
        settings: &str,
        config: Option<PathBuf>,
        artifact: Option<PathBuf>,
    ) -> PyResult<Self> {
        let router = Arc::clone(&router.get().core);
        released(py, || {
            let config = Config::read(config.as_deref(), settings)?;
            Service::start(router, Arc::new(Keeper(keeper)), &config, artifact)
        })
        .map(Self)
    }

    /// Host and port that it listens on.
    #[getter]
    fn address(&self) -> (String, u16) {
        let address = self.0.address();
        (address.ip().to_string(), address.port())
    }

    /// Whether its port is open. Waits for nothing: a forked child may ask.
    #[getter]
    fn listening(&self) -> bool {
        self.0.listening()
    }

    /// Asks it to stop; requests under way are still answered.
    fn stop(&self) {
        self.0.stop();
    }

    /// Asks it to load the artifact again.
    fn reload(&self) {
        self.0.reload();
    }

    /// Waits for its end, for so many seconds at most; whether it has ended. Signal handlers run
    /// meanwhile, and what they raise ends the wait.
    #[pyo3(signature = (seconds=None))]
    fn wait(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<bool> {
        let most = seconds.map(|s| Duration::try_from_secs_f64(s.max(0.0)));
        let most = most.transpose().map_err(|_| {
            let found = format!("{seconds:?}");
            to_py(
                py,
                &Error::invalid("seconds", found, "a number of seconds, or None"),
            )
        })?;
        let began = Instant::now();
        loop {
            let left = most.map_or(SLICE, |most| most.saturating_sub(began.elapsed()));
            if py.detach(|| self.0.wait(left.min(SLICE))) {
                return Ok(true);
            }
            py.check_signals()?;
            if left.is_zero() {
                return Ok(false);
            }
        }
    }
}
