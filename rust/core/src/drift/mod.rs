//! Whether prompts are still like those that the router was fitted on.
//!
//! A [`Baseline`] says what prompts were like: how many in each cluster, how far from its centre,
//! how much of them the embedder knew. A [`Monitor`] counts what comes, in windows, beside it: a few
//! relaxed atomic additions a prompt, in one of several shards so that threads do not wait for each
//! other's cache lines. A [`Report`] compares a window with the baseline.

mod baseline;
mod monitor;
mod report;

pub use baseline::{Baseline, Moments, squared_distance};
pub(crate) use monitor::check_window;
pub use monitor::{Monitor, Tally, WINDOW};
pub use report::{Moved, RARELY, Report, Shift};
