//! A request of HTTP/2 in the words of HTTP/1.1, for the one parser and the one set of rules.
//!
//! What could be read in two ways is handed on in a way that the parser refuses: there is no second place
//! where requests are judged.

use http::request::Parts;
use http::{HeaderMap, Method, header};
use tieline_wire::http1::push_field;

use super::websocket::Key;

/// How the body of a request goes on behind its head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Body {
    /// There is none.
    None,
    /// As it is: the head says how long it is.
    Plain,
    /// In chunks, trailers behind them.
    Chunked,
    /// As it is, for as long as it lasts: no HTTP any more.
    Opaque,
}

/// What a request was turned into.
pub(super) struct Head {
    pub(super) text: Vec<u8>,
    pub(super) body: Body,
    /// Whether the answer to it has no body: it asks for a head.
    pub(super) bodyless: bool,
    /// The key of a WebSocket that it opens.
    pub(super) key: Option<Key>,
}

/// Writes the head of a request; `ended` says that nothing follows it.
pub(super) fn translate(request: &Parts, ended: bool) -> Head {
    let mut text = Vec::with_capacity(INITIAL);
    let key = websocket(request);
    let method = if key.is_some() { "GET" } else { request.method.as_str() };
    text.extend_from_slice(method.as_bytes());
    text.push(b' ');
    target(request, key.is_some(), &mut text);
    text.extend_from_slice(b" HTTP/1.1\r\n");
    host(request, &mut text);
    fields(&request.headers, key.is_some(), &mut text);
    // RFC 9113 §8.1: every peer takes trailers.
    push_field("TE", b"trailers", &mut text);
    let body = body(request, ended, key.is_some());
    if body == Body::Chunked {
        push_field("Transfer-Encoding", b"chunked", &mut text);
    }
    if let Some(key) = &key {
        push_field("Connection", b"Upgrade", &mut text);
        push_field("Upgrade", b"websocket", &mut text);
        push_field("Sec-WebSocket-Key", key.as_bytes(), &mut text);
    }
    text.extend_from_slice(b"\r\n");
    Head { text, body, bodyless: request.method == Method::HEAD, key }
}

/// Most heads fit.
const INITIAL: usize = 512;

/// RFC 8441 §4: CONNECT with `:protocol` opens what HTTP/1.1 upgrades to. Any other protocol stays a CONNECT,
/// which is not served.
fn websocket(request: &Parts) -> Option<Key> {
    let protocol = request.extensions.get::<h2::ext::Protocol>()?;
    let opens = request.method == Method::CONNECT && protocol.as_str() == "websocket";
    opens.then(Key::new)
}

fn target(request: &Parts, opens: bool, text: &mut Vec<u8>) {
    if request.method == Method::CONNECT && !opens {
        let authority = request.uri.authority().map(|authority| authority.as_str());
        return text.extend_from_slice(authority.unwrap_or("-").as_bytes());
    }
    let path = request.uri.path_and_query().map_or("", |path| path.as_str());
    // RFC 9113 §8.3.1: a path begins with a slash, or is `*`. Whatever else it were must not pass for the
    // absolute form, whose authority would count instead of the one that was said.
    if !path.starts_with('/') && path != "*" {
        text.push(b'?');
    }
    text.extend_from_slice(path.as_bytes());
}

/// One `Host`, if `:authority` and the field say the same; else both, which is refused.
fn host(request: &Parts, text: &mut Vec<u8>) {
    let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let Some(authority) = authority {
        push_field("Host", authority, text);
    }
    for value in request.headers.get_all(header::HOST) {
        let same = |authority: &[u8]| authority.eq_ignore_ascii_case(value.as_bytes());
        if !authority.is_some_and(same) {
            push_field("Host", value.as_bytes(), text);
        }
    }
}

fn fields(headers: &HeaderMap, opens: bool, text: &mut Vec<u8>) {
    for (name, value) in headers {
        match *name {
            header::HOST | header::COOKIE | header::TE => {}
            // RFC 8441 §5: HTTP/2 has no use for them, and the ones behind are ours.
            header::SEC_WEBSOCKET_KEY | header::UPGRADE if opens => {}
            _ => push_field(name.as_str(), value.as_bytes(), text),
        }
    }
    // RFC 9113 §8.2.3: what was cut into pieces for compression is one field again.
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if let Some(first) = crumbs.next() {
        text.extend_from_slice(b"cookie: ");
        text.extend_from_slice(first.as_bytes());
        for crumb in crumbs {
            text.extend_from_slice(b"; ");
            text.extend_from_slice(crumb.as_bytes());
        }
        text.extend_from_slice(b"\r\n");
    }
}

fn body(request: &Parts, ended: bool, opens: bool) -> Body {
    let said = request.headers.contains_key(header::CONTENT_LENGTH);
    match (opens, said, ended) {
        (true, _, _) => Body::Opaque,
        (_, true, _) => Body::Plain,
        (_, false, true) => Body::None,
        (_, false, false) => Body::Chunked,
    }
}

