//! Text to embedding, and text to model, one prompt at a time on one thread.
//!
//! Each prompt's time is the best of several passes over all prompts, and what is printed is the
//! distribution of that over prompts: other work on the machine then matters little, while the
//! caches hold what they hold in service, some other prompt's rows.
//!
//! Prompts come from the file that `UNIROUTE_TEXTS` names, separated by NUL characters
//! (`bench/export_texts.py` writes one from a data set), else are made up, 663 bytes each.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use uniroute_core::clusters::centroids::Centroids;
use uniroute_core::clusters::cluster_map::{ClusterMap, Head};
use uniroute_core::kernels::available;
use uniroute_core::request::{Prompt, Request};
use uniroute_core::route::scratch;
use uniroute_core::route::snapshot::Snapshot;
use uniroute_core::text::features;
use uniroute_core::text::fit::FeatureCounter;
use uniroute_core::text::lexical::{LexicalEmbedder, Scratch};

const PASSES: usize = 15;
const CLUSTERS: usize = 64;
const MODELS: usize = 1_000;

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
    let word = |rank: u64| -> String {
        let len = 1 + rank.ilog2();
        (0..len)
            .map(|i| char::from(b'a' + ((rank >> (i % 8)) * 7 % 26) as u8))
            .collect()
    };
    let mut prompt = || {
        let mut text = String::new();
        while text.len() < 663 {
            let most = 1 << (1 + next(12));
            text += &word(1 + next(most));
            text += [", ", " 7", " ", " ", " "][next(5) as usize];
        }
        text
    };
    (0..2000).map(|_| prompt()).collect()
}

fn embedder(prompts: &[String], dim: usize, rows: usize) -> LexicalEmbedder {
    let mut counter = FeatureCounter::new(2).expect("an order in range");
    for text in prompts {
        counter.add(text);
    }
    let vocabulary = counter.vocabulary(2, rows).expect("rows in range");
    let table: Vec<f32> = (0..vocabulary.rows() * dim)
        .map(|i| (i % 255) as f32 - 127.0)
        .collect();
    LexicalEmbedder::new(vocabulary, 2, &table, dim, Value::Null).expect("a finite table")
}

/// A router whose centroids are the embeddings of some prompts, over a pool of made-up LLMs.
fn snapshot(prompts: &[String], embedder: LexicalEmbedder) -> Snapshot {
    let dim = embedder.dim();
    let mut centroids = vec![0.0; CLUSTERS * dim];
    let some = prompts.iter().step_by(prompts.len() / CLUSTERS);
    for (prompt, out) in some.zip(centroids.chunks_exact_mut(dim)) {
        embedder.embed(prompt, out, &mut Scratch::default());
    }
    let centroids = Centroids::new(&centroids, dim).expect("finite centroids");
    let map = ClusterMap::new(vec![Head::Nearest(centroids)]).expect("one head");
    let snapshot = Snapshot::new(Some(Arc::new(embedder)), map).expect("parts that fit");
    let names: Vec<String> = (0..MODELS).map(|i| format!("llm-{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mixed = |i: usize| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 24) as f32;
    let costs: Vec<f64> = (0..MODELS).map(|i| f64::from(mixed(i))).collect();
    let profiles: Vec<f32> = (MODELS..MODELS * (CLUSTERS + 1)).map(mixed).collect();
    let pool = snapshot.pool().with(&names, &costs, &profiles);
    snapshot.with_pool(pool.expect("distinct names"))
}

/// Prints how long `work` takes on each prompt.
fn time(name: &str, prompts: &[String], mut work: impl FnMut(&str)) {
    let mut best = vec![Duration::MAX; prompts.len()];
    for _ in 0..PASSES {
        for (prompt, best) in prompts.iter().zip(&mut best) {
            let start = Instant::now();
            work(prompt);
            *best = start.elapsed().min(*best);
        }
    }
    best.sort_unstable();
    let us = |d: Duration| d.as_secs_f64() * 1e6;
    let total: Duration = best.iter().sum();
    let bytes: usize = prompts.iter().map(String::len).sum();
    println!(
        "{name:28} p50 {:6.2} us   p99 {:6.2} us   mean {:6.2} us   {:5.0} MB/s",
        us(best[best.len() / 2]),
        us(best[best.len() * 99 / 100]),
        us(total) / prompts.len() as f64,
        bytes as f64 / us(total),
    );
}

fn main() {
    let prompts = prompts();
    let mean = prompts.iter().map(String::len).sum::<usize>() / prompts.len();
    println!("{} prompts, {mean} bytes on average", prompts.len());
    let (mut ids, mut buffers) = (Vec::new(), features::Buffers::default());
    time("feature ids", &prompts, |text| {
        features::collect_ids(text, 2, &mut ids, &mut buffers);
        black_box(&ids);
    });
    for (dim, rows) in [(64, 1 << 15), (128, 1 << 14), (128, 1 << 16)] {
        let embedder = embedder(&prompts, dim, rows);
        for isa in available() {
            let embedder = embedder.clone().with_isa(isa).expect("an available set");
            let (mut scratch, mut out) = (Scratch::default(), vec![0.0; dim]);
            time(
                &format!("{dim} x {rows}, {}", isa.name()),
                &prompts,
                |text| {
                    black_box(embedder.embed(text, &mut out, &mut scratch));
                },
            );
        }
    }
    let snapshot = snapshot(&prompts, embedder(&prompts, 64, 1 << 15));
    let request = Request {
        cost_weight: 0.1,
        ..Request::default()
    };
    let mut scratch = scratch::Scratch::default();
    let name = format!("text to model, {MODELS} LLMs");
    time(&name, &prompts, |text| {
        black_box(snapshot.route(Prompt::Text(Ok(text)), &request, &mut scratch))
            .expect("a routable pool");
    });
}
