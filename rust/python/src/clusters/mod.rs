//! Embedding to clusters.

pub(crate) mod centroids;
pub(crate) mod cluster_map;
