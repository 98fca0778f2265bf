//! The primary is lost while everybody writes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{PATIENCE, usage, wait_until};

use crate::replicas::Pair;

const CLIENTS: usize = 12;

/// What one client went through.
#[derive(Default)]
struct Story {
    written: AtomicUsize,
    /// Of what it asked when the primary was gone already.
    errors: AtomicUsize,
}

/// What all of them go by.
#[derive(Default)]
struct Signs {
    lost: AtomicBool,
    stop: AtomicBool,
}

/// Writes until it is told to stop. Whoever is cut off logs in anew.
fn write(at: std::net::SocketAddr, story: &Story, signs: &Signs) {
    let log_in = || Conversation::log_in(at, "app", "postgres");
    let mut client = log_in();
    while !signs.stop.load(Ordering::SeqCst) {
        let lost = signs.lost.load(Ordering::SeqCst);
        let sent = client.send(&frontend::query("insert into t values (1) returning n"));
        let told = sent.and_then(|()| client.until(b'Z')).unwrap_or_default();
        let is_whole = told.last().is_some_and(|last| last.kind == b'Z');
        if told.iter().any(|message| message.kind == b'D') {
            story.written.fetch_add(1, Ordering::Relaxed);
        } else if lost {
            story.errors.fetch_add(1, Ordering::Relaxed);
        }
        if !is_whole {
            client = log_in();
        }
    }
}

#[test]
fn a_primary_that_is_lost_under_load_costs_nobody_more_than_was_under_way() {
    let more = "user = \"postgres\"\npool = { size = 6 }\nreplicas = { every = \"100ms\" }";
    let mut pair = Pair::of(&["create table t (n int)"], "", more);
    let (stories, signs) = (Vec::from_iter((0..CLIENTS).map(|_| Story::default())), Signs::default());
    let address = pair.address;
    thread::scope(|scope| {
        for story in &stories {
            scope.spawn(|| write(address, story, &signs));
        }
        let all_have = |count: usize| {
            wait_until(PATIENCE, || stories.iter().all(|it| it.written.load(Ordering::Relaxed) >= count))
        };
        let begun = all_have(10);
        let family = usage::tree(pair.primary.process().pid());
        pair.primary.process().kill();
        let gone = wait_until(PATIENCE, || !family.iter().any(usage::Member::is_alive));
        signs.lost.store(true, Ordering::SeqCst);
        let acquiring =
            || pair.tieline.cli(["ls", "stage=acquire", "--json"]).stdout.matches("\"acquire\"").count();
        let wait = wait_until(PATIENCE, || acquiring() == CLIENTS);
        pair.replica.promote();
        let before = stories.iter().map(|it| it.written.load(Ordering::Relaxed)).max().unwrap_or_default();
        let went_on = all_have(before + 10);
        // Before anything is judged: whoever is not told to stop never does.
        signs.stop.store(true, Ordering::SeqCst);
        assert!(begun && gone && wait && went_on, "{}", pair.tieline.log());
    });
    let errors: Vec<_> = stories.iter().map(|it| it.errors.load(Ordering::Relaxed)).collect();
    assert_eq!(errors, [0; CLIENTS], "{}", pair.tieline.log());
}
