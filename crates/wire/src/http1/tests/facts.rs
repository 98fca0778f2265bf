//! Requests that are taken, and what is known of them then.

use super::super::{Kind, Method, RequestBody, Scheme, Version};
use super::{kinds_of, request, with_fields};

#[test]
fn a_request_of_curl_is_read() {
    let head = b"GET /a/b?c=d&e={f} HTTP/1.1\r\nHost: Example.org:8080\r\n\
        User-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
    request(head, |request| {
        assert_eq!((request.method, request.version), (Method::Get, Version::Http11));
        assert_eq!((request.target.path, request.target.query), ("/a/b", Some("c=d&e={f}")));
        assert_eq!((request.target.scheme, request.target.authority), (None, None));
        assert_eq!(request.target.raw(), "/a/b?c=d&e={f}");
        assert_eq!(request.host, "Example.org:8080");
        assert_eq!((request.body, request.keep_alive), (RequestBody::None, true));
        assert_eq!((request.upgrade, request.te_trailers, request.expects_continue), (None, false, false));
        assert_eq!(request.fields.len(), 3);
        assert_eq!(request.fields.get("user-AGENT"), Some(&b"curl/8.5.0"[..]));
        assert_eq!(request.fields.get("user"), None);
        let lines: Vec<&[u8]> = request.fields.iter().map(|field| field.line).collect();
        assert_eq!(
            lines,
            [&b"Host: Example.org:8080\r\n"[..], b"User-Agent: curl/8.5.0\r\n", b"Accept: */*\r\n"]
        );
    })
    .unwrap();
}

#[test]
fn valid_hosts_are_taken_as_written() {
    for host in [
        "a",
        "A.b-c.D",
        "a.",
        "a_b",
        "localhost:80",
        "a:0",
        "a:65535",
        "127.0.0.1",
        "1.2.3.4:8080",
        "[::1]",
        "[2001:db8::1]:443",
        "[::ffff:1.2.3.4]",
        "xn--bcher-kva.example",
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(request(head.as_bytes(), |request| request.host == host), Ok(true), "{host}");
    }
    assert_eq!(request(b"GET / HTTP/1.1\r\nHost: \t a \t \r\n\r\n", |request| request.host == "a"), Ok(true));
    assert_eq!(request(b"GET / HTTP/1.0\r\n\r\n", |request| request.host.is_empty()), Ok(true));
    assert_eq!(request(b"GET / HTTP/1.0\r\nHost:\r\n\r\n", |request| request.host.is_empty()), Ok(true));
}

#[test]
fn an_absolute_target_replaces_host() {
    let pushed = |method: &str, target: &str| {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: other\r\n\r\n");
        request(head.as_bytes(), |request| {
            let mut out = Vec::new();
            request.target.push(&mut out);
            (request.host.to_owned(), request.target.scheme, String::from_utf8(out).unwrap())
        })
        .unwrap()
    };
    let (http, https) = (Some(Scheme::Http), Some(Scheme::Https));
    assert_eq!(pushed("GET", "http://a:8/b?c"), ("a:8".into(), http, "/b?c".into()));
    assert_eq!(pushed("GET", "HTTPS://a"), ("a".into(), https, "/".into()));
    assert_eq!(pushed("GET", "http://a?b/c"), ("a".into(), http, "/?b/c".into()));
    assert_eq!(pushed("GET", "http://[::1]:1//x"), ("[::1]:1".into(), http, "//x".into()));
    assert_eq!(pushed("OPTIONS", "http://a"), ("a".into(), http, "*".into()));
    assert_eq!(pushed("OPTIONS", "http://a/"), ("a".into(), http, "/".into()));
    assert_eq!(pushed("OPTIONS", "*"), ("other".into(), None, "*".into()));
    assert_eq!(pushed("GET", "/http://a/"), ("other".into(), None, "/http://a/".into()));
    assert_eq!(pushed("GET", "//a/b"), ("other".into(), None, "//a/b".into()));
}

#[test]
fn queries_may_have_what_paths_may_not() {
    let head = b"GET /a?\"<>^`{|}??/%zz HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(request(head, |request| request.target.query == Some("\"<>^`{|}??/%zz")), Ok(true));
    let empty = request(b"GET /? HTTP/1.1\r\nHost: a\r\n\r\n", |request| request.target.query == Some(""));
    assert_eq!(empty, Ok(true));
}

