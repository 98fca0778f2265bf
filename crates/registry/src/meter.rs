//! What is counted for each listener, route and upstream. Names live here once, shared by all their rows.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use tieline_base::{Reason, WorkerId};

use crate::histogram::{Histogram, HistogramReading, add};

/// A listener as rows name it. Lives as long as the process, so that its counters survive reloads.
#[derive(Debug)]
pub struct ListenerRow {
    /// Its name in the config.
    pub name: Box<str>,
    /// What its bytes mean.
    pub protocol: &'static str,
    /// What happened at it.
    pub meter: Meter,
    logged: AtomicU8,
}

/// What the access log gets a line for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Logged {
    /// Each exchange by itself, and connections that came to none.
    Exchanges,
    /// Connections as a whole.
    Connections,
    /// Nothing.
    Nothing,
}

impl ListenerRow {
    /// A listener at which nothing has happened yet, under a table for `workers` workers. Its exchanges are
    /// logged.
    pub(crate) fn new(name: &str, protocol: &'static str, workers: usize) -> Self {
        let logged = AtomicU8::new(Logged::Exchanges as u8);
        Self { name: name.into(), protocol, meter: Meter::new(workers), logged }
    }

    /// What of it is logged from now on.
    pub fn log(&self, what: Logged) {
        self.logged.store(what as u8, Relaxed);
    }

    /// Whether the end of each exchange is logged by itself.
    pub fn logs_exchanges(&self) -> bool {
        self.logged.load(Relaxed) == Logged::Exchanges as u8
    }

    /// Whether the end of a connection, which carried so many exchanges and is inside another one or not, is
    /// logged.
    pub fn logs_connection(&self, exchanges: u32, inside: bool) -> bool {
        let logged = self.logged.load(Relaxed);
        logged == Logged::Exchanges as u8 && exchanges == 0 || logged == Logged::Connections as u8 && !inside
    }
}

/// A route as rows name it, in the words of the config that compiled it.
#[derive(Debug)]
pub struct RouteRow {
    /// Its name, unique within its listener.
    pub name: Box<str>,
    /// What makes it the same route over reloads: its name if the config gives it one, else what it takes. A
    /// name that is made up may be another route's after a reload.
    pub identity: Box<str>,
    /// The rule that let its connections in, and that rule's place in the config.
    pub rule: Box<str>,
    /// What its live connections may still take when its schedule closes or a reload removes it.
    pub grace: Duration,
    /// Where it leads; `None` if it answers itself.
    pub upstream: Option<std::sync::Arc<UpstreamRow>>,
}

impl RouteRow {
    /// The name of the upstream that it leads to.
    pub fn upstream_name(&self) -> Option<&str> {
        self.upstream.as_ref().map(|upstream| &*upstream.name)
    }
}

/// An upstream as rows name it.
#[derive(Debug)]
pub struct UpstreamRow {
    /// Its name in the config.
    pub name: Box<str>,
    cells: PerWorker<Waits>,
    mirrored: [AtomicU64; Mirrored::ALL.len()],
}

/// What became of a copy of an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mirrored {
    /// It was answered, in whatever way.
    Answered,
    /// It was not.
    Failed,
    /// It was not sent, because too many others were on their way.
    Dropped,
    /// It was not sent, because what it copies was too large, or did not come whole.
    TooLarge,
}

impl Mirrored {
    /// Every one.
    pub const ALL: [Mirrored; 4] =
        [Mirrored::Answered, Mirrored::Failed, Mirrored::Dropped, Mirrored::TooLarge];

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mirrored::Answered => "answered",
            Mirrored::Failed => "failed",
            Mirrored::Dropped => "dropped",
            Mirrored::TooLarge => "too-large",
        }
    }
}

#[derive(Debug, Default)]
struct Waits {
    acquire: Histogram,
    connect: Histogram,
}

impl UpstreamRow {
    pub(crate) fn new(name: &str, workers: usize) -> Self {
        Self { name: name.into(), cells: PerWorker::new(workers), mirrored: Default::default() }
    }

    /// Counts what became of a copy that was to be sent there.
    pub fn mirrored(&self, outcome: Mirrored) {
        self.mirrored[outcome as usize].fetch_add(1, Relaxed);
    }

    /// How often each outcome was, in the order of [`Mirrored::ALL`].
    pub fn mirrors(&self) -> [u64; Mirrored::ALL.len()] {
        std::array::from_fn(|at| self.mirrored[at].load(Relaxed))
    }

    /// Counts how long a connection was in *acquire*, its waiting and every try counted in.
    pub fn acquired(&self, worker: WorkerId, after: Duration) {
        self.cells.of(worker).acquire.record(after);
    }

