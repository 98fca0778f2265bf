//! HTTP/2 towards endpoints: scripted ones of our own, which break every rule that there is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tieline_testkit::{HttpConversation, PATIENCE, TcpServer, wait_until};

use crate::frames::{
    CONTINUATION, ENABLE_CONNECT_PROTOCOL, Frames, HEADERS, INITIAL_WINDOW_SIZE, INTERNAL_ERROR,
    MAX_CONCURRENT_STREAMS, NO_ERROR, REFUSED_STREAM, RST_STREAM, WINDOW_UPDATE,
};
use crate::http2_client;
use crate::origin::Origin;
use crate::site::{HTTP, Site, request};
use crate::support::{OneRoute, await_endpoint, reason_of, reset, row_of, story};

/// Tieline with one worker before endpoints that speak HTTP/2.
fn before(endpoints: &[SocketAddr]) -> Site {
    with("", endpoints)
}

fn with(upstream: &str, endpoints: &[SocketAddr]) -> Site {
    let server = format!("workers = 1\n{}", HTTP.server);
    let upstream = format!("http_version = \"2\"\n{upstream}");
    Site::start(&OneRoute { server: &server, upstream: &upstream, ..HTTP }.to(endpoints))
}

/// A server that does as `script` says on each connection; a connection that ends early ends the script.
fn server(
    settings: &'static [(u16, u32)],
    script: impl Fn(&mut Frames) -> io::Result<()> + Send + Sync + 'static,
) -> TcpServer {
    TcpServer::scripted(move |stream| script(&mut Frames::accept(stream, settings)?))
}

/// Answers every request with its number on the connection.
fn counting(settings: &'static [(u16, u32)]) -> TcpServer {
    server(settings, |client| {
        let mut count = 0;
        while let Some((stream, ended)) = client.request()? {
            if !ended {
                client.body(stream)?;
            }
            count += 1;
            client.answer(stream, &count.to_string())?;
        }
        Ok(())
    })
}

fn post(target: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn all_requests_share_one_connection() {
    let origin = counting(&[]);
    let site = before(&[origin.address()]);
    let mut client = site.connect();
    assert_eq!(client.ask(&request("/", &[])).text(), "1");
    assert_eq!(client.ask(&post("/", "body")).text(), "2");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = site.connect();
                for _ in 0..20 {
                    assert_eq!(client.ask(&request("/", &[])).status, 200);
                }
            });
        }
    });
    assert_eq!(client.ask(&request("/", &[])).text(), "163");
    assert_eq!(origin.accepted(), 1);
    // An answer is there a moment before its stream is given back.
    assert!(wait_until(PATIENCE, || shared(&site) == (1, 0)));
}

/// How many shared connections there are to the only endpoint, and how many requests they carry.
fn shared(site: &Site) -> (u64, u64) {
    counts(&site.tieline.get("/api/v1/upstreams")[0]["endpoints"][0])
}

fn counts(of: &serde_json::Value) -> (u64, u64) {
    let number = |name: &str| of[name].as_u64().expect("a number");
    (number("trunks"), number("streams"))
}

#[test]
fn shared_connections_are_told_with_the_requests_that_they_carry() {
    let origin = server(&[], |client| {
        while client.request()?.is_some() {}
        Ok(())
    });
    let site = before(&[origin.address()]);
    assert_eq!(shared(&site), (0, 0));
    let mut clients: Vec<_> = (0..5).map(|_| site.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(request("/", &[])).unwrap());
    assert!(wait_until(PATIENCE, || shared(&site).1 == 5));
    assert_eq!(shared(&site), (1, 5));
    assert_eq!(counts(&site.tieline.get("/api/v1/pools")[0]), (1, 5));
    let labels = format!("{{upstream=\"service\",endpoint=\"{}\"}}", origin.address());
    let metric = |name: &str| site.tieline.metric(&format!("tieline_endpoint_{name}{labels}"));
    assert_eq!((metric("trunks"), metric("streams")), (1.0, 5.0));
    clients.drain(..).for_each(|client| reset(client.stream().try_clone().unwrap()));
    assert!(wait_until(PATIENCE, || shared(&site).1 == 0));
}

