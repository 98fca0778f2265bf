//! HTTP/2 towards clients: what is asked and answered over it.

use std::fs;
use std::process::Command;

use serde_json::json;
use tieline_testkit::{Apache, HttpConversation, Nginx, TcpServer, finish, free_port, loopback, program};

use crate::http2_client::{CONTINUATION, DATA, END, END_HEADERS, Ended, Frames, HEADERS, block, get};
use crate::origin::{OK, Origin, raw};
use crate::site::{HTTP, Site, config_of, request};
use crate::support::OneRoute;

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;

/// Runs curl quietly, and says which version it spoke and what it got.
#[track_caller]
fn curl(arguments: &[&str], url: &str) -> String {
    let mut command = Command::new(program("curl"));
    command.args(["-sSk", "--max-time", "30", "-w", "%{http_version} %{http_code}"]).args(arguments);
    finish(command.arg(url)).expect("curl")
}

fn noise(length: u32) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn curl_speaks_it_to_nginx_with_and_without_tls() {
    let directory = tempfile::tempdir().unwrap();
    let (root, address) = (directory.path().display(), loopback(free_port()));
    let takes = "location / { dav_methods PUT; client_max_body_size 0; }";
    let _nginx = Nginx::http(&format!("server {{ listen {address}; root {root}; {takes} }}"), address);
    let large = noise(5_000_000);
    fs::write(directory.path().join("large"), &large).unwrap();
    let (path, copy) = (directory.path().join("large"), directory.path().join("copy"));
    let (path, copy) = (path.to_str().unwrap(), copy.to_str().unwrap());
    for (tls, version) in [("", "--http2-prior-knowledge"), ("tls = \"self-signed\"", "--http2")] {
        let site = Site::start(&OneRoute { listener: tls, ..HTTP }.to(&[address]));
        let scheme = if tls.is_empty() { "http" } else { "https" };
        let url = |name: &str| format!("{scheme}://localhost:{}/{name}", site.address.port());
        assert_eq!(curl(&[version, "-o", copy], &url("large")), "2 200");
        assert_eq!(fs::read(copy).unwrap(), large);
        assert_eq!(curl(&[version, "-T", path, "-o", "/dev/null"], &url("taken")), "2 201");
        assert_eq!(fs::read(directory.path().join("taken")).unwrap(), large);
        fs::remove_file(directory.path().join("taken")).unwrap();
        assert_eq!(curl(&[version, "-I", "-o", "/dev/null"], &url("large")), "2 200");
        assert_eq!(curl(&[version, "-o", "/dev/null"], &url("nothing")), "2 404");
        assert_eq!(curl(&["--http1.1", "-o", "/dev/null"], &url("large")), "1.1 200");
    }
}

#[test]
fn many_streams_at_once_get_apache_s_answers() {
    let apache = Apache::start("RewriteEngine on\nRewriteRule .* - [R=410]");
    let site = Site::to(&[apache.address()]);
    let mut h2load = Command::new(program("h2load"));
    let run =
        finish(h2load.args(["-n", "3000", "-c", "3", "-m", "100"]).arg(format!("http://{}/", site.address)))
            .expect("h2load");
    assert!(run.contains("3000 done, 0 succeeded, 3000 failed, 0 errored"), "{run}");
    assert!(run.contains("0 2xx, 0 3xx, 3000 4xx, 0 5xx"), "{run}");
    assert_eq!(site.tieline.metric("tieline_streams_opened_total{listener=\"web\"}"), 3000.0);
    assert_eq!(site.tieline.metric("tieline_connections_opened_total{listener=\"web\"}"), 3.0);
}

#[test]
fn where_it_is_switched_off_nobody_speaks_it() {
    let origin = Origin::ok();
    let off = OneRoute { listener: "http2 = false", ..HTTP };
    let site = Site::start(&off.to(&[origin.address()]));
    let mut client = HttpConversation::connect(site.address);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 505);
    let with_tls = OneRoute { listener: "http2 = false\ntls = \"self-signed\"", ..HTTP };
    let site = Site::start(&with_tls.to(&[origin.address()]));
    let url = format!("https://localhost:{}/", site.address.port());
    assert_eq!(curl(&["--http2", "-o", "/dev/null"], &url), "1.1 200");
}

#[test]
fn only_the_exact_preface_at_the_very_beginning_is_one() {
    let origin = Origin::ok();
    let site = Site::to(&[origin.address()]);
    for bytes in [
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n",
        "PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    ] {
        let mut client = site.connect();
        client.send(bytes).unwrap();
        assert_eq!(client.answer("GET").unwrap().status, 505, "{bytes}");
    }
    let mut client = site.connect();
    assert_eq!(client.ask(&request("/", &[])).status, 200);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 505);
}

