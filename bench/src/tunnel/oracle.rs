//! The oracle on real sockets: random bytes both ways under a hash, over a path that fails by a script.
//!
//! Every run has namespaces, a path and a road of its own, and a seed from which its script follows.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use aws_lc_rs::digest::{self, SHA256};
use tieline_base::{Clock, Moment};

use super::linkem::{Path, Random};
use super::road::{Peer, Road};
use crate::arguments::Options;
use crate::figure::percentile;
use crate::table::{Table, Verdict};

const RUNS: usize = 30;
/// Peers show what the script does to them; they need not show it thirty times.
const RUNS_OF_PEERS: usize = 6;
const AT_ONCE: usize = 6;
/// So long the script goes on.
const SCRIPT: Duration = Duration::from_secs(25);
/// In one run of [`RUNS`] the network is gone for half a minute, in one for a minute and a half.
const LONG_HOLES: [(usize, u64); 2] = [(4, 30), (9, 90)];
/// No read or write takes longer unless the stream is lost.
const STUCK: Duration = Duration::from_secs(110);
const STREAMS: usize = 4;

/// What became of the streams of one run.
#[derive(Default)]
struct Seen {
    whole: usize,
    broken: usize,
    /// Ended in order, with other bytes than were sent.
    wrong: usize,
    bytes: u64,
    /// The longest that a stream stood still.
    pauses_s: Vec<f64>,
    faults: usize,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    let title = format!(
        "Random bytes both ways under SHA-256, half-closed at the end, over a path that fails every 1 to 5 s \
         ({STREAMS} streams a run, 10 ms one way)"
    );
    let columns = [
        "Peer",
        "runs",
        "faults",
        "streams whole",
        "broken",
        "wrong",
        "MiB",
        "longest pause",
        "Bar",
        "Verdict",
    ];
    let mut table = Table::new(title, &columns);
    for peer in options.peers().into_iter().filter(|&peer| peer != Peer::SshLocal) {
        let ours = peer == Peer::Tieline;
        let runs = options.amount(if ours { RUNS } else { RUNS_OF_PEERS }).max(AT_ONCE);
        let seen = run_all(peer, runs)?;
        let longest = percentile(&seen.pauses_s, 100.0);
        let verdict = if ours { Verdict::holds(seen.whole == STREAMS * runs) } else { Verdict::None };
        table.row([
            peer.name().to_owned(),
            runs.to_string(),
            seen.faults.to_string(),
            seen.whole.to_string(),
            seen.broken.to_string(),
            seen.wrong.to_string(),
            format!("{:.1}", seen.bytes as f64 / (1 << 20) as f64),
            format!("{longest:.0} s"),
            if ours { "all whole".to_owned() } else { String::new() },
            verdict.to_string(),
        ]);
    }
    Ok(vec![table])
}

fn run_all(peer: Peer, runs: usize) -> anyhow::Result<Seen> {
    let next = AtomicUsize::new(0);
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        for lane in 0..AT_ONCE.min(runs) {
            let (next, tell) = (&next, tell.clone());
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= runs {
                        return;
                    }
                    let one = run_one(peer, lane as u8 + 10, seed);
                    if let Ok(Seen { broken, wrong, .. }) = &one
                        && broken + wrong > 0
                    {
                        eprintln!("{}, seed {seed}: {broken} streams broken, {wrong} wrong", peer.name());
                    }
                    let _ = tell.send(one.with_context(|| format!("seed {seed}"))); // read below
                }
            });
        }
    });
    drop(tell);
    let mut all = Seen::default();
    for one in told {
        let one = one?;
        all.whole += one.whole;
        all.broken += one.broken;
        all.wrong += one.wrong;
        all.bytes += one.bytes;
        all.faults += one.faults;
        all.pauses_s.extend(one.pauses_s);
    }
    Ok(all)
}

fn run_one(peer: Peer, lane: u8, seed: usize) -> anyhow::Result<Seen> {
    let mut path = Path::open(lane, seed as u64 + 1)?;
    path.conditions.delay_us.store(10_000, Relaxed);
    let listener = path.there(|| TcpListener::bind("127.0.0.1:0"))??;
    let road = Road::start(peer, &path.place(), &[listener.local_addr()?])?;
    let enough = AtomicBool::new(false);
    let mut random = Random::new(seed as u64 + 77);
    std::thread::scope(|scope| {
        let talks: Vec<_> = (0..STREAMS)
            .map(|at| {
                let (near, far) = pair(road.services[0], &listener, at as u8)?;
                let shape = Shape::of(at);
                let enough = &enough;
                Ok(scope.spawn(move || converse(&near, &far, shape, seed * STREAMS + at, enough)))
            })
            .collect::<anyhow::Result<_>>()?;
        let faults = script(&mut path, seed, &mut random);
        enough.store(true, Relaxed);
        let mut seen = Seen { faults: faults?, ..Seen::default() };
        for talk in talks {
            let told = talk.join().expect("a conversation does not panic");
            seen.pauses_s.push(told.pause_s);
            seen.bytes += told.bytes;
            match told.whole {
                Some(true) => seen.whole += 1,
                Some(false) => seen.wrong += 1,
                None => seen.broken += 1,
            }
        }
        Ok(seen)
    })
}

/// Both ends of a stream: who connects says which it is.
fn pair(service: SocketAddr, listener: &TcpListener, number: u8) -> anyhow::Result<(TcpStream, TcpStream)> {
    let mut near = TcpStream::connect(service)?;
    near.write_all(&[number])?;
    // A road that looked whether it is ready has left connections without a word.
    loop {
        let (mut far, _) = listener.accept()?;
        far.set_read_timeout(Some(STUCK))?;
        let mut said = [0];
        if far.read(&mut said)? == 1 {
            anyhow::ensure!(said[0] == number, "streams are mixed up");
            for end in [&near, &far] {
                end.set_read_timeout(Some(STUCK))?;
                end.set_write_timeout(Some(STUCK))?;
            }
            return Ok((near, far));
        }
    }
}

