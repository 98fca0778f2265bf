//! Every checked-in input through its target, and some thousand mutations of them: the same ones in every
//! run.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use fastrand::Rng;
use tieline_fuzz::{TARGETS, Target};

const MUTATIONS: usize = 20_000;
const LENGTH_MAX: usize = 2048;

/// Bytes that parsers care about.
const TELLING: &[u8] = b"\0\x01\x7f\x80\xff\r\n :./\"'[]{}=<>%\t\x16\x03";

#[test]
fn the_corpus_keeps_every_promise() {
    for (name, target) in TARGETS {
        for (file, input) in corpus(name) {
            run(target, &input, &file);
        }
    }
}

#[test]
fn config_survives_mutation() {
    mutate("config", MUTATIONS);
}

#[test]
fn filter_survives_mutation() {
    mutate("filter", MUTATIONS);
}

#[test]
fn greeting_survives_mutation() {
    mutate("greeting", MUTATIONS);
}

#[test]
fn hello_survives_mutation() {
    mutate("hello", MUTATIONS);
}

#[test]
fn http_chunks_survives_mutation() {
    mutate("http_chunks", MUTATIONS);
}

#[test]
fn http_request_survives_mutation() {
    mutate("http_request", MUTATIONS);
}

#[test]
fn http_response_survives_mutation() {
    mutate("http_response", MUTATIONS);
}

#[test]
fn http_target_survives_mutation() {
    mutate("http_target", MUTATIONS);
}

#[test]
fn openapi_survives_mutation() {
    mutate("openapi", MUTATIONS);
}

#[test]
fn postgres_answers_survives_mutation() {
    mutate("postgres_answers", MUTATIONS);
}

#[test]
fn postgres_login_survives_mutation() {
    mutate("postgres_login", MUTATIONS);
}

#[test]
fn postgres_messages_survives_mutation() {
    mutate("postgres_messages", MUTATIONS);
}

#[test]
fn postgres_sql_survives_mutation() {
    mutate("postgres_sql", MUTATIONS);
}

#[test]
fn postgres_startup_survives_mutation() {
    mutate("postgres_startup", MUTATIONS);
}

#[test]
fn proxy_survives_mutation() {
    mutate("proxy", MUTATIONS);
}

#[test]
fn tunnel_frame_survives_mutation() {
    mutate("tunnel_frame", MUTATIONS);
}

#[test]
fn tunnel_link_survives_mutation() {
    mutate("tunnel_link", MUTATIONS);
}

#[test]
fn websocket_survives_mutation() {
    mutate("websocket", MUTATIONS);
}

#[test]
fn every_corpus_folder_has_a_target() {
    let mut folders: Vec<String> = folder("")
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort_unstable();
    assert_eq!(folders, TARGETS.map(|(name, _)| name));
}

/// More than the usual count, where somebody has time for that.
fn mutations(usual: usize) -> usize {
    let asked = std::env::var("TIELINE_MUTATIONS").ok();
    asked.map_or(usual, |count| count.parse().expect("a number"))
}

fn mutate(name: &str, mutations: usize) {
    let mutations = self::mutations(mutations);
    let (_, target) = TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
    let corpus: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, input)| input).collect();
    let mut random = Rng::with_seed(0x7161_1e11);
    for number in 0..mutations {
        let mut input = corpus[random.usize(..corpus.len())].clone();
        for _ in 0..random.usize(1..5) {
            edit(&mut input, &corpus, &mut random);
        }
        input.truncate(LENGTH_MAX);
        run(target, &input, &format!("{name}: mutation {number}"));
    }
}

/// One random change: a bit, a byte, a part gone, doubled, or taken from another input.
fn edit(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Rng) {
    let at = random.usize(..=input.len());
    let end = at + random.usize(..=(input.len() - at).min(32));
    let telling = TELLING[random.usize(..TELLING.len())];
    match random.u8(..7) {
        0 if at < input.len() => input[at] ^= 1 << random.u8(..8),
        1 if at < input.len() => input[at] = telling,
        2 => input.insert(at, telling),
        3 => drop(input.drain(at..end)),
        4 => {
            let part = input[at..end].to_vec();
            input.splice(at..at, part);
        }
        5 => {
            let other = &corpus[random.usize(..corpus.len())];
            let from = random.usize(..=other.len());
            let part = other[from..(from + random.usize(..64)).min(other.len())].to_vec();
            input.splice(at..end, part);
        }
        _ => input.truncate(at),
    }
}

fn run(target: Target, input: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        panic!("{what} broke a promise; as a corpus file: printf '{}'", input.escape_ascii());
    }
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let files = folder(name).read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> =
        files.map(|file| (file.display().to_string(), std::fs::read(&file).unwrap())).collect();
    inputs.sort_unstable();
    assert!(!inputs.is_empty(), "no corpus for {name}");
    inputs
}

fn folder(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "corpus", name].iter().collect()
}
