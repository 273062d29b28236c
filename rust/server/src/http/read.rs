//! Reading requests within limits, and answers.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Collected, Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use subtle::ConstantTimeEq;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::refusal::Refusal;

/// What ends a streamed answer early.
pub type StreamError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer: whole, or streamed.
pub type Body = Either<Full<Bytes>, BoxBody<Bytes, StreamError>>;

/// How long the rest of a body that is refused is read and thrown away.
const DISCARD: Duration = Duration::from_secs(1);

/// An answer with a whole body.
pub fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// An answer in JSON.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    respond(status, "application/json", body)
}

/// The answer to a request that is refused.
pub fn refuse(refusal: &Refusal) -> Response<Body> {
    let mut response = json(refusal.status, refusal.body());
    let headers = response.headers_mut();
    if let Some(allow) = refusal.allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    match refusal.status {
        StatusCode::UNAUTHORIZED => {
            headers.insert("www-authenticate", HeaderValue::from_static("Bearer"));
        }
        // What is left of the request is not worth reading.
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT => {
            headers.insert("connection", HeaderValue::from_static("close"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert("retry-after", HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

/// Bodies up to this long are read, and such answers given, whatever else is under way.
const SMALL: usize = 16 << 10;

/// How bodies may be read.
pub struct Reading {
    /// Longest body.
    pub most: usize,
    /// Time for one to arrive.
    pub time: Duration,
    /// KiB that bodies and answers under way may take together.
    pub room: Room,
}

/// Memory that requests share.
pub struct Room {
    all: usize,
    left: Arc<Semaphore>,
}

impl Room {
    /// So many bytes, less than a tebibyte.
    pub fn new(bytes: usize) -> Self {
        let all = bytes >> 10;
        Self {
            all,
            left: Arc::new(Semaphore::new(all)),
        }
    }

    /// A share for so many bytes, of which a few need none. What is longer than all there is may
    /// have all there is.
    pub fn take(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        self.take_beside(bytes, 0)
    }

    /// The same for a request that holds a share for `held` bytes already: together they are never
    /// more than all there is, so that a request that is alone is never told to wait.
    pub fn take_beside(
        &self,
        bytes: usize,
        held: usize,
    ) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
        let left = self.all.saturating_sub(held.div_ceil(1 << 10));
        let share = bytes.div_ceil(1 << 10).min(left) as u32;
        if bytes <= SMALL || share == 0 {
            return Ok(None);
        }
        let taken = Arc::clone(&self.left).try_acquire_many_owned(share);
        taken.map(Some).map_err(|_| {
            let message = "too many large requests are under way";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
        })
    }

    /// Makes a share one for so many bytes, if it is for fewer.
    fn grow(&self, share: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), Refusal> {
        let held = share.as_ref().map_or(0, |share| share.num_permits() << 10);
        match (share, self.take_beside(bytes.saturating_sub(held), held)?) {
            (Some(share), Some(more)) => share.merge(more),
            (share @ None, more) => *share = more,
            (Some(_), None) => {}
        }
        Ok(())
    }

    /// Whether so many bytes are more than all there is.
    pub fn is_exceeded_by(&self, bytes: usize) -> bool {
        bytes.div_ceil(1 << 10) > self.all
    }

    /// The same answer, with a share of the memory that is given back once the client has taken it
    /// or is gone. What is streamed piece by piece needs none.
    pub async fn hold(&self, answer: Response<Body>) -> Result<Response<Body>, Refusal> {
        let (head, body) = answer.into_parts();
        let whole = match body {
            Either::Left(whole) if whole.size_hint().lower() > SMALL as u64 => whole,
            body => return Ok(Response::from_parts(head, body)),
        };
        let Ok(data) = whole.collect().await.map(Collected::to_bytes);
        let share = self.take(data.len())?;
        let data = held(data, share);
        Ok(Response::from_parts(head, Either::Left(Full::new(data))))
    }
}

/// The same bytes, with a share of the memory that they give back when they go.
fn held(data: Bytes, share: Option<OwnedSemaphorePermit>) -> Bytes {
    match share {
        None => data,
        share => Bytes::from_owner(Held {
            data,
            _share: share,
        }),
    }
}

/// Bytes and their share of the memory.
struct Held {
    data: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Reading {
    /// Reads a JSON body.
    ///
    /// Another content type is refused: it keeps a page of another site from having a browser send
    /// what the browser would first ask about. The body counts `times` its length, for what is made of it.
    pub async fn json(
        &self,
        headers: &HeaderMap,
        body: &mut Incoming,
        times: usize,
    ) -> Result<Bytes, Refusal> {
        let mut kinds = headers.get_all(CONTENT_TYPE).iter();
        let (kind, None) = (kinds.next().and_then(|v| v.to_str().ok()), kinds.next()) else {
            let message = "content-type: given more than once; expected application/json";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Refusal::new(status, "unsupported_media_type", message));
        };
        let essence = kind.unwrap_or("").split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            let message = format!("content-type: {essence:?}; expected application/json");
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Refusal::new(status, "unsupported_media_type", message));
        }
        let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        let length = declared.and_then(|v| v.parse().ok()).unwrap_or(self.most);
        if length > self.most {
            return Err(self.too_long(&format!("{length} bytes")));
        }
        let read = self.read(body, length, times);
        let read = tokio::time::timeout(self.time, read).await;
        read.unwrap_or_else(|_| {
            Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                format!("body: not complete after {} s", self.time.as_secs_f64()),
            ))
        })
    }

    /// Reads a body of `length` bytes at most. Its share of the memory grows as it arrives: one that is
    /// announced and not sent keeps nothing from others.
    async fn read(
        &self,
        body: &mut Incoming,
        length: usize,
        times: usize,
    ) -> Result<Bytes, Refusal> {
        let mut share = None;
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                let message = "body: ended early, or is not framed as HTTP says";
                Refusal::new(StatusCode::BAD_REQUEST, "invalid_body", message)
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let arrived = whole.len() + data.len();
            if arrived > length {
                return Err(self.too_long("longer than that"));
            }
            // Most bodies arrive in one piece, which is then not copied.
            if whole.is_empty() && body.is_end_stream() {
                self.room.grow(&mut share, arrived.saturating_mul(times))?;
                return Ok(held(data, share));
            }
            if arrived > whole.capacity() {
                let room = (2 * whole.capacity()).max(arrived).max(SMALL).min(length);
                self.room.grow(&mut share, room.saturating_mul(times))?;
                whole.reserve(room - whole.len());
            }
            whole.extend_from_slice(&data);
        }
        Ok(held(whole.freeze(), share))
    }

    fn too_long(&self, found: &str) -> Refusal {
        let message = format!("body: {found}; expected {} bytes at most", self.most);
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }
}

