//! Which feature has which table row, and how rare it is.
//!
//! A feature id names a bucket of four rows by its upper bits, and the row among them by a 16-bit
//! tag: its lower bits. A feature that was not fitted therefore finds no row, except once in
//! 16,000 times. Where more than four features share a bucket the most frequent ones have it.

use crate::error::{Error, Result};

/// Rows of one bucket.
const SLOTS: usize = 4;

/// Fewest rows of a table.
pub const MIN_ROWS: usize = SLOTS;

/// Most rows of a table.
pub const MAX_ROWS: usize = 1 << 22;

/// Steps in which inverse document frequencies are stored: their unit is 1 / 16.
const IDF_STEPS: f64 = 16.0;

const LOW_BITS: u64 = 0x0001_0001_0001_0001;

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// Four 16-bit tags; zero where a row is free.
    tags: u64,
    /// Four 8-bit inverse document frequencies, and zeros: what slot four, none, has.
    idf: u64,
}

/// Feature id -> row of the table.
#[derive(Clone)]
pub struct Vocabulary {
    buckets: Vec<Bucket>,
    /// How far an id is shifted to give its bucket.
    shift: u32,
    /// Inverse document frequency of a feature that no fitted text has.
    unknown_idf: u8,
}

/// Where a feature was found.
#[derive(Clone, Copy)]
pub struct Found {
    /// Its row, or [`Vocabulary::rows`] where it has none.
    pub row: u32,
    /// Its inverse document frequency in sixteenths, or zero where it has none.
    pub idf: u8,
}

/// The inverse document frequency `ln((1 + n) / (1 + df)) + 1`, in sixteenths.
fn quantised_idf(n_texts: u64, df: u64) -> u8 {
    let idf = ((1 + n_texts) as f64 / (1 + df) as f64).ln() + 1.0;
    (idf * IDF_STEPS).round().clamp(1.0, 255.0) as u8
}

/// Tag of a feature; never zero.
fn tag(id: u32) -> u64 {
    u64::from((id as u16).max(1))
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
        let mut vocabulary = Self::with_buckets(
            vec![Bucket::default(); rows / SLOTS],
            quantised_idf(n_texts, 0),
        );
        features.sort_unstable_by_key(|&(id, df)| (std::cmp::Reverse(df), id));
        for (id, df) in features {
            let at = vocabulary.bucket_of(id);
            let bucket = &mut vocabulary.buckets[at];
            if let Some(slot) = free_slot(*bucket, tag(id)) {
                bucket.tags |= tag(id) << (16 * slot);
                bucket.idf |= u64::from(quantised_idf(n_texts, u64::from(df))) << (8 * slot);
            }
        }
        Ok(vocabulary)
    }

    /// The vocabulary with these tags and inverse document frequencies, one for each row.
    pub fn from_parts(tags: &[u16], idf: &[u8], unknown_idf: u8) -> Result<Self> {
        let rows = tags.len();
        if !(MIN_ROWS..=MAX_ROWS).contains(&rows) || !rows.is_power_of_two() {
            return Err(Error::invalid(
                "tags",
                format!("{rows} rows"),
                format!("a power of two, {MIN_ROWS} to {MAX_ROWS}"),
            ));
        }
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
        if unknown_idf == 0 {
            return Err(Error::invalid("unknown_idf", "0", "1 to 255"));
        }
        let pack = |values: [u64; SLOTS], bits: usize| {
            values
                .iter()
                .enumerate()
                .fold(0, |all, (slot, v)| all | v << (bits * slot))
        };
        let buckets = tags
            .chunks_exact(SLOTS)
            .zip(idf.chunks_exact(SLOTS))
            .map(|(tags, idf)| Bucket {
                tags: pack(std::array::from_fn(|slot| u64::from(tags[slot])), 16),
                idf: pack(std::array::from_fn(|slot| u64::from(idf[slot])), 8),
            })
            .collect();
        Ok(Self::with_buckets(buckets, unknown_idf))
    }

    fn with_buckets(buckets: Vec<Bucket>, unknown_idf: u8) -> Self {
        let shift = 32 - buckets.len().ilog2();
        Self {
            buckets,
            shift,
            unknown_idf,
        }
    }

    fn bucket_of(&self, id: u32) -> usize {
        (u64::from(id) >> self.shift) as usize
    }

    /// The row of a feature. No branch depends on whether there is one: which features are known
    /// is as good as random, and a mispredicted branch costs more than the rest.
    #[inline]
    pub fn find(&self, id: u32) -> Found {
        let at = self.bucket_of(id);
        let bucket = self.buckets[at];
        let difference = bucket.tags ^ (tag(id) * LOW_BITS);
        // The lowest high bit left marks the first 16-bit lane that is zero: Hacker's Delight 6-1.
        let zero = difference.wrapping_sub(LOW_BITS) & !difference & (LOW_BITS << 15);
        let slot = zero.trailing_zeros() / 16;
        let row = if zero == 0 {
            self.rows()
        } else {
            at * SLOTS + slot as usize
        };
        Found {
            row: row as u32,
            idf: (bucket.idf >> (8 * slot)) as u8,
        }
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
            .flat_map(|b| (0..SLOTS).map(|slot| (b.tags >> (16 * slot)) as u16))
    }

    /// The inverse document frequency of every row in sixteenths; zero where it is free.
    pub fn idf(&self) -> impl Iterator<Item = u8> + '_ {
        self.buckets
            .iter()
            .flat_map(|b| (0..SLOTS).map(|slot| (b.idf >> (8 * slot)) as u8))
    }

    /// Inverse document frequency of a feature that has no row, in sixteenths.
    pub fn unknown_idf(&self) -> u8 {
        self.unknown_idf
    }
}

