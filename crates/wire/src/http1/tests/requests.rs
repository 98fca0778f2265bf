//! Requests that are refused, each rule with the ways around it.

use super::super::HttpError::{self, *};
use super::{request, with_fields};

/// Refused by the scan and the parser together, and by the parser alone.
fn refused(head: &[u8], error: HttpError) {
    assert_eq!(request(head, |_| ()), Err(error), "{}", head.escape_ascii());
    let alone = super::parse_request(head, &super::Limits::default(), &mut super::Room::new()).map(|_| ());
    assert!(alone.is_err(), "by itself: {}", head.escape_ascii());
}

fn all_refused(table: &[(&[u8], HttpError)]) {
    for (head, error) in table {
        refused(head, *error);
    }
}

/// The fields of a POST behind its Host.
fn all_fields_refused(table: &[(&str, HttpError)]) {
    for (lines, error) in table {
        refused(&with_fields("POST", lines), *error);
    }
}

#[test]
fn lines_end_with_crlf_and_nothing_else() {
    all_refused(&[
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", BareNewline),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", BareNewline),
        (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", BareNewline),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", BareNewline),
        (b"GET / HTTP/1.1\nHost: a\n\n", BareNewline),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", NotHttp),
        (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", BareNewline),
        (b"GET / HTTP/1.1\rHost: a\r\n\r\n", BareNewline),
        (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", BareNewline),
        (b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", BareNewline),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n", BareNewline),
        (b"GET / HTTP/1.1\r\n\rHost: a\r\n\r\n", BareNewline),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\r: y\r\n\r\n", BareNewline),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX:\ry\r\n\r\n", BareNewline),
        (b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", BareNewline),
        (b"GET\r / HTTP/1.1\r\nHost: a\r\n\r\n", BareNewline),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\n", BareNewline),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n", BareNewline),
    ]);
}

