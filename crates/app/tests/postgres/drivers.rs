//! The drivers that programs use, through Tieline: what they do every day goes as it does without.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tieline_testkit::{finish, program};

use crate::house::Server;
use crate::proxied::{Mode, before};

/// Fewer servers than the probes have clients.
const POOL: usize = 5;
/// The distribution's own, which has its packages.
const PYTHON: &str = "/usr/bin/python3";

#[test]
fn psycopg_works_in_session_mode() {
    probe(Mode::Session, 40, &python("psycopg_probe.py"));
}

#[test]
fn psycopg_works_in_transaction_mode() {
    probe(Mode::Transaction, POOL, &python("psycopg_probe.py"));
}

#[test]
fn asyncpg_works_in_session_mode() {
    probe(Mode::Session, 40, &python("asyncpg_probe.py"));
}

#[test]
fn asyncpg_works_in_transaction_mode() {
    probe(Mode::Transaction, POOL, &python("asyncpg_probe.py"));
}

#[test]
fn node_postgres_works_in_session_mode() {
    probe(Mode::Session, 40, &node());
}

#[test]
fn node_postgres_works_in_transaction_mode() {
    probe(Mode::Transaction, POOL, &node());
}

#[test]
fn pgbench_works_in_every_manner() {
    let server = Server::start();
    server.postgres.pgbench(server.address(), &["-i", "-q"]).expect("pgbench -i");
    for mode in [Mode::Session, Mode::Transaction] {
        let (_tieline, address) = before(&server, mode, if mode == Mode::Session { 20 } else { POOL });
        for manner in ["simple", "extended", "prepared"] {
            // It prepares while it waits for nothing else: in transactions of several statements it would
            // wait for a server that another client of the same thread holds.
            let prepared: &[&str] = if manner == "prepared" { &["-S"] } else { &[] };
            for more in [&["-t", "40"][..], &["-t", "4", "-C"]] {
                let arguments = [&["-n", "-M", manner, "-c", "16", "-j", "2"], more, prepared].concat();
                let said = server.postgres.pgbench(address, &arguments).expect(manner);
                assert!(
                    said.contains("number of failed transactions: 0 (0.000%)"),
                    "{mode:?} {manner}: {said}"
                );
            }
        }
    }
}

/// A probe: the program and its arguments before those that say where the server is.
struct Probe(PathBuf, PathBuf);

fn python(script: &str) -> Probe {
    Probe(PYTHON.into(), scripts().join(script))
}

fn node() -> Probe {
    Probe(program("node"), scripts().join("node_probe.js"))
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres/drivers")
}

/// Where `./test` unpacks node-postgres: beside what cargo builds.
fn modules() -> String {
    let me = std::env::current_exe().unwrap();
    let unpacked = me.ancestors().nth(3).unwrap().join("node-postgres/usr/share/nodejs");
    assert!(unpacked.is_dir(), "{} is missing; ./test unpacks it", unpacked.display());
    unpacked.display().to_string()
}

#[track_caller]
fn probe(mode: Mode, size: usize, probe: &Probe) {
    let server = Server::start();
    let (_tieline, address) = before(&server, mode, size);
    let said = run(probe, address);
    let wrong: Vec<&str> = said.lines().filter(|line| !line.ends_with(" well")).collect();
    assert!(wrong.is_empty() && said.lines().count() > 8, "{wrong:#?} of\n{said}");
}

fn run(probe: &Probe, address: SocketAddr) -> String {
    let mut command = Command::new(&probe.0);
    command.arg(&probe.1).args([&address.ip().to_string(), &address.port().to_string()]);
    command.args(["postgres", "postgres"]);
    if probe.1.extension().is_some_and(|extension| extension == "js") {
        command.env("NODE_PATH", modules());
    }
    finish(&mut command).expect("the probe")
}
