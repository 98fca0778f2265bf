//! Connections to endpoints at rest: for how long, by what endpoints say and do.

use std::thread::sleep;
use std::time::Duration;

use tieline_testkit::{HttpConversation, PATIENCE, TcpServer, wait_until};

use crate::origin::OK;
use crate::site::{HTTP, Site, request};
use crate::support::OneRoute;

/// An origin that answers with what `answer` makes of a number: which request it is, counted over all.
fn origin(answer: impl Fn(usize) -> String + Send + Sync + 'static) -> TcpServer {
    let count = std::sync::atomic::AtomicUsize::new(0);
    TcpServer::scripted(move |stream| {
        let mut client = HttpConversation::over(stream.try_clone()?);
        while client.request()?.is_some() {
            client.send(answer(count.fetch_add(1, std::sync::atomic::Ordering::SeqCst)))?;
        }
        Ok(())
    })
}

#[test]
fn an_origin_that_was_restarted_once_is_not_taken_for_one_that_closes_early() {
    let origin = origin(|_| OK.into());
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    assert_eq!(client.ask(&request("/", &[])).status, 200);
    // It has rested for long enough to look like a habit.
    sleep(Duration::from_millis(300));
    origin.reset_all();
    assert!(wait_until(PATIENCE, || origin.open() == 0));
    for at in 0..4 {
        assert_eq!(client.ask(&request(&format!("/{at}"), &[])).status, 200);
        sleep(Duration::from_millis(1_500));
    }
    assert_eq!(origin.accepted(), 2, "the one before the restart, and one behind it");
}

#[test]
fn what_an_origin_says_last_of_how_long_it_waits_counts() {
    let origin = origin(|at| {
        let seconds = if at == 0 { 1 } else { 60 };
        format!("HTTP/1.1 200 OK\r\nKeep-Alive: timeout={seconds}\r\nContent-Length: 2\r\n\r\nok")
    });
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    for accepted in [1, 2, 2] {
        assert_eq!(client.ask(&request("/", &[])).status, 200);
        assert_eq!(origin.accepted(), accepted);
        sleep(Duration::from_millis(1_100));
    }
}

#[test]
fn connections_that_change_their_workers_are_known_to_be_closed() {
    // Each connection ends behind its fifth answer, which does not say so.
    let origin = TcpServer::scripted(|stream| {
        let mut client = HttpConversation::over(stream.try_clone()?);
        for _ in 0..5 {
            if client.request()?.is_some() {
                client.send(OK)?;
            }
        }
        Ok(())
    });
    // More workers than there are cores here, and fewer connections than workers: these go from hand to hand.
    for pool in ["", "pool = { size = 3 }"] {
        let config = OneRoute { server: "workers = 8", upstream: pool, ..HTTP };
        let site = Site::start(&config.to(&[origin.address()]));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut client = site.connect();
                    (0..40)
                        .for_each(|at| assert_eq!(client.ask(&request(&format!("/{at}"), &[])).status, 200));
                });
            }
        });
    }
}