#[test]
fn at_most_one_empty_line_precedes_the_request_line() {
    assert_eq!(request(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", |request| request.host.len()), Ok(1));
    all_refused(&[
        (b"\r\n\r\n", EmptyLines),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", EmptyLines),
        (b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareNewline),
        (b"\r\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareNewline),
    ]);
}

#[test]
fn what_is_no_http_is_known_by_its_first_byte() {
    for first in [&b"\x16\x03\x01"[..], b"\0", b" ", b"\t", b"\x80", b"(", b"\n", b":", b"\"", b"{", b"/"] {
        assert_eq!(request(first, |_| ()), Err(NotHttp), "{}", first.escape_ascii());
    }
}

#[test]
fn white_space_stands_neither_before_a_field_nor_before_its_colon() {
    all_refused(&[
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Folded),
        (b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", Folded),
        (b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", Folded),
        (b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", Folded),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\tb\r\n\r\n", Folded),
        (b"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n", Folded),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n Content-Length: 5\r\n\r\n", Folded),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", SpaceBeforeColon),
        (b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", SpaceBeforeColon),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n", SpaceBeforeColon),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", SpaceBeforeColon),
    ]);
}

#[test]
fn the_request_line_is_three_parts_with_single_spaces() {
    all_refused(&[
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTTP/1.1\t\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET /\x0bHTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET /\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET \r\nHost: a\r\n\r\n", RequestLine),
        (b"GET HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"G\xc3\x89T / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET: / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTTP/1.1x\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTTP/1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTTP/1,1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTTPS/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / ICY/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"HTTP/1.1 200 OK\r\nHost: a\r\n\r\n", RequestLine),
    ]);
}

#[test]
fn other_versions_are_505() {
    all_refused(&[
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", Version),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", Version),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", Version),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Version),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", Version),
        (b"PRI * HTTP/2.0\r\n\r\n", Version),
    ]);
    assert_eq!(Version.status(), 505);
}

#[test]
fn targets_have_a_form_and_bytes_that_are_allowed() {
    let refused_targets = [
        "/#a",
        "/a#",
        "/\\",
        "/a\\b",
        "/?a\\b",
        "/?#",
        "/\u{e9}",
        "/?\u{e9}",
        "/\"",
        "/<",
        "/>",
        "/^",
        "/`",
        "/{",
        "/|",
        "/}",
        "*",
        "a",
        "a/b",
        "?a",
        "a:443",
        "//a#",
        "http:/a/",
        "http:a",
        "ftp://a/",
        "://a/",
        "htt p://a",
        "http//a/",
        "%2f",
        "#",
        "",
    ];
    for target in refused_targets {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let error = request(head.as_bytes(), |_| ()).unwrap_err();
        assert!(matches!(error, Target | RequestLine), "{target:?}: {error:?}");
    }
    all_refused(&[
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"GET /\x01a HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"GET /?\xff HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"POST * HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        (b"OPTIONS *?a HTTP/1.1\r\nHost: a\r\n\r\n", Target),
    ]);
}

#[test]
fn an_absolute_target_names_a_valid_host() {
    for authority in
        ["", "@", "u@a", "u:p@a", "a:b", "a:", "a b", "a%20", "[", "[]", "[::1", "[::g]", "a:99999"]
    {
        let head = format!("GET http://{authority}/ HTTP/1.1\r\nHost: a\r\n\r\n");
        let error = request(head.as_bytes(), |_| ()).unwrap_err();
        assert!(matches!(error, HostInvalid | RequestLine), "{authority:?}: {error:?}");
    }
    all_refused(&[
        (b"GET http://a/ HTTP/1.1\r\n\r\n", HostMissing),
        (b"GET http://a/ HTTP/1.1\r\nHost: b\r\nHost: a\r\n\r\n", HostRepeated),
        (b"GET http://a/ HTTP/1.1\r\nHost: b c\r\n\r\n", HostInvalid),
        (b"GET http://a/{ HTTP/1.1\r\nHost: b\r\n\r\n", Target),
        (b"GET http://a#b HTTP/1.1\r\nHost: b\r\n\r\n", HostInvalid),
        (b"GET http://a\\b/ HTTP/1.1\r\nHost: b\r\n\r\n", HostInvalid),
    ]);
}

#[test]
fn connect_and_trace_are_not_served() {
    all_refused(&[
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Connect),
        (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", Connect),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Trace),
        (b"TRACE * HTTP/1.1\r\nHost: a\r\n\r\n", Trace),
    ]);
    assert_eq!((Connect.status(), Trace.status()), (501, 405));
}

#[test]
fn there_is_exactly_one_host_and_it_is_valid() {
    all_refused(&[
        (b"GET / HTTP/1.1\r\n\r\n", HostMissing),
        (b"GET / HTTP/1.1\r\nHosts: a\r\n\r\n", HostMissing),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", HostRepeated),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", HostRepeated),
        (b"GET / HTTP/1.1\r\nHost:\r\nHost: a\r\n\r\n", HostRepeated),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", HostRepeated),
    ]);
    let wrong = [
        "",
        " ",
        "a b",
        "a,b",
        "a/b",
        "a?b",
        "a#b",
        "a@b",
        "@a",
        "a\\b",
        "a%41",
        "a;b",
        "a\"",
        "<a>",
        "\u{e9}",
        ".",
        ".a",
        "a..b",
        ":",
        ":80",
        "a:",
        "a:b",
        "a:-1",
        "a:+1",
        "a: 80",
        "a:65536",
        "a:000080",
        "a:80:80",
        "::1",
        "[",
        "[]",
        "[::1",
        "::1]",
        "[::1]80",
        "[::1]:",
        "[::g]",
        "[1.2.3.4]",
        "[::1%eth0]",
        "[v1.a]",
        "http://a",
        "a*",
        "(a)",
        "a\tb",
        "a'",
    ];
    for host in wrong {
        refused(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), HostInvalid);
    }
}

#[test]
fn content_length_is_one_decimal_number() {
    let wrong = [
        "",
        "+5",
        "-5",
        "0x5",
        "5, 5",
        "5,5",
        "5,",
        ",5",
        "5 5",
        "5.0",
        "5e1",
        "five",
        "\"5\"",
        "5;",
        "0b1",
        "\u{b2}",
        "18446744073709551616",
        "99999999999999999999",
        "100000000000000000000000000000",
        "5\t5",
        "1_000",
        "\u{ff15}",
    ];
    for length in wrong {
        refused(&with_fields("POST", &format!("Content-Length: {length}\r\n")), ContentLength);
    }
    all_fields_refused(&[
        ("Content-Length: 5\r\nContent-Length: 5\r\n", ContentLengthRepeated),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", ContentLengthRepeated),
        ("Content-Length: 5\r\nX: y\r\ncontent-length: 5\r\n", ContentLengthRepeated),
        ("Content-Length: 0\r\nCONTENT-LENGTH: 0\r\n", ContentLengthRepeated),
        ("Content-Length: 5\r\nContent-Length: x\r\n", ContentLength),
    ]);
}

#[test]
fn two_credentials_are_refused() {
    all_fields_refused(&[
        ("Authorization: Basic YTph\r\nAuthorization: Basic YTph\r\n", AuthorizationRepeated),
        ("Authorization: Basic YTph\r\nX: y\r\nauthorization: Basic YjpI\r\n", AuthorizationRepeated),
    ]);
}

