//! `POST /v1/chat/completions`: routed, and passed on to an upstream that speaks `OpenAI`'s
//! protocol.
//!
//! The upstream's answer is streamed back as it comes. One that is overloaded, fails or does not
//! answer in time is left for the next model of the ranking.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use serde_json::value::RawValue;
use uniroute_core::Result;
use uniroute_core::budget::Pacer;
use uniroute_core::route::snapshot::Snapshot;

use crate::api::question::{OWN_FIELDS, Prompts, Question, ROUTED};
use crate::api::route;
use crate::api::service::{IN_PLACE_BYTES, Service};
use crate::config::UpstreamsConfig;
use crate::http::read::Body;
use crate::http::refusal::Refusal;
use crate::upstream::{Client, Outcome, Upstream};

/// Memory of a stream whose client does not read: a few pieces on their way.
const STREAM: usize = 128 << 10;

/// Fields of a chat's body, their values as they came.
type Fields<'b> = BTreeMap<Cow<'b, str>, &'b RawValue>;

/// Where chats are passed on to.
pub struct Upstreams {
    default: Option<Upstream>,
    models: BTreeMap<String, Upstream>,
    attempts: usize,
    client: Client,
}

/// A model that may answer, and where it is asked.
struct Candidate<'u> {
    name: Arc<str>,
    upstream: &'u Upstream,
    /// What it costs on this chat.
    cost: f64,
}

/// What was booked for a chat, and where.
type Booked<'s> = Option<(&'s Pacer, f64)>;

impl Upstreams {
    /// Those of a configuration.
    pub fn new(config: &UpstreamsConfig) -> Result<Self> {
        let models = config.models.iter();
        Ok(Self {
            default: config.default.as_ref().map(Upstream::new).transpose()?,
            models: models
                .map(|(name, upstream)| Ok((name.clone(), Upstream::new(upstream)?)))
                .collect::<Result<_>>()?,
            attempts: config.attempts,
            client: Client::new(config)?,
        })
    }

    fn find(&self, name: &str) -> Option<&Upstream> {
        self.models.get(name).or(self.default.as_ref())
    }

    /// Routes a chat and passes it on.
    pub async fn pass_on(
        &self,
        service: &Service,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Body>, Refusal> {
        let snapshot = service.router.snapshot();
        let prepare = || self.prepare(service, body, &snapshot);
        // Taken before anything is booked and asked, for what is asked is paid: for the copy of the
        // body that goes on, and for the stream that comes back.
        let room = service
            .room()
            .take_beside(STREAM + body.len(), body.len())?;
        let (fields, candidates, booked) = if body.len() <= IN_PLACE_BYTES {
            prepare()?
        } else {
            service.in_turn(prepare).await?
        };
        let asked = self.ask_in_turn(service, headers, &snapshot, &fields, &candidates);
        let answered = asked.await;
        if let Some((pacer, cost)) = booked {
            // A chat that nobody answered costs nothing, nor does a client's mistake.
            let paid = answered
                .as_ref()
                .ok()
                .filter(|(answer, _)| answer.status().is_success());
            let actual = paid.map_or(0.0, |(_, candidate)| candidate.cost);
            pacer.settle(cost, actual, service.now())?;
        }
        let (answer, candidate) = answered?;
        Ok(self
            .client
            .stream(answer, &candidate.name, snapshot.version(), room))
    }

    /// Asks one candidate after the other until one answers.
    async fn ask_in_turn<'c>(
        &self,
        service: &Service,
        headers: &HeaderMap,
        snapshot: &Snapshot,
        fields: &Fields<'_>,
        candidates: &'c [Candidate<'c>],
    ) -> Result<(Response<Incoming>, &'c Candidate<'c>), Refusal> {
        let mut last = None;
        for candidate in candidates.iter().take(self.attempts) {
            let name = candidate.upstream.model.as_deref();
            let name = serde_json::value::to_raw_value(name.unwrap_or(&candidate.name))?;
            let mut fields = fields.clone();
            fields.insert("model".into(), &name);
            let body = serde_json::to_vec(&fields)?;
            match self.client.ask(candidate.upstream, headers, body).await {
                Outcome::Answer(answer) => {
                    service.metrics.tried(snapshot, &candidate.name, "ok");
                    return Ok((answer, candidate));
                }
                Outcome::Failure(status, code, message) => {
                    service.metrics.tried(snapshot, &candidate.name, code);
                    let model = &*candidate.name;
                    tracing::warn!(model, code, message, "an upstream failed");
                    last = Some(Refusal::new(status, code, format!("{model}: {message}")));
                }
            }
        }
        Err(last.unwrap_or_else(|| {
            let message = "no model that may answer has an upstream";
            Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "no_upstream", message)
        }))
    }

    /// What a chat says to its upstream, the models to try, and what was booked for the best.
    fn prepare<'s, 'b>(
        &'s self,
        service: &'s Service,
        body: &'b Bytes,
        snapshot: &Snapshot,
    ) -> Result<(Fields<'b>, Vec<Candidate<'s>>, Booked<'s>), Refusal> {
        let question = Question::parse(body, service.max_batch)?;
        let mut fields: Fields<'b> = serde_json::from_slice(body)?;
        for own in OWN_FIELDS {
            fields.remove(own);
        }
        let (candidates, booked) = self.candidates(service, &question, snapshot)?;
        Ok((fields, candidates, booked))
    }

    /// The models to try, best first, and what was booked for the best.
    fn candidates<'s>(
        &'s self,
        service: &'s Service,
        question: &Question<'_>,
        snapshot: &Snapshot,
    ) -> Result<(Vec<Candidate<'s>>, Booked<'s>), Refusal> {
        let pool = snapshot.pool();
        let candidate = |(model, cost): (u32, f64)| {
            let name = &pool.names()[model as usize];
            Some(Candidate {
                upstream: self.find(name)?,
                name: name.into(),
                cost,
            })
        };
        if let Some(name) = &question.chosen {
            // A model that the client chose itself is asked, and no other.
            let Some(model) = pool.position(name) else {
                let message = format!("model: {name:?} is neither {ROUTED:?} nor in the pool");
                return Err(Refusal::new(
                    StatusCode::NOT_FOUND,
                    "unknown_model",
                    message,
                ));
            };
            // Nothing is booked for it.
            return Ok((candidate((model, 0.0)).into_iter().collect(), None));
        }
        let (Prompts::Text(text), true) = (&question.prompts, question.is_chat) else {
            return Err(Refusal::field("messages", "missing", "a chat's messages"));
        };
        let asked = service.policies.resolve(question, snapshot)?;
        // Where every model has an upstream, those at the top are all that can be needed.
        let n = if self.default.is_some() {
            self.attempts
        } else {
            pool.len()
        };
        let began = std::time::Instant::now();
        let (row, ranked) = route::rank_chat(text, &asked, snapshot, n, service.now())?;
        service.metrics.decided(snapshot, &[row], began);
        let booked = asked.pacer.zip(row.choice.map(|choice| choice.cost));
        Ok((ranked.into_iter().filter_map(candidate).collect(), booked))
    }
}
