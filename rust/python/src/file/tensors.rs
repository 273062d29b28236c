//! Tensors of an artifact as NumPy arrays, and back.

use std::collections::BTreeMap;

use numpy::{
    Element as NumpyElement, IntoPyArray, PyArrayDyn, PyArrayMethods, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use uniroute_core::file::tensor::{Element, Tensor};

use crate::errors::wrong_type;

/// Calls `$f::<T>` for each type that tensors can hold until one answers.
macro_rules! first_of_types {
    ($f:ident($($arg:expr),*)) => {
        None.or_else(|| $f::<f32>($($arg),*))
            .or_else(|| $f::<f64>($($arg),*))
            .or_else(|| $f::<i64>($($arg),*))
            .or_else(|| $f::<u32>($($arg),*))
            .or_else(|| $f::<i32>($($arg),*))
            .or_else(|| $f::<u8>($($arg),*))
            .or_else(|| $f::<i8>($($arg),*))
            .or_else(|| $f::<u16>($($arg),*))
    };
}

fn as_tensor<T: Element + NumpyElement>(array: &Bound<'_, PyAny>) -> Option<Tensor> {
    let array = array.cast::<PyArrayDyn<T>>().ok()?;
    // In C order whatever the array's own layout.
    let values: Vec<T> = array.readonly().as_array().iter().copied().collect();
    Some(Tensor::new(array.shape(), values))
}

fn as_array<'py, T: Element + NumpyElement>(
    py: Python<'py>,
    tensor: &Tensor,
) -> Option<PyResult<Bound<'py, PyUntypedArray>>> {
    let values = tensor.values::<T>()?.into_pyarray(py);
    Some(
        values
            .reshape(tensor.shape())
            .map(|a| a.as_untyped().clone()),
    )
}

/// Arrays by name, as tensors.
pub fn to_tensors(arrays: &Bound<'_, PyDict>) -> PyResult<BTreeMap<String, Tensor>> {
    let py = arrays.py();
    let convert = |(name, array): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let name = name.cast::<PyString>()?.to_str()?.to_owned();
        let tensor = first_of_types!(as_tensor(&array)).ok_or_else(|| {
            let found = format!("{name:?} is a {}", array.get_type());
            wrong_type(
                py,
                "tensors",
                &found,
                "NumPy arrays of numbers of a fixed width",
            )
        })?;
        Ok((name, tensor))
    };
    arrays.iter().map(convert).collect()
}

/// Tensors by name, as arrays.
pub fn from_tensors<'py>(
    py: Python<'py>,
    tensors: &BTreeMap<String, Tensor>,
) -> PyResult<Bound<'py, PyDict>> {
    let arrays = PyDict::new(py);
    for (name, tensor) in tensors {
        let array = first_of_types!(as_array(py, tensor)).ok_or_else(|| {
            let found = format!("{name:?} holds {:?}", tensor.dtype());
            wrong_type(py, "tensors", &found, "numbers that NumPy knows")
        })?;
        arrays.set_item(name, array?)?;
    }
    Ok(arrays)
}
