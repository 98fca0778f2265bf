//! Connections to endpoints: how few are made, and what becomes of requests when an endpoint fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tieline_testkit::{BlackHole, PATIENCE, Refusing, TcpServer, wait_until};

use crate::origin::{OK, Origin, raw};
use crate::site::{HTTP, Site, request};
use crate::support::OneRoute;

#[test]
fn many_requests_of_many_clients_use_few_upstream_connections() {
    let origin = Origin::ok();
    let site = Site::to(&[origin.address()]);
    for _ in 0..10 {
        let mut client = site.connect();
        for _ in 0..20 {
            assert_eq!(client.ask(&request("/", &[])).status, 200);
        }
    }
    // One for each of the two workers.
    assert!(origin.accepted() <= 2, "{} connections for 200 requests, one at a time", origin.accepted());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = site.connect();
                for _ in 0..50 {
                    assert_eq!(client.ask(&request("/", &[])).status, 200);
                }
            });
        }
    });
    assert!(origin.accepted() <= 16, "{} connections for 8 clients", origin.accepted());
}

#[test]
fn an_origin_that_closes_at_rest_costs_no_get() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let origin = raw(move |mut client| {
        // It answers once and closes, without having said so.
        if client.request()?.is_some() {
            count.fetch_add(1, Ordering::Relaxed);
            client.send(OK)?;
        }
        Ok(())
    });
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    for at in 0..300 {
        assert_eq!(client.ask(&request("/", &[])).status, 200, "request {at}");
    }
    assert_eq!(served.load(Ordering::Relaxed), 300);
}

#[test]
fn a_request_that_may_have_been_seen_is_not_sent_twice() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    // The second request of each connection is read, and then the connection closes.
    let origin = raw(move |mut client| {
        client.request()?;
        client.send(OK)?;
        if client.request()?.is_some() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let site = Site::start(&OneRoute { server: "workers = 1", ..HTTP }.to(&[origin.address()]));
    let mut client = site.connect();
    assert_eq!(client.ask(&request("/", &[])).status, 200);
    assert_eq!(client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").status, 502);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // A GET may be, and once is enough.
    let mut client = site.connect();
    assert_eq!(client.ask(&request("/", &[])).status, 200);
    assert_eq!(client.ask(&request("/", &[])).status, 200);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn nobody_there_is_a_502() {
    let nobody = Refusing::start();
    let site = Site::to(&[nobody.address()]);
    let answer = site.connect().ask(&request("/nobody", &[]));
    assert_eq!(answer.status, 502);
    assert!(!answer.text().contains(&nobody.address().to_string()), "{}", answer.text());
    assert_eq!(site.reason("/nobody"), "unreachable");
}

#[test]
fn a_black_hole_is_a_504() {
    let hole = BlackHole::start();
    let config = OneRoute { upstream: "timeouts = { connect = \"200ms\" }", ..HTTP };
    let site = Site::start(&config.to(&[hole.address()]));
    assert_eq!(site.connect().ask(&request("/hole", &[])).status, 504);
    assert_eq!(site.reason("/hole"), "timeout:connect");
}

#[test]
fn an_origin_that_says_nothing_is_a_504() {
    let silent = TcpServer::sink();
    let config = OneRoute { upstream: "timeouts = { first_byte = \"200ms\" }", ..HTTP };
    let site = Site::start(&config.to(&[silent.address()]));
    assert_eq!(site.connect().ask(&request("/silent", &[])).status, 504);
    assert_eq!(site.reason("/silent"), "timeout:first-byte");
    assert!(wait_until(PATIENCE, || silent.open() == 0), "its connection is closed");
}

#[test]
fn an_answer_that_stands_still_is_cut() {
    let origin = raw(|mut client| {
        client.request()?;
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
        client.rest().map(drop)
    });
    let config = OneRoute { upstream: "timeouts = { gap = \"200ms\" }", ..HTTP };
    let site = Site::start(&config.to(&[origin.address()]));
    let mut client = site.connect();
    client.send(request("/still", &[])).unwrap();
    assert!(client.answer("GET").is_err());
    assert_eq!(site.reason("/still"), "timeout:gap");
}

#[test]
fn an_origin_that_resets_before_it_answers_is_a_502() {
    let origin = TcpServer::resetting_after(10);
    let site = Site::to(&[origin.address()]);
    assert_eq!(site.connect().ask(&request("/reset", &[])).status, 502);
    assert_eq!(site.reason("/reset"), "upstream-reset");
}

#[test]
fn requests_go_to_the_endpoint_that_is_left() {
    let (origin, nobody) = (Origin::ok(), Refusing::start());
    let site = Site::to(&[nobody.address(), origin.address()]);
    for at in 0..50 {
        assert_eq!(site.connect().ask(&request("/", &["Connection: close"])).status, 200, "request {at}");
    }
}
