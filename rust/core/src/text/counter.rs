//! The features of one text, counted by table row.

// Compiled once for each instruction set: see [`super::lexical`].
#![allow(clippy::inline_always)]

use std::sync::LazyLock;

use super::features::{Buffers, CHUNK, Features, MAX_ORDER};
use super::vocabulary::Vocabulary;
use crate::kernels::text::Lexical;

/// `COUNT_WEIGHTS[count]`: `1 + ln count` in sixteenths.
static COUNT_WEIGHTS: LazyLock<[u8; 256]> = LazyLock::new(|| {
    std::array::from_fn(|count| (16.0 * (1.0 + (count.max(1) as f64).ln())).round() as u8)
});

/// Counts the features of one text by table row; its memory is kept from text to text.
#[derive(Default)]
pub struct Counter {
    buffers: Buffers,
    /// The rows of a chunk's features.
    found: Vec<u32>,
    /// Of each row, up to 255; zero between texts.
    counts: Vec<u8>,
    /// The rows counted, in order of first occurrence, and then their weights.
    rows: Vec<u32>,
    weights: Vec<u8>,
}

/// Feature occurrences of a text, each weighted with its inverse document frequency.
#[derive(Clone, Copy, Default)]
pub(super) struct Occurrences {
    pub known: u64,
    pub unknown: u64,
}

impl Counter {
    /// Counts a text: the rows of its known features, and `1 + ln count` of each in sixteenths.
    #[inline(always)]
    pub(super) fn count<L: Lexical>(
        &mut self,
        text: &str,
        order: usize,
        vocabulary: &Vocabulary,
        on_new: impl Fn(&[u32]),
    ) -> (Occurrences, &[u32], &[u8]) {
        let idf = vocabulary.idf();
        if self.counts.len() != idf.len() {
            self.found = vec![0; CHUNK * MAX_ORDER];
            self.counts = vec![0; idf.len()];
            // Room for one more than can be kept: every row is written, then kept if it is new.
            self.rows = vec![0; idf.len() + 1];
            self.weights = vec![0; idf.len()];
        }
        let (counts, rows) = (&mut self.counts[..idf.len()], &mut self.rows[..]);
        let (mut distinct, mut known, mut n_known, mut n_features) = (0, 0u64, 0, 0);
        let found = &mut self.found[..];
        let mut features = Features::new(text, order, &mut self.buffers);
        while let Some(ids) = features.next_chunk::<L>() {
            let n_found = vocabulary.find::<L>(ids, found);
            let before = distinct;
            for &row in &found[..n_found] {
                let count = counts[row as usize];
                if count == u8::MAX {
                    known += u64::from(idf[row as usize]);
                    continue;
                }
                counts[row as usize] = count + 1;
                rows[distinct] = row;
                distinct += usize::from(count == 0);
            }
            on_new(&rows[before..distinct]);
            n_known += n_found;
            n_features += ids.len();
        }
        let weight_of = &*COUNT_WEIGHTS;
        for (weight, &row) in self.weights.iter_mut().zip(&rows[..distinct]) {
            let count = std::mem::take(&mut counts[row as usize]);
            known += u64::from(count) * u64::from(idf[row as usize]);
            *weight = weight_of[count as usize];
        }
        let unknown = (n_features - n_known) as u64 * u64::from(vocabulary.unknown_idf());
        (
            Occurrences { known, unknown },
            &self.rows[..distinct],
            &self.weights[..distinct],
        )
    }
}
