//! An emulated path: two network namespaces, this one and a new one, joined by two TUN devices with this
//! process in between. What it does to packets it does to TCP as well: the kernel's own emulator
//! (`tc … netem`) is not in every kernel. Needs root, `ip` and `/dev/net/tun`.
//!
//! What becomes of a packet follows from a seed and its number, one direction at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tieline_base::{Clock, Moment};
use tieline_testkit::{finish, program};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::road::Place;

/// What the path does to packets; may be changed while it is used.
#[derive(Default)]
pub(super) struct Conditions {
    /// One way, in microseconds.
    pub(super) delay_us: AtomicU64,
    /// Of a million packets, how many are lost.
    pub(super) lost_ppm: AtomicU32,
    /// Of a million packets, how many arrive twice.
    pub(super) doubled_ppm: AtomicU32,
    /// Of a million packets, how many are overtaken: they take [`OVERTAKEN`] longer.
    pub(super) overtaken_ppm: AtomicU32,
    /// Nothing gets through, from the near side and from the far side.
    pub(super) swallows: [AtomicBool; 2],
    /// No datagram of UDP gets through.
    pub(super) without_udp: AtomicBool,
    /// By how much a NAT moves the far side's ports of UDP, as the near side sees them.
    pub(super) rebound: AtomicU16,
}

const OVERTAKEN: Duration = Duration::from_millis(5);

/// What waits on the way, at most; more is dropped, as a router does.
const QUEUE: usize = 4096;

/// Longer than any packet here.
const PACKET_MAX: usize = 2048;

/// The two ends, and what is between them.
pub(super) struct Path {
    pub(super) conditions: Arc<Conditions>,
    name: String,
    subnet: u8,
    far_host: u8,
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Path {
    /// A path that does nothing to packets. `number` tells those of one process apart.
    pub(super) fn open(number: u8, seed: u64) -> anyhow::Result<Path> {
        let name = format!("tlb{}-{number}", std::process::id());
        let (near, far) = (format!("tln{number}"), format!("tlf{number}"));
        let devices = [device(&near)?, device(&far)?];
        let mut path = Path {
            conditions: Arc::default(),
            name,
            subnet: number,
            far_host: 2,
            ending: Arc::default(),
            threads: Vec::new(),
        };
        ip(&["netns", "add", &path.name])?;
        ip(&["link", "set", &far, "netns", &path.name])?;
        ip(&["addr", "add", &format!("{}/24", path.near()), "dev", &near])?;
        ip(&["link", "set", &near, "up"])?;
        for words in [
            vec!["addr", "add", &format!("{}/24", path.far()), "dev", &far],
            vec!["link", "set", &far, "up"],
            vec!["link", "set", "lo", "up"],
        ] {
            path.ip_there(&words)?;
        }
        let devices = devices.map(Arc::new);
        for from in 0..2 {
            let lane = Lane {
                from: devices[from].clone(),
                to: devices[1 - from].clone(),
                direction: from,
                conditions: path.conditions.clone(),
                ending: path.ending.clone(),
                random: Random::new(seed.wrapping_mul(2).wrapping_add(from as u64 + 1)),
                coming: BinaryHeap::new(),
                count: 0,
            };
            path.threads.push(std::thread::spawn(move || lane.run()));
        }
        Ok(path)
    }

    /// The near end's address.
    pub(super) fn near(&self) -> IpAddr {
        Ipv4Addr::new(10, 213, self.subnet, 1).into()
    }

    /// The far end's address.
    pub(super) fn far(&self) -> IpAddr {
        Ipv4Addr::new(10, 213, self.subnet, self.far_host).into()
    }

    /// The far side, for a road.
    pub(super) fn place(&self) -> Place {
        let tool = ["ip", "netns", "exec", &self.name].map(str::to_owned).to_vec();
        Place { tool, near: self.near() }
    }

    /// Does `act` with the far side's network: what listens from there on listens there.
    pub(super) fn there<T: Send>(&self, act: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let file = std::fs::File::open(format!("/var/run/netns/{}", self.name)).context("the namespace")?;
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))?;
                Ok::<_, rustix::io::Errno>(act())
            });
            there.join().expect("what is done there does not panic").context("moving into the namespace")
        })
    }

    /// The far side gets another address; what went by the old one is lost.
    pub(super) fn change_address(&mut self) -> anyhow::Result<()> {
        let (device, old) = (format!("tlf{}", self.subnet), self.far());
        self.far_host = if self.far_host == 250 { 2 } else { self.far_host + 1 };
        // In this order: with the first address of a network the kernel takes away all others of it.
        self.ip_there(&["addr", "del", &format!("{old}/24"), "dev", &device])?;
        self.ip_there(&["addr", "add", &format!("{}/24", self.far()), "dev", &device])
    }

    /// The far side's device goes down and comes up again.
    pub(super) fn restart_network(&self) -> anyhow::Result<()> {
        let device = format!("tlf{}", self.subnet);
        self.ip_there(&["link", "set", &device, "down"])?;
        std::thread::sleep(Duration::from_millis(500)); // for so long it is down
        self.ip_there(&["link", "set", &device, "up"])
    }

    fn ip_there(&self, words: &[&str]) -> anyhow::Result<()> {
        ip(&[&["-n", &self.name], words].concat())
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.ending.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
        let _ = ip(&["netns", "del", &self.name]); // it goes with the machine at the latest
    }
}

