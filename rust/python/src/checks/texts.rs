//! Texts in: read where they lie, as `&str` that can be used without the GIL.
//!
//! A Python string is read through the UTF-8 form that CPython keeps with it: for ASCII text that
//! is the string itself, for other text it is made once. Arrow columns are read in their own
//! buffers. A NumPy array of strings holds UTF-32 or a layout of its own, so its items become
//! Python strings first.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyFloat, PyList, PyString, PyTuple};
use pyo3_arrow::input::AnyArray;
use uniroute_core::text::lexical::Status;

use crate::errors::wrong_type;

const EXPECTED: &str = "a list of str, a NumPy array of strings or an Arrow string array";

/// The texts of one call.
pub enum Texts<'py> {
    /// Python strings; `None` for a null.
    Strings(Vec<Option<Bound<'py, PyString>>>),
    /// Arrow columns of one of the three string types, one after the other.
    Arrow(Vec<ArrayRef>),
}

/// The name that users see.
pub fn status_name(status: Status) -> &'static str {
    status.name()
}

impl<'py> Texts<'py> {
    /// The texts in a list or other iterable of `str`, a NumPy array of strings, or anything that
    /// exports an Arrow string column. `None` and NaN are nulls.
    pub fn collect(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let refuse = |problem: String| Err(wrong_type(py, "texts", &problem, EXPECTED));
        if let Ok(list) = object.cast::<PyList>() {
            return Self::from_items(list.iter());
        }
        if let Ok(tuple) = object.cast::<PyTuple>() {
            return Self::from_items(tuple.iter());
        }
        let single = object.is_instance_of::<PyString>()
            || object.is_instance_of::<PyBytes>()
            || object.is_instance_of::<PyByteArray>();
        if single || object.is_instance_of::<PyDict>() {
            return refuse(format!("a single {}", object.get_type().name()?));
        }
        if object.hasattr(intern!(py, "__arrow_c_stream__"))?
            || object.hasattr(intern!(py, "__arrow_c_array__"))?
        {
            return Self::from_arrow(object);
        }
        if object.hasattr(intern!(py, "tolist"))? {
            let list = object.call_method0(intern!(py, "tolist"))?;
            return match list.cast::<PyList>() {
                Ok(list) => Self::from_items(list.iter()),
                Err(_) => refuse("an array of no dimensions".into()),
            };
        }
        match object.try_iter() {
            Ok(items) => Self::from_items(&items.collect::<PyResult<Vec<_>>>()?),
            Err(_) => refuse(format!("a {}", object.get_type().name()?)),
        }
    }

    fn from_items<I>(items: I) -> PyResult<Self>
    where
        I: IntoIterator,
        I::Item: std::borrow::Borrow<Bound<'py, PyAny>>,
    {
        let string = |(i, item): (usize, I::Item)| {
            let item = std::borrow::Borrow::borrow(&item);
            if let Ok(string) = item.cast::<PyString>() {
                return Ok(Some(string.clone()));
            }
            let nan = || {
                item.cast::<PyFloat>()
                    .is_ok_and(|f| f.extract().is_ok_and(f64::is_nan))
            };
            if item.is_none() || nan() {
                return Ok(None);
            }
            let found = format!("item {i} is a {}", item.get_type().name()?);
            Err(wrong_type(
                item.py(),
                "texts",
                &found,
                "str, or None for a null",
            ))
        };
        items
            .into_iter()
            .enumerate()
            .map(string)
            .collect::<PyResult<_>>()
            .map(Self::Strings)
    }

    fn from_arrow(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let (chunks, field) = object
            .extract::<AnyArray>()?
            .into_chunked_array()?
            .into_inner();
        match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(Self::Arrow(chunks)),
            DataType::Null if chunks.iter().all(arrow_array::Array::is_empty) => {
                Ok(Self::Arrow(vec![]))
            }
            other => {
                let found = format!("an Arrow column of type {other}");
                Err(wrong_type(
                    object.py(),
                    "texts",
                    &found,
                    "string, large_string or string_view",
                ))
            }
        }
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        match self {
            Self::Strings(strings) => strings.len(),
            Self::Arrow(chunks) => chunks.iter().map(arrow_array::Array::len).sum(),
        }
    }

    /// Every text, or why it is none.
    pub fn rows(&self) -> Vec<Result<&str, Status>> {
        match self {
            Self::Strings(strings) => strings
                .iter()
                .map(|string| row(string.as_ref().ok_or(Status::Null)?))
                .collect(),
            Self::Arrow(chunks) => {
                let mut rows = Vec::with_capacity(self.len());
                for chunk in chunks {
                    match chunk.data_type() {
                        DataType::Utf8 => rows.extend(chunk.as_string::<i32>().iter().map(checked)),
                        DataType::LargeUtf8 => {
                            rows.extend(chunk.as_string::<i64>().iter().map(checked));
                        }
                        _ => rows.extend(chunk.as_string_view().iter().map(checked)),
                    }
                }
                rows
            }
        }
    }
}

/// One string: read through the UTF-8 form that CPython keeps with it.
pub fn row<'a>(string: &'a Bound<'_, PyString>) -> Result<&'a str, Status> {
    string.to_str().map_err(|_| Status::Invalid)
}

/// Arrow promises valid UTF-8 but the column comes from outside: check it before relying on it.
fn checked(text: Option<&str>) -> Result<&str, Status> {
    let bytes = text.ok_or(Status::Null)?.as_bytes();
    std::str::from_utf8(bytes).map_err(|_| Status::Invalid)
}
