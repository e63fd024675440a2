//! What is answered.

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::body::Body;

/// A whole answer.
pub(crate) type Answer = Response<Body>;

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    with_body(status, Body::from(Bytes::new()))
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(value).expect("what is answered has string keys only");
    with_body(status, Body::from(Bytes::from(bytes))).with("content-type", "application/json")
}

/// An answer with a body.
pub(crate) fn with_body(status: StatusCode, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

/// Adds headers.
pub(crate) trait With {
    /// Adds a header. The value is of visible ASCII: names, digests, numbers and what was encoded.
    fn with(self, name: &'static str, value: impl AsRef<str>) -> Self;
}

impl With for Answer {
    fn with(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        let value = HeaderValue::from_str(value.as_ref()).expect("only checked or encoded text is answered");
        self.headers_mut().insert(HeaderName::from_static(name), value);
        self
    }
}

/// The error codes of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Unsupported,
    #[serde(rename = "TOOMANYREQUESTS")]
    TooManyRequests,
    /// Not the specification's, which speaks of 4xx only: the fault is here.
    Unknown,
}

/// Why a request was not carried out.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: Code,
    message: String,
    detail: Option<Value>,
    headers: Vec<(&'static str, String)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: None, headers: Vec::new() }
    }

    /// Of what the client sent.
    pub(crate) fn bad(code: Code, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message.to_string())
    }

    /// Of what is not there.
    pub(crate) fn missing(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    #[must_use]
    pub(crate) fn detail(mut self, detail: Value) -> Self {
        self.detail = Some(detail);
        self
    }

    #[must_use]
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn answer(self) -> Answer {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(detail) = self.detail {
            error["detail"] = detail;
        }
        let answer = json(self.status, &json!({ "errors": [error] }));
        self.headers.into_iter().fold(answer, |answer, (name, value)| answer.with(name, value))
    }
}

impl From<std::io::Error> for Refusal {
    /// The disk failed. What exactly is for the log, not for whoever asked.
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        tracing::error!(%error, "the registry's folder can't be used");
        match error.kind() {
            StorageFull | QuotaExceeded => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, Code::Unknown, "the registry's disk is full")
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Unknown, "the registry's disk failed"),
        }
    }
}