#[test]
fn methods_know_whether_they_may_be_sent_again() {
    for (name, method, safe, idempotent) in [
        ("GET", Method::Get, true, true),
        ("HEAD", Method::Head, true, true),
        ("OPTIONS", Method::Options, true, true),
        ("PUT", Method::Put, false, true),
        ("DELETE", Method::Delete, false, true),
        ("POST", Method::Post, false, false),
        ("PATCH", Method::Patch, false, false),
        ("PROPFIND", Method::Other("PROPFIND"), false, false),
        ("get", Method::Other("get"), false, false),
        ("!#$%&'*+-.^_`|~09", Method::Other("!#$%&'*+-.^_`|~09"), false, false),
    ] {
        request(&with_fields(name, ""), |request| {
            assert_eq!(request.method, method);
            assert_eq!(request.method.as_str(), name);
            assert_eq!(
                (request.method.is_safe(), request.method.is_idempotent()),
                (safe, idempotent),
                "{name}"
            );
        })
        .unwrap();
    }
}

#[test]
fn bodies_are_as_long_as_one_field_says() {
    for (lines, body) in [
        ("", RequestBody::None),
        ("Content-Length: 0\r\n", RequestBody::Length(0)),
        ("Content-Length: 007\r\n", RequestBody::Length(7)),
        ("content-length:18446744073709551615\r\n", RequestBody::Length(u64::MAX)),
        ("Transfer-Encoding: chunked\r\n", RequestBody::Chunked),
        ("tRANSFER-eNCODING:\tChUnKeD \r\n", RequestBody::Chunked),
    ] {
        assert_eq!(request(&with_fields("POST", lines), |request| request.body), Ok(body), "{lines}");
    }
}

#[test]
fn http_1_0_stays_open_only_when_asked() {
    for (version, connection, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: CLOSE, keep-alive\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: x, ,y,\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Proxy-Connection: keep-alive\r\n", false),
    ] {
        let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
        let kept = request(head.as_bytes(), |request| request.keep_alive);
        assert_eq!(kept, Ok(keep_alive), "{version} {connection}");
    }
}

