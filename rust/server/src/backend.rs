//! What the service needs beside the router: the artifact, profiling, learning.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::StatusCode;
use uniroute_core::file::artifact::Artifact;
use uniroute_core::file::persist;
use uniroute_core::pool::metadata::Metadata;
use uniroute_core::route::router::Router;
use uniroute_core::route::snapshot::Snapshot;

use crate::api::observe::Observed;
use crate::http::refusal::Refusal;

/// Prompts that a model was run on, and its losses on them.
#[derive(Debug)]
pub struct Outcomes {
    /// Of the prompts.
    pub texts: Vec<String>,
    /// In [0, 1], lower is better; null where the model was not run.
    pub losses: Vec<Option<f64>>,
}

/// A model that is to be added, profiled by its outcomes.
pub struct Newcomer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its cost per prompt.
    pub cost: f64,
    /// What it is profiled by.
    pub outcomes: &'a Outcomes,
    /// What else is known of it.
    pub metadata: &'a Metadata,
    /// Whether it may be chosen.
    pub enabled: bool,
}

/// A change of the pool: what it published.
pub type Change<'a> = dyn FnMut() -> uniroute_core::Result<Arc<Snapshot>> + 'a;

/// What the service asks of whoever made the router. Called from threads that may wait.
pub trait Backend: Send + Sync {
    /// Puts what the artifact holds now in place of what routes.
    fn reload(&self) -> Result<(), Refusal>;

    /// Adds a model that is not in the pool yet, with all that is said of it, as one new version.
    fn add(&self, newcomer: &Newcomer<'_>) -> Result<(), Refusal>;

    /// Expected losses of a model, one a cluster, from its outcomes.
    fn profile(&self, outcomes: &Outcomes) -> Result<Vec<f32>, Refusal>;

    /// Runs a change after which a model's profile, or the model, is no longer what its outcomes
    /// made it. Nothing is learnt meanwhile.
    fn replacing(&self, name: &str, change: &mut Change<'_>) -> Result<Arc<Snapshot>, Refusal>;

    /// Learns from outcomes that were observed, as one new version; which of them it could use.
    fn observe(&self, observed: &Observed) -> Result<Vec<bool>, Refusal>;
}

/// The backend of a router that came from a file and has nothing else to it: profiling and learning
/// are done in Python.
pub struct FileBackend {
    /// What routes.
    pub router: Arc<Router>,
    /// The artifact, if there is one.
    pub path: Option<PathBuf>,
}

impl Backend for FileBackend {
    fn reload(&self) -> Result<(), Refusal> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let (snapshot, _) = Artifact::load(path).and_then(persist::from_artifact)?;
        Ok(self.router.replace(&snapshot)?)
    }

    fn add(&self, newcomer: &Newcomer<'_>) -> Result<(), Refusal> {
        self.profile(newcomer.outcomes).map(drop)
    }

    fn replacing(&self, _: &str, change: &mut Change<'_>) -> Result<Arc<Snapshot>, Refusal> {
        Ok(change()?)
    }

    fn profile(&self, _: &Outcomes) -> Result<Vec<f32>, Refusal> {
        Err(needs_python(
            "texts and losses",
            "expected losses as `profile`",
        ))
    }

    fn observe(&self, _: &Observed) -> Result<Vec<bool>, Refusal> {
        Err(needs_python(
            "outcomes",
            "the service that `uniroute serve` starts",
        ))
    }
}

fn needs_python(what: &str, expected: &str) -> Refusal {
    let message =
        format!("this service runs without Python and learns from no {what}; expected {expected}");
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "needs_python", message)
}
