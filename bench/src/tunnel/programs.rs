//! Programs that people use, over a path that fails while they do: a scp of a large file, and a psql session
//! with a transaction open all the time.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path as File_;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, ensure};
use aws_lc_rs::digest::{Context as Digest, SHA256};
use tieline_base::Clock;
use tieline_testkit::{Postgres, Sshd, finish_within, wait_until};

use super::linkem::{Path, Random};
use super::oracle::hole;
use super::road::{Peer, Road};
use crate::arguments::Options;
use crate::table::{Table, Verdict};

const BYTES: usize = 1 << 30;
const DELAY_US: u64 = 10_000;
const CUTS: usize = 10;
const HOLE: Duration = Duration::from_secs(30);
/// After so long a carrier that says nothing is given up.
const SILENCE: Duration = Duration::from_secs(3);
/// Nobody waits longer for a copy, whatever became of it.
const LONGEST: Duration = Duration::from_secs(600);
/// How often somebody asks something in the session.
const ASKS_EVERY: Duration = Duration::from_millis(200);

pub(super) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let bytes = options.amount(BYTES);
    let title = format!(
        "A scp of {} MiB and a psql session: {CUTS} cuts, no UDP from the middle on, {} s of black hole",
        bytes >> 20,
        HOLE.as_secs()
    );
    let columns = ["Peer", "cuts", "scp", "MiB arrived", "took", "psql", "its answers", "Bar", "Verdict"];
    let mut table = Table::new(title, &columns);
    for peer in options.peers().into_iter().filter(|&peer| peer != Peer::SshLocal) {
        let seen = run_one(peer, bytes).with_context(|| peer.name())?;
        let ours = peer == Peer::Tieline;
        let lived = |lives: bool| if lives { "whole" } else { "broken" }.to_owned();
        let verdict = if ours { Verdict::holds(seen.copied && seen.session_lived) } else { Verdict::None };
        table.row([
            peer.name().to_owned(),
            seen.cuts.to_string(),
            lived(seen.copied),
            (seen.arrived >> 20).to_string(),
            format!("{:.0} s", seen.took.as_secs_f64()),
            lived(seen.session_lived),
            seen.answers.to_string(),
            if ours { "both whole".to_owned() } else { String::new() },
            verdict.to_string(),
        ]);
    }
    Ok(vec![table])
}

/// What became of both.
struct Seen {
    cuts: usize,
    /// Whether scp says so and both files have one SHA-256.
    copied: bool,
    arrived: u64,
    took: Duration,
    session_lived: bool,
    answers: u64,
}

fn run_one(peer: Peer, bytes: usize) -> anyhow::Result<Seen> {
    let mut path = Path::open(5, 5)?;
    path.conditions.delay_us.store(DELAY_US, Relaxed);
    let (sshd, postgres) = (Sshd::start(), Postgres::start());
    let services = [door(&path, sshd.address())?, door(&path, postgres.address())?];
    let road = Road::start(peer, &path.place(), &services)?;
    let folder = tempfile::tempdir()?;
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    write_random(&from, bytes)?;
    let mut scp = sshd.scp(road.services[0]);
    scp.arg(&from).arg(format!("server:{}", to.display()));
    let begin = Clock::now();
    let through = AtomicBool::new(false);
    let arrived = || fs::metadata(&to).map_or(0, |file| file.len());
    let mut seen = std::thread::scope(|scope| {
        let session = scope.spawn(|| talk(road.services[1], &through));
        let copy = scope.spawn(|| {
            let finished = finish_within(LONGEST, &mut scp);
            (finished.success(), Clock::now().since(begin))
        });
        let faults = script(&mut path, bytes as u64, &arrived, &|| copy.is_finished());
        let (said_so, took) = copy.join().expect("scp is waited for");
        through.store(true, Relaxed);
        let (session_lived, answers) = session.join().expect("the session does not panic")?;
        anyhow::Ok(Seen { cuts: faults?, copied: said_so, arrived: arrived(), took, session_lived, answers })
    })?;
    seen.copied = seen.copied && digest(&from)? == digest(&to)?;
    Ok(seen)
}

