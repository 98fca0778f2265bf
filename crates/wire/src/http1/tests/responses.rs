use super::super::HttpError::{self, *};
use super::super::{Kind, RequestKind, ResponseBody, Version};
use super::{kinds_of, response};

const GET: RequestKind = RequestKind { head: false, upgrade: false };
const HEAD: RequestKind = RequestKind { head: true, upgrade: false };
const UPGRADE: RequestKind = RequestKind { head: false, upgrade: true };

fn with_status(status: &str, lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{lines}\r\n").into_bytes()
}

#[test]
fn a_response_is_read() {
    let head =
        b"HTTP/1.1 200 All well\r\nServer: x\r\nContent-Length: 5\r\nKeep-Alive: timeout=5, max=9\r\n\r\n";
    response(head, GET, |response| {
        assert_eq!((response.version, response.status, response.reason), (Version::Http11, 200, "All well"));
        assert_eq!((response.body, response.keep_alive), (ResponseBody::Length(5), true));
        assert_eq!((response.keep_alive_timeout, response.upgrade), (Some(5), false));
        let kinds: Vec<Kind> = kinds_of(&response.fields).into_iter().map(|(_, kind)| kind).collect();
        assert_eq!(kinds, [Kind::Server, Kind::ContentLength, Kind::KeepAlive]);
    })
    .unwrap();
}

#[test]
fn the_length_of_a_body_follows_the_order_of_the_standard() {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let length = "Content-Length: 5\r\n";
    for (status, lines, to, body) in [
        ("200 OK", "", GET, ResponseBody::UntilClose),
        ("200 OK", length, GET, ResponseBody::Length(5)),
        ("200 OK", chunked, GET, ResponseBody::Chunked),
        ("200 OK", length, HEAD, ResponseBody::None),
        ("200 OK", chunked, HEAD, ResponseBody::None),
        ("200 OK", "", HEAD, ResponseBody::None),
        ("204 No", length, GET, ResponseBody::None),
        ("204 No", chunked, GET, ResponseBody::None),
        ("304 No", length, GET, ResponseBody::None),
        ("304 No", "", GET, ResponseBody::None),
        ("100 Go", "", GET, ResponseBody::None),
        ("103 Hints", length, GET, ResponseBody::None),
        ("199 x", chunked, GET, ResponseBody::None),
        ("101 x", "", UPGRADE, ResponseBody::None),
        ("205 x", "", GET, ResponseBody::UntilClose),
        ("500 x", length, GET, ResponseBody::Length(5)),
        ("999 x", "", GET, ResponseBody::UntilClose),
    ] {
        assert_eq!(response(&with_status(status, lines), to, |it| it.body), Ok(body), "{status} {lines}");
    }
}

