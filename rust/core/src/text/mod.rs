//! Chat messages to text, and text to embedding: hashed n-grams, looked up in a table.

pub mod chat;
mod counter;
pub mod features;
pub mod fit;
pub mod lexical;
mod status;
mod unicode;
mod vocabulary;
