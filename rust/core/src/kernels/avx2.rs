//! AVX2 and FMA: 7 bits, 32 multiplications an instruction; int16, 16 of them, for pools.
//!
//! The product of bytes adds two neighbours in int16, where whole bytes would saturate. Those of 7
//! bits leave room for two such sums, so that 64 multiplications take five instructions; products of
//! int16 take eight. (`bench/kernels.py`: assignment is 1.3 to 1.7 times as fast, on Zen 3. In pools
//! 7 bits leave a hundred candidates where int16 leaves two, and are slower.)

mod scan;

#[allow(clippy::wildcard_imports)] // Some thirty names, all of them prefixed.
use std::arch::x86_64::*;
use std::array;

use super::direct::{self, Lanes, Plain, Scratch, VECTORS};
use super::packed::{GROUP, LANES, Line, Packed, Precision, Row};
use super::search::{Best, Candidate, Group, Pick, Task};
use super::sparse::{Mixture, Strip, WIDTH};
use super::{Isa, Kernels, portable};
use scan::{equal, least, objectives, rough_least};

// SAFETY (of the whole table): `Kernels::of` hands it out only where `is_available` says that the
// CPU has AVX2 and FMA, which is all that the functions called here ask for. (So does the AVX-512
// table, which has one of them.)
pub static KERNELS: Kernels = Kernels {
    isa: Isa::Avx2,
    precision: Precision::Int7,
    pool_precision: Precision::Int16,
    // A multiple of both tiles' rows.
    block: 12 * ROWS,
    quantise: |packed, x, words| unsafe { quantise(packed, x, words) },
    scores: |task, scores, best| unsafe { score(task, scores, best) },
    pick: |pick, out| unsafe { pick_candidates(pick, out) },
    compare: |plain, scratch, lists| unsafe { compare(plain, scratch, lists) },
    squared_distance: |x, c| unsafe { squared_distance(x, c) },
    quick_distance: |x, c| unsafe { quick_distance(x, c) },
    rough_distance: |x, c| unsafe { rough_distance(x, c) },
    screen: |mixture, strip, out| unsafe { screen(mixture, strip, out) },
    weighted_rows: |phi_idx, phi_val, psi, out| unsafe {
        weighted_rows(phi_idx, phi_val, psi, out);
    },
    objectives: |scan, first, out| unsafe { objectives(scan, first, out) },
    least: |scan, first, llms| unsafe { least(scan, first, llms) },
    equal: |scan, first, llms, objective| unsafe { equal(scan, first, llms, objective) },
    rough_least: |rough, first, llms| unsafe { rough_least(rough, first, llms) },
};

/// Whether this CPU has what the functions of this file are compiled for.
pub fn is_available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// A register, for [`direct`].
#[derive(Clone, Copy)]
pub struct Eight(pub __m256);

#[allow(clippy::inline_always)] // Else this is not compiled for the caller's registers.
impl Lanes for Eight {
    const COUNT: usize = HALF;

