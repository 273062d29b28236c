//! `POST /v1/route`: from the body of a request to the body of its answer.
//!
//! Microseconds of work without a lock or a wait, done on the thread that read the request.

use std::cell::RefCell;
use std::sync::Arc;

use hyper::StatusCode;
use serde::{Serialize, Serializer};
use uniroute_core::pool::hull::Candidate;
use uniroute_core::request::constraints::Compiled;
use uniroute_core::request::{self, Prompt, Request, Stay};
use uniroute_core::route::choose;
use uniroute_core::route::scratch::Scratch;
use uniroute_core::route::snapshot::{Row, Snapshot};
use uniroute_core::sys::threads::Run;
use uniroute_core::text::lexical::Status;

use crate::api::explain::Explanation;
use crate::api::question::{Prompts, Question, Text};
use crate::http::refusal::Refusal;
use crate::policy::Asked;

/// Models that the answer to one prompt ranks, unless it is told otherwise.
const RANKED: usize = 3;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The name of what became of a prompt.
pub fn status_name(row: &Row) -> &'static str {
    match (row.status, row.choice) {
        (Status::Ok, None) => "no_candidate",
        (status, _) => status.name(),
    }
}

/// One of the models that may answer, the best first.
#[derive(Serialize)]
struct Ranked<'a> {
    model: &'a str,
    predicted_loss: f32,
    cost: f64,
    /// Predicted loss + cost weight x cost.
    objective: f64,
}

/// What came of a request: the body of its answer, and what to count.
pub struct Answer {
    /// JSON
    pub body: Vec<u8>,
    /// What became of each prompt.
    pub rows: Vec<Row>,
}

/// Bytes of an answer, more or less, that ranks so many models for each prompt. A name of which every
/// character is escaped is twice as long.
pub fn size(prompts: usize, ranked: usize, snapshot: &Snapshot) -> usize {
    let name = 2 * snapshot.pool().names().longest();
    64 + prompts * (256 + name + (128 + name) * ranked)
}

/// Answers a question over a snapshot. `now` is the time by which budgets go.
pub fn answer(
    question: &Question<'_>,
    asked: &Asked<'_>,
    snapshot: &Snapshot,
    now: f64,
) -> Result<Answer, Refusal> {
    SCRATCH.with_borrow_mut(|scratch| match &question.prompts {
        Prompts::Text(text) => one(
            Prompt::Text(Ok(text)),
            question,
            asked,
            snapshot,
            now,
            scratch,
        ),
        Prompts::Embedding(e) => one(
            Prompt::Embedding(e),
            question,
            asked,
            snapshot,
            now,
            scratch,
        ),
        Prompts::Texts(_) | Prompts::Embeddings(_) => many(question, asked, snapshot, now, scratch),
    })
}

/// Decides and ranks for a chat that is passed on: models by index, the best first, each with its
/// cost on this chat; that of the first one is booked.
pub fn rank_chat(
    text: &str,
    asked: &Asked<'_>,
    snapshot: &Snapshot,
    n: usize,
    now: f64,
) -> Result<(Row, Vec<(u32, f64)>), Refusal> {
    SCRATCH.with_borrow_mut(|scratch| {
        let prompt = Prompt::Text(Ok(text));
        let decided = decide(prompt, 0, asked, snapshot, n, now, scratch)?;
        refuse_unrouted(&decided, snapshot, scratch)?;
        let chosen = decided.row.choice.map(|choice| (choice.model, choice.cost));
        let ranked = scratch.ranked().iter().map(|c| (c.model, c.cost));
        let others = ranked.filter(|(model, _)| Some(*model) != chosen.map(|chosen| chosen.0));
        Ok((decided.row, chosen.into_iter().chain(others).collect()))
    })
}

/// What was decided on one prompt, and on what grounds. The ranking is in the scratch.
struct Decided {
    row: Row,
    cost_weight: f64,
    compiled: Option<Arc<Compiled>>,
    tokens: Option<u64>,
    stay: Option<Stay>,
}

