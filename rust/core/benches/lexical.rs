//! Text to embedding, one prompt at a time on one thread.
//!
//! Prompts come from the file that `UNIROUTE_TEXTS` names, separated by NUL characters
//! (`bench/export_texts.py` writes one from a data set), else are made up, 663 bytes each.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;
use uniroute_core::kernels::available;
use uniroute_core::lexical::fit::FeatureCounter;
use uniroute_core::lexical::{LexicalEmbedder, Scratch, features};

fn prompts() -> Vec<String> {
    if let Some(path) = std::env::var_os("UNIROUTE_TEXTS") {
        let text = std::fs::read_to_string(path).expect("UNIROUTE_TEXTS: a readable file");
        return text.split('\0').map(str::to_owned).collect();
    }
    // Words of 1 to 10 letters, the frequent ones short, with digits and symbols between.
    let mut state = 1u64;
    let mut next = |n: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % n
    };
    let word = |rank: u64| {
        let len = 1 + (rank as f64).log2() as usize;
        (0..len)
            .map(|i| char::from(b'a' + ((rank >> (i % 8)) * 7 % 26) as u8))
            .collect::<String>()
    };
    (0..2000)
        .map(|_| {
            let mut text = String::new();
            while text.len() < 663 {
                let most = 1 << (1 + next(12));
                let rank = 1 + next(most);
                text += &word(rank);
                text += match next(8) {
                    0 => ", ",
                    1 => " 7",
                    _ => " ",
                };
            }
            text
        })
        .collect()
}

fn embedder(prompts: &[String], dim: usize) -> LexicalEmbedder {
    let mut counter = FeatureCounter::new(2).unwrap();
    prompts.iter().for_each(|text| counter.add(text));
    let vocabulary = counter.vocabulary(2, 1 << 16).unwrap();
    let table: Vec<f32> = (0..vocabulary.rows() * dim)
        .map(|i| (i % 255) as f32 - 127.0)
        .collect();
    LexicalEmbedder::new(vocabulary, 2, &table, dim, Value::Null).unwrap()
}

fn bench(c: &mut Criterion) {
    let prompts = prompts();
    let mean = prompts.iter().map(String::len).sum::<usize>() / prompts.len();
    let mut group = c.benchmark_group("lexical");
    group.throughput(Throughput::Bytes(mean as u64));
    let mut at = 0;
    let mut next = || {
        at = (at + 1) % prompts.len();
        prompts[at].as_str()
    };
    let mut ids = Vec::new();
    let mut buffers = features::Buffers::default();
    group.bench_function("features", |b| {
        b.iter(|| {
            features::collect_ids(next(), 2, &mut ids, &mut buffers);
            black_box(&ids);
        });
    });
    for dim in [64, 128] {
        let embedder = embedder(&prompts, dim);
        for isa in available() {
            let embedder = embedder.clone().with_isa(isa).unwrap();
            let mut scratch = Scratch::default();
            let mut out = vec![0.0; dim];
            group.bench_function(format!("embed/{dim}/{}", isa.name()), |b| {
                b.iter_batched(
                    &mut next,
                    |text| black_box(embedder.embed(text, &mut out, &mut scratch)),
                    BatchSize::NumIterations(1000),
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
