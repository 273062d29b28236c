//! `POST /v1/route`: from the body of a request to the body of its answer.
//!
//! Microseconds of work without a lock or a wait, done on the thread that read the request.

use std::cell::RefCell;
use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use uniroute_core::constraints::Compiled;
use uniroute_core::lexical::Status;
use uniroute_core::ranking::Ranking;
use uniroute_core::router::{
    self, PerRow, Request, Requests, Row, Scratch, Snapshot, estimate_tokens,
};
use uniroute_core::threads::Run;

use crate::explain::{Explanation, explain};
use crate::policy::Asked;
use crate::question::{Prompts, Question, Text};
use crate::refusal::Refusal;

/// Models that the answer to one prompt ranks, unless it is told otherwise.
const RANKED: usize = 3;

/// Room for the work on one request; grows once, then is reused.
#[derive(Default)]
struct Room {
    scratch: Scratch,
    ranking: Ranking,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::default();
}

/// The name of what became of a prompt.
pub fn status_name(row: &Row) -> &'static str {
    match (row.status, row.choice) {
        (Status::Ok, None) => "no_candidate",
        (status, _) => status.name(),
    }
}

/// The answer to one prompt.
#[derive(Serialize)]
struct One<'a> {
    version: u64,
    #[serde(flatten)]
    decision: Decision<'a>,
    cost_weight: f64,
    tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explanation<'a>>,
}

/// The answer to many.
#[derive(Serialize)]
struct Many<'a> {
    version: u64,
    decisions: Vec<Decision<'a>>,
}

/// What became of one prompt.
#[derive(Serialize)]
struct Decision<'a> {
    status: &'static str,
    model: Option<&'a str>,
    predicted_loss: Option<f32>,
    cost: Option<f64>,
    cluster: Option<u32>,
    coverage: f32,
    reason: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranked: Vec<Ranked<'a>>,
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

/// Answers a question over a snapshot. `now` is the time by which budgets go.
pub fn answer(
    question: &Question<'_>,
    asked: &Asked<'_>,
    snapshot: &Snapshot,
    now: f64,
) -> Result<Answer, Refusal> {
    ROOM.with_borrow_mut(|room| match &question.prompts {
        Prompts::Text(text) => one(Prompt::Text(Ok(text)), question, asked, snapshot, now, room),
        Prompts::Embedding(e) => one(Prompt::Embedding(e), question, asked, snapshot, now, room),
        Prompts::Texts(_) | Prompts::Embeddings(_) => many(question, asked, snapshot, now, room),
    })
}

/// Decides and ranks for a chat that is passed on: models by index, the best first.
pub fn rank_chat(
    text: &str,
    asked: &Asked<'_>,
    snapshot: &Snapshot,
    n: usize,
    now: f64,
) -> Result<(Row, Vec<u32>), Refusal> {
    ROOM.with_borrow_mut(|room| {
        let prompt = Prompt::Text(Ok(text));
        let decided = decide(prompt, asked, snapshot, asked.cost_weight, n, now, room)?;
        refuse_unrouted(&decided, snapshot, room)?;
        let chosen = decided.row.choice.map(|choice| choice.model);
        let ranked = room.ranking.candidates().map(|c| c.model);
        let others = ranked.filter(|model| Some(*model) != chosen);
        Ok((decided.row, chosen.into_iter().chain(others).collect()))
    })
}

/// One prompt of a request.
#[derive(Clone, Copy)]
enum Prompt<'a> {
    Text(router::Text<'a>),
    Embedding(&'a [f32]),
}

/// What was decided on one prompt, and on what grounds. The ranking is in the room.
struct Decided {
    row: Row,
    cost_weight: f64,
    /// What stops models, if nothing else then that some are disabled.
    compiled: Arc<Compiled>,
    tokens: Option<u64>,
}

impl Decided {
    fn request(&self, fallback: Option<u32>) -> Request<'_> {
        Request {
            cost_weight: self.cost_weight,
            constraints: Some(&self.compiled),
            tokens: self.tokens,
            fallback,
            ..Request::default()
        }
    }
}

