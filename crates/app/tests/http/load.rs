//! What is done where more is asked of an upstream than it can do: breakers, balance, shedding, limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tieline_testkit::{PATIENCE, wait_until};

use crate::origin::{OK, Origin};
use crate::site::{HTTP, Site, request};
use crate::support::OneRoute;

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfull";

fn upstream(site: &Site) -> Value {
    site.tieline.get("/api/v1/upstreams")[0].clone()
}

#[test]
fn a_breaker_opens_lets_one_through_and_closes() {
    let (failing, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (fails, count) = (Arc::clone(&failing), Arc::clone(&asked));
    let origin = Origin::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        if fails.load(Ordering::SeqCst) { UNAVAILABLE } else { OK }.into()
    });
    let breaker = "breaker = { requests = 10, open = \"8s\", longest = \"8s\" }";
    let site = Site::start(&OneRoute { upstream: breaker, ..HTTP }.to(&[origin.address()]));
    for _ in 0..10 {
        assert_eq!(site.connect().ask(&request("/", &[])).text(), "full");
    }
    assert_eq!(upstream(&site)["endpoints"][0]["state"], "breaker-open");
    let mut client = site.connect();
    let refused = client.ask(&request("/refused", &[]));
    // What is left of its time.
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!(refused.status == 503 && (1..=8).contains(&after), "{} {after}", refused.status);
    // Nothing of it is left, so the connection goes on.
    assert_eq!(refused.header("connection"), None);
    client.ask(&request("/again", &[]));
    assert_ne!(refused.text(), "full", "it was not asked");
    assert_eq!(site.reason("/refused"), "refused:breaker");
    // While it is open and its probes fail, next to nothing is asked of it.
    let before = asked.load(Ordering::SeqCst);
    assert!(wait_until(PATIENCE, || {
        let _ = site.connect().ask(&request("/", &[]));
        asked.load(Ordering::SeqCst) > before
    }));
    failing.store(false, Ordering::SeqCst);
    assert!(wait_until(PATIENCE, || site.connect().ask(&request("/", &[])).status == 200));
    assert_eq!(upstream(&site)["endpoints"][0]["state"], "healthy");
    assert!(site.tieline.metric("tieline_breaker_opened_total{upstream=\"service\"}") >= 2.0);
}

#[test]
fn an_open_breaker_leads_to_the_next_tier() {
    let (bad, standby) = (Origin::start(|_| UNAVAILABLE.into()), Origin::saying("standby"));
    let endpoints =
        [format!("\"{}\"", bad.address()), format!("{{ address = \"{}\", tier = 2 }}", standby.address())];
    let breaker = "breaker = { requests = 5, open = \"60s\" }\noutlier = { max = \"0%\" }";
    let site = Site::start(&OneRoute { upstream: breaker, ..HTTP }.to_endpoints(&endpoints));
    let answers: Vec<String> = (0..10).map(|_| site.connect().ask(&request("/", &[])).text()).collect();
    assert_eq!(answers[..5], ["full"; 5]);
    assert_eq!(answers[5..], ["standby"; 5]);
}

#[test]
fn an_endpoint_that_fails_fast_attracts_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let failing = Origin::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        UNAVAILABLE.into()
    });
    let well = || {
        Origin::start(|_| {
            thread::sleep(Duration::from_millis(3));
            OK.into()
        })
    };
    let others = [well(), well(), well()];
    let addresses = [failing.address(), others[0].address(), others[1].address(), others[2].address()];
    let site = Site::start(&OneRoute { upstream: "outlier = { max = \"0%\" }", ..HTTP }.to(&addresses));
    let mut client = site.connect();
    for _ in 0..500 {
        client.ask(&request("/", &[]));
    }
    let share = asked.load(Ordering::SeqCst);
    // Its fair share would be 125. One that is held up by the machine looks bad for a moment.
    assert!(share < 60, "{share} of 500 went to the one that fails");
}

#[test]
fn an_endpoint_that_is_ten_times_slower_is_left() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let slow = Origin::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_secs(1));
        OK.into()
    });
    let fast: Vec<Origin> = (0..9)
        .map(|_| {
            Origin::start(|_| {
                thread::sleep(Duration::from_millis(20));
                OK.into()
            })
        })
        .collect();
    let mut addresses = vec![slow.address()];
    addresses.extend(fast.iter().map(Origin::address));
    let site = Site::to(&addresses);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = site.connect();
                for _ in 0..100 {
                    assert_eq!(client.ask(&request("/", &[])).status, 200);
                }
            });
        }
    });
    let share = asked.load(Ordering::SeqCst);
    // The first of each client may, before anything is known; its share would be forty.
    assert!(share < 30, "{share} of 400 went to the slow one");
}