impl Decided {
    fn request(&self, fallback: Option<u32>) -> Request<'_> {
        Request {
            cost_weight: self.cost_weight,
            constraints: self.compiled.as_deref(),
            tokens: self.tokens,
            fallback,
            stay: self.stay,
            ..Request::default()
        }
    }
}

/// Chooses a model for one prompt, the `at`-th of its request, books it, and ranks the `n` best.
fn decide(
    prompt: Prompt<'_>,
    at: usize,
    asked: &Asked<'_>,
    snapshot: &Snapshot,
    n: usize,
    now: f64,
    scratch: &mut Scratch,
) -> Result<Decided, Refusal> {
    let own = asked.requests.at(at, prompt.tokens());
    let mut decided = Decided {
        row: Row::default(),
        cost_weight: match asked.pacer {
            Some(pacer) => pacer.show(now).cost_weight,
            None => own.cost_weight,
        },
        compiled: asked.requests.constraints.at(at).clone(),
        tokens: own.tokens,
        stay: own.stay,
    };
    let mut route = |request: &Request<'_>| snapshot.route(prompt, request, scratch);
    decided.row = route(&Request {
        counted: true,
        ranked: n,
        ..decided.request(asked.requests.fallback)
    })?;
    // At the price of the moment; else the best of those that can still be paid for.
    while let (Some(pacer), Some(choice)) = (asked.pacer, decided.row.choice)
        && !pacer.book(choice.cost, Some(choice.cluster), now)
    {
        decided.compiled = Some(asked.capped(pacer.show(now).most, snapshot)?);
        decided.row = route(&Request {
            ranked: n,
            ..decided.request(None)
        })?;
        if decided.row.choice.is_none() {
            return Err(exhausted());
        }
    }
    Ok(decided)
}

fn exhausted() -> Refusal {
    let message = "budget: what is left of this period's pays for no model that may answer";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "budget_exhausted", message)
}

/// Fails if the prompt goes to no model.
fn refuse_unrouted(
    decided: &Decided,
    snapshot: &Snapshot,
    scratch: &Scratch,
) -> Result<(), Refusal> {
    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
    match (decided.row.status, decided.row.choice) {
        (Status::Ok, Some(_)) => Ok(()),
        (Status::Ok, None) => {
            let blend = snapshot.blend(scratch.phi());
            Err(choose::nobody(snapshot.pool(), blend, &decided.request(None)).into())
        }
        (status, _) => {
            let name = status.name();
            let message = format!("text: {name}; expected text that the embedder knows");
            Err(Refusal::new(unprocessable, name, message))
        }
    }
}

fn one(
    prompt: Prompt<'_>,
    question: &Question<'_>,
    asked: &Asked<'_>,
    snapshot: &Snapshot,
    now: f64,
    scratch: &mut Scratch,
) -> Result<Answer, Refusal> {
    let n = question.top.unwrap_or(RANKED);
    let decided = decide(prompt, 0, asked, snapshot, n, now, scratch)?;
    refuse_unrouted(&decided, snapshot, scratch)?;
    let explanation = (question.explain.then_some(decided.row.choice).flatten()).map(|choice| {
        let request = decided.request(asked.requests.fallback);
        Explanation::of(snapshot, scratch.phi(), &request, &choice)
    });
    let mut body = Vec::with_capacity(1024);
    put(&mut body, "{\"version\":", &snapshot.version());
    body.push(b',');
    put_decision(&mut body, &decided.row, snapshot);
    put_ranked(&mut body, &decided, n, scratch.ranked(), snapshot);
    put(&mut body, ",\"cost_weight\":", &decided.cost_weight);
    put(&mut body, ",\"tokens\":", &decided.tokens);
    if let Some(explanation) = explanation {
        put(&mut body, ",\"explanation\":", &explanation?);
    }
    body.push(b'}');
    Ok(Answer {
        body,
        rows: vec![decided.row],
    })
}

