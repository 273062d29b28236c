//! Embedding to clusters.

pub mod centroids;
pub mod cluster_map;
mod phi;
