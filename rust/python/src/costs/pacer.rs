//! `Pacer`: what `BudgetPacer` keeps its budget with.

use pyo3::prelude::*;
use uniroute_core::budget::{self as core, Budget, Plan, Terms};

use crate::checks::arrays::array;
use crate::run::released;

/// A budget and what has become of it. Periods end by `renew` alone, so nothing but what is booked
/// needs the time.
#[pyclass(frozen, module = "uniroute_fast._native")]
pub struct Pacer(core::Pacer);

impl Pacer {
    fn show(&self, py: Python<'_>) -> PyResult<Budget> {
        released(py, || Ok(self.0.show(f64::NAN)))
    }
}

/// Shares, cost weights and costs of a `SpendingPlan`.
type Parts<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

fn plan((shares, cost_weights, costs): &Parts<'_>) -> PyResult<Plan> {
    let costs = array::<f64>(costs, "costs", 2, "[clusters, cost weights]")?;
    Ok(Plan {
        shares: list(shares, "shares")?,
        cost_weights: list(cost_weights, "cost_weights")?,
        costs: (costs.as_array().outer_iter())
            .map(|row| row.iter().copied().collect())
            .collect(),
    })
}

fn list(object: &Bound<'_, PyAny>, argument: &'static str) -> PyResult<Vec<f64>> {
    Ok(array::<f64>(object, argument, 1, "[n]")?
        .as_slice()?
        .to_vec())
}

#[pymethods]
impl Pacer {
    #[new]
    #[pyo3(signature = (
        budget, *, cost_weight, plan, requests, seconds, reserve, gain, trust, now
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        budget: f64,
        cost_weight: Option<f64>,
        plan: Option<Parts<'_>>,
        requests: Option<f64>,
        seconds: Option<f64>,
        reserve: f64,
        gain: f64,
        trust: f64,
        now: f64,
    ) -> PyResult<Self> {
        let terms = Terms {
            budget,
            cost_weight,
            plan: plan.as_ref().map(self::plan).transpose()?,
            requests,
            seconds,
            reserve,
            gain,
            trust,
            renews: false,
        };
        released(py, || core::Pacer::new(terms, now)).map(Self)
    }

    #[staticmethod]
    fn from_json(py: Python<'_>, state: &str) -> PyResult<Self> {
        released(py, || core::Pacer::from_json(state)).map(Self)
    }

    fn to_json(&self, py: Python<'_>) -> PyResult<String> {
        released(py, || Ok(self.0.to_json()))
    }

    #[getter]
    fn budget(&self, py: Python<'_>) -> PyResult<f64> {
        self.show(py).map(|shown| shown.budget)
    }

    #[getter]
    fn cost_weight(&self, py: Python<'_>) -> PyResult<f64> {
        self.show(py).map(|shown| shown.cost_weight)
    }

    #[getter]
    fn spent(&self, py: Python<'_>) -> PyResult<f64> {
        self.show(py).map(|shown| shown.spent)
    }

    #[getter]
    fn remaining(&self, py: Python<'_>) -> PyResult<f64> {
        self.show(py).map(|shown| shown.remaining)
    }

    /// The most that the prompt at hand may cost.
    #[getter]
    fn most(&self, py: Python<'_>) -> PyResult<f64> {
        self.show(py).map(|shown| shown.most)
    }

    #[getter]
    fn count(&self, py: Python<'_>) -> PyResult<u64> {
        self.show(py).map(|shown| shown.count)
    }

    /// Book a cost unless it exceeds `most`; tell whether it was.
    fn book(&self, py: Python<'_>, cost: f64, cluster: u32, now: f64) -> PyResult<bool> {
        released(py, || Ok(self.0.book(cost, Some(cluster), now)))
    }

    fn spend(&self, py: Python<'_>, cost: f64, cluster: Option<u32>, now: f64) -> PyResult<()> {
        released(py, || self.0.spend(cost, cluster, now))
    }

    fn settle(&self, py: Python<'_>, expected: f64, actual: f64) -> PyResult<()> {
        released(py, || self.0.settle(expected, actual, f64::NAN))
    }

    fn renew(&self, py: Python<'_>, budget: Option<f64>, now: f64) -> PyResult<()> {
        released(py, || self.0.renew(budget, now))
    }
}

/// The cost weight at which prompts of a mix cost so much on average: `SpendingPlan.price`.
#[pyfunction]
fn plan_price(
    py: Python<'_>,
    parts: Parts<'_>,
    mix: &Bound<'_, PyAny>,
    mean_cost: f64,
) -> PyResult<f64> {
    let (plan, mix) = (plan(&parts)?, list(mix, "mix")?);
    released(py, || plan.price(&mix, mean_cost))
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Pacer>()?;
    m.add_function(wrap_pyfunction!(plan_price, m)?)
}
