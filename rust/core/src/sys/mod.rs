//! Threads, and processes that fork.

pub mod fork;
pub mod threads;
