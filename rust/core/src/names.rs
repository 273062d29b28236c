//! What models are called, and where each of them is.

use std::hash::BuildHasher;
use std::ops::Index;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

/// Distinct names in index order, with an index by name.
///
/// The names lie in one piece: that is quick to load, and to copy for a change.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// All names, one after another.
    text: String,
    /// Where each name ends in `text`.
    ends: Vec<usize>,
    /// Positions, by the hash of the name.
    index: HashTable<u32>,
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

    /// All names, in index order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|at| &self[at])
    }

    /// Where a name is.
    pub fn position(&self, name: &str) -> Option<u32> {
        let same = |&at: &u32| &self[at as usize] == name;
        self.index.find(hash(name), same).copied()
    }

    /// Makes room for as many more.
    pub(crate) fn reserve(&mut self, added: usize) {
        let Self { text, ends, index } = self;
        ends.reserve(added);
        index.reserve(added, |&at| hash(slice(text, ends, at as usize)));
    }

    /// Appends a name that is not there yet; otherwise fails with where it is.
    pub(crate) fn push(&mut self, name: &str) -> Result<(), u32> {
        if let Some(at) = self.position(name) {
            return Err(at);
        }
        let at = self.len() as u32;
        self.text.push_str(name);
        self.ends.push(self.text.len());
        let Self { text, ends, index } = self;
        index.insert_unique(hash(name), at, |&at| hash(slice(text, ends, at as usize)));
        Ok(())
    }

    /// Takes a name out; later ones move down. O(names).
    ///
    /// # Panics
    /// If there is no such name.
    pub(crate) fn remove(&mut self, at: usize) {
        let length = self[at].len();
        if let Ok(entry) = (self.index).find_entry(hash(&self[at]), |&i| i as usize == at) {
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

fn hash(name: &str) -> u64 {
    FxBuildHasher.hash_one(name)
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
