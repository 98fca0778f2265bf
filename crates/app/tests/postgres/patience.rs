//! How long clients that hold a server may take.

use std::time::Duration;

use tieline_testkit::pg::{Conversation, Message, frontend};
use tieline_testkit::{PATIENCE, wait_until};

use crate::house::Server;
use crate::pooling::tieline;

fn pool(timeouts: &str) -> String {
    format!("{{ mode = \"transaction\", size = 1 }}\ntimeouts = {{ {timeouts} }}")
}

fn log_in(at: std::net::SocketAddr) -> Conversation {
    Conversation::log_in(at, "postgres", "postgres")
}

/// The code and the text of the error among `messages`.
fn error(messages: &[Message]) -> Option<(String, String)> {
    let error = messages.iter().find(|message| message.kind == b'E')?;
    Some((error.field(b'C'), error.field(b'M')))
}

#[test]
fn a_query_that_takes_too_long_is_cancelled_and_its_client_goes_on() {
    let server = Server::start();
    let (tieline, address) = tieline(&server, &pool("query = \"4s\""));
    let mut client = log_in(address);
    let (code, text) = error(&client.query("select pg_sleep(60)")).unwrap();
    assert_eq!((&*code, &*text), ("57014", "canceling statement due to query timeout"));
    assert_eq!(client.value("select 1"), "1");
    let told = || tieline.cli(["show", "1"]).stdout;
    assert!(told().contains("its query took longer than `timeouts.query`"), "{}", told());
    // Each query has its own time, however many there are, and a transaction may last.
    client.query("begin");
    for _ in 0..3 {
        assert!(error(&client.query("select pg_sleep(1.5)")).is_none());
    }
    assert!(error(&client.query("commit")).is_none());
}

#[test]
fn rows_that_trickle_in_do_not_make_a_query_any_younger() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, &pool("query = \"4s\""));
    let mut client = log_in(address);
    // Each row is longer than what a server collects before it sends.
    let trickle =
        "select repeat('x', 20000) from generate_series(1, 1000) n where pg_sleep(0.02) is not null";
    let answer = client.query(trickle);
    assert!(answer.iter().filter(|message| message.kind == b'D').count() > 1);
    assert_eq!(error(&answer).unwrap().0, "57014");
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn who_is_silent_in_a_transaction_is_sent_away_and_the_server_serves_others() {
    let server = Server::start();
    let (tieline, address) = tieline(&server, &pool("idle_in_transaction = \"200ms\""));
    let (mut silent, mut other) = (log_in(address), log_in(address));
    let held = silent.value("begin; insert into dest values (1, 'x'); select pg_backend_pid()");
    other.send(&frontend::query("select pg_backend_pid() || ' ' || count(*) from dest")).unwrap();
    let last = silent.until(b'E').unwrap();
    assert_eq!(error(&last).unwrap().0, "25P03");
    assert!(silent.message().unwrap().is_none(), "it is closed");
    let answer = other.until(b'Z').unwrap();
    let row = answer.iter().find(|message| message.kind == b'D').unwrap();
    assert_eq!(row.columns()[0].as_deref(), Some(&*format!("{held} 0")), "the same server, rolled back");
    let ended = || tieline.cli(["show", "1"]).stdout;
    assert!(wait_until(PATIENCE, || ended().contains("timeout:idle-in-transaction")), "{}", ended());
}

#[test]
fn who_flushes_and_falls_silent_is_in_a_transaction_too() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, &pool("idle_in_transaction = \"200ms\""));
    let mut silent = log_in(address);
    let batch = [frontend::parse("", "select 1", &[]), frontend::bind("", "", &[], 0), frontend::flush()];
    silent.send(&batch.concat()).unwrap();
    let last = silent.until(b'E').unwrap();
    assert_eq!(error(&last).unwrap().0, "25P03");
    assert_eq!(log_in(address).value("select 1"), "1");
}

#[test]
fn a_transaction_that_lasts_too_long_is_over_however_busy_it_is() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, &pool("transaction = \"3s\""));
    let mut busy = log_in(address);
    assert!(error(&busy.query("begin; insert into dest values (1, 'x')")).is_none());
    let over = loop {
        let answer = busy.query("select pg_sleep(0.02)");
        if let Some(over) = error(&answer) {
            break over;
        }
        assert!(!answer.is_empty(), "it was told why before it was closed");
    };
    assert_eq!(over.0, "25P04");
    assert_eq!(server.ask("select count(*) from dest"), "0");
}

#[test]
fn who_keeps_a_server_without_a_word_is_sent_away() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, &pool("pinned = \"500ms\""));
    let (mut keeps, mut other) = (log_in(address), log_in(address));
    let held = keeps.value("create temp table own (a int); select pg_backend_pid()");
    assert_eq!(other.value("select 1"), "1");
    let last = keeps.until(b'E').unwrap();
    assert_eq!(error(&last).unwrap().0, "57P05");
    assert_eq!(other.value("select pg_backend_pid()"), held);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(other.value("select 1"), "1", "who keeps nothing may be silent");
}
