//! Copies of requests, whose answers nobody waits for.

use std::net::SocketAddr;

use tieline_testkit::{BlackHole, PATIENCE, TcpServer, wait_until};

use crate::origin::{Origin, raw};
use crate::site::{Site, config_of, request};

fn config(shop: SocketAddr, shadow: SocketAddr, mirror: &str) -> String {
    let upstream =
        |name: &str, address: SocketAddr| format!("[upstream.{name}]\nendpoints = [\"{address}\"]\n");
    let route = "[[listener.web.route]]\naccess = \"public\"\nupstream = \"shop\"\n";
    let mirror = format!("mirror = {{ upstream = \"shadow\"{mirror} }}\n");
    config_of(&[route, &mirror, &upstream("shop", shop), &upstream("shadow", shadow)].concat())
}

#[track_caller]
fn await_copies(site: &Site, outcome: &str, count: u64) {
    let series = format!("tieline_mirrored_requests_total{{upstream=\"shadow\",outcome=\"{outcome}\"}}");
    let copies = || {
        let metrics = site.tieline.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series).map(str::trim));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_default()
    };
    assert!(wait_until(PATIENCE, || copies() >= count as f64), "{outcome}: {}", copies());
}

#[test]
fn a_copy_says_what_the_request_says_and_that_it_is_one() {
    let (shop, shadow) = (Origin::saying("shop"), Origin::saying("shadow"));
    let site = Site::start(&config(shop.address(), shadow.address(), ""));
    let mut client = site.connect();
    // A client cannot pass off a request as a copy.
    assert_eq!(client.ask(&request("/one?a=b", &["X-A: 1", "X-Tieline-Mirror: 1"])).text(), "shop");
    let (asked, copy) = (shop.asked(), shadow.asked());
    assert_eq!((copy.line(), copy.header("x-a")), (asked.line(), Some("1")));
    assert_eq!((copy.header("x-tieline-mirror"), asked.header("x-tieline-mirror")), (Some("1"), None));
    assert_eq!(copy.all("x-tieline-mirror").count(), 1);
    for name in ["host", "x-forwarded-for", "x-request-id", "via"] {
        assert_eq!(copy.header(name), asked.header(name), "{name}");
    }
    let bodies = [
        "POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /three HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "POST /four HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    ];
    for body in bodies {
        client.send(body).unwrap();
        assert_eq!(client.answer("POST").unwrap().text(), "shop");
        let (asked, copy) = (shop.asked(), shadow.asked());
        assert_eq!((copy.line(), copy.body.as_slice()), (asked.line(), &b"hello"[..]));
        assert_eq!((copy.header("content-length"), copy.header("transfer-encoding")), (Some("5"), None));
        assert_eq!(copy.header("expect"), None);
    }
    await_copies(&site, "answered", 4);
    assert!(shadow.accepted() <= 4 && shop.is_unasked() && shadow.is_unasked());
}

#[test]
fn a_large_body_is_not_copied() {
    let (shop, shadow) = (Origin::saying("shop"), Origin::saying("shadow"));
    let site = Site::start(&config(shop.address(), shadow.address(), ""));
    let mut client = site.connect();
    for (length, copied) in [(64 << 10, true), ((64 << 10) + 1, false)] {
        client
            .send(format!("PUT /{length} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"))
            .unwrap();
        client.send(vec![b'x'; length]).unwrap();
        assert_eq!(client.answer("PUT").unwrap().text(), "shop");
        if copied {
            assert_eq!(shadow.asked().body.len(), length);
        }
    }
    await_copies(&site, "too-large", 1);
    assert!(shadow.is_unasked());
}

#[test]
fn a_copy_that_goes_wrong_harms_nobody() {
    let shop = Origin::saying("shop");
    let (hole, silent) = (BlackHole::start(), TcpServer::mute());
    let broken = raw(|mut client| {
        client.request()?;
        client.send("HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n")
    });
    let dead = tieline_testkit::Refusing::start();
    for (shadow, outcome) in [
        (hole.address(), None),
        (silent.address(), None),
        (broken.address(), Some("failed")),
        (dead.address(), Some("failed")),
    ] {
        let config = config(shop.address(), shadow, "") + "retry = { attempts = 0 }\n";
        let site = Site::start(&config);
        let mut client = site.connect();
        for _ in 0..3 {
            assert_eq!(client.ask(&request("/", &[])).text(), "shop");
        }
        if let Some(outcome) = outcome {
            await_copies(&site, outcome, 3);
        }
    }
}

#[test]
fn copies_beyond_those_that_are_on_their_way_are_dropped_and_counted() {
    let (shop, silent) = (Origin::saying("shop"), TcpServer::mute());
    let config = config(shop.address(), silent.address(), "").replace("workers = 2", "workers = 1");
    let site = Site::start(&config);
    let mut client = site.connect();
    for _ in 0..140 {
        assert_eq!(client.ask(&request("/", &[])).text(), "shop");
    }
    // 128 at once, as long as none is answered.
    await_copies(&site, "dropped", 12);
    assert!(silent.accepted() <= 128);
}

#[test]
fn a_share_of_the_requests_is_copied() {
    let (shop, shadow) = (Origin::saying("shop"), Origin::saying("shadow"));
    let site = Site::start(&config(shop.address(), shadow.address(), ", percent = \"50%\""));
    let mut client = site.connect();
    for _ in 0..200 {
        client.ask(&request("/", &[]));
    }
    // Binomial with p = 1/2: mean 100, deviation 7; seven of those are never seen.
    await_copies(&site, "answered", 50);
    let copies = std::iter::from_fn(|| (!shadow.is_unasked()).then_some(())).count();
    assert!(copies <= 150, "{copies}");
    site.tieline.reload(&config(shop.address(), shadow.address(), ", percent = \"0%\""));
    for _ in 0..20 {
        assert_eq!(client.ask(&request("/after", &[])).text(), "shop");
    }
    // Copies of what came before may still be on their way.
    let copied = std::iter::from_fn(|| shadow.try_asked());
    assert_eq!(copied.filter(|asked| asked.target() == "/after").count(), 0);
}

#[test]
fn upgrades_are_not_copied() {
    let shadow = Origin::saying("shadow");
    let shop = raw(|mut client| {
        client.request()?;
        client.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")?;
        let _ = client.take(1);
        Ok(())
    });
    let site = Site::start(&config(shop.address(), shadow.address(), ""));
    let mut client = site.connect();
    assert_eq!(client.ask(&request("/", &["Connection: Upgrade", "Upgrade: x"])).status, 101);
    client.send("x").unwrap();
    let _ = client.rest();
    assert_eq!(shadow.accepted(), 0);
}