    #[inline(always)]
    fn zero() -> Self {
        // SAFETY: only functions that the CPU has the instructions of use this type: so below.
        Self(unsafe { _mm256_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's word.
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    fn times(self, other: Self, sum: Self) -> Self {
        // SAFETY: see `zero`.
        Self(unsafe { _mm256_fmadd_ps(self.0, other.0, sum.0) })
    }

    #[inline(always)]
    fn totals([a, b, c, d]: [Self; VECTORS]) -> [f32; VECTORS] {
        let mut out = [0.0; VECTORS];
        // SAFETY: see `zero`; 4 values.
        unsafe {
            let pairs = (_mm256_hadd_ps(a.0, b.0), _mm256_hadd_ps(c.0, d.0));
            let halves = _mm256_hadd_ps(pairs.0, pairs.1);
            let (low, high) = (
                _mm256_castps256_ps128(halves),
                _mm256_extractf128_ps::<1>(halves),
            );
            _mm_storeu_ps(out.as_mut_ptr(), _mm_add_ps(low, high));
        }
        out
    }
}

#[target_feature(enable = "avx2,fma")]
fn compare(plain: &Plain<'_>, scratch: &mut Scratch, lists: &mut [Vec<Candidate>]) -> bool {
    direct::find::<Eight>(plain, scratch, lists)
}

/// Values in a register; a panel's line fills two.
const HALF: usize = LANES / 2;

/// Rows of a register tile of bytes: with one panel, 8 sums, 4 halves of lines, 2 words, a product and
/// ones fill the 16 registers.
const ROWS: usize = 4;

/// Rows of a register tile of int16: 12 sums, 2 halves of a line, a word and a product do.
const INT16_ROWS: usize = 6;

/// Bytes of rows that stay in L1 beside a panel, of up to some thousand dimensions, while they meet
/// a group of these.
const L1_ROWS: usize = 18 << 10;

/// Values that become one register of bytes.
const CHUNK: usize = 4 * HALF;

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load8(x: &[f32; HALF]) -> __m256 {
    // SAFETY: 8 values.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store8(x: &mut [f32; HALF], values: __m256) {
    // SAFETY: 8 values.
    unsafe { _mm256_storeu_ps(x.as_mut_ptr(), values) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_line(line: &Line) -> [__m256i; 2] {
    let halves = std::ptr::from_ref(line).cast::<__m256i>();
    // SAFETY: a line is 64 bytes, aligned to 64.
    unsafe { [_mm256_load_si256(halves), _mm256_load_si256(halves.add(1))] }
}

/// A panel's worth of lanes as two registers' worth.
#[inline]
fn halves(lanes: &[f32; LANES]) -> &[[f32; HALF]] {
    lanes.as_chunks().0
}

#[inline]
fn halves_mut(lanes: &mut [f32; LANES]) -> &mut [[f32; HALF]] {
    lanes.as_chunks_mut().0
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn to_array(values: __m256) -> [f32; HALF] {
    let mut out = [0.0; HALF];
    store8(&mut out, values);
    out
}

/// [`portable::squared_distance`], its eight partial sums in two registers.
#[target_feature(enable = "avx2,fma")]
fn squared_distance(x: &[f32], c: &[f32]) -> f64 {
    if let Some(half) = portable::half(x.len()) {
        let ((x, x_rest), (c, c_rest)) = (x.split_at(half), c.split_at(half));
        return squared_distance(x, c) + squared_distance(x_rest, c_rest);
    }
    let (x_chunks, x_rest) = x.as_chunks::<8>();
    let (c_chunks, c_rest) = c.as_chunks::<8>();
    let mut sums = [_mm256_setzero_pd(); 2];
    for (x, c) in x_chunks.iter().zip(c_chunks) {
        for (h, sum) in sums.iter_mut().enumerate() {
            // SAFETY: 8 values each, of which this is one half.
            let (x, c) = unsafe {
                (
                    _mm_loadu_ps(x.as_ptr().add(4 * h)),
                    _mm_loadu_ps(c.as_ptr().add(4 * h)),
                )
            };
            let difference = _mm256_sub_pd(_mm256_cvtps_pd(x), _mm256_cvtps_pd(c));
            *sum = _mm256_add_pd(*sum, _mm256_mul_pd(difference, difference));
        }
    }
    let mut r = [0.0; 8];
    // SAFETY: 8 values.
    unsafe {
        _mm256_storeu_pd(r.as_mut_ptr(), sums[0]);
        _mm256_storeu_pd(r.as_mut_ptr().add(4), sums[1]);
    }
    portable::tail(portable::fold(r), x_rest, c_rest)
}

/// Sums of four, so that no addition waits for the one before.
#[target_feature(enable = "avx2,fma")]
fn quick_distance(x: &[f32], c: &[f32]) -> f64 {
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (c_chunks, c_rest) = c.as_chunks::<LANES>();
    let mut sums = [_mm256_setzero_pd(); 4];
    for (x, c) in x_chunks.iter().zip(c_chunks) {
        let (x, c) = (x.as_chunks::<4>().0, c.as_chunks::<4>().0);
        for ((sum, x), c) in sums.iter_mut().zip(x).zip(c) {
            // SAFETY: 4 values each.
            let (x, c) = unsafe { (_mm_loadu_ps(x.as_ptr()), _mm_loadu_ps(c.as_ptr())) };
            let difference = _mm256_sub_pd(_mm256_cvtps_pd(x), _mm256_cvtps_pd(c));
            *sum = _mm256_fmadd_pd(difference, difference, *sum);
        }
    }
    let pairs = (
        _mm256_add_pd(sums[0], sums[1]),
        _mm256_add_pd(sums[2], sums[3]),
    );
    let mut lanes = [0.0; 4];
    // SAFETY: 4 values.
    unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), _mm256_add_pd(pairs.0, pairs.1)) };
    portable::tail(lanes.iter().sum(), x_rest, c_rest)
}

#[target_feature(enable = "avx2,fma")]
fn rough_distance(x: &[f32], c: &[f32]) -> f32 {
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (c_chunks, c_rest) = c.as_chunks::<LANES>();
    let mut sums = [_mm256_setzero_ps(); 2];
    for (x, c) in x_chunks.iter().zip(c_chunks) {
        for ((sum, x), c) in sums.iter_mut().zip(halves(x)).zip(halves(c)) {
            let difference = _mm256_sub_ps(load8(x), load8(c));
            *sum = _mm256_fmadd_ps(difference, difference, *sum);
        }
    }
    let rest = x_rest
        .iter()
        .zip(c_rest)
        .fold(0.0, |sum, (x, c)| sum + (x - c) * (x - c));
    to_array(_mm256_add_ps(sums[0], sums[1]))
        .iter()
        .sum::<f32>()
        + rest
}

#[target_feature(enable = "avx2,fma")]
fn quantise(packed: &Packed, x: &[f32], words: &mut [i32]) -> Option<Row> {
    match packed.precision {
        Precision::Int16 => quantise_to::<{ CHUNK / 2 }>(packed, x, words),
        Precision::Int7 => quantise_to::<{ CHUNK / 4 }>(packed, x, words),
        Precision::Int8 => unreachable!("nothing is packed so for AVX2"),
    }
}

/// `W` is how many words become of [`CHUNK`] values.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn quantise_to<const W: usize>(packed: &Packed, x: &[f32], words: &mut [i32]) -> Option<Row> {
    let (full, rest) = x.as_chunks::<CHUNK>();
    let (centres, last_centre) = packed.centre.as_chunks::<CHUNK>().0.split_at(full.len());
    let (words, last_words) = words.as_chunks_mut::<W>().0.split_at_mut(full.len());
    let mut last = [0.0; CHUNK];
    last[..rest.len()].copy_from_slice(rest);
    let last_centre = last_centre.first().filter(|_| !rest.is_empty());
    let scale = _mm256_set1_ps(packed.shift_scale);

    let mut greatest = _mm256_setzero_si256();
    for (x, centre) in full.iter().zip(centres) {
        greatest = greatest_magnitude(greatest, &shifted(x, scale, centre));
    }
    if let Some(centre) = last_centre {
        greatest = greatest_magnitude(greatest, &shifted(&last, scale, centre));
    }
    let greatest = to_array(_mm256_castsi256_ps(greatest));
    let greatest = greatest.iter().map(|v| v.to_bits()).max().unwrap_or(0);
    let (unit, inverse) = packed.unit(f32::from_bits(greatest))?;

    let mut quantise = Quantise::new(unit, inverse);
    for ((x, centre), words) in full.iter().zip(centres).zip(words) {
        quantise.put(&shifted(x, scale, centre), words);
    }
    if let Some((centre, words)) = last_centre.zip(last_words.first_mut()) {
        quantise.put(&shifted(&last, scale, centre), words);
    }
    let total = |sums: [__m256; 2]| {
        let lanes = to_array(_mm256_add_ps(sums[0], sums[1]));
        lanes.iter().sum::<f32>()
    };
    Some(Row::new(
        packed,
        unit,
        total(quantise.sums) as i32,
        total(quantise.squares),
        total(quantise.residuals),
    ))
}

/// `S x - S mu`, with one rounding.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn shifted(x: &[f32; CHUNK], scale: __m256, centre: &[f32; CHUNK]) -> [__m256; 4] {
    let (x, centre) = (x.as_chunks::<HALF>().0, centre.as_chunks::<HALF>().0);
    array::from_fn(|i| _mm256_fmsub_ps(load8(&x[i]), scale, load8(&centre[i])))
}

/// The greatest so far, as bits of magnitudes, so that NaN counts as greater than infinity.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn greatest_magnitude(mut greatest: __m256i, y: &[__m256; 4]) -> __m256i {
    for y in y {
        let bits = _mm256_and_si256(_mm256_castps_si256(*y), _mm256_set1_epi32(i32::MAX));
        greatest = _mm256_max_epi32(greatest, bits);
    }
    greatest
}

