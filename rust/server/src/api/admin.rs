//! Routes that change what the service answers, for those who have the admin token.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::json;

use crate::api::models;
use crate::api::observe::Observed;
use crate::api::service::{Service, not_allowed};
use crate::http::read::{self, Body, internal};
use crate::http::refusal::Refusal;

/// A body that changes the pool, and what parsing makes of it, in Python too, are together this many
/// times as long.
const PARSED: usize = 25;

impl Service {
    /// `/v1/models/{name}`: shows a model to everybody, and changes it for those who may.
    pub(super) async fn model(
        self: &Arc<Self>,
        head: &Parts,
        name: &str,
        body: &mut Incoming,
    ) -> Result<Response<Body>, Refusal> {
        let name = models::decode(name)?;
        if matches!(head.method, Method::GET | Method::HEAD) {
            return models::show(&self.router.snapshot(), &name);
        }
        if !matches!(head.method, Method::PUT | Method::PATCH | Method::DELETE) {
            return Err(not_allowed(&head.method, "GET, HEAD, PUT, PATCH, DELETE"));
        }
        self.authorise_admin(&head.headers)?;
        let method = head.method.clone();
        let body = match method {
            Method::DELETE => Bytes::new(),
            _ => self.reading.json(&head.headers, body, PARSED).await?,
        };
        // Changing a pool of thousands takes milliseconds, profiling longer.
        self.work(move |service| match method {
            Method::DELETE => models::delete(service, &name),
            Method::PATCH => models::patch(service, &name, &body),
            _ => models::put(service, &name, &body),
        })
        .await
    }

    /// `/v1/observe`
    pub(super) async fn observe(
        self: &Arc<Self>,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<Response<Body>, Refusal> {
        if head.method != Method::POST {
            return Err(not_allowed(&head.method, "POST"));
        }
        self.authorise_admin(&head.headers)?;
        let body = self.reading.json(&head.headers, body, PARSED).await?;
        let learn = move |service: &Self| service.backend.observe(&Observed::parse(&body)?);
        let used = self.work(learn).await?;
        let body = json!({"used": used, "version": self.router.snapshot().version()});
        Ok(read::json(StatusCode::OK, body.to_string()))
    }

    /// Does some work on a thread that may wait.
    async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let service = Arc::clone(self);
        let worked = tokio::task::spawn_blocking(move || work(&service)).await;
        worked.unwrap_or_else(|_| Err(internal()))
    }

    /// Fails unless the request may change things.
    fn authorise_admin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match &self.admin_token {
            Some(token) => read::authorise(headers, token),
            None => Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "closed",
                "this route is closed: the service was started without an admin token",
            )),
        }
    }
}
