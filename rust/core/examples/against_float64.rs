//! Every instruction set of this machine against the definitions: nearest centroids against float64
//! brute force, winners over mixtures of clusters against the float32 sums that define them; then
//! all of it again on many threads at once. Stops at the first difference.
//!
//! Unlike `bench/fuzz_centroids.py` it needs nothing but a kernel to run on, and its shapes are
//! chosen, not drawn: so it is what `bench/emulated_amx` has an emulated processor run.
//!
//! `cargo run --release -p uniroute-core --example against_float64 [ISA...]`, where an ISA is one
//! that must be available here; all that are available, if none is named.

use std::error::Error;
use std::thread;

use uniroute_core::clusters::centroids::Centroids;
use uniroute_core::kernels::{Isa, Kernels, PackedPool, Weights, available};
use uniroute_core::sys::threads::Run;

#[path = "../benches/made_up/mod.rs"]
#[allow(dead_code)] // Some are for benches alone.
mod made_up;
use made_up::{noise, wide};

/// Threads of the second pass: more than cores, so that registers are taken from one in the middle
/// of its work, and given to another.
const THREADS: usize = 8;

type Check = Result<(), Box<dyn Error + Send + Sync>>;

/// What the values of a case are like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Uniform,
    /// Few different values: exact ties.
    Ties,
    /// Every centroid three times.
    Duplicates,
    /// Rows next to centroids, and all far from the origin.
    Offset,
    /// Every row of another magnitude.
    Magnitudes,
    /// Squares beyond float32's range.
    Huge,
    /// Squares below it.
    Tiny,
    Subnormal,
}

const KINDS: [Kind; 8] = [
    Kind::Uniform,
    Kind::Ties,
    Kind::Duplicates,
    Kind::Offset,
    Kind::Magnitudes,
    Kind::Huge,
    Kind::Tiny,
    Kind::Subnormal,
];

/// One comparison of either sort: `n` rows of `dim` coordinates against `k` vectors.
#[derive(Clone, Copy, Debug)]
struct Case {
    kind: Kind,
    n: usize,
    k: usize,
    dim: usize,
    salt: u64,
}

/// Every dimension up to two tiles, and those around some greater multiples, with every kind; rows
/// and vectors on both sides of one tile, of two, and of more.
fn cases() -> Vec<Case> {
    const ROWS: [usize; 11] = [32, 1, 33, 16, 15, 17, 48, 31, 64, 47, 100];
    const VECTORS: [usize; 13] = [64, 1, 17, 33, 16, 100, 15, 65, 32, 31, 257, 48, 130];
    let around = [192, 256, 320, 384, 512, 768, 1024, 1536, 2048];
    let around = around.into_iter().flat_map(|dim| dim - 1..=dim + 1);
    let dims: Vec<usize> = (1..=130).chain(around).collect();
    let kinds = KINDS.into_iter().cycle();
    let dims = dims.iter().cycle().take(dims.len() * KINDS.len());
    // 157 dimensions, 11 numbers of rows, 13 of vectors, 8 kinds: no two have a common divisor.
    (kinds.zip(dims).enumerate())
        .map(|(i, (kind, &dim))| Case {
            kind,
            n: ROWS[i % ROWS.len()],
            k: VECTORS[i % VECTORS.len()],
            dim,
            salt: i as u64,
        })
        .collect()
}

impl Case {
    /// Both comparisons.
    fn check(&self, isa: Isa) -> Check {
        let run = Run {
            threads: 1,
            ..Run::default()
        };
        self.check_assignment(isa, &run)
            .and_then(|()| self.check_winners(isa, &run))
            .map_err(|problem| format!("{}, {self:?}: {problem}", isa.name()).into())
    }

    /// Rows and centroids: numbers from -1 to 1, bent to the kind.
    fn embeddings(&self) -> (Vec<f32>, Vec<f32>) {
        let signed = |n, salt| noise(n * self.dim, salt).into_iter().map(|v| 2.0 * v - 1.0);
        let mut x: Vec<f32> = signed(self.n, 2 * self.salt).collect();
        let mut c: Vec<f32> = signed(self.k, 2 * self.salt + 1).collect();
        let power = |i: usize| 10f32.powi((i / self.dim) as i32 % 37 - 18);
        let mut bend = |to: &dyn Fn(usize, f32) -> f32| {
            for values in [&mut x, &mut c] {
                for (i, v) in values.iter_mut().enumerate() {
                    *v = to(i, *v);
                }
            }
        };
        match self.kind {
            Kind::Uniform => {}
            Kind::Ties => bend(&|_, v| v.round()),
            Kind::Duplicates => {
                let different = self.k.div_ceil(3) * self.dim;
                for i in different..c.len() {
                    c[i] = c[i - different];
                }
            }
            Kind::Offset => {
                for (i, x) in x.iter_mut().enumerate() {
                    *x = c[i % c.len()] + 0.01 * *x;
                }
                x.iter_mut().chain(&mut c).for_each(|v| *v += 1e4);
            }
            Kind::Magnitudes => bend(&|i, v| v * power(i)),
            Kind::Huge => bend(&|_, v| v * 1e30),
            Kind::Tiny => bend(&|_, v| v * 1e-30),
            Kind::Subnormal => bend(&|_, v| v * 1e-40),
        }
        (x, c)
    }

