//! What is asked of a decision.

pub mod constraints;
mod per_prompt;
mod request;
mod stay;

pub use per_prompt::PerPrompt;
pub use request::{
    Prompt, Prompts, Request, Requests, Text, check_numbers, estimate_tokens, positive_zero,
    tokens_of,
};
pub use stay::{Leaving, Stay};
