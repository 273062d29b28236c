//! AVX-512: a block is classified by mask comparisons, and four rows are added by one VNNI product
//! a lane once their bytes are interleaved.

#[allow(clippy::wildcard_imports)]
use std::arch::x86_64::*;

use super::{BLOCK, COLUMNS, Classes, Lexical, Line, WINDOW, Work, check, fetch};

/// Rows that one product takes.
const GROUP: usize = 4;

pub struct Avx512;

/// Does `work`, compiled for these features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,bmi1,bmi2,lzcnt,popcnt")]
pub fn run<W: Work>(work: W) -> W::Output {
    work.run::<Avx512>()
}

impl Lexical for Avx512 {
    #[inline]
    fn classify(window: &[u8; WINDOW]) -> Classes {
        // SAFETY: `Avx512` is named by `run` alone, whose caller has seen that the CPU has the features;
        // work that keeps a function of it finds them there later, too.
        unsafe { classify(window) }
    }

    #[inline]
    fn find(buckets: &[u64], ids: &[u32], slots: &mut [u32]) -> usize {
        assert!(
            buckets.len().is_power_of_two(),
            "buckets: {}",
            buckets.len()
        );
        let slots = &mut slots[..ids.len()];
        // SAFETY: as above, and there are now as many slots as ids.
        unsafe { find(buckets, ids, slots) }
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
#[target_feature(enable = "avx512f,avx512bw")]
fn classify(window: &[u8; WINDOW]) -> Classes {
    // SAFETY: the window has at least 64 bytes.
    let bytes = unsafe { _mm512_loadu_si512(window.as_ptr().cast()) };
    let lowered = _mm512_or_si512(bytes, _mm512_set1_epi8(0x20));
    let from_a = _mm512_sub_epi8(lowered, _mm512_set1_epi8(b'a' as i8));
    const { assert!(BLOCK == 64) };
    Classes {
        letters: _mm512_cmplt_epu8_mask(from_a, _mm512_set1_epi8(26)),
        spaces: _mm512_cmple_epu8_mask(bytes, _mm512_set1_epi8(b' ' as i8))
            | _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(0x7f)),
        wide: _mm512_movepi8_mask(bytes),
    }
}

/// See [`Lexical::find`].
///
/// # Safety
/// There are as many slots as ids.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn find(buckets: &[u64], ids: &[u32], slots: &mut [u32]) -> usize {
    let (groups, rest) = ids.as_chunks::<8>();
    let last = buckets.len() - 1;
    let last_bucket = _mm256_set1_epi32(last as i32);
    // Copies the lowest 16 bits of each 64-bit lane to the other three quarters of it.
    let spread = _mm512_set_epi64(
        0x0908_0908_0908_0908,
        0x0100_0100_0100_0100,
        0x0908_0908_0908_0908,
        0x0100_0100_0100_0100,
        0x0908_0908_0908_0908,
        0x0100_0100_0100_0100,
        0x0908_0908_0908_0908,
        0x0100_0100_0100_0100,
    );
    // What a match in each quarter counts: one more than its slot.
    let slot_numbers = _mm512_set1_epi64(0x0004_0003_0002_0001);
    let mut found = 0;
    for group in groups {
        // SAFETY: there are eight ids.
        let ids = unsafe { _mm256_loadu_si256(group.as_ptr().cast()) };
        let at = _mm256_and_si256(ids, last_bucket);
        // Eight loads: a gather takes four times as long on Zen 4.
        let [a, b, c, d, e, f, g, h] = group.map(|id| buckets[id as usize & last] as i64);
        let tags = _mm512_set_epi64(h, g, f, e, d, c, b, a);
        let tag = _mm256_or_si256(_mm256_srli_epi32::<16>(ids), _mm256_set1_epi32(1));
        let tag = _mm512_shuffle_epi8(_mm512_cvtepu32_epi64(tag), spread);
        let matches = _mm512_cmpeq_epi16_mask(tags, tag);
        let slot_numbers = _mm512_maskz_mov_epi16(matches, slot_numbers);
        let number = _mm512_cvtepi64_epi32(_mm512_sad_epu8(slot_numbers, _mm512_setzero_si512()));
        let known = _mm256_test_epi32_mask(number, number);
        let slot = _mm256_add_epi32(_mm256_slli_epi32::<2>(at), number);
        let slot = _mm256_sub_epi32(slot, _mm256_set1_epi32(1));
        // SAFETY: no more slots were found than ids came in the groups before, so that there is room
        // for those of this one, eight.
        unsafe {
            let to = slots.as_mut_ptr().add(found);
            _mm256_storeu_si256(to.cast(), _mm256_maskz_compress_epi32(known, slot));
        }
        found += known.count_ones() as usize;
    }
    found + super::find(buckets, rest, &mut slots[found..])
}

/// See [`Lexical::add_rows`].
///
/// # Safety
/// All rows lie in the table, and there are as many weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn add_rows(table: &[Line], rows: &[u32], weights: &[u8], sums: &mut [[i32; COLUMNS]]) {
    let lines = sums.len();
    for (at, sums) in sums.iter_mut().enumerate() {
        let load = |row: u32| {
            // SAFETY: the row lies in the table and has this line, which is aligned to 64.
            unsafe { _mm512_load_si512(table.as_ptr().add(row as usize * lines + at).cast()) }
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
