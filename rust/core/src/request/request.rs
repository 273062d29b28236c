//! What one call asks: its prompts, and what is wanted of the model that answers each.

use crate::error::{Error, Result};
use crate::request::constraints::Compiled;
use crate::request::stay::Stay;
use crate::text::lexical::Status;

/// One prompt: its text, or the reason why there is none.
pub type Text<'a> = Result<&'a str, Status>;

/// The prompts of one call.
#[derive(Clone, Copy)]
pub enum Prompts<'a> {
    /// To be embedded by the router's own embedder.
    Texts(&'a [Text<'a>]),
    /// Embeddings, [prompts, dim] row-major.
    Embeddings(&'a [f32]),
}

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
    /// Whether the prompt counts as traffic, for [`crate::drift::report`].
    pub counted: bool,
    /// How many of the best models to keep in [`crate::route::scratch::Scratch::ranked`].
    pub ranked: usize,
}

/// A value for each prompt of a call.
#[derive(Clone, Copy)]
pub enum PerRow<'a, T> {
    /// The same for every prompt.
    Same(T),
    /// One for each prompt.
    Each(&'a [T]),
}

impl<T: Copy> PerRow<'_, T> {
    pub(crate) fn at(&self, row: usize) -> T {
        match self {
            Self::Same(value) => *value,
            Self::Each(values) => values[row],
        }
    }

    fn values(&self) -> &[T] {
        match self {
            Self::Same(value) => std::slice::from_ref(value),
            Self::Each(values) => values,
        }
    }

    /// Fails unless there is one for each of `rows`.
    pub(crate) fn check(&self, argument: &'static str, rows: usize) -> Result<()> {
        match self {
            Self::Each(values) if values.len() != rows => Err(Error::invalid(
                argument,
                format!("{} values for {rows} prompts", values.len()),
                "one, or one for each prompt",
            )),
            _ => Ok(()),
        }
    }
}

/// What the requests of a batch ask.
#[derive(Clone, Copy)]
pub struct Requests<'a> {
    /// See [`Request::cost_weight`].
    pub cost_weights: PerRow<'a, f64>,
    /// See [`Request::constraints`].
    pub constraints: PerRow<'a, Option<&'a Compiled>>,
    /// See [`Request::tokens`].
    pub tokens: PerRow<'a, Option<u64>>,
    /// See [`Request::fallback`].
    pub fallback: Option<u32>,
    /// See [`Request::stay`].
    pub stay: PerRow<'a, Option<Stay>>,
    /// See [`Request::counted`].
    pub counted: bool,
}

impl<'a> Requests<'a> {
    /// The same cost weight for all, and nothing else asked.
    pub fn at_cost_weight(cost_weight: f64) -> Self {
        Self {
            cost_weights: PerRow::Same(cost_weight),
            constraints: PerRow::Same(None),
            tokens: PerRow::Same(None),
            fallback: None,
            stay: PerRow::Same(None),
            counted: false,
        }
    }

    pub(crate) fn at(&self, row: usize, prompts: Prompts<'_>) -> Request<'a> {
        let tokens = self.tokens.at(row).or_else(|| match prompts {
            Prompts::Texts(texts) => texts[row].ok().map(estimate_tokens),
            Prompts::Embeddings(_) => None,
        });
        Request {
            cost_weight: positive_zero(self.cost_weights.at(row)),
            constraints: self.constraints.at(row),
            tokens,
            fallback: self.fallback,
            stay: self.stay.at(row),
            counted: self.counted,
            ranked: 0,
        }
    }

    /// Fails unless they are those of `rows` prompts, with cost weights that can be used.
    pub(crate) fn check(&self, rows: usize) -> Result<()> {
        self.cost_weights.check("cost_weight", rows)?;
        self.constraints.check("constraints", rows)?;
        self.tokens.check("tokens", rows)?;
        self.stay.check("current_model", rows)?;
        check_numbers("cost_weight", self.cost_weights.values().iter().copied())?;
        let stays = self.stay.values().iter();
        check_numbers(
            "switch_cost",
            stays.map(|stay| stay.map_or(0.0, |s| s.switch_cost)),
        )
    }
}

impl<'a> From<Request<'a>> for Requests<'a> {
    fn from(request: Request<'a>) -> Self {
        Self {
            cost_weights: PerRow::Same(request.cost_weight),
            constraints: PerRow::Same(request.constraints),
            tokens: PerRow::Same(request.tokens),
            fallback: request.fallback,
            stay: PerRow::Same(request.stay),
            counted: request.counted,
        }
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

/// How many tokens a text has, more or less: a quarter of its UTF-8 bytes, rounded up, which is
/// what tokenisers of current LLMs make of English prose.
pub fn estimate_tokens(text: &str) -> u64 {
    text.len().div_ceil(4) as u64
}
