//! Stored routers and questions: decisions are those of the NumPy reference
//! (`tests/decision_reference.py`), bit for bit.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use uniroute_core::file::artifact::Artifact;
use uniroute_core::file::persist;
use uniroute_core::request::{
    Prompt,
    constraints::{Constraints, Terms},
};
use uniroute_core::request::{Request, Stay};
use uniroute_core::route::scratch::Scratch;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance")
}

/// A whole number of the file; 0 where it is none, so that a comparison fails.
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

#[test]
fn decisions_are_the_stored_ones_bit_for_bit() -> Result<(), Box<dyn std::error::Error>> {
    let stored = std::fs::read_to_string(folder().join("decisions_v1.json"))?;
    let stored: Value = serde_json::from_str(&stored)?;
    let routers = stored["routers"].as_object().ok_or("no routers")?;
    let mut decided = 0;
    for (name, asked) in routers {
        let artifact = Artifact::load(&folder().join(format!("{name}.uniroute")))?;
        let (snapshot, _) = persist::from_artifact(artifact)?;
        let mut scratch = Scratch::default();
        for ask in asked.as_array().ok_or("no questions")? {
            let bits = ask["embedding"].as_array().ok_or("no embedding")?;
            let embedding: Vec<f32> = bits
                .iter()
                .map(|bits| f32::from_bits(number(bits) as u32))
                .collect();
            let denied = ask["deny"].as_array();
            let constraints = denied.map(|denied| {
                let deny = denied.iter().filter_map(Value::as_str).map(str::to_owned);
                let max_cost = ask["max_cost"].as_f64();
                Constraints::new(Terms {
                    deny: deny.collect(),
                    max_cost,
                    ..Terms::default()
                })
            });
            let compiled = constraints
                .transpose()?
                .map(|constraints| snapshot.compile(&Arc::new(constraints)));
            let current = ask["current_model"].as_str();
            let stay = current
                .and_then(|name| snapshot.pool().position(name))
                .zip(ask["switch_cost"].as_f64())
                .map(|(model, switch_cost)| Stay { model, switch_cost });
            let request = Request {
                cost_weight: ask["cost_weight"].as_f64().ok_or("no cost weight")?,
                constraints: compiled.as_deref(),
                tokens: ask["tokens"].as_u64(),
                stay,
                ..Request::default()
            };
            let row = snapshot.route(Prompt::Embedding(&embedding), &request, &mut scratch)?;
            let found = row.choice.map(|choice| {
                [
                    u64::from(choice.model),
                    u64::from(choice.cluster),
                    u64::from(choice.predicted_loss.to_bits()),
                    choice.cost.to_bits(),
                ]
            });
            let expected = ask["decision"].as_object().map(|decision| {
                ["index", "cluster", "predicted_loss", "cost"].map(|key| number(&decision[key]))
            });
            assert_eq!(found, expected, "{name}: {ask}");
            decided += usize::from(found.is_some());
        }
    }
    assert!(decided > 200, "{decided} decisions");
    Ok(())
}
