//! AVX2: as with AVX-512, on half the width. The product of four rows is made of two instructions,
//! whose 16-bit half sums cannot overflow: 2 x 127 x 128 < 2^15.

#[allow(clippy::wildcard_imports)]
use std::arch::x86_64::*;

use super::{BLOCK, COLUMNS, Classes, Lexical, Line, WINDOW, Work, check, fetch};

/// Rows that one product takes.
const GROUP: usize = 4;

/// Columns that one register of bytes holds.
const HALF: usize = COLUMNS / 2;

pub struct Avx2;

/// Does `work`, compiled for these features.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub fn run<W: Work>(work: W) -> W::Output {
    work.run::<Avx2>()
}

impl Lexical for Avx2 {
    #[inline]
    fn classify(window: &[u8; WINDOW]) -> Classes {
        // SAFETY: `Avx2` is named by `run` alone, whose caller has seen that the CPU has the features;
        // work that keeps a function of it finds them there later, too.
        unsafe { classify(window) }
    }

    #[inline]
    fn add_rows(table: &[Line], rows: &[u32], weights: &[u8], sums: &mut [[i32; COLUMNS]]) {
        check(table, rows, weights, sums.len());
        // SAFETY: as above; `check` has seen that all rows lie in the table and have a weight each.
        unsafe { add_rows(table, rows, weights, sums) }
    }

    #[inline]
    fn prefetch(table: &[Line], rows: &[u32], lines: usize) {
        for &row in rows {
            for line in 0..lines {
                fetch(table.as_ptr().wrapping_add(row as usize * lines + line));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn classify(window: &[u8; WINDOW]) -> Classes {
    let mut classes = Classes {
        letters: 0,
        spaces: 0,
        wide: 0,
    };
    let bits = |mask: __m256i, at: usize| u64::from(_mm256_movemask_epi8(mask) as u32) << at;
    for at in [0, BLOCK / 2] {
        // SAFETY: the window has at least 64 bytes.
        let bytes = unsafe { _mm256_loadu_si256(window.as_ptr().add(at).cast()) };
        let lowered = _mm256_or_si256(bytes, _mm256_set1_epi8(0x20));
        let from_a = _mm256_sub_epi8(lowered, _mm256_set1_epi8(b'a' as i8));
        // Unsigned `<=` is `min(x, y) == x`.
        let at_most =
            |x, y: u8| _mm256_cmpeq_epi8(_mm256_min_epu8(x, _mm256_set1_epi8(y as i8)), x);
        let letters = at_most(from_a, 25);
        let delete = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(0x7f));
        classes.letters |= bits(letters, at);
        classes.spaces |= bits(_mm256_or_si256(at_most(bytes, b' '), delete), at);
        classes.wide |= bits(bytes, at);
    }
    classes
}

/// See [`Lexical::add_rows`].
///
/// # Safety
/// All rows lie in the table, and there are as many weights.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add_rows(table: &[Line], rows: &[u32], weights: &[u8], sums: &mut [[i32; COLUMNS]]) {
    let lines = sums.len();
    let halves = sums.as_flattened_mut().chunks_exact_mut(HALF);
    for (at, sums) in (0..).step_by(HALF).zip(halves) {
        let load = |row: u32| {
            // SAFETY: the row lies in the table and has these columns, aligned to 32.
            unsafe {
                let row = table.as_ptr().add(row as usize * lines).cast::<i8>();
                _mm256_load_si256(row.add(at).cast())
            }
        };
        let ones = _mm256_set1_epi16(1);
        let mut total = [_mm256_setzero_si256(); 4];
        let mut add = |rows: [u32; GROUP], weights: [u8; GROUP]| {
            let [a, b, c, d] = rows.map(load);
            let (ab_low, ab_high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_epi8(c, d), _mm256_unpackhi_epi8(c, d));
            let columns = [
                _mm256_unpacklo_epi16(ab_low, cd_low),
                _mm256_unpackhi_epi16(ab_low, cd_low),
                _mm256_unpacklo_epi16(ab_high, cd_high),
                _mm256_unpackhi_epi16(ab_high, cd_high),
            ];
            let weights = _mm256_set1_epi32(i32::from_le_bytes(weights));
            for (total, columns) in total.iter_mut().zip(columns) {
                let halves = _mm256_maddubs_epi16(weights, columns);
                *total = _mm256_add_epi32(*total, _mm256_madd_epi16(halves, ones));
            }
        };
        let (row_groups, last_rows) = rows.as_chunks::<GROUP>();
        let (weight_groups, last_weights) = weights.as_chunks::<GROUP>();
        for (&rows, &weights) in row_groups.iter().zip(weight_groups) {
            add(rows, weights);
        }
        if let Some(&first) = last_rows.first() {
            let (mut rows, mut weights) = ([first; GROUP], [0; GROUP]);
            rows[..last_rows.len()].copy_from_slice(last_rows);
            weights[..last_weights.len()].copy_from_slice(last_weights);
            add(rows, weights);
        }
        // Lane `l` of total `t` holds columns 16 l + 4 t to 16 l + 4 t + 3.
        for (t, total) in total.into_iter().enumerate() {
            let mut lanes = [0i32; 8];
            // SAFETY: there is room for 8 values.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), total) };
            for (lane, values) in lanes.chunks_exact(4).enumerate() {
                for (sum, value) in sums.iter_mut().skip(16 * lane + 4 * t).zip(values) {
                    *sum += value;
                }
            }
        }
    }
}