/// Chooses a model for one prompt, books it, and ranks the `n` best.
fn decide(
    prompt: Prompt<'_>,
    asked: &Asked<'_>,
    snapshot: &Snapshot,
    cost_weight: f64,
    n: usize,
    now: f64,
    room: &mut Room,
) -> Result<Decided, Refusal> {
    let estimate = || match prompt {
        Prompt::Text(text) => text.ok().map(estimate_tokens),
        Prompt::Embedding(_) => None,
    };
    let unconstrained = || snapshot.compile(&Arc::default());
    let compiled = asked.compiled.as_ref().map(Arc::clone);
    let mut decided = Decided {
        row: Row {
            status: Status::Ok,
            coverage: 1.0,
            choice: None,
        },
        cost_weight: match asked.pacer {
            Some(pacer) => pacer.show(now).cost_weight,
            None => cost_weight,
        },
        compiled: compiled.unwrap_or_else(unconstrained),
        tokens: asked.tokens.or_else(estimate),
    };
    let scratch = &mut room.scratch;
    let mut route = |request: &Request<'_>| match prompt {
        Prompt::Text(text) => snapshot.route_text(text, request, scratch),
        Prompt::Embedding(embedding) => snapshot.route_embedding(embedding, request, scratch),
    };
    decided.row = route(&Request {
        counted: true,
        ..decided.request(asked.fallback)
    })?;
    // At the price of the moment; else the best of those that can still be paid for.
    while let (Some(pacer), Some(choice)) = (asked.pacer, decided.row.choice)
        && !pacer.book(choice.cost, now)
    {
        decided.compiled = asked.capped(pacer.most(now), snapshot)?;
        decided.row = route(&decided.request(None))?;
        if decided.row.choice.is_none() {
            return Err(exhausted());
        }
    }
    if decided.row.status == Status::Ok && n > 0 {
        let phi = room.scratch.phi();
        room.ranking
            .fill(snapshot, phi, &decided.request(None), n)?;
    }
    Ok(decided)
}

fn exhausted() -> Refusal {
    let message = "budget: what is left of this period's pays for no model that may answer";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "budget_exhausted", message)
}

