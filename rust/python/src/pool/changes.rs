//! `Change`: what has happened to a pool.

use pyo3::prelude::*;
use uniroute_core::pool::changes::Change;

/// One change to a router.
#[pyclass(frozen, get_all, module = "uniroute_fast.decisions", name = "Change")]
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

impl From<Change> for PyChange {
    fn from(change: Change) -> Self {
        Self {
            version: change.version,
            time: change.time,
            action: change.action.name(),
            models: change.models,
            count: change.count,
        }
    }
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyChange>()
}
