//! The one helper that releases the GIL, watches for Ctrl-C and converts errors.

use std::sync::{Mutex, PoisonError};

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
    let raised = Mutex::new(None);
    let interrupted = || {
        Python::attach(|py| match py.check_signals() {
            Ok(()) => false,
            Err(error) => {
                *raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                true
            }
        })
    };
    let outcome = py.detach(|| {
        work(&Run {
            threads: num_threads(),
            interrupted: &interrupted,
        })
    });
    outcome.map_err(|error| {
        let raised = raised.lock().unwrap_or_else(PoisonError::into_inner).take();
        raised.unwrap_or_else(|| to_py(py, &error))
    })
}
