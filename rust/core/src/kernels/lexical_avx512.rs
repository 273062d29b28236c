//! AVX-512: a block is classified by mask comparisons, and four rows are added by one VNNI product
//! a lane once their bytes are interleaved.

#[allow(clippy::wildcard_imports)]
use std::arch::x86_64::*;

use super::lexical::{BLOCK, Classes, Lexical, WINDOW, Work, check};

/// Rows that one product takes.
const GROUP: usize = 4;

/// Columns that one register of bytes holds.
const COLUMNS: usize = 64;

pub struct Avx512;

/// Does `work`, compiled for these features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,bmi1,bmi2,lzcnt,popcnt")]
pub fn run<W: Work>(work: W) -> W::Output {
    work.run::<Avx512>()
}

impl Lexical for Avx512 {
    #[inline]
    fn classify(window: &[u8; WINDOW], lower: &mut [u8; WINDOW]) -> Classes {
        // SAFETY: `Avx512` is only used inside `run`, whose caller has the features.
        unsafe { classify(window, lower) }
    }

    #[inline]
    fn add_rows(table: &[i8], rows: &[u32], weights: &[u8], sums: &mut [i32]) {
        check(table, rows, weights, sums.len());
        // SAFETY: as above; `check` has seen that all rows lie in the table.
        unsafe { add_rows(table, rows, weights, sums) }
    }

    #[inline]
    fn prefetch(table: &[i8], rows: &[u32], dim: usize) {
        for &row in rows {
            for column in (0..dim).step_by(64) {
                // SAFETY: a prefetch reads nothing.
                unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(
                        table.as_ptr().wrapping_add(row as usize * dim + column),
                    );
                };
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn classify(window: &[u8; WINDOW], lower: &mut [u8; WINDOW]) -> Classes {
    // SAFETY: the window has at least 64 bytes.
    let bytes = unsafe { _mm512_loadu_si512(window.as_ptr().cast()) };
    let lowered = _mm512_or_si512(bytes, _mm512_set1_epi8(0x20));
    let from_a = _mm512_sub_epi8(lowered, _mm512_set1_epi8(b'a' as i8));
    let letters = _mm512_cmplt_epu8_mask(from_a, _mm512_set1_epi8(26));
    let spaces = _mm512_cmple_epu8_mask(bytes, _mm512_set1_epi8(b' ' as i8))
        | _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(0x7f));
    let wide = _mm512_movepi8_mask(bytes);
    let lowered = _mm512_mask_mov_epi8(bytes, letters, lowered);
    // SAFETY: as above.
    unsafe { _mm512_storeu_si512(lower.as_mut_ptr().cast(), lowered) };
    const { assert!(BLOCK == 64) };
    Classes {
        letters,
        spaces,
        wide,
    }
}

/// See [`Lexical::add_rows`].
///
/// # Safety
/// All rows lie in the table, and there are as many weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn add_rows(table: &[i8], rows: &[u32], weights: &[u8], sums: &mut [i32]) {
    let dim = sums.len();
    for (at, sums) in (0..dim).step_by(COLUMNS).zip(sums.chunks_mut(COLUMNS)) {
        let mask = u64::MAX >> (COLUMNS - sums.len());
        let load = |row: u32| {
            // SAFETY: the row lies in the table, and the mask keeps to its columns.
            unsafe { _mm512_maskz_loadu_epi8(mask, table.as_ptr().add(row as usize * dim + at)) }
        };
        let mut total = [_mm512_setzero_si512(); 4];
        let mut add = |rows: [u32; GROUP], weights: [u8; GROUP]| {
            let [a, b, c, d] = rows.map(load);
            let (ab_low, ab_high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
            let columns = [
                _mm512_unpacklo_epi16(ab_low, cd_low),
                _mm512_unpackhi_epi16(ab_low, cd_low),
                _mm512_unpacklo_epi16(ab_high, cd_high),
                _mm512_unpackhi_epi16(ab_high, cd_high),
            ];
            let weights = _mm512_set1_epi32(i32::from_le_bytes(weights));
            for (total, columns) in total.iter_mut().zip(columns) {
                *total = _mm512_dpbusd_epi32(*total, weights, columns);
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
            let mut lanes = [0i32; 16];
            // SAFETY: there is room for 16 values.
            unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), total) };
            for (lane, values) in lanes.chunks_exact(4).enumerate() {
                for (sum, value) in sums.iter_mut().skip(16 * lane + 4 * t).zip(values) {
                    *sum += value;
                }
            }
        }
    }
}
