//! Messages as they travel: their order, their framing, and what comes before or beside an answer.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;

use tieline_testkit::{HttpConversation, PATIENCE, wait_until};

use crate::origin::{OK, Origin, raw};
use crate::site::{HTTP, Site, request};

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start(|request| {
        let body = format!("{} {}", request.target(), String::from_utf8_lossy(&request.body));
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    let post = "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /";
    let chunked = "POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    client
        .send([&request("/1", &[]), post, chunked, &request("/4", &["Connection: close"])].concat())
        .unwrap();
    for expected in ["/1 ", "/2 GET /", "/3 abc", "/4 "] {
        assert_eq!(client.answer("GET").unwrap().text(), expected);
    }
    assert!(client.rest().unwrap().is_empty());
    for expected in ["/1", "/2", "/3", "/4"] {
        assert_eq!(origin.asked().target(), expected);
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let origin = Origin::ok();
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    let post =
        "\r\nPOST /drip HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\n\r\n";
    post.bytes().for_each(|byte| client.send([byte]).unwrap());
    assert_eq!(client.answer("POST").unwrap().status, 200);
    let asked = origin.asked();
    assert_eq!((asked.line(), &asked.body[..]), ("POST /drip HTTP/1.1", &b"ab"[..]));
}

#[test]
fn trailers_reach_those_who_take_them() {
    let answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 0\r\n\r\n";
    let origin = Origin::start(move |_| answer.into());
    let site = Site::to(&[origin.address()]);
    for (takes, last) in
        [(&["TE: trailers", "Connection: TE"][..], "0\r\nGrpc-Status: 0\r\n\r\n"), (&[], "0\r\n\r\n")]
    {
        let mut client = site.connect();
        let closing = [takes, &["Connection: close"]].concat();
        client.send(request("/", &closing)).unwrap();
        let heard = String::from_utf8(client.rest().unwrap()).unwrap();
        assert!(heard.ends_with(&format!("ok\r\n{last}")), "{takes:?}: {heard}");
    }
    let first = origin.asked();
    assert_eq!(first.header("te"), Some("trailers"));
    assert_eq!(origin.asked().header("te"), None);
}

#[test]
fn an_answer_that_breaks_off_does_not_look_whole() {
    for half in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let origin = raw(move |mut client| {
            client.request()?;
            client.send(half)
        });
        let site = Site::to(&[origin.address()]);
        let mut client = site.connect();
        client.send(request("/half", &[])).unwrap();
        assert!(client.answer("GET").is_err(), "{half}");
        assert_eq!(site.reason("/half"), "upstream-reset");
    }
}

#[test]
fn an_early_answer_is_passed_on_while_the_body_still_comes() {
    let (answered, go_on) = channel();
    let origin = raw(move |mut client| {
        client.request_head()?;
        client.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!")?;
        // It takes what is sent, as a server in doubt does.
        let _ = answered.send(());
        client.rest().map(drop)
    });
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nfirst bytes").unwrap();
    go_on.recv_timeout(PATIENCE).unwrap();
    let answer = client.answer("POST").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "no!"));
    // The rest of the body would be taken for a request.
    assert_eq!(answer.header("connection"), Some("close"));
    let _ = client.send(vec![b'x'; 10_000]);
    client.finish();
    let _ = client.rest(); // in order or by a reset
    assert_eq!(site.connect().ask(&request("/after", &["Connection: close"])).status, 413);
}

