//! Upstreams that speak `OpenAI`'s protocol: one is asked, and its answer comes back piece by piece.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use uniroute_core::{Error, Result};

use crate::api::service::TRACE;
use crate::config::{UpstreamConfig, UpstreamsConfig};
use crate::http::read::{Body, StreamError};

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

/// Connections that are kept for the next chats with an upstream.
const KEPT: usize = 64;

/// One upstream, ready to be called.
pub struct Upstream {
    uri: Uri,
    /// Its name of the model, if another than the pool's.
    pub model: Option<String>,
    authorization: Option<HeaderValue>,
}

impl Upstream {
    /// One of a configuration.
    pub fn new(config: &UpstreamConfig) -> Result<Self> {
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

/// An upstream's answer, or what came instead.
pub enum Outcome {
    /// To be handed on.
    Answer(Response<Incoming>),
    /// Worth a try elsewhere: what is said if there is nobody left to try.
    Failure(StatusCode, &'static str, String),
}

/// What asks upstreams, over connections that are kept.
pub struct Client {
    timeout: Duration,
    stall: Duration,
    connections: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// As a configuration says.
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
        let connections = legacy::Client::builder(TokioExecutor::new())
            .http1_read_buf_exact_size(AHEAD)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(KEPT)
            .build(connector);
        Ok(Self {
            timeout: Duration::from_secs_f64(config.timeout_seconds),
            stall: Duration::from_secs_f64(config.stall_seconds),
            connections,
        })
    }

    /// Asks one, with what of the client's headers it may see.
    pub async fn ask(&self, upstream: &Upstream, headers: &HeaderMap, body: Vec<u8>) -> Outcome {
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
        let sent = tokio::time::timeout(self.timeout, self.connections.request(request)).await;
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
    pub fn stream(
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
