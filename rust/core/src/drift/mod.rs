//! Whether prompts are still like those that the router was fitted on.

pub mod report;
