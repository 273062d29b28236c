//! Plain Rust: the definition that the other instruction sets are held to.

use super::{Isa, Kernels};

pub static KERNELS: Kernels = Kernels {
    isa: Isa::Portable,
    squared_distance,
    weighted_rows,
    argmin_cost,
};

/// Longest run that is summed without being split, as in NumPy.
const BLOCK: usize = 128;
/// Partial sums of a run, as in NumPy.
const LANES: usize = 8;

/// `((x.astype(float64) - c.astype(float64)) ** 2).sum()`, to the last bit.
///
/// NumPy adds pairwise: fewer than 8 terms in order; up to 128 terms in 8 partial sums, the rest in
/// order; more by halves, split at a multiple of 8. Following it makes "equal to float64 brute
/// force" a statement about bits, in which permuted coordinates do not tie by chance.
pub fn squared_distance(x: &[f32], c: &[f32]) -> f64 {
    pairwise(x, c, run)
}

/// Splits as NumPy does and sums each run of at most 128 terms with `run`.
pub fn pairwise(x: &[f32], c: &[f32], run: fn(&[f32], &[f32]) -> f64) -> f64 {
    let n = x.len();
    if n <= BLOCK {
        return run(x, c);
    }
    let half = n / 2 - n / 2 % LANES;
    pairwise(&x[..half], &c[..half], run) + pairwise(&x[half..], &c[half..], run)
}

fn run(x: &[f32], c: &[f32]) -> f64 {
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (c_chunks, c_rest) = c.as_chunks::<LANES>();
    let mut r = [0.0f64; LANES];
    for (x, c) in x_chunks.iter().zip(c_chunks) {
        for ((r, &x), &c) in r.iter_mut().zip(x).zip(c) {
            *r += square(x, c);
        }
    }
    let sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    tail(sum, x_rest, c_rest)
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

fn argmin_cost(
    gamma: &[f32],
    costs: &[f64],
    cost_weight: f64,
    mask: Option<&[u64]>,
) -> Option<u32> {
    let mut best: Option<(f64, f64, usize)> = None;
    for (m, (&gamma, &cost)) in gamma.iter().zip(costs).enumerate() {
        let score = f64::from(gamma) + cost_weight * cost;
        let takes_part = mask.is_none_or(|mask| mask[m / 64] >> (m % 64) & 1 == 1);
        let wins = best.is_none_or(|(s, c, _)| score < s || (score == s && cost < c));
        if takes_part && wins && !score.is_nan() {
            best = Some((score, cost, m));
        }
    }
    best.map(|(_, _, m)| m as u32)
}
