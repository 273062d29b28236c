//! What a client is told when its request cannot be met: one JSON object, shaped as `OpenAI`'s
//! are.

use hyper::StatusCode;
use serde::Serialize;
use uniroute_core::Error;

/// A request that is refused, and why.
#[derive(Debug)]
pub struct Refusal {
    /// Of the answer.
    pub status: StatusCode,
    /// Which kind of refusal, for programs; documented in `openapi.json`.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// The field of the request that was wrong.
    pub param: Option<String>,
    /// The methods that would have been accepted, where it was the method.
    pub allow: Option<&'static str>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Content<'a>,
}

#[derive(Serialize)]
struct Content<'a> {
    message: &'a str,
    r#type: &'a str,
    code: &'a str,
    param: Option<&'a str>,
}

impl Refusal {
    /// A refusal that concerns no single field.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            param: None,
            allow: None,
        }
    }

    /// A field that has a value which cannot be used.
    pub fn field(param: &str, problem: &str, expected: &str) -> Self {
        Self {
            param: Some(param.to_owned()),
            ..Self::new(
                StatusCode::BAD_REQUEST,
                "invalid_argument",
                format!("{param}: {problem}; expected {expected}"),
            )
        }
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
        let param = match &error {
            Error::InvalidArgument { argument, .. } | Error::UnknownModel { argument, .. } => {
                Some((*argument).to_owned())
            }
            _ => None,
        };
        Self {
            status,
            code,
            message: error.to_string(),
            param,
            allow: None,
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
        // A dot stands for the body itself.
        let param = Some(path).filter(|path| path != ".");
        let place = param.as_deref().unwrap_or("body");
        let message = format!(
            "{place}: {}; expected JSON as /openapi.json describes it",
            error.inner()
        );
        Self {
            param,
            ..Self::new(StatusCode::BAD_REQUEST, "invalid_argument", message)
        }
    }
}