/// Something that lives at the far side, and ends there: what it says to itself at its end goes by that
/// side's network.
pub(super) struct There<'p, T: Send> {
    path: &'p Path,
    what: Option<T>,
}

impl<'p, T: Send> There<'p, T> {
    pub(super) fn begin(
        path: &'p Path,
        begin: impl FnOnce() -> std::io::Result<T> + Send,
    ) -> anyhow::Result<Self> {
        Ok(There { path, what: Some(path.there(begin)??) })
    }

    pub(super) fn get(&self) -> &T {
        self.what.as_ref().expect("it is taken in drop alone")
    }
}

impl<T: Send> Drop for There<'_, T> {
    fn drop(&mut self) {
        let what = self.what.take();
        let _ = self.path.there(move || drop(what)); // the namespace lives as long as the path does
    }
}

fn device(name: &str) -> anyhow::Result<SyncDevice> {
    let device = DeviceBuilder::new().name(name).build_sync().context("a TUN device; are we root?")?;
    device.set_nonblocking(true)?;
    Ok(device)
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let done = finish(Command::new(program("ip")).args(words));
    anyhow::ensure!(done.success(), "ip {}: {}", words.join(" "), done.stderr.trim());
    Ok(())
}

/// One direction.
struct Lane {
    from: Arc<SyncDevice>,
    to: Arc<SyncDevice>,
    direction: usize,
    conditions: Arc<Conditions>,
    ending: Arc<AtomicBool>,
    random: Random,
    /// By when they arrive, and in which order they came.
    coming: BinaryHeap<Reverse<(Moment, u64, Vec<u8>)>>,
    count: u64,
}

impl Lane {
    fn run(mut self) {
        let mut packet = vec![0; PACKET_MAX];
        while !self.ending.load(Relaxed) {
            self.wait();
            while let Ok(length) = self.from.recv(&mut packet) {
                self.take(&packet[..length]);
            }
            self.deliver();
        }
    }

    /// Until a packet comes or one is due, but never for long: somebody may end us.
    fn wait(&self) {
        let longest = Duration::from_millis(50);
        let due = self.coming.peek().map(|Reverse((due, ..))| due.since(Clock::now()));
        let wait = due.unwrap_or(longest).min(longest);
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        let _ = poll(&mut [PollFd::new(&*self.from, PollFlags::IN)], Some(&timeout)); // looked at anyway
    }

    fn take(&mut self, packet: &[u8]) {
        let is =
            |ppm: &AtomicU32, random: &mut Random| random.next() % 1_000_000 < u64::from(ppm.load(Relaxed));
        let conditions = self.conditions.clone();
        let swallowed = conditions.swallows[self.direction].load(Relaxed);
        let refused = conditions.without_udp.load(Relaxed) && is_udp(packet);
        if swallowed || refused || is(&conditions.lost_ppm, &mut self.random) || self.coming.len() > QUEUE {
            return;
        }
        let mut due = Clock::now().after(Duration::from_micros(conditions.delay_us.load(Relaxed)));
        if is(&conditions.overtaken_ppm, &mut self.random) {
            due = due.after(OVERTAKEN);
        }
        let mut packet = packet.to_vec();
        rebind(&mut packet, self.direction, conditions.rebound.load(Relaxed));
        let times = 1 + u64::from(is(&conditions.doubled_ppm, &mut self.random));
        for _ in 0..times {
            self.count += 1;
            self.coming.push(Reverse((due, self.count, packet.clone())));
        }
    }

    fn deliver(&mut self) {
        while let Some(Reverse((due, ..))) = self.coming.peek() {
            if *due > Clock::now() {
                return;
            }
            if let Some(Reverse((_, _, packet))) = self.coming.pop() {
                let _ = self.to.send(&packet); // a full queue there is a loss like any other
            }
        }
    }
}

/// RFC 791 §3.1, RFC 768: protocol 17.
fn is_udp(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 4) && packet.get(9) == Some(&17)
}

/// Moves the far side's port of a datagram, which has 0 for "no checksum" from then on (RFC 768).
fn rebind(packet: &mut [u8], direction: usize, by: u16) {
    let head = usize::from(packet.first().copied().unwrap_or(0) & 15) * 4;
    if by == 0 || !is_udp(packet) || packet.len() < head + 8 {
        return;
    }
    // From the far side it is the source, towards it the destination.
    let (at, moved): (usize, fn(u16, u16) -> u16) =
        if direction == FAR { (head, u16::wrapping_add) } else { (head + 2, u16::wrapping_sub) };
    let port = moved(u16::from_be_bytes([packet[at], packet[at + 1]]), by);
    packet[at..at + 2].copy_from_slice(&port.to_be_bytes());
    packet[head + 6..head + 8].fill(0);
}

/// The direction from the far side.
const FAR: usize = 1;

/// Marsaglia's xorshift64.
pub(super) struct Random(u64);

impl Random {
    /// By a seed; 0 is as good as any.
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
