//! Arguments that are no arrays: numbers, counts and names, checked, with errors that name them.
//!
//! Booleans are no numbers here: `True` as a cost is a slip, not a dollar.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyString};
use uniroute_core::Error;
use uniroute_core::request::PerPrompt;

use crate::checks::arrays::array;
use crate::errors::{to_py, wrong_type};

/// The error for an argument of the wrong type.
pub fn wrong(object: &Bound<'_, PyAny>, argument: &str, expected: &str) -> PyErr {
    let found = match object.get_type().name() {
        Ok(name) => format!("a {name}"),
        Err(error) => return error,
    };
    wrong_type(object.py(), argument, &found, expected)
}

/// A number that float64 can hold.
pub fn number(object: &Bound<'_, PyAny>) -> Option<f64> {
    if let Ok(float) = object.cast::<PyFloat>() {
        return float.extract().ok();
    }
    if is_boolean(object) {
        return None;
    }
    object.extract().ok()
}

/// Python's booleans, and NumPy's.
fn is_boolean(object: &Bound<'_, PyAny>) -> bool {
    let name = object.get_type().name();
    object.is_instance_of::<PyBool>() || name.is_ok_and(|name| name == "bool" || name == "bool_")
}

/// A switch.
pub fn boolean(argument: &'static str, object: &Bound<'_, PyAny>) -> PyResult<bool> {
    if is_boolean(object) {
        return object.is_truthy();
    }
    Err(wrong(object, argument, "True or False"))
}

/// A count: an integer, 0 or more.
pub fn count(argument: &'static str, object: &Bound<'_, PyAny>) -> PyResult<u64> {
    let expected = "an integer, 0 or more";
    let refused = || wrong(object, argument, expected);
    if is_boolean(object) {
        return Err(refused());
    }
    if let Ok(count) = object.extract::<u64>() {
        return Ok(count);
    }
    // An integer out of range, or no integer.
    let index = object.call_method0("__index__").map_err(|_| refused())?;
    let error = Error::invalid(argument, index.str()?.to_string(), expected);
    Err(to_py(object.py(), &error))
}

/// A str that is valid Unicode; `expected` says what it stands for.
pub fn string(
    argument: &'static str,
    object: &Bound<'_, PyAny>,
    expected: &str,
) -> PyResult<String> {
    let string = object.cast::<PyString>();
    let string = string.map_err(|_| wrong(object, argument, expected))?;
    if let Ok(string) = string.to_str() {
        return Ok(string.to_owned());
    }
    let problem = format!("{} has a lone surrogate", string.repr()?);
    let error = Error::invalid(argument, problem, "valid Unicode");
    Err(to_py(object.py(), &error))
}

/// Any number of strs; a lone one is refused, for it is a sequence of letters too.
pub fn strings(argument: &'static str, object: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let expected = "a sequence of str";
    if object.is_instance_of::<PyString>() {
        return Err(wrong_type(object.py(), argument, "a single str", expected));
    }
    let items = object
        .try_iter()
        .map_err(|_| wrong(object, argument, expected))?;
    let each = |item: PyResult<Bound<'_, PyAny>>| {
        let item = item?;
        if item.is_instance_of::<PyString>() {
            return string(argument, &item, expected);
        }
        let found = format!("a {} among them", item.get_type().name()?);
        Err(wrong_type(item.py(), argument, &found, expected))
    };
    items.map(each).collect()
}

/// The name of a model.
pub fn model_name(argument: &'static str, object: &Bound<'_, PyAny>) -> PyResult<String> {
    string(argument, object, "the name of a model, a str")
}

/// The argument `name`.
pub fn one_name(object: &Bound<'_, PyAny>) -> PyResult<String> {
    model_name("name", object)
}

/// The argument `names`.
pub fn all_names(object: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    strings("names", object)
}

/// Names or None, one for each prompt.
pub fn optional_names(
    argument: &'static str,
    object: &Bound<'_, PyAny>,
) -> PyResult<Vec<Option<String>>> {
    let expected = "the name of a model, or one or None for each prompt";
    let items = object
        .try_iter()
        .map_err(|_| wrong(object, argument, expected))?;
    let each = |item: PyResult<Bound<'_, PyAny>>| {
        let item = item?;
        if item.is_none() {
            return Ok(None);
        }
        string(argument, &item, expected).map(Some)
    };
    items.map(each).collect()
}

/// A cost.
pub fn one_cost(object: &Bound<'_, PyAny>) -> PyResult<f64> {
    number(object).ok_or_else(|| wrong(object, "cost", "one number, finite, 0 or more"))
}

/// The cost weight of one prompt.
pub fn one_cost_weight(object: &Bound<'_, PyAny>) -> PyResult<f64> {
    let expected = "one number, finite, 0 or more";
    number(object).ok_or_else(|| wrong(object, "cost_weight", expected))
}

/// Numbers: one for all prompts, or one for each.
pub fn numbers(argument: &'static str, object: &Bound<'_, PyAny>) -> PyResult<PerPrompt<f64>> {
    let shape = "[], or one for each prompt";
    if let Some(number) = number(object) {
        return Ok(PerPrompt::Same(number));
    }
    refuse_booleans(argument, object)?;
    let each = array::<f64>(object, argument, 1, shape)?;
    Ok(PerPrompt::Each(each.as_slice()?.to_vec()))
}

/// Counts: one for all prompts, or one for each.
pub fn counts(
    argument: &'static str,
    object: &Bound<'_, PyAny>,
) -> PyResult<PerPrompt<Option<u64>>> {
    if !object.hasattr("__len__")? {
        return count(argument, object).map(|count| PerPrompt::Same(Some(count)));
    }
    refuse_booleans(argument, object)?;
    // As float64, so that a negative number stays one; real counts are far below 2^53.
    let each = array::<f64>(object, argument, 1, "[], or one for each prompt")?;
    let each = each.as_slice()?;
    let counts = |v: f64| (0.0..=u64::MAX as f64).contains(&v) && v.fract() == 0.0;
    if let Some(at) = each.iter().position(|&v| !counts(v)) {
        let problem = format!("{} at index {at}", each[at]);
        let error = Error::invalid(argument, problem, "integers, 0 or more");
        return Err(to_py(object.py(), &error));
    }
    Ok(PerPrompt::Each(
        each.iter().map(|&v| Some(v as u64)).collect(),
    ))
}

/// Fails on an array, or a list, of booleans.
pub fn refuse_booleans(argument: &str, object: &Bound<'_, PyAny>) -> PyResult<()> {
    let numpy = PyModule::import(object.py(), "numpy")?;
    let kind = numpy
        .call_method1("asarray", (object,))
        .and_then(|array| array.getattr("dtype")?.getattr("kind")?.extract::<String>());
    // What is no array is refused elsewhere, with a better message.
    if kind.is_ok_and(|kind| kind == "b") {
        return Err(wrong_type(
            object.py(),
            argument,
            "booleans",
            "real numbers",
        ));
    }
    Ok(())
}
