//! Answers and requests that take their time: what comes goes on at once, and nothing that moves is cut.

use std::sync::mpsc::channel;

use tieline_testkit::{PATIENCE, TcpServer, wait_until};

use crate::origin::raw;
use crate::site::{HTTP, Site, request};
use crate::support::{OneRoute, reason_of};

/// Sends an event each time the test says so; the next one only when the one before was seen.
#[allow(clippy::disallowed_types, reason = "a receiver is one thread's, and a server of a test has several")]
fn events(head: &'static str, frame: fn(&str) -> String) -> (TcpServer, std::sync::mpsc::Sender<String>) {
    let (sender, told) = channel::<String>();
    let told = std::sync::Mutex::new(told);
    let server = raw(move |mut client| {
        client.request()?;
        client.send(head)?;
        while let Ok(event) = told.lock().unwrap().recv_timeout(PATIENCE) {
            client.send(frame(&event))?;
            if event.is_empty() {
                break;
            }
        }
        Ok(())
    });
    (server, sender)
}

#[test]
fn events_come_one_by_one() {
    let chunk = |event: &str| format!("{:x}\r\n{event}\r\n", event.len());
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let plain = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    for (head, frame) in
        [(chunked, chunk as fn(&str) -> String), (plain, str::to_owned as fn(&str) -> String)]
    {
        let (server, sender) = events(head, frame);
        let site = Site::to(&[server.address()]);
        let mut client = site.connect();
        client.send(request("/events", &["Accept: text/event-stream"])).unwrap();
        let mut seen = String::new();
        for number in 0..5 {
            let event = format!("data: {number}\n\n");
            sender.send(event.clone()).unwrap();
            // Each is there before the next one is sent; the first brings the head with it.
            while !seen.contains(&event) {
                let byte = client.take(1).unwrap();
                seen.push(char::from(byte[0]));
            }
        }
        sender.send(String::new()).unwrap();
        client.finish();
        let rest = client.rest();
        assert!(rest.is_ok(), "{rest:?}");
    }
}

#[test]
fn a_tunnel_in_which_nothing_moves_ends_and_one_that_moves_does_not() {
    let echo = raw(|mut client| {
        client.request()?;
        client.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")?;
        while let Ok(byte) = client.take(1) {
            client.send(byte)?;
        }
        Ok(())
    });
    let listener = "timeouts = { tunnel_idle = \"6s\" }";
    let site = Site::start(&OneRoute { listener, ..HTTP }.to(&[echo.address()]));
    let upgrade = || {
        let mut client = site.connect();
        assert_eq!(client.ask(&request("/", &["Connection: Upgrade", "Upgrade: x"])).status, 101);
        client
    };
    let (mut still, mut moving) = (upgrade(), upgrade());
    // As long as the still one lives, the other one moves.
    while site.tieline.get("/api/v1/connections")["total"] == 2 {
        moving.send("x").unwrap();
        assert_eq!(moving.take(1).unwrap(), b"x");
    }
    let _ = still.rest(); // in order or by a reset
    assert_eq!(reason_of(&site.tieline, still.stream()), "timeout:tunnel-idle");
    moving.send("y").unwrap();
    assert_eq!(moving.take(1).unwrap(), b"y");
    assert!(wait_until(PATIENCE, || echo.open() == 1));
}

#[test]
fn trailers_of_requests_and_answers_pass() {
    let origin = raw(|mut client| {
        let Some(_) = client.request_head()? else { return Ok(()) };
        let mut body = Vec::new();
        while !body.ends_with(b"\r\n\r\n") {
            body.extend(client.take(1)?);
        }
        let seen = String::from_utf8_lossy(&body).contains("X-Sum: abc");
        let trailer = if seen { "X-Seen: yes" } else { "X-Seen: no" };
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n";
        client.send(format!("{head}{trailer}\r\n\r\n"))
    });
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\nhello\r\n0\r\nX-Sum: abc\r\n\r\n")).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"yes\r\n\r\n") && !seen.ends_with(b"no\r\n\r\n") {
        seen.extend(client.take(1).unwrap());
    }
    assert!(String::from_utf8_lossy(&seen).contains("X-Seen: yes"));
}

#[test]
fn bytes_are_counted_with_their_heads() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
    let origin = raw(move |mut client| {
        while client.request()?.is_some() {
            client.send(format!("{head}0123456789"))?;
        }
        Ok(())
    });
    let site = Site::to(&[origin.address()]);
    let asked = request("/bytes", &[]);
    let answer = site.connect().ask(&asked);
    let line = site.log_line("/bytes");
    assert_eq!(line["bytes_up"], asked.len());
    assert_eq!(line["bytes_down"], answer.head.len() + "\r\n\r\n".len() + answer.body.len());
}
