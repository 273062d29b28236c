//! Rows against vectors as they lie in memory: for so few rows that packing does not pay.
//!
//! Written once over [`Lanes`], and compiled by each instruction set for registers of its own.
//!
//! # Scores and their bound
//!
//! The nearest vector has the greatest score `s_k = x.c_k - |c_k|^2 / 2`, computed in float32. With
//! sums in `L` lanes, no term goes through more than `D / L + 21` roundings of `2^-24`: those of its
//! lane, four of the lanes' own sum, 15 of what fills no register, and that of its product. So with
//! `E = (D / L + 48) 2^-24`, which has room for the roundings of everything below,
//!
//! ```text
//! |error| <= E (|x| |c_k| + |c_k|^2 / 2)   float32 arithmetic
//!          + 2^-44 |x|^2                   rounding of the float64 answer itself, see `packed`
//!          + 2^-100                        underflow: fewer than 2^16 terms below 2^-126
//! ```
//!
//! Squared norms are computed alike: a factor `1 + 2^-10`, and `2^-54` for what underflows, makes
//! upper bounds of their roots. Nothing overflows below [`LIMIT`]; above it there is no bound.

#![allow(clippy::inline_always)] // Else this is not compiled for the caller's registers.

use std::array;

use super::aligned::Aligned;
use super::packed::MAX_DIM;
use super::search::Candidate;

/// Squared norms up to which sums cannot overflow: `2^120`.
const LIMIT: f32 = (1u128 << 120) as f32;

/// Vectors whose products are looked at together.
const BLOCK: usize = 96;

/// Candidates for each vector that take longer to compare than packing the vectors does, whose bound
/// suits data far from the origin.
const MANY: usize = 24;

/// Rows of a register tile: 12 sums, 3 registers of rows and one of a vector are 16.
const ROWS: usize = 3;
/// Vectors of it.
pub const VECTORS: usize = 4;

/// Lanes of the widest register.
const MOST_LANES: usize = 16;

/// A register of float32.
pub trait Lanes: Copy {
    /// How many, at most [`MOST_LANES`].
    const COUNT: usize;
    /// Zeros.
    fn zero() -> Self;
    /// The values from there on.
    ///
    /// # Safety
    /// They must be readable.
    unsafe fn load(from: *const f32) -> Self;
    /// `self * other + sum`.
    fn times(self, other: Self, sum: Self) -> Self;
    /// The sum of each one's lanes.
    fn totals(registers: [Self; VECTORS]) -> [f32; VECTORS];
}

/// What fits in a register everywhere.
#[derive(Clone, Copy)]
pub struct Four([f32; 4]);

impl Lanes for Four {
    const COUNT: usize = 4;

