//! What tokens there are, and what they cost.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use uniroute_core::Error;
use uniroute_core::pool::tokens::{self, Rates};
use uniroute_core::request;

use crate::checks::arrays::array;
use crate::checks::texts::Texts;
use crate::errors::to_py;

/// How many tokens texts have, more or less; 0 for what cannot be routed.
#[pyfunction]
fn estimate_tokens<'py>(
    py: Python<'py>,
    texts: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let texts = Texts::collect(texts)?;
    let rows = texts.rows();
    let count = |text: &Result<&str, _>| {
        text.as_ref()
            .map_or(0, |text| request::estimate_tokens(text))
    };
    let counts: Vec<f64> = rows.iter().map(|text| count(text) as f64).collect();
    Ok(counts.into_pyarray(py))
}

/// What calls on prompts of so many tokens cost whose answers have so many: `Usage.cost`.
///
/// Parameters
/// ----------
/// tokens : float64[N]
/// answers : float64[N, M]
/// input_prices, output_prices, input_scale, input_extra : float64[M]
///
/// Returns
/// -------
/// float64[N, M]
#[pyfunction]
fn call_costs<'py>(
    py: Python<'py>,
    tokens: &Bound<'py, PyAny>,
    answers: &Bound<'py, PyAny>,
    input_prices: &Bound<'py, PyAny>,
    output_prices: &Bound<'py, PyAny>,
    input_scale: &Bound<'py, PyAny>,
    input_extra: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let lengths = array::<f64>(tokens, "tokens", 1, "[prompts]")?;
    let answers = array::<f64>(answers, "answers", 2, "[prompts, models]")?;
    let each = |object, name| array::<f64>(object, name, 1, "[models]");
    let parts = [
        each(input_prices, "input_prices")?,
        each(output_prices, "output_prices")?,
        each(input_scale, "input_scale")?,
        each(input_extra, "input_extra")?,
    ];
    let [rows, models] = [answers.shape()[0], answers.shape()[1]];
    if lengths.len() != rows || parts.iter().any(|part| part.len() != models) {
        let problem = format!("shape [{rows}, {models}]");
        let expected = "a row for each of tokens, a column for each of the prices";
        return Err(to_py(py, &Error::invalid("answers", problem, expected)));
    }
    let [input, output, scale, extra] = parts.each_ref().map(|part| part.as_array());
    let rates = (0..models).map(|m| Rates::metered([input[m], output[m]], [scale[m], extra[m]]));
    let costs = tokens::call_costs(
        lengths.as_slice()?,
        answers.as_slice()?,
        &rates.collect::<Vec<_>>(),
    );
    costs.into_pyarray(py).reshape([rows, models])
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(estimate_tokens, m)?)?;
    m.add_function(wrap_pyfunction!(call_costs, m)?)
}
