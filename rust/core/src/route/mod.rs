//! Clusters and pool to decision.

mod batch;
pub mod choose;
mod embedded;
pub mod explain;
mod packed;
pub mod router;
pub mod scratch;
pub mod snapshot;
mod traffic;
