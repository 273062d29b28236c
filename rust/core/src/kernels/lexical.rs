//! The inner loops of the lexical embedder: what each byte of a block is, and weighted sums of
//! table rows.
//!
//! Both are exact in integers, so every instruction set gives the same bits.

/// Bytes that one call of [`classify`] looks at.
pub const BLOCK: usize = 64;

/// A block and the bytes after it that a 16-byte load at its last byte reaches.
pub const WINDOW: usize = BLOCK + 16;

/// What the bytes of a block are, bit `i` for byte `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes {
    /// ASCII letters.
    pub letters: u64,
    /// ASCII white space and control characters.
    pub spaces: u64,
    /// Bytes that are not ASCII.
    pub wide: u64,
}

/// Classifies the first [`BLOCK`] bytes of `window` and writes them to `lower` with ASCII letters
/// in lower case.
pub fn classify(window: &[u8; WINDOW], lower: &mut [u8; WINDOW]) -> Classes {
    let mut classes = Classes {
        letters: 0,
        spaces: 0,
        wide: 0,
    };
    for (i, (&byte, lower)) in window[..BLOCK].iter().zip(lower.iter_mut()).enumerate() {
        *lower = byte.to_ascii_lowercase();
        classes.letters |= u64::from(byte.is_ascii_alphabetic()) << i;
        classes.spaces |= u64::from(byte <= b' ' || byte == 0x7f) << i;
        classes.wide |= u64::from(!byte.is_ascii()) << i;
    }
    classes
}

/// Adds `weights[i] * table[rows[i]]` to `sums` for every `i`; a row has `sums.len()` columns.
pub fn add_rows(table: &[i8], rows: &[u32], weights: &[u8], sums: &mut [i32]) {
    let dim = sums.len();
    for (&row, &weight) in rows.iter().zip(weights) {
        let row = &table[row as usize * dim..][..dim];
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += i32::from(value) * i32::from(weight);
        }
    }
}
