//! Bodies: large ones pass whole either way, slow ones end for the right reason, bandwidth has its limits.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tieline_base::Clock;
use tieline_testkit::{HttpConversation, PATIENCE, TcpServer, wait_until};

use crate::origin::{OK, Origin, raw};
use crate::site::{HTTP, Site, request};
use crate::support::{OneRoute, start};

/// Bytes of which no two stretches are alike.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 / 7 + at / 4096) as u8).collect()
}

/// More than one turn moves, and more than the kernel holds at once.
const LARGE: usize = 12 << 20;

#[test]
fn large_answers_pass_whole_and_what_follows_them_is_not_touched() {
    let (chunk, all) = (pattern(100_000), pattern(LARGE));
    let origin = Origin::start(move |asked| match asked.target() {
        "/length" => {
            [format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes(), &all].concat()
        }
        "/chunked" => {
            let framed = [format!("{:x}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n"].concat();
            let head = &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
            [head, &framed.repeat(40), b"0\r\n\r\n"].concat()
        }
        "/close" => [&b"HTTP/1.0 200 OK\r\n\r\n"[..], &all].concat(),
        _ => OK.into(),
    });
    let site = Site::start(&OneRoute { server: "workers = 1", ..HTTP }.to(&[origin.address()]));
    let mut client = site.connect();
    for _ in 0..3 {
        assert!(client.ask(&request("/length", &[])).body == pattern(LARGE));
        assert!(client.ask(&request("/chunked", &[])).body == pattern(100_000).repeat(40));
        assert_eq!(client.ask(&request("/small", &[])).text(), "ok");
    }
    assert_eq!(origin.accepted(), 1, "each answer ended where it should");
    // An answer whose end is the end of its connection, to a client that knows nothing else.
    let mut old = site.connect();
    old.send("GET /length HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    assert!(old.answer("GET").unwrap().body == pattern(LARGE));
}

#[test]
fn an_answer_that_ends_with_its_connection_passes_whole() {
    let closing = raw(|mut client| {
        client.request()?;
        client.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        client.send(pattern(LARGE))
    });
    let site = Site::to(&[closing.address()]);
    for version in ["1.0", "1.1"] {
        let mut client = site.connect();
        client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n")).unwrap();
        let answer = client.answer("GET");
        let answer = answer.unwrap_or_else(|error| panic!("{error}: {:#?}", site.log_lines()));
        assert!(answer.body == pattern(LARGE), "HTTP/{version}");
    }
}

#[test]
fn a_large_body_passes_whole_and_the_request_behind_it_is_not_taken_for_it() {
    let origin = Origin::ok();
    let site = Site::start(&OneRoute { server: "workers = 1", ..HTTP }.to(&[origin.address()]));
    for method in ["POST", "PUT"] {
        let mut client = site.connect();
        let mut sender = client.stream().try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let head = format!("{method} /large HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n");
                let next = request("/next", &[]);
                let all = [head.as_bytes(), &pattern(LARGE), next.as_bytes()].concat();
                sender.write_all(&all).unwrap();
            });
            assert_eq!(client.answer(method).unwrap().status, 200);
            assert_eq!(client.answer("GET").unwrap().status, 200);
        });
        assert!(origin.asked().body == pattern(LARGE), "{method}");
        assert_eq!(origin.asked().target(), "/next");
    }
    assert_eq!(origin.accepted(), 1);
}

/// A client that takes little before it reads.
fn narrow(site: &Site) -> HttpConversation {
    let client = site.connect();
    SockRef::from(client.stream()).set_recv_buffer_size(64 * 1024).unwrap();
    client
}

#[test]
fn large_plain_bodies_never_enter_the_process() {
    let may_read = Arc::new(AtomicBool::new(false));
    let reads = may_read.clone();
    let origin = raw(move |mut origin| {
        let chunk = [b"10000\r\n", &pattern(0x10000)[..], b"\r\n"].concat();
        while let Some(asked) = origin.request_head()? {
            if asked.line().starts_with("POST") {
                assert!(wait_until(PATIENCE, || reads.load(Relaxed)));
                assert!(origin.take(LARGE)? == pattern(LARGE));
                origin.send(OK)?;
            } else if asked.target() == "/chunked" {
                origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                origin.send([&chunk.repeat(LARGE / 0x10000)[..], b"0\r\n\r\n"].concat())?;
            } else {
                origin.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"))?;
                origin.send(pattern(LARGE))?;
            }
        }
        Ok(())
    });
    let site = Site::start(&OneRoute { server: "workers = 1", ..HTTP }.to(&[origin.address()]));
    let (in_pipes, inherited) = (|| site.tieline.pipe_bytes(), site.tieline.pipe_end_count());
    // What has to be framed anew has to be looked at.
    let mut client = narrow(&site);
    assert_eq!(client.ask(&request("/chunked", &[])).body.len(), LARGE);
    assert_eq!((in_pipes(), site.tieline.pipe_end_count()), (0, inherited), "nothing was spliced yet");
    // Nobody reads: what is on its way lies where it goes through.
    let mut client = narrow(&site);
    client.send(request("/length", &[])).unwrap();
    assert!(wait_until(PATIENCE, || in_pipes() > 0), "an answer is not spliced");
    assert!(client.answer("GET").unwrap().body == pattern(LARGE));
    assert!(wait_until(PATIENCE, || in_pipes() == 0));
    let mut client = site.connect();
    let mut sender = client.stream().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n");
            sender.write_all(&[head.as_bytes(), &pattern(LARGE)].concat()).unwrap();
        });
        assert!(wait_until(PATIENCE, || in_pipes() > 0), "a request's body is not spliced");
        may_read.store(true, Relaxed);
        assert_eq!(client.answer("POST").unwrap().status, 200);
    });
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_whole() {
    let breaking = raw(|mut client| {
        client.request()?;
        client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n"))?;
        client.send(pattern(LARGE - 1))
    });
    let site = Site::to(&[breaking.address()]);
    let mut client = site.connect();
    client.send(request("/cut", &[])).unwrap();
    assert!(client.answer("GET").is_err());
    assert_eq!(site.reason("/cut"), "upstream-reset");
}