/// Fails if the prompt goes to no model.
fn refuse_unrouted(decided: &Decided, snapshot: &Snapshot, room: &Room) -> Result<(), Refusal> {
    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
    match (decided.row.status, decided.row.choice) {
        (Status::Ok, Some(_)) => Ok(()),
        (Status::Ok, None) => {
            let pool = snapshot.pool();
            let costs = snapshot.costs(room.scratch.phi(), decided.tokens)?;
            Err(decided.compiled.nobody(pool, decided.tokens, &costs).into())
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
    room: &mut Room,
) -> Result<Answer, Refusal> {
    let n = question.top.unwrap_or(RANKED);
    let needed = n.max(usize::from(question.explain));
    let decided = decide(
        prompt,
        asked,
        snapshot,
        asked.cost_weight,
        needed,
        now,
        room,
    )?;
    refuse_unrouted(&decided, snapshot, room)?;
    let Room { scratch, ranking } = room;
    let explanation = question.explain.then(|| {
        let request = decided.request(asked.fallback);
        explain(
            snapshot,
            ranking,
            scratch.phi(),
            &decided.compiled,
            &request,
        )
    });
    let answer = One {
        version: snapshot.version(),
        decision: describe(&decided.row, decided.cost_weight, n, ranking, snapshot),
        cost_weight: decided.cost_weight,
        tokens: decided.tokens,
        explanation: explanation.transpose()?,
    };
    Ok(Answer {
        body: to_json(&answer),
        rows: vec![decided.row],
    })
}

fn many(
    question: &Question<'_>,
    asked: &Asked<'_>,
    snapshot: &Snapshot,
    now: f64,
    room: &mut Room,
) -> Result<Answer, Refusal> {
    let texts: Vec<router::Text<'_>>;
    let embeddings: Vec<f32>;
    let prompts = match &question.prompts {
        Prompts::Embeddings(rows) => {
            embeddings = flatten(rows, snapshot.map().dim())?;
            router::Prompts::Embeddings(&embeddings)
        }
        Prompts::Texts(given) => {
            texts = given.iter().map(|text| as_row(text.as_ref())).collect();
            router::Prompts::Texts(&texts)
        }
        Prompts::Text(_) | Prompts::Embedding(_) => router::Prompts::Texts(&[]),
    };
    let requests = Requests {
        cost_weights: match &asked.each_weight {
            None => PerRow::Same(asked.cost_weight),
            Some(weights) => PerRow::Each(weights),
        },
        constraints: PerRow::Same(asked.compiled.as_deref()),
        tokens: PerRow::Same(asked.tokens),
        fallback: asked.fallback,
        counted: true,
        ..Requests::at_cost_weight(0.0)
    };
    let n = question.top.unwrap_or(0);
    let mut decisions;
    let mut rows;
    if n == 0 && asked.pacer.is_none() {
        // On this thread: others have requests of their own to answer.
        let here = Run {
            threads: 1,
            interrupted: &|| false,
        };
        rows = snapshot.route_batch(prompts, &requests, &here)?;
        let weight = asked.cost_weight;
        let all = rows.iter();
        decisions = all
            .map(|row| describe(row, weight, 0, &room.ranking, snapshot))
            .collect();
    } else {
        (rows, decisions) = (Vec::new(), Vec::new());
        for (i, prompt) in each(prompts, snapshot.map().dim()).enumerate() {
            let weight = match &asked.each_weight {
                None => asked.cost_weight,
                Some(weights) => weights[i],
            };
            let decided = match decide(prompt, asked, snapshot, weight, n, now, room) {
                Ok(decided) => decided,
                Err(refusal) => {
                    // All or none: what was booked for the prompts before this one is given back.
                    unbook(asked, &rows, now);
                    return Err(refusal);
                }
            };
            let weight = decided.cost_weight;
            decisions.push(describe(&decided.row, weight, n, &room.ranking, snapshot));
            rows.push(decided.row);
        }
    }
    let answer = Many {
        version: snapshot.version(),
        decisions,
    };
    Ok(Answer {
        body: to_json(&answer),
        rows,
    })
}

fn unbook(asked: &Asked<'_>, rows: &[Row], now: f64) {
    if let Some(pacer) = asked.pacer {
        let booked = rows.iter().filter_map(|row| row.choice).map(|c| c.cost);
        pacer.settle(booked.sum(), 0.0, now);
    }
}

fn as_row<'a>(text: Option<&'a Text<'_>>) -> router::Text<'a> {
    text.map(|text| &*text.0).ok_or(Status::Null)
}

/// Prompts one by one.
fn each<'a>(prompts: router::Prompts<'a>, dim: usize) -> Box<dyn Iterator<Item = Prompt<'a>> + 'a> {
    match prompts {
        router::Prompts::Texts(texts) => Box::new(texts.iter().map(|text| Prompt::Text(*text))),
        router::Prompts::Embeddings(all) => Box::new(all.chunks(dim).map(Prompt::Embedding)),
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

fn describe<'a>(
    row: &Row,
    cost_weight: f64,
    n: usize,
    ranking: &Ranking,
    snapshot: &'a Snapshot,
) -> Decision<'a> {
    let names = snapshot.pool().names();
    let choice = row.choice.as_ref();
    let ranked = if row.status == Status::Ok && n > 0 {
        let candidates = ranking.candidates();
        candidates
            .take(n)
            .map(|candidate| Ranked {
                model: &names[candidate.model as usize],
                predicted_loss: candidate.loss as f32,
                cost: candidate.cost,
                objective: candidate.objective(cost_weight),
            })
            .collect()
    } else {
        Vec::new()
    };
    Decision {
        status: status_name(row),
        model: choice.map(|c| &names[c.model as usize]),
        predicted_loss: choice.map(|c| c.predicted_loss),
        cost: choice.map(|c| c.cost),
        cluster: choice.map(|c| c.cluster),
        coverage: row.coverage,
        reason: match choice {
            Some(choice) if choice.fallback => "fallback: no model meets the constraints",
            Some(_) => "least predicted loss + cost weight x cost",
            None if row.status == Status::Ok => "no model meets the constraints",
            None => "the text cannot be embedded",
        },
        ranked,
    }
}

fn to_json(answer: &impl Serialize) -> Vec<u8> {
    let mut body = Vec::with_capacity(512);
    // Only a map with keys that are no strings, or a failing writer, could fail.
    let _ = serde_json::to_writer(&mut body, answer);
    body
}
