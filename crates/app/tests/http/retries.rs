//! Requests that failed and are asked once more: of whom, when, and when not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tieline_base::Clock;
use tieline_testkit::{HttpMessage, PATIENCE, TcpServer, wait_until};

use crate::origin::{OK, Origin, raw};
use crate::site::{HTTP, Site, request};
use crate::support::OneRoute;

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfull";

/// Each endpoint in its turn, so that half of what is asked fails at first; none is ejected.
const IN_TURN: &str = "balance = \"round-robin\"\noutlier = { max = \"0%\" }\n";

fn unavailable() -> Origin {
    Origin::start(|_| UNAVAILABLE.into())
}

/// A server to `endpoints` with these retries.
fn site(retry: &str, endpoints: &[&Origin]) -> Site {
    let upstream = format!("{IN_TURN}{retry}");
    let addresses: Vec<_> = endpoints.iter().map(|origin| origin.address()).collect();
    Site::start(&OneRoute { upstream: &upstream, ..HTTP }.to(&addresses))
}

fn drained(origin: &Origin) -> Vec<HttpMessage> {
    std::iter::from_fn(|| origin.try_asked()).collect()
}

#[test]
fn a_listed_status_is_asked_elsewhere_and_says_so() {
    let (bad, good) = (unavailable(), Origin::ok());
    let site = site("retry = { on = [\"503\"] }", &[&bad, &good]);
    let mut client = site.connect();
    for at in 0..20 {
        assert_eq!(client.ask(&request(&format!("/{at}"), &[])).status, 200, "request {at}");
    }
    let tried = drained(&bad);
    assert!(!tried.is_empty());
    assert!(tried.iter().all(|asked| asked.header("tieline-attempt").is_none()));
    for asked in drained(&good) {
        let again = tried.iter().any(|first| first.target() == asked.target());
        assert_eq!(asked.header("tieline-attempt"), again.then_some("2"), "{}", asked.target());
    }
    let note = site.log_line(tried[0].target())["notes"][0].as_str().unwrap().to_owned();
    assert!(note.starts_with(&format!("try 1 at {}: answered 503 after", bad.address())), "{note}");
    assert!(site.tieline.metric("tieline_retries_total{upstream=\"service\"}") >= tried.len() as f64);
}

