#![allow(missing_docs)]
use uniroute_core::lexical::fit::FeatureCounter;
use uniroute_core::lexical::{LexicalEmbedder, Scratch};
fn main() {
    let text = std::fs::read_to_string("/tmp/mmlu.txt").unwrap();
    let prompts: Vec<&str> = text.split('\0').collect();
    let mut c = FeatureCounter::new(2).unwrap();
    prompts.iter().for_each(|t| c.add(t));
    let v = c.vocabulary(2, 1 << 16).unwrap();
    let dim = 64;
    let table: Vec<f32> = (0..v.rows() * dim)
        .map(|i| (i % 255) as f32 - 127.0)
        .collect();
    let e = LexicalEmbedder::new(v, 2, &table, dim, serde_json::Value::Null).unwrap();
    let mut sc = Scratch::default();
    let mut out = vec![0.0; dim];
    for _ in 0..40 {
        for p in &prompts {
            e.embed(p, &mut out, &mut sc);
        }
    }
}
