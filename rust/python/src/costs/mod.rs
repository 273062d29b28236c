//! What calls cost, and budgets.

pub(crate) mod pacer;
pub(crate) mod tokens;
