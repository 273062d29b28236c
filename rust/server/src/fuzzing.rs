//! What the targets in `fuzz/` run, and what tests run on the inputs that are kept there.
//!
//! Each takes any bytes and panics if something is not as it should be.

#![allow(clippy::missing_panics_doc)]

use std::sync::LazyLock;

use uniroute_core::file::artifact::Artifact;
use uniroute_core::file::persist;
use uniroute_core::route::snapshot::Snapshot;
use uniroute_core::text::chat::ChatText;

use crate::api::models;
use crate::api::observe::Observed;
use crate::api::question::Question;
use crate::api::route;
use crate::config::Config;
use crate::http::refusal::Refusal;
use crate::policy::Policies;

/// A fitted router of the tests.
static ROUTER: LazyLock<Snapshot> = LazyLock::new(|| {
    let bytes = include_bytes!("../../../fuzz/seeds/router.uniroute");
    let loaded = Artifact::from_bytes(bytes).and_then(persist::from_artifact);
    loaded.expect("the tests' own file").0
});

static POLICIES: LazyLock<Policies> = LazyLock::new(|| {
    let settings = r#"{"policies": {"p": {"cost_weight": 0.1, "constraints": {"deny": ["x*"]},
        "budget": {"amount": 5, "seconds": 60}}}}"#;
    let config = Config::read(None, settings).expect("settings");
    Policies::new(&config, 0.0).expect("policies")
});

/// Fails on a refusal that is too long, or not JSON.
fn check(refusal: &Refusal) {
    let body = refusal.body();
    assert!(body.len() <= 2048, "{} bytes", body.len());
    let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert!(
        json["error"]["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
}

/// A body of `/v1/route`: refused, or answered in JSON.
pub fn question(data: &[u8]) {
    let answer = Question::parse(data, 64).and_then(|question| {
        let asked = POLICIES.resolve(&question, &ROUTER)?;
        route::answer(&question, &asked, &ROUTER, 0.0)
    });
    match answer {
        Ok(answer) => {
            let _: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        }
        Err(refusal) => check(&refusal),
    }
}

/// The messages of a chat, which are never longer as text; and the other bodies that are parsed.
pub fn chat(data: &[u8]) {
    if let Ok(text) = serde_json::from_slice::<ChatText<'_>>(data) {
        assert!(text.0.len() <= data.len());
    }
    let _ = Observed::parse(data).map_err(|refusal| check(&refusal));
    let _ = models::parse(data).map_err(|refusal| check(&refusal));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a target on every input that is kept for it.
    fn replay(name: &str, target: fn(&[u8])) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/");
        let inputs = std::fs::read_dir(format!("{folder}{name}")).unwrap();
        let mut count = 0;
        for input in inputs {
            target(&std::fs::read(input.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "no inputs of {name}");
    }

    #[test]
    fn kept_questions() {
        replay("question", question);
    }

    #[test]
    fn kept_chats() {
        replay("chat", chat);
    }
}
