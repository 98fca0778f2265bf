//! Listing, and what the relay feels of it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tieline_base::{Clock, Moment};
use tieline_testkit::{PATIENCE, Tieline, wait_until};

use super::managed::{self, Site};
use crate::arguments::Options;
use crate::backend::Echo;
use crate::crowd::Crowd;
use crate::figure::{median, milliseconds, percentile};
use crate::machine;
use crate::table::{JUDGED, Table, Verdict};

const ROWS: usize = 20_000;
const LISTINGS: usize = 20;
const BAR_MS: f64 = 200.0;
const STALL_MAX: f64 = 2.0;
/// Echoes are due at this distance whatever became of the last one: a stall is felt by all that fall into it.
const PROBE_EVERY: Duration = Duration::from_millis(1);
const BASELINE: Duration = Duration::from_secs(4);
/// Ports behind one backend address run out at 28,000 connections.
const BACKEND_PORTS: usize = 2;

pub(crate) fn run(arguments: &Options) -> anyhow::Result<Vec<Table>> {
    let echo = Echo::start(BACKEND_PORTS)?;
    let probed = Site::new("probed", echo.addresses());
    let relayed = Site::new("relayed", echo.addresses());
    let mut waiting = Site::new("waiting", echo.addresses());
    waiting.upstream = "pool = { size = 1, queue = 100000 }\ntimeouts = { acquire = \"1h\" }\n";
    let tieline = managed::start(&[probed.clone(), relayed.clone(), waiting.clone()])?;
    let (rows, relay) = divide(arguments.amount(ROWS), machine::sockets_max());
    let crowd = (Crowd::gather(relayed.bind, relay)?, Crowd::line_up(waiting.bind, rows - relay)?);
    let are_listed = || tieline.cli(["ls"]).stdout.lines().count() >= rows;
    ensure!(wait_until(PATIENCE, are_listed), "tieline ls does not show all of {rows} connections");

    let baseline = probe_during(probed.bind, || std::thread::sleep(BASELINE))?.1;
    let (took, during) = probe_during(probed.bind, || list(&tieline, rows))?;
    let took_ms = took?;
    drop(crowd);

    let title = format!("tieline ls, {rows} rows ({relay} relayed, the others waiting), {LISTINGS} times");
    let mut table = Table::new(title, &JUDGED);
    let slowest = percentile(&took_ms, 100.0);
    let figure = format!("{:.0} ms, {slowest:.0} ms", median(&took_ms));
    table.judge(
        "the command: median, slowest",
        figure,
        "median < 200 ms",
        Verdict::at_most(median(&took_ms), BAR_MS),
    );
    let (calm, busy) = (percentile(&baseline, 99.0), percentile(&during, 99.0));
    let figure = format!("{calm:.3} ms → {busy:.3} ms ({:.2} ×)", busy / calm);
    table.judge(
        "p99 of an echo: baseline → meanwhile",
        figure,
        "< 2 ×",
        Verdict::at_most(busy / calm, STALL_MAX),
    );
    let (calm, busy) = (percentile(&baseline, 100.0), percentile(&during, 100.0));
    table.judge("longest echo", format!("{calm:.2} ms → {busy:.2} ms"), "", Verdict::None);
    Ok(vec![table])
}

/// How many rows of those `wanted` fit into `sockets` of a process, and how many of them are relayed. One
/// that is relayed takes two sockets, one that waits for a place takes one: where the limit of files is
/// low, most wait.
fn divide(wanted: usize, sockets: usize) -> (usize, usize) {
    let rows = wanted.min(sockets - sockets / 100);
    (rows, rows.min(sockets - rows))
}

/// How long each listing took, in milliseconds.
fn list(tieline: &Tieline, rows: usize) -> anyhow::Result<Vec<f64>> {
    let list_once = |_| {
        let begin = Clock::now();
        let said = tieline.cli(["ls"]);
        let took = milliseconds(Clock::now().since(begin));
        ensure!(said.success(), "tieline ls: {}", said.stderr);
        let lines = said.stdout.lines().count();
        ensure!(lines >= rows, "tieline ls shows {lines} lines of {rows} connections");
        Ok(took)
    };
    (0..LISTINGS).map(list_once).collect()
}

/// Echoes through `proxy` while `work` runs; what the work gave, and the milliseconds of each echo.
pub(crate) fn probe_during<T>(proxy: SocketAddr, work: impl FnOnce() -> T) -> anyhow::Result<(T, Vec<f64>)> {
    probe_each(PROBE_EVERY, proxy, work)
}

/// [`probe_during`] with an echo due at another distance. One that takes longer than that delays the next
/// ones, and they are timed from when they were due.
pub(crate) fn probe_each<T>(
    every: Duration,
    proxy: SocketAddr,
    work: impl FnOnce() -> T,
) -> anyhow::Result<(T, Vec<f64>)> {
    let mut connection = TcpStream::connect(proxy)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    echo(&mut connection)?; // the road is open before the clock runs
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let probing = scope.spawn(|| probe(&mut connection, every, &done));
        let given = work();
        done.store(true, Ordering::Relaxed);
        let latencies = probing.join().expect("probing does not panic").context("the echo probe failed")?;
        Ok((given, latencies))
    })
}

/// One echo is due `every` so often; it is timed from when it was due.
fn probe(connection: &mut TcpStream, every: Duration, done: &AtomicBool) -> io::Result<Vec<f64>> {
    let (mut latencies, mut due) = (Vec::new(), Clock::now());
    while !done.load(Ordering::Relaxed) {
        wait_for_moment(due);
        echo(connection)?;
        latencies.push(milliseconds(Clock::now().since(due)));
        due = due.after(every);
    }
    Ok(latencies)
}

fn wait_for_moment(due: Moment) {
    let early = due.since(Clock::now());
    if !early.is_zero() {
        std::thread::sleep(early);
    }
}

fn echo(connection: &mut TcpStream) -> io::Result<()> {
    connection.write_all(&[b'x'; 64])?;
    connection.read_exact(&mut [0; 64])
}

#[cfg(test)]
mod tests {
    use super::divide;

    #[test]
    fn rows_wait_where_sockets_are_few() {
        assert_eq!(divide(20_000, 60_000), (20_000, 20_000));
        assert_eq!(divide(20_000, 30_000), (20_000, 10_000));
        assert_eq!(divide(20_000, 19_600), (19_404, 196));
    }
}
