//! Chat messages to text, and text to embedding: hashed n-grams, looked up in a table.

pub mod chat;
pub mod features;
pub mod fit;
pub mod lexical;
mod unicode;
mod vocabulary;