/// How many of `clients` that ask `target` again and again, until `stop`, were answered with 200, and how
/// many were not.
fn hammer(site: &Site, target: &str, clients: usize, stop: &AtomicBool) -> (usize, usize) {
    thread::scope(|scope| {
        let work = || {
            let (mut good, mut bad) = (0, 0);
            let mut client = site.connect();
            while !stop.load(Ordering::SeqCst) {
                let answer = client.ask(&request(target, &[]));
                *(if answer.status == 200 { &mut good } else { &mut bad }) += 1;
                if answer.header("connection") == Some("close") {
                    client = site.connect();
                }
            }
            (good, bad)
        };
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(work)).collect();
        let sums = threads.into_iter().map(|thread| thread.join().unwrap());
        sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    })
}

#[test]
fn at_overload_the_least_important_are_refused_and_the_critical_served() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let origin = Origin::start(move |request| {
        thread::sleep(Duration::from_millis(10));
        count.fetch_add(usize::from(request.target() == "/critical"), Ordering::SeqCst);
        OK.into()
    });
    let mut config = String::new();
    for priority in ["critical", "low"] {
        config += &format!(
            "[[listener.web.route]]\npath = \"/{priority}\"\nupstream = \"one\"\naccess = \"public\"\n\
             priority = \"{priority}\"\n"
        );
    }
    config += &format!(
        "[upstream.one]\nendpoints = [\"{}\"]\npool = {{ size = 2, queue = 100, shed = \"5ms\" }}\n",
        origin.address()
    );
    let site = Site::with_routes(&config);
    let stop = AtomicBool::new(false);
    let shed = || site.tieline.metric("tieline_shed_total{upstream=\"one\"}");
    let ((critical, failed), (_, refused)) = thread::scope(|scope| {
        let critical = scope.spawn(|| hammer(&site, "/critical", 2, &stop));
        let low = scope.spawn(|| hammer(&site, "/low", 24, &stop));
        let both = || shed() > 200.0 && asked.load(Ordering::SeqCst) > 20;
        let enough = wait_until(PATIENCE, both);
        stop.store(true, Ordering::SeqCst);
        assert!(enough, "{} were shed", shed());
        (critical.join().unwrap(), low.join().unwrap())
    });
    assert_eq!(failed, 0, "of {critical} critical requests");
    assert!(critical > 20 && refused >= 200, "{critical} critical ones, {refused} refused");
    site.await_reason("/low", "limit:shed");
    // A client may say that it is less important, and only that.
    let calm = || !upstream(&site)["shedding"].as_bool().unwrap();
    assert!(
        wait_until(PATIENCE, || {
            let _ = site.connect().ask(&request("/critical", &["Tieline-Priority: low"]));
            calm()
        }),
        "it never ends"
    );
}

#[test]
fn the_limit_follows_what_an_upstream_can_do() {
    // It does two things at once; the rest waits within it.
    let (turn, turns) = std::sync::mpsc::sync_channel::<()>(2);
    for _ in 0..2 {
        turn.send(()).unwrap();
    }
    #[allow(clippy::disallowed_types)]
    let turns = std::sync::Mutex::new(turns);
    let origin = Origin::start(move |_| {
        turns.lock().unwrap().recv().unwrap();
        thread::sleep(Duration::from_millis(10));
        turn.send(()).unwrap();
        OK.into()
    });
    let adaptive = "concurrency = \"adaptive\"\ntimeouts = { acquire = \"30s\" }";
    let site = Site::start(&OneRoute { upstream: adaptive, ..HTTP }.to(&[origin.address()]));
    let limit = || upstream(&site)["limit"].as_u64().unwrap();
    assert_eq!(limit(), 100);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // What is usual, first.
        let usual = scope.spawn(|| hammer(&site, "/", 2, &stop));
        let answered =
            || site.tieline.metric("tieline_exchanges_total{listener=\"web\",code=\"2xx\"}") >= 100.0;
        assert!(wait_until(PATIENCE, answered));
        let more = scope.spawn(|| hammer(&site, "/", 60, &stop));
        let fell = wait_until(PATIENCE, || limit() <= 25);
        stop.store(true, Ordering::SeqCst);
        assert_eq!((usual.join().unwrap().1, more.join().unwrap().1), (0, 0));
        assert!(fell, "it stays at {}", limit());
    });
}
