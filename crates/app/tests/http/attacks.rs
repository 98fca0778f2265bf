//! Every hostile request, through Tieline, to real servers: they see what was forwarded, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;

use tempfile::TempDir;
use tieline_testkit::{
    Apache, HttpAnswer, HttpConversation, Nginx, PATIENCE, free_port, loopback, wait_until,
};

use crate::hostile::{CANARY, Case, Fate, cases};
use crate::site::{HTTP, Site, request};
use crate::support::OneRoute;

/// A real server that writes down the first line of every request, and tells in each answer which it answers.
enum Server {
    Nginx { _nginx: Nginx, directory: TempDir, address: SocketAddr },
    Apache(Apache),
}

impl Server {
    fn nginx() -> Server {
        let (directory, address) = (tempfile::tempdir().unwrap(), loopback(free_port()));
        let log = directory.path().join("log");
        let format = "log_format lines escape=json '$request';";
        let answer = "add_header X-Answers $request_uri always; return 200 ok;";
        let server = format!("listen {address}; access_log {} lines; {answer}", log.display());
        let nginx = Nginx::http(&format!("{format} server {{ {server} }}"), address);
        Server::Nginx { _nginx: nginx, directory, address }
    }

    fn apache() -> Server {
        let answers = "Header always set X-Answers \"expr=%{THE_REQUEST}\"";
        Server::Apache(Apache::start(&format!("{answers}\nRewriteEngine on\nRewriteRule .* - [R=410]")))
    }

    fn address(&self) -> SocketAddr {
        match self {
            Server::Nginx { address, .. } => *address,
            Server::Apache(apache) => apache.address(),
        }
    }

    /// The first lines of all requests.
    fn lines(&self) -> Vec<String> {
        match self {
            Server::Nginx { directory, .. } => {
                let log: PathBuf = directory.path().join("log");
                let log = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
                log.lines().map(str::to_owned).collect()
            }
            Server::Apache(apache) => apache.access_log(),
        }
    }
}

/// What came of a case: an answer, if one came whole.
fn attack(site: &Site, case: &Case) -> Option<HttpAnswer> {
    let mut client = site.connect();
    // Tieline may close while it still is being sent.
    let _ = client.send(&case.bytes);
    if case.fate == Fate::Unfinished {
        client.finish();
    }
    client.answer("GET").ok()
}

/// Whether an answer is a server's, which say who they are; ours do not.
fn is_of_server(answer: &HttpAnswer) -> bool {
    answer.header("server").is_some()
}

fn check(case: &Case, answer: Option<&HttpAnswer>) {
    let shown = || format!("{}: {}", case.path, case.bytes[..case.bytes.len().min(300)].escape_ascii());
    match (case.fate, answer) {
        (Fate::Refused, Some(answer)) => {
            let refused = (400..=505).contains(&answer.status) && !is_of_server(answer);
            assert!(refused, "{}\n{}", shown(), answer.head);
        }
        // A reset may overtake the answer where the client still sends.
        (Fate::Refused, None) => assert!(case.bytes.len() > 60_000, "no answer: {}", shown()),
        (Fate::Forwarded, Some(answer)) => {
            assert!(is_of_server(answer), "{}\n{}", shown(), answer.head);
            assert!(answer.status < 500, "{}\n{}", shown(), answer.head);
        }
        (Fate::Forwarded, None) => panic!("no answer: {}", shown()),
        (Fate::Broken, Some(answer)) => assert!(answer.status >= 200, "{}\n{}", shown(), answer.head),
        (Fate::Unfinished, Some(answer)) => assert!(!is_of_server(answer), "{}\n{}", shown(), answer.head),
        (Fate::Broken | Fate::Unfinished, None) => {}
    }
    if let Some(answers) = answer.and_then(|answer| answer.header("x-answers")) {
        let own = answers.split([' ', '?']).any(|word| word.starts_with(&case.path));
        assert!(own, "it got another request's answer: {answers}\n{}", shown());
    }
}

/// A request of somebody else, who must get his own answer: nothing is left on upstream connections.
fn probe(client: &mut HttpConversation, at: usize) {
    let target = format!("/probe/{at}");
    let answer = client.ask(&request(&target, &[]));
    let answers = answer.header("x-answers").unwrap_or_else(|| panic!("{}", answer.head));
    assert!(answers.split(' ').any(|word| word == target), "{target} got the answer to {answers}");
}

/// How often each path was asked for; `/case/7/../x` counts as `/case/7`.
fn counts(lines: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let Some((_, rest)) = line.split_once("/case/") else { continue };
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        *counts.entry(format!("/case/{number}")).or_insert(0) += 1;
    }
    counts
}

fn hold_out(server: &Server) {
    let cases = cases();
    assert!(cases.len() >= 300, "only {} cases", cases.len());
    // What begins as HTTP/2 is none of these: `http2_hostile.rs` has its own.
    let timeouts = "http2 = false\ntimeouts = { request_head = \"5s\", body_gap = \"5s\", idle = \"60s\" }";
    let config = OneRoute { listener: timeouts, ..HTTP };
    let site = Site::start(&config.to(&[server.address()]));
    const THREADS: usize = 8;
    thread::scope(|scope| {
        for first in 0..THREADS {
            let (site, cases) = (&site, &cases);
            scope.spawn(move || {
                let mut somebody = site.connect();
                for at in (first..cases.len()).step_by(THREADS) {
                    check(&cases[at], attack(site, &cases[at]).as_ref());
                    probe(&mut somebody, at);
                }
            });
        }
    });
    let all_probed = || server.lines().iter().filter(|line| line.contains("/probe/")).count() == cases.len();
    // They write a line when they have answered.
    let forwarded = || {
        let seen = counts(&server.lines());
        cases.iter().filter(|case| case.fate == Fate::Forwarded).all(|case| seen.contains_key(&case.path))
    };
    assert!(wait_until(PATIENCE, || all_probed() && forwarded()), "every one is written down, once");
    judge(&cases, &server.lines());
}

/// The servers' own words: what was forwarded once is there once, and nothing else is.
fn judge(cases: &[Case], lines: &[String]) {
    assert!(!lines.iter().any(|line| line.contains(CANARY)), "a hidden request came through");
    let counts = counts(lines);
    let strange: BTreeSet<&String> =
        lines.iter().filter(|line| !line.contains("/case/") && !line.contains("/probe/")).collect();
    // The testkit connects once, and says nothing, to see that a server is there.
    assert!(strange.iter().all(|line| line.is_empty() || line.starts_with("\"-\"")), "{strange:#?}");
    for case in cases {
        let count = counts.get(&case.path).copied().unwrap_or(0);
        let allowed = match case.fate {
            Fate::Forwarded => 1..=1,
            Fate::Broken => 0..=1,
            Fate::Refused | Fate::Unfinished => 0..=0,
        };
        assert!(allowed.contains(&count), "{} times {}: {}", count, case.path, case.bytes.escape_ascii());
    }
}

#[test]
fn nginx_sees_only_what_was_forwarded() {
    hold_out(&Server::nginx());
}

#[test]
fn apache_sees_only_what_was_forwarded() {
    hold_out(&Server::apache());
}
