//! Text to embedding.

pub(crate) mod lexical;
