//! Which handler answers a request, and what all of them share.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_SECURITY_POLICY, EXPECT, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::sync::Semaphore;
use uniroute_core::route::router::Router;
use uniroute_core::route::snapshot::Snapshot;

use crate::api::chat::Upstreams;
use crate::api::models;
use crate::api::openapi::DOCUMENT;
use crate::api::question::Question;
use crate::api::route;
use crate::backend::Backend;
use crate::config::{self, Config};
use crate::http::host::Hosts;
use crate::http::read::{self, Body, Reading, Room, internal};
use crate::http::refusal::Refusal;
use crate::log::Throttle;
use crate::metrics::Metrics;
use crate::policy::Policies;

/// What is done on the thread that read the request, some milliseconds of work at most: prompts that are
/// routed, bytes that are parsed, names and tags that globs are held against, and models that are ranked
/// for all prompts of a batch.
const IN_PLACE: usize = 128;
pub const IN_PLACE_BYTES: usize = 256 << 10;
const IN_PLACE_MATCHES: usize = 10_000;
const IN_PLACE_RANKED: usize = 20_000;

/// Headers of W3C trace context, which go wherever a request goes.
pub const TRACE: [&str; 2] = ["traceparent", "tracestate"];

const PAGE: &str = include_str!("page.html");

/// What all requests share.
pub struct Service {
    pub(crate) router: Arc<Router>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) policies: Policies,
    pub(crate) metrics: Metrics,
    pub(crate) upstreams: Option<Upstreams>,
    pub(crate) stopping: AtomicBool,
    hosts: Hosts,
    /// Of warnings of refusals that are the service's fault.
    refusals: Throttle,
    pub(crate) reading: Reading,
    /// Of requests that are more work than a thread that reads others may spend on one: as many at
    /// a time as there are threads, which bounds the memory of that work.
    turns: Semaphore,
    pub(crate) max_batch: usize,
    pub(super) admin_token: Option<Vec<u8>>,
    client_token: Option<Vec<u8>>,
    began: Instant,
}