#[test]
fn a_request_reaches_the_origin_in_one_form() {
    let origin = Origin::ok();
    let site = Site::to(&[origin.address()]);
    let mut client = Frames::connect(site.address);
    let mut fields = get("/x?y=1");
    fields.extend([("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2"), ("x-own", "1"), ("x_own", "2")]);
    let answer = client.ask(1, &fields);
    assert_eq!((answer.status(), &*answer.text(), answer.ended), (200, "ok", Ended::Whole));
    let asked = origin.asked();
    assert_eq!((asked.line(), asked.header("host")), ("GET /x?y=1 HTTP/1.1", Some("a.test")));
    assert_eq!(asked.all("cookie").collect::<Vec<_>>(), ["a=1; b=2"]);
    assert_eq!((asked.header("x-own"), asked.header("x_own")), (Some("1"), None));
    assert!(asked.header("via").unwrap().starts_with("2 tieline-"), "{:?}", asked.header("via"));
    assert_eq!(asked.header("x-forwarded-proto"), Some("http"));
    assert_eq!((asked.header("content-length"), asked.header("transfer-encoding")), (None, None));
    // The same connection serves the next one.
    assert_eq!(client.ask(3, &get("/2")).status(), 200);
    assert_eq!(origin.asked().target(), "/2");
}

#[test]
fn bodies_and_trailers_pass_both_ways() {
    let trailing = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
                    3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n";
    let origin = Origin::start(move |_| trailing.into());
    let site = Site::to(&[origin.address()]);
    let mut client = Frames::connect(site.address);
    let mut fields = get("/");
    fields[0].1 = "POST";
    client.begin(1, &fields);
    client.send(DATA, 0, 1, b"abc").unwrap();
    client.send(DATA, 0, 1, b"").unwrap();
    client.send(DATA, 0, 1, b"de").unwrap();
    client.send(HEADERS, END | END_HEADERS, 1, &block(&[("x-end", "yes")])).unwrap();
    let answer = client.answer(1);
    assert_eq!((&*answer.text(), answer.trailers, answer.ended), ("abcde", true, Ended::Whole));
    let asked = origin.asked();
    assert_eq!(asked.header("transfer-encoding"), Some("chunked"));
    assert_eq!(asked.body, b"abcde");
    // With a length said, that is what the origin is told.
    fields.push(("content-length", "5"));
    client.begin(3, &fields);
    client.send(DATA, END, 3, b"12345").unwrap();
    assert_eq!(client.answer(3).status(), 200);
    let asked = origin.asked();
    assert_eq!((asked.header("content-length"), &*asked.body), (Some("5"), &b"12345"[..]));
}

#[test]
fn interim_answers_and_answers_without_a_body_are_what_they_are() {
    let origin = Origin::start(|asked| match asked.target() {
        "/hints" => format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}").into_bytes(),
        "/204" => "HTTP/1.1 204 No Content\r\n\r\n".into(),
        "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n".into(),
        "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".into(),
        _ => OK.into(),
    });
    let site = Site::to(&[origin.address()]);
    let mut client = Frames::connect(site.address);
    let hinted = client.ask(1, &get("/hints"));
    assert_eq!((&hinted.statuses[..], &*hinted.text()), (&[103, 200][..], "ok"));
    for (stream, target, status) in [(3, "/204", 204), (5, "/304", 304)] {
        let answer = client.ask(stream, &get(target));
        assert_eq!((answer.status(), &*answer.text(), answer.ended), (status, "", Ended::Whole));
    }
    let mut head = get("/head");
    head[0].1 = "HEAD";
    let answer = client.ask(7, &head);
    assert_eq!((answer.status(), &*answer.text(), answer.ended), (200, "", Ended::Whole));
    let mut expecting = get("/post");
    expecting[0].1 = "POST";
    expecting.push(("expect", "100-continue"));
    client.begin(9, &expecting);
    client.send(DATA, END, 9, b"body").unwrap();
    assert_eq!(client.answer(9).status(), 200);
}