#[test]
fn who_waits_for_100_has_a_body_to_send_and_speaks_1_1() {
    let expects = |head: &str| request(head.as_bytes(), |request| request.expects_continue).unwrap();
    assert!(expects("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n"));
    assert!(expects(
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    assert!(!expects("POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"));
    assert!(!expects("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"));
    assert!(!expects("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n"));
}

#[test]
fn an_upgrade_is_one_token_on_a_get_without_body() {
    let upgrade = |method: &str, lines: &str| {
        request(&with_fields(method, lines), |request| request.upgrade.map(str::to_owned)).unwrap()
    };
    let websocket = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(upgrade("GET", websocket).as_deref(), Some("websocket"));
    let first = "Upgrade: WebSocket\r\nConnection: upgrade\r\nContent-Length: 0\r\n";
    assert_eq!(upgrade("GET", first).as_deref(), Some("WebSocket"));
    assert_eq!(upgrade("GET", "Connection: Upgrade\r\nUpgrade: a/1\r\n").as_deref(), Some("a/1"));
    for (method, lines) in [
        ("POST", websocket),
        ("GET", "Upgrade: websocket\r\n"),
        ("GET", "Connection: upgrade\r\n"),
        ("GET", "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
        ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n"),
        ("GET", "Connection: Upgrade\r\nUpgrade:\r\n"),
        ("GET", "Connection: Upgrade\r\nUpgrade: a/\r\n"),
        ("GET", "Connection: Upgrade\r\nUpgrade: a b\r\n"),
        ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n"),
        ("GET", "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n"),
    ] {
        assert_eq!(upgrade(method, lines), None, "{method} {lines}");
    }
    let old = b"GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(request(old, |request| request.upgrade.is_none()), Ok(true));
}

#[test]
fn fields_of_this_hop_are_marked_whatever_their_spelling() {
    let lines = "KEEP-alive: 1\r\nProxy-Connection: x\r\nte: trailers, x;q=1\r\n\
                 Transfer-Encoding: chunked\r\nUpgrade: x\r\n\
                 Proxy-Authorization: x\r\nProxy-Authenticate: x\r\n\
                 HTTP2-Settings: x\r\n\
                 Proxy-Authentication-Info: x\r\n\
                 Connection: X-Mine, Keep-Alive, x-forwarded-for\r\nX-Mine: 1\r\n\
                 x-mIne: 2\r\nX-Forwarded-For: x\r\n";
    request(&with_fields("POST", lines), |request| {
        assert!(request.te_trailers);
        let staying: Vec<_> = request
            .fields
            .iter()
            .filter(|field| !field.kind.is_hop_by_hop())
            .map(|field| field.name)
            .collect();
        assert_eq!(staying, ["Host"]);
        assert_eq!(request.fields.all("X-MINE").collect::<Vec<_>>(), [b"1", b"2"]);
    })
    .unwrap();
}

#[test]
fn every_name_has_its_kind() {
    for (name, kind) in [
        ("X-Forwarded-For", Kind::Forwarding),
        ("x-forwarded-proto", Kind::Forwarding),
        ("X-FORWARDED-ANYTHING", Kind::Forwarding),
        ("x-forwarded", Kind::Forwarding),
        ("x-forwarde", Kind::Plain),
        ("X-Real-IP", Kind::Forwarding),
        ("Forwarded", Kind::Forwarding),
        ("X_Forwarded_For", Kind::Dropped),
        ("X_Real-IP", Kind::Dropped),
        ("content_length", Kind::Dropped),
        ("Some-Long-Name-With_one", Kind::Dropped),
        ("_", Kind::Dropped),
        ("abcdefg_", Kind::Dropped),
        ("_bcdefgh", Kind::Dropped),
        ("Proxy", Kind::Dropped),
        ("Via", Kind::Via),
        ("X-Request-ID", Kind::RequestId),
        ("DATE", Kind::Date),
        ("server", Kind::Server),
        ("Cookie", Kind::Cookie),
        ("Set-Cookie", Kind::SetCookie),
        ("Authorization", Kind::Authorization),
        ("Trailer", Kind::Trailer),
        ("Alt-Svc", Kind::AltSvc),
        ("Accept", Kind::Accept),
        ("Referer", Kind::Plain),
        ("Content-Type", Kind::Plain),
        ("hos\u{54}", Kind::Host),
        ("ho~t", Kind::Plain),
        ("x`request^id", Kind::Dropped),
    ] {
        assert_eq!(Kind::of(name.as_bytes()), kind, "{name}");
    }
}

#[test]
fn kinds_stand_beside_their_fields_and_lines_are_copied_whole() {
    let lines = "A:1\r\nB:  2 \t\r\nProxy: x\r\nC:\r\nd_e: f\r\nG: \u{e9}\r\n";
    request(&with_fields("GET", lines), |request| {
        let kinds = kinds_of(&request.fields);
        assert_eq!(kinds[0], ("Host".into(), Kind::Host));
        assert_eq!(kinds[3], ("Proxy".into(), Kind::Dropped));
        assert_eq!(request.fields.iter().nth(2).unwrap().value, b"2");
        let mut out = Vec::new();
        request.fields.copy_kept(|kind| kind == Kind::Plain, &mut out);
        assert_eq!(out, "A:1\r\nB:  2 \t\r\nC:\r\nG: \u{e9}\r\n".as_bytes());
        out.clear();
        request.fields.copy_kept(|_| true, &mut out);
        assert_eq!(out, format!("Host: a\r\n{lines}").into_bytes());
    })
    .unwrap();
}

#[test]
fn what_a_variable_could_be_taken_for_goes_nowhere() {
    for name in ["x.forwarded.for", "X!Real~IP", "content.length", "x|tieline|identity", "a_b"] {
        assert_eq!(Kind::of(name.as_bytes()), Kind::Dropped, "{name}");
    }
    for name in ["x.mine", "sec-ch-ua!", "x.forwarder", &"a.".repeat(100)] {
        assert_eq!(Kind::of(name.as_bytes()), Kind::Plain, "{name}");
    }
    let long = format!("x.forwarded.{}", "for".repeat(30));
    assert_eq!(Kind::of(long.as_bytes()), Kind::Dropped);
    assert_eq!(Kind::of(b"TRUE-CLIENT-IP"), Kind::Claim);
}
