//! The one helper that releases the GIL, watches for Ctrl-C and converts errors.

use std::cell::RefCell;

use pyo3::prelude::*;
use uniroute_core::Result;
use uniroute_core::threads::{Run, num_threads};

use crate::errors::to_py;

/// Runs `work` without the GIL on up to the configured number of threads.
///
/// A signal handler that raises (Ctrl-C) ends the call, and what it raised is what the caller sees.
pub fn detached<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Run<'_>) -> Result<T> + Send,
) -> PyResult<T> {
    let outcome = py.detach(|| {
        let raised = RefCell::new(None);
        let interrupted = || {
            Python::attach(|py| py.check_signals())
                .map_err(|error| *raised.borrow_mut() = Some(error))
                .is_err()
        };
        let result = work(&Run {
            threads: num_threads(),
            interrupted: &interrupted,
        });
        result.map_err(|error| (error, raised.into_inner()))
    });
    outcome.map_err(|(error, raised)| raised.unwrap_or_else(|| to_py(py, &error)))
}
