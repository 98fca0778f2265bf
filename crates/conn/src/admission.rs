//! How many a listener lets in: in all, from one source, and how fast. Counted before a byte is read.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use tieline_base::{ClientAddr, Clock, Moment, Rate, Reason};

/// What a listener's config allows; `None` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Connections at once.
    pub connections: Option<u32>,
    /// Connections at once from one source: an IPv4 address, or an IPv6 /64, which is what one site is given.
    pub per_ip: Option<u32>,
    /// Connections in time.
    pub accept_rate: Option<Rate>,
}

/// Who is counted at one listener. Lives as long as the process, so that a reload forgets nobody.
#[derive(Debug, Default)]
pub struct Admission {
    live: AtomicU32,
    sources: Sources,
    /// GCRA's theoretical arrival time, in nanoseconds (ITU-T I.371, annex A).
    arrival_ns: AtomicU64,
    closed: AtomicBool,
}

/// A source address, cut to what one site is given.
type Source = u128;

/// Few keys, one lock: held for one look-up, and only where `per_ip` is set.
#[allow(clippy::disallowed_types)]
type Sources = std::sync::Mutex<HashMap<Source, u32>>;

impl Admission {
    /// Counts one more connection.
    ///
    /// # Errors
    /// [`Reason::LimitConnections`] when the listener is full.
    pub(crate) fn count(self: &Arc<Self>, limits: &Limits) -> Result<Slot, Reason> {
        let before = self.live.fetch_add(1, Relaxed);
        // From here on the slot gives the place back.
        let slot = Slot { admission: self.clone(), source: None };
        let full = limits.connections.is_some_and(|most| before >= most);
        if full { Err(Reason::LimitConnections) } else { Ok(slot) }
    }

    /// Paces connections in time, by GCRA: steady at the rate, with a burst of one period's worth.
    ///
    /// # Errors
    /// [`Reason::LimitAcceptRate`] when they come faster.
    pub(crate) fn pace(&self, limits: &Limits) -> Result<(), Reason> {
        let Some(rate) = limits.accept_rate else { return Ok(()) };
        let now = Clock::now();
        let paced = self.arrival_ns.try_update(Relaxed, Relaxed, |arrival| conforming(arrival, now, rate));
        paced.map(|_| ()).map_err(|_| Reason::LimitAcceptRate)
    }

    /// Refuses every further connection, until opened again.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// Lets connections in again.
    pub fn open(&self) {
        self.closed.store(false, Relaxed);
    }

    /// Whether it refuses every connection.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// How many are counted now.
    pub fn live(&self) -> u32 {
        self.live.load(Relaxed)
    }
}

/// The next theoretical arrival time if a connection at `now` conforms to `rate`.
fn conforming(arrival_ns: u64, now: Moment, rate: Rate) -> Option<u64> {
    let period_ns = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
    let interval_ns = (period_ns / u64::from(rate.events)).max(1);
    let tolerance_ns = period_ns - interval_ns;
    let early_ns = arrival_ns.saturating_sub(now.0);
    (early_ns <= tolerance_ns).then(|| arrival_ns.max(now.0) + interval_ns)
}

/// A counted place at a listener; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    admission: Arc<Admission>,
    source: Option<Box<Source>>,
}

