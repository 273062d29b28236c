//! The model that a conversation is with, and what it costs to leave it.

use crate::error::{Error, Result};
use crate::pool::Pool;

/// A conversation's model, which is left only where that pays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stay {
    /// Index of the model.
    pub model: u32,
    /// What it costs to go to another one: finite, 0 or more.
    pub switch_cost: f64,
}

/// What it costs to leave a conversation's model, as a caller says it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Leaving {
    /// So much, in the unit of the costs: finite, 0 or more.
    Cost(f64),
    /// What this number of tokens of the prompt in the model's cache are worth at its prices.
    Cached(u64),
}

impl Leaving {
    /// From the two arguments of which a caller gives one, or none.
    pub fn of(switch_cost: Option<f64>, cached_tokens: Option<u64>) -> Result<Option<Self>> {
        match (switch_cost, cached_tokens) {
            (Some(_), Some(_)) => Err(Self::not_one("both were given")),
            (Some(cost), None) => Ok(Some(Self::Cost(cost))),
            (None, tokens) => Ok(tokens.map(Self::Cached)),
        }
    }

    /// The error where a current model comes without either.
    pub fn missing() -> Error {
        Self::not_one("neither was given")
    }

    fn not_one(problem: &str) -> Error {
        let expected = "exactly one of them beside `current_model`";
        Error::invalid("switch_cost, cached_tokens", problem, expected)
    }
}

impl Stay {
    /// A conversation with the model of this name; `None` where it has none yet, or the pool no
    /// longer has it.
    pub fn with(pool: &Pool, name: Option<&str>, leaving: Option<Leaving>) -> Result<Option<Self>> {
        let Some(name) = name else {
            return Ok(None);
        };
        let leaving = leaving.ok_or_else(Leaving::missing)?;
        Ok(pool.position(name).map(|model| Self {
            model,
            switch_cost: match leaving {
                Leaving::Cost(cost) => cost,
                Leaving::Cached(tokens) => {
                    pool.directory().models()[model as usize].cache_value(tokens)
                }
            },
        }))
    }
}