/// A row as it becomes integers.
struct Quantise {
    unit: __m256,
    inverse: __m256,
    /// Sums of the integers, exact where they are bytes and count.
    sums: [__m256; 2],
    /// Sums of their squares.
    squares: [__m256; 2],
    /// Sums of the squares of what is lost.
    residuals: [__m256; 2],
}

impl Quantise {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn new(unit: f32, inverse: f32) -> Self {
        Self {
            unit: _mm256_set1_ps(unit),
            inverse: _mm256_set1_ps(inverse),
            sums: [_mm256_setzero_ps(); 2],
            squares: [_mm256_setzero_ps(); 2],
            residuals: [_mm256_setzero_ps(); 2],
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn put<const W: usize>(&mut self, y: &[__m256; 4], words: &mut [i32; W]) {
        let mut q = [_mm256_setzero_si256(); 4];
        for i in 0..4 {
            q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(y[i], self.inverse));
            let rounded = _mm256_cvtepi32_ps(q[i]);
            let residual = _mm256_fnmadd_ps(rounded, self.unit, y[i]);
            let h = i % 2;
            self.sums[h] = _mm256_add_ps(self.sums[h], rounded);
            self.squares[h] = _mm256_fmadd_ps(rounded, rounded, self.squares[h]);
            self.residuals[h] = _mm256_fmadd_ps(residual, residual, self.residuals[h]);
        }
        // Packing works within halves of the registers: what it puts side by side is set right.
        let pairs = [
            _mm256_packs_epi32(q[0], q[1]),
            _mm256_packs_epi32(q[2], q[3]),
        ];
        let words = words.as_chunks_mut::<HALF>().0;
        if let [first, second] = words {
            store_words(first, _mm256_permute4x64_epi64::<0b11_01_10_00>(pairs[0]));
            store_words(second, _mm256_permute4x64_epi64::<0b11_01_10_00>(pairs[1]));
        } else {
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let bytes = _mm256_packs_epi16(pairs[0], pairs[1]);
            store_words(&mut words[0], _mm256_permutevar8x32_epi32(bytes, order));
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store_words(words: &mut [i32; HALF], values: __m256i) {
    // SAFETY: 8 words.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), values) };
}

#[target_feature(enable = "avx2,fma")]
fn score(task: &Task<'_>, scores: &mut [f32], best: &mut [Best]) {
    match task.packed.precision {
        Precision::Int16 => score_with::<INT16_ROWS, true>(task, scores, best),
        Precision::Int7 => score_with::<ROWS, false>(task, scores, best),
        Precision::Int8 => unreachable!("nothing is packed so for AVX2"),
    }
}

/// Tiles of `R` rows, of int16 or of bytes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn score_with<const R: usize, const INT16: bool>(
    task: &Task<'_>,
    scores: &mut [f32],
    best: &mut [Best],
) {
    let rows = task.rows.len();
    let at_once = (L1_ROWS / (4 * task.packed.steps) / R).max(1) * R;
    for group in (0..task.panels).step_by(GROUP) {
        for start in (0..rows).step_by(at_once) {
            for panel in group..task.panels.min(group + GROUP) {
                for row in (start..rows.min(start + at_once)).step_by(R) {
                    match rows - row {
                        1 => tile::<1, INT16>(task, row, panel, scores, best),
                        2 => tile::<2, INT16>(task, row, panel, scores, best),
                        3 => tile::<3, INT16>(task, row, panel, scores, best),
                        4 if R > 4 => tile::<4, INT16>(task, row, panel, scores, best),
                        5 if R > 4 => tile::<5, INT16>(task, row, panel, scores, best),
                        _ => tile::<R, INT16>(task, row, panel, scores, best),
                    }
                }
            }
        }
    }
}

/// Asks the processor to load a line into L2. (Without the features of its callers, so that it is
/// unsafe in every version of the compiler.)
#[inline]
pub fn fetch(line: &[f32]) {
    if cfg!(not(miri)) {
        // SAFETY: a prefetch reads nothing that the program could see, and never fails.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
}

/// Lines of the rows ahead that are fetched for two steps, while there are any: a tile's rows of
/// float32 are two, and its share of what is ahead may be rounded up.
const LINES_FOR_TWO: usize = 3;

/// `R` rows against a panel: all sums stay in registers.
#[target_feature(enable = "avx2,fma")]
fn tile<const R: usize, const INT16: bool>(
    task: &Task<'_>,
    row: usize,
    panel: usize,
    scores: &mut [f32],
    best: &mut [Best],
) {
    let sums = if INT16 {
        int16_products::<R>(task, row, panel)
    } else {
        products::<R>(task, row, panel)
    };
    let group = Group::<1>::of(task, panel);
    for (r, sums) in sums.iter().enumerate() {
        let at = row + r;
        let [scores] = task.scores_at::<1>(scores, at, panel);
        finish(&group, &task.rows[at], sums, scores, &mut best[at]);
    }
}

/// Products of bytes, fetching the rows ahead meanwhile.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn products<const R: usize>(task: &Task<'_>, row: usize, panel: usize) -> [[__m256i; 2]; R] {
    let lines = task.panel(panel).as_ptr();
    let words: [*const i32; R] = array::from_fn(|r| task.row_words(row + r).as_ptr());
    let mut sums: [[__m256i; 2]; R] =
        array::from_fn(|r| [_mm256_set1_epi32(task.rows[row + r].start); 2]);
    let ahead = if panel.is_multiple_of(GROUP) {
        task.ahead_of(row, R, panel)
    } else {
        &[]
    };
    let mut ahead = ahead.chunks(LANES);
    let ones = _mm256_set1_epi16(1);
    let steps = task.packed.steps;
    assert!(steps.is_multiple_of(2), "steps: {steps}");
    for step in (0..steps).step_by(2) {
        for line in ahead.by_ref().take(LINES_FOR_TWO) {
            fetch(line);
        }
        // SAFETY: what `panel` and `row_words` gave is `steps` long, an even number. (Indexing would
        // check each of them each time.)
        let (line, next) = unsafe { (&*lines.add(step), &*lines.add(step + 1)) };
        let (line, next) = (load_line(line), load_line(next));
        for r in 0..R {
            // SAFETY: as above.
            let (word, next_word) = unsafe { (*words[r].add(step), *words[r].add(step + 1)) };
            let (word, next_word) = (_mm256_set1_epi32(word), _mm256_set1_epi32(next_word));
            for h in 0..2 {
                // No sum of int16 overflows: see `Precision::Int7`.
                let products = _mm256_add_epi16(
                    _mm256_maddubs_epi16(line[h], word),
                    _mm256_maddubs_epi16(next[h], next_word),
                );
                sums[r][h] = _mm256_add_epi32(sums[r][h], _mm256_madd_epi16(products, ones));
            }
        }
    }
    sums
}

/// Products of int16.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn int16_products<const R: usize>(task: &Task<'_>, row: usize, panel: usize) -> [[__m256i; 2]; R] {
    let lines = task.panel(panel).as_ptr();
    let words: [*const i32; R] = array::from_fn(|r| task.row_words(row + r).as_ptr());
    let mut sums = [[_mm256_setzero_si256(); 2]; R];
    for step in 0..task.packed.steps {
        // SAFETY: what `panel` and `row_words` gave is `steps` long.
        let line = load_line(unsafe { &*lines.add(step) });
        for r in 0..R {
            // SAFETY: as above.
            let word = _mm256_set1_epi32(unsafe { *words[r].add(step) });
            for h in 0..2 {
                sums[r][h] = _mm256_add_epi32(sums[r][h], _mm256_madd_epi16(line[h], word));
            }
        }
    }
    sums
}

/// From int32 sums to scores, and to the greatest lower bounds.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn finish(
    group: &Group<'_, 1>,
    row: &Row,
    sums: &[__m256i; 2],
    scores: &mut [f32; LANES],
    best: &mut Best,
) {
    let scale = _mm256_set1_ps(row.scale);
    let bias_weight = _mm256_set1_ps(row.bias_weight);
    let price_weight = _mm256_set1_ps(row.price_weight);
    let bound = _mm256_set1_ps(row.bound(group.bound));
    let least = _mm256_set1_ps(best.certain - row.bound(group.bound));
    let (scores, lower) = (halves_mut(scores), halves_mut(&mut best.lower));
    for h in 0..2 {
        let scales = load8(&halves(&group.scales[0])[h]);
        let product = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[h]), scales);
        let mut bias = load8(&halves(&group.biases[0])[h]);
        if let Some([prices]) = group.prices {
            let price = _mm256_mul_ps(load8(&halves(prices)[h]), price_weight);
            bias = _mm256_fmadd_ps(bias, bias_weight, price);
        }
        let score = _mm256_fmadd_ps(product, scale, bias);
        store8(&mut scores[h], score);
        let certain = _mm256_sub_ps(score, bound);
        let greatest = _mm256_max_ps(load8(&lower[h]), certain);
        store8(&mut lower[h], greatest);
        if _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(score, least)) != 0 {
            best.promising |= group.bit;
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn pick_candidates(pick: &Pick<'_>, out: &mut Vec<Candidate>) {
    for (first, scores, bound) in pick.groups() {
        let least = _mm256_set1_ps(pick.lower - bound);
        let mut passing = 0u64;
        for (h, scores) in scores.as_chunks::<HALF>().0.iter().enumerate() {
            let passes = _mm256_cmp_ps::<_CMP_GE_OQ>(load8(scores), least);
            passing |= (_mm256_movemask_ps(passes) as u64) << (h * HALF);
        }
        while passing != 0 {
            let lane = passing.trailing_zeros() as usize;
            out.push((pick.first + (first + lane) as u32, scores[lane] + bound));
            passing &= passing - 1;
        }
    }
}

/// Half a strip at a time: eight sums.
#[target_feature(enable = "avx2,fma")]
fn screen(mixture: &Mixture<'_>, strip: &Strip<'_>, out: &mut [f32; WIDTH]) -> f32 {
    const SUMS: usize = 8;
    let price_weight = _mm256_set1_ps(mixture.price_weight);
    let mut least = _mm256_set1_ps(f32::INFINITY);
    let prices = strip.prices.as_chunks::<HALF>().0;
    let outs = out.as_chunks_mut::<HALF>().0;
    for first in (0..WIDTH / HALF).step_by(SUMS) {
        let mut sums: [__m256; SUMS] =
            array::from_fn(|i| _mm256_mul_ps(price_weight, load8(&prices[first + i])));
        for (&k, &phi) in mixture.clusters.iter().zip(mixture.weights) {
            let losses = strip.losses[k as usize].as_chunks::<HALF>().0;
            let phi = _mm256_set1_ps(phi);
            for i in 0..SUMS {
                sums[i] = _mm256_fmadd_ps(phi, load8(&losses[first + i]), sums[i]);
            }
        }
        for i in 0..SUMS {
            store8(&mut outs[first + i], sums[i]);
            least = _mm256_min_ps(least, sums[i]);
        }
    }
    to_array(least).into_iter().fold(f32::INFINITY, f32::min)
}

/// Columns summed in registers at a time: enough sums to hide the latency of an addition.
const STRIP: usize = 8 * HALF;

#[target_feature(enable = "avx2,fma")]
fn weighted_rows(phi_idx: &[u32], phi_val: &[f32], psi: &[f32], out: &mut [f32]) {
    let m = out.len();
    let (strips, rest) = out.as_chunks_mut::<STRIP>();
    for (s, out) in strips.iter_mut().enumerate() {
        let mut sums = [_mm256_setzero_ps(); 8];
        for (&k, &phi) in phi_idx.iter().zip(phi_val) {
            let row = &psi[k as usize * m + s * STRIP..].as_chunks::<HALF>().0[..8];
            let phi = _mm256_set1_ps(phi);
            for i in 0..8 {
                sums[i] = _mm256_add_ps(sums[i], _mm256_mul_ps(phi, load8(&row[i])));
            }
        }
        for (out, sum) in out.as_chunks_mut::<HALF>().0.iter_mut().zip(sums) {
            store8(out, sum);
        }
    }
    let first = m - rest.len();
    rest.fill(0.0);
    for (&k, &phi) in phi_idx.iter().zip(phi_val) {
        let row = &psi[k as usize * m + first..][..rest.len()];
        for (out, &psi) in rest.iter_mut().zip(row) {
            *out += phi * psi;
        }
    }
}
