//! Nearest centroid, threads, versions.

use numpy::{PyArray1, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use uniroute_core::clusters::centroids::{self, Centroids, refuse_unassigned};
use uniroute_core::sys::threads::{self, Run};
use uniroute_core::{Error, kernels};

use crate::checks::arrays::array;
use crate::checks::scalars::{boolean, count, string};
use crate::errors::to_py;
use crate::run::{detached, released};

type Assignment<'py> = (Bound<'py, PyArray1<u32>>, Option<Bound<'py, PyArray1<f32>>>);

/// Centroids packed once, for many calls.
///
/// Answers are those of `nearest_centroid`: float64 brute force, lowest index on ties.
///
/// Parameters
/// ----------
/// centroids : array_like of float32, shape [K, D]
///     `K` and `D` at least 1, all values finite.
/// isa : {"portable", "avx2", "avx512"}, optional
///     Instruction set to use; default the one in use (see `show_versions`).
///
/// Raises
/// ------
/// InvalidArgumentError
///     No centroids, NaN or infinity, an unknown `isa`.
/// UnsupportedIsaError
///     An `isa` that this CPU lacks.
///
/// Notes
/// -----
/// O(K D) time and memory, once. Immutable and safe to share between threads.
///
/// Examples
/// --------
/// >>> import uniroute_fast as uf
/// >>> centroids = uf.Centroids([[0.0, 0.0], [4.0, 3.0]])
/// >>> centroids.nearest([4.0, 4.0])
/// (1, 1.0)
/// >>> labels, distances = centroids.assign([[0.0, 1.0], [4.0, 4.0]])
/// >>> labels.tolist()
/// [0, 1]
#[pyclass(name = "Centroids", module = "uniroute_fast", frozen)]
pub struct PyCentroids(Centroids);

#[pymethods]
impl PyCentroids {
    #[new]
    #[pyo3(signature = (centroids, *, isa=None))]
    fn new(
        py: Python<'_>,
        centroids: &Bound<'_, PyAny>,
        isa: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let isa = isa.map(|isa| string("isa", isa, "the name of an instruction set, or None"));
        let isa = isa.transpose()?;
        let data = array::<f32>(centroids, "centroids", 2, "[K, D]")?;
        let dim = data.shape()[1];
        let data = data.as_slice()?;
        let isa = match isa {
            None => kernels::isa(),
            Some(name) => kernels::Isa::from_name(&name).ok_or_else(|| {
                let names: Vec<_> = kernels::available()
                    .into_iter()
                    .map(kernels::Isa::name)
                    .collect();
                Error::invalid("isa", format!("{name:?}"), names.join(", "))
            }),
        };
        released(py, || {
            isa.and_then(|isa| Centroids::with_isa(data, dim, isa))
        })
        .map(Self)
    }

    /// Find the centroid nearest to one embedding.
    ///
    /// Parameters
    /// ----------
    /// x : array_like of float32, shape [D]
    ///     The embedding.
    ///
    /// Returns
    /// -------
    /// tuple of int and float
    ///     Index of the centroid, squared distance to it.
    ///
    /// Raises
    /// ------
    /// InvalidArgumentError
    ///     Another dimension, NaN or infinity.
    fn nearest(&self, py: Python<'_>, x: &Bound<'_, PyAny>) -> PyResult<(u32, f32)> {
        let x = array::<f32>(x, "x", 1, "[D]")?;
        self.0
            .nearest(x.as_slice()?)
            .map_err(|error| to_py(py, &error))
    }

    /// Find the nearest centroid of every row of `x`.
    ///
    /// Parameters
    /// ----------
    /// x : array_like of float32, shape [N, D]
    ///     Embeddings.
    /// return_distance : bool, default True
    ///     Whether to compute squared distances; None is returned for them otherwise.
    /// on_invalid : {"raise", "mark"}, default "raise"
    ///     As for `nearest_centroid`.
    ///
    /// Returns
    /// -------
    /// tuple of uint32 array, shape [N], and float32 array, shape [N], or None
    ///     Labels and squared distances.
    ///
    /// Raises
    /// ------
    /// InvalidArgumentError
    ///     Another dimension, NaN or infinity.
    #[pyo3(
        signature = (x, *, return_distance=true, on_invalid=None),
        text_signature = "($self, x, *, return_distance=True, on_invalid='raise')"
    )]
    fn assign<'py>(
        &self,
        x: &Bound<'py, PyAny>,
        #[pyo3(from_py_with = return_distance)] return_distance: bool,
        on_invalid: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Assignment<'py>> {
        let mark = marks(on_invalid)?;
        let x = array::<f32>(x, "x", 2, "[N, D]")?;
        check_dim(x.py(), x.shape()[1], self.0.dim())?;
        assigned(&x, return_distance, mark, |x, labels, distances, run| {
            self.0.assign_marked(x, labels, distances, run)
        })
    }

    /// Count the centroids that had to be compared in float64.
    ///
    /// Parameters
    /// ----------
    /// x : array_like of float32, shape [N, D]
    ///     Embeddings.
    ///
    /// Returns
    /// -------
    /// uint32 array, shape [N]
    ///     1 at best, K where no bound holds.
    fn count_candidates<'py>(&self, x: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let py = x.py();
        let x = array::<f32>(x, "x", 2, "[N, D]")?;
        check_dim(py, x.shape()[1], self.0.dim())?;
        let x = x.as_slice()?;
        let counts = released(py, || Ok(self.0.count_candidates(x)))?;
        Ok(PyArray1::from_vec(py, counts))
    }

    /// Instruction set that answers.
    #[getter]
    fn isa(&self) -> &'static str {
        self.0.isa().name()
    }

    /// Shape of the centroids: K, D.
    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.0.len(), self.0.dim())
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}

