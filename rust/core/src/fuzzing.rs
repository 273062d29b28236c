//! What the targets in `fuzz/` run, and what tests run on the inputs that are kept there.
//!
//! Each takes any bytes and panics if something is not as it should be.

#![allow(clippy::missing_panics_doc)]

use std::sync::{Arc, LazyLock};

use crate::file::artifact::Artifact;
use crate::file::persist;
use crate::file::read::Unread;
use crate::kernels;
use crate::pool::Pool;
use crate::pool::metadata::Metadata;
use crate::request::constraints::{Constraints, Terms};
use crate::request::{Prompt, Request};
use crate::route::scratch::Scratch;
use crate::route::snapshot::Snapshot;
use crate::text::lexical::{self, LexicalEmbedder};

/// A router that embeds text, as a file.
const FITTED: &[u8] = include_bytes!("../../../fuzz/seeds/router.uniroute");

/// That router.
pub static ROUTER: LazyLock<Snapshot> = LazyLock::new(|| {
    let loaded = Artifact::from_bytes(FITTED).and_then(persist::from_artifact);
    loaded.expect("the tests' own file").0
});

/// The same with 70 models that differ in what constraints look at.
static POOL: LazyLock<Snapshot> = LazyLock::new(|| {
    let names: Vec<String> = (0..70).map(|m| format!("maker{}/m{m}", m % 3)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let clusters = ROUTER.map().clusters();
    let costs: Vec<f64> = (0..70).map(f64::from).collect();
    let losses: Vec<f32> = (0..70 * clusters).map(|i| (i % 11) as f32 / 11.0).collect();
    let mut pool = Pool::new(clusters)
        .with(&names, &costs, &losses)
        .expect("a pool");
    for (m, name) in names.iter().enumerate() {
        let metadata = Metadata {
            tags: (0..m % 4).map(|t| format!("t:{}", t * m)).collect(),
            context_length: (m % 5 > 0).then_some(1000 * m as u64),
            latency: (m % 7 > 0).then_some(m as f64 / 10.0),
            ..Metadata::default()
        };
        pool = pool.with_metadata(name, metadata).expect("metadata");
        pool = pool.with_enabled(name, m % 9 > 0).expect("a model");
    }
    ROUTER.with_pool(pool)
});

/// A file's bytes: refused, or a router that routes and is written as it was read.
pub fn artifact(data: &[u8]) {
    let Ok((snapshot, extra)) = Artifact::from_bytes(data).and_then(persist::from_artifact) else {
        return;
    };
    let request = Request {
        cost_weight: 0.5,
        tokens: Some(7),
        ..Request::default()
    };
    let mut scratch = Scratch::default();
    let _ = snapshot.route(Prompt::Text(Ok("what is 3 + 4?")), &request, &mut scratch);
    let embedding = vec![0.25; snapshot.map().dim()];
    let routed = snapshot.route(Prompt::Embedding(&embedding), &request, &mut scratch);
    if let Some(choice) = routed.ok().and_then(|row| row.choice) {
        assert!(choice.predicted_loss.is_finite() && choice.cost.is_finite());
        assert!((choice.model as usize) < snapshot.pool().len());
    }
    let written = persist::to_artifact(&snapshot, extra);
    let bytes = written.to_bytes().expect("what was read can be written");
    let again = Artifact::from_bytes(&bytes).and_then(Unread::read);
    assert_eq!(again.expect("and read again"), written);
}

/// Lines that begin with `a`, `d`, `f`, `r`, `c`, `l` or `n` are the terms of constraints. Every model is
/// either allowed or excluded, and what is excluded has a reason.
pub fn constraints(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut terms = Terms::default();
    for line in text.lines().filter(|line| line.is_char_boundary(1)) {
        let (kind, rest) = line.split_at(line.len().min(1));
        match kind {
            "a" => terms.allow.get_or_insert_default().push(rest.into()),
            "d" => terms.deny.push(rest.into()),
            "f" => terms.forbid_tags.push(rest.into()),
            "r" => (terms.require_tags).push(rest.split(',').map(Into::into).collect()),
            "c" => terms.max_cost = rest.parse().ok(),
            "l" => terms.max_latency = rest.parse().ok(),
            "n" => (terms.fit_context, terms.answer_tokens) = (true, rest.parse().unwrap_or(0)),
            _ => {}
        }
    }
    let constraints = match Constraints::new(terms) {
        Ok(constraints) => Arc::new(constraints),
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let pool = POOL.pool();
    let compiled = POOL.compile(&constraints);
    let tokens = Some(20_000);
    let allowed = compiled
        .allowed(pool, tokens)
        .expect("tokens are known")
        .mask();
    let (excluded, count) = (compiled.excluded(pool, tokens, pool.costs(), 10)).expect("as above");
    assert_eq!(allowed.count() + count, pool.len());
    assert_eq!(excluded.len(), count.min(10));
    for one in excluded {
        assert!(!one.reasons.is_empty() && !allowed.contains(one.model as usize));
        assert!(one.reasons.iter().all(|reason| reason.len() < 4096));
    }
}

/// Any text has the same embedding on every instruction set.
pub fn lexical(data: &[u8]) {
    static EMBEDDERS: LazyLock<Vec<LexicalEmbedder>> = LazyLock::new(|| {
        let one = ROUTER.embedder().expect("it embeds text");
        let isas = kernels::available().into_iter();
        let with = |isa| LexicalEmbedder::clone(one).with_isa(isa).ok();
        isas.filter_map(with).collect()
    });
    let text = String::from_utf8_lossy(data);
    let mut all = EMBEDDERS.iter().map(|embedder| {
        let mut out = vec![0.0; embedder.dim()];
        let embedded = embedder.embed(&text, &mut out, &mut lexical::Scratch::default());
        assert!(out.iter().all(|value| value.is_finite()));
        assert!((0.0..=1.0).contains(&embedded.coverage));
        (embedded, out)
    });
    let first = all.next().expect("the portable one");
    assert!(all.all(|other| other == first));
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
    fn kept_artifacts() {
        replay("artifact", artifact);
    }

    #[test]
    fn kept_constraints() {
        replay("constraints", constraints);
    }

    #[test]
    fn kept_texts() {
        replay("lexical", lexical);
    }
}
