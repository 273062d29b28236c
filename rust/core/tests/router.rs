//! The whole path on a small router: text and embeddings, hard and soft maps, saved and loaded.

use std::collections::BTreeMap;
use std::sync::Arc;

use uniroute_core::clusters::centroids::Centroids;
use uniroute_core::clusters::cluster_map::{ClusterMap, Head, Softmax};
use uniroute_core::file::artifact::Artifact;
use uniroute_core::file::persist::{self, Extra};
use uniroute_core::file::tensor::Tensor;
use uniroute_core::pool::changes::Action;
use uniroute_core::pool::table::STRIP;
use uniroute_core::request::{PerPrompt, Prompt, Prompts, Request, Requests};
use uniroute_core::route::router::Router;
use uniroute_core::route::scratch::Scratch;
use uniroute_core::route::snapshot::Snapshot;
use uniroute_core::sys::threads::Run;
use uniroute_core::text::fit::FeatureCounter;
use uniroute_core::text::lexical::{LexicalEmbedder, Status};
use uniroute_core::{Error, Result};

const DIM: usize = 8;
const TEXTS: [&str; 4] = [
    "Prove that the square root of two is irrational.",
    "Write a function that sorts a list of integers.",
    "Which city is the capital of Australia?",
    "Summarise the plot of Hamlet in two sentences.",
];

/// Numbers between 0 and 1 that look random and are the same in every run.
fn noise(n: usize, salt: u64) -> impl Iterator<Item = f32> {
    (0..n as u64).map(move |i| {
        let mixed = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ salt.wrapping_mul(0xd129_0d3b));
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f32
            / (1 << 24) as f32
    })
}

fn embedder() -> Result<Arc<LexicalEmbedder>> {
    let mut counter = FeatureCounter::new(2)?;
    for text in TEXTS {
        counter.add(text);
    }
    let vocabulary = counter.vocabulary(1, 1 << 12)?;
    let table: Vec<f32> = noise(vocabulary.rows() * DIM, 1).map(|v| v - 0.5).collect();
    Ok(Arc::new(LexicalEmbedder::new(
        vocabulary,
        2,
        &table,
        DIM,
        serde_json::Value::Null,
    )?))
}

fn nearest() -> Result<Head> {
    let centroids: Vec<f32> = noise(5 * DIM, 2).map(|v| v - 0.5).collect();
    Ok(Head::Nearest(Centroids::new(&centroids, DIM)?))
}

fn softmax() -> Result<Head> {
    let weights: Vec<f32> = noise(7 * DIM, 3).map(|v| 9.0 * v).collect();
    Ok(Head::Softmax(Softmax::new(&weights, &[0.1; 7], 0.05)?))
}

