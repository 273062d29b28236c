//! What a call asks.

pub(crate) mod asked;
pub(crate) mod constraints;
pub(crate) mod prompts;
