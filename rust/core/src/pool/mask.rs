//! One bit for each model of a pool.

/// A set of models, one bit each, least significant bit first. Bits past the last model are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    words: Vec<u64>,
    len: usize,
}

impl Mask {
    /// None of `len` models.
    pub fn none(len: usize) -> Self {
        Self {
            words: vec![0; len.div_ceil(64)],
            len,
        }
    }

    /// All of `len` models.
    pub fn all(len: usize) -> Self {
        let mut mask = Self {
            words: vec![!0; len.div_ceil(64)],
            len,
        };
        mask.clear_tail();
        mask
    }

    /// The models for which `holds`.
    pub fn of(len: usize, mut holds: impl FnMut(usize) -> bool) -> Self {
        let word = |w: usize| {
            let models = w * 64..len.min(w * 64 + 64);
            models.fold(0u64, |bits, m| bits | (u64::from(holds(m)) << (m % 64)))
        };
        Self {
            words: (0..len.div_ceil(64)).map(word).collect(),
            len,
        }
    }

    /// Number of models, in the set or not.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the pool has no model.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of models in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether every model is in the set.
    pub fn is_full(&self) -> bool {
        self.count() == self.len
    }

    /// Whether a model is in the set; false for one that does not exist.
    pub fn contains(&self, model: usize) -> bool {
        (self.words.get(model / 64)).is_some_and(|word| word >> (model % 64) & 1 == 1)
    }

    /// Puts a model into the set or takes it out.
    ///
    /// # Panics
    /// If there is no such model.
    pub fn set(&mut self, model: usize, member: bool) {
        assert!(model < self.len, "model {model} of {}", self.len);
        let bit = 1 << (model % 64);
        if member {
            self.words[model / 64] |= bit;
        } else {
            self.words[model / 64] &= !bit;
        }
    }

    /// Puts models into the set.
    ///
    /// # Panics
    /// If there is no such model.
    pub fn add(&mut self, models: &[u32]) {
        for &m in models {
            self.set(m as usize, true);
        }
    }

    /// Appends a model to the pool.
    pub fn push(&mut self, member: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        self.len += 1;
        self.set(self.len - 1, member);
    }

    /// Takes a model out of the pool; later ones move down.
    ///
    /// # Panics
    /// If there is no such model.
    pub fn remove(&mut self, model: usize) {
        assert!(model < self.len, "model {model} of {}", self.len);
        let (first, bit) = (model / 64, model % 64);
        let below = (1u64 << bit) - 1;
        let word = self.words[first];
        self.words[first] = (word & below) | (word >> 1 & !below);
        for w in first..self.words.len() - 1 {
            let next = self.words[w + 1];
            self.words[w] = (self.words[w] & (!0 >> 1)) | (next << 63);
            self.words[w + 1] = next >> 1;
        }
        self.len -= 1;
        self.words.truncate(self.len.div_ceil(64));
    }

    /// Keeps only what is in `other` too; both are of one pool.
    pub fn and(&mut self, other: &Self) {
        debug_assert_eq!(self.len, other.len);
        self.words
            .iter_mut()
            .zip(&other.words)
            .for_each(|(a, b)| *a &= b);
    }

    /// Adds what is in `other`; both are of one pool.
    pub fn or(&mut self, other: &Self) {
        debug_assert_eq!(self.len, other.len);
        self.words
            .iter_mut()
            .zip(&other.words)
            .for_each(|(a, b)| *a |= b);
    }

    /// The models that are not in the set.
    #[must_use]
    pub fn complement(mut self) -> Self {
        self.words.iter_mut().for_each(|word| *word = !*word);
        self.clear_tail();
        self
    }

    /// The bits from `model` on, a multiple of 64.
    pub fn words_from(&self, model: usize) -> &[u64] {
        &self.words[model / 64..]
    }

    fn clear_tail(&mut self) {
        if let Some(last) = self.words.last_mut()
            && !self.len.is_multiple_of(64)
        {
            *last &= (1 << (self.len % 64)) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(mask: &Mask) -> Vec<bool> {
        (0..mask.len()).map(|m| mask.contains(m)).collect()
    }

    proptest! {
        #[test]
        fn a_mask_does_what_a_list_of_booleans_does(
            start in prop::collection::vec(any::<bool>(), 1..200),
            changes in prop::collection::vec((0u8..3, any::<prop::sample::Index>(), any::<bool>()), 0..80),
        ) {
            let mut list = start.clone();
            let mut mask = Mask::of(list.len(), |m| start[m]);
            for (kind, at, value) in changes {
                match kind {
                    0 => { list.push(value); mask.push(value); }
                    1 if list.len() > 1 => {
                        let at = at.index(list.len());
                        list.remove(at);
                        mask.remove(at);
                    }
                    _ => {
                        let at = at.index(list.len());
                        list[at] = value;
                        mask.set(at, value);
                    }
                }
            }
            prop_assert_eq!(bits(&mask), list.clone());
            prop_assert_eq!(mask.count(), list.iter().filter(|&&b| b).count());
            let opposite = mask.clone().complement();
            prop_assert_eq!(opposite.count() + mask.count(), mask.len());
            let (mut both, mut either) = (mask.clone(), mask.clone());
            both.and(&opposite);
            either.or(&opposite);
            prop_assert_eq!(both, Mask::none(list.len()));
            prop_assert!(either.is_full());
            prop_assert_eq!(either, Mask::all(list.len()));
            prop_assert_eq!(&mask, &Mask::of(list.len(), |m| list[m]));
        }
    }
}
