//! From the text of a request's head to the fields of a stream (RFC 9113 §8.3.1).

use std::io::ErrorKind;

use h2::ext::Protocol;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Scheme, Uri};
use http::{Method, Request};
use tieline_wire::http1::{
    FIELDS_MAX, Fields, HttpError, Kind, Limits, RequestBody, Room, Version, parse_request,
};

use super::body::Body;
use super::broken::Broken;
use crate::websocket;

/// A request as a stream begins with it.
pub(super) struct Asked {
    pub(super) request: Request<()>,
    /// What follows; `None`: nothing, the stream ends with the head.
    pub(super) body: Option<Body>,
    /// Whether the answer has no body, whatever it says.
    pub(super) head: bool,
    /// Where another protocol is asked for: what an answer of HTTP/1.1 must say to agree.
    pub(super) accept: Option<String>,
}

/// It was read and written anew before, so these only bound what is looked at.
pub(super) const LIMITS: Limits = Limits { line: 64 * 1024, head: 1024 * 1024, fields: FIELDS_MAX };

/// Reads `head`. `secure` says that TLS protects the connection; `extended` that the endpoint takes requests
/// for other protocols (RFC 8441 §3).
pub(super) fn read(head: &[u8], secure: bool, extended: bool) -> Result<Asked, Broken> {
    let mut room = Room::new();
    let parsed = parse_request(head, &LIMITS, &mut room).map_err(unfit)?;
    let path = str::from_utf8(&head[path_range(head)]).map_err(|_| unfit(HttpError::Target))?;
    let uri = Uri::builder()
        .scheme(if secure { Scheme::HTTPS } else { Scheme::HTTP })
        .authority(parsed.host)
        .path_and_query(path)
        .build()
        .map_err(|_| unfit(HttpError::Target))?;
    let mut request = Request::new(());
    *request.method_mut() =
        Method::from_bytes(parsed.method.as_str().as_bytes()).map_err(|_| unfit(HttpError::RequestLine))?;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = fields(&parsed.fields, parsed.te_trailers)?;
    let websocket = parsed.upgrade.is_some_and(|token| token.eq_ignore_ascii_case("websocket"));
    let accept = if websocket { Some(ask_for_websocket(&mut request, extended)?) } else { None };
    let body = match parsed.body {
        _ if websocket => Some(Body::Raw),
        RequestBody::None | RequestBody::Length(0) => None,
        RequestBody::Length(length) => Some(Body::Length(length)),
        RequestBody::Chunked => Some(Body::Chunked(Box::default())),
    };
    debug_assert!(parsed.version == Version::Http11, "written by us");
    Ok(Asked { request, body, head: parsed.kind().head, accept })
}

/// Between the two spaces of the first line.
fn path_range(head: &[u8]) -> std::ops::Range<usize> {
    let space = |from: usize| head[from..].iter().position(|byte| *byte == b' ').map_or(from, |at| from + at);
    let start = (space(0) + 1).min(head.len());
    start..space(start)
}

/// RFC 9113 §8.2.2: what was said to this hop of HTTP/1.1 is not said to one of HTTP/2.
fn fields(fields: &Fields<'_, '_>, te_trailers: bool) -> Result<HeaderMap, Broken> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields.iter() {
        match field.kind {
            Kind::Host => continue,
            kind if kind.is_hop_by_hop() => continue,
            _ => {}
        }
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| unfit(HttpError::FieldName))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| unfit(HttpError::FieldValue))?;
        map.append(name, value);
    }
    if te_trailers {
        map.insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(map)
}

/// RFC 8441 §5: `CONNECT` with a protocol; HTTP/2 has no need of the key. Returns the answer to it.
fn ask_for_websocket(request: &mut Request<()>, extended: bool) -> Result<String, Broken> {
    if !extended {
        let why = "the endpoint speaks HTTP/2 without WebSockets (RFC 8441)";
        return Err(Broken::ours(ErrorKind::Unsupported, why));
    }
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let key = request.headers_mut().remove(http::header::SEC_WEBSOCKET_KEY);
    Ok(websocket::accept(key.as_ref().map_or(b"", |key| key.as_bytes())))
}

/// A request that HTTP/2 cannot carry, as HTTP/1.1 could.
fn unfit(error: HttpError) -> Broken {
    Broken::ours(ErrorKind::InvalidInput, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(head: &str) -> Asked {
        read(head.as_bytes(), false, true).unwrap_or_else(|broken| panic!("{broken}"))
    }

    #[test]
    fn a_request_loses_what_was_said_to_the_hop() {
        let asked = asked(
            "GET /a?b=c HTTP/1.1\r\nHost: shop.test:81\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\n\
             Keep-Alive: timeout=5\r\nTE: trailers, gzip\r\nCookie: a=b\r\nX-Kept: Yes\r\n\r\n",
        );
        assert_eq!(asked.request.uri(), "http://shop.test:81/a?b=c");
        let mut fields: Vec<_> = asked
            .request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        fields.sort_by_key(|(name, _)| *name);
        assert_eq!(fields, [("cookie", "a=b"), ("te", "trailers"), ("x-kept", "Yes")]);
        assert!(asked.body.is_none() && asked.accept.is_none() && !asked.head);
    }

    #[test]
    fn the_scheme_is_that_of_the_connection() {
        let head = b"OPTIONS /* HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(read(head, true, false).ok().unwrap().request.uri().scheme_str(), Some("https"));
    }

    #[test]
    fn a_body_is_what_the_head_says() {
        let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        assert!(matches!(asked(&head("Content-Length: 5\r\n")).body, Some(Body::Length(5))));
        assert!(asked(&head("Content-Length: 0\r\n")).body.is_none());
        let chunked = asked(&head("Transfer-Encoding: chunked\r\n"));
        assert!(matches!(chunked.body, Some(Body::Chunked(_))));
        assert!(chunked.request.headers().is_empty());
    }

    #[test]
    fn a_websocket_is_a_connect_where_the_endpoint_takes_it() {
        let head = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let asked = asked(head);
        assert_eq!(asked.request.method(), Method::CONNECT);
        assert_eq!(asked.request.extensions().get::<Protocol>().map(Protocol::as_str), Some("websocket"));
        assert_eq!(asked.request.headers().len(), 1, "the version alone");
        assert_eq!(asked.accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "RFC 6455 §1.3");
        assert!(matches!(asked.body, Some(Body::Raw)));
        let Err(broken) = read(head.as_bytes(), false, false) else { panic!("it cannot be carried") };
        assert_eq!(broken.error().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn what_a_target_of_http_2_cannot_hold_is_refused() {
        let Err(broken) = read(b"GET /?a=\"b\" HTTP/1.1\r\nHost: a\r\n\r\n", false, false) else {
            return; // it can
        };
        assert_eq!(broken.error().kind(), ErrorKind::InvalidInput);
    }
}
