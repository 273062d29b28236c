//! The LLMs that prompts are routed to: names, costs, profiles, and what else is known of them.

pub mod changes;
pub mod checks;
pub mod hull;
pub mod mask;
pub mod metadata;
pub mod names;
mod pool;
pub mod scan;
pub mod table;
pub mod tokens;

pub use pool::Pool;
