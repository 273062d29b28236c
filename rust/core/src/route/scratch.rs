//! Memory that a thread reuses from one prompt to the next.

use std::cell::Cell;

use crate::clusters::cluster_map::{self, Phi};
use crate::pool::hull::Candidate;
use crate::route::packed::Batch;
use crate::text::lexical;

/// Room for one prompt's intermediate values; grows once, then is reused.
#[derive(Default)]
pub struct Scratch {
    pub(super) text: lexical::Scratch,
    pub(super) map: cluster_map::Scratch,
    pub(super) embeddings: Vec<f32>,
    pub(super) phi: Phi,
    pub(super) labels: Vec<u32>,
    pub(super) batch: Batch,
    pub(super) ranked: Vec<Candidate>,
}

impl Scratch {
    /// Phi of the prompt routed last by [`Snapshot::route`].
    pub fn phi(&self) -> &Phi {
        &self.phi
    }

    /// The best models for that prompt, best first, whatever it costs to leave the conversation's:
    /// as many as [`crate::request::Request::ranked`] asks for, if so many may answer.
    pub fn ranked(&self) -> &[Candidate] {
        &self.ranked
    }
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// A thread's scratch: taken by a call, and put back for the next one, because its tables are as
/// long as the vocabulary and a small batch would spend more on new ones than on some of its texts.
pub(super) struct Kept(pub(super) Scratch);

impl Kept {
    pub(super) fn take() -> Self {
        Self(SCRATCH.take())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // What a panic left behind may be half counted.
        if !std::thread::panicking() {
            SCRATCH.set(std::mem::take(&mut self.0));
        }
    }
}
