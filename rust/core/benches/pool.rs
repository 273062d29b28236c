//! The pool: one decision by its hull, and what a change costs.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use uniroute_core::Result;
use uniroute_core::clusters::cluster_map::{ClusterMap, Head, Softmax};
use uniroute_core::pool::Pool;
use uniroute_core::request::{Prompt, Request};
use uniroute_core::route::scratch::Scratch;
use uniroute_core::route::snapshot::Snapshot;

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

fn pool(clusters: usize, models: usize) -> Pool {
    let names: Vec<String> = (0..models).map(|i| format!("model-{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let costs: Vec<f64> = noise(models, 1).map(f64::from).collect();
    // Dear models are better, as a rule: then hulls have many vertices.
    let profiles: Vec<f32> = (0..clusters)
        .flat_map(|k| noise(models, 2 + k as u64).zip(&costs))
        .map(|(luck, &cost)| 0.8 * luck + 0.2 * (1.0 - cost as f32).powi(2))
        .collect();
    Pool::new(clusters)
        .with(&names, &costs, &profiles)
        .unwrap_or_else(|e| panic!("{e}"))
}

fn bench(c: &mut Criterion) {
    let pool = pool(CLUSTERS, MODELS);
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

/// One prompt that belongs to 64 clusters, over 1,000 LLMs, with as many of them ranked.
fn bench_ranking(c: &mut Criterion) -> Result<()> {
    let (clusters, models, dim) = (64, 1000, 128);
    let weights: Vec<f32> = noise(clusters * dim, 5).collect();
    let head = Head::Softmax(Softmax::new(&weights, &vec![0.0; clusters], 0.0)?);
    let empty = Snapshot::new(None, ClusterMap::new(vec![head])?)?;
    let snapshot = empty.with_pool(pool(clusters, models));
    let embedding: Vec<f32> = noise(dim, 6).map(|v| 0.01 * v).collect();
    let mut scratch = Scratch::default();
    let mut group = c.benchmark_group("one prompt of 64 clusters: M 1,000");
    for ranked in [0, 1, 3, 100] {
        let request = Request {
            cost_weight: 0.1,
            ranked,
            ..Request::default()
        };
        group.bench_function(format!("top {ranked}"), |b| {
            b.iter(|| snapshot.route(Prompt::Embedding(&embedding), &request, &mut scratch));
        });
    }
    group.finish();
    Ok(())
}

fn bench_all(c: &mut Criterion) {
    bench(c);
    bench_ranking(c).unwrap_or_else(|e| panic!("{e}"));
}

criterion_group!(benches, bench_all);
criterion_main!(benches);
