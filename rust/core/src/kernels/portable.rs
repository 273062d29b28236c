//! Plain Rust: the definition that the other instruction sets are held to.

use std::ops::Range;

use super::direct::{self, Four};
use super::packed::{LANES, Line, Packed, Precision, Row};
use super::search::{Best, Candidate, Group, Pick, Task};
use super::sparse::{Mixture, Strip, WIDTH};
use super::{Bits, Isa, Kernels, RoughScan, Scan};

pub static KERNELS: Kernels = Kernels {
    isa: Isa::Portable,
    precision: Precision::Int16,
    pool_precision: Precision::Int16,
    block: 48,
    squared_distance,
    quick_distance: squared_distance,
    rough_distance,
    quantise,
    scores,
    pick,
    compare: direct::find::<Four>,
    screen,
    weighted_rows,
    objectives,
    least,
    equal,
    rough_least,
};

/// Longest run that is summed without being split, as in NumPy.
const BLOCK: usize = 128;
/// Partial sums of a run, as in NumPy.
const SUMS: usize = 8;

/// `((x.astype(float64) - c.astype(float64)) ** 2).sum()`, to the last bit.
///
/// NumPy adds pairwise: fewer than 8 terms in order; up to 128 terms in 8 partial sums, the rest in
/// order; more by halves, split at a multiple of 8. Following it makes "equal to float64 brute
/// force" a statement about bits, in which permuted coordinates do not tie by chance.
pub fn squared_distance(x: &[f32], c: &[f32]) -> f64 {
    if let Some(half) = half(x.len()) {
        let ((x, x_rest), (c, c_rest)) = (x.split_at(half), c.split_at(half));
        return squared_distance(x, c) + squared_distance(x_rest, c_rest);
    }
    let (x_chunks, x_rest) = x.as_chunks::<SUMS>();
    let (c_chunks, c_rest) = c.as_chunks::<SUMS>();
    let mut r = [0.0f64; SUMS];
    for (x, c) in x_chunks.iter().zip(c_chunks) {
        for ((r, &x), &c) in r.iter_mut().zip(x).zip(c) {
            *r += square(x, c);
        }
    }
    tail(fold(r), x_rest, c_rest)
}

fn rough_distance(x: &[f32], c: &[f32]) -> f32 {
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (c_chunks, c_rest) = c.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (x, c) in x_chunks.iter().zip(c_chunks) {
        for ((sum, x), c) in sums.iter_mut().zip(x).zip(c) {
            *sum += (x - c) * (x - c);
        }
    }
    for ((sum, x), c) in sums.iter_mut().zip(x_rest).zip(c_rest) {
        *sum += (x - c) * (x - c);
    }
    sums.iter().sum()
}

/// Where NumPy splits a sum of `n` terms in two, if it does.
#[inline]
pub fn half(n: usize) -> Option<usize> {
    (n > BLOCK).then_some(n / 2 - n / 2 % SUMS)
}

/// The sum of the partial sums of a run, in NumPy's order.
pub fn fold(r: [f64; SUMS]) -> f64 {
    ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
}

/// Adds the terms that fill no chunk, in order.
pub fn tail(sum: f64, x: &[f32], c: &[f32]) -> f64 {
    x.iter()
        .zip(c)
        .fold(sum, |sum, (&x, &c)| sum + square(x, c))
}

fn square(x: f32, c: f32) -> f64 {
    let difference = f64::from(x) - f64::from(c);
    difference * difference
}

fn screen(mixture: &Mixture<'_>, strip: &Strip<'_>, out: &mut [f32; WIDTH]) -> f32 {
    for (out, price) in out.iter_mut().zip(strip.prices) {
        *out = mixture.price_weight * price;
    }
    for (&k, &phi) in mixture.clusters.iter().zip(mixture.weights) {
        for (out, loss) in out.iter_mut().zip(&strip.losses[k as usize]) {
            *out += phi * loss;
        }
    }
    out.iter().fold(f32::INFINITY, |least, &v| least.min(v))
}

fn weighted_rows(phi_idx: &[u32], phi_val: &[f32], psi: &[f32], out: &mut [f32]) {
    let m = out.len();
    out.fill(0.0);
    for (&k, &phi) in phi_idx.iter().zip(phi_val) {
        let row = &psi[k as usize * m..][..m];
        for (out, &psi) in out.iter_mut().zip(row) {
            *out += phi * psi;
        }
    }
}

pub fn least(scan: &Scan<'_>, first: usize, llms: usize) -> f64 {
    scan.check(first, llms);
    (first..first + llms)
        .filter(|&m| scan.takes_part(m))
        .fold(f64::INFINITY, |least, m| least.min(scan.objective(m)))
}

