//! Embedding to clusters.

pub(crate) mod centroids;
pub(crate) mod heads;