#[test]
fn an_answer_may_have_as_many_fields_as_over_http1() {
    let origin = Origin::start(|asked| {
        let count = if asked.target() == "/many" { 127 } else { 128 };
        let fields: String = (0..count).map(|at| format!("X-{at}: {at}\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok").into_bytes()
    });
    let route = "session = { cookie = \"sid\" }\nresponse_headers = { add = { X-More = \"1\" } }";
    let site = Site::start(&OneRoute { route, ..HTTP }.to(&[origin.address()]));
    let mut client = Frames::connect(site.address);
    for (stream, target, status) in [(1, "/many", 200), (3, "/more", 502)] {
        assert_eq!(client.ask(stream, &get(target)).status(), status, "{target}");
        let plain = site.connect().ask(&format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(plain.status, status, "{target}");
    }
}

#[test]
fn an_answer_that_is_cut_short_does_not_look_whole() {
    let origin = raw(|mut client| {
        client.request()?;
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
    });
    let site = Site::to(&[origin.address()]);
    let answer = Frames::connect(site.address).ask(1, &get("/"));
    assert_eq!(answer.ended, Ended::Reset(INTERNAL_ERROR));
    assert_eq!(site.reason("/"), "upstream-reset");
}

#[test]
fn an_answer_before_the_body_ends_the_stream_in_peace() {
    let site = Site::with_routes(
        "[[listener.web.route]]\naccess = \"public\"\nrespond = { status = 403, body = \"no\" }\n",
    );
    let mut client = Frames::connect(site.address);
    let mut fields = get("/");
    fields[0].1 = "POST";
    client.begin(1, &fields);
    client.send(DATA, 0, 1, b"a beginning").unwrap();
    let answer = client.answer(1);
    assert_eq!((answer.status(), &*answer.text(), answer.ended), (403, "no", Ended::Whole));
    assert_eq!(client.next_of(1).code(), NO_ERROR);
    assert_eq!(client.ask(3, &get("/")).status(), 403);
}

#[test]
fn what_a_client_gives_up_its_origin_hears_of() {
    let origin = raw(|mut client| {
        client.request()?;
        client.rest().map(drop)
    });
    let site = Site::to(&[origin.address()]);
    let mut client = Frames::connect(site.address);
    client.begin(1, &get("/"));
    assert!(tieline_testkit::wait_until(tieline_testkit::PATIENCE, || origin.open() == 1));
    client.send(crate::http2_client::RST_STREAM, 0, 1, &8_u32.to_be_bytes()).unwrap();
    assert_eq!(site.reason("/"), "client-reset");
    assert!(tieline_testkit::wait_until(tieline_testkit::PATIENCE, || origin.open() == 0));
}

#[test]
fn a_body_waits_for_its_client_s_window() {
    let origin = Origin::start(|asked| match asked.target() {
        "/sized" => [b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n", &noise(20_000)[..]].concat(),
        _ => {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            format!("{head}3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n").into_bytes()
        }
    });
    let site = Site::to(&[origin.address()]);
    let mut client = Frames::with_settings(site.address, &[(4, 7)]);
    let answer = client.ask(1, &get("/sized"));
    assert!((answer.body == noise(20_000)) && answer.ended == Ended::Whole, "{:?}", answer.ended);
    // One that fills the window to its last byte ends all the same.
    client.generous = false;
    let answer = client.ask(3, &get("/chunked"));
    assert_eq!((&*answer.text(), answer.ended), ("abcdefg", Ended::Whole));
}

/// A server that opens WebSockets as RFC 6455 wants it, and sends everything back.
fn echo(accept: Option<&'static str>) -> TcpServer {
    raw(move |mut client| {
        let Some(asked) = client.request()? else { return Ok(()) };
        let key = asked.header("sec-websocket-key").unwrap_or_default().to_owned();
        let accept = accept.map_or_else(|| accept_of(&key), str::to_owned);
        assert_eq!(
            (asked.header("upgrade"), asked.header("connection")),
            (Some("websocket"), Some("Upgrade"))
        );
        let fields = format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}");
        client.send(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\nwelcome"))?;
        loop {
            match client.take(1) {
                Ok(byte) => client.send(byte)?,
                Err(_) => return client.send("bye"),
            }
        }
    })
}

/// By a program that is not ours.
fn accept_of(key: &str) -> String {
    let script = "import sys,hashlib,base64;print(base64.b64encode(hashlib.sha1((sys.argv[1]+\
                  '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()).digest()).decode(),end='')";
    finish(Command::new("/usr/bin/python3").args(["-c", script, key])).expect("python3")
}

fn opening(protocol: &str) -> Vec<(&str, &str)> {
    let mut fields = get("/chat");
    fields[0].1 = "CONNECT";
    fields.push((":protocol", protocol));
    fields.push(("sec-websocket-version", "13"));
    fields
}

#[test]
fn a_websocket_opens_and_closes_within_a_stream() {
    let echo = echo(None);
    let site = Site::to(&[echo.address()]);
    let mut client = Frames::connect(site.address);
    client.begin(1, &opening("websocket"));
    client.send(DATA, 0, 1, b"eager").unwrap();
    let mut heard = Vec::new();
    let head = client.next_of(1);
    assert_eq!((head.kind, head.flags & END), (HEADERS, 0));
    while heard.len() < 12 {
        heard.extend(client.next_of(1).payload);
    }
    assert_eq!(heard, b"welcomeeager");
    // Another stream is served beside it.
    client.send(DATA, END, 1, b"last").unwrap();
    let answer = client.answer(1);
    assert_eq!((&*answer.text(), answer.ended), ("lastbye", Ended::Whole));
}

#[test]
fn a_websocket_that_was_not_opened_is_not_called_open() {
    let (wrong, refusing) = (
        echo(Some("c29tZXRoaW5nIGVsc2UgYWx0b2c=")),
        Origin::start(|asked| {
            assert_eq!(asked.header("upgrade"), Some("websocket"));
            OK.into()
        }),
    );
    for address in [wrong.address(), refusing.address()] {
        let site = Site::to(&[address]);
        let answer = Frames::connect(site.address).ask(1, &opening("websocket"));
        assert_eq!((answer.status(), answer.ended), (502, Ended::Whole));
        let line = site.log_line("/chat");
        assert_eq!((&line["status"], &line["reason"]), (&json!(502), &json!("upstream-protocol-error")));
    }
    let site = Site::to(&[refusing.address()]);
    let mut client = Frames::connect(site.address);
    assert_eq!(client.ask(1, &opening("connect-udp")).status(), 501);
    let connect = [(":method", "CONNECT"), (":authority", "a.test:443")];
    assert_eq!(client.ask(3, &connect).status(), 501);
}

#[test]
fn a_call_that_goes_nowhere_is_told_so_in_its_own_words() {
    let site = Site::to(&[loopback(free_port())]);
    let mut client = Frames::connect(site.address);
    let mut call = get("/a.B/C");
    call[0].1 = "POST";
    call.extend([("content-type", "application/grpc"), ("te", "trailers")]);
    let answer = client.ask(1, &call);
    assert_eq!((answer.status(), &*answer.text(), answer.ended), (200, "", Ended::Whole));
    let line = site.log_line("/a.B/C");
    assert_eq!((&line["status"], &line["reason"]), (&json!(502), &json!("unreachable")));
}

#[test]
fn a_head_may_be_as_large_as_it_may_be_over_http1() {
    let origin = Origin::ok();
    let limits = OneRoute {
        listener: "limits = { request_line = \"4KiB\", request_head = \"4KiB\", request_fields = 20 }",
        ..HTTP
    };
    let site = Site::start(&limits.to(&[origin.address()]));
    let mut client = Frames::connect(site.address);
    let large = "x".repeat(3_500);
    let with = |count: usize, value: &'_ str| {
        let mut fields: Vec<(String, String)> =
            get("/").into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        fields.extend((0..count).map(|at| (format!("x-{at}"), value.to_owned())));
        block(&fields)
    };
    for (stream, fields, status) in [
        (1, with(1, &large), 200),
        (3, with(2, &large), 431),
        (5, with(10, "1"), 200),
        (7, with(20, "1"), 431),
    ] {
        // In two frames, as large ones come.
        let (head, rest) = fields.split_at(fields.len() / 2);
        client.send(HEADERS, END, stream, head).unwrap();
        client.send(CONTINUATION, END_HEADERS, stream, rest).unwrap();
        assert_eq!(client.answer(stream).status(), status, "stream {stream}");
    }
}

#[test]
fn routes_of_every_kind_are_the_same_over_it() {
    let origin = Origin::saying("there");
    let routes = format!(
        "[[listener.web.route]]\npath = \"/moved\"\naccess = \"public\"\n\
         redirect = {{ to = \"https://{{host}}{{path}}{{query}}\", status = 301 }}\n\
         [[listener.web.route]]\npath = \"/shop\"\naccess = \"public\"\nupstream = \"shop\"\n\
         [[listener.web.route]]\npath = \"/closed\"\nupstream = \"shop\"\n\
         [upstream.shop]\nendpoints = [\"{}\"]\n",
        origin.address()
    );
    let site = Site::start(&config_of(&routes));
    let mut client = Frames::connect(site.address);
    for (stream, target, status) in
        [(1, "/moved?a", 301), (3, "/shop/1", 200), (5, "/closed", 404), (7, "/", 404)]
    {
        assert_eq!(client.ask(stream, &get(target)).status(), status, "{target}");
    }
    assert_eq!(origin.asked().target(), "/shop/1");
    assert!(origin.is_unasked());
}
