//! How often and how many at once: limits of requests by whom they come from, by what they say, and by route.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tieline_base::{ClientAddr, Clock, Fault, Moment, Rate, Reason, Stage, Whose};
use tieline_registry::Tally;

use super::gcra::{Gcra, KEYS, Table};
use crate::site::Ask;

/// A limit of requests in time. Lives as long as the config has it as it is.
#[derive(Debug)]
pub struct RateLimit {
    per: Per,
    rate: Gcra,
    table: Table,
    /// In the words of the config, for stories.
    told: Box<str>,
    refused: Arc<Tally>,
}

/// What a rate is counted by.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Per {
    /// The client: an IPv4 address, or an IPv6 /64, which is what one site is given.
    Ip,
    /// All requests together.
    Route,
    /// The value of this field; requests without it are counted by their client.
    Header(String),
}

impl RateLimit {
    /// A limit of `rate`, `burst` at once, which counts what it refuses.
    pub fn new(per: Per, rate: Rate, burst: u32, refused: Arc<Tally>) -> Self {
        let keys = if per == Per::Route { 1 } else { KEYS };
        let per_ns = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let by = match &per {
            Per::Ip => "client",
            Per::Route => "route",
            Per::Header(name) => name,
        };
        let told = format!("more than {rate} by {by}, {burst} at once").into();
        Self { rate: Gcra::new(rate.events, per_ns, burst), table: Table::new(keys), per, told, refused }
    }

    fn ask(&self, ask: &Ask<'_>, client: ClientAddr, now: Moment, charge: bool) -> Result<(), u64> {
        let by_client = |key: Key<'_>| self.table.ask(self.rate, key.bytes(), now, charge);
        match &self.per {
            Per::Route => self.table.ask(self.rate, b"", now, charge),
            Per::Ip => by_client(Key::of(client)),
            Per::Header(name) => {
                let mut verdict = None;
                (ask.header)(name, &mut |value| {
                    verdict = Some(self.table.ask(self.rate, value, now, charge));
                    true
                });
                verdict.unwrap_or_else(|| by_client(Key::of(client)))
            }
        }
    }
}

/// A client as a key.
enum Key<'k> {
    V4([u8; 4]),
    V6([u8; 8]),
    Other(&'k [u8]),
}

impl Key<'_> {
    fn of(client: ClientAddr) -> Self {
        match client.ip().map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(v4)) => Key::V4(v4.octets()),
            Some(IpAddr::V6(v6)) => Key::V6(((v6.to_bits() >> 64) as u64).to_be_bytes()),
            None => Key::Other(b"unix"),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Key::V4(bytes) => bytes,
            Key::V6(bytes) => bytes,
            Key::Other(bytes) => bytes,
        }
    }
}

/// Asks all of `limits`: what one of them refuses counts for none of them.
pub(super) fn ask(limits: &[Arc<RateLimit>], ask: &Ask<'_>, client: ClientAddr) -> Option<Refused> {
    let now = Clock::now();
    if limits.len() > 1 {
        for limit in limits {
            if let Err(early_ns) = limit.ask(ask, client, now, false) {
                return Some(limit.refuse(early_ns));
            }
        }
    }
    limits.iter().find_map(|limit| limit.ask(ask, client, now, true).err().map(|early| limit.refuse(early)))
}

impl RateLimit {
    fn refuse(&self, early_ns: u64) -> Refused {
        self.refused.add();
        Refused { status: 429, retry_after: Duration::from_nanos(early_ns), told: self.told.clone() }
    }
}

/// A request that comes too early, or beside too many others.
#[derive(Debug, thiserror::Error)]
#[error("{told}")]
pub(crate) struct Refused {
    pub(super) status: u16,
    pub(super) retry_after: Duration,
    told: Box<str>,
}

impl Refused {
    pub(super) fn fault(self) -> Fault {
        let reason = if self.status == 429 { Reason::LimitRate } else { Reason::LimitConcurrent };
        Fault::new(Stage::Authorize, Whose::Client, reason).because(self)
    }
}

/// How many requests of a route may be under way.
#[derive(Debug)]
pub struct Concurrent {
    most: u32,
    now: Arc<AtomicU32>,
    refused: Arc<Tally>,
}

/// One of those that are under way; gives its place back when dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicU32>);

impl Concurrent {
    /// At most `most`, counted in `now`, which outlives configs.
    pub fn new(most: u32, now: Arc<AtomicU32>, refused: Arc<Tally>) -> Self {
        Self { most, now, refused }
    }

    pub(super) fn enter(&self) -> Result<Slot, Refused> {
        let before = self.now.fetch_add(1, Relaxed);
        let slot = Slot(self.now.clone());
        if before < self.most {
            return Ok(slot);
        }
        self.refused.add();
        let told = format!("{} requests of the route are under way", self.most).into();
        Err(Refused { status: 503, retry_after: Duration::from_secs(1), told })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
