//! Clusters and pool to decision.

pub mod choose;
mod packed;
pub mod ranking;
pub mod router;
