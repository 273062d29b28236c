//! Embedding to cluster.
