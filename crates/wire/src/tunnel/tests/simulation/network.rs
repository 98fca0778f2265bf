//! Carriers with delay, rate and holes. Each lane of a carrier keeps order; lanes overtake each other.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use tieline_base::Moment;

use crate::tunnel::Exporter;

/// One pipe of bytes, or a pipe for each stream beside one for control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Pipe,
    Lanes,
}

/// The lane of control frames, and of all in a [`Kind::Pipe`].
pub(super) const CONTROL: u64 = 0;

/// From here on each lane is a datagram's, which nothing keeps in order.
pub(super) const LOOSE: u64 = 1 << 32;

/// How much a sender may be ahead of what the carrier takes: the kernel's queue.
const AHEAD: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) kind: Kind,
    pub(super) exporter: Exporter,
    /// Nothing arrives any more.
    pub(super) cut: bool,
    lanes: [BTreeMap<u64, Moment>; 2],
    free_at: [Moment; 2],
}

/// Nothing sent by `from` (by anybody, if `None`) gets through.
#[derive(Debug)]
struct Hole {
    from: Option<usize>,
    begin: Moment,
    end: Moment,
}

#[derive(Debug)]
pub(super) struct Network {
    pub(super) carriers: Vec<Carrier>,
    holes: Vec<Hole>,
    latency: Duration,
    jitter_us: u64,
    bytes_per_ms: u64,
}

impl Network {
    pub(super) fn new(random: &mut Rng) -> Self {
        Self {
            carriers: Vec::new(),
            holes: Vec::new(),
            latency: Duration::from_millis(random.u64(0..120)),
            jitter_us: random.u64(1..30_000),
            bytes_per_ms: 1 << random.u32(4..12),
        }
    }

    pub(super) fn latency(&self) -> Duration {
        self.latency
    }

    pub(super) fn carrier(&mut self, random: &mut Rng) -> usize {
        let mut exporter = [0; 32];
        random.fill(&mut exporter);
        self.carriers.push(Carrier {
            kind: if random.bool() { Kind::Pipe } else { Kind::Lanes },
            exporter: Exporter(exporter),
            cut: false,
            lanes: Default::default(),
            free_at: Default::default(),
        });
        self.carriers.len() - 1
    }

    /// Swallows what `from` sends, or all, for so long.
    pub(super) fn dig(&mut self, from: Option<usize>, now: Moment, length: Duration) {
        self.holes.push(Hole { from, begin: now, end: now.after(length) });
    }

    /// Until when nothing from `from` gets through, if that is so now.
    pub(super) fn swallowed(&self, from: usize, now: Moment) -> Option<Moment> {
        let swallows = |hole: &&Hole| {
            hole.from.is_none_or(|whose| whose == from) && (hole.begin..hole.end).contains(&now)
        };
        self.holes.iter().filter(swallows).map(|hole| hole.end).max()
    }

    /// Whether `from` may give the carrier more.
    pub(super) fn has_room(&self, carrier: usize, from: usize, now: Moment) -> bool {
        self.carriers[carrier].free_at[from] <= now.after(AHEAD)
    }

    pub(super) fn free_at(&self, carrier: usize, from: usize) -> Moment {
        self.carriers[carrier].free_at[from]
    }

    /// When `length` bytes given to a lane now arrive: what falls into a hole is sent again behind it.
    pub(super) fn arrival(
        &mut self,
        (carrier, from, lane): (usize, usize, u64),
        length: usize,
        now: Moment,
        random: &mut Rng,
    ) -> Moment {
        let start = self.carriers[carrier].free_at[from].max(now);
        let free_at = start.after(Duration::from_nanos(length as u64 * 1_000_000 / self.bytes_per_ms));
        let mut sent = free_at;
        while let Some(end) = self.swallowed(from, sent) {
            sent = end.after(Duration::from_millis(random.u64(0..1000)));
        }
        let jitter = Duration::from_micros(random.u64(0..self.jitter_us));
        let last = self.carriers[carrier].lanes[from].entry(lane).or_default();
        *last = sent.after(self.latency + jitter).max(Moment(last.0 + 1));
        let arrival = *last;
        self.carriers[carrier].free_at[from] = free_at;
        arrival
    }
}
