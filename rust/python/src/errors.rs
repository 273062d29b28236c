//! The one place where the core's errors become Python exceptions.

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};
use uniroute_core::Error;
use uniroute_core::error;

/// Name of the class in `uniroute_fast.errors` that stands for this error.
fn class_name(error: &Error) -> &'static str {
    match error {
        Error::UnknownModel { .. } => "UnknownModelError",
        Error::DuplicateModel { .. } => "DuplicateModelError",
        Error::EmptyPool => "EmptyPoolError",
        Error::NoCandidate { .. } => "NoCandidateError",
        Error::Artifact { .. } => "ArtifactError",
        Error::Io { .. } => "ArtifactIOError",
        Error::UnsupportedIsa { .. } => "UnsupportedIsaError",
        Error::InvalidArgument { .. } => "InvalidArgumentError",
        _ => "UniRouteError",
    }
}

/// An exception of a class of `uniroute_fast.errors`.
pub fn exception(py: Python<'_>, class: &str, message: String) -> PyErr {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let class = MODULE
        .get_or_try_init(py, || {
            PyModule::import(py, "uniroute_fast.errors").map(Bound::unbind)
        })
        .and_then(|module| module.bind(py).getattr(class))
        .and_then(|class| class.cast_into::<PyType>().map_err(PyErr::from));
    match class {
        Ok(class) => PyErr::from_type(class, message),
        Err(error) => error,
    }
}

/// Converts an error of the core.
pub fn to_py(py: Python<'_>, error: &Error) -> PyErr {
    if matches!(error, Error::Interrupted) {
        return PyKeyboardInterrupt::new_err(());
    }
    exception(py, class_name(error), error.to_string())
}

/// An `ArgumentTypeError`: which argument, what it was, what was expected.
pub fn wrong_type(py: Python<'_>, argument: &str, problem: &str, expected: &str) -> PyErr {
    exception(
        py,
        "ArgumentTypeError",
        format!("{argument}: {problem}; expected {expected}"),
    )
}

/// An `UnroutableError`: a prompt that cannot be routed, and why.
pub fn unroutable(py: Python<'_>, message: &str) -> PyErr {
    exception(py, "UnroutableError", message.to_owned())
}

/// Return a text as messages show it: printable, and short.
///
/// Characters that a terminal would obey or not show are escaped, line breaks and tabs apart, and so
/// are lone surrogates. The middle of a text of more than `most` bytes, as UTF-8, is left out. A text
/// that has been through it stays as it is.
#[pyfunction]
#[pyo3(signature = (text, most=2000))]
pub fn legible(text: &Bound<'_, PyString>, most: usize) -> PyResult<String> {
    // Lone surrogates are no Unicode: all of Rust's strings are.
    let bytes = text.call_method1("encode", ("utf-8", "backslashreplace"))?;
    let text = String::from_utf8(bytes.extract()?)?;
    Ok(error::legible(&text, most).into_owned())
}
