//! Clusters and pool to decision.

mod batch;
pub mod choose;
mod packed;
pub mod ranking;
pub mod router;
pub mod scratch;
pub mod snapshot;
mod traffic;