    #[inline(always)]
    fn zero() -> Self {
        Self([0.0; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's word; an array may lie wherever its values do.
        Self(unsafe { *from.cast() })
    }

    #[inline(always)]
    fn times(mut self, other: Self, sum: Self) -> Self {
        for i in 0..4 {
            self.0[i] = sum.0[i] + self.0[i] * other.0[i];
        }
        self
    }

    #[inline(always)]
    fn totals(registers: [Self; VECTORS]) -> [f32; VECTORS] {
        registers.map(|Self([a, b, c, d])| (a + b) + (c + d))
    }
}

/// Rows and the vectors they are compared with.
#[derive(Clone, Copy)]
pub struct Plain<'a> {
    /// Row after row.
    pub x: &'a [f32],
    /// Vector after vector.
    pub vectors: &'a [f32],
    /// Values of each.
    pub dim: usize,
}

/// What is known of one row.
struct Known {
    /// At least the row's norm; NaN if no bound holds for it, so that nothing passes.
    norm: f32,
    /// The part of the bound that is the same for every vector.
    slack: f32,
    /// A score that the best one reaches for certain.
    certain: f32,
}

/// Scratch memory of one thread.
#[derive(Default)]
pub struct Scratch {
    /// Rows that start where cache lines do.
    x: Aligned<f32>,
    known: Vec<Known>,
    /// Of each row with a block of vectors, [`BLOCK`] apart.
    products: Vec<f32>,
    /// Halves of squared norms.
    halves: Vec<f32>,
    /// What a row's norm is multiplied by in the bound.
    reaches: Vec<f32>,
}

/// Fills the lists with each row's candidates, in ascending order of index; that of a row that no
/// bound holds for stays empty. False if none holds for the vectors, if one of them is not finite, or
/// if [`MANY`] candidates a vector are left; the lists are good for nothing then.
#[inline(always)]
pub fn find<L: Lanes>(
    plain: &Plain<'_>,
    scratch: &mut Scratch,
    lists: &mut [Vec<Candidate>],
) -> bool {
    let Plain { vectors, dim, .. } = *plain;
    if dim > MAX_DIM {
        return false;
    }
    let (rows, stride) = (lists.len(), dim.next_multiple_of(MOST_LANES));
    scratch.x.reserve(0.0, rows * stride);
    scratch.known.clear();
    // Not in closures, which would not be compiled for the caller's registers: so below.
    for (row, x) in plain.x.chunks_exact(dim).enumerate() {
        scratch.x[row * stride..][..dim].copy_from_slice(x);
        let (_, [squares, ..]) = tile::<L, 0, true>([], [x; VECTORS]);
        let norm = if squares < LIMIT {
            root(squares)
        } else {
            f32::NAN
        };
        let slack = squares / (1u64 << 44) as f32 + 2f32.powi(-100);
        let certain = f32::MIN;
        scratch.known.push(Known {
            norm,
            slack,
            certain,
        });
    }
    scratch.halves.resize(BLOCK, 0.0);
    scratch.reaches.resize(BLOCK, 0.0);
    scratch.products.resize(rows * BLOCK, 0.0);

    let error = (dim as f32 / L::COUNT as f32 + 48.0) * (1.0 + 1.0 / 256.0) / (1 << 24) as f32;
    for (b, vectors) in vectors.chunks(BLOCK * dim).enumerate() {
        let count = vectors.len() / dim;
        for at in (0..count).step_by(VECTORS) {
            // Where there are fewer, the last one stands in for those that are not there.
            let tile = array::from_fn(|j| &vectors[(at + j).min(count - 1) * dim..][..dim]);
            let (x, products) = (&scratch.x[..], &mut scratch.products[at..]);
            // The first row meets the vectors on their way from memory, together with their norms.
            multiply::<L, 1, true>(x, stride, tile, products, &mut scratch.halves[at..]);
            for row in (1..rows).step_by(ROWS) {
                let (x, products) = (&x[row * stride..], &mut products[row * BLOCK..]);
                match rows - row {
                    1 => multiply::<L, 1, false>(x, stride, tile, products, &mut []),
                    2 => multiply::<L, 2, false>(x, stride, tile, products, &mut []),
                    _ => multiply::<L, ROWS, false>(x, stride, tile, products, &mut []),
                }
            }
        }
        let halves = &scratch.halves[..count];
        let mut bounded = true;
        for (half, reach) in halves.iter().zip(&mut scratch.reaches) {
            *reach = error * root(2.0 * half);
            bounded &= *half < LIMIT / 2.0; // False for NaN too.
        }
        if !bounded {
            return false;
        }
        let block = Block {
            first: b * BLOCK,
            halves,
            reaches: &scratch.reaches[..count],
            error,
        };
        for (row, (known, list)) in scratch.known.iter_mut().zip(&mut *lists).enumerate() {
            block.pick(&scratch.products[row * BLOCK..][..count], known, list);
        }
    }
    let mut left = 0;
    for (known, list) in scratch.known.iter().zip(lists) {
        // Early blocks were picked against the lower bound of their time.
        list.retain(|&(_, upper)| upper >= known.certain);
        left += list.len();
    }
    left <= rows + MANY * vectors.len() / dim
}

/// At least the root of a squared norm.
#[inline(always)]
fn root(squares: f32) -> f32 {
    squares.sqrt() * (1.0 + 1.0 / 1024.0) + 2f32.powi(-54)
}

/// A block of vectors, as far as bounds are concerned.
struct Block<'a> {
    /// Index of the first vector.
    first: usize,
    halves: &'a [f32],
    reaches: &'a [f32],
    error: f32,
}

impl Block<'_> {
    /// Appends the vectors whose upper bound reaches what is certain.
    #[inline(always)]
    fn pick(&self, products: &[f32], known: &mut Known, list: &mut Vec<Candidate>) {
        const CHUNK: usize = 32;
        let Known { norm, slack, .. } = *known;
        let (less, more) = (1.0 + self.error, 1.0 - self.error);
        let (chunks, rest) = products.as_chunks::<CHUNK>();
        let (halves, halves_rest) = self.halves.as_chunks::<CHUNK>();
        let (reaches, reaches_rest) = self.reaches.as_chunks::<CHUNK>();
        let lower = |p: f32, half: f32, reach: f32| p - (half * less + norm * reach);
        let upper = |p: f32, half: f32, reach: f32| p - half * more + (norm * reach + slack);

        let mut greatest = [f32::MIN; CHUNK];
        for ((p, half), reach) in chunks.iter().zip(halves).zip(reaches) {
            for i in 0..CHUNK {
                let lower = lower(p[i], half[i], reach[i]);
                greatest[i] = if lower > greatest[i] {
                    lower
                } else {
                    greatest[i]
                };
            }
        }
        for ((p, half), reach) in rest.iter().zip(halves_rest).zip(reaches_rest) {
            greatest[0] = greatest[0].max(lower(*p, *half, *reach));
        }
        let greatest = greatest.into_iter().fold(f32::MIN, f32::max);
        known.certain = known.certain.max(greatest - slack);

        let certain = known.certain;
        for (i, ((p, half), reach)) in chunks.iter().zip(halves).zip(reaches).enumerate() {
            let mut any = false;
            for i in 0..CHUNK {
                any |= upper(p[i], half[i], reach[i]) >= certain;
            }
            if any {
                let first = self.first + i * CHUNK;
                append(list, first, certain, p, half, reach, upper);
            }
        }
        let first = self.first + chunks.len() * CHUNK;
        append(list, first, certain, rest, halves_rest, reaches_rest, upper);
    }
}

