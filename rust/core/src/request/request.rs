//! What one call asks of the model that answers each of its prompts.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::request::constraints::Compiled;
use crate::request::per_prompt::PerPrompt;
use crate::request::stay::Stay;

/// What a request asks beside its prompt.
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    /// How much a unit of cost weighs against a unit of loss: finite, 0 or more.
    pub cost_weight: f64,
    /// What the model must meet, compiled for the snapshot that routes.
    pub constraints: Option<&'a Compiled>,
    /// Length of the prompt in tokens; estimated from its text where not given.
    pub tokens: Option<u64>,
    /// The model to choose where none meets the constraints.
    pub fallback: Option<u32>,
    /// The model that the conversation is with.
    pub stay: Option<Stay>,
    /// Whether the prompt counts as traffic, for [`crate::drift`].
    pub counted: bool,
    /// How many of the best models to keep in [`crate::route::scratch::Scratch::ranked`].
    pub ranked: usize,
}

impl Request<'_> {
    /// Fails unless its numbers can be used.
    pub(crate) fn check(&self) -> Result<()> {
        check_numbers("cost_weight", std::iter::once(self.cost_weight))?;
        check_numbers("switch_cost", self.stay.iter().map(|stay| stay.switch_cost))
    }
}

/// What the requests of a batch ask.
#[derive(Clone)]
pub struct Requests {
    /// See [`Request::cost_weight`].
    pub cost_weights: PerPrompt<f64>,
    /// See [`Request::constraints`].
    pub constraints: PerPrompt<Option<Arc<Compiled>>>,
    /// See [`Request::tokens`].
    pub tokens: PerPrompt<Option<u64>>,
    /// See [`Request::fallback`].
    pub fallback: Option<u32>,
    /// See [`Request::stay`].
    pub stay: PerPrompt<Option<Stay>>,
    /// See [`Request::counted`].
    pub counted: bool,
}

impl Requests {
    /// The same cost weight for all, and nothing else asked.
    pub fn at_cost_weight(cost_weight: f64) -> Self {
        Self {
            cost_weights: PerPrompt::Same(cost_weight),
            constraints: PerPrompt::Same(None),
            tokens: PerPrompt::Same(None),
            fallback: None,
            stay: PerPrompt::Same(None),
            counted: false,
        }
    }

    /// What is asked of one of the prompts; `estimated` is its length where none is given.
    pub fn at(&self, at: usize, estimated: Option<u64>) -> Request<'_> {
        Request {
            cost_weight: positive_zero(*self.cost_weights.at(at)),
            constraints: self.constraints.at(at).as_deref(),
            tokens: self.tokens.at(at).or(estimated),
            fallback: self.fallback,
            stay: *self.stay.at(at),
            counted: self.counted,
            ranked: 0,
        }
    }

    /// Fails unless they are those of so many prompts, with cost weights that can be used.
    pub(crate) fn check(&self, prompts: usize) -> Result<()> {
        self.cost_weights.check("cost_weight", prompts)?;
        self.constraints.check("constraints", prompts)?;
        self.tokens.check("tokens", prompts)?;
        self.stay.check("current_model", prompts)?;
        check_numbers("cost_weight", self.cost_weights.values().iter().copied())?;
        let stays = self.stay.values().iter().flatten();
        check_numbers("switch_cost", stays.map(|stay| stay.switch_cost))
    }
}

/// A cost weight as it is used: -0.0 is 0.0.
pub fn positive_zero(cost_weight: f64) -> f64 {
    cost_weight + 0.0
}

/// Fails unless all are finite and 0 or more.
pub fn check_numbers(argument: &'static str, mut all: impl Iterator<Item = f64>) -> Result<()> {
    let mut bad = 0.0;
    match all.position(|v| {
        bad = v;
        !(v.is_finite() && v >= 0.0)
    }) {
        None => Ok(()),
        Some(at) => Err(Error::invalid(
            argument,
            format!("{bad} at index {at}"),
            "finite numbers, 0 or more",
        )),
    }
}
