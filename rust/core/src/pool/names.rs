//! What models are called, and where each of them is.

use std::hash::BuildHasher;
use std::ops::Index;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Distinct names in index order, with an index by name.
///
/// The names lie in one piece: that is quick to load, and to copy for a change.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// All names, one after another.
    text: String,
    /// Where each name ends in `text`.
    ends: Vec<usize>,
    /// Of the longest name so far.
    longest: usize,
    /// Positions, by the hash of the name.
    index: HashTable<u32>,
    /// Drawn anew for each pool: a file cannot choose names that all have the same hash.
    hasher: RandomState,
}

impl Names {
    /// Number of names.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of a name at most: of the longest one that was ever there.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// All names, in index order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|at| &self[at])
    }

    /// Where a name is.
    pub fn position(&self, name: &str) -> Option<u32> {
        let same = |&at: &u32| &self[at as usize] == name;
        self.index.find(self.hasher.hash_one(name), same).copied()
    }

    /// Makes room for as many more.
    pub(crate) fn reserve(&mut self, added: usize) {
        let Self {
            text,
            ends,
            index,
            hasher,
            ..
        } = self;
        ends.reserve(added);
        let hash = |&at: &u32| hasher.hash_one(slice(text, ends, at as usize));
        index.reserve(added, hash);
    }

    /// Appends a name that is not there yet; otherwise fails with where it is.
    pub(crate) fn push(&mut self, name: &str) -> Result<(), u32> {
        if let Some(at) = self.position(name) {
            return Err(at);
        }
        let at = self.len() as u32;
        self.text.push_str(name);
        self.longest = self.longest.max(name.len());
        self.ends.push(self.text.len());
        let Self {
            text,
            ends,
            index,
            hasher,
            ..
        } = self;
        let hash = |&at: &u32| hasher.hash_one(slice(text, ends, at as usize));
        index.insert_unique(hasher.hash_one(name), at, hash);
        Ok(())
    }

    /// Takes a name out; later ones move down. O(names).
    ///
    /// # Panics
    /// If there is no such name.
    pub(crate) fn remove(&mut self, at: usize) {
        let length = self[at].len();
        let hash = self.hasher.hash_one(&self[at]);
        if let Ok(entry) = self.index.find_entry(hash, |&i| i as usize == at) {
            entry.remove();
        }
        for later in self.index.iter_mut().filter(|i| **i as usize > at) {
            *later -= 1;
        }
        let end = self.ends.remove(at);
        self.text.replace_range(end - length..end, "");
        self.ends[at..].iter_mut().for_each(|end| *end -= length);
    }
}

impl Index<usize> for Names {
    type Output = str;

    fn index(&self, at: usize) -> &str {
        slice(&self.text, &self.ends, at)
    }
}

fn slice<'a>(text: &'a str, ends: &[usize], at: usize) -> &'a str {
    let start = at.checked_sub(1).map_or(0, |before| ends[before]);
    &text[start..ends[at]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_do_what_a_list_does(
            changes in prop::collection::vec((any::<bool>(), 0u8..40, any::<prop::sample::Index>()), 0..120)
        ) {
            let (mut list, mut names) = (Vec::<String>::new(), Names::default());
            for (add, n, at) in changes {
                let name = "é".repeat(n as usize % 3) + &n.to_string();
                let known = list.iter().position(|other| *other == name);
                if add {
                    prop_assert_eq!(names.push(&name).err(), known.map(|at| at as u32));
                    if known.is_none() {
                        list.push(name);
                    }
                } else if !list.is_empty() {
                    let at = at.index(list.len());
                    list.remove(at);
                    names.remove(at);
                }
                prop_assert!(names.iter().eq(&list));
                for n in 0u8..40 {
                    let name = "é".repeat(n as usize % 3) + &n.to_string();
                    let at = list.iter().position(|other| *other == name);
                    prop_assert_eq!(names.position(&name), at.map(|at| at as u32));
                }
            }
        }
    }
}
