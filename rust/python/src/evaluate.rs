//! What evaluation needs of the core.

use numpy::{IntoPyArray, PyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;
use uniroute_core::pool::hull;

use crate::checks::arrays::array;
use crate::run::detached;

type Steps<'py> = (
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<u32>>,
    Bound<'py, PyArray1<f64>>,
);

/// How prompts move along their lower hulls of (cost, predicted loss) as the cost weight rises.
///
/// Parameters
/// ----------
/// predicted_loss : float64[N, M], finite
/// costs : float64[M], or float64[N, M] where they differ from prompt to prompt; finite
///
/// Returns
/// -------
/// best : uint32[N]
///     The winner of each prompt at cost weight 0.
/// cheapest : uint32[N]
///     Its winner once cost alone decides.
/// rows : int64[S]
///     Row of each step from one LLM to a cheaper one, ascending; the steps of a row in the order in
///     which they are taken.
/// left, taken : uint32[S]
///     The two LLMs of each step.
/// cost_weights : float64[S]
///     Where each step is taken: above 0.
///
/// Raises
/// ------
/// InvalidArgumentError
///     Shapes that do not fit, or values that are not finite.
///
/// O(N M + M log M); with costs of each prompt's own O(N M log M).
#[pyfunction]
fn hull_steps<'py>(
    py: Python<'py>,
    predicted_loss: &Bound<'py, PyAny>,
    costs: &Bound<'py, PyAny>,
) -> PyResult<Steps<'py>> {
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
    let steps = detached(py, |_| hull::steps(losses, shape, costs))?;
    let rows: Vec<i64> = steps.rows.iter().map(|&row| row as i64).collect();
    Ok((
        steps.best.into_pyarray(py),
        steps.cheapest.into_pyarray(py),
        rows.into_pyarray(py),
        steps.from.into_pyarray(py),
        steps.to.into_pyarray(py),
        steps.cost_weights.into_pyarray(py),
    ))
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(hull_steps, m)?)
}
