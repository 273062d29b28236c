//! Objectives of LLMs: 4 in float64, 8 in float32.

#[allow(clippy::wildcard_imports)] // Some twenty names, all of them prefixed.
use std::arch::x86_64::*;

use super::super::{Bits, Costs, Rough, RoughScan, Scan, portable};

/// Objectives of four LLMs from `first`.
///
/// # Safety
/// All of them exist.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn four(scan: &Scan<'_>, first: usize) -> __m256d {
    let (gamma, costs, cost_weight) = scan.parts();
    // SAFETY: the caller's word, and all arrays of a scan have one value per LLM.
    let single =
        |values: &[f32]| unsafe { _mm256_cvtps_pd(_mm_loadu_ps(values.as_ptr().add(first))) };
    // SAFETY: as above.
    let double = |values: &[f64]| unsafe { _mm256_loadu_pd(values.as_ptr().add(first)) };
    let cost = match costs {
        Costs::Given(costs) => double(costs),
        Costs::Metered {
            base,
            in_prices,
            out_prices,
            tokens_in,
            tokens_out,
            ..
        } => {
            let input = _mm256_mul_pd(double(in_prices), _mm256_set1_pd(tokens_in));
            let output = _mm256_mul_pd(double(out_prices), single(tokens_out));
            _mm256_add_pd(_mm256_add_pd(input, output), double(base))
        }
    };
    let weighted = _mm256_mul_pd(_mm256_set1_pd(cost_weight), cost);
    _mm256_add_pd(single(gamma), weighted)
}

/// Which of four LLMs from `first` take part: all bits of a lane, or none.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn taking_part(scan: &Scan<'_>, first: usize) -> __m256d {
    let bits = scan.word(first) as i64;
    let lane = _mm256_setr_epi64x(1, 2, 4, 8);
    let set = _mm256_and_si256(_mm256_set1_epi64x(bits), lane);
    _mm256_castsi256_pd(_mm256_cmpeq_epi64(set, lane))
}

#[target_feature(enable = "avx2,fma")]
pub fn least(scan: &Scan<'_>, first: usize, llms: usize) -> f64 {
    scan.check(first, llms);
    let mut least = _mm256_set1_pd(f64::INFINITY);
    let after = first + llms / 4 * 4;
    for first in (first..after).step_by(4) {
        // SAFETY: the check above.
        let objectives = unsafe { taking_part_or_nan(scan, first) };
        // Where an objective is NaN, the second operand is what comes out.
        least = _mm256_min_pd(objectives, least);
    }
    let mut lanes = [0.0; 4];
    // SAFETY: 4 values.
    unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), least) };
    let least = lanes.into_iter().fold(f64::INFINITY, f64::min);
    least.min(portable::least(scan, after, llms % 4))
}

#[target_feature(enable = "avx2,fma")]
pub fn equal(scan: &Scan<'_>, first: usize, llms: usize, objective: f64) -> Bits {
    scan.check(first, llms);
    let mut equal = Bits::default();
    let after = llms / 4 * 4;
    for i in (0..after).step_by(4) {
        // SAFETY: the check above.
        let objectives = unsafe { taking_part_or_nan(scan, first + i) };
        let hits = _mm256_cmp_pd::<_CMP_EQ_OQ>(objectives, _mm256_set1_pd(objective));
        equal[i / 64] |= (_mm256_movemask_pd(hits) as u64) << (i % 64);
    }
    portable::equal_from(scan, first, after..llms, objective, &mut equal);
    equal
}

/// Rough objectives of eight LLMs from `first`.
///
/// # Safety
/// All of them exist.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn rough_eight(rough: &RoughScan<'_>, first: usize) -> __m256 {
    let (gamma, prices, tokens_out) = rough.arrays();
    let (tokens_in, cost_weight) = rough.factors();
    // SAFETY: the caller's word, and all arrays of a rough scan have one value per LLM.
    let load = |values: &[f32]| unsafe { _mm256_loadu_ps(values.as_ptr().add(first)) };
    let Rough {
        base,
        in_prices,
        out_prices,
    } = prices;
    let output = _mm256_fmadd_ps(load(out_prices), load(tokens_out), load(base));
    let cost = _mm256_fmadd_ps(load(in_prices), _mm256_set1_ps(tokens_in), output);
    let cost = _mm256_min_ps(cost, _mm256_set1_ps(f32::MAX));
    _mm256_fmadd_ps(cost, _mm256_set1_ps(cost_weight), load(gamma))
}

#[target_feature(enable = "avx2,fma")]
pub fn rough_least(rough: &RoughScan<'_>, first: usize, llms: usize) -> f32 {
    let scan = rough.scan();
    scan.check(first, llms);
    let mut least = _mm256_set1_ps(f32::INFINITY);
    let after = first + llms / 8 * 8;
    let lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    for first in (first..after).step_by(8) {
        let set = _mm256_and_si256(_mm256_set1_epi32(scan.word(first) as i32), lane);
        let taking_part = _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lane));
        // SAFETY: the check above.
        let objectives = unsafe { rough_eight(rough, first) };
        let nan = _mm256_set1_ps(f32::NAN);
        // Where the first operand is NaN, the second is what comes out.
        least = _mm256_min_ps(_mm256_blendv_ps(nan, objectives, taking_part), least);
    }
    let mut lanes = [0.0; 8];
    // SAFETY: 8 values.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), least) };
    let least = lanes.into_iter().fold(f32::INFINITY, f32::min);
    least.min(portable::rough_least(rough, after, llms % 8))
}

/// Objectives of four LLMs from `first`; NaN for those that do not take part.
///
/// # Safety
/// All of them exist.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn taking_part_or_nan(scan: &Scan<'_>, first: usize) -> __m256d {
    let nan = _mm256_set1_pd(f64::NAN);
    // SAFETY: the caller's word.
    let objectives = unsafe { four(scan, first) };
    _mm256_blendv_pd(nan, objectives, taking_part(scan, first))
}

#[target_feature(enable = "avx2,fma")]
pub fn objectives(scan: &Scan<'_>, first: usize, out: &mut [f64]) {
    scan.check(first, out.len());
    let (fours, rest) = out.as_chunks_mut::<4>();
    let after = first + 4 * fours.len();
    for (i, out) in fours.iter_mut().enumerate() {
        let first = first + 4 * i;
        // SAFETY: the check above, and 4 values.
        unsafe { _mm256_storeu_pd(out.as_mut_ptr(), taking_part_or_nan(scan, first)) };
    }
    portable::objectives(scan, after, rest);
}
