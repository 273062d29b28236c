//! `POST /v1/chat/completions`: routed, and passed on to an upstream that speaks `OpenAI`'s
//! protocol.
//!
//! The upstream's answer is streamed back as it comes. One that is overloaded, fails or does not
//! answer in time is left for the next model of the ranking.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use uniroute_core::budget::Pacer;
use uniroute_core::route::snapshot::Snapshot;
use uniroute_core::{Error, Result};

use crate::api::question::{OWN_FIELDS, Prompts, Question, ROUTED};
use crate::api::route;
use crate::api::service::{IN_PLACE_BYTES, Service, TRACE};
use crate::config::{UpstreamConfig, UpstreamsConfig};
use crate::http::read::{Body, StreamError};
use crate::http::refusal::Refusal;

/// Headers of an upstream's answer that are handed on.
const HANDED_ON: [&str; 5] = [
    "content-type",
    "content-encoding",
    "cache-control",
    "retry-after",
    "x-request-id",
];

/// Bytes of an upstream's head, and of what is read ahead of a client at a time: a stream waits for
/// its client.
const AHEAD: usize = 16 << 10;

/// The same, of what the system keeps.
const AHEAD_OF_US: usize = 64 << 10;

/// Memory of a stream whose client does not read: a few pieces on their way.
const STREAM: usize = 128 << 10;

/// Connections that are kept for the next chats with an upstream.
const KEPT: usize = 64;

/// One upstream, ready to be called.
struct Upstream {
    uri: Uri,
    model: Option<String>,
    authorization: Option<HeaderValue>,
}

impl Upstream {
    fn new(config: &UpstreamConfig) -> Result<Self> {
        let address = format!("{}/chat/completions", config.url.trim_end_matches('/'));
        let expected = "an address such as https://api.openai.com/v1";
        let uri: Uri = address
            .parse()
            .map_err(|e| Error::invalid("url", format!("{:?} ({e})", config.url), expected))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(Error::invalid("url", format!("{:?}", config.url), expected));
        }
        let key = config.api_key_env.as_ref().map(|name| {
            let value = std::env::var(name).ok();
            let value = value.and_then(|key| format!("Bearer {key}").parse().ok());
            value.ok_or_else(|| {
                let problem = format!("{name} is not set, or holds no key");
                Error::invalid("api_key_env", problem, "a variable that holds a key")
            })
        });
        let mut authorization: Option<HeaderValue> = key.transpose()?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        Ok(Self {
            uri,
            model: config.model.clone(),
            authorization,
        })
    }
}

/// Fields of a chat's body, their values as they came.
type Fields<'b> = BTreeMap<Cow<'b, str>, &'b RawValue>;

/// Where chats are passed on to.
pub struct Upstreams {
    default: Option<Upstream>,
    models: BTreeMap<String, Upstream>,
    attempts: usize,
    timeout: Duration,
    stall: Duration,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
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

/// An upstream's answer, or what came instead.
enum Outcome {
    Answer(Response<Incoming>),
    /// Worth a try elsewhere: what is said if there is nobody left to try.
    Failure(StatusCode, &'static str, String),
}

impl Upstreams {
    /// Those of a configuration.
    pub fn new(config: &UpstreamsConfig) -> Result<Self> {
        let roots = HttpsConnectorBuilder::new().with_native_roots();
        let roots = roots.map_err(|source| Error::Io {
            path: "the system's certificates".into(),
            source,
        })?;
        let mut plain = HttpConnector::new();
        plain.enforce_http(false);
        plain.set_nodelay(true);
        plain.set_recv_buffer_size(Some(AHEAD_OF_US));
        let connector = roots.https_or_http().enable_http1().wrap_connector(plain);
        let client = Client::builder(TokioExecutor::new())
            .http1_read_buf_exact_size(AHEAD)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(KEPT)
            .build(connector);
        let models = config.models.iter();
        Ok(Self {
            default: config.default.as_ref().map(Upstream::new).transpose()?,
            models: models
                .map(|(name, upstream)| Ok((name.clone(), Upstream::new(upstream)?)))
                .collect::<Result<_>>()?,
            attempts: config.attempts,
            timeout: Duration::from_secs_f64(config.timeout_seconds),
            stall: Duration::from_secs_f64(config.stall_seconds),
            client,
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
        Ok(self.stream(answer, &candidate.name, snapshot.version(), room))
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
            match self.ask(candidate.upstream, headers, body).await {
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

    async fn ask(&self, upstream: &Upstream, headers: &HeaderMap, body: Vec<u8>) -> Outcome {
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = upstream.uri.clone();
        let own = request.headers_mut();
        own.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for name in TRACE.into_iter().chain([ACCEPT.as_str(), "x-request-id"]) {
            if let Some(value) = headers.get(name) {
                own.insert(name, value.clone());
            }
        }
        if let Some(authorization) = &upstream.authorization {
            own.insert(AUTHORIZATION, authorization.clone());
        }
        let sent = tokio::time::timeout(self.timeout, self.client.request(request)).await;
        match sent {
            Err(_) => Outcome::Failure(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_timeout",
                format!("no answer after {} s", self.timeout.as_secs_f64()),
            ),
            Ok(Err(error)) => Outcome::Failure(
                StatusCode::BAD_GATEWAY,
                "upstream_unreachable",
                error.to_string(),
            ),
            Ok(Ok(answer)) => match answer.status() {
                StatusCode::TOO_MANY_REQUESTS => Outcome::Failure(
                    StatusCode::TOO_MANY_REQUESTS,
                    "upstream_overloaded",
                    "the upstream takes no more requests".into(),
                ),
                status if answers(status) => Outcome::Answer(answer),
                status => Outcome::Failure(
                    StatusCode::BAD_GATEWAY,
                    "upstream_failed",
                    format!("the upstream answered {}", status.as_u16()),
                ),
            },
        }
    }

    /// An upstream's answer as ours, piece by piece.
    fn stream(
        &self,
        answer: Response<Incoming>,
        model: &str,
        version: u64,
        room: Option<OwnedSemaphorePermit>,
    ) -> Response<Body> {
        let (head, body) = answer.into_parts();
        let pieces = Pieces {
            body,
            stall: self.stall,
            deadline: Box::pin(tokio::time::sleep(self.stall)),
            _room: room,
        };
        let mut response = Response::new(Either::Right(BodyExt::boxed(pieces)));
        *response.status_mut() = head.status;
        let headers = response.headers_mut();
        for name in HANDED_ON {
            if let Some(value) = head.headers.get(name) {
                headers.insert(name, value.clone());
            }
        }
        if let Ok(model) = HeaderValue::from_str(model) {
            headers.insert("x-uniroute-model", model);
        }
        headers.insert("x-uniroute-version", version.into());
        response
    }
}

/// Whether a status comes with an answer to a chat, or with a client's mistake. Others say nothing
/// that a client of ours could act on, or concern the connection to the upstream.
fn answers(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=203 | 400..=499)
}

/// The pieces of an upstream's answer, as long as they keep coming.
struct Pieces {
    body: Incoming,
    stall: Duration,
    deadline: Pin<Box<Sleep>>,
    /// The stream's share of the memory.
    _room: Option<OwnedSemaphorePermit>,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let this = &mut *self;
        if let Poll::Ready(piece) = Pin::new(&mut this.body).poll_frame(context) {
            this.deadline.as_mut().reset(Instant::now() + this.stall);
            return Poll::Ready(piece.map(|piece| piece.map_err(Into::into)));
        }
        let late = this.deadline.as_mut().poll(context);
        late.map(|()| Some(Err("the upstream stalled".into())))
    }
}