#[test]
fn clients_that_come_at_once_wait_for_one_connection() {
    let origin = counting(&[]);
    let site = before(&[origin.address()]);
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = site.connect();
            client.send(request("/", &[])).unwrap();
            client
        })
        .collect();
    for mut client in clients {
        assert_eq!(client.answer("GET").unwrap().status, 200);
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn another_connection_is_opened_where_one_carries_all_that_its_endpoint_allows() {
    let open = Arc::new(AtomicUsize::new(0));
    let count = open.clone();
    // Each connection holds two requests back until there are six in all.
    let origin = server(&[(MAX_CONCURRENT_STREAMS, 2)], move |client| {
        let mut streams = Vec::new();
        while let Some((stream, _)) = client.request()? {
            streams.push(stream);
            count.fetch_add(1, Ordering::SeqCst);
            assert!(streams.len() <= 2, "more than were allowed");
            if streams.len() == 2 {
                assert!(wait_until(PATIENCE, || count.load(Ordering::SeqCst) == 6));
                streams.drain(..).try_for_each(|stream| client.answer(stream, "ok"))?;
            }
        }
        Ok(())
    });
    let site = before(&[origin.address()]);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(site.connect().ask(&request("/", &[])).status, 200));
        }
    });
    assert_eq!((origin.accepted(), open.load(Ordering::SeqCst)), (3, 6));
}

#[test]
fn a_stream_that_is_refused_is_asked_again_whatever_it_asks() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let origin = server(&[], move |client| {
        while let Some((stream, ended)) = client.request()? {
            if !ended {
                client.body(stream)?;
            }
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => client.reset(stream, REFUSED_STREAM)?,
                _ => client.answer(stream, "ok")?,
            }
        }
        Ok(())
    });
    let site = before(&[origin.address()]);
    assert_eq!(site.connect().ask(&post("/refused", "body")).status, 200);
    assert_eq!((seen.load(Ordering::SeqCst), origin.accepted()), (2, 1));
}

#[test]
fn a_goodbye_spares_what_it_names_and_nothing_else_is_sent_twice() {
    for (spared, status, requests) in [(true, 200, 2), (false, 502, 1)] {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let origin = server(&[], move |client| {
            while let Some((stream, ended)) = client.request()? {
                if !ended {
                    client.body(stream)?;
                }
                if count.fetch_add(1, Ordering::SeqCst) > 0 {
                    client.answer(stream, "ok")?;
                    continue;
                }
                return client.goaway(if spared { stream - 1 } else { stream }, NO_ERROR);
            }
            Ok(())
        });
        let site = before(&[origin.address()]);
        assert_eq!(site.connect().ask(&post("/bye", "body")).status, status, "spared: {spared}");
        assert_eq!(seen.load(Ordering::SeqCst), requests);
    }
}

#[test]
fn what_is_under_way_ends_well_behind_a_goodbye_and_nothing_new_is_sent() {
    let origin = server(&[], |client| {
        let Some((first, _)) = client.request()? else { return Ok(()) };
        // Twice: the first says that no more is wanted, the second what was taken.
        client.goaway(0x7fff_ffff, NO_ERROR)?;
        client.fields(first, &[(":status", "200")], false)?;
        client.data(first, "half ", false)?;
        client.goaway(first, NO_ERROR)?;
        client.data(first, "and half", true)?;
        assert_eq!(client.request()?, None, "it has said goodbye");
        Ok(())
    });
    let site = before(&[origin.address()]);
    for at in 1..4 {
        assert_eq!(site.connect().ask(&request("/", &[])).text(), "half and half");
        assert_eq!(origin.accepted(), at);
    }
    assert!(wait_until(PATIENCE, || origin.open() == 0), "connections without streams are closed");
}

