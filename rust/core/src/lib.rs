//! Decides which LLM answers a prompt.
//!
//! The path of one prompt, each step a module that knows only those before it:
//!
//! 1. [`text`]: text -> embedding, by hashed n-grams and a table;
//! 2. [`clusters`]: embedding -> clusters, exactly, at low-precision speed;
//! 3. [`pool`]: clusters -> predicted loss of every LLM, and what each costs;
//! 4. [`request`], [`route`]: what is asked, and the winner at any cost weight, over an immutable
//!    snapshot that writers replace whole.
//!
//! [`drift`] compares prompts with those of the fit, [`mod@file`] is the file format, [`sys`] how
//! work is spread over cores, [`kernels`] the instruction sets. The method is UniRoute,
//! <https://arxiv.org/abs/2502.08773>.

pub mod budget;
pub mod clusters;
pub mod drift;
pub mod error;
pub mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod kernels;
pub mod pool;
pub mod request;
pub mod route;
pub mod sys;
pub mod text;

pub use error::{Error, Result};
