//! Listing, and what the relay feels of it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tieline_base::{Clock, Moment};
use tieline_testkit::Tieline;

use super::managed::{self, Site};
use crate::arguments::Tcp;
use crate::backend::Echo;
use crate::crowd::Crowd;
use crate::figure::{median, milliseconds, percentile};
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

pub(crate) fn run(arguments: &Tcp) -> anyhow::Result<Vec<Table>> {
    let echo = Echo::start(BACKEND_PORTS)?;
    let site = Site::new("crowd", echo.addresses());
    let probed = Site::new("probed", echo.addresses());
    let tieline = managed::start(&[site.clone(), probed.clone()])?;
    let rows = arguments.amount(ROWS);
    let crowd = Crowd::gather(site.bind, rows)?;

    let baseline = probe_during(probed.bind, || std::thread::sleep(BASELINE))?.1;
    let (took, during) = probe_during(probed.bind, || list(&tieline, rows))?;
    let took_ms = took?;
    drop(crowd);

    let mut table = Table::new(format!("tieline ls, {rows} rows, {LISTINGS} times"), &JUDGED);
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
fn probe_during<T>(proxy: SocketAddr, work: impl FnOnce() -> T) -> anyhow::Result<(T, Vec<f64>)> {
    let mut connection = TcpStream::connect(proxy)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    echo(&mut connection)?; // the road is open before the clock runs
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let probing = scope.spawn(|| probe(&mut connection, &done));
        let given = work();
        done.store(true, Ordering::Relaxed);
        let latencies = probing.join().expect("probing does not panic").context("the echo probe failed")?;
        Ok((given, latencies))
    })
}

/// One echo is due each [`PROBE_EVERY`]; it is timed from when it was due.
fn probe(connection: &mut TcpStream, done: &AtomicBool) -> io::Result<Vec<f64>> {
    let (mut latencies, mut due) = (Vec::new(), Clock::now());
    while !done.load(Ordering::Relaxed) {
        wait_for_moment(due);
        echo(connection)?;
        latencies.push(milliseconds(Clock::now().since(due)));
        due = due.after(PROBE_EVERY);
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
