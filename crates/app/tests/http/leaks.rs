//! Nothing is left of requests that ended in any way.

use std::thread;

use tieline_testkit::{HttpConversation, PATIENCE, wait_until};

use crate::origin::Origin;
use crate::site::{HTTP, Site, request};
use crate::support::{OneRoute, assert_back_at, reset};

const CONNECTIONS: usize = 200;
const REQUESTS_EACH: usize = 25;

/// Ends a connection somewhere on its way.
fn abort(mut client: HttpConversation, at: usize) {
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome";
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
    let whole = request("/large", &[]);
    let bytes = match at % 8 {
        0 => "",
        1 => "GET / HT",
        2 => "GET / HTTP/1.1\r\nHost: a\r\n",
        3 => post,
        4 => chunked,
        5 => "wrong",
        _ => &whole,
    };
    client.send(bytes).unwrap();
    if at % 8 == 7 {
        let _ = client.take(1000).unwrap();
    }
    if at % 16 < 8 {
        reset(client.stream().try_clone().unwrap());
    }
}

#[test]
fn descriptors_come_back_after_aborts_at_every_stage() {
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n{}", "x".repeat(200_000));
    let small = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let origin = Origin::start(move |asked| if asked.target() == "/large" { &*large } else { small }.into());
    let config = OneRoute { upstream: "pool = { idle = \"100ms\" }", ..HTTP };
    let site = Site::start(&config.to(&[origin.address()]));
    site.connect().ask(&request("/", &["Connection: close"]));
    assert!(wait_until(PATIENCE, || origin.open() == 0));
    let baseline = site.tieline.fd_count();
    thread::scope(|scope| {
        for first in 0..8 {
            let site = &site;
            scope.spawn(move || {
                for at in (first..CONNECTIONS).step_by(8) {
                    let mut client = site.connect();
                    for _ in 0..REQUESTS_EACH {
                        assert_eq!(client.ask(&request("/", &[])).text(), "ok");
                    }
                    abort(client, at);
                }
            });
        }
    });
    assert!(wait_until(PATIENCE, || origin.open() == 0), "{} upstream connections stay", origin.open());
    assert_back_at(&site.tieline, baseline);
}
