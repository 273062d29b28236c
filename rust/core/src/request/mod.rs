//! What is asked of a decision.

pub mod constraints;
mod request;
mod stay;

pub use request::{
    PerRow, Prompts, Request, Requests, Text, check_numbers, estimate_tokens, positive_zero,
};
pub use stay::{Leaving, Stay};