impl Slot {
    /// Counts the connection against its source, once, where there is a limit.
    ///
    /// # Errors
    /// [`Reason::LimitPerIp`] when the source has its share.
    pub(crate) fn count_source(mut self, limits: &Limits, client: ClientAddr) -> Result<Slot, Reason> {
        let (Some(most), Some(ip), None) = (limits.per_ip, client.ip(), &self.source) else {
            return Ok(self);
        };
        let source = source_of(ip);
        let mut sources = held(&self.admission.sources);
        let live = sources.entry(source).or_default();
        if *live >= most {
            return Err(Reason::LimitPerIp);
        }
        *live += 1;
        drop(sources);
        self.source = Some(Box::new(source));
        Ok(self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.admission.live.fetch_sub(1, Relaxed);
        let Some(source) = self.source.take() else { return };
        let mut sources = held(&self.admission.sources);
        if let Some(live) = sources.get_mut(&source) {
            *live -= 1;
            if *live == 0 {
                sources.remove(&source);
            }
        }
    }
}

fn held(sources: &Sources) -> std::sync::MutexGuard<'_, HashMap<Source, u32>> {
    sources.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn source_of(ip: IpAddr) -> Source {
    match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) | 0xffff << 32,
        IpAddr::V6(v6) => v6.to_bits() & !u128::from(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn client(address: &str) -> ClientAddr {
        ClientAddr::from_socket(address.parse().unwrap())
    }

    #[test]
    fn a_full_listener_has_room_again_when_one_leaves() {
        let (admission, limits) =
            (Arc::new(Admission::default()), Limits { connections: Some(2), ..Limits::default() });
        let first = admission.count(&limits).unwrap();
        let _second = admission.count(&limits).unwrap();
        assert_eq!(admission.count(&limits).unwrap_err(), Reason::LimitConnections);
        drop(first);
        assert!(admission.count(&limits).is_ok());
        assert_eq!(admission.live(), 1);
    }

    #[test]
    fn one_source_cannot_take_what_is_left_for_others() {
        let (admission, limits) =
            (Arc::new(Admission::default()), Limits { per_ip: Some(1), ..Limits::default() });
        let count = |address| admission.count(&limits)?.count_source(&limits, client(address));
        let _first = count("192.0.2.1:1").unwrap();
        assert_eq!(count("192.0.2.1:2").unwrap_err(), Reason::LimitPerIp);
        let _other = count("192.0.2.2:1").unwrap();
        let _site = count("[2001:db8::1]:1").unwrap();
        assert_eq!(count("[2001:db8::2]:1").unwrap_err(), Reason::LimitPerIp);
        let _other_site = count("[2001:db8:0:1::1]:1").unwrap();
    }

    proptest! {
        #[test]
        fn counts_return_to_zero_and_never_pass_the_limits(
            steps in prop::collection::vec((0u8..6, any::<bool>()), 1..300),
        ) {
            let limits = Limits { connections: Some(7), per_ip: Some(3), accept_rate: None };
            let admission = Arc::new(Admission::default());
            let mut slots: Vec<(u8, Slot)> = Vec::new();
            for (host, leave) in steps {
                if leave && !slots.is_empty() {
                    slots.remove(usize::from(host) % slots.len());
                    continue;
                }
                let mine = slots.iter().filter(|(other, _)| *other == host).count();
                let full = slots.len() >= 7;
                let source = client(&format!("10.0.0.{host}:1"));
                let slot = admission.count(&limits).and_then(|slot| slot.count_source(&limits, source));
                prop_assert_eq!(slot.is_ok(), !full && mine < 3);
                slots.extend(slot.ok().map(|slot| (host, slot)));
                prop_assert_eq!(admission.live() as usize, slots.len());
            }
            drop(slots);
            prop_assert_eq!(admission.live(), 0);
            prop_assert!(held(&admission.sources).is_empty());
        }

        #[test]
        fn no_period_lets_in_more_than_two_periods_worth(
            events in 1u32..50,
            gaps_ms in prop::collection::vec(0u64..200, 1..300),
        ) {
            let rate = Rate { events, per: Duration::from_secs(1) };
            let (mut arrival, mut now, mut admitted) = (0, Moment(1 << 40), Vec::new());
            for gap in gaps_ms {
                now = now.after(Duration::from_millis(gap));
                if let Some(next) = conforming(arrival, now, rate) {
                    arrival = next;
                    admitted.push(now);
                }
            }
            for start in &admitted {
                let within = |at: &&Moment| **at >= *start && at.since(*start) < rate.per;
                prop_assert!(admitted.iter().filter(within).count() <= 2 * events as usize);
            }
            prop_assert!(!admitted.is_empty(), "the first is never refused");
        }
    }
}
