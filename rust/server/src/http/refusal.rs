//! What a client is told when its request cannot be met: one JSON object, shaped as `OpenAI`'s
//! are.

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use uniroute_core::Error;
use uniroute_core::error::legible;

/// Bytes of a message and of a field's name at most: with what JSON escapes and the frame around
/// them an answer has 2 KiB at most.
const MESSAGE: usize = 800;
const FIELD: usize = 128;

/// A request that is refused, and why.
#[derive(Debug)]
pub struct Refusal {
    /// Of the answer.
    pub status: StatusCode,
    /// Which kind of refusal, for programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// The field of the request that was wrong.
    pub param: Option<String>,
    /// The methods that would have been accepted, where it was the method.
    pub allow: Option<&'static str>,
}

/// A request that is refused.
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "Refusal")]
pub struct Envelope<'a> {
    error: Content<'a>,
}

#[derive(JsonSchema, Serialize)]
#[schemars(inline)]
struct Content<'a> {
    /// For people.
    message: &'a str,
    /// `invalid_request_error`, `authentication_error` or `server_error`.
    r#type: &'a str,
    /// Which kind of refusal, for programs.
    code: &'a str,
    /// The field of the request that was wrong.
    param: Option<&'a str>,
}

impl Refusal {
    /// A refusal that concerns no single field.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: legible(&message.into(), MESSAGE).into_owned(),
            param: None,
            allow: None,
        }
    }

    /// The same, of one field.
    #[must_use]
    pub fn of(self, param: &str) -> Self {
        Self {
            param: Some(legible(param, FIELD).into_owned()),
            ..self
        }
    }

    /// A field that has a value which cannot be used.
    pub fn field(param: &str, problem: &str, expected: &str) -> Self {
        let message = format!("{param}: {problem}; expected {expected}");
        Self::new(StatusCode::BAD_REQUEST, "invalid_argument", message).of(param)
    }

    /// The JSON of the answer.
    pub fn body(&self) -> Vec<u8> {
        let kind = match self.status.as_u16() {
            401 | 403 => "authentication_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        let error = Content {
            message: &self.message,
            r#type: kind,
            code: self.code,
            param: self.param.as_deref(),
        };
        serde_json::to_vec(&Envelope { error }).unwrap_or_default()
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, code) = match &error {
            Error::InvalidArgument { .. } => (StatusCode::BAD_REQUEST, "invalid_argument"),
            Error::UnknownModel {
                argument: "name", ..
            } => (StatusCode::NOT_FOUND, "unknown_model"),
            Error::UnknownModel { .. } => (StatusCode::BAD_REQUEST, "unknown_model"),
            Error::DuplicateModel { .. } => (StatusCode::CONFLICT, "duplicate_model"),
            Error::NoCandidate { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "no_candidate"),
            Error::EmptyPool => (StatusCode::SERVICE_UNAVAILABLE, "empty_pool"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let refusal = Self::new(status, code, error.to_string());
        match &error {
            Error::InvalidArgument { argument, .. } | Error::UnknownModel { argument, .. } => {
                refusal.of(argument)
            }
            _ => refusal,
        }
    }
}

impl From<serde_json::Error> for Refusal {
    /// Of a request's body that is not JSON.
    fn from(error: serde_json::Error) -> Self {
        let message = format!("body: {error}; expected JSON as /openapi.json describes it");
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", message)
    }
}

impl From<serde_path_to_error::Error<serde_json::Error>> for Refusal {
    /// Of a request's body: not JSON, or not the fields that the route takes.
    fn from(error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        if !error.inner().is_data() {
            return error.into_inner().into();
        }
        let path = error.path().to_string();
        let inner = error.inner().to_string();
        // A dot stands for the body itself; what is wrong between its fields begins with one of them.
        let is_field = |c: char| c.is_ascii_lowercase() || c == '_';
        let (param, problem) = match inner.split_once(": ") {
            _ if path != "." => (Some(&*path), &*inner),
            Some((field, problem)) if field.chars().all(is_field) => (Some(field), problem),
            _ => (None, &*inner),
        };
        let place = param.unwrap_or("body");
        let message = format!("{place}: {problem}; expected JSON as /openapi.json describes it");
        let refusal = Self::new(StatusCode::BAD_REQUEST, "invalid_argument", message);
        match param {
            Some(param) => refusal.of(param),
            None => refusal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_short_whatever_it_is_about() {
        for c in ['x', '"', '\\', '\n', '\u{1b}', '\u{202e}', 'é', '\u{1F600}'] {
            let long: String = std::iter::repeat_n(c, 3_000_000).collect();
            let refusal = Refusal::field(&long, &long, "something else");
            let length = refusal.body().len();
            assert!(length <= 2048, "{length} bytes of {c:?}");
            assert!(refusal.message.ends_with("expected something else"));
        }
    }
}
