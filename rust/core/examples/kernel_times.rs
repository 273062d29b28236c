//! Kernel times on a machine that does other work too: the least, and the median, over thousands of
//! batches so short that most are not interrupted. On an idle machine, use the criterion bench
//! `kernels`, which has the same cases.
//!
//! `cargo run --release -p uniroute-core --example kernel_times`

use std::hint::black_box;
use std::time::Instant;

use uniroute_core::Result;
use uniroute_core::clusters::centroids::Centroids;
use uniroute_core::kernels::{
    Aligned, Costs, PackedPool, Rough, Scan, argmin_cost, available, weighted_rows,
};

#[path = "../benches/made_up/mod.rs"]
mod made_up;
use made_up::{noise, rounded, wide};

const MODELS: usize = 10_000;
const BATCHES: usize = 3000;

fn report(name: &str, calls: usize, mut work: impl FnMut()) {
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..calls {
                work();
            }
            start.elapsed().as_nanos() as f64 / calls as f64
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    println!(
        "{name}: least {:.0} ns, median {:.0} ns",
        batches[0],
        batches[BATCHES / 2]
    );
}

fn main() -> Result<()> {
    let gamma = Aligned::from(&noise(MODELS, 1)[..]);
    let (in_prices, out_prices) = (wide(noise(MODELS, 2)), wide(noise(MODELS, 3)));
    let tokens_out = Aligned::from(&noise(MODELS, 4)[..]);
    let mask = vec![0xffff_fffe_ffff_ff7f; MODELS.div_ceil(64)];
    let base = wide(noise(MODELS, 5));
    let rough = [&base, &in_prices, &out_prices].map(|prices| rounded(prices));
    let metered = Costs::Metered {
        base: &base,
        in_prices: &in_prices,
        out_prices: &out_prices,
        tokens_in: 663.0,
        tokens_out: &tokens_out,
        rough: Some(Rough {
            base: &rough[0],
            in_prices: &rough[1],
            out_prices: &rough[2],
        }),
    };
    let scan = Scan::new(&gamma, metered, 1e-3, Some(&mask));
    report(
        "scan, M 10,000, masked, costs of the request's own",
        4,
        || {
            black_box(black_box(&scan).argmin());
        },
    );
    let mut top = Vec::new();
    report("the same, top 5", 4, || scan.top_n(5, &mut top));
    report("scan, M 10,000, one cost per LLM", 4, || {
        black_box(argmin_cost(black_box(&gamma), &in_prices, 1e-3, None));
    });

    let psi = noise(64 * MODELS, 5);
    let every: Vec<u32> = (0..64).collect();
    let phi: Vec<f32> = noise(64, 6).into_iter().map(|v| v / 32.0).collect();
    let pool = PackedPool::new(&psi, &in_prices)?;
    let mut losses = vec![0.0; MODELS];
    report("predicted losses, K 64, M 10,000", 1, || {
        weighted_rows(&every, black_box(&phi), &psi, &mut losses);
    });
    report("winner of a mixture, K 64, M 10,000", 1, || {
        let _ = black_box(pool.best_one(black_box(&phi), 1e-3));
    });

    for isa in available() {
        for (d, k) in [(384, 256), (768, 1024)] {
            let data = noise(k * d, 7);
            let centroids = Centroids::with_isa(&data, d, isa)?;
            let x: Vec<f32> = data[..d].iter().map(|v| v + 0.01).collect();
            report(
                &format!("one query, {}, D {d}, K {k}", isa.name()),
                2,
                || {
                    let _ = black_box(centroids.nearest(black_box(&x)));
                },
            );
        }
    }
    Ok(())
}