/// Appends those of some vectors from `first` whose upper bound reaches what is certain.
#[inline(always)]
fn append(
    list: &mut Vec<Candidate>,
    first: usize,
    certain: f32,
    products: &[f32],
    halves: &[f32],
    reaches: &[f32],
    upper: impl Fn(f32, f32, f32) -> f32,
) {
    for (k, ((&p, &half), &reach)) in products.iter().zip(halves).zip(reaches).enumerate() {
        let upper = upper(p, half, reach);
        if upper >= certain {
            list.push(((first + k) as u32, upper));
        }
    }
}

/// Puts the products of `R` rows, `stride` apart, with some vectors into `products`, [`BLOCK`] apart;
/// with `NORMS`, also halves of the vectors' squared norms.
#[inline(always)]
fn multiply<L: Lanes, const R: usize, const NORMS: bool>(
    x: &[f32],
    stride: usize,
    vectors: [&[f32]; VECTORS],
    products: &mut [f32],
    halves: &mut [f32],
) {
    let dim = vectors[0].len();
    let x: [&[f32]; R] = array::from_fn(|r| &x[r * stride..][..dim]);
    let (found, squares) = tile::<L, R, NORMS>(x, vectors);
    for r in 0..R {
        products[r * BLOCK..][..VECTORS].copy_from_slice(&found[r]);
    }
    if NORMS {
        halves[..VECTORS].copy_from_slice(&squares.map(|squares| 0.5 * squares));
    }
}

/// Products of `R` rows with some vectors, all of one length, and with `NORMS` the vectors' squared
/// norms: all sums stay in registers.
#[inline(always)]
fn tile<L: Lanes, const R: usize, const NORMS: bool>(
    x: [&[f32]; R],
    vectors: [&[f32]; VECTORS],
) -> ([[f32; VECTORS]; R], [f32; VECTORS]) {
    let dim = vectors[0].len();
    assert!(x.iter().chain(&vectors).all(|values| values.len() == dim));
    let (mut sums, mut norms) = ([[L::zero(); VECTORS]; R], [L::zero(); VECTORS]);
    let full = dim - dim % L::COUNT;
    for at in (0..full).step_by(L::COUNT) {
        // SAFETY: `at + COUNT <= dim`, the length of all. (Indexing would check each of them each
        // time.)
        unsafe { step::<L, R, NORMS>(x, vectors, at, &mut sums, &mut norms) };
    }
    let (mut out, mut squares) = ([[0.0; VECTORS]; R], [0.0; VECTORS]);
    for r in 0..R {
        out[r] = L::totals(sums[r]);
    }
    if NORMS {
        squares = L::totals(norms);
    }
    for i in full..dim {
        for j in 0..VECTORS {
            let value = vectors[j][i];
            squares[j] += value * value;
            for r in 0..R {
                out[r][j] += x[r][i] * value;
            }
        }
    }
    (out, squares)
}

/// Adds the products of one register of each row and vector.
///
/// # Safety
/// `at + COUNT` is at most the length of each of them.
#[inline(always)]
unsafe fn step<L: Lanes, const R: usize, const NORMS: bool>(
    x: [&[f32]; R],
    vectors: [&[f32]; VECTORS],
    at: usize,
    sums: &mut [[L; VECTORS]; R],
    norms: &mut [L; VECTORS],
) {
    let mut rows = [L::zero(); R];
    for r in 0..R {
        // SAFETY: the caller's word.
        rows[r] = unsafe { L::load(x[r].as_ptr().add(at)) };
    }
    for j in 0..VECTORS {
        // SAFETY: as above.
        let vector = unsafe { L::load(vectors[j].as_ptr().add(at)) };
        if NORMS {
            norms[j] = vector.times(vector, norms[j]);
        }
        for r in 0..R {
            sums[r][j] = rows[r].times(vector, sums[r][j]);
        }
    }
}