/// The route that answered, for metrics and logs; and its answer.
type Handled = (&'static str, Result<Response<Body>, Refusal>);

impl Service {
    /// A service over a router, which only this machine can reach or others too.
    pub fn new(
        router: Arc<Router>,
        backend: Arc<dyn Backend>,
        config: &Config,
        loopback: bool,
    ) -> uniroute_core::Result<Self> {
        let upstreams = &config.upstreams;
        Ok(Self {
            policies: Policies::new(config, 0.0)?,
            metrics: Metrics::default(),
            upstreams: upstreams.as_ref().map(Upstreams::new).transpose()?,
            stopping: AtomicBool::new(false),
            hosts: Hosts::new(config, loopback)?,
            refusals: Throttle::default(),
            reading: Reading {
                most: config.max_body_bytes,
                time: Duration::from_secs_f64(config.body_seconds),
                room: Room::new(config.max_body_memory_bytes),
            },
            turns: Semaphore::new(config.threads()),
            max_batch: config.max_batch,
            admin_token: config::token("admin_token_file", config.admin_token_file.as_deref())?,
            client_token: config::token("client_token_file", config.client_token_file.as_deref())?,
            began: Instant::now(),
            router,
            backend,
        })
    }

    /// Seconds since the service began: the time by which budgets go.
    pub(crate) fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// The memory that requests share.
    pub(crate) fn room(&self) -> &Room {
        &self.reading.room
    }

    /// Answers one request; in the reserve only health checks and metrics.
    pub async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        reserve: bool,
    ) -> Result<Response<Body>, Infallible> {
        let began = Instant::now();
        let trace = TRACE.map(|name| request.headers().get(name).cloned());
        let admitted = self.admit(&request, reserve);
        let (head, mut body) = request.into_parts();
        let (route, handled) = match admitted {
            Ok(()) => {
                let handled = caught(self.dispatch(&head, &mut body)).await;
                handled.unwrap_or_else(|| ("other", Err(internal())))
            }
            Err(refusal) => ("other", Err(refusal)),
        };
        // In the reserve nobody may stay for that long; and who asks before sending need not send.
        if handled.is_err() && !reserve && !head.headers.contains_key(EXPECT) {
            read::skip(&mut body).await;
        }
        let traceparent = trace[0].as_ref().and_then(|value| value.to_str().ok());
        let traceparent = traceparent.map(ToOwned::to_owned);
        let handled = match handled {
            // These are part of the program.
            Ok(answer) if matches!(route, "/" | "/openapi.json") => Ok(answer),
            Ok(answer) => self.reading.room.hold(answer).await,
            refused => refused,
        };
        let mut response = handled.unwrap_or_else(|refusal| {
            let status = refusal.status.as_u16();
            if status >= 500
                && let Some(held_back) = self.refusals.pass(self.now())
            {
                let message = refusal.message.as_str();
                tracing::warn!(route, status, traceparent, held_back, message);
            }
            read::refuse(&refusal)
        });
        for (name, value) in TRACE.into_iter().zip(trace) {
            if let Some(value) = value {
                response.headers_mut().insert(name, value);
            }
        }
        if reserve || self.stopping.load(Ordering::Relaxed) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        let status = response.status().as_u16();
        let seconds = began.elapsed().as_secs_f64();
        tracing::debug!(route, status, seconds, traceparent, "request");
        self.metrics.answered(route, status);
        Ok(response)
    }

    /// Fails unless a request is for this service, and may be answered on its connection.
    fn admit(&self, request: &Request<Incoming>, reserve: bool) -> Result<(), Refusal> {
        self.hosts.check(request)?;
        if reserve && !matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics") {
            self.metrics.refused_connections.inc();
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_connections",
                "too many connections are open; expected a later try",
            ));
        }
        Ok(())
    }

    async fn dispatch(self: &Arc<Self>, head: &Parts, body: &mut Incoming) -> Handled {
        let (method, path) = (&head.method, head.uri.path());
        if let Some(name) = path.strip_prefix("/v1/models/") {
            return ("/v1/models/{name}", self.model(head, name, body).await);
        }
        match path {
            "/v1/route" => (
                "/v1/route",
                match self.posted(&head.headers, method, body).await {
                    Ok(body) => self.route(body).await,
                    Err(refusal) => Err(refusal),
                },
            ),
            "/v1/chat/completions" => ("/v1/chat/completions", self.chat(head, body).await),
            "/v1/observe" => ("/v1/observe", self.observe(head, body).await),
            "/v1/models" => (
                "/v1/models",
                match got(method) {
                    Ok(()) => Ok(self.models().await),
                    Err(refusal) => Err(refusal),
                },
            ),
            "/healthz" => ("/healthz", got(method).map(|()| alive())),
            "/readyz" => ("/readyz", got(method).and_then(|()| self.ready())),
            "/metrics" => (
                "/metrics",
                match got(method) {
                    // What chance makes of drift is simulated once a window, and a pool of thousands
                    // has as many series.
                    Ok(()) => Ok(self.in_turn(|| self.metrics_text()).await),
                    Err(refusal) => Err(refusal),
                },
            ),
            "/openapi.json" => ("/openapi.json", got(method).map(|()| document())),
            "/" => ("/", got(method).map(|()| page())),
            _ => {
                let message = format!("no such route: {path:?}; /openapi.json lists them");
                let refusal = Refusal::new(StatusCode::NOT_FOUND, "unknown_route", message);
                ("other", Err(refusal))
            }
        }
    }

    /// The body of a request that a client with the right token posted.
    async fn posted(
        &self,
        headers: &HeaderMap,
        method: &Method,
        body: &mut Incoming,
    ) -> Result<Bytes, Refusal> {
        if method != Method::POST {
            return Err(not_allowed(method, "POST"));
        }
        if let Some(token) = &self.client_token {
            read::authorise(headers, token)?;
        }
        self.reading.json(headers, body, 1).await
    }

    async fn route(&self, body: Bytes) -> Result<Response<Body>, Refusal> {
        let began = Instant::now();
        let parse = || Question::parse(&body, self.max_batch);
        let decide = |question| self.decide(&question, body.len(), began);
        if body.len() > IN_PLACE_BYTES {
            return self.in_turn(|| decide(parse()?)).await;
        }
        let question = parse()?;
        if self.is_little(&question) {
            return decide(question);
        }
        self.in_turn(|| decide(question)).await
    }

    /// Whether a question can be answered on the thread that read it.
    pub(crate) fn is_little(&self, question: &Question<'_>) -> bool {
        let (snapshot, prompts) = (self.router.snapshot(), question.prompts.len());
        let pool = snapshot.pool();
        let matches = match &question.constraints {
            // Those of a policy alone are compiled once for each version of the pool.
            None => 0,
            Some(own) if own.globs() + self.policies.globs(question) == 0 => 0,
            Some(_) => pool.len() + pool.directory().tag_count(),
        };
        let ranks = prompts > 1 && (question.top.unwrap_or(0) > 0 || self.policies.paces(question));
        prompts <= IN_PLACE
            && matches <= IN_PLACE_MATCHES
            && (!ranks || prompts * pool.len() <= IN_PLACE_RANKED)
    }

    /// Does work that takes long, once it is its turn, while other threads read other requests.
    pub(crate) async fn in_turn<T>(&self, work: impl FnOnce() -> T) -> T {
        // Never closed.
        let _turn = self.turns.acquire().await;
        tokio::task::block_in_place(work)
    }

    /// Decides on a question from a body of `length` bytes.
    fn decide(
        &self,
        question: &Question<'_>,
        length: usize,
        began: Instant,
    ) -> Result<Response<Body>, Refusal> {
        let snapshot = self.router.snapshot();
        let (prompts, models) = (question.prompts.len(), snapshot.pool().len());
        let ranked = question.top.unwrap_or(0).min(models);
        let size = route::size(prompts, ranked, &snapshot);
        if self.reading.room.is_exceeded_by(size) {
            let problem = format!("{ranked} for each of {prompts} prompts, {size} bytes or so");
            let expected = "fewer of either: the answer would not fit max_body_memory_bytes";
            return Err(Refusal::field("top", &problem, expected));
        }
        let _share = self.reading.room.take_beside(size, length)?;
        let asked = self.policies.resolve(question, &snapshot)?;
        let answer = route::answer(question, &asked, &snapshot, self.now());
        let answer = answer.inspect_err(|refusal| {
            // A single prompt without a model, or a batch that ran into one.
            if refusal.status == StatusCode::UNPROCESSABLE_ENTITY {
                self.metrics.undecided(&snapshot, refusal.code);
            }
        })?;
        self.metrics.decided(&snapshot, &answer.rows, began);
        Ok(read::json(StatusCode::OK, answer.body))
    }

    async fn chat(
        self: &Arc<Self>,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<Response<Body>, Refusal> {
        let Some(upstreams) = &self.upstreams else {
            let message = "chats are not passed on: the service has no upstreams";
            return Err(Refusal::new(StatusCode::NOT_FOUND, "no_upstreams", message));
        };
        let body = self.posted(&head.headers, &head.method, body).await?;
        upstreams.pass_on(self, &head.headers, &body).await
    }

    async fn models(&self) -> Response<Body> {
        let snapshot = self.router.snapshot();
        self.in_turn(|| models::list(&snapshot)).await
    }

    fn ready(&self) -> Result<Response<Body>, Refusal> {
        let snapshot: Arc<Snapshot> = self.router.snapshot();
        let refuse = |message: &str| {
            Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "not_ready",
                message,
            ))
        };
        if self.stopping.load(Ordering::Relaxed) {
            return refuse("the service is stopping");
        }
        if snapshot.pool().enabled().count() == 0 {
            return refuse("no model may be chosen");
        }
        let body = json!({"status": "ready", "version": snapshot.version()});
        Ok(read::json(StatusCode::OK, body.to_string()))
    }

    fn metrics_text(&self) -> Response<Body> {
        let now = self.now();
        let budgets = self.policies.named();
        let budgets = budgets.filter_map(|(name, p)| Some((name, p.pacer.as_ref()?.show(now))));
        let text = self.metrics.text(&self.router.snapshot(), budgets);
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        read::respond(StatusCode::OK, kind, text)
    }
}

/// The result of some work; `None` if it panicked. The panic itself has been logged.
async fn caught<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        // What a panic may leave behind is dropped, or guarded by locks that take it as it is.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(polled) => polled.map(Some),
            Err(_) => std::task::Poll::Ready(None),
        }
    })
    .await
}

/// Fails unless a request only asks to see something.
fn got(method: &Method) -> Result<(), Refusal> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(not_allowed(method, "GET, HEAD")),
    }
}

fn alive() -> Response<Body> {
    read::json(StatusCode::OK, r#"{"status":"ok"}"#)
}

fn document() -> Response<Body> {
    read::json(StatusCode::OK, DOCUMENT.as_slice())
}

fn page() -> Response<Body> {
    let mut response = read::respond(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    // The page is whole in itself: it may talk to this service and to nobody else.
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                  connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                  frame-ancestors 'none'";
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

pub(super) fn not_allowed(method: &Method, allowed: &'static str) -> Refusal {
    let message = format!("method {method} is not allowed here; expected {allowed}");
    Refusal {
        allow: Some(allowed),
        ..Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            message,
        )
    }
}
