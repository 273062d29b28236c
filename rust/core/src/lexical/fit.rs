//! What fitting needs of the texts: how many have each feature, and each text's weighted features.

use rustc_hash::FxHashMap;

use super::features::{MAX_ORDER, for_each_feature};
use super::vocabulary::Vocabulary;
use super::{Counter, count_weight};
use crate::error::{Error, Result};

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
}

impl FeatureCounter {
    /// Counts n-grams of up to `order` tokens.
    pub fn new(order: usize) -> Result<Self> {
        if !(1..=MAX_ORDER).contains(&order) {
            return Err(Error::invalid(
                "ngrams",
                order.to_string(),
                format!("1 to {MAX_ORDER}"),
            ));
        }
        Ok(Self {
            order,
            n_texts: 0,
            counts: FxHashMap::default(),
            max_counted: MAX_COUNTED,
            ids: Vec::new(),
        })
    }

    /// Counts the features of one more text; a text without any does not count.
    pub fn add(&mut self, text: &str) {
        self.ids.clear();
        for_each_feature(text, self.order, |id| self.ids.push(id));
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

/// The rows of `text`'s known features with their weights, `(1 + ln count) x idf`, scaled to a
/// Euclidean norm of one; in ascending order of rows.
pub fn weighted_rows(
    text: &str,
    order: usize,
    vocabulary: &Vocabulary,
    idf: &[u8],
    counter: &mut Counter,
) -> Vec<(u32, f32)> {
    counter.count(text, order, vocabulary);
    let mut rows: Vec<(u32, f32)> = counter
        .drain()
        .map(|(row, count)| {
            (
                row,
                f32::from(count_weight(count)) * f32::from(idf[row as usize]),
            )
        })
        .collect();
    rows.sort_unstable_by_key(|&(row, _)| row);
    let norm = rows.iter().map(|&(_, w)| w * w).sum::<f32>().sqrt();
    for (_, weight) in &mut rows {
        *weight /= norm;
    }
    rows
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
}
