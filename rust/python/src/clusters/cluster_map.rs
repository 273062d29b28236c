//! The cluster map by which fitting, like routing, gets Phi; and its parts, as Python gives and gets them.

use std::sync::Arc;

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use uniroute_core::Error;
use uniroute_core::clusters::centroids::Centroids;
use uniroute_core::clusters::cluster_map::{
    ClusterMap, Familiarity, Head, Softmax, share_out_of_distribution,
};

use crate::checks::arrays::array;
use crate::checks::scalars::{number, wrong};
use crate::errors::to_py;
use crate::run::detached;

const EXPECTED: &str = "a list of (\"nearest\", centroids) or (\"softmax\", weights, bias, floor), \
    the latter with True at the end where its last cluster is a background, and at most one (\"familiarity\", landmarks, distance) at the end";

/// From an embedding to clusters: the cluster map Phi, as routing computes it.
///
/// Heads stand side by side. Each gives an embedding weights over its own clusters, which add up to 1:
/// all of it on the nearest of its centroids, or a softmax of linear scores, without the entries below
/// ``floor`` times the largest. The last cluster of a softmax head may be its *background*, where an
/// LLM's profile is its overall mean. Landmarks move prompts that are far from all of them, and so out
/// of distribution, to the backgrounds.
///
/// Parameters
/// ----------
/// heads : sequence of tuple
///     ``("nearest", centroids)`` with centroids float32[K, D]; ``("softmax", weights, bias, floor)``
///     with float32[K, D], float32[K] and 0 to 1, and True behind them where the last cluster is a
///     background; at the end, for softmax heads of two clusters or more,
///     ``("familiarity", landmarks, distance)``: float32[L, D], and the squared distance to the nearest
///     at which a prompt is half out of distribution, above 0.
///
/// Raises
/// ------
/// InvalidArgumentError, ArgumentTypeError
///     No head, another part, shapes that do not agree, values that are not finite.
///
/// Notes
/// -----
/// Immutable, and shared with the router that is made from it.
///
/// Examples
/// --------
/// >>> from uniroute_fast.clusters.cluster_map import ClusterMap
/// >>> two = ClusterMap([("nearest", [[1.0, 0.0], [0.0, 1.0]])])
/// >>> two.phi([[0.1, 0.9]])
/// array([[0., 1.]], dtype=float32)
#[pyclass(name = "ClusterMap", module = "uniroute_fast._native", frozen)]
pub struct PyClusterMap(pub(crate) Arc<ClusterMap>);

#[pymethods]
impl PyClusterMap {
    #[new]
    fn new(heads: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(from_python(heads)?))
    }

    /// Clusters of each head.
    #[getter]
    fn sizes(&self) -> Vec<usize> {
        self.0.heads().iter().map(Head::clusters).collect()
    }

    /// Clusters of all heads together, K.
    #[getter]
    fn n_clusters(&self) -> usize {
        self.0.clusters()
    }

    /// Dimensions of the embeddings, D.
    #[getter]
    fn dim(&self) -> usize {
        self.0.dim()
    }

    /// The heads' backgrounds, those that have one, ascending.
    #[getter]
    fn backgrounds(&self) -> Vec<u32> {
        self.0.backgrounds()
    }

    /// The parts that the map was made from.
    fn heads<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        to_python(py, &self.0)
    }

    /// Return the cluster weights of embeddings float32[N, D], float32[N, K].
    ///
    /// Raises
    /// ------
    /// InvalidArgumentError, ArgumentTypeError
    ///     Embeddings of another shape or dtype, or not finite.
    ///
    /// Notes
    /// -----
    /// O(N K D) on up to `get_num_threads()` threads without the GIL. Ctrl-C ends the call.
    fn phi<'py>(&self, embeddings: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let py = embeddings.py();
        let x = array::<f32>(embeddings, "embeddings", 2, "[N, D]")?;
        let (rows, dim) = (x.shape()[0], x.shape()[1]);
        if dim != self.0.dim() {
            let problem = format!("shape ({rows}, {dim})");
            let expected = format!("(N, {})", self.0.dim());
            return Err(to_py(py, &Error::invalid("embeddings", problem, expected)));
        }
        let phi = PyArray2::<f32>::zeros(py, [rows, self.0.clusters()], false);
        {
            let (x, mut out) = (x.as_slice()?, phi.try_readwrite()?);
            let out = out.as_slice_mut()?;
            detached(py, |run| self.0.phi_of_all(x, out, run))?;
        }
        Ok(phi)
    }

    fn __reduce__<'py>(this: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        Ok((this.get_type(), (this.get().heads(this.py())?,)))
    }
}

