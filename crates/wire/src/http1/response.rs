//! The head of a response.

use std::mem::MaybeUninit;

use httparse::{Error, ParserConfig, Status};

use super::facts::{Facts, Framing};
use super::fields::{FIELDS_MAX, Room};
use super::request::{explain_fields, has_bare_newline, is_other_version, refuse_empty_line};
use super::{Fields, HttpError, Limits, Version};

/// What of a request decides how its answer is read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RequestKind {
    /// It was a `HEAD`: the answer has no body, whatever it says.
    pub head: bool,
    /// It offered another protocol, so the answer may switch to it.
    pub upgrade: bool,
}

/// A response, read and checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Response<'r, 'b> {
    /// What the endpoint speaks.
    pub version: Version,
    /// From 100 to 999.
    pub status: u16,
    /// What it calls the status; empty also if it does not write it in ASCII.
    pub reason: &'b str,
    /// Everything else it said.
    pub fields: Fields<'r, 'b>,
    /// How long the body is.
    pub body: ResponseBody,
    /// Whether the connection is of use after it.
    pub keep_alive: bool,
    /// For how many seconds it may lie idle then, by the endpoint's word.
    pub keep_alive_timeout: Option<u32>,
    /// The bytes behind it are of another protocol.
    pub upgrade: bool,
}

/// How long the body of a response is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseBody {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// See [`ChunkedDecoder`](super::ChunkedDecoder).
    Chunked,
    /// All that comes until the endpoint closes.
    UntilClose,
}

/// Reads a head as [`HeadScan`](super::HeadScan) delimits it, once; `room` need not be empty.
pub fn parse_response<'r, 'b>(
    head: &'b [u8],
    limits: &Limits,
    room: &'r mut Room<'b>,
    to: RequestKind,
) -> Result<Response<'r, 'b>, HttpError> {
    if head.len() > limits.head {
        return Err(HttpError::HeadTooLarge);
    }
    refuse_empty_line(head)?;
    let mut headers = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let headers = &mut headers[..limits.fields.min(FIELDS_MAX)];
    let mut parsed = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, head, headers) {
        Ok(Status::Complete(end)) if end == head.len() => {}
        Ok(_) => return Err(HttpError::NoEnd),
        Err(error) => return Err(explain(error, head)),
    }
    let (Some(minor), Some(status @ 100..)) = (parsed.version, parsed.code) else {
        return Err(HttpError::StatusLine);
    };
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let reason = parsed.reason.unwrap_or_default();
    let (fields, facts) = Fields::read(head, parsed.headers, limits, room)?;
    conclude(version, status, reason, fields, &facts, to)
}

/// The response of these parts.
#[inline]
pub(super) fn conclude<'r, 'b>(
    version: Version,
    status: u16,
    reason: &'b str,
    fields: Fields<'r, 'b>,
    facts: &Facts<'b>,
    to: RequestKind,
) -> Result<Response<'r, 'b>, HttpError> {
    if status == 101 && !to.upgrade {
        return Err(HttpError::SwitchUnasked);
    }
    let body = body(status, version, to, facts)?;
    Ok(Response {
        version,
        status,
        reason,
        fields,
        body,
        keep_alive: facts.keeps_alive(version) && body != ResponseBody::UntilClose && status != 101,
        keep_alive_timeout: facts.keep_alive_timeout(),
        upgrade: status == 101,
    })
}

impl Response<'_, '_> {
    /// Whether its first line is as [`encode_status_line`](super::encode_status_line) would write it.
    pub fn is_canonical(&self) -> bool {
        // Nine bytes of version and a space, three digits, a space, the reason, and a CRLF.
        self.version == Version::Http11 && self.fields.first_line() == self.reason.len() + 15
    }

    /// Another answer to the same request follows.
    pub const fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// RFC 9112 §6.3. What the fields say is checked even where it does not count: they may be passed on.
fn body(
    status: u16,
    version: Version,
    to: RequestKind,
    facts: &Facts<'_>,
) -> Result<ResponseBody, HttpError> {
    let framing = facts.framing(version)?;
    Ok(match framing {
        _ if to.head || matches!(status, 100..=199 | 204 | 304) => ResponseBody::None,
        Framing::Chunked => ResponseBody::Chunked,
        Framing::Length(length) => ResponseBody::Length(length),
        Framing::Unsaid => ResponseBody::UntilClose,
    })
}

/// What is wrong with a head that was refused; costs what it wants.
#[cold]
fn explain(error: Error, head: &[u8]) -> HttpError {
    if has_bare_newline(head) {
        return HttpError::BareNewline;
    }
    match error {
        Error::Version if head.get(..8).is_some_and(is_other_version) => HttpError::Version,
        Error::Version | Error::Status | Error::Token | Error::NewLine => HttpError::StatusLine,
        _ => explain_fields(error, head),
    }
}
