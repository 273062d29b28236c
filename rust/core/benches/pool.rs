//! The pool: one decision by its hull, and what a change costs.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use uniroute_core::pool::Pool;

const CLUSTERS: usize = 256;
const MODELS: usize = 10_000;

/// Numbers between 0 and 1 that look random and are the same in every run.
fn noise(n: usize, salt: u64) -> impl Iterator<Item = f32> {
    (0..n as u64).map(move |i| {
        let mixed = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ salt.wrapping_mul(0xd129_0d3b));
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f32
            / (1 << 24) as f32
    })
}

fn pool() -> Pool {
    let names: Vec<String> = (0..MODELS).map(|i| format!("model-{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let costs: Vec<f64> = noise(MODELS, 1).map(f64::from).collect();
    // Dear models are better, as a rule: then hulls have many vertices.
    let profiles: Vec<f32> = (0..CLUSTERS)
        .flat_map(|k| noise(MODELS, 2 + k as u64).zip(&costs))
        .map(|(luck, &cost)| 0.8 * luck + 0.2 * (1.0 - cost as f32).powi(2))
        .collect();
    Pool::new(CLUSTERS)
        .with(&names, &costs, &profiles)
        .unwrap_or_else(|e| panic!("{e}"))
}

fn bench(c: &mut Criterion) {
    let pool = pool();
    let weights: Vec<f64> = noise(4096, 3).map(|w| f64::from(w) * 4.0).collect();
    let mut group = c.benchmark_group("pool: K 256, M 10,000");
    let mut i = 0;
    group.bench_function("decision by hull, any cost weight", |b| {
        b.iter(|| {
            i = (i + 1) % 4096;
            black_box(pool.choose(i % CLUSTERS, weights[i]))
        });
    });
    let column: Vec<f32> = noise(CLUSTERS, 4).collect();
    group.bench_function("add one LLM", |b| {
        b.iter_batched(
            || (),
            |()| pool.with(&["new"], &[0.5], &column),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("reprice one LLM", |b| {
        b.iter_batched(
            || (),
            |()| pool.with_cost("model-77", 0.5),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("remove one LLM", |b| {
        b.iter_batched(
            || (),
            |()| pool.without("model-77"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