/// More models than one strip holds.
fn snapshot(heads: Vec<Head>) -> Result<Snapshot> {
    let snapshot = Snapshot::new(Some(embedder()?), ClusterMap::new(heads)?)?;
    let n = STRIP + 37;
    let clusters = snapshot.map().clusters();
    let names: Vec<String> = (0..n).map(|i| format!("model-{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let costs: Vec<f64> = noise(n, 4).map(f64::from).collect();
    let profiles: Vec<f32> = noise(n * clusters, 5).collect();
    Ok(snapshot.with_pool(snapshot.pool().with(&names, &costs, &profiles)?))
}

/// Requests of these cost weights that ask nothing else.
fn weighted(cost_weights: PerPrompt<f64>) -> Requests {
    Requests {
        cost_weights,
        ..Requests::at_cost_weight(0.0)
    }
}

fn every_map() -> Result<Vec<Snapshot>> {
    Ok(vec![
        snapshot(vec![nearest()?])?,
        snapshot(vec![softmax()?])?,
        snapshot(vec![nearest()?, softmax()?])?,
    ])
}

#[test]
fn a_batch_routes_as_single_prompts_do_and_as_the_predicted_losses_say() -> Result<()> {
    for snapshot in every_map()? {
        let texts: Vec<_> = (0..500).map(|i| Ok(TEXTS[i % 4])).collect();
        let weights: Vec<f64> = noise(500, 6).map(f64::from).collect();
        let prompts = Prompts::Texts(&texts);
        let requests = weighted(PerPrompt::Each(weights.clone()));
        let rows = snapshot.route_batch(prompts, &requests, &Run::default())?;
        let mut losses = vec![0.0; 500 * snapshot.pool().len()];
        snapshot.predict_loss(prompts, &mut losses, &Run::default())?;
        // What was embedded before is routed the same.
        let before = snapshot.embed_all(prompts, PerPrompt::Same(None), &Run::default())?;
        let embedded = Prompts::Embedded(&before);
        assert_eq!(
            rows,
            snapshot.route_batch(embedded, &requests, &Run::default())?
        );
        let mut again = vec![0.0; losses.len()];
        snapshot.predict_loss(embedded, &mut again, &Run::default())?;
        assert_eq!(losses, again);
        let mut scratch = Scratch::default();
        for (i, row) in rows.iter().enumerate() {
            let request = Request {
                cost_weight: weights[i],
                ..Request::default()
            };
            assert_eq!(
                *row,
                snapshot.route(Prompt::Text(texts[i]), &request, &mut scratch)?
            );
            let one = before.select(&[i]);
            let one = Prompt::Embedded(&one);
            assert_eq!(*row, snapshot.route(one, &request, &mut scratch)?);
            let choice = row.choice.ok_or(Error::EmptyPool)?;
            let own = &losses[i * snapshot.pool().len()..][..snapshot.pool().len()];
            let objective = |m: usize| f64::from(own[m]) + weights[i] * snapshot.pool().costs()[m];
            let best = (0..own.len())
                .min_by(|&a, &b| objective(a).total_cmp(&objective(b)))
                .ok_or(Error::EmptyPool)?;
            assert_eq!(choice.model as usize, best);
            assert_eq!(choice.predicted_loss, own[best]);
        }
    }
    Ok(())
}

#[test]
fn what_is_loaded_routes_as_what_was_saved() -> Result<()> {
    let embeddings: Vec<f32> = noise(200 * DIM, 7).map(|v| v - 0.5).collect();
    for snapshot in every_map()? {
        let tensors = BTreeMap::from([("mu".to_owned(), Tensor::new(&[2], [0.5f64, 0.25]))]);
        let extra = Extra {
            json: serde_json::json!({"a": [1, 2.5]}),
            tensors,
        };
        let bytes = persist::to_artifact(&snapshot, extra.clone()).to_bytes()?;
        let (loaded, loaded_extra) = persist::from_artifact(Artifact::from_bytes(&bytes)?)?;
        assert_eq!(loaded_extra, extra);
        let texts = TEXTS.map(Ok);
        for prompts in [Prompts::Embeddings(&embeddings), Prompts::Texts(&texts)] {
            for weight in [0.0, 0.2, 5.0] {
                let weight = &Requests::at_cost_weight(weight);
                assert_eq!(
                    loaded.route_batch(prompts, weight, &Run::default())?,
                    snapshot.route_batch(prompts, weight, &Run::default())?,
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_prompt_that_cannot_be_embedded_has_a_status_and_no_choice() -> Result<()> {
    let snapshot = snapshot(vec![nearest()?])?;
    let texts = [
        Ok(""),
        Ok(" \n"),
        Ok("日本"),
        Err(Status::Null),
        Ok(TEXTS[0]),
    ];
    let rows = snapshot.route_batch(
        Prompts::Texts(&texts),
        &Requests::at_cost_weight(0.0),
        &Run::default(),
    )?;
    let status: Vec<_> = rows.iter().map(|row| row.status).collect();
    assert_eq!(
        status,
        [
            Status::Empty,
            Status::Blank,
            Status::Unknown,
            Status::Null,
            Status::Ok
        ]
    );
    assert!(rows[..4].iter().all(|row| row.choice.is_none()));
    assert!(rows[4].choice.is_some());
    Ok(())
}

#[test]
fn bad_input_is_refused() -> Result<()> {
    let snapshot = snapshot(vec![nearest()?])?;
    let run = Run::default();
    let route = |prompts, weights| {
        snapshot
            .route_batch(prompts, &weighted(weights), &run)
            .unwrap_err()
            .to_string()
    };
    let nan = [0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0];
    assert!(route(Prompts::Embeddings(&nan), PerPrompt::Same(0.0)).contains("row 0, column 3"));
    let short = Prompts::Embeddings(&nan[..3]);
    assert!(route(short, PerPrompt::Same(0.0)).contains("rows of 8"));
    let fine = [0.0; DIM];
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        let message = route(Prompts::Embeddings(&fine), PerPrompt::Same(weight));
        assert!(message.starts_with("cost_weight"), "{message}");
    }
    let message = route(Prompts::Embeddings(&fine), PerPrompt::Each(vec![0.0, 0.0]));
    assert!(message.contains("2 values for 1 prompts"), "{message}");
    Ok(())
}

#[test]
fn readers_see_whole_snapshots_while_a_writer_changes_the_pool() -> Result<()> {
    let router = Router::new(snapshot(vec![nearest()?, softmax()?])?);
    let texts = TEXTS.map(Ok);
    let changes = std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<u64> {
            for i in 0..200 {
                let name = format!("new-{i}");
                let profile = vec![0.001 * i as f32; 12];
                router.change(Action::Add, &[&name], |pool| {
                    pool.with(&[&name], &[0.5], &profile)
                })?;
                router.change(Action::Cost, &[&name], |pool| pool.with_cost(&name, 0.25))?;
                router.change(Action::Remove, &[&name], |pool| pool.without(&name))?;
            }
            Ok(600)
        });
        while !writer.is_finished() {
            let snapshot = router.snapshot();
            let weight = &Requests::at_cost_weight(0.1);
            let rows = snapshot.route_batch(Prompts::Texts(&texts), weight, &Run::default())?;
            let again = snapshot.route_batch(Prompts::Texts(&texts), weight, &Run::default())?;
            assert_eq!(rows, again);
            let models = snapshot.pool().len();
            assert!(
                rows.iter()
                    .all(|r| r.choice.is_some_and(|c| (c.model as usize) < models))
            );
        }
        writer.join().unwrap_or(Err(Error::Interrupted))
    })?;
    assert_eq!(router.snapshot().version(), 1 + changes);
    Ok(())
}