fn equal(scan: &Scan<'_>, first: usize, llms: usize, objective: f64) -> Bits {
    scan.check(first, llms);
    let mut equal = Bits::default();
    equal_from(scan, first, 0..llms, objective, &mut equal);
    equal
}

/// The part of `equal` that is about the LLMs of `part`, counted from `first`.
pub fn equal_from(
    scan: &Scan<'_>,
    first: usize,
    part: Range<usize>,
    objective: f64,
    equal: &mut Bits,
) {
    for i in part.filter(|&i| scan.takes_part(first + i)) {
        let hit = scan.objective(first + i) == objective;
        equal[i / 64] |= u64::from(hit) << (i % 64);
    }
}

pub fn rough_least(rough: &RoughScan<'_>, first: usize, llms: usize) -> f32 {
    rough.scan().check(first, llms);
    (first..first + llms)
        .filter(|&m| rough.scan().takes_part(m))
        .fold(f32::INFINITY, |least, m| least.min(rough.objective(m)))
}

pub fn objectives(scan: &Scan<'_>, first: usize, out: &mut [f64]) {
    scan.check(first, out.len());
    for (m, out) in (first..).zip(out) {
        *out = if scan.takes_part(m) {
            scan.objective(m)
        } else {
            f64::NAN
        };
    }
}

/// Quantises `S (x - mu)`; `None` if it is too long for the bound to hold, or not finite.
fn quantise(packed: &Packed, x: &[f32], words: &mut [i32]) -> Option<Row> {
    let shifted = || {
        let centre = packed.centre.iter();
        x.iter()
            .zip(centre)
            .map(|(&x, &mu)| x * packed.shift_scale - mu)
    };
    // Bits of magnitudes, so that NaN counts as the greatest.
    let greatest = shifted().fold(0, |greatest, y| greatest.max(y.to_bits() & 0x7fff_ffff));
    let greatest = f32::from_bits(greatest);
    let (unit, inverse) = packed.unit(greatest)?;
    let (mut squares, mut residuals) = ([0.0f32; LANES], [0.0f32; LANES]);
    words.fill(0);
    for (i, y) in shifted().enumerate() {
        let q = (y * inverse).round_ties_even();
        let residual = y - q * unit;
        squares[i % LANES] += q * q;
        residuals[i % LANES] += residual * residual;
        words[i / 2] |= i32::from(q as i16 as u16) << (i % 2 * 16);
    }
    Some(Row::new(
        packed,
        unit,
        0,
        squares.iter().sum(),
        residuals.iter().sum(),
    ))
}

fn scores(task: &Task<'_>, scores: &mut [f32], best: &mut [Best]) {
    for panel in 0..task.panels {
        let group = Group::<1>::of(task, panel);
        for (i, row) in task.rows.iter().enumerate() {
            let sums = products(task.panel(panel), task.row_words(i));
            let [scores] = task.scores_at::<1>(scores, i, panel);
            let bound = row.bound(group.bound);
            for lane in 0..LANES {
                let mut bias = group.biases[0][lane];
                if let Some([prices]) = group.prices {
                    bias = bias * row.bias_weight + prices[lane] * row.price_weight;
                }
                scores[lane] = sums[lane] as f32 * group.scales[0][lane] * row.scale + bias;
                best[i].lower[lane] = best[i].lower[lane].max(scores[lane] - bound);
                if scores[lane] >= best[i].certain - bound {
                    best[i].promising |= group.bit;
                }
            }
        }
    }
}

/// Products of one row with the vectors of one panel, int16.
fn products(lines: &[Line], words: &[i32]) -> [i32; LANES] {
    let mut sums = [0; LANES];
    for (line, &word) in lines.iter().zip(words) {
        let (a, b) = (word as i16, (word >> 16) as i16);
        for (sum, &[c0, c1, d0, d1]) in sums.iter_mut().zip(&line.0) {
            let (c, d) = (i16::from_ne_bytes([c0, c1]), i16::from_ne_bytes([d0, d1]));
            *sum += i32::from(a) * i32::from(c) + i32::from(b) * i32::from(d);
        }
    }
    sums
}

fn pick(pick: &Pick<'_>, out: &mut Vec<Candidate>) {
    for (first, scores, bound) in pick.groups() {
        for (i, &score) in scores.iter().enumerate() {
            if score >= pick.lower - bound {
                out.push((pick.first + (first + i) as u32, score + bound));
            }
        }
    }
}