/// The first free slot, unless the bucket is full or has the tag already.
fn free_slot(bucket: Bucket, tag: u64) -> Option<usize> {
    let lane = |slot: usize| (bucket.tags >> (16 * slot)) & 0xffff;
    if (0..SLOTS).any(|slot| lane(slot) == tag) {
        return None;
    }
    (0..SLOTS).find(|&slot| lane(slot) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: u32) -> impl Iterator<Item = u32> {
        (1..=n).map(|i| i.wrapping_mul(0x9e37_79b9))
    }

    #[test]
    fn every_feature_finds_its_own_row() {
        let features = ids(3000).map(|id| (id, 2)).collect();
        let vocabulary = Vocabulary::build(features, 10, 1 << 16).unwrap();
        assert_eq!(vocabulary.rows(), 8192);
        let mut rows: Vec<u32> = ids(3000).map(|id| vocabulary.find(id).row).collect();
        rows.retain(|&row| row < 8192);
        let found = rows.len();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), vocabulary.len());
        assert!(found >= 2700, "{found} of 3000");
    }

    #[test]
    fn an_unknown_feature_finds_no_row() {
        let vocabulary = Vocabulary::build(vec![(7, 1), (1 << 31, 1)], 10, 64).unwrap();
        let found = vocabulary.find(12345);
        assert_eq!((found.row as usize, found.idf), (vocabulary.rows(), 0));
        assert_eq!(vocabulary.unknown_idf(), quantised_idf(10, 0));
    }

    #[test]
    fn frequent_features_come_first() {
        // All in one bucket of four.
        let features = (1..=6).map(|i| (i, i)).collect();
        let vocabulary = Vocabulary::build(features, 10, 4).unwrap();
        let known: Vec<bool> = (1..=6).map(|id| vocabulary.find(id).row < 4).collect();
        assert_eq!(known, [false, false, true, true, true, true]);
    }

    #[test]
    fn parts_make_the_same_vocabulary() {
        let vocabulary =
            Vocabulary::build(ids(500).map(|id| (id, id % 9)).collect(), 9, 512).unwrap();
        let tags: Vec<u16> = vocabulary.tags().collect();
        let idf: Vec<u8> = vocabulary.idf().collect();
        let copy = Vocabulary::from_parts(&tags, &idf, vocabulary.unknown_idf()).unwrap();
        for id in ids(2000) {
            let (a, b) = (vocabulary.find(id), copy.find(id));
            assert_eq!((a.row, a.idf), (b.row, b.idf));
        }
        assert!(Vocabulary::from_parts(&tags[..300], &idf[..300], 9).is_err());
        assert!(Vocabulary::from_parts(&tags, &idf[..4], 9).is_err());
        assert!(Vocabulary::from_parts(&tags, &vec![0; tags.len()], 9).is_err());
        assert!(Vocabulary::from_parts(&tags, &idf, 0).is_err());
    }
}
