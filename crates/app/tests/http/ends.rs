//! Interim answers, answers that end with their connection, and clients that leave.

use crate::origin::raw;
use crate::site::{HTTP, Site, request};
use crate::support::{await_live, reset};
use tieline_testkit::*;

#[test]
fn an_answer_without_a_length_lasts_until_its_origin_closes() {
    let origin = raw(|mut client| {
        client.request()?;
        client.send("HTTP/1.1 200 OK\r\nX: y\r\n\r\nall of it")
    });
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    // In chunks, so that the client can tell its end from a break, and may go on.
    for _ in 0..2 {
        let answer = client.ask(&request("/", &[]));
        assert_eq!((answer.text().as_str(), answer.header("x")), ("all of it", Some("y")));
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    }
    let old = client.ask("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((old.text().as_str(), old.header("transfer-encoding")), ("all of it", None));
    assert!(client.rest().unwrap().is_empty());
}

#[test]
fn a_client_that_leaves_ends_the_exchange_upstream() {
    let origin = TcpServer::sink();
    let site = Site::start(&HTTP.to(&[origin.address()]));
    let mut client = site.connect();
    client.send(request("/left", &[])).unwrap();
    assert!(wait_until(PATIENCE, || origin.open() == 1));
    reset(client.stream().try_clone().unwrap());
    drop(client);
    assert!(wait_until(PATIENCE, || origin.open() == 0));
    assert_eq!(site.reason("/left"), "client-reset");
    await_live(&site.tieline, "", 0);
}

#[test]
fn early_hints_and_continue_come_before_the_answer() {
    let origin = raw(|mut client| {
        while let Some(asked) = client.request_head()? {
            client.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
            if asked.header("expect").is_some() {
                client.send("HTTP/1.1 100 Continue\r\n\r\n")?;
                client.take(4)?;
            }
            client.send("HTTP/1.1 204 No Content\r\nX: y\r\n\r\n")?;
        }
        Ok(())
    });
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    for _ in 0..2 {
        client.send(request("/", &[])).unwrap();
        let hints = client.any_answer("GET").unwrap();
        assert_eq!((hints.status, hints.header("link")), (103, Some("</a.css>; rel=preload")));
        let answer = client.any_answer("GET").unwrap();
        assert_eq!(
            (answer.status, answer.header("x"), answer.header("content-length")),
            (204, Some("y"), None)
        );
    }
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(client.any_answer("PUT").unwrap().status, 103);
    assert_eq!(client.any_answer("PUT").unwrap().status, 100);
    client.send("body").unwrap();
    assert_eq!(client.any_answer("PUT").unwrap().status, 204);
    // HTTP/1.0 knows no interim answers.
    let mut old = site.connect();
    old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(old.any_answer("GET").unwrap().status, 204);
}

#[test]
fn endless_interim_answers_are_a_fault() {
    let origin = raw(|mut client| {
        client.request()?;
        client.send("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100))?;
        client.rest().map(drop)
    });
    let site = Site::to(&[origin.address()]);
    let answer = site.connect().ask(&request("/endless", &[]));
    assert_eq!(answer.status, 502);
    assert_eq!(site.reason("/endless"), "upstream-protocol-error");
}

/// A route that answers by itself, one that is not for everybody, and nothing else.
const REFUSING: &str = "[[listener.web.route]]\naccess = \"public\"\npath = \"/full\"\n\
    respond = { status = 503, body = \"no\" }\n\
    [[listener.web.route]]\npath = \"/closed\"\nupstream = \"far\"\n\
    [upstream.far]\nendpoints = [\"127.0.0.1:9\"]\n";

#[test]
fn whoever_is_refused_may_ask_again_over_the_same_connection() {
    let site = Site::with_routes(REFUSING);
    let mut client = site.connect();
    let bodies = ["", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"];
    let sent = ["", "hello", "5\r\nhello\r\n0\r\n\r\n"];
    for (path, status) in [("/full", 503), ("/closed", 404), ("/nowhere", 404)] {
        for (fields, body) in bodies.into_iter().zip(sent) {
            let answer = client.ask(&format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}"));
            assert_eq!((answer.status, answer.header("connection")), (status, None), "{path} {fields}");
        }
    }
    assert_eq!(site.reason("/nowhere"), "refused:no-route");
}

#[test]
fn a_body_that_nobody_wants_is_no_request() {
    let site = Site::with_routes(REFUSING);
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for path in ["/full", "/closed", "/nowhere"] {
        let mut client = site.connect();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", hidden.len());
        let half = hidden.len() / 2;
        client.send(format!("{head}{}", &hidden[..half])).unwrap();
        let first = client.answer("POST").unwrap();
        assert_eq!(first.header("connection"), None, "{path}: what is left of it is little");
        // The rest comes late, and the next request right behind it.
        client.send(format!("{}GET /full HTTP/1.1\r\nHost: a\r\n\r\n", &hidden[half..])).unwrap();
        let next = client.answer("GET").unwrap();
        assert_eq!((next.status, next.text().as_str()), (503, "no"), "{path}");
    }
    site.log_line("/full");
    assert!(site.log_lines().iter().all(|line| line["target"] != "/hidden"));
}

#[test]
fn a_body_that_nobody_wants_closes_the_connection_where_it_is_large_or_unsure() {
    let site = Site::with_routes(REFUSING);
    let large = "Content-Length: 100000\r\n";
    let unsure = "Content-Length: 20\r\nExpect: 100-continue\r\n";
    let endless = "Transfer-Encoding: chunked\r\n";
    for path in ["/full", "/closed", "/nowhere"] {
        for (fields, body) in [(large, "x"), (unsure, ""), (endless, "5\r\nhel")] {
            let mut client = site.connect();
            let posted = client.ask(&format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}"));
            assert_eq!(posted.header("connection"), Some("close"), "{path} {fields}");
            let _ = client.send("GET /gone HTTP/1.1\r\n");
            assert!(client.rest().is_ok_and(|rest| rest.is_empty()), "{path} {fields}");
        }
    }
    // Whoever announces little and then leaves is not waited for.
    let mut client = site.connect();
    let posted = client.ask("POST /left HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nx");
    assert_eq!((posted.status, posted.header("connection")), (404, None));
    drop(client);
    assert_eq!(site.reason("/left"), "refused:no-route");
}
