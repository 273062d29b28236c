//! Decides which LLM answers a prompt.
//!
//! The path of one prompt, each step a module that knows only those before it:
//!
//! 1. [`lexical`]: text -> embedding, by hashed n-grams and a table;
//! 2. [`centroids`]: embedding -> cluster, exactly, at low-precision speed;
//! 3. [`profiles`]: cluster -> predicted loss of every LLM, and the winner at any cost weight;
//! 4. [`router`]: the three together, over an immutable snapshot that writers replace whole.
//!
//! [`artifact`] is the file format, [`threads`] how work is spread over cores, [`kernels`] the
//! instruction sets. The method is UniRoute, <https://arxiv.org/abs/2502.08773>.

pub mod artifact;
pub mod centroids;
pub mod changes;
pub mod choice;
pub mod cluster_map;
pub mod constraints;
pub mod drift;
pub mod error;
pub mod fork;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod hull;
pub mod kernels;
pub mod lexical;
pub mod mask;
pub mod metadata;
pub mod metering;
pub mod names;
pub mod persist;
pub mod profiles;
pub mod ranking;
pub mod router;
mod soft;
pub mod threads;

pub use error::{Error, Result};
