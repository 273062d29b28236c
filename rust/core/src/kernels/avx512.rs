//! AVX-512 with VNNI: int8, 64 multiplications an instruction.

#[allow(clippy::wildcard_imports)] // Some forty names, all of them prefixed.
use std::arch::x86_64::*;
use std::array;

use super::direct::{self, Lanes, Plain, Scratch, VECTORS};
use super::packed::{GROUP, LANES, Line, Packed, Precision, Row};
use super::search::{Best, Candidate, Group, Pick, Task};
use super::sparse::{Mixture, Strip, WIDTH};
use super::{Bits, Costs, Isa, Kernels, Rough, RoughScan, Scan, avx2, portable};

// SAFETY (of the whole table): `Kernels::of` hands it out only where `is_available` says that the
// CPU has what the functions called here ask for: AVX-512 as below, and what AVX2's table asks for.
pub static KERNELS: Kernels = Kernels {
    isa: Isa::Avx512,
    precision: Precision::Int8,
    pool_precision: Precision::Int8,
    block: 8 * ROWS,
    quantise: |packed, x, words| unsafe { quantise(packed, x, words) },
    scores: |task, scores, best| unsafe { score(task, scores, best) },
    pick: |pick, out| unsafe { pick_candidates(pick, out) },
    compare: |plain, scratch, lists| unsafe { compare(plain, scratch, lists) },
    squared_distance: |x, c| unsafe { squared_distance(x, c) },
    rough_distance: |x, c| unsafe { rough_distance(x, c) },
    screen: |mixture, strip, out| unsafe { screen(mixture, strip, out) },
    weighted_rows: |phi_idx, phi_val, psi, out| unsafe {
        weighted_rows(phi_idx, phi_val, psi, out);
    },
    objectives: |scan, first, out| unsafe { objectives(scan, first, out) },
    least: |scan, first, llms| unsafe { least(scan, first, llms) },
    equal: |scan, first, llms, objective| unsafe { equal(scan, first, llms, objective) },
    rough_least: |rough, first, llms| unsafe { rough_least(rough, first, llms) },
    // Widening four values at a time is faster than eight at a time.
    quick_distance: avx2::KERNELS.quick_distance,
};