/// Writes what stands before the data of a chunk: the end of the one before it, if there was one.
pub(super) fn chunk_head(length: usize, first: bool, text: &mut Vec<u8>) {
    if !first {
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(format!("{length:x}\r\n").as_bytes());
}

/// Writes the end of a chunked body.
pub(super) fn last_chunk(trailers: Option<&HeaderMap>, first: bool, text: &mut Vec<u8>) {
    if !first {
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        push_field(name.as_str(), value.as_bytes(), text);
    }
    text.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use proptest::prelude::*;
    use tieline_wire::http1::{HttpError, Limits, RequestBody, Room, parse_request};

    fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn text(parts: &Parts, ended: bool) -> String {
        String::from_utf8(translate(parts, ended).text).unwrap()
    }

    fn judged(parts: &Parts, ended: bool) -> Result<RequestBody, HttpError> {
        let head = translate(parts, ended);
        parse_request(&head.text, &Limits::default(), &mut Room::new()).map(|request| request.body)
    }

    #[test]
    fn a_request_is_told_in_one_form() {
        let asked = parts(
            "POST",
            "https://a.test/x?y=1",
            &[("cookie", "a=1"), ("content-type", "text/plain"), ("cookie", "b=2"), ("te", "trailers")],
        );
        assert_eq!(
            text(&asked, false),
            "POST /x?y=1 HTTP/1.1\r\nHost: a.test\r\ncontent-type: text/plain\r\ncookie: a=1; b=2\r\n\
             TE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        assert_eq!(judged(&asked, false), Ok(RequestBody::Chunked));
        assert_eq!(judged(&asked, true), Ok(RequestBody::None));
        let sized = parts("PUT", "http://a.test/", &[("content-length", "5")]);
        assert_eq!(judged(&sized, false), Ok(RequestBody::Length(5)));
    }

    #[test]
    fn what_two_could_read_differently_is_refused() {
        let refused = |parts: Parts| judged(&parts, true).unwrap_err();
        let host = |value| parts("GET", "http://a.test/", &[("host", value)]);
        assert!(judged(&host("A.test"), true).is_ok());
        assert_eq!(refused(host("b.test")), HttpError::HostRepeated);
        assert_eq!(refused(host("")), HttpError::HostRepeated);
        assert_eq!(refused(parts("GET", "/", &[])), HttpError::HostMissing);
        assert_eq!(refused(parts("GET", "/", &[("host", "a"), ("host", "a")])), HttpError::HostRepeated);
        assert_eq!(refused(parts("GET", "http://u@a.test/", &[])), HttpError::HostInvalid);
        let lengths = [("content-length", "5"), ("content-length", "5")];
        assert_eq!(refused(parts("POST", "http://a.test/", &lengths)), HttpError::ContentLengthRepeated);
        assert_eq!(refused(parts("CONNECT", "a.test:443", &[])), HttpError::Connect);
        assert_eq!(refused(parts("GET", "http://a.test?x", &[])), HttpError::Target);
        let mut strange = parts("GET", "http://a.test/", &[]);
        for target in ["*", "?x=http://b.test/"] {
            let mut uri = strange.uri.clone().into_parts();
            uri.path_and_query = Some(target.parse().unwrap());
            strange.uri = http::Uri::from_parts(uri).unwrap();
            assert_eq!(refused(strange.clone()), HttpError::Target, "{target}");
        }
    }

    #[test]
    fn a_websocket_asks_as_it_would_without_http2() {
        let mut asked = parts("CONNECT", "https://a.test/chat", &[("sec-websocket-version", "13")]);
        asked.extensions.insert(h2::ext::Protocol::from_static("websocket"));
        let head = translate(&asked, false);
        let key = head.key.as_ref().unwrap();
        let parsed = parse_request(&head.text, &Limits::default(), &mut Room::new())
            .unwrap()
            .upgrade
            .map(str::to_owned);
        assert_eq!((parsed.as_deref(), head.body), (Some("websocket"), Body::Opaque));
        assert!(
            String::from_utf8(head.text.clone()).unwrap().contains(str::from_utf8(key.as_bytes()).unwrap())
        );
        asked.extensions.insert(h2::ext::Protocol::from_static("connect-udp"));
        assert_eq!(judged(&asked, false), Err(HttpError::Connect));
    }

    proptest! {
        /// Whatever HTTP/2 can carry, the parser sees one request or none, and never where a second begins.
        #[test]
        fn no_field_escapes_its_line(
            name in "[a-z0-9!#$%&'*+.^_`|~-]{1,12}",
            value in prop::collection::vec(any::<u8>(), 0..40),
            path in "/[!-~]{0,20}",
            ended in any::<bool>(),
        ) {
            let Ok(value) = http::HeaderValue::from_bytes(&value) else { return Ok(()) };
            let Ok(uri) = format!("http://a.test{path}").parse::<http::Uri>() else { return Ok(()) };
            let mut asked = parts("GET", "http://a.test/", &[]);
            asked.uri = uri;
            asked.headers.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            let head = translate(&asked, ended);
            let end = head.text.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
            prop_assert_eq!(end + 4, head.text.len());
            if let Ok(request) = parse_request(&head.text, &Limits::default(), &mut Room::new()) {
                prop_assert_eq!(request.target.raw(), asked.uri.path_and_query().unwrap().as_str());
                prop_assert_eq!(request.host, "a.test");
            }
        }
    }
}