    /// Labels and distances of the rows as a batch, and of the first ones alone.
    fn check_assignment(&self, isa: Isa, run: &Run<'_>) -> Check {
        let (x, c) = self.embeddings();
        let distance = Kernels::of(Isa::Portable)?.squared_distance;
        let centroids = Centroids::with_isa(&c, self.dim, isa)?;
        let (mut labels, mut distances) = (vec![0; self.n], vec![0.0; self.n]);
        centroids.assign(&x, &mut labels, Some(&mut distances), run)?;
        for (i, x) in x.chunks_exact(self.dim).enumerate() {
            let mut expected = (0, f64::INFINITY);
            for (k, c) in c.chunks_exact(self.dim).enumerate() {
                let distance = distance(x, c);
                if distance < expected.1 {
                    expected = (k as u32, distance);
                }
            }
            let expected = (expected.0, expected.1 as f32);
            let found = (labels[i], distances[i]);
            if found != expected {
                return Err(format!("row {i}: {found:?}, in float64 {expected:?}").into());
            }
            if i < 3 && centroids.nearest(x)? != expected {
                return Err(format!("row {i} alone: not {expected:?}").into());
            }
        }
        Ok(())
    }

    /// The best LLM, and the best three, of `n` mixtures of `dim` clusters among `k` LLMs.
    fn check_winners(&self, isa: Isa, run: &Run<'_>) -> Check {
        let (clusters, llms) = (self.dim, self.k);
        let numbers = |n, salt| -> Vec<f32> {
            let mut numbers = noise(n, salt);
            if self.kind == Kind::Ties {
                for v in &mut numbers {
                    *v = (4.0 * *v).round() / 4.0;
                }
            }
            numbers
        };
        let phi = numbers(self.n * clusters, 3 * self.salt);
        let psi = numbers(clusters * llms, 3 * self.salt + 1);
        let costs = wide(numbers(llms, 3 * self.salt + 2));
        let cost_weight = (self.salt % 3) as f64;
        let pool = PackedPool::with_isa(&psi, &costs, isa)?;
        for best in [1, 3.min(llms)] {
            let (mut winners, mut losses) = (vec![0; self.n * best], vec![0.0; self.n * best]);
            let weight = Weights::Same(cost_weight);
            pool.best(&phi, weight, best, &mut winners, Some(&mut losses), run)?;
            let found = winners.chunks_exact(best).zip(losses.chunks_exact(best));
            for (i, (phi, (winners, losses))) in phi.chunks_exact(clusters).zip(found).enumerate() {
                let mut gamma = vec![0.0f32; llms];
                for (phi, psi) in phi.iter().zip(psi.chunks_exact(llms)) {
                    for (gamma, psi) in gamma.iter_mut().zip(psi) {
                        *gamma += phi * psi;
                    }
                }
                let objective = |m: usize| f64::from(gamma[m]) + cost_weight * costs[m];
                let mut order: Vec<usize> = (0..llms).collect();
                order.sort_by(|&a, &b| {
                    let by_objective = objective(a).total_cmp(&objective(b));
                    by_objective
                        .then(costs[a].total_cmp(&costs[b]))
                        .then(a.cmp(&b))
                });
                let expected: Vec<u32> = order[..best].iter().map(|&m| m as u32).collect();
                if winners != expected || (order.iter().zip(losses)).any(|(&m, &v)| gamma[m] != v) {
                    return Err(format!("prompt {i}: {winners:?}, not {expected:?}").into());
                }
            }
        }
        Ok(())
    }
}

fn check_all(isa: Isa) -> Check {
    let cases = cases();
    let rows: usize = cases.iter().map(|case| case.n).sum();
    for case in &cases {
        case.check(isa)?;
    }
    println!(
        "{}: {} cases, {rows} rows, no difference",
        isa.name(),
        cases.len()
    );

    let check = |t| {
        let mut part = cases.iter().skip(t).step_by(THREADS);
        part.try_for_each(|case| case.check(isa))
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|t| scope.spawn(move || check(t)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            let panicked = |_| Err("a thread panicked".into());
            thread.join().unwrap_or_else(panicked)
        })
    })?;
    println!("{}: the same on {THREADS} threads at once", isa.name());
    Ok(())
}

fn main() -> Check {
    let named: Vec<String> = std::env::args().skip(1).collect();
    for isa in Isa::ALL {
        if let Err(problem) = Kernels::of(isa) {
            println!("{}: {problem}", isa.name());
        }
    }
    let isas = if named.is_empty() {
        available()
    } else {
        let isa = |name: &String| Isa::from_name(name).ok_or_else(|| format!("no ISA {name:?}"));
        named.iter().map(isa).collect::<Result<_, _>>()?
    };
    isas.into_iter().try_for_each(check_all)
}