type Reduced<'py> = (Bound<'py, PyType>, (Vec<Bound<'py, PyAny>>,));

/// Return how far prompts are out of distribution, float32[N], 0 to 1, from their squared distances to
/// the nearest landmark, float32[N].
///
/// With r = squared / distance it is r⁸ / (1 + r⁸), half at the distance; shares below 1/64 are 0.
#[pyfunction]
fn shares_out_of_distribution<'py>(
    squared: &Bound<'py, PyAny>,
    distance: f32,
) -> PyResult<Bound<'py, PyArray1<f32>>> {
    let squared = array::<f32>(squared, "squared", 1, "[N]")?;
    let shares = squared.as_slice()?.iter();
    let shares: Vec<f32> = shares
        .map(|&s| share_out_of_distribution(s, distance))
        .collect();
    Ok(shares.into_pyarray(squared.py()))
}

/// The cluster map that a sequence of parts makes, or that was made of one.
pub fn from_python(heads: &Bound<'_, PyAny>) -> PyResult<Arc<ClusterMap>> {
    let py = heads.py();
    if let Ok(map) = heads.cast::<PyClusterMap>() {
        return Ok(Arc::clone(&map.get().0));
    }
    let refused = || wrong(heads, "heads", EXPECTED);
    let parts: Vec<Bound<'_, PyTuple>> = heads.extract().map_err(|_| refused())?;
    let (mut own, mut familiarity) = (Vec::new(), None);
    for (i, part) in parts.iter().enumerate() {
        let kind = part.get_item(0).and_then(|kind| kind.extract::<String>());
        let kind = kind.map_err(|_| refused())?;
        let floor = || part.get_item(3)?.extract::<f32>().map_err(|_| refused());
        let matrix = |name| array::<f32>(&part.get_item(1)?, name, 2, "[n_clusters, dim]");
        let head = match (kind.as_str(), part.len()) {
            ("nearest", 2) => {
                let centroids = matrix("centroids")?;
                Centroids::new(centroids.as_slice()?, centroids.shape()[1]).map(Head::Nearest)
            }
            ("softmax", 4 | 5) => {
                let bias = array::<f32>(&part.get_item(2)?, "bias", 1, "[n_clusters]")?;
                let weights = matrix("weights")?;
                let head = Softmax::new(weights.as_slice()?, bias.as_slice()?, floor()?);
                let last = part.get_item(4).map(|last| last.extract::<bool>());
                let head = match last {
                    Ok(Err(_)) => return Err(refused()),
                    Ok(Ok(true)) => head.and_then(Softmax::with_background),
                    _ => head,
                };
                head.map(Head::Softmax)
            }
            ("familiarity", 3) if i + 1 == parts.len() => {
                let landmarks =
                    array::<f32>(&part.get_item(1)?, "landmarks", 2, "[n_landmarks, dim]")?;
                let dim = landmarks.shape()[1];
                let found =
                    Familiarity::new(landmarks.as_slice()?, dim, distance(&part.get_item(2)?)?);
                familiarity = Some(found.map_err(|e| to_py(py, &e))?);
                continue;
            }
            _ => return Err(unknown(py, &kind)),
        };
        own.push(head.map_err(|e| to_py(py, &e))?);
    }
    let map = ClusterMap::new(own);
    match familiarity {
        Some(familiarity) => map.and_then(|map| map.with_familiarity(familiarity)),
        None => map,
    }
    .map(Arc::new)
    .map_err(|e| to_py(py, &e))
}

/// The squared distance of a part of landmarks.
fn distance(object: &Bound<'_, PyAny>) -> PyResult<f32> {
    let found = number(object).ok_or_else(|| wrong(object, "distance", "a number above 0"))?;
    Ok(found as f32)
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
            let parts = (
                "softmax",
                matrix(s.weights())?,
                bias,
                s.floor(),
                s.has_background(),
            );
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

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyClusterMap>()?;
    m.add_function(wrap_pyfunction!(shares_out_of_distribution, m)?)
}