#[test]
fn answers_that_can_be_read_in_two_ways_are_not_passed_on() {
    for (name, answer) in [
        ("two-lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!"),
        ("both", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok"),
        ("fold", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok"),
        ("nul", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok"),
        ("space", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok"),
        ("version", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("switch", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
        ("banner", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ] {
        let origin = raw(move |mut client| {
            client.request()?;
            client.send(answer)
        });
        let site = Site::to(&[origin.address()]);
        let target = format!("/{name}");
        assert_eq!(site.connect().ask(&request(&target, &[])).status, 502, "{name}");
        assert_eq!(site.reason(&target), "upstream-protocol-error", "{name}");
    }
}

#[test]
fn an_answer_without_a_body_says_nothing_of_one() {
    let origin = Origin::start(|asked| match asked.target() {
        "/empty" => b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n".into(),
        _ => OK.into(),
    });
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    let empty = client.ask(&request("/empty", &[]));
    assert_eq!((empty.status, empty.header("content-length")), (204, None), "{}", empty.head);
    assert_eq!(client.ask(&request("/", &[])).text(), "ok", "nobody waits for five bytes");
}

#[test]
fn what_an_origin_sends_beyond_its_answer_is_nobodys_answer() {
    let origin = raw(|mut client| {
        while client.request()?.is_some() {
            client.send([OK, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned"].concat())?;
        }
        Ok(())
    });
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    for _ in 0..10 {
        assert_eq!(client.ask(&request("/", &[])).text(), "ok");
    }
    assert_eq!(origin.accepted(), 10, "no such connection is used again");
}

#[test]
fn a_slow_client_holds_up_its_origin_and_gets_everything() {
    const LENGTH: usize = 32 << 20;
    let (filled, full) = channel();
    let origin = raw(move |mut client| {
        client.request()?;
        client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"))?;
        client.stream().set_nonblocking(true)?;
        let (piece, mut sent) = (vec![7; 1 << 16], 0);
        while sent < LENGTH {
            match client.stream().write(&piece[..piece.len().min(LENGTH - sent)]) {
                Ok(count) => sent += count,
                Err(_) => {
                    let _ = filled.send(sent);
                    client.stream().set_nonblocking(false)?;
                }
            }
        }
        Ok(())
    });
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    client.send(request("/", &["Connection: close"])).unwrap();
    let held_at = full.recv_timeout(PATIENCE).unwrap();
    assert!(held_at < LENGTH, "nothing but a bounded part is taken from the origin");
    assert!(site.tieline.rss_kib() < 200 << 10, "{} KiB", site.tieline.rss_kib());
    assert_eq!(client.answer("GET").unwrap().body.len(), LENGTH);
}

#[test]
fn a_client_that_shuts_its_half_still_gets_its_answer() {
    let origin = Origin::ok();
    let site = Site::to(&[origin.address()]);
    let mut client: HttpConversation = site.connect();
    client.send(request("/", &["Connection: close"])).unwrap();
    client.finish();
    let mut heard = String::new();
    client.stream().read_to_string(&mut heard).unwrap();
    assert!(heard.ends_with("ok"), "{heard}");
}

#[test]
fn who_is_to_leave_is_told_with_the_answer() {
    let (begin, begun) = channel();
    let finish = Arc::new(AtomicBool::new(false));
    let finished = finish.clone();
    let origin = Origin::start(move |_| {
        let _ = begin.send(()); // the test may have seen enough
        let _ = wait_until(PATIENCE, || finished.load(Relaxed)); // whatever comes, it answers
        OK.into()
    });
    let route = "[[listener.web.route]]\npath = \"= /fixed\"\nrespond = { status = 200, body = \"ok\" }\n\
                 access = \"public\"\n";
    let site = Site::start(&(HTTP.to(&[origin.address()]) + route));
    let (mut forwarded, mut quiet) = (site.connect(), site.connect());
    assert_eq!(quiet.ask(&request("/fixed", &[])).header("connection"), None);
    forwarded.send(request("/", &[]) + &request("/fixed", &[])).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    site.tieline.cli(["drain", "listener=web"]).expect("drain");
    assert!(quiet.rest().unwrap().is_empty(), "who is at rest has nothing to be told");
    finish.store(true, Relaxed);
    assert_eq!(forwarded.answer("GET").unwrap().header("connection"), Some("close"));
    assert!(forwarded.rest().unwrap().is_empty(), "what was asked behind it is to be asked again");
}
