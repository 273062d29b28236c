//! Chat messages to text, and text to embedding.

pub(crate) mod chat;
pub(crate) mod lexical;