/// The argument of that name.
fn return_distance(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    boolean("return_distance", object)
}

/// `nearest_centroid` for centroids that are not packed.
#[pyfunction]
#[pyo3(
    signature = (x, centroids, *, return_distance=true, on_invalid=None),
    text_signature = "(x, centroids, *, return_distance=True, on_invalid='raise')"
)]
fn assign_once<'py>(
    x: &Bound<'py, PyAny>,
    centroids: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = return_distance)] return_distance: bool,
    on_invalid: Option<&Bound<'py, PyAny>>,
) -> PyResult<Assignment<'py>> {
    let centroids = array::<f32>(centroids, "centroids", 2, "[K, D]")?;
    let mark = marks(on_invalid)?;
    let x = array::<f32>(x, "x", 2, "[N, D]")?;
    let (data, dim) = (centroids.as_slice()?, centroids.shape()[1]);
    if !data.is_empty() {
        check_dim(x.py(), x.shape()[1], dim)?;
    }
    assigned(&x, return_distance, mark, |x, labels, distances, run| {
        centroids::assign_once(x, data, dim, labels, distances, run)
    })
}

/// Whether rows that are not finite are to be marked.
fn marks(on_invalid: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
    let expected = "\"raise\" or \"mark\"";
    let Some(object) = on_invalid else {
        return Ok(false);
    };
    match string("on_invalid", object, expected)?.as_str() {
        "raise" => Ok(false),
        "mark" => Ok(true),
        other => {
            let error = Error::invalid("on_invalid", format!("{other:?}"), expected);
            Err(to_py(object.py(), &error))
        }
    }
}

/// Labels and distances of every row of `x`, which `assign` marks where it cannot tell.
fn assigned<'py>(
    x: &PyReadonlyArrayDyn<'py, f32>,
    return_distance: bool,
    mark: bool,
    assign: impl FnOnce(&[f32], &mut [u32], Option<&mut [f32]>, &Run<'_>) -> Result<(), Error> + Send,
) -> PyResult<Assignment<'py>> {
    let (py, n) = (x.py(), x.shape()[0]);
    let labels = PyArray1::<u32>::zeros(py, n, false);
    let distances = return_distance.then(|| PyArray1::<f32>::zeros(py, n, false));
    {
        let mut labels = labels.try_readwrite()?;
        let mut distances = distances
            .as_ref()
            .map(PyArrayMethods::try_readwrite)
            .transpose()?;
        let x = x.as_slice()?;
        let labels = labels.as_slice_mut()?;
        let distances = distances.as_mut().map(|d| d.as_slice_mut()).transpose()?;
        detached(py, |run| {
            assign(x, labels, distances, run)?;
            if mark {
                Ok(())
            } else {
                refuse_unassigned(labels)
            }
        })?;
    }
    Ok((labels, distances))
}

/// Refuses rows of another dimension than the centroids have.
fn check_dim(py: Python<'_>, dim: usize, expected: usize) -> PyResult<()> {
    if dim == expected {
        return Ok(());
    }
    let expected = format!("{expected}, as the centroids have");
    let error = Error::invalid("x", format!("dimension {dim}"), expected);
    Err(to_py(py, &error))
}

/// Set how many threads one call may use, the calling one included.
///
/// Parameters
/// ----------
/// n : int
///     1 to 4096. Until it is set, ``UNIROUTE_NUM_THREADS`` decides, else the number of cores.
///
/// Raises
/// ------
/// InvalidArgumentError
///     Out of range.
#[pyfunction]
fn set_num_threads(py: Python<'_>, n: &Bound<'_, PyAny>) -> PyResult<()> {
    threads::set_num_threads(count("n", n)? as usize).map_err(|error| to_py(py, &error))
}

/// Return how many threads one call may use, the calling one included.
#[pyfunction]
fn get_num_threads() -> usize {
    threads::num_threads()
}

#[pyfunction]
fn isa(py: Python<'_>) -> PyResult<&'static str> {
    kernels::isa()
        .map(kernels::Isa::name)
        .map_err(|error| to_py(py, &error))
}

#[pyfunction]
fn available_isas() -> Vec<&'static str> {
    kernels::available()
        .into_iter()
        .map(kernels::Isa::name)
        .collect()
}

/// Adds this file's part of the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add(
        "build_profile",
        if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
    )?;
    m.add_class::<PyCentroids>()?;
    m.add_function(wrap_pyfunction!(assign_once, m)?)?;
    m.add_function(wrap_pyfunction!(set_num_threads, m)?)?;
    m.add_function(wrap_pyfunction!(get_num_threads, m)?)?;
    m.add_function(wrap_pyfunction!(isa, m)?)?;
    m.add_function(wrap_pyfunction!(available_isas, m)?)
}