/// Does what the script says; answers how many faults there were.
fn script(path: &mut Path, seed: usize, random: &mut Random) -> anyhow::Result<usize> {
    let (begin, mut faults) = (Clock::now(), 0);
    if let Some((_, seconds)) = LONG_HOLES.iter().find(|(at, _)| *at == seed) {
        hole(path, [true, true], Duration::from_secs(*seconds));
        faults += 1;
    }
    while Clock::now().since(begin) < SCRIPT {
        std::thread::sleep(Duration::from_millis(1000 + random.next() % 4000)); // the script's own pace
        faults += 1;
        let conditions = &path.conditions;
        match random.next() % 10 {
            0..=2 => path.change_address()?,
            3 => path.restart_network()?,
            4 => hole(path, [true, true], Duration::from_secs(3)),
            5 => hole(path, [true, false], Duration::from_secs(3)),
            6 => hole(path, [false, true], Duration::from_secs(3)),
            7 => conditions.without_udp.store(random.next() & 1 == 0, Relaxed),
            8 => conditions.rebound.store((random.next() % 1000) as u16, Relaxed),
            _ => {
                conditions.lost_ppm.store((random.next() % 30_000) as u32, Relaxed);
                conditions.doubled_ppm.store((random.next() % 30_000) as u32, Relaxed);
                conditions.overtaken_ppm.store((random.next() % 30_000) as u32, Relaxed);
            }
        }
    }
    path.conditions.lost_ppm.store(0, Relaxed);
    Ok(faults)
}

/// Nothing gets through that way for so long.
pub(super) fn hole(path: &Path, from: [bool; 2], length: Duration) {
    let set =
        |to: [bool; 2]| path.conditions.swallows.iter().zip(to).for_each(|(it, to)| it.store(to, Relaxed));
    set(from);
    std::thread::sleep(length); // the script's own pace
    set([false; 2]);
}

/// How a stream is used.
#[derive(Clone, Copy)]
struct Shape {
    piece_max: u64,
    pause: Duration,
    /// The reader takes little at a time, and waits in between.
    slow: bool,
    /// The near end says nothing, and ends its half at once.
    listens: bool,
}

impl Shape {
    fn of(number: usize) -> Shape {
        let ms = Duration::from_millis;
        let plain = Shape { piece_max: 16 << 10, pause: ms(10), slow: false, listens: false };
        match number {
            0 => plain,
            1 => Shape { piece_max: 1, pause: ms(3), ..plain },
            2 => Shape { slow: true, ..plain },
            _ => Shape { listens: true, ..plain },
        }
    }
}

struct Told {
    /// Whether all arrived; `None` if the stream broke.
    whole: Option<bool>,
    bytes: u64,
    pause_s: f64,
}

fn converse(near: &TcpStream, far: &TcpStream, shape: Shape, seed: usize, enough: &AtomicBool) -> Told {
    let at_once = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let up_until = if shape.listens { &at_once } else { enough };
        let up = scope.spawn(move || talk(near, shape, seed as u64 * 2 + 1, up_until));
        let down = scope.spawn(move || talk(far, shape, seed as u64 * 2 + 2, enough));
        let heard_up = scope.spawn(move || listen(far, shape.slow));
        let heard_down = listen(near, shape.slow);
        let mut told = Told { whole: Some(true), bytes: 0, pause_s: 0.0 };
        for (said, heard) in [(up, heard_up.join()), (down, Ok(heard_down))] {
            match (said.join().expect("talking does not panic"), heard.expect("listening does not panic")) {
                (Ok(said), Ok(heard)) => {
                    told.whole = told.whole.map(|whole| whole && said == heard.digest);
                    told.bytes += heard.bytes;
                    told.pause_s = told.pause_s.max(heard.pause_s);
                }
                _ => told.whole = None,
            }
        }
        told
    })
}

fn talk(mut to: &TcpStream, shape: Shape, seed: u64, enough: &AtomicBool) -> io::Result<Vec<u8>> {
    let (mut random, mut hash) = (Random::new(seed), digest::Context::new(&SHA256));
    while !enough.load(Relaxed) {
        let length = 1 + (random.next() % shape.piece_max) as usize;
        let piece: Vec<u8> = std::iter::repeat_with(|| random.next() as u8).take(length).collect();
        hash.update(&piece);
        to.write_all(&piece)?;
        std::thread::sleep(shape.pause);
    }
    to.shutdown(Shutdown::Write)?;
    Ok(hash.finish().as_ref().to_vec())
}

struct Heard {
    digest: Vec<u8>,
    bytes: u64,
    pause_s: f64,
}

fn listen(mut from: &TcpStream, slow: bool) -> io::Result<Heard> {
    let (mut hash, mut bytes, mut pause) = (digest::Context::new(&SHA256), 0, Duration::ZERO);
    let mut piece = vec![0; if slow { 700 } else { 64 << 10 }];
    let mut last: Moment = Clock::now();
    loop {
        let length = from.read(&mut piece)?;
        let now = Clock::now();
        pause = pause.max(now.since(last));
        if length == 0 {
            let digest = hash.finish().as_ref().to_vec();
            return Ok(Heard { digest, bytes, pause_s: pause.as_secs_f64() });
        }
        hash.update(&piece[..length]);
        bytes += length as u64;
        if slow {
            std::thread::sleep(Duration::from_millis(1));
        }
        last = Clock::now();
    }
}