    /// Counts how long one successful connect took.
    pub fn connected(&self, worker: WorkerId, after: Duration) {
        self.cells.of(worker).connect.record(after);
    }

    /// The time in *acquire* and the time to connect, over all workers.
    pub fn waits(&self) -> (HistogramReading, HistogramReading) {
        let mut sums = (HistogramReading::default(), HistogramReading::default());
        for cell in self.cells.iter() {
            cell.acquire.add_to(&mut sums.0);
            cell.connect.add_to(&mut sums.1);
        }
        sums
    }
}

/// Counters of one listener. Each worker has its own cells: no worker waits for another's cache line.
#[derive(Debug)]
pub struct Meter(PerWorker<Cells>);

#[derive(Debug, Default)]
struct Cells {
    opened: AtomicU64,
    closed: Counts,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    streams_opened: AtomicU64,
    streams_closed: AtomicU64,
    lifetime: Histogram,
    /// By the first digit of their status code; 0 for those without one.
    exchanges: [AtomicU64; STATUS_CLASSES],
    exchange: Histogram,
}

/// The first digits that a status code may have, and 0 for none.
const STATUS_CLASSES: usize = 6;

#[derive(Debug)]
struct Counts([AtomicU64; Reason::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Reason::ALL.len()])
    }
}

/// What a [`Meter`] held when it was read, over all workers.
#[derive(Clone, Debug, Default)]
pub struct MeterReading {
    /// Connections accepted.
    pub opened: u64,
    /// Connections ended, by reason, in the order of [`Reason::ALL`].
    pub closed: Vec<u64>,
    /// Bytes from clients to upstreams, of connections that have ended.
    pub bytes_up: u64,
    /// Bytes from upstreams to clients, of connections that have ended.
    pub bytes_down: u64,
    /// Streams opened: rows that are part of connections.
    pub streams_opened: u64,
    /// Streams that have ended.
    pub streams_closed: u64,
    /// How long connections lived.
    pub lifetime: HistogramReading,
    /// Exchanges of connections that carry many, by the first digit of their status code; 0 for none.
    pub exchanges: [u64; STATUS_CLASSES],
    /// How long such exchanges took.
    pub exchange: HistogramReading,
}

impl Meter {
    pub(crate) fn new(workers: usize) -> Self {
        Self(PerWorker::new(workers))
    }

    /// Counts a connection, or a stream, which is part of one.
    pub(crate) fn opened(&self, worker: WorkerId, stream: bool) {
        let cells = self.0.of(worker);
        add(if stream { &cells.streams_opened } else { &cells.opened }, 1);
    }

    pub(crate) fn stream_closed(&self, worker: WorkerId) {
        add(&self.0.of(worker).streams_closed, 1);
    }

    pub(crate) fn closed(&self, worker: WorkerId, reason: Reason, up: u64, down: u64, lifetime: Duration) {
        let cells = self.0.of(worker);
        add(&cells.closed.0[reason as usize], 1);
        add(&cells.bytes_up, up);
        add(&cells.bytes_down, down);
        cells.lifetime.record(lifetime);
    }

    pub(crate) fn exchanged(&self, worker: WorkerId, status: Option<u16>, took: Duration) {
        let cells = self.0.of(worker);
        let class = usize::from(status.unwrap_or(0) / 100).min(STATUS_CLASSES - 1);
        add(&cells.exchanges[class], 1);
        cells.exchange.record(took);
    }

    /// The sums over all workers.
    pub fn read(&self) -> MeterReading {
        let mut sum = MeterReading { closed: vec![0; Reason::ALL.len()], ..MeterReading::default() };
        for cells in self.0.iter() {
            sum.opened += cells.opened.load(Relaxed);
            sum.bytes_up += cells.bytes_up.load(Relaxed);
            sum.bytes_down += cells.bytes_down.load(Relaxed);
            sum.streams_opened += cells.streams_opened.load(Relaxed);
            sum.streams_closed += cells.streams_closed.load(Relaxed);
            for (total, count) in sum.closed.iter_mut().zip(&cells.closed.0) {
                *total += count.load(Relaxed);
            }
            cells.lifetime.add_to(&mut sum.lifetime);
            for (total, count) in sum.exchanges.iter_mut().zip(&cells.exchanges) {
                *total += count.load(Relaxed);
            }
            cells.exchange.add_to(&mut sum.exchange);
        }
        sum
    }
}

#[derive(Debug)]
struct PerWorker<T>(Box<[CachePadded<T>]>);

impl<T: Default> PerWorker<T> {
    fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| CachePadded::default()).collect())
    }

    fn of(&self, worker: WorkerId) -> &T {
        &self.0[usize::from(worker.0)]
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|cell| &**cell)
    }
}