/// Reads on for a while without keeping anything: a client that is still sending would otherwise not
/// see why it is refused.
pub async fn skip(body: &mut Incoming) {
    let drain = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(DISCARD, drain).await;
}

/// What a body says, in JSON.
pub fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| why_not::<T>(body, error))
}

/// A value that is an object in JSON: what serde derives takes lists of values too.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// Why a body does not say what it should: read once more for the name of the field, which to keep
/// in mind takes time.
pub fn why_not<'a, T: Deserialize<'a>>(body: &'a [u8], error: serde_json::Error) -> Refusal {
    let mut again = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(&mut again) {
        Err(error) => error.into(),
        // What came behind it was at fault.
        Ok(_) => error.into(),
    }
}

/// What a client is told when the service itself failed.
pub fn internal() -> Refusal {
    let message = "the service failed; its log says more";
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
}

/// Fails unless the request carries the token. Takes as long for a token that is nearly right as
/// for one that is all wrong.
pub fn authorise(headers: &HeaderMap, token: &[u8]) -> Result<(), Refusal> {
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let given = given.and_then(|value| {
        let (scheme, rest) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest)
    });
    let fits = given.is_some_and(|given| bool::from(given.trim_ascii().ct_eq(token)));
    if fits {
        return Ok(());
    }
    let problem = if given.is_some() { "wrong" } else { "missing" };
    Err(Refusal::new(
        StatusCode::UNAUTHORIZED,
        "unauthorised",
        format!("authorization: the bearer token is {problem}"),
    ))
}
