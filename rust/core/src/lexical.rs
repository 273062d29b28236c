//! Text to embedding.
