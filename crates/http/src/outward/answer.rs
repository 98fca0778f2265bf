//! From the fields of a stream to the text of an answer's head, and of its trailers.

use std::num::NonZeroUsize;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, TRAILER};
use http::{Response, StatusCode};
use tieline_base::text::push_decimal;
use tieline_wire::http1::{encode_chunk_head, encode_last_chunk, encode_status_line, push_field};

/// How the text frames the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks, trailers behind them.
    Chunked,
    /// Until the end: another protocol's bytes.
    Raw,
}

/// Writes the head of an interim answer.
pub(super) fn interim(response: &Response<()>, out: &mut Vec<u8>) {
    first_line(response.status(), out);
    push_all(response.headers(), out);
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of an answer to a `HEAD` if `head` is set. `ended` says that nothing follows.
pub(super) fn last<B>(response: &Response<B>, head: bool, ended: bool, out: &mut Vec<u8>) -> Framing {
    let (status, fields) = (response.status(), response.headers());
    let framing = match length(fields) {
        // RFC 9110 §6.4.1.
        _ if head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) => Framing::None,
        Some(length) if !may_have_trailers(fields) || ended => Framing::Length(length),
        None if ended => Framing::Length(0),
        _ => Framing::Chunked,
    };
    first_line(status, out);
    for (name, value) in fields {
        if name != CONTENT_LENGTH || framing != Framing::Chunked {
            push_field(name.as_str(), value.as_bytes(), out);
        }
    }
    match framing {
        Framing::Chunked => push_field("transfer-encoding", b"chunked", out),
        Framing::Length(length) if !fields.contains_key(CONTENT_LENGTH) => {
            out.extend_from_slice(b"content-length: ");
            push_decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    framing
}

/// Writes the head of the answer that agrees to a WebSocket.
pub(super) fn switched<B>(response: &Response<B>, accept: &str, out: &mut Vec<u8>) {
    first_line(StatusCode::SWITCHING_PROTOCOLS, out);
    push_all(response.headers(), out);
    push_field("connection", b"Upgrade", out);
    push_field("upgrade", b"websocket", out);
    push_field("sec-websocket-accept", accept.as_bytes(), out);
    out.extend_from_slice(b"\r\n");
}

/// Writes what stands before `length` bytes of a chunk, and what stands behind the chunk before it.
pub(super) fn chunk_head(length: NonZeroUsize, out: &mut Vec<u8>) {
    encode_chunk_head(length, out);
}

/// Ends a chunked body.
pub(super) fn end(trailers: Option<&HeaderMap>, out: &mut Vec<u8>) {
    let mut lines = Vec::new();
    if let Some(trailers) = trailers {
        push_all(trailers, &mut lines);
    }
    encode_last_chunk(&lines, out);
}

fn first_line(status: StatusCode, out: &mut Vec<u8>) {
    encode_status_line(status.as_u16(), status.canonical_reason().unwrap_or_default(), out);
}

fn push_all(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        push_field(name.as_str(), value.as_bytes(), out);
    }
}

/// Of several the reader of the text will not approve.
fn length(fields: &HeaderMap) -> Option<u64> {
    fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A length in text leaves no room for trailers. Those that gRPC ends with are part of its answer.
fn may_have_trailers(fields: &HeaderMap) -> bool {
    let grpc = |kind: &http::HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
    fields.contains_key(TRAILER) || fields.get(CONTENT_TYPE).is_some_and(grpc)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: u16, fields: &[(&str, &str)], head: bool, ended: bool) -> (String, Framing) {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let mut out = Vec::new();
        let framing = last(&response.body(()).unwrap(), head, ended, &mut out);
        (String::from_utf8(out).unwrap(), framing)
    }

    #[test]
    fn a_body_is_framed_by_its_length_or_in_chunks() {
        let sized = text(200, &[("content-length", "5")], false, false);
        assert_eq!(sized, ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".into(), Framing::Length(5)));
        let open = text(200, &[], false, false);
        assert_eq!(open, ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".into(), Framing::Chunked));
        let empty = text(404, &[], false, true);
        assert_eq!(empty, ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into(), Framing::Length(0)));
    }

    #[test]
    fn what_has_no_body_says_nothing_of_one_that_is_not_there() {
        assert_eq!(text(204, &[], false, true), ("HTTP/1.1 204 No Content\r\n\r\n".into(), Framing::None));
        let head = text(200, &[("content-length", "5")], true, true);
        assert_eq!(head, ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".into(), Framing::None));
    }

    #[test]
    fn trailers_have_room_where_they_may_come() {
        for fields in [
            &[("content-length", "5"), ("content-type", "application/grpc+proto")][..],
            &[("content-length", "5"), ("trailer", "x-checksum")],
        ] {
            let (text, framing) = text(200, fields, false, false);
            assert!(framing == Framing::Chunked && !text.contains("content-length"), "{text}");
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let mut out = Vec::new();
        end(Some(&trailers), &mut out);
        assert_eq!(out, b"0\r\ngrpc-status: 0\r\n\r\n");
    }
}
