//! The heads of a cluster map, as Python gives and gets them.

use numpy::{IntoPyArray, PyArray1, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use uniroute_core::Error;
use uniroute_core::centroids::Centroids;
use uniroute_core::cluster_map::{ClusterMap, Head, Softmax};

use crate::arguments::wrong;
use crate::arrays::array;
use crate::errors::to_py;

/// `("softmax", weights, bias, floor)`.
#[derive(FromPyObject)]
enum HeadParts<'py> {
    Softmax(String, Bound<'py, PyAny>, Bound<'py, PyAny>, f32),
    Nearest(String, Bound<'py, PyAny>),
}

impl HeadParts<'_> {
    /// The head that the parts make.
    fn to_head(&self, py: Python<'_>) -> PyResult<Head> {
        match self {
            Self::Nearest(kind, centroids) if kind == "nearest" => {
                let centroids = array::<f32>(centroids, "centroids", 2, "[n_clusters, dim]")?;
                let dim = centroids.shape()[1];
                Centroids::new(centroids.as_slice()?, dim).map(Head::Nearest)
            }
            Self::Softmax(kind, weights, bias, floor) if kind == "softmax" => {
                let weights = array::<f32>(weights, "weights", 2, "[n_clusters, dim]")?;
                let bias = array::<f32>(bias, "bias", 1, "[n_clusters]")?;
                Softmax::new(weights.as_slice()?, bias.as_slice()?, *floor).map(Head::Softmax)
            }
            Self::Nearest(kind, ..) | Self::Softmax(kind, ..) => Err(Error::invalid(
                "heads",
                format!("a head of kind {kind:?} with other parts than that kind has"),
                "(\"nearest\", centroids) or (\"softmax\", weights, bias, floor)",
            )),
        }
        .map_err(|e| to_py(py, &e))
    }
}

/// The heads of a sequence of [`HeadParts`].
pub fn from_python(heads: &Bound<'_, PyAny>) -> PyResult<Vec<Head>> {
    let parts = heads.extract::<Vec<HeadParts<'_>>>().map_err(|_| {
        let expected = "a list of (\"nearest\", centroids) or (\"softmax\", weights, bias, floor)";
        wrong(heads, "heads", expected)
    })?;
    parts
        .iter()
        .map(|parts| parts.to_head(heads.py()))
        .collect()
}

/// Each head as [`HeadParts`] takes it.
pub fn to_python<'py>(py: Python<'py>, map: &ClusterMap) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let dim = map.dim();
    let matrix = |values: Vec<f32>| {
        let rows = values.len() / dim;
        values.into_pyarray(py).reshape([rows, dim])
    };
    let parts = map.heads().iter().map(|head| match head {
        Head::Nearest(c) => Ok(("nearest", matrix(c.as_slice().to_vec())?)
            .into_pyobject(py)?
            .into_any()),
        Head::Softmax(s) => {
            let bias = PyArray1::from_slice(py, s.bias());
            let parts = ("softmax", matrix(s.weights())?, bias, s.floor());
            Ok(parts.into_pyobject(py)?.into_any())
        }
    });
    parts.collect()
}
