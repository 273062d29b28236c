//! NumPy arrays in: used as they are where they fit, converted once or refused where they do not.

use numpy::{Element, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use uniroute_core::Error;

use crate::errors::{to_py, wrong_type};

/// A C-contiguous array of `T` with `ndim` dimensions: the caller's own if it is one, else a
/// converted copy. Only real numbers are converted: booleans, integers and floats.
pub fn array<'py, T: Element>(
    object: &Bound<'py, PyAny>,
    argument: &'static str,
    ndim: usize,
    shape: &str,
) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
    let py = object.py();
    // NumPy itself would drop the mask without a word.
    if object.get_type().name()? == "MaskedArray" {
        let expected = "an array without a mask; use NaN or leave rows out";
        return Err(wrong_type(py, argument, "a masked array", expected));
    }
    if let Ok(array) = object.cast::<PyArrayDyn<T>>()
        && array.is_c_contiguous()
        && array.ndim() == ndim
    {
        let array = array.readonly();
        // NumPy also has arrays whose values lie at odd addresses: these are copied below.
        if array.as_slice().is_ok() {
            return Ok(array);
        }
    }
    let numpy = PyModule::import(py, "numpy")?;
    let dtype = T::get_dtype(py);
    let expected = || format!("a {dtype} array of shape {shape}");
    let converted = numpy.call_method1("asarray", (object,)).map_err(|e| {
        // An interrupt is no fault of the argument.
        if !e.is_instance_of::<PyException>(py) {
            return e;
        }
        wrong_type(py, argument, &format!("not an array ({e})"), &expected())
    })?;
    let kind: String = converted.getattr("dtype")?.getattr("kind")?.extract()?;
    if !matches!(kind.as_str(), "b" | "i" | "u" | "f") {
        let found = converted.getattr("dtype")?;
        return Err(wrong_type(
            py,
            argument,
            &format!("dtype {found}"),
            &expected(),
        ));
    }
    let found: Vec<usize> = converted.getattr("shape")?.extract()?;
    if found.len() != ndim {
        return Err(to_py(
            py,
            &Error::invalid(
                argument,
                format!("{} dimensions, shape {found:?}", found.len()),
                expected(),
            ),
        ));
    }
    let array = numpy.call_method1("require", (converted, dtype, ["C", "A"]))?;
    Ok(array.cast_into::<PyArrayDyn<T>>()?.readonly())
}
