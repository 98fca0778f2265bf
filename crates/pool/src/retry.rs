//! Second attempts: how many an upstream may cause, and how long to wait before one.
//!
//! A dead endpoint must not double the load on the living. Finagle's `RetryBudget`: retries are paid for by
//! first attempts, plus a small floor so that a quiet upstream can retry too.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tieline_base::{Moment, Percent};

/// What one retry costs. First attempts earn their share of it in whole units.
const RETRY: u64 = 100;

/// Retries that are free in each second.
const FLOOR_PER_SECOND: u64 = 3;

/// Retries that may be saved up: ten seconds of the floor and some earnings. Bounds the burst after a long
/// calm.
const SAVED_MAX: u64 = 100;

/// An upstream's account of retries, shared by all workers.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    saved: AtomicU64,
    /// When the floor was last paid in, in nanoseconds.
    paid_ns: AtomicU64,
}

impl RetryBudget {
    /// An account that starts with ten seconds of the floor.
    pub(crate) fn new(now: Moment) -> Self {
        Self { saved: AtomicU64::new(10 * FLOOR_PER_SECOND * RETRY), paid_ns: AtomicU64::new(now.0) }
    }

    /// Counts a first attempt, which earns `share` of a retry.
    pub(crate) fn earn(&self, share: Percent) {
        // What is above the bound is forgotten anyway; a full account is only read, so that the workers do
        // not take its cache line from each other.
        if self.saved.load(Ordering::Relaxed) < SAVED_MAX * RETRY {
            self.saved.fetch_add(u64::from(share.0), Ordering::Relaxed);
        }
    }

    /// Pays for a retry at `now`; false if the account does not hold one.
    pub(crate) fn spend(&self, now: Moment) -> bool {
        let floor = self.floor_since_last_time(now);
        let paid = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
            let saved = saved.saturating_add(floor).min(SAVED_MAX * RETRY);
            Some(saved.checked_sub(RETRY).unwrap_or(saved))
        });
        // The update saved the floor either way; what was there before tells whether it also paid.
        paid.is_ok_and(|before| before.saturating_add(floor) >= RETRY)
    }

    /// How many retries the account holds.
    pub(crate) fn left(&self) -> u64 {
        self.saved.load(Ordering::Relaxed).min(SAVED_MAX * RETRY) / RETRY
    }

    /// What the floor has earned since it was last paid in, in hundredths of a retry.
    fn floor_since_last_time(&self, now: Moment) -> u64 {
        const NS_PER_UNIT: u64 = 1_000_000_000 / (FLOOR_PER_SECOND * RETRY);
        let last = self.paid_ns.load(Ordering::Relaxed);
        let units = now.0.saturating_sub(last) / NS_PER_UNIT;
        // Only whole units move the time forward, so that no fraction is lost; one of two racing workers
        // wins.
        let next = last + units * NS_PER_UNIT;
        let won = self.paid_ns.compare_exchange(last, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if won { units } else { 0 }
    }
}

/// How long to wait before attempt number `attempt` (the first retry is 1): "full jitter", anywhere between
/// nothing and `base` doubled with each attempt, up to `most`. `random` is 64 random bits.
///
/// Brooker, "Exponential Backoff And Jitter" (2015): the spread is what keeps many waiters from coming back
/// as one.
pub fn backoff(attempt: u32, base: Duration, most: Duration, random: u64) -> Duration {
    let doubled = base.saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(most).mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn when_all_fails_the_load_grows_by_the_budget_alone() {
        let budget = RetryBudget::new(Moment(0));
        let mut retries = 0;
        for first in 0..100_000u64 {
            budget.earn(Percent(10));
            // One first attempt each millisecond, two retries wanted for each.
            for _ in 0..2 {
                retries += u64::from(budget.spend(Moment(first * 1_000_000)));
            }
        }
        let expected = 10_000 + 100 * FLOOR_PER_SECOND + 30;
        assert!(retries.abs_diff(expected) <= 2, "{retries} instead of {expected}");
    }

    #[test]
    fn a_quiet_upstream_may_retry_three_times_a_second() {
        let budget = RetryBudget::new(Moment(0));
        while budget.spend(Moment(0)) {}
        let one_second = Moment(1_000_000_000);
        assert_eq!((0..10).filter(|_| budget.spend(one_second)).count(), 3);
    }

    proptest! {
        #[test]
        fn never_more_than_earned_and_no_burst_beyond_the_bound(
            share in 0u8..=100,
            events in prop::collection::vec((any::<bool>(), 0u64..500_000_000), 1..500),
        ) {
            let (budget, mut now) = (RetryBudget::new(Moment(0)), Moment(0));
            let (mut earned, mut spent) = (10 * FLOOR_PER_SECOND * RETRY, 0);
            for (retry, pause_ns) in events {
                now = now.after(Duration::from_nanos(pause_ns));
                if retry {
                    spent += u64::from(budget.spend(now)) * RETRY;
                } else {
                    budget.earn(Percent(share));
                    earned += u64::from(share);
                }
                let floor = now.0 * FLOOR_PER_SECOND * RETRY / 1_000_000_000;
                prop_assert!(spent <= earned + floor);
                prop_assert!(budget.left() <= SAVED_MAX);
            }
        }

        #[test]
        fn backoff_stays_within_its_doubling_bound(attempt in 1u32..100, random: u64) {
            let (base, most) = (Duration::from_millis(10), Duration::from_secs(1));
            let bound = if attempt > 7 { most } else { base * (1 << (attempt - 1)) };
            prop_assert!(backoff(attempt, base, most, random) <= bound.min(most));
        }
    }
}