fn many(
    question: &Question<'_>,
    asked: &Asked<'_>,
    snapshot: &Snapshot,
    now: f64,
    scratch: &mut Scratch,
) -> Result<Answer, Refusal> {
    let texts: Vec<request::Text<'_>>;
    let embeddings: Vec<f32>;
    let prompts = match &question.prompts {
        Prompts::Embeddings(rows) => {
            embeddings = flatten(rows, snapshot.map().dim())?;
            request::Prompts::Embeddings(&embeddings)
        }
        Prompts::Texts(given) => {
            texts = given.iter().map(|text| as_row(text.as_ref())).collect();
            request::Prompts::Texts(&texts)
        }
        Prompts::Text(_) | Prompts::Embedding(_) => request::Prompts::Texts(&[]),
    };
    let n = question.top.unwrap_or(0);
    let mut body = Vec::with_capacity(64 + 256 * question.prompts.len());
    put(&mut body, "{\"version\":", &snapshot.version());
    body.extend_from_slice(b",\"decisions\":[");
    let mut rows;
    if n == 0 && asked.pacer.is_none() {
        // On this thread: others have requests of their own to answer.
        let here = Run {
            threads: 1,
            interrupted: &|| false,
        };
        rows = snapshot.route_batch(prompts, &asked.requests, &here)?;
        for (i, row) in rows.iter().enumerate() {
            body.extend_from_slice(if i > 0 { b",{" } else { b"{" });
            put_decision(&mut body, row, snapshot);
            body.push(b'}');
        }
    } else {
        rows = Vec::new();
        for (i, prompt) in each(prompts, snapshot.map().dim()).enumerate() {
            let decided = match decide(prompt, i, asked, snapshot, n, now, scratch) {
                Ok(decided) => decided,
                Err(refusal) => {
                    // All or none: what was booked for the prompts before this one is given back.
                    unbook(asked, &rows, now)?;
                    return Err(refusal);
                }
            };
            body.extend_from_slice(if i > 0 { b",{" } else { b"{" });
            put_decision(&mut body, &decided.row, snapshot);
            put_ranked(&mut body, &decided, n, scratch.ranked(), snapshot);
            body.push(b'}');
            rows.push(decided.row);
        }
    }
    body.extend_from_slice(b"]}");
    Ok(Answer { body, rows })
}

fn unbook(asked: &Asked<'_>, rows: &[Row], now: f64) -> Result<(), Refusal> {
    if let Some(pacer) = asked.pacer {
        let booked = rows.iter().filter_map(|row| row.choice).map(|c| c.cost);
        pacer.settle(booked.sum(), 0.0, now)?;
    }
    Ok(())
}

fn as_row<'a>(text: Option<&'a Text<'_>>) -> request::Text<'a> {
    text.map(|text| &*text.0).ok_or(Status::Null)
}

/// Prompts one by one.
fn each<'a>(
    prompts: request::Prompts<'a>,
    dim: usize,
) -> Box<dyn Iterator<Item = Prompt<'a>> + 'a> {
    match prompts {
        request::Prompts::Texts(texts) => Box::new(texts.iter().map(|text| Prompt::Text(*text))),
        request::Prompts::Embeddings(all) => Box::new(all.chunks(dim).map(Prompt::Embedding)),
        // No request has these.
        request::Prompts::Embedded(_) => Box::new(std::iter::empty()),
    }
}

/// Rows of one length, one after the other.
fn flatten(rows: &[Vec<f32>], dim: usize) -> Result<Vec<f32>, Refusal> {
    if let Some(at) = rows.iter().position(|row| row.len() != dim) {
        let problem = format!("{} values in row {at}", rows[at].len());
        return Err(Refusal::field(
            "embeddings",
            &problem,
            &format!("{dim} in each"),
        ));
    }
    Ok(rows.concat())
}