#[test]
fn an_answer_that_breaks_off_has_no_end_in_order_for_those_who_go_by_it() {
    let breaking = raw(|mut client| {
        client.request()?;
        client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    });
    let site = Site::to(&[breaking.address()]);
    let mut client = site.connect();
    client.send("GET /cut HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    let mut all = Vec::new();
    let end = client.stream().read_to_end(&mut all);
    assert_eq!(end.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionReset));
    assert_eq!(site.reason("/cut"), "upstream-reset");
}

#[test]
fn a_body_that_its_endpoint_does_not_take_is_the_endpoints_fault() {
    let deaf = TcpServer::mute();
    let config = OneRoute {
        listener: "timeouts = { body_gap = \"3s\" }",
        upstream: "timeouts = { gap = \"6s\" }",
        ..HTTP
    };
    let site = Site::start(&config.to(&[deaf.address()]));
    let mut client = site.connect();
    let mut sender = client.stream().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let head = format!("POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1_u64 << 32);
            // More than all buffers on the way: it ends when the connection does.
            let piece = vec![7; 1 << 20];
            let _ = sender.write_all(head.as_bytes());
            while sender.write_all(&piece).is_ok() {}
        });
        assert_eq!(client.answer("POST").unwrap().status, 504);
        let _ = client.stream().shutdown(std::net::Shutdown::Both);
    });
    assert_eq!(site.reason("/deaf"), "timeout:gap");
}

#[test]
fn a_body_that_trickles_is_a_408() {
    let origin = Origin::ok();
    let listener = "timeouts = { body_gap = \"5s\", min_rate = \"1MiB/s\" }";
    let site = Site::start(&OneRoute { listener, ..HTTP }.to(&[origin.address()]));
    let mut client = site.connect();
    client.send("POST /trickle HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
    client.stream().set_nonblocking(true).unwrap();
    // It is never silent for as long as it may be.
    let is_answered = || client.send("x").is_err() || client.stream().peek(&mut [0]).is_ok();
    assert!(wait_until(PATIENCE, is_answered));
    client.stream().set_nonblocking(false).unwrap();
    assert_eq!(client.answer("POST").unwrap().status, 408);
    assert_eq!(site.reason("/trickle"), "timeout:min-rate");
    assert!(origin.is_unasked());
}

#[test]
fn a_body_that_keeps_to_its_rate_is_not_cut_however_long_it_takes() {
    let origin = Origin::ok();
    let listener = "timeouts = { body_gap = \"5s\", min_rate = \"1KiB/s\" }";
    let site = Site::start(&OneRoute { listener, ..HTTP }.to(&[origin.address()]));
    let mut client = site.connect();
    client.send("POST /steady HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n").unwrap();
    for _ in 0..40 {
        client.send([b'x'; 1000]).unwrap();
        thread::park_timeout(Duration::from_millis(25));
    }
    assert_eq!(client.answer("POST").unwrap().status, 200);
}

/// A client whose kernel holds so many bytes for it.
fn client_holding(bytes: usize, site: &Site) -> HttpConversation {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(bytes).unwrap();
    socket.connect(&site.address.into()).unwrap();
    HttpConversation::over(socket.into())
}

/// A server of endless answers.
fn endless() -> TcpServer {
    raw(|mut client| {
        let piece = pattern(1 << 20);
        client.request()?;
        client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40))?;
        loop {
            client.send(&piece)?;
        }
    })
}