#[test]
fn ambiguous_lengths_are_refused_whatever_the_status() {
    for status in ["200 OK", "204 No", "304 No", "100 Go"] {
        for (lines, error) in [
            ("Content-Length: 5\r\nContent-Length: 5\r\n", ContentLengthRepeated),
            ("Content-Length: 5, 5\r\n", ContentLength),
            ("Content-Length: +5\r\n", ContentLength),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", TwoLengths),
            ("Transfer-Encoding: gzip\r\n", CodingUnknown),
            ("Transfer-Encoding: chunked, identity\r\n", TransferEncoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", TransferEncoding),
            ("Connection: content-length\r\n", ConnectionNames),
            ("Connection: set-cookie\r\n", ConnectionNames),
        ] {
            assert_eq!(response(&with_status(status, lines), GET, |_| ()), Err(error), "{status} {lines}");
        }
    }
    let old = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(response(old, GET, |_| ()), Err(CodingInHttp10));
}

#[test]
fn a_malformed_response_is_refused() {
    let table: &[(&[u8], HttpError)] = &[
        (b"HTTP/1.1 200 OK\nA: b\r\n\r\n", BareNewline),
        (b"HTTP/1.1 200 OK\r\nA: b\n\r\n", BareNewline),
        (b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", BareNewline),
        (b"HTTP/1.1 200 O\rK\r\nA: b\r\n\r\n", BareNewline),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", EmptyLines),
        (b"HTTP/1.1  200 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 20 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 2000 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 099 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 000 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 +20 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1\r\n\r\n", StatusLine),
        (b"HTTP/1.1 \r\n\r\n", StatusLine),
        (b"HTTP/1.1\t200 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 200 O\0K\r\n\r\n", StatusLine),
        (b"HTTP/1.1 200 O\x7fK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 200\tOK\r\n\r\n", StatusLine),
        (b"HTTP/2.0 200 OK\r\n\r\n", Version),
        (b"HTTP/0.9 200 OK\r\n\r\n", Version),
        (b"HTTP/1.2 200 OK\r\n\r\n", Version),
        (b"http/1.1 200 OK\r\n\r\n", StatusLine),
        (b"ICY 200 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n", Folded),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Folded),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", SpaceBeforeColon),
        (b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", FieldName),
        (b"HTTP/1.1 200 OK\r\n: c\r\n\r\n", FieldName),
        (b"HTTP/1.1 200 OK\r\nA\r\n\r\n", FieldName),
        (b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", FieldValue),
        (b"<html>\r\n\r\n", NotHttp),
        (b"HTTP/1.1 101 x\r\n\r\n", SwitchUnasked),
    ];
    for (head, error) in table {
        assert_eq!(response(head, GET, |_| ()), Err(*error), "{}", head.escape_ascii());
    }
}

#[test]
fn a_reason_may_be_missing_or_foreign() {
    for (line, reason) in [
        (&b"HTTP/1.1 200\r\n\r\n"[..], ""),
        (b"HTTP/1.1 200 \r\n\r\n", ""),
        (b"HTTP/1.1 200 Voil\xe0\r\n\r\n", ""),
        (b"HTTP/1.1 200 a b\tc\r\n\r\n", "a b\tc"),
    ] {
        assert_eq!(
            response(line, GET, |response| response.reason == reason),
            Ok(true),
            "{}",
            line.escape_ascii()
        );
    }
}

#[test]
fn a_connection_is_kept_only_behind_a_body_with_an_end() {
    let kept = |head: &[u8], to| response(head, to, |response| response.keep_alive).unwrap();
    assert!(kept(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", GET));
    assert!(!kept(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n", GET));
    assert!(!kept(b"HTTP/1.1 200 OK\r\n\r\n", GET));
    assert!(kept(b"HTTP/1.1 200 OK\r\n\r\n", HEAD));
    assert!(!kept(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", GET));
    assert!(kept(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n", GET));
    assert!(!kept(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", GET));
    assert!(!kept(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", UPGRADE));
}

#[test]
fn an_endpoint_may_say_how_long_it_waits() {
    for (value, seconds) in [
        ("timeout=5", Some(5)),
        ("max=100, Timeout=75", Some(75)),
        ("timeout=", None),
        ("timeout=x", None),
        ("timeout=99999999999", None),
        ("timeouts=5", None),
        ("5", None),
        ("", None),
    ] {
        let head = with_status("200 OK", &format!("Keep-Alive: {value}\r\n"));
        assert_eq!(response(&head, GET, |response| response.keep_alive_timeout), Ok(seconds), "{value}");
    }
}

#[test]
fn interim_answers_are_told_apart() {
    let interim = |status: &str, to| {
        response(&with_status(status, ""), to, |response| (response.is_interim(), response.upgrade)).unwrap()
    };
    assert_eq!(interim("100 Continue", GET), (true, false));
    assert_eq!(interim("103 Early Hints", UPGRADE), (true, false));
    assert_eq!(interim("101 Switching", UPGRADE), (false, true));
    assert_eq!(interim("200 OK", UPGRADE), (false, false));
}
