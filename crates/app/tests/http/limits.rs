//! What clients may not do: too slowly, too much, too long.

use tieline_testkit::{PATIENCE, wait_until};

use crate::origin::Origin;
use crate::site::{HTTP, Site, request};
use crate::support::{OneRoute, reason_of};

/// The status for `bytes` on a connection of their own.
#[track_caller]
fn status(site: &Site, bytes: &str) -> u16 {
    let mut client = site.connect();
    // The answer may come before all is sent.
    let _ = client.send(bytes);
    client.answer("GET").unwrap().status
}

#[test]
fn a_head_that_drips_is_a_408() {
    let origin = Origin::ok();
    let config = OneRoute { listener: "timeouts = { request_head = \"200ms\" }", ..HTTP };
    let site = Site::start(&config.to(&[origin.address()]));
    let mut client = site.connect();
    client.send("GET /drip HTTP/1.1\r\nHost: a\r\nX: ").unwrap();
    client.stream().set_nonblocking(true).unwrap();
    // Bytes that come do not win it more time.
    let is_answered = || client.send("x").is_err() || client.stream().peek(&mut [0]).is_ok();
    assert!(wait_until(PATIENCE, is_answered));
    client.stream().set_nonblocking(false).unwrap();
    assert_eq!(client.answer("GET").unwrap().status, 408);
    assert_eq!(reason_of(&site.tieline, client.stream()), "timeout:request-head");
    assert!(origin.is_unasked());
}

#[test]
fn a_body_that_stands_still_is_a_408() {
    let origin = Origin::ok();
    let config = OneRoute { listener: "timeouts = { body_gap = \"200ms\" }", ..HTTP };
    let site = Site::start(&config.to(&[origin.address()]));
    assert_eq!(status(&site, "POST /still HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"), 408);
    assert_eq!(site.reason("/still"), "timeout:body-gap");
}

#[test]
fn a_client_at_rest_is_sent_away() {
    let origin = Origin::ok();
    let config = OneRoute { listener: "timeouts = { idle = \"5s\" }", ..HTTP };
    let site = Site::start(&config.to(&[origin.address()]));
    let mut client = site.connect();
    assert_eq!(client.ask(&request("/", &[])).status, 200);
    assert!(client.rest().unwrap().is_empty());
    assert_eq!(reason_of(&site.tieline, client.stream()), "idle");
}

#[test]
fn a_body_that_is_too_large_is_a_413() {
    let origin = Origin::ok();
    let config = OneRoute { listener: "limits = { body = \"8KiB\" }", ..HTTP };
    let site = Site::start(&config.to(&[origin.address()]));
    let sized = |length: usize| {
        let body = "x".repeat(length);
        format!("POST /sized HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    assert_eq!(status(&site, &sized(8 << 10)), 200);
    assert_eq!(status(&site, &sized((8 << 10) + 1)), 413);
    assert_eq!(status(&site, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n"), 413);
    let head = "POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks =
        |count: usize| format!("{head}{}0\r\n\r\n", format!("400\r\n{}\r\n", "x".repeat(1024)).repeat(count));
    assert_eq!(status(&site, &chunks(8)), 200);
    assert_eq!(status(&site, &chunks(9)), 413);
    assert_eq!(origin.asked().target(), "/sized");
    assert_eq!(origin.asked().target(), "/chunked");
    assert!(origin.is_unasked(), "a body that was cut is no request");
}

#[test]
fn heads_have_bounds() {
    let origin = Origin::ok();
    let limits = "limits = { request_line = \"1KiB\", request_head = \"2KiB\", request_fields = 10 }";
    let site = Site::start(&OneRoute { listener: limits, ..HTTP }.to(&[origin.address()]));
    let long = |length: usize| "x".repeat(length);
    let many = |count: usize| (0..count).map(|at| format!("X-{at}: y")).collect::<Vec<_>>();
    let fields = |lines: &[String]| request("/", &lines.iter().map(String::as_str).collect::<Vec<_>>());
    for (name, bytes, expected) in [
        ("a line that fits", request(&format!("/{}", long(1000)), &[]), 200),
        ("a longer one", request(&format!("/{}", long(1011)), &[]), 414),
        ("a head that fits", fields(&[format!("X: {}", long(1900))]), 200),
        ("a larger one", fields(&[format!("X: {}", long(2100))]), 431),
        ("fields that fit", fields(&many(9)), 200),
        ("one more", fields(&many(10)), 431),
    ] {
        assert_eq!(status(&site, &bytes), expected, "{name}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_own_status() {
    let origin = Origin::ok();
    let site = Site::to(&[origin.address()]);
    for (bytes, expected) in [
        ("TRACE /trace HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("GET /expect HTTP/1.1\r\nHost: a\r\nExpect: the-worst\r\n\r\n", 417),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
        ("POST /te HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("GET /version HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("GET /host HTTP/1.1\r\n\r\n", 400),
    ] {
        let mut client = site.connect();
        client.send(bytes).unwrap();
        let answer = client.answer("GET").unwrap();
        assert_eq!((answer.status, answer.header("connection")), (expected, Some("close")), "{bytes}");
        assert!(client.rest().is_ok_and(|rest| rest.is_empty()), "it closes: {bytes}");
        client.finish();
        assert_eq!(reason_of(&site.tieline, client.stream()), "protocol-error", "{bytes}");
    }
    assert!(origin.is_unasked());
}
