//! Hedging: when a second endpoint is asked too, and how often at most.
//!
//! Dean and Barroso, "The Tail at Scale" (2013): a request that takes longer than nearly all others is most
//! often the victim of one endpoint, and another would have answered by now.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tieline_base::{Moment, Percent};

/// When a second endpoint is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HedgeSettings {
    /// When a request has taken longer than so many of each hundred of late.
    pub percentile: u8,
    /// For so many of each hundred requests at most.
    pub budget: Percent,
}

/// So many answers must have been measured before a percentile means something.
const ANSWERS_MIN: u64 = 100;

/// For how long an answer counts: between one and two of these.
const WINDOW_NS: u64 = 10_000_000_000;

/// Each doubling of the time is divided into so many buckets.
const FINENESS: usize = 8;

/// The doublings, from 1 µs: the last bucket begins at 50 s or so.
const DOUBLINGS: usize = 26;

const BUCKETS: usize = FINENESS * DOUBLINGS;

/// How long answers took of late, and what hedging may still cost. All workers count into it.
#[derive(Debug)]
pub(crate) struct Hedging {
    /// Of this window and the one before it, in turn.
    windows: [Window; 2],
    /// Which window it is, by its number since the start.
    current: AtomicU64,
    saved: AtomicU64,
}

#[derive(Debug)]
struct Window([AtomicU32; BUCKETS]);

/// What one hedge costs; each request earns its percentage.
const HEDGE: u64 = 100;

/// Hedges that may be saved up.
const SAVED_MAX: u64 = 10;

impl Hedging {
    pub(crate) fn new() -> Hedging {
        let window = || Window([const { AtomicU32::new(0) }; BUCKETS]);
        Hedging { windows: [window(), window()], current: AtomicU64::new(0), saved: AtomicU64::new(0) }
    }

    /// Takes how long an answer took.
    pub(crate) fn observe(&self, took: Duration, now: Moment) {
        self.turn(now);
        let window = &self.windows[(self.current.load(Ordering::Relaxed) % 2) as usize];
        window.0[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// Within what time so many of each hundred answers came of late; `None` if there were too few.
    pub(crate) fn percentile(&self, percentile: u8, now: Moment) -> Option<Duration> {
        self.turn(now);
        let count = |bucket: usize| {
            self.windows.iter().map(|window| u64::from(window.0[bucket].load(Ordering::Relaxed))).sum::<u64>()
        };
        let total: u64 = (0..BUCKETS).map(count).sum();
        if total < ANSWERS_MIN {
            return None;
        }
        let wanted = (total * u64::from(percentile)).div_ceil(100);
        let mut sum = 0;
        let within = (0..BUCKETS).find(|bucket| {
            sum += count(*bucket);
            sum >= wanted
        });
        within.map(bound)
    }

    /// Counts a request, which earns `share` of a hedge.
    pub(crate) fn earn(&self, share: Percent) {
        let add = |saved: u64| Some((saved + u64::from(share.0)).min(SAVED_MAX * HEDGE));
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Pays for a hedge; false if there is not enough.
    pub(crate) fn spend(&self) -> bool {
        self.saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(HEDGE))
            .is_ok()
    }

    /// Begins a new window if it is time: the older one is emptied.
    fn turn(&self, now: Moment) {
        let number = now.0 / WINDOW_NS;
        let last = self.current.load(Ordering::Relaxed);
        if number <= last
            || self.current.compare_exchange(last, number, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        // Counts that come in this instant may be lost with the old ones: a percentile bears that.
        for (parity, window) in self.windows.iter().enumerate() {
            if parity as u64 == number % 2 || number > last + 1 {
                window.0.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
            }
        }
    }
}

fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let doubling = us.ilog2() as usize;
    // How far within its doubling, in eighths.
    let within = if doubling >= 3 { (us >> (doubling - 3)) & 7 } else { (us << (3 - doubling)) & 7 };
    (doubling * FINENESS + within as usize).min(BUCKETS - 1)
}

/// Where the bucket ends.
fn bound(bucket: usize) -> Duration {
    let (doubling, within) = (bucket / FINENESS, bucket % FINENESS);
    let us = (1u64 << doubling) as f64 * (1.0 + (within + 1) as f64 / FINENESS as f64);
    Duration::from_secs_f64(us / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_silent_until_enough_is_known_and_forgets() {
        let hedging = Hedging::new();
        let at = |seconds: u64| Moment(seconds * 1_000_000_000);
        for _ in 0..99 {
            hedging.observe(Duration::from_millis(10), at(1));
        }
        assert_eq!(hedging.percentile(95, at(1)), None);
        hedging.observe(Duration::from_millis(10), at(11));
        assert!(hedging.percentile(95, at(11)).is_some(), "the window before counts too");
        assert_eq!(hedging.percentile(95, at(21)), None, "and the one before that does not");
    }

    proptest! {
        #[test]
        fn the_percentile_is_that_of_the_sorted_times_to_an_eighth(
            mut us in prop::collection::vec(1u64..50_000_000, 100..600), percentile in 50u8..=99,
        ) {
            let hedging = Hedging::new();
            us.iter().for_each(|us| hedging.observe(Duration::from_micros(*us), Moment(0)));
            us.sort_unstable();
            let rank = (us.len() * usize::from(percentile)).div_ceil(100) - 1;
            let exact = us[rank] as f64 / 1e6;
            let told = hedging.percentile(percentile, Moment(0)).unwrap().as_secs_f64();
            prop_assert!(told >= exact * 0.999 && told <= exact * 1.13, "{} for {}", told, exact);
        }

        /// However requests and hedges come: never more hedges than their share, and no burst from a calm.
        #[test]
        fn hedges_keep_to_their_share(
            share in 0u8..=100, wants in prop::collection::vec(any::<bool>(), 1..800),
        ) {
            let (hedging, mut hedges, mut requests, mut row) = (Hedging::new(), 0u64, 0u64, 0);
            for wants in wants {
                if wants && hedging.spend() {
                    hedges += 1;
                    row += 1;
                    prop_assert!(row <= SAVED_MAX);
                } else {
                    hedging.earn(Percent(share));
                    requests += 1;
                    row = 0;
                }
                prop_assert!(hedges * 100 <= requests * u64::from(share));
            }
        }
    }
}
