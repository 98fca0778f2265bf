//! A primary that dies, and a replica that takes its place.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use tieline_base::Clock;
use tieline_testkit::pg::Conversation;
use tieline_testkit::{PATIENCE, Postgres, Tieline, free_port, loopback, wait_until};

use super::pooler::{Setup, tieline_config};
use crate::arguments::Options;
use crate::figure::milliseconds;
use crate::machine;
use crate::scenario::managed;
use crate::table::{JUDGED, Table, Verdict};

const CLIENTS: usize = 40;
/// Far fewer than clients: most of them wait when the primary dies.
const SIZE: usize = 4;
/// How long everything goes well before it does not, and again afterwards.
const CALM: Duration = Duration::from_secs(2);

pub(crate) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    managed::only_with_tieline(options, measure)
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    written: usize,
    errors: Vec<String>,
    longest: Duration,
}

fn measure(_options: &Options) -> anyhow::Result<Vec<Table>> {
    let mut primary = Postgres::start_with(&[("max_wal_senders", "4")]);
    primary.query("create table written (client int, turn int)");
    let replica = primary.replica(&[]);
    let address = loopback(free_port());
    let endpoints = [primary.address(), replica.address()].map(|at| at.to_string());
    let config = tieline_config(address, &endpoints, &Setup::of(SIZE));
    let tieline = Tieline::start_from(&machine::tieline_binary()?, &config);
    let over = AtomicBool::new(false);
    let mut without = Duration::ZERO;
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let client = |client| write_on(address, client, &over);
        let clients: Vec<_> = (0..CLIENTS).map(|at| scope.spawn(move || client(at))).collect();
        std::thread::sleep(CALM); // the length of a measurement, not a wait
        let began = Clock::now();
        primary.process().kill_all();
        replica.promote();
        without = Clock::now().since(began);
        let writes = || replica.query("select count(*) from written").parse::<usize>().unwrap_or(0);
        let before = writes();
        let again = wait_until(PATIENCE, || writes() > before + CLIENTS);
        std::thread::sleep(CALM); // as above
        over.store(true, Ordering::Relaxed);
        let seen: Vec<Seen> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
        ensure!(again, "nobody writes after the failover; its log:\n{}", tieline.log());
        Ok(seen)
    })?;
    Ok(vec![judged(&seen, without)])
}

/// Writes one row after the other, each a transaction.
fn write_on(address: SocketAddr, client: usize, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut conversation = Conversation::log_in(address, "postgres", "postgres");
    while !over.load(Ordering::Relaxed) {
        let began = Clock::now();
        let sql = format!("insert into written values ({client}, {})", seen.written);
        let said = conversation.query(&sql);
        seen.longest = seen.longest.max(Clock::now().since(began));
        match said.iter().find(|message| message.kind == b'E') {
            None if said.last().is_some_and(|last| last.kind == b'Z') => seen.written += 1,
            error => {
                seen.errors.push(format!("{error:?}"));
                if said.last().is_none_or(|last| last.kind != b'Z') {
                    conversation = Conversation::log_in(address, "postgres", "postgres");
                }
            }
        }
    }
    seen
}

fn judged(seen: &[Seen], without: Duration) -> Table {
    let title =
        format!("kill -9 of the primary, its replica promoted ({CLIENTS} clients over {SIZE} servers)");
    let mut table = Table::new(title, &JUDGED);
    let written: usize = seen.iter().map(|one| one.written).sum();
    let errors: Vec<&String> = seen.iter().flat_map(|one| &one.errors).collect();
    let longest = seen.iter().map(|one| one.longest).max().unwrap_or_default();
    table.judge("rows written", written.to_string(), "", Verdict::None);
    table.judge("no primary for", format!("{:.0} ms", milliseconds(without)), "", Verdict::None);
    table.judge("the longest wait", format!("{:.0} ms", milliseconds(longest)), "", Verdict::None);
    // Those whose transaction was on the server that died cannot be told what became of it.
    let verdict = Verdict::holds(errors.len() <= SIZE);
    table.judge("clients with an error", errors.len().to_string(), "≤ those being served: 4", verdict);
    for error in errors.iter().take(SIZE * 2) {
        table.judge("", (*error).clone(), "", Verdict::None);
    }
    table
}
