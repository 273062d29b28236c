//! The one way from Python into the core: without the GIL, heeding Ctrl-C, and with every failure, a
//! panic too, as an exception of this package.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use uniroute_core::sys::threads::{Run, num_threads};
use uniroute_core::{Error, Result};

use crate::errors::to_py;

/// Runs `work` without the GIL.
pub fn released<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(|| caught(work))
        .map_err(|error| to_py(py, &error))
}

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
    let outcome = released(py, || {
        work(&Run {
            threads: num_threads(),
            interrupted: &interrupted,
        })
    });
    outcome.map_err(|error| {
        let raised = raised.lock().unwrap_or_else(PoisonError::into_inner).take();
        raised.unwrap_or(error)
    })
}

/// What work comes to; a panic of it is an error like others, which `except Exception` catches.
pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Nobody sees what a panic left half done: snapshots are published whole, and scratch of a
    // thread that panicked is not used again.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(Error::Internal {
            problem: said(&*panic).to_owned(),
        })
    })
}

/// The words of a panic.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let words = |work: fn() -> Result<()>| caught(work).unwrap_err().to_string();
        assert!(words(|| panic!("all is lost")).starts_with("internal: all is lost; "));
        assert!(words(|| panic!("{} is lost", 1)).starts_with("internal: 1 is lost; "));
        assert_eq!(caught(|| Ok(7)).unwrap(), 7);
    }
}
