//! What fitting needs of the texts: how many have each feature, and each text's weighted features.

// What runs for every token must become part of the caller that is compiled for the instruction
// set; only inlining makes it so.
#![allow(clippy::inline_always)]

use rustc_hash::FxHashMap;

use super::counter::Counter;
use super::features::{Buffers, collect_ids};
use super::lexical::{Status, TEXTS_PER_TASK, check_order};
use super::vocabulary::Vocabulary;
use crate::error::Result;
use crate::kernels::text::{Lexical, Work};
use crate::kernels::{self, Kernels};
use crate::sys::threads::Run;

/// Features counted at once before rare ones are forgotten: some 256 MB.
const MAX_COUNTED: usize = 1 << 23;

/// Counts how many texts have each feature, in bounded memory.
///
/// When [`MAX_COUNTED`] distinct features are held, those seen least often so far are forgotten
/// (lossy counting; Manku and Motwani, VLDB 2002): features that many texts have are never among
/// them, and the outcome depends on the texts and their order alone.
pub struct FeatureCounter {
    order: usize,
    n_texts: u64,
    counts: FxHashMap<u32, u32>,
    max_counted: usize,
    ids: Vec<u32>,
    buffers: Buffers,
}

impl FeatureCounter {
    /// Counts n-grams of up to `order` tokens.
    pub fn new(order: usize) -> Result<Self> {
        check_order(order)?;
        Ok(Self {
            order,
            n_texts: 0,
            counts: FxHashMap::default(),
            max_counted: MAX_COUNTED,
            ids: Vec::new(),
            buffers: Buffers::default(),
        })
    }

    /// Counts the features of one more text; a text without any does not count.
    pub fn add(&mut self, text: &str) {
        collect_ids(text, self.order, &mut self.ids, &mut self.buffers);
        self.ids.sort_unstable();
        self.ids.dedup();
        self.n_texts += u64::from(!self.ids.is_empty());
        for &id in &self.ids {
            *self.counts.entry(id).or_insert(0) += 1;
        }
        let mut least = 1;
        while self.counts.len() > self.max_counted {
            self.counts.retain(|_, count| *count > least);
            least += 1;
        }
    }

    /// Texts counted so far.
    pub fn n_texts(&self) -> u64 {
        self.n_texts
    }

    /// Highest order of the n-grams counted.
    pub fn order(&self) -> usize {
        self.order
    }

    /// The vocabulary of the features that at least `min_df` texts have.
    pub fn vocabulary(&self, min_df: u32, max_rows: usize) -> Result<Vocabulary> {
        let features = self.counts.iter().map(|(&id, &df)| (id, df));
        Vocabulary::build(
            features.filter(|&(_, df)| df >= min_df).collect(),
            self.n_texts,
            max_rows,
        )
    }
}

/// A sparse matrix of texts by table rows, in compressed rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Csr {
    /// Where each text's entries start; one more than there are texts.
    pub starts: Vec<i64>,
    /// Table row of each entry, ascending within a text.
    pub columns: Vec<i32>,
    /// Weight of each entry.
    pub weights: Vec<f32>,
}

/// Appends a text's table rows and weights to `entries`.
struct Count<'a> {
    counter: &'a mut Counter,
    text: &'a str,
    order: usize,
    vocabulary: &'a Vocabulary,
    entries: &'a mut Vec<(i32, f32)>,
}

impl Work for Count<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lexical>(self) {
        let idf = self.vocabulary.idf();
        let (_, rows, weights) =
            self.counter
                .count::<L>(self.text, self.order, self.vocabulary, |_| ());
        self.entries.extend(
            rows.iter().zip(weights).map(|(&row, &weight)| {
                (row as i32, f32::from(weight) * f32::from(idf[row as usize]))
            }),
        );
    }
}

/// The known features of each text with their weights, `(1 + ln count) x idf`, scaled to a
/// Euclidean norm of one. A text without known features has no entries.
pub fn weighted_features(
    texts: &[Result<&str, Status>],
    order: usize,
    vocabulary: &Vocabulary,
    run: &Run<'_>,
) -> Result<Csr> {
    let mut parts = vec![(Vec::new(), Vec::new()); texts.len().div_ceil(TEXTS_PER_TASK)];
    let tasks = texts.chunks(TEXTS_PER_TASK).zip(&mut parts);
    run.for_each(
        tasks,
        Counter::default,
        |counter, (texts, (lengths, entries))| {
            for text in texts {
                let before = entries.len();
                if let Ok(text) = text {
                    let work = Count {
                        counter,
                        text,
                        order,
                        vocabulary,
                        entries,
                    };
                    kernels::text::run(Kernels::active(), work);
                }
                let own = &mut entries[before..];
                own.sort_unstable_by_key(|&(row, _)| row);
                let norm = own.iter().map(|&(_, w)| w * w).sum::<f32>().sqrt();
                for (_, weight) in own {
                    *weight /= norm;
                }
                lengths.push(entries.len() - before);
            }
            Ok(())
        },
    )?;
    let mut csr = Csr {
        starts: vec![0],
        ..Csr::default()
    };
    let mut end = 0;
    for (lengths, entries) in parts {
        for length in lengths {
            end += length as i64;
            csr.starts.push(end);
        }
        csr.columns.extend(entries.iter().map(|&(row, _)| row));
        csr.weights
            .extend(entries.iter().map(|&(_, weight)| weight));
    }
    Ok(csr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_counts_a_feature_once() {
        let mut counter = FeatureCounter::new(1).unwrap();
        for text in ["a a b", "a", "", "b c"] {
            counter.add(text);
        }
        assert_eq!(counter.n_texts(), 3);
        let mut counts: Vec<u32> = counter.counts.values().copied().collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 2, 2]);
        assert_eq!(counter.vocabulary(2, 64).unwrap().len(), 2);
    }

    #[test]
    fn rare_features_are_forgotten_first() {
        let mut counter = FeatureCounter::new(1).unwrap();
        counter.max_counted = 50;
        for i in 0..500 {
            counter.add(&format!("often {}", "x".repeat(i + 1)));
        }
        assert!(counter.counts.len() <= 50);
        assert_eq!(counter.counts.values().copied().max(), Some(500));
    }

    #[test]
    fn weights_have_norm_one_and_repeats_count_for_less() {
        let texts = [Ok("a a a b"), Err(Status::Null), Ok("zzz"), Ok("b")];
        let mut counter = FeatureCounter::new(1).unwrap();
        counter.add("a b");
        let vocabulary = counter.vocabulary(1, 64).unwrap();
        let csr = weighted_features(&texts, 1, &vocabulary, &Run::default()).unwrap();
        assert_eq!(csr.starts, [0, 2, 2, 2, 3]);
        let (low, high) = (
            csr.weights[0].min(csr.weights[1]),
            csr.weights[0].max(csr.weights[1]),
        );
        assert!((low * low + high * high - 1.0).abs() < 1e-6);
        assert!(
            (high / low - 34.0 / 16.0).abs() < 1e-6,
            "1 + ln 3, in sixteenths"
        );
        assert!((csr.weights[2] - 1.0).abs() < 1e-6);
    }
}
