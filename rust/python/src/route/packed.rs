//! The winner among many LLMs for prompts that belong to several clusters.

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use uniroute_core::kernels::{PackedPool, Weights};

use crate::checks::arrays::array;
use crate::checks::scalars::{count, number, one_cost_weight, refuse_booleans};
use crate::errors::to_py;
use crate::run::{detached, released};

type Winners<'py> = (Bound<'py, PyArray2<u32>>, Bound<'py, PyArray2<f32>>);

/// Profiles and costs of many LLMs, packed for prompts that belong to several clusters.
///
/// Finds the LLMs with the least ``phi @ psi + cost_weight * costs`` without ever holding prompts x
/// LLMs. The answer is that of the definition, bit for bit: predicted losses summed in float32,
/// cluster by cluster, a multiplication and then an addition; the cost added in float64; ties to the
/// lower cost, then to the lower index.
///
/// Parameters
/// ----------
/// psi : array_like of float32, shape [K, M]
///     Profiles: predicted loss of each LLM in each cluster.
/// costs : array_like of float64, shape [M]
///     Cost of each LLM.
///
/// Raises
/// ------
/// InvalidArgumentError
///     No LLM, shapes that do not match, NaN or infinity.
///
/// Notes
/// -----
/// O(K M) time and memory, once. Immutable and safe to share between threads.
///
/// Examples
/// --------
/// >>> import uniroute_fast as uf
/// >>> pool = uf.decisions.PackedPool([[0.1, 0.5], [0.9, 0.4]], [1.0, 2.0])
/// >>> winners, losses = pool.best([[1.0, 0.0], [0.0, 1.0]], cost_weight=0.0)
/// >>> winners.tolist()
/// [[0], [1]]
#[pyclass(name = "PackedPool", module = "uniroute_fast.decisions", frozen)]
pub struct PyPackedPool(PackedPool);

#[pymethods]
impl PyPackedPool {
    #[new]
    fn new(py: Python<'_>, psi: &Bound<'_, PyAny>, costs: &Bound<'_, PyAny>) -> PyResult<Self> {
        let psi = array::<f32>(psi, "psi", 2, "[K, M]")?;
        let costs = array::<f64>(costs, "costs", 1, "[M]")?;
        let (psi, costs) = (psi.as_slice()?, costs.as_slice()?);
        released(py, || PackedPool::new(psi, costs)).map(Self)
    }

    /// Find the `n` first LLMs of every prompt.
    ///
    /// Parameters
    /// ----------
    /// phi : array_like of float32, shape [N, K]
    ///     How much each cluster counts for each prompt, 0 or more.
    /// cost_weight : float or array_like of float64, shape [N], default 0.0
    ///     0 or more.
    /// n : int, default 1
    ///     1 to M. Up to 16, almost all LLMs are ruled out by int8 arithmetic; above, none are.
    ///
    /// Returns
    /// -------
    /// winners : uint32 array, shape [N, n]
    ///     Indices of LLMs, best first.
    /// losses : float32 array, shape [N, n]
    ///     Their predicted losses.
    ///
    /// Raises
    /// ------
    /// InvalidArgumentError
    ///     Shapes that do not match, values out of range.
    ///
    /// Notes
    /// -----
    /// O(N K M) time, O(N n) memory, without the GIL. Ctrl-C ends the call.
    #[pyo3(signature = (phi, cost_weight=None, n=None), text_signature = "($self, phi, cost_weight=None, n=1)")]
    fn best<'py>(
        &self,
        phi: &Bound<'py, PyAny>,
        cost_weight: Option<&Bound<'py, PyAny>>,
        n: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Winners<'py>> {
        let py = phi.py();
        let phi = array::<f32>(phi, "phi", 2, "[N, K]")?;
        let rows = phi.shape()[0];
        if phi.shape()[1] != self.0.clusters() {
            let problem = format!("{} columns", phi.shape()[1]);
            let expected = format!("{}, one per cluster", self.0.clusters());
            return Err(to_py(
                py,
                &uniroute_core::Error::invalid("phi", problem, expected),
            ));
        }
        let each;
        let weights = match cost_weight {
            None => Weights::Same(0.0),
            Some(weight) => {
                if let Some(weight) = number(weight) {
                    Weights::Same(weight)
                } else {
                    refuse_booleans("cost_weight", weight)?;
                    each = array::<f64>(weight, "cost_weight", 1, "[N], or a number")?;
                    Weights::Each(each.as_slice()?)
                }
            }
        };
        let n = n.map_or(Ok(1), |n| count("n", n))? as usize;
        let columns = n.clamp(1, self.0.len());
        let winners = PyArray2::<u32>::zeros(py, [rows, columns], false);
        let losses = PyArray2::<f32>::zeros(py, [rows, columns], false);
        {
            let (mut winners, mut losses) = (winners.try_readwrite()?, losses.try_readwrite()?);
            let (phi, winners) = (phi.as_slice()?, winners.as_slice_mut()?);
            let losses = Some(losses.as_slice_mut()?);
            detached(py, |run| self.0.best(phi, weights, n, winners, losses, run))?;
        }
        Ok((winners, losses))
    }

    /// Count the LLMs that int8 arithmetic could not rule out.
    ///
    /// Parameters
    /// ----------
    /// phi : array_like of float32, shape [N, K]
    ///     As for `best`.
    /// cost_weight : float, default 0.0
    ///     As for `best`.
    ///
    /// Returns
    /// -------
    /// uint32 array, shape [N]
    ///     Between 1 and M for each prompt.
    #[pyo3(signature = (phi, cost_weight=0.0))]
    fn count_candidates<'py>(
        &self,
        phi: &Bound<'py, PyAny>,
        #[pyo3(from_py_with = one_cost_weight)] cost_weight: f64,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let py = phi.py();
        let phi = array::<f32>(phi, "phi", 2, "[N, K]")?;
        let phi = phi.as_slice()?;
        let weights = Weights::Same(cost_weight);
        released(py, || self.0.count_candidates(phi, weights))
            .map(|counts| PyArray1::from_vec(py, counts))
    }

    /// Shape of the profiles: clusters, LLMs.
    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.0.clusters(), self.0.len())
    }
}
