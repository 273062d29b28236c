//! Which feature has which table row, and how rare it is.
//!
//! A feature id names a bucket of four rows by its lower bits, and the row among them by a tag of
//! 15 bits: its upper bits. A feature that was not fitted therefore finds no row, except once in
//! 8,000 times. Where more than four features share a bucket the most frequent ones have it.

// What runs for every token must become part of the caller that is compiled for the instruction
// set; only inlining makes it so.
#![allow(clippy::inline_always)]

use crate::error::{Error, Result};
use crate::kernels::text::{Lexical, SLOTS, tag};

/// Fewest rows of a table.
pub const MIN_ROWS: usize = SLOTS;

/// Most rows of a table. The weighted sum of all of them fits 32 bits: 127 x 127 x 2^17 < 2^31.
pub const MAX_ROWS: usize = 1 << 17;

/// Steps in which inverse document frequencies are stored: their unit is 1 / 16.
const IDF_STEPS: f64 = 16.0;

/// Feature id -> row of the table.
#[derive(Clone)]
pub struct Vocabulary {
    /// Four 16-bit tags each; zero where a row is free.
    buckets: Vec<u64>,
    /// Inverse document frequency of each row; zero where it is free.
    idf: Vec<u8>,
    /// Inverse document frequency of a feature that no fitted text has.
    unknown_idf: u8,
}

/// The inverse document frequency `ln((1 + n) / (1 + df)) + 1`, in sixteenths.
fn quantised_idf(n_texts: u64, df: u64) -> u8 {
    let idf = ((1 + n_texts) as f64 / (1 + df) as f64).ln() + 1.0;
    (idf * IDF_STEPS).round().clamp(1.0, 255.0) as u8
}

impl Vocabulary {
    /// Gives rows to the most frequent of `features`, pairs of a feature id and the number of
    /// texts that have it out of `n_texts`. Uses up to `max_rows` rows, rounded down to a power of
    /// two; fewer where a smaller table is at most half full.
    ///
    /// The outcome does not depend on the order of `features`.
    pub fn build(mut features: Vec<(u32, u32)>, n_texts: u64, max_rows: usize) -> Result<Self> {
        if !(MIN_ROWS..=MAX_ROWS).contains(&max_rows) {
            return Err(Error::invalid(
                "rows",
                max_rows.to_string(),
                format!("{MIN_ROWS} to {MAX_ROWS}"),
            ));
        }
        let roomy = (features.len() * 2).max(MIN_ROWS).next_power_of_two();
        let rows = roomy.min(1 << max_rows.ilog2());
        let unknown_idf = quantised_idf(n_texts, 0);
        let mut vocabulary = Self::with(vec![0; rows / SLOTS], vec![0; rows], unknown_idf);
        features.sort_unstable_by_key(|&(id, df)| (std::cmp::Reverse(df), id));
        for (id, df) in features {
            let at = vocabulary.bucket_of(id);
            if let Some(slot) = free_slot(vocabulary.buckets[at], u64::from(tag(id))) {
                vocabulary.buckets[at] |= u64::from(tag(id)) << (16 * slot);
                vocabulary.idf[at * SLOTS + slot] = quantised_idf(n_texts, u64::from(df));
            }
        }
        Ok(vocabulary)
    }

    /// The vocabulary with these tags and inverse document frequencies, one for each row.
    pub fn from_parts(tags: &[u16], idf: &[u8], unknown_idf: u8) -> Result<Self> {
        let rows = tags.len();
        check_rows(rows)?;
        if idf.len() != rows {
            return Err(Error::invalid(
                "idf",
                format!("{} rows", idf.len()),
                format!("{rows}"),
            ));
        }
        if let Some(row) = (0..rows).find(|&row| (tags[row] == 0) != (idf[row] == 0)) {
            return Err(Error::invalid(
                "idf",
                format!("{} in row {row} with tag {}", idf[row], tags[row]),
                "zero in free rows and only there",
            ));
        }
        let twice = |bucket: &[u16]| {
            (1..SLOTS).any(|slot| bucket[slot] != 0 && bucket[..slot].contains(&bucket[slot]))
        };
        if let Some(at) = tags.chunks_exact(SLOTS).position(twice) {
            return Err(Error::invalid(
                "tags",
                format!("one tag twice in bucket {at}"),
                "distinct tags in a bucket",
            ));
        }
        if unknown_idf == 0 {
            return Err(Error::invalid("unknown_idf", "0", "1 to 255"));
        }
        let pack =
            |bucket: u64, (slot, &tag): (usize, &u16)| bucket | u64::from(tag) << (16 * slot);
        let buckets = tags
            .chunks_exact(SLOTS)
            .map(|tags| tags.iter().enumerate().fold(0, pack));
        Ok(Self::with(buckets.collect(), idf.to_vec(), unknown_idf))
    }

    fn with(buckets: Vec<u64>, idf: Vec<u8>, unknown_idf: u8) -> Self {
        Self {
            buckets,
            idf,
            unknown_idf,
        }
    }

    fn bucket_of(&self, id: u32) -> usize {
        id as usize & (self.buckets.len() - 1)
    }

