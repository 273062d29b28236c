//! What a file holds.

pub(crate) mod loaded;
pub(crate) mod tensors;