#[test]
fn an_answer_that_is_reset_is_never_whole() {
    for length in ["5", "50"] {
        let origin = server(&[], move |client| {
            let Some((stream, _)) = client.request()? else { return Ok(()) };
            client.fields(stream, &[(":status", "200"), ("x-length", length)], false)?;
            client.data(stream, "12345", false)?;
            client.reset(stream, INTERNAL_ERROR)?;
            client.request().map(drop)
        });
        let site = before(&[origin.address()]);
        let mut client = site.connect();
        client.send(request("/cut", &[])).unwrap();
        client.answer("GET").unwrap_err();
        assert_eq!(site.reason("/cut"), "upstream-reset");
    }
}

#[test]
fn a_length_that_is_not_kept_is_an_error() {
    let origin = server(&[], |client| {
        while let Some((stream, _)) = client.request()? {
            client.fields(stream, &[(":status", "200"), ("content-length", "10")], false)?;
            client.data(stream, "12345", true)?;
        }
        Ok(())
    });
    let site = before(&[origin.address()]);
    let mut client = site.connect();
    client.send(request("/short", &[])).unwrap();
    client.answer("GET").unwrap_err();
    assert_eq!(site.reason("/short"), "upstream-protocol-error");
}

#[test]
fn an_early_answer_is_passed_on_though_the_request_is_not_wanted_whole() {
    let origin = server(&[], |client| {
        while let Some((stream, _)) = client.request()? {
            client.fields(stream, &[(":status", "403"), ("content-length", "2")], false)?;
            client.data(stream, "no", true)?;
            client.reset(stream, NO_ERROR)?;
        }
        Ok(())
    });
    let site = before(&[origin.address()]);
    let mut client = site.connect();
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\nbegin").unwrap();
    let answer = client.answer("POST").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
}

#[test]
fn hints_and_trailers_pass() {
    let origin = server(&[], |client| {
        while let Some((stream, _)) = client.request()? {
            client.fields(stream, &[(":status", "103"), ("link", "</a.css>")], false)?;
            client.fields(stream, &[(":status", "200")], false)?;
            client.data(stream, "", false)?;
            client.data(stream, "body", false)?;
            client.fields(stream, &[("x-checksum", "7")], true)?;
        }
        Ok(())
    });
    let site = before(&[origin.address()]);
    let mut client = site.connect();
    client.send(request("/", &["TE: trailers", "Connection: TE"])).unwrap();
    let hint = client.any_answer("GET").unwrap();
    assert_eq!((hint.status, hint.header("link")), (103, Some("</a.css>")));
    client.take("HTTP/1.1 200 OK\r\n".len()).unwrap();
    client.finish();
    let rest = String::from_utf8(client.rest().unwrap()).unwrap();
    assert!(rest.ends_with("\r\n\r\n4\r\nbody\r\n0\r\nx-checksum: 7\r\n\r\n"), "{rest}");
}