/// Whether this CPU has what the functions of this file are compiled for, and those of AVX2 that
/// they share.
pub fn is_available() -> bool {
    avx2::is_available()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

/// A register, for [`direct`].
#[derive(Clone, Copy)]
struct Sixteen(__m512);

#[allow(clippy::inline_always)] // Else this is not compiled for the caller's registers.
impl Lanes for Sixteen {
    const COUNT: usize = LANES;

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: only functions that the CPU has the instructions of use this type: so below.
        Self(unsafe { _mm512_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's word.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    fn times(self, other: Self, sum: Self) -> Self {
        // SAFETY: see `zero`.
        Self(unsafe { _mm512_fmadd_ps(self.0, other.0, sum.0) })
    }

    #[inline(always)]
    fn totals(registers: [Self; VECTORS]) -> [f32; VECTORS] {
        let mut halved = [avx2::Eight::zero(); VECTORS];
        for (half, whole) in halved.iter_mut().zip(registers) {
            // SAFETY: see `zero`.
            half.0 = unsafe {
                let high = _mm512_extractf32x8_ps::<1>(whole.0);
                _mm256_add_ps(_mm512_castps512_ps256(whole.0), high)
            };
        }
        avx2::Eight::totals(halved)
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn compare(plain: &Plain<'_>, scratch: &mut Scratch, lists: &mut [Vec<Candidate>]) -> bool {
    direct::find::<Sixteen>(plain, scratch, lists)
}

/// Rows of a register tile: with a group's panels, 24 sums, 4 lines and a word of the 32 registers.
const ROWS: usize = 6;

/// Mask of the first `n` lanes, all of them if there are fewer.
#[inline]
fn first_lanes(n: usize) -> __mmask16 {
    if n < LANES { !(!0 << n) } else { !0 }
}

/// Up to 16 values from the start of `x`, zeros after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn load(x: &[f32]) -> __m512 {
    let mask = if x.len() >= LANES {
        !0
    } else {
        !(!0u16 << x.len())
    };
    // SAFETY: the mask covers no more than what `x` holds; what it leaves out is not read.
    unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn load16(x: &[f32; LANES]) -> __m512 {
    // SAFETY: 16 values.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn store16(x: &mut [f32; LANES], values: __m512) {
    // SAFETY: 16 values.
    unsafe { _mm512_storeu_ps(x.as_mut_ptr(), values) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn load_line(line: &Line) -> __m512i {
    // SAFETY: a line is 64 bytes, aligned to 64.
    unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) }
}

/// [`portable::squared_distance`], its eight partial sums in one register.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn squared_distance(x: &[f32], c: &[f32]) -> f64 {
    if let Some(half) = portable::half(x.len()) {
        let ((x, x_rest), (c, c_rest)) = (x.split_at(half), c.split_at(half));
        return squared_distance(x, c) + squared_distance(x_rest, c_rest);
    }
    let (x_chunks, x_rest) = x.as_chunks::<8>();
    let (c_chunks, c_rest) = c.as_chunks::<8>();
    let mut sums = _mm512_setzero_pd();
    for (x, c) in x_chunks.iter().zip(c_chunks) {
        // SAFETY: 8 values each.
        let (x, c) = unsafe { (_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(c.as_ptr())) };
        let difference = _mm512_sub_pd(_mm512_cvtps_pd(x), _mm512_cvtps_pd(c));
        sums = _mm512_add_pd(sums, _mm512_mul_pd(difference, difference));
    }
    let mut r = [0.0; 8];
    // SAFETY: 8 values.
    unsafe { _mm512_storeu_pd(r.as_mut_ptr(), sums) };
    portable::tail(portable::fold(r), x_rest, c_rest)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn rough_distance(x: &[f32], c: &[f32]) -> f32 {
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (c_chunks, c_rest) = c.as_chunks::<LANES>();
    let mut sums = [_mm512_setzero_ps(); 4];
    for (i, (x, c)) in x_chunks.iter().zip(c_chunks).enumerate() {
        let difference = _mm512_sub_ps(load16(x), load16(c));
        sums[i % 4] = _mm512_fmadd_ps(difference, difference, sums[i % 4]);
    }
    let difference = _mm512_sub_ps(load(x_rest), load(c_rest));
    sums[0] = _mm512_fmadd_ps(difference, difference, sums[0]);
    let pairs = (
        _mm512_add_ps(sums[0], sums[1]),
        _mm512_add_ps(sums[2], sums[3]),
    );
    _mm512_reduce_add_ps(_mm512_add_ps(pairs.0, pairs.1))
}

/// Values that become one register of bytes.
const WIDE: usize = 4 * LANES;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn quantise(packed: &Packed, x: &[f32], words: &mut [i32]) -> Option<Row> {
    let (full, rest) = x.as_chunks::<WIDE>();
    let (centres, last_centre) = packed.centre.as_chunks::<WIDE>().0.split_at(full.len());
    let (words, last_words) = words.as_chunks_mut::<LANES>().0.split_at_mut(full.len());
    let last = last_centre.first().map(|centre| (load64(rest), centre));
    let scale = _mm512_set1_ps(packed.shift_scale);

    let mut greatest = _mm512_setzero_si512();
    for (x, centre) in full.iter().zip(centres) {
        greatest = greatest_magnitude(greatest, &shifted(&load64(x), scale, centre));
    }
    if let Some((x, centre)) = last {
        greatest = greatest_magnitude(greatest, &shifted(&x, scale, centre));
    }
    let greatest = f32::from_bits(_mm512_reduce_max_epi32(greatest) as u32);
    let (unit, inverse) = packed.unit(greatest)?;

    let mut quantise = Quantise::new(unit, inverse);
    for ((x, centre), words) in full.iter().zip(centres).zip(words) {
        quantise.put(&shifted(&load64(x), scale, centre), words);
    }
    if let Some(((x, centre), words)) = last.zip(last_words.first_mut()) {
        quantise.put(&shifted(&x, scale, centre), words);
    }
    let sum = _mm512_reduce_add_epi32(quantise.sum);
    let squares = _mm512_reduce_add_epi32(quantise.squares) as f32;
    let residuals = _mm512_reduce_add_ps(quantise.residuals);
    Some(Row::new(packed, unit, sum, squares, residuals))
}

/// Up to 64 values from the start of `x`, zeros after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn load64(x: &[f32]) -> [__m512; 4] {
    array::from_fn(|i| load(x.get(i * LANES..).unwrap_or_default()))
}

/// `S x - S mu`, with one rounding.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn shifted(x: &[__m512; 4], scale: __m512, centre: &[f32; WIDE]) -> [__m512; 4] {
    let centre = centre.as_chunks::<LANES>().0;
    array::from_fn(|i| _mm512_fmsub_ps(x[i], scale, load16(&centre[i])))
}

/// The greatest so far, as bits of magnitudes, so that NaN counts as greater than infinity.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn greatest_magnitude(mut greatest: __m512i, y: &[__m512; 4]) -> __m512i {
    for y in y {
        let bits = _mm512_and_si512(_mm512_castps_si512(*y), _mm512_set1_epi32(i32::MAX));
        greatest = _mm512_max_epi32(greatest, bits);
    }
    greatest
}

/// A row as it becomes integers.
struct Quantise {
    unit: __m512,
    inverse: __m512,
    /// Sums of the integers and of their squares.
    sum: __m512i,
    squares: __m512i,
    /// Sums of the squares of what is lost.
    residuals: __m512,
}

impl Quantise {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn new(unit: f32, inverse: f32) -> Self {
        Self {
            unit: _mm512_set1_ps(unit),
            inverse: _mm512_set1_ps(inverse),
            sum: _mm512_setzero_si512(),
            squares: _mm512_setzero_si512(),
            residuals: _mm512_setzero_ps(),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn put(&mut self, y: &[__m512; 4], words: &mut [i32; LANES]) {
        let mut q = [_mm512_setzero_si512(); 4];
        for i in 0..4 {
            q[i] = _mm512_cvtps_epi32(_mm512_mul_ps(y[i], self.inverse));
            let residual = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(q[i]), self.unit, y[i]);
            self.residuals = _mm512_fmadd_ps(residual, residual, self.residuals);
        }
        // Packing works within quarters of the registers, four values of each at a time.
        let in_quarters = _mm512_packs_epi16(
            _mm512_packs_epi32(q[0], q[1]),
            _mm512_packs_epi32(q[2], q[3]),
        );
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let bytes = _mm512_permutexvar_epi32(order, in_quarters);
        let magnitudes = _mm512_abs_epi8(bytes);
        self.sum = _mm512_dpbusd_epi32(self.sum, _mm512_set1_epi8(1), bytes);
        self.squares = _mm512_dpbusd_epi32(self.squares, magnitudes, magnitudes);
        // SAFETY: 64 bytes.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), bytes) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub fn score(task: &Task<'_>, scores: &mut [f32], best: &mut [Best]) {
    for panel in (0..task.panels).step_by(GROUP) {
        match task.panels - panel {
            1 => group::<1>(task, panel, scores, best),
            2 => group::<2>(task, panel, scores, best),
            3 => group::<3>(task, panel, scores, best),
            _ => group::<GROUP>(task, panel, scores, best),
        }
    }
}

/// All rows against one group, of `P` panels.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn group<const P: usize>(task: &Task<'_>, panel: usize, scores: &mut [f32], best: &mut [Best]) {
    for row in (0..task.rows.len()).step_by(ROWS) {
        match task.rows.len() - row {
            1 => tile::<1, P>(task, row, panel, scores, best),
            2 => tile::<2, P>(task, row, panel, scores, best),
            3 => tile::<3, P>(task, row, panel, scores, best),
            4 => tile::<4, P>(task, row, panel, scores, best),
            5 => tile::<5, P>(task, row, panel, scores, best),
            _ => tile::<ROWS, P>(task, row, panel, scores, best),
        }
    }
}

/// Lines of the rows ahead that are fetched in each step, while there are any: a tile's rows of
/// float32 are 1.5 lines for each of its steps.
const LINES_A_STEP: usize = 2;

/// `R` rows against `P` panels: all sums stay in registers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const R: usize, const P: usize>(
    task: &Task<'_>,
    row: usize,
    panel: usize,
    scores: &mut [f32],
    best: &mut [Best],
) {
    let steps = task.packed.steps;
    let lines: [*const Line; P] = array::from_fn(|p| task.panel(panel + p).as_ptr());
    let words: [*const i32; R] = array::from_fn(|r| task.row_words(row + r).as_ptr());
    let mut sums: [[__m512i; P]; R] =
        array::from_fn(|r| [_mm512_set1_epi32(task.rows[row + r].start); P]);
    let mut ahead = task.ahead_of(row, R, panel).chunks(LANES);
    for step in 0..steps {
        for line in ahead.by_ref().take(LINES_A_STEP) {
            avx2::fetch(line);
        }
        // SAFETY: what `panel` and `row_words` gave is `steps` long. (Indexing would check each of
        // them each time.)
        let line: [__m512i; P] = array::from_fn(|p| load_line(unsafe { &*lines[p].add(step) }));
        for r in 0..R {
            // SAFETY: as above.
            let word = _mm512_set1_epi32(unsafe { *words[r].add(step) });
            for p in 0..P {
                sums[r][p] = _mm512_dpbusd_epi32(sums[r][p], line[p], word);
            }
        }
    }
    let group = Group::<P>::of(task, panel);
    for (r, sums) in sums.iter().enumerate() {
        let at = row + r;
        let scores = task.scores_at::<P>(scores, at, panel);
        finish(&group, &task.rows[at], sums, scores, &mut best[at]);
    }
}

/// From int32 sums to scores, and to the greatest lower bounds.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub fn finish<const P: usize>(
    group: &Group<'_, P>,
    row: &Row,
    sums: &[__m512i; P],
    scores: &mut [[f32; LANES]; P],
    best: &mut Best,
) {
    let scale = _mm512_set1_ps(row.scale);
    let bias_weight = _mm512_set1_ps(row.bias_weight);
    let price_weight = _mm512_set1_ps(row.price_weight);
    let mut greatest = _mm512_set1_ps(f32::MIN);
    for p in 0..P {
        let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[p]), load16(&group.scales[p]));
        let mut bias = load16(&group.biases[p]);
        if let Some(prices) = group.prices {
            let price = _mm512_mul_ps(load16(&prices[p]), price_weight);
            bias = _mm512_fmadd_ps(bias, bias_weight, price);
        }
        let score = _mm512_fmadd_ps(product, scale, bias);
        store16(&mut scores[p], score);
        greatest = _mm512_max_ps(greatest, score);
    }
    let bound = row.bound(group.bound);
    let lower = _mm512_sub_ps(greatest, _mm512_set1_ps(bound));
    let so_far = load16(&best.lower);
    store16(&mut best.lower, _mm512_max_ps(so_far, lower));
    let least = _mm512_set1_ps(best.certain - bound);
    if _mm512_cmp_ps_mask::<_CMP_GE_OQ>(greatest, least) != 0 {
        best.promising |= group.bit;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn pick_candidates(pick: &Pick<'_>, out: &mut Vec<Candidate>) {
    for (first, scores, bound) in pick.groups() {
        let least = _mm512_set1_ps(pick.lower - bound);
        let mut passing = 0u64;
        for (p, scores) in scores.as_chunks::<LANES>().0.iter().enumerate() {
            let passes = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(load16(scores), least);
            passing |= u64::from(passes) << (p * LANES);
        }
        while passing != 0 {
            let lane = passing.trailing_zeros() as usize;
            out.push((pick.first + (first + lane) as u32, scores[lane] + bound));
            passing &= passing - 1;
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn screen(mixture: &Mixture<'_>, strip: &Strip<'_>, out: &mut [f32; WIDTH]) -> f32 {
    let price_weight = _mm512_set1_ps(mixture.price_weight);
    let prices = strip.prices.as_chunks::<LANES>().0;
    let mut sums: [__m512; WIDTH / LANES] =
        array::from_fn(|i| _mm512_mul_ps(price_weight, load16(&prices[i])));
    for (&k, &phi) in mixture.clusters.iter().zip(mixture.weights) {
        let losses = strip.losses[k as usize].as_chunks::<LANES>().0;
        let phi = _mm512_set1_ps(phi);
        for (sum, losses) in sums.iter_mut().zip(losses) {
            *sum = _mm512_fmadd_ps(phi, load16(losses), *sum);
        }
    }
    let mut least = sums[0];
    for (out, sum) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
        store16(out, sum);
        least = _mm512_min_ps(least, sum);
    }
    _mm512_reduce_min_ps(least)
}

/// Columns summed in registers at a time: enough sums to hide the latency of an addition.
const STRIP: usize = 8 * LANES;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn weighted_rows(phi_idx: &[u32], phi_val: &[f32], psi: &[f32], out: &mut [f32]) {
    let m = out.len();
    for (s, out) in out.chunks_mut(STRIP).enumerate() {
        // Masks of the columns that exist, none in registers past the last.
        let masks: [__mmask16; 8] =
            array::from_fn(|i| first_lanes(out.len().saturating_sub(i * LANES)));
        let mut sums = [_mm512_setzero_ps(); 8];
        for (&k, &phi) in phi_idx.iter().zip(phi_val) {
            let row = &psi[k as usize * m + s * STRIP..][..out.len()];
            let phi = _mm512_set1_ps(phi);
            for i in 0..8 {
                // SAFETY: the mask covers no column past the end of the row.
                let psi = unsafe {
                    _mm512_maskz_loadu_ps(masks[i], row.as_ptr().wrapping_add(i * LANES))
                };
                sums[i] = _mm512_add_ps(sums[i], _mm512_mul_ps(phi, psi));
            }
        }
        for i in 0..8 {
            // SAFETY: as above.
            unsafe {
                let to = out.as_mut_ptr().wrapping_add(i * LANES);
                _mm512_mask_storeu_ps(to, masks[i], sums[i]);
            }
        }
    }
}

/// Objectives of eight LLMs from `first`.
///
/// # Safety
/// All of them exist.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn eight(scan: &Scan<'_>, first: usize) -> __m512d {
    let (gamma, costs, cost_weight) = scan.parts();
    // SAFETY: the caller's word, and all arrays of a scan have one value per LLM.
    let single =
        |values: &[f32]| unsafe { _mm512_cvtps_pd(_mm256_loadu_ps(values.as_ptr().add(first))) };
    // SAFETY: as above.
    let double = |values: &[f64]| unsafe { _mm512_loadu_pd(values.as_ptr().add(first)) };
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
            let input = _mm512_mul_pd(double(in_prices), _mm512_set1_pd(tokens_in));
            let output = _mm512_mul_pd(double(out_prices), single(tokens_out));
            _mm512_add_pd(_mm512_add_pd(input, output), double(base))
        }
    };
    let weighted = _mm512_mul_pd(_mm512_set1_pd(cost_weight), cost);
    _mm512_add_pd(single(gamma), weighted)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn least(scan: &Scan<'_>, first: usize, llms: usize) -> f64 {
    scan.check(first, llms);
    let mut least = _mm512_set1_pd(f64::INFINITY);
    let after = first + llms / 8 * 8;
    for first in (first..after).step_by(64) {
        let taking_part = scan.word(first).to_le_bytes();
        for (first, taking_part) in (first..after).step_by(8).zip(taking_part) {
            // SAFETY: the check above.
            let objectives = unsafe { eight(scan, first) };
            // Where an objective is NaN, the second operand is what comes out.
            least = _mm512_mask_min_pd(least, taking_part, objectives, least);
        }
    }
    _mm512_reduce_min_pd(least).min(portable::least(scan, after, llms % 8))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn equal(scan: &Scan<'_>, first: usize, llms: usize, objective: f64) -> Bits {
    scan.check(first, llms);
    let objective_of_all = _mm512_set1_pd(objective);
    let mut equal = Bits::default();
    let after = llms / 8 * 8;
    for i in (0..after).step_by(8) {
        let taking_part = scan.word(first + i) as u8;
        // SAFETY: the check above.
        let objectives = unsafe { eight(scan, first + i) };
        let hits = _mm512_mask_cmp_pd_mask::<_CMP_EQ_OQ>(taking_part, objectives, objective_of_all);
        equal[i / 64] |= u64::from(hits) << (i % 64);
    }
    portable::equal_from(scan, first, after..llms, objective, &mut equal);
    equal
}

/// Rough objectives of sixteen LLMs from `first`.
///
/// # Safety
/// All of them exist.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn rough_sixteen(rough: &RoughScan<'_>, first: usize) -> __m512 {
    let (gamma, prices, tokens_out) = rough.arrays();
    let (tokens_in, cost_weight) = rough.factors();
    // SAFETY: the caller's word, and all arrays of a rough scan have one value per LLM.
    let load = |values: &[f32]| unsafe { _mm512_loadu_ps(values.as_ptr().add(first)) };
    let Rough {
        base,
        in_prices,
        out_prices,
    } = prices;
    let output = _mm512_fmadd_ps(load(out_prices), load(tokens_out), load(base));
    let cost = _mm512_fmadd_ps(load(in_prices), _mm512_set1_ps(tokens_in), output);
    let cost = _mm512_min_ps(cost, _mm512_set1_ps(f32::MAX));
    _mm512_fmadd_ps(cost, _mm512_set1_ps(cost_weight), load(gamma))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn rough_least(rough: &RoughScan<'_>, first: usize, llms: usize) -> f32 {
    let scan = rough.scan();
    scan.check(first, llms);
    let mut least = _mm512_set1_ps(f32::INFINITY);
    let after = first + llms / 16 * 16;
    for first in (first..after).step_by(64) {
        let taking_part = scan.word(first);
        for (i, first) in (first..after).step_by(16).take(4).enumerate() {
            // SAFETY: the check above.
            let objectives = unsafe { rough_sixteen(rough, first) };
            let taking_part = (taking_part >> (16 * i)) as u16;
            // Where a rough objective is NaN, the second operand is what comes out.
            least = _mm512_mask_min_ps(least, taking_part, objectives, least);
        }
    }
    _mm512_reduce_min_ps(least).min(portable::rough_least(rough, after, llms % 16))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn objectives(scan: &Scan<'_>, first: usize, out: &mut [f64]) {
    scan.check(first, out.len());
    let (eights, rest) = out.as_chunks_mut::<8>();
    let after = first + 8 * eights.len();
    for (i, out) in eights.iter_mut().enumerate() {
        let first = first + 8 * i;
        let nan = _mm512_set1_pd(f64::NAN);
        // SAFETY: the check above.
        let objectives = unsafe { eight(scan, first) };
        let objectives = _mm512_mask_mov_pd(nan, scan.word(first) as u8, objectives);
        // SAFETY: 8 values.
        unsafe { _mm512_storeu_pd(out.as_mut_ptr(), objectives) };
    }
    portable::objectives(scan, after, rest);
}
