//! What is asked of a decision.

pub mod cache;
pub mod constraints;
mod per_prompt;
mod prompts;
mod request;
mod stay;

pub use per_prompt::PerPrompt;
pub use prompts::{Embedded, Place, Prompt, Prompts, Text, estimate_tokens, tokens_of};
pub use request::{Request, Requests, check_numbers, positive_zero};
pub use stay::{Leaving, Stay};