#[test]
fn answers_without_a_body_leave_nothing_behind() {
    let origin = server(&[], |client| {
        for (status, length) in [("200", "5"), ("204", ""), ("304", "7"), ("200", "0")] {
            let Some((stream, _)) = client.request()? else { return Ok(()) };
            let mut fields = vec![(":status", status)];
            fields.extend((!length.is_empty()).then_some(("content-length", length)));
            // That a length is none of a body is known of a 304 only if it ends at once.
            client.fields(stream, &fields, status == "304")?;
            if status != "304" {
                client.data(stream, "", true)?;
            }
        }
        while let Some(frame) = client.next()? {
            assert_ne!(frame.kind, RST_STREAM, "all had ended");
        }
        Ok(())
    });
    let site = before(&[origin.address()]);
    let mut client = site.connect();
    let head = request("/", &[]).replacen("GET", "HEAD", 1);
    assert_eq!(client.ask(&head).header("content-length"), Some("5"));
    for status in [204, 304, 200] {
        let answer = client.ask(&request("/", &[]));
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_large_request_waits_for_its_windows() {
    let origin = server(&[(INITIAL_WINDOW_SIZE, 0)], |client| {
        while let Some((stream, _)) = client.request()? {
            client.send(WINDOW_UPDATE, 0, stream, &7_u32.to_be_bytes())?;
            let length = client.body(stream)?;
            client.answer(stream, &length.to_string())?;
        }
        Ok(())
    });
    let site = before(&[origin.address()]);
    let body = "x".repeat(300_000);
    assert_eq!(site.connect().ask(&post("/sized", &body)).text(), "300000");
    let chunked = format!(
        "POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    assert_eq!(site.connect().ask(&chunked).text(), "300000");
}

#[test]
fn the_end_of_a_body_needs_no_window() {
    let origin = server(&[(INITIAL_WINDOW_SIZE, 5)], |client| {
        let Some((stream, _)) = client.request()? else { return Ok(()) };
        let mut heard = Vec::new();
        while let Some(frame) = client.next()? {
            heard.extend(&frame.payload);
            if frame.ends() {
                break;
            }
        }
        // No window was opened.
        client.answer(stream, std::str::from_utf8(&heard).expect("text"))?;
        client.request().map(drop)
    });
    let site = before(&[origin.address()]);
    let mut client = site.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    for piece in ["5\r\nhello", "\r\n", "0\r\n", "\r\n"] {
        client.send(piece).unwrap();
    }
    assert_eq!(client.answer("POST").unwrap().text(), "hello");
}

#[test]
fn a_client_that_does_not_read_stops_no_other() {
    let origin = server(&[], |client| {
        let mut others = 0;
        let mut window = 0_i64;
        while let Some(frame) = client.next()? {
            match frame.kind {
                HEADERS if others == 0 => {
                    // As much as the window of its stream allows, and no more.
                    client.fields(frame.stream, &[(":status", "200")], false)?;
                    window = 128 * 1024;
                    while window > 0 {
                        client.data(frame.stream, [b'x'; 8192], false)?;
                        window -= 8192;
                    }
                    others += 1;
                }
                HEADERS => client.answer(frame.stream, "ok")?,
                _ => {}
            }
        }
        let _ = window;
        Ok(())
    });
    let site = before(&[origin.address()]);
    let mut slow = site.connect();
    slow.send(request("/slow", &[])).unwrap();
    assert!(wait_until(PATIENCE, || origin.accepted() == 1));
    for _ in 0..50 {
        assert_eq!(site.connect().ask(&request("/", &[])).text(), "ok");
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn an_endpoint_that_speaks_otherwise_is_a_502_that_says_so() {
    let origin = Origin::ok();
    let site = before(&[origin.address()]);
    let mut client = site.connect();
    assert_eq!(client.ask(&request("/old", &[])).status, 502);
    assert_eq!(site.reason("/old"), "unreachable");
    let told = story(&site.tieline, &row_of(&site.tieline, client.stream()));
    assert!(told.contains("HTTP/2"), "{told}");
}

const UPGRADE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

#[test]
fn a_websocket_goes_over_http_2_where_the_endpoint_takes_it() {
    let origin = server(&[(ENABLE_CONNECT_PROTOCOL, 1)], |client| {
        let Some((stream, false)) = client.request()? else { return Err(io::ErrorKind::InvalidData.into()) };
        client.fields(stream, &[(":status", "200")], false)?;
        client.data(stream, "welcome", false)?;
        while let Some(frame) = client.next()? {
            if frame.stream == stream && frame.kind == crate::frames::DATA {
                client.data(stream, &frame.payload, frame.ends())?;
            }
        }
        Ok(())
    });
    let site = before(&[origin.address()]);
    let mut client = site.connect();
    let answer = client.ask(&request("/socket", &UPGRADE));
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")));
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "RFC 6455 §1.3");
    assert_eq!(client.take(7).unwrap(), b"welcome");
    client.send("\0ping").unwrap();
    assert_eq!(client.take(5).unwrap(), b"\0ping");
    client.finish();
    assert_eq!(client.rest().unwrap(), b"");
}

#[test]
fn http_2_on_both_sides_carries_websockets_and_trailers() {
    let origin = server(&[(ENABLE_CONNECT_PROTOCOL, 1)], |client| {
        while let Some(frame) = client.next()? {
            match frame.kind {
                HEADERS if !frame.ends() => client.fields(frame.stream, &[(":status", "200")], false)?,
                HEADERS => {
                    client.fields(frame.stream, &[(":status", "200")], false)?;
                    client.data(frame.stream, "body", false)?;
                    client.fields(frame.stream, &[("grpc-status", "0")], true)?;
                }
                crate::frames::DATA => client.data(frame.stream, &frame.payload, frame.ends())?,
                _ => {}
            }
        }
        Ok(())
    });
    let site = before(&[origin.address()]);
    let mut client = http2_client::Frames::connect(site.address);
    let mut opening = http2_client::get("/socket");
    opening[0].1 = "CONNECT";
    opening.extend([(":protocol", "websocket"), ("sec-websocket-version", "13")]);
    client.begin(1, &opening);
    assert_eq!(client.next_of(1).kind, HEADERS);
    client.send(http2_client::DATA, 0, 1, b"ping").unwrap();
    let mut heard = Vec::new();
    while heard.len() < 4 {
        heard.extend(client.next_of(1).payload);
    }
    assert_eq!(heard, b"ping");
    // Beside it, on the same connections.
    let mut call = http2_client::get("/call");
    call.push(("te", "trailers"));
    let answer = client.ask(3, &call);
    assert_eq!((answer.status(), &*answer.text(), answer.trailers), (200, "body", true));
    client.send(http2_client::DATA, http2_client::END, 1, b"last").unwrap();
    let rest = client.answer(1);
    assert_eq!((&*rest.text(), rest.ended), ("last", http2_client::Ended::Whole));
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_websocket_that_the_endpoint_cannot_take_is_a_502() {
    let origin = counting(&[]);
    let site = before(&[origin.address()]);
    let mut client = site.connect();
    assert_eq!(client.ask(&request("/socket", &UPGRADE)).status, 502);
    assert_eq!(reason_of(&site.tieline, client.stream()), "upstream-protocol-error");
    let told = story(&site.tieline, &row_of(&site.tieline, client.stream()));
    assert!(told.contains("RFC 8441"), "{told}");
}

#[test]
fn a_peer_that_is_gone_is_found_out_while_it_is_waited_for() {
    let origin = server(&[], |client| {
        client.answers_pings = false;
        // The first connection answers nothing, as if the host behind it had lost its power.
        while let Some((stream, _)) = client.request()? {
            let _ = stream;
        }
        Ok(())
    });
    let site = before(&[origin.address()]);
    let mut client = site.connect();
    client.stream().set_read_timeout(Some(PATIENCE)).unwrap();
    // Long before `first_byte` is over, which is a minute.
    assert_eq!(client.ask(&post("/gone", "x")).status, 502);
    assert_eq!(site.reason("/gone"), "upstream-reset");
    assert!(wait_until(PATIENCE, || origin.open() == 0));
}

#[test]
fn a_connection_that_was_silent_shows_that_it_lives_before_it_is_used() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let origin = server(&[], move |client| {
        // The first connection answers once, and then its host is gone.
        let first = count.load(Ordering::SeqCst) == 0;
        client.answers_pings = !first;
        while let Some((stream, ended)) = client.request()? {
            count.fetch_add(1, Ordering::SeqCst);
            if !ended {
                client.body(stream)?;
            }
            client.answer(stream, "ok")?;
        }
        Ok(())
    });
    let site = before(&[origin.address()]);
    assert_eq!(site.connect().ask(&request("/", &[])).status, 200);
    // Longer than it is believed without proof. Not an instant to be hit: only a least time.
    thread::sleep(Duration::from_secs(6));
    assert_eq!(site.connect().ask(&post("/", "not to be lost")).status, 200);
    assert_eq!((seen.load(Ordering::SeqCst), origin.accepted()), (2, 2));
    assert!(wait_until(PATIENCE, || origin.open() == 1), "the one that is gone is closed");
}

#[test]
fn headers_without_an_end_are_a_502() {
    let origin = server(&[], |client| {
        let Some((stream, _)) = client.request()? else { return Ok(()) };
        client.send(HEADERS, 0, stream, &[0x88])?;
        // A field that is never complete: a name and a value of 16 KiB, again and again.
        let field = [&[0, 1, b'a', 0x7f, 0x81, 0x7f][..], &[b'x'; 16_383]].concat();
        loop {
            client.send(CONTINUATION, 0, stream, &field[..16_384])?;
        }
    });
    let site = before(&[origin.address()]);
    assert_eq!(site.connect().ask(&request("/endless", &[])).status, 502);
    assert!(wait_until(PATIENCE, || origin.open() == 0));
}

#[test]
fn a_connection_at_rest_is_closed_in_time_and_when_its_endpoint_leaves() {
    let origin = counting(&[]);
    let site = with("pool = { idle = \"300ms\" }", &[origin.address()]);
    assert_eq!(site.connect().ask(&request("/", &[])).status, 200);
    assert!(wait_until(PATIENCE, || origin.open() == 0));
    let (stays, leaves) = (counting(&[]), counting(&[]));
    let site = with("balance = \"round-robin\"", &[stays.address(), leaves.address()]);
    for _ in 0..4 {
        assert_eq!(site.connect().ask(&request("/", &[])).status, 200);
    }
    assert_eq!((stays.open(), leaves.open()), (1, 1));
    let path = format!("/api/v1/upstreams/service/endpoints/{}/drain", leaves.address());
    crate::support::order(&site.tieline, &path);
    assert!(wait_until(PATIENCE, || leaves.open() == 0));
    assert_eq!(stays.open(), 1);
}

#[test]
fn requests_wait_for_the_caps_as_streams() {
    let origin = counting(&[]);
    let site = with("pool = { size = 1 }", &[origin.address()]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = site.connect();
                for _ in 0..20 {
                    assert_eq!(client.ask(&request("/", &[])).status, 200);
                }
            });
        }
    });
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn endpoints_are_checked_in_the_version_that_they_speak() {
    let well = Arc::new(AtomicUsize::new(200));
    let status = well.clone();
    let origin = server(&[], move |client| {
        while let Some((stream, _)) = client.request()? {
            client.fields(stream, &[(":status", &status.load(Ordering::SeqCst).to_string())], true)?;
        }
        Ok(())
    });
    let health = "health = { http = \"/healthz\", every = \"100ms\", rise = 1, fall = 2 }";
    let site = with(health, &[origin.address()]);
    let label = origin.address().to_string();
    await_endpoint(&site.tieline, &label, "healthy");
    well.store(503, Ordering::SeqCst);
    await_endpoint(&site.tieline, &label, "unhealthy");
    well.store(204, Ordering::SeqCst);
    await_endpoint(&site.tieline, &label, "healthy");
    assert!(wait_until(PATIENCE, || origin.open() <= 1), "checks leave nothing open");
}

#[test]
fn a_client_that_leaves_ends_its_stream_and_no_other() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let origin = server(&[], move |client| {
        let Some((left, _)) = client.request()? else { return Ok(()) };
        count.fetch_add(1, Ordering::SeqCst);
        while let Some(frame) = client.next()? {
            if frame.kind == RST_STREAM {
                assert_eq!(frame.stream, left);
                count.fetch_add(1, Ordering::SeqCst);
                break;
            }
        }
        let Some((stream, _)) = client.request()? else { return Ok(()) };
        client.answer(stream, "still here")?;
        client.request().map(drop)
    });
    let site = before(&[origin.address()]);
    let mut leaves: HttpConversation = site.connect();
    leaves.send(request("/left", &[])).unwrap();
    assert!(wait_until(PATIENCE, || asked.load(Ordering::SeqCst) == 1));
    crate::support::reset(leaves.stream().try_clone().unwrap());
    drop(leaves);
    assert!(wait_until(PATIENCE, || asked.load(Ordering::SeqCst) == 2));
    assert_eq!(site.connect().ask(&request("/", &[])).text(), "still here");
    assert_eq!(origin.accepted(), 1);
}