#[test]
fn an_answer_that_is_given_up_costs_no_connection_if_it_is_short_and_whole() {
    let text = |length: usize| {
        let head = format!("HTTP/1.1 503 Service Unavailable\r\nContent-Length: {length}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; length]].concat()
    };
    let chunked = b"HTTP/1.1 503 Full\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfull\r\n0\r\n\r\n";
    for (answer, kept) in [
        (text(0), true),
        (text(5), true),
        (chunked.to_vec(), true),
        (text(100_000), false),
        (b"HTTP/1.1 503 Full\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec(), false),
    ] {
        let said = answer.clone();
        let (bad, good) = (Origin::start(move |_| said.clone()), Origin::ok());
        let more = "retry = { on = [\"503\"], budget = \"100%\" }\nbalance = \"round-robin\"\n\
                    outlier = { failures = 1000 }";
        let site = Site::start(
            &OneRoute { upstream: more, server: "workers = 1", ..HTTP }.to(&[bad.address(), good.address()]),
        );
        let mut client = site.connect();
        for _ in 0..10 {
            assert_eq!(client.ask(&request("/", &[])).status, 200);
        }
        let (asked, accepted) = (drained(&bad).len(), bad.accepted());
        assert!(asked > 2, "only {asked}");
        if kept { assert_eq!(accepted, 1) } else { assert_eq!(accepted, asked) }
    }
}

#[test]
fn what_is_not_listed_or_not_harmless_is_passed_on() {
    let (one, other) = (unavailable(), unavailable());
    let unlisted = site("", &[&one, &other]);
    assert_eq!(unlisted.connect().ask(&request("/", &[])).text(), "full");
    assert_eq!(drained(&one).len() + drained(&other).len(), 1);
    let listed = site("retry = { on = [\"503\"] }", &[&one, &other]);
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(listed.connect().ask(post).status, 503);
    assert_eq!(drained(&one).len() + drained(&other).len(), 1, "a POST may do harm when done twice");
    // Another Tieline has tried it elsewhere already: one try, and no more.
    assert_eq!(listed.connect().ask(&request("/", &["Tieline-Attempt: 2"])).status, 503);
    assert_eq!(drained(&one).len() + drained(&other).len(), 1);
    assert_eq!(listed.connect().ask(&request("/", &[])).status, 503, "both were asked");
    assert_eq!((drained(&one).len(), drained(&other).len()), (1, 1));
}

#[test]
fn a_body_that_is_held_is_sent_again_and_a_large_one_is_not() {
    let (bad, good) = (unavailable(), Origin::ok());
    let site = site("retry = { on = [\"503\"] }", &[&bad, &good]);
    for size in [1_000, 60_000] {
        let body = "x".repeat(size);
        let plain = format!("PUT /p{size} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{body}");
        let chunked = format!(
            "PUT /c{size} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             {size:x}\r\n{body}\r\n0\r\n\r\n"
        );
        for put in [&plain, &plain, &chunked, &chunked] {
            assert_eq!(site.connect().ask(put).status, 200, "{size}");
            assert_eq!(good.asked().body, body.as_bytes());
        }
    }
    assert!(drained(&bad).iter().all(|asked| asked.body.len() >= 1_000));
    let (size, body) = (200_000, "x".repeat(200_000));
    let large = format!("PUT /large HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{body}");
    let statuses: Vec<u16> = (0..6).map(|_| site.connect().ask(&large).status).collect();
    assert!(statuses.contains(&503) && statuses.contains(&200), "{statuses:?}");
    assert!(drained(&good).iter().all(|asked| asked.body.len() == size), "none was sent in part");
}

#[test]
fn a_connection_that_breaks_is_followed_by_another_endpoint_where_that_does_no_harm() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let breaking = raw(move |mut client| {
        client.request()?;
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let good = Origin::ok();
    let upstream = format!("{IN_TURN}retry = {{ budget = \"100%\" }}");
    let site =
        Site::start(&OneRoute { upstream: &upstream, ..HTTP }.to(&[breaking.address(), good.address()]));
    for at in 0..10 {
        assert_eq!(site.connect().ask(&request("/", &[])).status, 200, "request {at}");
    }
    let gets = asked.load(Ordering::SeqCst);
    assert!(gets >= 4, "{gets} of ten were asked of the one that breaks");
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    let statuses: Vec<u16> = (0..6).map(|_| site.connect().ask(post).status).collect();
    let broken = statuses.iter().filter(|status| **status == 502).count();
    assert_eq!(broken, asked.load(Ordering::SeqCst) - gets, "each is one POST, asked once: {statuses:?}");
    assert!(broken >= 2, "{statuses:?}");
}

#[test]
fn a_try_that_takes_too_long_is_given_up_for_another_but_not_the_last_one() {
    let silent = TcpServer::sink();
    let good = Origin::ok();
    let upstream = format!("{IN_TURN}retry = {{ attempts = 1, per_try = \"3s\", budget = \"100%\" }}");
    let config = OneRoute { upstream: &upstream, ..HTTP };
    let site = Site::start(&config.to(&[silent.address(), good.address()]));
    let begun = Clock::now();
    for at in 0..6 {
        let target = format!("/{at}");
        assert_eq!(site.connect().ask(&request(&target, &[])).status, 200, "request {at}");
    }
    assert!(silent.accepted() >= 2 && Clock::now().since(begun) < PATIENCE);
    assert!(wait_until(PATIENCE, || silent.open() == 0), "what is given up is closed");
    // Both are slow: the second try has all the time that the request has.
    let slow = || {
        Origin::start(|_| {
            thread::sleep(Duration::from_secs(8));
            OK.into()
        })
    };
    let (one, other) = (slow(), slow());
    let site = Site::start(&config.to(&[one.address(), other.address()]));
    assert_eq!(site.connect().ask(&request("/slow", &[])).status, 200);
    assert_eq!((drained(&one).len(), drained(&other).len()), (1, 1));
    let note = site.log_line("/slow")["notes"][0].as_str().unwrap().to_owned();
    assert!(note.contains("timeout:first-byte after"), "{note}");
}

#[test]
fn when_all_fails_the_load_grows_by_the_budget_alone() {
    let (one, other) = (unavailable(), unavailable());
    let site = site("retry = { on = [\"503\"], attempts = 5, budget = \"10%\" }", &[&one, &other]);
    let begun = Clock::now();
    let mut client = site.connect();
    for _ in 0..300 {
        assert_eq!(client.ask(&request("/", &[])).status, 503);
    }
    let floor = 31 + 3 * Clock::now().since(begun).as_secs() as usize + 3;
    let asked = drained(&one).len() + drained(&other).len();
    assert!(asked > 300 && asked <= 300 + 30 + floor, "{asked} for 300 requests");
    assert!(site.tieline.metric("tieline_retries_denied_total{upstream=\"service\"}") > 0.0);
}

#[test]
fn a_second_endpoint_is_asked_too_when_the_first_takes_long() {
    let slow = Arc::new(AtomicBool::new(false));
    let is_slow = Arc::clone(&slow);
    let one = Origin::start(move |_| {
        if is_slow.load(Ordering::SeqCst) {
            thread::sleep(PATIENCE * 2);
        }
        OK.into()
    });
    let other = Origin::ok();
    let upstream =
        "balance = \"round-robin\"\nhedge = { budget = \"100%\" }\nretry = { budget = \"100%\" }\n";
    let config = OneRoute { upstream, ..HTTP };
    let site = Site::start(&config.to(&[one.address(), other.address()]));
    let mut client = site.connect();
    // It must have learned what is usual, and saved what a hedge costs.
    for _ in 0..150 {
        assert_eq!(client.ask(&request("/", &[])).status, 200);
    }
    slow.store(true, Ordering::SeqCst);
    let won = || site.tieline.metric("tieline_hedges_won_total{upstream=\"service\"}");
    let before = won();
    for at in 0..4 {
        // A POST is never asked twice at once, so that only what may be is asked here.
        assert_eq!(client.ask(&request(&format!("/{at}"), &[])).status, 200);
    }
    assert!(won() > before, "no second endpoint has won");
    let told = |at: usize| site.log_line(&format!("/{at}"))["notes"].to_string();
    let noted = (0..4).filter(|at| told(*at).contains("was asked too and answered first")).count();
    assert!(noted >= 1);
}
