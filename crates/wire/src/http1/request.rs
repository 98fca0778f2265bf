//! The head of a request.

use std::mem::MaybeUninit;

use httparse::{Error, ParserConfig, Status};

use super::authority::host_and_port;
use super::bytes::is_token;
use super::facts::{Facts, Framing};
use super::fields::{FIELDS_MAX, Room};
use super::{Fields, HttpError, Limits, RequestKind, Target, Version};

/// A request, read and checked; routing, policy and forwarding all go by this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'r, 'b> {
    /// What is to be done.
    pub method: Method<'b>,
    /// To what.
    pub target: Target<'b>,
    /// What the client speaks.
    pub version: Version,
    /// Everything else it said.
    pub fields: Fields<'r, 'b>,
    /// Whom it means, `name[:port]`: the target's own word before that of `Host`. Empty only for HTTP/1.0.
    pub host: &'b str,
    /// How long the body is.
    pub body: RequestBody,
    /// Whether another request may follow.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// The one protocol that it offers to switch to: on a `GET` without body, named by `Connection`.
    pub upgrade: Option<&'b str>,
    /// Whether it takes trailers.
    pub te_trailers: bool,
}

/// Case matters: `get` is another method, and nobody's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method<'b> {
    /// Read.
    Get,
    /// Read, without the body.
    Head,
    /// Whatever the target makes of it.
    Post,
    /// Replace.
    Put,
    /// Remove.
    Delete,
    /// Change.
    Patch,
    /// Ask what is possible.
    Options,
    /// Any other token but CONNECT and TRACE.
    Other(&'b str),
}

/// How long the body of a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestBody {
    /// There is none.
    None,
    /// So many bytes; may be 0, said by the client.
    Length(u64),
    /// See [`ChunkedDecoder`](super::ChunkedDecoder).
    Chunked,
}

/// Reads a head as [`HeadScan`](super::HeadScan) delimits it, once; `room` need not be empty.
pub fn parse_request<'r, 'b>(
    head: &'b [u8],
    limits: &Limits,
    room: &'r mut Room<'b>,
) -> Result<Request<'r, 'b>, HttpError> {
    if head.len() > limits.head {
        return Err(HttpError::HeadTooLarge);
    }
    // RFC 9112 §2.2: one empty line is forgiven, as old clients end bodies with it.
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    refuse_empty_line(head)?;
    let mut headers = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let headers = &mut headers[..limits.fields.min(FIELDS_MAX)];
    let mut parsed = httparse::Request::new(&mut []);
    let config = ParserConfig::default();
    match config.parse_request_with_uninit_headers(&mut parsed, head, headers) {
        Ok(Status::Complete(end)) if end == head.len() => {}
        Ok(_) => return Err(HttpError::NoEnd),
        Err(error) => return Err(explain(error, head)),
    }
    let (Some(method), Some(raw), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HttpError::RequestLine);
    };
    // The spaces between the three, and a version of eight bytes.
    if method.len() + raw.len() + 10 > limits.line {
        return Err(HttpError::LineTooLong);
    }
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let method = Method::parse(method)?;
    let target = Target::parse(raw, &method)?;
    let (fields, facts) = Fields::read(head, parsed.headers, limits, room)?;
    assemble(method, target, version, fields, &facts, "")
}

impl<'b> Method<'b> {
    /// As it stood in the request line.
    pub const fn as_str(&self) -> &'b str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Patch => "PATCH",
            Method::Options => "OPTIONS",
            Method::Other(name) => name,
        }
    }

    /// RFC 9110 §9.2.1: asks for no change.
    pub const fn is_safe(&self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options)
    }

    /// RFC 9110 §9.2.2: twice does what once does, so it may be sent again.
    pub const fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self, Method::Put | Method::Delete)
    }

    pub(super) fn parse(name: &'b str) -> Result<Self, HttpError> {
        Ok(match name {
            "GET" => Method::Get,
            "POST" => Method::Post,
            "HEAD" => Method::Head,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "PATCH" => Method::Patch,
            "OPTIONS" => Method::Options,
            "CONNECT" => return Err(HttpError::Connect),
            "TRACE" => return Err(HttpError::Trace),
            _ => Method::Other(name),
        })
    }
}

impl Request<'_, '_> {
    /// Whether its first line is as [`encode_request_line`](super::encode_request_line) would write it.
    pub fn is_canonical(&self) -> bool {
        // A request line has the same parts in the same order, so that its length tells: between them are two
        // spaces, a version of eight bytes and a CRLF behind them.
        self.version == Version::Http11
            && self.target.authority.is_none()
            && self.fields.first_line() == self.method.as_str().len() + self.target.raw().len() + 12
    }

