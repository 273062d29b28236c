//! What Python gives, checked: numbers, arrays, texts.

pub(crate) mod arrays;
pub(crate) mod scalars;
pub(crate) mod texts;