#[test]
fn a_client_that_takes_nothing_is_cut_off_and_its_endpoint_is_not_blamed() {
    let endless = endless();
    let upstream = "timeouts = { gap = \"3s\" }\noutlier = { failures = 1, max = \"100%\" }";
    let site = Site::start(&OneRoute { upstream, ..HTTP }.to(&[endless.address()]));
    let mut client = client_holding(4096, &site);
    client.send(request("/still", &[])).unwrap();
    assert_eq!(site.reason("/still"), "timeout:gap");
    assert!(client.answer("GET").is_err());
    // One failure would have been enough for it to be passed over.
    let page = site.tieline.get("/api/v1/upstreams");
    assert!(!page.to_string().contains("\"ejected\""), "{page}");
}

#[test]
fn a_client_that_takes_too_little_is_cut_off() {
    let endless = endless();
    let config = OneRoute {
        listener: "timeouts = { min_rate = \"1GiB/s\" }",
        upstream: "timeouts = { gap = \"5s\" }",
        ..HTTP
    };
    let site = Site::start(&config.to(&[endless.address()]));
    let mut client = client_holding(4096, &site);
    client.send(request("/slow", &[])).unwrap();
    let mut place = [0; 1024];
    // It goes on taking a little until it is cut off.
    while client.stream().read(&mut place).is_ok_and(|count| count > 0) {
        thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(site.reason("/slow"), "timeout:min-rate");
}

#[test]
fn a_client_that_takes_a_little_now_and_then_is_not_cut_off() {
    let endless = endless();
    let config = OneRoute {
        listener: "timeouts = { min_rate = \"256B/s\" }",
        upstream: "timeouts = { gap = \"4s\" }",
        ..HTTP
    };
    let site = Site::start(&config.to(&[endless.address()]));
    // Enough for a segment of this machine's, so that its window opens again and again.
    let mut client = client_holding(128 << 10, &site);
    client.send(request("/patient", &[])).unwrap();
    // The kernel lets us write more only after megabytes were taken, which takes far longer than `gap`; that
    // the client takes something is known all the same.
    let (began, mut place) = (Clock::now(), [0; 2048]);
    while Clock::now().since(began) < Duration::from_secs(9) {
        let read = client.stream().read(&mut place);
        assert!(read.is_ok_and(|count| count > 0), "{}", site.log_line("/patient"));
        thread::park_timeout(Duration::from_millis(10));
    }
}

/// How long the whole of `asked` takes, of a site with this `bandwidth`.
fn seconds(bandwidth: &str, clients: usize, length: usize, upload: bool) -> f64 {
    let origin = Origin::start(move |asked| {
        let body = pattern(if asked.target() == "/down" { length } else { 2 });
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
    });
    let route = format!("bandwidth = {bandwidth}");
    let site = Site::start(&OneRoute { route: &route, ..HTTP }.to(&[origin.address()]));
    let began = Clock::now();
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = site.connect();
                let answer = if upload {
                    let head = format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
                    client.send([head.as_bytes(), &pattern(length)].concat()).unwrap();
                    client.answer("POST").unwrap()
                } else {
                    client.ask(&request("/down", &[]))
                };
                assert!(answer.status == 200 && (upload || answer.body == pattern(length)));
            });
        }
    });
    if upload {
        (0..clients).for_each(|_| assert!(origin.asked().body == pattern(length)));
    }
    Clock::now().since(began).as_secs_f64()
}

#[test]
fn bandwidth_holds_back_each_answer_or_all_together() {
    // 128 KiB at 128 KiB/s: a second, but for the tenth that goes at once.
    assert!(seconds("\"128KiB/s\"", 1, 128 << 10, false) >= 0.85);
    let each = seconds("{ down = \"128KiB/s\" }", 3, 128 << 10, false);
    assert!(each >= 0.85);
    let shared = "{ down = \"128KiB/s\", per = \"ip\" }";
    assert!(seconds(shared, 3, 64 << 10, false) >= 1.35);
    assert!(seconds("{ down = \"128KiB/s\", per = \"route\" }", 3, 64 << 10, false) >= 1.35);
    // The other direction is not held back by it.
    assert!(seconds("{ up = \"1KiB/s\" }", 1, 1 << 20, false) < PATIENCE.as_secs_f64());
}

#[test]
fn bandwidth_holds_back_what_is_sent() {
    assert!(seconds("{ up = \"128KiB/s\" }", 1, 128 << 10, true) >= 0.7);
    assert!(seconds("{ up = \"128KiB/s\", per = \"route\" }", 2, 128 << 10, true) >= 1.6);
}

#[test]
fn bandwidth_holds_back_other_protocols_too() {
    let echo = TcpServer::echo();
    let config = OneRoute { route: "bandwidth = { up = \"64KiB/s\" }", ..OneRoute::default() };
    let (_tieline, address) = start(&config.to(&[echo.address()]));
    let mut client = crate::support::connect(address);
    let began = Clock::now();
    let mut sender = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || sender.write_all(&pattern(64 << 10)).unwrap());
        let mut heard = vec![0; 64 << 10];
        client.read_exact(&mut heard).unwrap();
        assert!(heard == pattern(64 << 10));
    });
    assert!(Clock::now().since(began).as_secs_f64() >= 0.85);
    assert!(SockRef::from(&client).take_error().unwrap().is_none());
}
