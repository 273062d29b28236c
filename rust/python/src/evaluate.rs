//! What evaluation needs of the core.

use numpy::{IntoPyArray, PyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;
use uniroute_core::pool::hull;

use crate::checks::arrays::array;
use crate::run::detached;

type RowHulls<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<f64>>,
);

/// Who wins each prompt at every cost weight: the lower hull of (cost, predicted loss), row by row.
///
/// Parameters
/// ----------
/// predicted_loss : float64[N, M], finite
/// costs : float64[M], or float64[N, M] where they differ from prompt to prompt; finite
///
/// Returns
/// -------
/// offsets : int64[N + 1]
///     Row i has the entries offsets[i] to offsets[i + 1].
/// models : uint32[entries]
///     The winners of a row, from cost weight 0 upwards.
/// cost_weights : float64[entries]
///     Cost weight from which each wins: 0 for the first of a row, then ascending.
///
/// Raises
/// ------
/// InvalidArgumentError
///     Shapes that do not fit, or values that are not finite.
///
/// O(N M + M log M); with costs of each prompt's own O(N M log M).
#[pyfunction]
fn lower_hulls<'py>(
    py: Python<'py>,
    predicted_loss: &Bound<'py, PyAny>,
    costs: &Bound<'py, PyAny>,
) -> PyResult<RowHulls<'py>> {
    let losses = array::<f64>(predicted_loss, "predicted_loss", 2, "[prompts, models]")?;
    let per_prompt = costs
        .getattr("ndim")
        .is_ok_and(|n| n.extract().is_ok_and(|n: usize| n == 2));
    let (dimensions, expected) = if per_prompt {
        (2, "[prompts, models]")
    } else {
        (1, "[models]")
    };
    let costs = array::<f64>(costs, "costs", dimensions, expected)?;
    let shape = [losses.shape()[0], losses.shape()[1]];
    let (losses, costs) = (losses.as_slice()?, costs.as_slice()?);
    let hulls = detached(py, |_| hull::lower_hulls(losses, shape, costs))?;
    let offsets: Vec<i64> = hulls.offsets.iter().map(|&o| o as i64).collect();
    Ok((
        offsets.into_pyarray(py),
        hulls.models.into_pyarray(py),
        hulls.cost_weights.into_pyarray(py),
    ))
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(lower_hulls, m)?)
}
