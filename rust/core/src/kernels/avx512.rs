//! AVX-512 with VNNI: int8 products, 64 multiplications an instruction.

use std::arch::x86_64::*;

use super::packed::{GROUP, LANES, Lanes, Line, Packed, Precision, ROW_FLOOR, ROW_LIMIT, Row};
use super::portable;
use super::search::{Candidate, Pick, Task};
use super::{Isa, Kernels};

/// Rows of a register tile: with [`GROUP`] panels, 24 sums, 4 lines and a word fill the registers.
const ROWS: usize = 6;

pub static KERNELS: Kernels = Kernels {
    isa: Isa::Avx512,
    precision: Precision::Int8,
    squared_distance: |x, c| portable::pairwise(x, c, |x, c| safe(|| unsafe { run(x, c) })),
    quantise: |packed, x, words| unsafe { quantise(packed, x, words) },
    scores: |task, scores, lower| unsafe { scores_of(task, scores, lower) },
    pick: |pick, out| unsafe { pick_candidates(pick, out) },
    weighted_rows: portable::weighted_rows,
    argmin_cost: portable::argmin_cost,
};
fn safe<T>(f: impl FnOnce() -> T) -> T {
    f()
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn run(x: &[f32], c: &[f32]) -> f64 {
    let (x_chunks, x_rest) = x.as_chunks::<8>();
    let (c_chunks, c_rest) = c.as_chunks::<8>();
    let mut sums = _mm512_setzero_pd();
    for (x, c) in x_chunks.iter().zip(c_chunks) {
        let (x, c) = unsafe { (_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(c.as_ptr())) };
        let difference = _mm512_sub_pd(_mm512_cvtps_pd(x), _mm512_cvtps_pd(c));
        sums = _mm512_add_pd(sums, _mm512_mul_pd(difference, difference));
    }
    let mut r = [0.0f64; 8];
    unsafe { _mm512_storeu_pd(r.as_mut_ptr(), sums) };
    let sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    portable::tail(sum, x_rest, c_rest)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn quantise(packed: &Packed, x: &[f32], words: &mut [i32]) -> Option<Row> {
    let scale = _mm512_set1_ps(packed.shift_scale);
    let shifted = |at: usize| {
        let left = x.len() - at;
        let mask = if left >= LANES { !0 } else { !(!0u16 << left) };
        let (x, centre) = unsafe {
            (
                _mm512_maskz_loadu_ps(mask, x.as_ptr().add(at)),
                _mm512_loadu_ps(packed.centre.as_ptr().add(at)),
            )
        };
        _mm512_fmsub_ps(x, scale, centre)
    };
    // Bits of magnitudes, so that NaN counts as the greatest.
    let magnitude = _mm512_set1_epi32(0x7fff_ffff);
    let mut greatest = _mm512_setzero_si512();
    let mut squares = _mm512_setzero_ps();
    for at in (0..x.len()).step_by(LANES) {
        let y = shifted(at);
        greatest = _mm512_max_epi32(
            greatest,
            _mm512_and_si512(_mm512_castps_si512(y), magnitude),
        );
        squares = _mm512_fmadd_ps(y, y, squares);
    }
    let greatest = f32::from_bits(_mm512_reduce_max_epi32(greatest) as u32);
    if !(greatest <= ROW_LIMIT) {
        return None;
    }
    let (unit, inverse) = if greatest < ROW_FLOOR {
        (0.0, 0.0)
    } else {
        (greatest / packed.limit, packed.limit / greatest)
    };
    let (unit_v, inverse_v) = (_mm512_set1_ps(unit), _mm512_set1_ps(inverse));
    let mut residuals = _mm512_setzero_ps();
    let mut sum = _mm512_setzero_si512();
    let bytes = words.as_mut_ptr().cast::<i8>();
    for at in (0..x.len()).step_by(LANES) {
        let y = shifted(at);
        let q = _mm512_cvtps_epi32(_mm512_mul_ps(y, inverse_v));
        let residual = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(q), unit_v, y);
        residuals = _mm512_fmadd_ps(residual, residual, residuals);
        sum = _mm512_add_epi32(sum, q);
        unsafe { _mm_storeu_si128(bytes.add(at).cast(), _mm512_cvtepi32_epi8(q)) };
    }
    Some(Row::new(
        packed,
        unit,
        _mm512_reduce_add_epi32(sum),
        _mm512_reduce_add_ps(squares),
        _mm512_reduce_add_ps(residuals),
    ))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn scores_of(task: &Task<'_>, scores: &mut [f32], lower: &mut [Lanes]) {
    for panel in (0..task.panels).step_by(GROUP) {
        match task.panels - panel {
            1 => rows::<1>(task, panel, scores, lower),
            2 => rows::<2>(task, panel, scores, lower),
            3 => rows::<3>(task, panel, scores, lower),
            _ => rows::<4>(task, panel, scores, lower),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn rows<const P: usize>(task: &Task<'_>, panel: usize, scores: &mut [f32], lower: &mut [Lanes]) {
    for row in (0..task.rows.len()).step_by(ROWS) {
        match task.rows.len() - row {
            1 => tile::<1, P>(task, row, panel, scores, lower),
            2 => tile::<2, P>(task, row, panel, scores, lower),
            3 => tile::<3, P>(task, row, panel, scores, lower),
            4 => tile::<4, P>(task, row, panel, scores, lower),
            5 => tile::<5, P>(task, row, panel, scores, lower),
            _ => tile::<6, P>(task, row, panel, scores, lower),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const R: usize, const P: usize>(
    task: &Task<'_>,
    row: usize,
    panel: usize,
    scores: &mut [f32],
    lower: &mut [Lanes],
) {
    let packed = task.packed;
    let steps = packed.steps;
    let first = task.first + panel;
    let lines: &[Line] = &packed.lines[first * steps..][..P * steps];
    let words = &task.words[row * packed.row_stride..][..(R - 1) * packed.row_stride + steps];
    let rows: &[Row; R] = task.rows[row..][..R].try_into().expect("R rows");
    let mut sums: [[__m512i; P]; R] = rows.map(|row| [_mm512_set1_epi32(row.start); P]);
    for step in 0..steps {
        let line: [__m512i; P] = std::array::from_fn(|p| unsafe {
            _mm512_load_si512(lines.as_ptr().add(p * steps + step).cast())
        });
        for r in 0..R {
            let word = unsafe { *words.as_ptr().add(r * packed.row_stride + step) };
            let word = _mm512_set1_epi32(word);
            for p in 0..P {
                sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], line[p], word);
            }
        }
    }
    let width = task.panels * LANES;
    let group = &packed.bounds[first / GROUP];
    let at = first * LANES;
    let scales = &packed.scales[at..][..P * LANES];
    let biases = &packed.biases[at..][..P * LANES];
    for r in 0..R {
        let scale = _mm512_set1_ps(rows[r].scale);
        let out = &mut scores[(row + r) * width + panel * LANES..][..P * LANES];
        let mut greatest = _mm512_set1_ps(f32::MIN);
        for p in 0..P {
            unsafe {
                let product = _mm512_mul_ps(
                    _mm512_cvtepi32_ps(sums[r][p]),
                    _mm512_loadu_ps(scales.as_ptr().add(p * LANES)),
                );
                let score = _mm512_fmadd_ps(
                    product,
                    scale,
                    _mm512_loadu_ps(biases.as_ptr().add(p * LANES)),
                );
                _mm512_storeu_ps(out.as_mut_ptr().add(p * LANES), score);
                greatest = _mm512_max_ps(greatest, score);
            }
        }
        let lower = &mut lower[row + r];
        let bound = _mm512_set1_ps(rows[r].bound(group));
        unsafe {
            let so_far = _mm512_load_ps(lower.0.as_ptr());
            let so_far = _mm512_max_ps(so_far, _mm512_sub_ps(greatest, bound));
            _mm512_store_ps(lower.0.as_mut_ptr(), so_far);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn pick_candidates(pick: &Pick<'_>, out: &mut Vec<Candidate>) {
    for (g, scores) in pick.scores.chunks(GROUP * LANES).enumerate() {
        let bound = pick.row.bound(&pick.bounds[g]);
        let least = _mm512_set1_ps(pick.lower - bound);
        let mut mask = 0u64;
        for (p, scores) in scores.chunks_exact(LANES).enumerate() {
            let scores = unsafe { _mm512_loadu_ps(scores.as_ptr()) };
            let passes = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(scores, least);
            mask |= u64::from(passes) << (p * LANES);
        }
        while mask != 0 {
            let lane = mask.trailing_zeros();
            let index = pick.first + (g * GROUP * LANES) as u32 + lane;
            out.push((index, scores[lane as usize] + bound));
            mask &= mask - 1;
        }
    }
}
