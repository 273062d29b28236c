//! Values that start where a cache line does.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest register.
const LINE: usize = 64;

/// A slice of its own that starts at a multiple of 64 bytes, so that no load of a whole register
/// reaches into a second cache line.
#[derive(Default)]
pub struct Aligned<T> {
    /// The values, after some that only fill up.
    all: Vec<T>,
    start: usize,
}

impl<T: Copy> Aligned<T> {
    /// `len` times the same value.
    pub fn new(value: T, len: usize) -> Self {
        const { assert!(LINE / size_of::<T>() * size_of::<T>() == LINE) };
        let spare = LINE / size_of::<T>() - 1;
        let all = vec![value; len + spare];
        // Where the platform cannot say, loads are slower and no less right.
        let start = all.as_ptr().align_offset(LINE).min(spare);
        let mut aligned = Self { all, start };
        aligned.all.truncate(start + len);
        aligned
    }

    /// Makes it at least `len` values long; what it held is lost if it was not.
    pub fn reserve(&mut self, value: T, len: usize) {
        if self.len() < len {
            *self = Self::new(value, len);
        }
    }
}

impl<T: Copy + Default> From<&[T]> for Aligned<T> {
    fn from(values: &[T]) -> Self {
        let mut aligned = Self::new(T::default(), values.len());
        aligned.copy_from_slice(values);
        aligned
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.all[self.start..]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.all[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_where_a_cache_line_does() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let singles = Aligned::new(1.5f32, len);
            let doubles = Aligned::new(2.5f64, len);
            assert_eq!((&*singles, &*doubles), (&*vec![1.5; len], &*vec![2.5; len]));
            assert_eq!(singles.as_ptr() as usize % LINE, 0);
            assert_eq!(doubles.as_ptr() as usize % LINE, 0);
        }
        assert_eq!(*Aligned::from(&[1u8, 2, 3][..]), [1, 2, 3]);
        let mut words = Aligned::<i32>::default();
        words.reserve(3, 70);
        words[69] = 4;
        words.reserve(5, 60);
        assert_eq!((words.len(), words[0], words[69]), (70, 3, 4));
    }
}
