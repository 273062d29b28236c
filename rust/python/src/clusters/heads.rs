//! The parts of a cluster map, as Python gives and gets them.

use numpy::{IntoPyArray, PyArray1, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use uniroute_core::Error;
use uniroute_core::clusters::centroids::Centroids;
use uniroute_core::clusters::cluster_map::{ClusterMap, Familiarity, Head, Softmax};

use crate::checks::arrays::array;
use crate::checks::scalars::{number, wrong};
use crate::errors::to_py;

const EXPECTED: &str = "a list of (\"nearest\", centroids) or (\"softmax\", weights, bias, floor), \
    and at most one (\"familiarity\", landmarks, distance) at the end";

/// A part of a map, by the number of its values; its name stands first.
#[derive(FromPyObject)]
enum Part<'py> {
    Softmax(String, Bound<'py, PyAny>, Bound<'py, PyAny>, f32),
    Familiarity(String, Bound<'py, PyAny>, Bound<'py, PyAny>),
    Nearest(String, Bound<'py, PyAny>),
}

/// The cluster map that a sequence of [`Part`] makes.
pub fn from_python(heads: &Bound<'_, PyAny>) -> PyResult<ClusterMap> {
    let py = heads.py();
    let mut parts = heads
        .extract::<Vec<Part<'_>>>()
        .map_err(|_| wrong(heads, "heads", EXPECTED))?;
    let familiarity = match parts.pop_if(|part| matches!(part, Part::Familiarity(..))) {
        Some(Part::Familiarity(kind, landmarks, distance)) if kind == "familiarity" => {
            Some(to_familiarity(&landmarks, &distance)?)
        }
        Some(Part::Familiarity(kind, ..)) => return Err(unknown(py, &kind)),
        _ => None,
    };
    let heads = parts.iter().map(|part| to_head(py, part));
    let map = ClusterMap::new(heads.collect::<PyResult<_>>()?);
    match familiarity {
        Some(familiarity) => map.and_then(|map| map.with_familiarity(familiarity)),
        None => map,
    }
    .map_err(|e| to_py(py, &e))
}

/// The head that a part is.
fn to_head(py: Python<'_>, part: &Part<'_>) -> PyResult<Head> {
    match part {
        Part::Nearest(kind, values) if kind == "nearest" => {
            let centroids = array::<f32>(values, "centroids", 2, "[n_clusters, dim]")?;
            let dim = centroids.shape()[1];
            Centroids::new(centroids.as_slice()?, dim).map(Head::Nearest)
        }
        Part::Softmax(kind, weights, bias, floor) if kind == "softmax" => {
            let weights = array::<f32>(weights, "weights", 2, "[n_clusters, dim]")?;
            let bias = array::<f32>(bias, "bias", 1, "[n_clusters]")?;
            Softmax::new(weights.as_slice()?, bias.as_slice()?, *floor).map(Head::Softmax)
        }
        Part::Nearest(kind, ..) | Part::Softmax(kind, ..) | Part::Familiarity(kind, ..) => {
            return Err(unknown(py, kind));
        }
    }
    .map_err(|e| to_py(py, &e))
}

/// What tells foreign prompts.
fn to_familiarity(
    landmarks: &Bound<'_, PyAny>,
    distance: &Bound<'_, PyAny>,
) -> PyResult<Familiarity> {
    let landmarks = array::<f32>(landmarks, "landmarks", 2, "[n_landmarks, dim]")?;
    let Some(far) = number(distance) else {
        return Err(wrong(distance, "distance", "a number above 0"));
    };
    Familiarity::new(landmarks.as_slice()?, landmarks.shape()[1], far as f32)
        .map_err(|e| to_py(distance.py(), &e))
}

fn unknown(py: Python<'_>, kind: &str) -> PyErr {
    let problem =
        format!("a part of kind {kind:?} in a place or of a length that it does not have");
    to_py(py, &Error::invalid("heads", problem, EXPECTED))
}

/// Each part as [`Part`] takes it.
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
    let familiarity = map.familiarity().map(|f| {
        let landmarks = matrix(f.landmarks().as_slice().to_vec())?;
        let parts = ("familiarity", landmarks, f.distance());
        Ok(parts.into_pyobject(py)?.into_any())
    });
    parts.chain(familiarity).collect()
}
