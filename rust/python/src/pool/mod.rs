//! What is known of the LLMs.

pub(crate) mod changes;
pub(crate) mod model_info;
