//! One file that holds a router.

pub mod artifact;
pub mod persist;
