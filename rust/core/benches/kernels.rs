//! Kernels without Python: scans over a pool's profiles, single queries.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use uniroute_core::clusters::centroids::Centroids;
use uniroute_core::kernels::{
    Aligned, Costs, PackedPool, Rough, Scan, argmin_cost, available, weighted_rows,
};

mod made_up;
use made_up::{noise, rounded, wide};

const MODELS: usize = 10_000;

fn scans(c: &mut Criterion) {
    let gamma = Aligned::from(&noise(MODELS, 1)[..]);
    let (in_prices, out_prices) = (wide(noise(MODELS, 2)), wide(noise(MODELS, 3)));
    let tokens_out = Aligned::from(&noise(MODELS, 4)[..]);
    let base = wide(noise(MODELS, 7));
    let mask = vec![0xffff_fffe_ffff_ff7f; MODELS.div_ceil(64)];
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
    let mut group = c.benchmark_group("scan: M 10,000");
    group.bench_function("masked, costs of the request's own, argmin", |b| {
        b.iter(|| black_box(&scan).argmin());
    });
    let mut top = Vec::new();
    group.bench_function("masked, costs of the request's own, top 5", |b| {
        b.iter(|| black_box(&scan).top_n(5, &mut top));
    });
    group.bench_function("one cost per LLM, argmin", |b| {
        b.iter(|| argmin_cost(black_box(&gamma), &in_prices, 1e-3, None));
    });
    group.finish();

    let psi = noise(64 * MODELS, 5);
    let every: Vec<u32> = (0..64).collect();
    let phi: Vec<f32> = noise(64, 6).into_iter().map(|v| v / 32.0).collect();
    let pool = PackedPool::new(&psi, &in_prices).unwrap_or_else(|e| panic!("{e}"));
    let mut losses = vec![0.0; MODELS];
    let mut group = c.benchmark_group("one mixture of 64 clusters: M 10,000");
    group.bench_function("predicted loss of every LLM", |b| {
        b.iter(|| weighted_rows(&every, black_box(&phi), &psi, &mut losses));
    });
    group.bench_function("winner", |b| {
        b.iter(|| pool.best_one(black_box(&phi), 1e-3));
    });
    group.finish();
}

fn queries(c: &mut Criterion) {
    for isa in available() {
        let mut group = c.benchmark_group(format!("one query: {}", isa.name()));
        for (d, k) in [(384, 256), (768, 1024)] {
            let data = noise(k * d, 7);
            let centroids = Centroids::with_isa(&data, d, isa).unwrap_or_else(|e| panic!("{e}"));
            let x: Vec<f32> = data[..d].iter().map(|v| v + 0.01).collect();
            group.bench_function(format!("D {d}, K {k}"), |b| {
                b.iter(|| centroids.nearest(black_box(&x)));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, scans, queries);
criterion_main!(benches);
