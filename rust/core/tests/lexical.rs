//! The lexical embedder from outside: its feature ids are those of the conformance file, and a
//! warm call allocates nothing.

use serde::Deserialize;
use serde_json::Value;
use uniroute_core::text::features::{Buffers, MAX_ORDER, VERSION, collect_ids};
use uniroute_core::text::fit::FeatureCounter;
use uniroute_core::text::lexical::{LexicalEmbedder, Scratch, Status};

#[derive(Deserialize)]
struct Conformance {
    version: u32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: std::collections::BTreeMap<usize, Vec<u32>>,
}

fn conformance() -> Conformance {
    let file = include_str!("../../../tests/conformance/lexical_v1.json");
    serde_json::from_str(file).unwrap()
}

#[test]
fn features_are_those_of_the_conformance_file() {
    let conformance = conformance();
    assert_eq!(conformance.version, VERSION);
    let (mut ids, mut buffers) = (Vec::new(), Buffers::default());
    for case in &conformance.cases {
        assert_eq!(case.ids.len(), MAX_ORDER);
        for (&order, expected) in &case.ids {
            collect_ids(&case.text, order, &mut ids, &mut buffers);
            ids.sort_unstable();
            assert_eq!(&ids, expected, "order {order} of {:?}", case.text);
        }
    }
}

#[test]
fn a_warm_call_allocates_nothing() {
    let texts: Vec<String> = conformance()
        .cases
        .into_iter()
        .map(|case| case.text)
        .collect();
    let mut counter = FeatureCounter::new(2).unwrap();
    for text in &texts {
        counter.add(text);
    }
    let vocabulary = counter.vocabulary(1, 1 << 12).unwrap();
    let table: Vec<f32> = (0..vocabulary.rows() * 64)
        .map(|i| (i % 251) as f32 - 125.0)
        .collect();
    let embedder = LexicalEmbedder::new(vocabulary, 2, &table, 64, Value::Null).unwrap();
    let (mut out, mut scratch) = (vec![0.0; 64], Scratch::default());
    let warm = embedder.embed(&texts[4], &mut out, &mut scratch);
    assert_eq!(warm.status, Status::Ok);

    let long = texts.concat().repeat(500);
    for text in texts.iter().chain([&long]) {
        let mut status = Status::Null;
        let counted = allocation_counter::measure(|| {
            status = embedder.embed(text, &mut out, &mut scratch).status;
        });
        assert_eq!(counted.count_total, 0, "{} bytes, {status:?}", text.len());
    }
}
