//! How often and how many at once: limits of requests by whom they come from, by what they say, and by route.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tieline_base::{ClientAddr, Fault, Moment, Rate, Reason, Stage, Whose};
use tieline_registry::Tally;

use super::gcra::{Gcra, KEYS, Key, Left, Table};
use super::quota::{Policy, Quotas};
use crate::site::Ask;

/// A limit of requests in time. Lives as long as the config has it as it is.
#[derive(Debug)]
pub struct RateLimit {
    per: Per,
    rate: Gcra,
    table: Table,
    /// In the words of the config, for stories.
    told: Box<str>,
    /// What answers tell of it, if they do.
    policy: Option<Policy>,
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
    /// A limit of `rate`, `burst` at once, which counts what it refuses. With a name, which is of visible
    /// ASCII, answers tell of it.
    pub fn new(per: Per, rate: Rate, burst: u32, tells_as: Option<&str>, refused: Arc<Tally>) -> Self {
        let keys = if per == Per::Route { 1 } else { KEYS };
        let per_ns = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let by = match &per {
            Per::Ip => "client",
            Per::Route => "route",
            Per::Header(name) => name,
        };
        let told = format!("more than {rate} by {by}, {burst} at once").into();
        let policy = tells_as.map(|name| Policy::new(name, rate, burst));
        let (rate, table) = (Gcra::new(rate.events, per_ns, burst), Table::new(keys));
        Self { rate, table, per, told, policy, refused }
    }

    /// The next arrival time, or how many nanoseconds it comes too early.
    fn ask(&self, ask: &Ask<'_>, client: ClientAddr, now: Moment, charge: bool) -> Result<u64, u64> {
        let by = |key: Key<'_>| self.table.ask(self.rate, key, now, charge);
        match &self.per {
            Per::Route => by(Key::Number(0)),
            Per::Ip => by(key_of(client)),
            Per::Header(name) => {
                let mut verdict = None;
                (ask.header)(name, &mut |value| {
                    let asked = by(Key::Text(value));
                    let refused = asked.is_err();
                    verdict = Some(asked);
                    // Of several it is not known which one the upstream goes by: all of them count.
                    refused
                });
                verdict.unwrap_or_else(|| by(key_of(client)))
            }
        }
    }
}

/// A client as a key: an address of version 4, or the network of one of version 6. None of those is where
/// addresses of version 4 are mapped to.
fn key_of(client: ClientAddr) -> Key<'static> {
    match client.ip().map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(v4)) => Key::Number(0xffff << 32 | u64::from(v4.to_bits())),
        Some(IpAddr::V6(v6)) => Key::Number((v6.to_bits() >> 64) as u64),
        None => Key::Text(b"unix"),
    }
}

/// Asks all of `limits`: what one of them refuses counts for none of them. What answers tell of them goes to
/// `quotas`: of all that let it pass, or of the one that refuses.
pub(super) fn ask(
    limits: &[Arc<RateLimit>],
    ask: &Ask<'_>,
    client: ClientAddr,
    now: Moment,
    quotas: &mut Quotas,
) -> Result<(), Refused> {
    if limits.len() > 1 {
        for limit in limits {
            limit.ask(ask, client, now, false).map_err(|early_ns| limit.refuse(early_ns, quotas))?;
        }
    }
    for limit in limits {
        let next = limit.ask(ask, client, now, true).map_err(|early_ns| limit.refuse(early_ns, quotas))?;
        if let Some(policy) = &limit.policy {
            quotas.add(policy, limit.rate.left(next, now));
        }
    }
    Ok(())
}

impl RateLimit {
    fn refuse(&self, early_ns: u64, quotas: &mut Quotas) -> Refused {
        self.refused.add();
        *quotas = Quotas::default();
        if let Some(policy) = &self.policy {
            // Nothing is left until the next one is due.
            quotas.add(policy, Left { events: 0, full_in_ns: early_ns });
        }
        let (retry_after, told) = (Duration::from_nanos(early_ns), self.told.clone());
        Refused { status: 429, retry_after, told }
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
        // Whoever is refused is never counted, so that a place that comes free is seen to be free.
        let entered = self.now.fetch_update(Relaxed, Relaxed, |now| (now < self.most).then_some(now + 1));
        if entered.is_ok() {
            return Ok(Slot(self.now.clone()));
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
