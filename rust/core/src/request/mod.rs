//! What is asked of a decision.

pub mod constraints;