    /// Writes the rows of those of `ids` that have one to the front of `rows`, and returns how many
    /// there are.
    ///
    /// # Panics
    /// If `rows` is shorter than `ids`.
    #[inline(always)]
    pub fn find<L: Lexical>(&self, ids: &[u32], rows: &mut [u32]) -> usize {
        L::find(&self.buckets, ids, rows)
    }

    /// Rows of the table, free ones included.
    pub fn rows(&self) -> usize {
        self.buckets.len() * SLOTS
    }

    /// Features that have a row.
    pub fn len(&self) -> usize {
        self.tags().filter(|&tag| tag != 0).count()
    }

    /// Whether no feature has a row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tag of every row; zero where it is free.
    pub fn tags(&self) -> impl Iterator<Item = u16> + '_ {
        self.buckets
            .iter()
            .flat_map(|tags| (0..SLOTS).map(move |slot| (tags >> (16 * slot)) as u16))
    }

    /// The inverse document frequency of every row in sixteenths; zero where it is free.
    pub fn idf(&self) -> &[u8] {
        &self.idf
    }

    /// Inverse document frequency of a feature that has no row, in sixteenths.
    pub fn unknown_idf(&self) -> u8 {
        self.unknown_idf
    }
}

/// Fails unless a table can have so many rows.
pub(super) fn check_rows(rows: usize) -> Result<()> {
    if (MIN_ROWS..=MAX_ROWS).contains(&rows) && rows.is_power_of_two() {
        return Ok(());
    }
    Err(Error::invalid(
        "tags",
        format!("{rows} rows"),
        format!("a power of two, {MIN_ROWS} to {MAX_ROWS}"),
    ))
}

/// The first free slot, unless the bucket is full or has the tag already.
fn free_slot(tags: u64, tag: u64) -> Option<usize> {
    let lane = |slot: usize| (tags >> (16 * slot)) & 0xffff;
    if (0..SLOTS).any(|slot| lane(slot) == tag) {
        return None;
    }
    (0..SLOTS).find(|&slot| lane(slot) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::text::Portable;

    fn ids(n: u32) -> impl Iterator<Item = u32> {
        (1..=n).map(|i| i.wrapping_mul(0x9e37_79b9))
    }

    fn find(vocabulary: &Vocabulary, ids: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let ids: Vec<u32> = ids.into_iter().collect();
        let mut rows = vec![0; ids.len()];
        let found = vocabulary.find::<Portable>(&ids, &mut rows);
        rows.truncate(found);
        rows
    }

    #[test]
    fn every_feature_finds_its_own_row() {
        let features = ids(3000).map(|id| (id, 2)).collect();
        let vocabulary = Vocabulary::build(features, 10, 1 << 16).unwrap();
        assert_eq!(vocabulary.rows(), 8192);
        let mut rows = find(&vocabulary, ids(3000));
        assert!(rows.len() >= 2900, "{} of 3000", rows.len());
        assert!(rows.iter().all(|&row| vocabulary.idf()[row as usize] > 0));
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), vocabulary.len());
    }

    #[test]
    fn an_unknown_feature_finds_no_row() {
        let vocabulary = Vocabulary::build(vec![(7, 1), (1 << 31, 1)], 10, 64).unwrap();
        assert_eq!(
            find(&vocabulary, [12345 << 16, 99 << 16, u32::MAX]),
            [0u32; 0]
        );
        assert_eq!(find(&vocabulary, [12345 << 16, 7, 99 << 17]).len(), 1);
        assert_eq!(vocabulary.unknown_idf(), quantised_idf(10, 0));
    }

    #[test]
    fn frequent_features_come_first() {
        // All in one bucket of four.
        let features = (1..=6).map(|i| (i << 17, i)).collect();
        let vocabulary = Vocabulary::build(features, 10, 4).unwrap();
        let known: Vec<u32> = (1..=6)
            .filter(|&i| !find(&vocabulary, [i << 17]).is_empty())
            .collect();
        assert_eq!(known, [3, 4, 5, 6]);
    }

    #[test]
    fn parts_make_the_same_vocabulary() {
        let features = ids(500).map(|id| (id, id % 9)).collect();
        let vocabulary = Vocabulary::build(features, 9, 512).unwrap();
        let tags: Vec<u16> = vocabulary.tags().collect();
        let idf = vocabulary.idf();
        let copy = Vocabulary::from_parts(&tags, idf, vocabulary.unknown_idf()).unwrap();
        assert_eq!(find(&vocabulary, ids(2000)), find(&copy, ids(2000)));
        assert_eq!(copy.idf(), idf);
        assert!(Vocabulary::from_parts(&tags[..300], &idf[..300], 9).is_err());
        assert!(Vocabulary::from_parts(&tags, &idf[..4], 9).is_err());
        assert!(Vocabulary::from_parts(&tags, &vec![0; tags.len()], 9).is_err());
        assert!(Vocabulary::from_parts(&tags, idf, 0).is_err());
        assert!(Vocabulary::from_parts(&[9, 0, 9, 0], &[1, 0, 1, 0], 9).is_err());
    }
}