/// An address of the far side that leads to `to`, a server of this side: whatever starts programs may do so
/// here alone.
fn door(path: &Path, to: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = path.there(|| TcpListener::bind("127.0.0.1:0"))??;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for far in listener.incoming() {
            if let (Ok(far), Ok(near)) = (far, TcpStream::connect(to)) {
                std::thread::spawn(move || join(&far, &near));
            }
        }
    });
    Ok(address)
}

/// Both directions, until each has said its end.
fn join(one: &TcpStream, other: &TcpStream) {
    let carry = |mut from: &TcpStream, mut to: &TcpStream| {
        let ended = std::io::copy(&mut from, &mut to).is_ok();
        // What broke on one side breaks on the other, and an end stays an end.
        let _ = to.shutdown(if ended { Shutdown::Write } else { Shutdown::Both });
    };
    std::thread::scope(|scope| {
        scope.spawn(|| carry(one, other));
        carry(other, one);
    });
}

/// Ten cuts spread over the copy, a long hole before the fourth, no UDP from the sixth on; how many cuts
/// there were before the copy had ended.
fn script(
    path: &mut Path,
    bytes: u64,
    arrived: &dyn Fn() -> u64,
    over: &dyn Fn() -> bool,
) -> anyhow::Result<usize> {
    for cut in 0..CUTS {
        let due = bytes * (cut as u64 + 1) / (CUTS as u64 + 2);
        ensure!(wait_until(LONGEST, || arrived() >= due || over()), "the copy neither goes on nor ends");
        if over() {
            return Ok(cut);
        }
        match cut {
            3 => hole(path, [true, true], HOLE),
            5 => path.conditions.without_udp.store(true, Relaxed),
            _ => {}
        }
        // Another address is the end of every connection of TCP, silence that of one over QUIC.
        if cut % 2 == 0 { path.change_address()? } else { hole(path, [true, true], SILENCE) }
    }
    Ok(CUTS)
}

/// One psql with one transaction, asked again and again until `through`; whether it lived to tell all that
/// it was told, and how many answers there were.
fn talk(at: SocketAddr, through: &AtomicBool) -> anyhow::Result<(bool, u64)> {
    let mut psql = Postgres::tool("psql", at);
    psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]);
    let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (Some(mut asks), Some(answers)) = (psql.stdin.take(), psql.stdout.take()) else {
        anyhow::bail!("psql has neither input nor output");
    };
    let mut lines = BufReader::new(answers).lines();
    let mut ask = |sql: String| {
        writeln!(asks, "{sql}").ok()?;
        lines.next()?.ok()
    };
    let (mut count, mut sum) = (0, 0);
    let mut lives = ask("begin; create temporary table kept (n bigint); select 0;".to_owned()).is_some();
    while lives && !through.load(Relaxed) {
        let next = count + 1;
        lives = ask(format!("insert into kept values ({next}) returning n;")) == Some(next.to_string());
        if lives {
            (count, sum) = (next, sum + next);
        }
        std::thread::sleep(ASKS_EVERY); // a person reads what was answered
    }
    let all = ask("select count(*) || ' ' || coalesce(sum(n), 0) from kept; commit;".to_owned());
    drop(asks);
    let ended = psql.wait()?.success();
    Ok((lives && ended && all == Some(format!("{count} {sum}")), count))
}

fn write_random(file: &File_, bytes: usize) -> anyhow::Result<()> {
    let (mut file, mut random) = (File::create(file)?, Random::new(9));
    let mut piece = vec![0; 1 << 20];
    for _ in 0..bytes.div_ceil(piece.len()) {
        piece.chunks_exact_mut(8).for_each(|eight| eight.copy_from_slice(&random.next().to_le_bytes()));
        file.write_all(&piece)?;
    }
    Ok(())
}

fn digest(file: &File_) -> anyhow::Result<Vec<u8>> {
    let (mut file, mut digest) = (File::open(file)?, Digest::new(&SHA256));
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(digest.finish().as_ref().to_vec()),
            length => digest.update(&piece[..length]),
        }
    }
}