/// Appends the fields that tell what became of a prompt, without braces. Written out by hand, for
/// what is the same in every decision need not be looked through for what JSON escapes.
fn put_decision(body: &mut Vec<u8>, row: &Row, snapshot: &Snapshot) {
    let choice = row.choice.as_ref();
    let model = choice.map(|c| &snapshot.pool().names()[c.model as usize]);
    body.extend_from_slice(b"\"status\":\"");
    body.extend_from_slice(status_name(row).as_bytes());
    put(body, "\",\"model\":", &model);
    put(
        body,
        ",\"predicted_loss\":",
        &choice.map(|c| c.predicted_loss),
    );
    put(body, ",\"cost\":", &choice.map(|c| c.cost));
    put(body, ",\"cluster\":", &choice.map(|c| c.cluster));
    put(body, ",\"coverage\":", &row.coverage);
    body.extend_from_slice(b",\"reason\":\"");
    body.extend_from_slice(reason(row).as_bytes());
    body.push(b'"');
    if choice.is_some_and(|c| c.stayed) {
        body.extend_from_slice(b",\"stayed\":true");
    }
}

/// Why, in words that need no escapes in JSON.
fn reason(row: &Row) -> &'static str {
    match row.choice {
        Some(choice) if choice.fallback => "fallback: no model meets the constraints",
        Some(choice) if choice.stayed => "the current model: a switch costs more than it gains",
        Some(_) => "least predicted loss + cost weight x cost",
        None if row.status == Status::Ok => "no model meets the constraints",
        None => "the text cannot be embedded",
    }
}

/// Appends the `n` best models, if there are any.
fn put_ranked(
    body: &mut Vec<u8>,
    decided: &Decided,
    n: usize,
    ranked: &[Candidate],
    snapshot: &Snapshot,
) {
    if decided.row.status != Status::Ok || n == 0 || ranked.is_empty() {
        return;
    }
    let names = snapshot.pool().names();
    let ranked = ranked.iter().take(n).map(|candidate| Ranked {
        model: &names[candidate.model as usize],
        predicted_loss: candidate.loss as f32,
        cost: candidate.cost,
        objective: finite(candidate.objective(decided.cost_weight)),
    });
    body.extend_from_slice(b",\"ranked\":");
    let mut serializer = serde_json::Serializer::new(body);
    // Only a map with keys that are no strings, or a failing writer, could fail.
    let _ = serializer.collect_seq(ranked);
}

/// A number that JSON can say: one that has overflowed is the largest there is.
pub fn finite(objective: f64) -> f64 {
    objective.min(f64::MAX)
}

/// Appends a field: `name` is written as it is, punctuation included.
fn put(body: &mut Vec<u8>, name: &str, value: &impl Serialize) {
    body.extend_from_slice(name.as_bytes());
    // As above.
    let _ = serde_json::to_writer(body, value);
}

#[cfg(test)]
mod tests {
    use uniroute_core::route::choose::Choice;

    use super::*;

    #[test]
    fn words_need_no_escapes() {
        let choice = Choice {
            model: 0,
            cluster: 0,
            predicted_loss: 0.0,
            cost: 0.0,
            fallback: false,
            stayed: false,
        };
        let choices = [
            None,
            Some(choice),
            Some(Choice {
                fallback: true,
                ..choice
            }),
            Some(Choice {
                stayed: true,
                ..choice
            }),
        ];
        for choice in choices {
            for status in [Status::Ok, Status::Empty, Status::Blank, Status::Null] {
                let row = Row {
                    status,
                    coverage: 1.0,
                    choice,
                };
                for word in [reason(&row), status_name(&row)] {
                    assert_eq!(serde_json::to_string(word).unwrap(), format!("\"{word}\""));
                }
            }
        }
    }
}
