//! An argument of a batch: one value for all prompts, or one for each.

use crate::error::{Error, Result};

/// A value for every prompt of a call.
#[derive(Clone, Debug)]
pub enum PerPrompt<T> {
    /// The same for all.
    Same(T),
    /// One for each.
    Each(Vec<T>),
}

impl<T> PerPrompt<T> {
    /// The values there are.
    pub fn values(&self) -> &[T] {
        match self {
            Self::Same(value) => std::slice::from_ref(value),
            Self::Each(values) => values,
        }
    }

    /// The value of one prompt.
    pub fn at(&self, prompt: usize) -> &T {
        match self {
            Self::Same(value) => value,
            Self::Each(values) => &values[prompt],
        }
    }

    /// How many there are, where there is one for each prompt.
    pub fn count(&self) -> Option<usize> {
        match self {
            Self::Same(_) => None,
            Self::Each(values) => Some(values.len()),
        }
    }

    /// Other values made of these.
    pub fn try_map<U, E>(
        self,
        mut change: impl FnMut(T) -> Result<U, E>,
    ) -> Result<PerPrompt<U>, E> {
        match self {
            Self::Same(value) => change(value).map(PerPrompt::Same),
            Self::Each(values) => {
                let changed = values.into_iter().map(change).collect::<Result<_, E>>();
                changed.map(PerPrompt::Each)
            }
        }
    }

    /// Fails unless there is one, or one for each of `prompts`.
    pub(crate) fn check(&self, argument: &'static str, prompts: usize) -> Result<()> {
        match self.count() {
            Some(count) if count != prompts => Err(Error::invalid(
                argument,
                format!("{count} values for {prompts} prompts"),
                "one, or one for each prompt",
            )),
            _ => Ok(()),
        }
    }
}