    /// What the answer's length depends on.
    pub const fn kind(&self) -> RequestKind {
        RequestKind { head: matches!(self.method, Method::Head), upgrade: self.upgrade.is_some() }
    }
}

/// The request of these parts; a host that is `known` is right.
#[inline]
pub(super) fn assemble<'r, 'b>(
    method: Method<'b>,
    target: Target<'b>,
    version: Version,
    fields: Fields<'r, 'b>,
    facts: &Facts<'b>,
    known: &'b str,
) -> Result<Request<'r, 'b>, HttpError> {
    if facts.expects_other {
        return Err(HttpError::Expectation);
    }
    let body = match facts.framing(version)? {
        Framing::Unsaid => RequestBody::None,
        Framing::Length(length) => RequestBody::Length(length),
        Framing::Chunked => RequestBody::Chunked,
    };
    let has_body = !matches!(body, RequestBody::None | RequestBody::Length(0));
    let may_upgrade = version == Version::Http11 && method == Method::Get && !has_body;
    Ok(Request {
        method,
        target,
        version,
        fields,
        host: host(&target, version, facts, known)?,
        body,
        keep_alive: facts.keeps_alive(version),
        // RFC 9110 §10.1.1: HTTP/1.0 has no interim answers.
        expects_continue: facts.expects_continue && has_body && version == Version::Http11,
        upgrade: if may_upgrade { facts.upgrade() } else { None },
        te_trailers: facts.te_trailers,
    })
}

/// RFC 9112 §3.2.2: the absolute form counts, but a `Host` must be there and right all the same.
fn host<'b>(
    target: &Target<'b>,
    version: Version,
    facts: &Facts<'b>,
    known: &'b str,
) -> Result<&'b str, HttpError> {
    let named = match facts.host {
        None if version == Version::Http11 => return Err(HttpError::HostMissing),
        None => "",
        Some(b"") if version == Version::Http10 => "",
        Some(value) if value == known.as_bytes() && !known.is_empty() => known,
        Some(value) => host_and_port(value).ok_or(HttpError::HostInvalid)?,
    };
    Ok(target.authority.unwrap_or(named))
}

/// The parser would skip any number of them.
pub(super) fn refuse_empty_line(head: &[u8]) -> Result<(), HttpError> {
    match head {
        [b'\r', b'\n', ..] => Err(HttpError::EmptyLines),
        [b'\r' | b'\n', ..] => Err(HttpError::BareNewline),
        _ => Ok(()),
    }
}

/// What is wrong with a head that was refused; costs what it wants.
#[cold]
fn explain(error: Error, head: &[u8]) -> HttpError {
    if has_bare_newline(head) {
        return HttpError::BareNewline;
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    match (error, &parts[..]) {
        (Error::Version, [_, _, version]) if is_other_version(version) => HttpError::Version,
        (Error::Token, [method, target, _]) if is_token(method) && !target.is_empty() => HttpError::Target,
        (Error::Token | Error::Version | Error::NewLine | Error::Status, _) => HttpError::RequestLine,
        _ => explain_fields(error, head),
    }
}

/// Of the fields of a request or a response.
#[cold]
pub(super) fn explain_fields(error: Error, head: &[u8]) -> HttpError {
    match error {
        Error::TooManyHeaders => HttpError::TooManyFields,
        Error::HeaderValue => HttpError::FieldValue,
        Error::HeaderName => wrong_name(head),
        _ => HttpError::BareNewline,
    }
}

/// `HTTP/` and two digits, but not ours.
pub(super) fn is_other_version(text: &[u8]) -> bool {
    match text {
        b"HTTP/1.0" | b"HTTP/1.1" => false,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] => {
            major.is_ascii_digit() && minor.is_ascii_digit()
        }
        _ => false,
    }
}

pub(super) fn has_bare_newline(head: &[u8]) -> bool {
    let lone_lf = (0..head.len()).any(|at| head[at] == b'\n' && (at == 0 || head[at - 1] != b'\r'));
    lone_lf || (0..head.len()).any(|at| head[at] == b'\r' && head.get(at + 1) != Some(&b'\n'))
}

/// What is wrong with the first line of which that is not a token and a colon.
fn wrong_name(head: &[u8]) -> HttpError {
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return HttpError::Folded;
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if !is_token(name) {
            let spaced = name.len() < line.len() && is_token(name.trim_ascii());
            return if spaced { HttpError::SpaceBeforeColon } else { HttpError::FieldName };
        }
    }
    HttpError::FieldName
}