#[test]
fn transfer_encoding_is_exactly_chunked() {
    for (coding, error) in [
        ("gzip", CodingUnknown),
        ("identity", CodingUnknown),
        ("xchunked", CodingUnknown),
        ("chunkedx", CodingUnknown),
        ("gzip, chunked", CodingUnknown),
        ("gzip,deflate", CodingUnknown),
        ("", TransferEncoding),
        (",", TransferEncoding),
        (", chunked", TransferEncoding),
        ("chunked,", TransferEncoding),
        ("chunked, chunked", TransferEncoding),
        ("chunked, identity", TransferEncoding),
        ("chunked, gzip", TransferEncoding),
        ("chunked;q=1", TransferEncoding),
        ("chunked; a", TransferEncoding),
        ("\"chunked\"", TransferEncoding),
        ("chunked chunked", TransferEncoding),
        ("ch unked", TransferEncoding),
        ("chunked\u{a0}", TransferEncoding),
        ("\u{17f}chunked", TransferEncoding),
    ] {
        refused(&with_fields("POST", &format!("Transfer-Encoding: {coding}\r\n")), error);
    }
    all_fields_refused(&[
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", TransferEncoding),
        ("Transfer-Encoding: chunked\r\ntransfer-encoding: gzip\r\n", CodingUnknown),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", CodingUnknown),
    ]);
    assert_eq!((TransferEncoding.status(), CodingUnknown.status()), (400, 501));
}

#[test]
fn a_length_and_a_coding_together_are_refused() {
    all_fields_refused(&[
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", TwoLengths),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", TwoLengths),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", TwoLengths),
        ("transfer-ENCODING: CHUNKED\r\ncontent-LENGTH: 0\r\n", TwoLengths),
    ]);
}

#[test]
fn http_1_0_has_no_transfer_coding() {
    all_refused(&[
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", CodingInHttp10),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", CodingInHttp10),
    ]);
}

#[test]
fn names_are_tokens_and_values_have_no_controls() {
    for name in ["", "a b", "a(", "a/", "a[", "a\u{e9}", "a\0", "a\x7f", "a@", "\"a\"", "a,b", "a;", "{a}"] {
        refused(&with_fields("GET", &format!("{name}: x\r\n")), FieldName);
    }
    all_fields_refused(&[
        ("no colon\r\n", FieldName),
        ("nocolon\r\n", FieldName),
        ("X: a\0b\r\n", FieldValue),
        ("X: \x01\r\n", FieldValue),
        ("X: a\x0bb\r\n", FieldValue),
        ("X: a\x0c\r\n", FieldValue),
        ("X: \x1b[1m\r\n", FieldValue),
        ("X: a\x7f\r\n", FieldValue),
        ("X:\0\r\n", FieldValue),
        ("Transfer-Encoding: \x0bchunked\r\n", FieldValue),
        ("Content-Length: 5\x0b\r\n", FieldValue),
    ]);
}

#[test]
fn connection_may_not_take_away_what_the_request_is_judged_by() {
    for named in
        ["Host", "content-length", "Authorization", "COOKIE", "close, host", "x,Cookie", "Set-Cookie"]
    {
        refused(&with_fields("GET", &format!("Connection: {named}\r\n")), ConnectionNames);
    }
    for wrong in ["a b", "a;b", "\"close\"", "a/b", "close; x", "\u{e9}"] {
        refused(&with_fields("GET", &format!("Connection: {wrong}\r\n")), Connection);
    }
    let many = |count| with_fields("GET", &format!("Connection: {}\r\n", vec!["x"; count].join(",")));
    assert_eq!(request(&many(32), |_| ()), Ok(()));
    refused(&many(33), Connection);
}

#[test]
fn an_expectation_other_than_100_continue_is_417() {
    all_fields_refused(&[
        ("Expect: 200-ok\r\n", Expectation),
        ("Expect:\r\n", Expectation),
        ("Expect: 100-continue, x\r\n", Expectation),
        ("Expect: 100-continue\r\nExpect: y\r\n", Expectation),
    ]);
    assert_eq!(Expectation.status(), 417);
}

#[test]
fn a_head_ends_where_it_ends() {
    let parse = |head: &[u8]| {
        super::parse_request(head, &super::Limits::default(), &mut super::Room::new()).map(|_| ())
    };
    assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(()));
    for head in [
        &b""[..],
        b"G",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r",
    ] {
        assert_eq!(parse(head), Err(NoEnd), "{}", head.escape_ascii());
    }
    assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nX"), Err(NoEnd));
    assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n"), Err(NoEnd));
}

#[test]
fn every_error_has_a_status_and_one_plain_line() {
    for error in [NotHttp, NoEnd, HeadTooLarge, LineTooLong, Connect, Trace, TwoLengths, Expectation, Version]
    {
        let text = error.to_string();
        assert!((400..=505).contains(&error.status()), "{error:?}");
        assert!(!text.is_empty() && !text.contains('\n') && text.is_ascii(), "{text}");
    }
}
