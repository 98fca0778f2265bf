//! When to dial again: at once after a long life, and ever later and at random after short ones, so that
//! thousands who lost the same server do not come back as one.

use std::time::Duration;

use tieline_base::Moment;

/// A carrier that lived for longer than this was a good one: its loss counts for nothing.
const GOOD_LIFE: Duration = Duration::from_secs(30);

/// The longest first wait; it doubles with each failure.
const FIRST: Duration = Duration::from_millis(250);

/// The longest wait while a stream waits for the link.
const MOST_AWAITED: Duration = Duration::from_secs(2);

/// The longest wait otherwise.
const MOST: Duration = Duration::from_secs(30);

/// The longest wait of one who was told that they may not.
const MOST_DENIED: Duration = Duration::from_secs(300);

/// Doublings beyond which every wait is at its most.
const DOUBLINGS_MAX: u32 = 12;

/// How often it went wrong of late.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Backoff {
    failures: u32,
    denied: bool,
    /// Since when the carrier in use lives.
    since: Option<Moment>,
}

impl Backoff {
    /// A carrier carries the link.
    pub(super) fn connected(&mut self, now: Moment) {
        self.since = Some(now);
        self.denied = false;
    }

    /// Nobody answered, or not well. `denied` says that the answer was no.
    pub(super) fn failed(&mut self, denied: bool) {
        self.failures = (self.failures + 1).min(DOUBLINGS_MAX);
        self.denied = denied;
    }

    /// The carrier in use is lost.
    pub(super) fn lost(&mut self, now: Moment) {
        if let Some(since) = self.since.take()
            && now.since(since) > GOOD_LIFE
        {
            self.failures = 0;
        } else {
            self.failed(false);
        }
    }

    /// The network has changed: what went wrong before says nothing about this one.
    pub(super) fn forget(&mut self) {
        self.failures = 0;
    }

    /// How long to wait now. `awaited` says whether a stream waits for the link; `random` is any number.
    pub(super) fn wait(&self, awaited: bool, random: u64) -> Duration {
        if self.failures == 0 {
            return Duration::ZERO;
        }
        let most = match (self.denied, awaited) {
            (true, _) => MOST_DENIED,
            (false, true) => MOST_AWAITED,
            (false, false) => MOST,
        };
        part((FIRST * (1 << self.failures)).min(most), random)
    }
}

/// A part of `most`, as `random` says: anything from nothing to all of it.
pub(super) fn part(most: Duration, random: u64) -> Duration {
    let nanoseconds = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    let part = (u128::from(nanoseconds) * u128::from(random)) >> 64;
    Duration::from_nanos(part as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000_000)
    }

    fn most(backoff: &Backoff, awaited: bool) -> Duration {
        backoff.wait(awaited, u64::MAX) + Duration::from_nanos(1)
    }

    #[test]
    fn after_a_long_life_it_dials_at_once_and_after_a_short_one_it_waits() {
        let mut backoff = Backoff::default();
        backoff.connected(at(0));
        backoff.lost(at(31));
        assert_eq!(backoff.wait(false, u64::MAX), Duration::ZERO);
        backoff.connected(at(32));
        backoff.lost(at(33));
        assert_eq!(most(&backoff, false), 2 * FIRST);
        assert_eq!(backoff.wait(false, 0), Duration::ZERO, "any part of it");
    }

    #[test]
    fn waits_double_up_to_what_fits_the_need() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..9)
            .map(|_| {
                backoff.failed(false);
                most(&backoff, false).as_millis()
            })
            .collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(most(&backoff, true), MOST_AWAITED);
        (0..2).for_each(|_| backoff.failed(true));
        assert_eq!(most(&backoff, true), MOST_DENIED);
        backoff.forget();
        assert_eq!(backoff.wait(false, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn connecting_alone_is_no_success() {
        let mut backoff = Backoff::default();
        for second in 0..100 {
            backoff.connected(at(second));
            backoff.lost(at(second));
        }
        assert_eq!(most(&backoff, false), MOST);
    }

    #[test]
    fn a_crowd_comes_back_spread_out() {
        let mut backoff = Backoff::default();
        (0..10).for_each(|_| backoff.failed(false));
        let mut random = fastrand::Rng::with_seed(1);
        let mut seconds = [0; 30];
        for _ in 0..3000 {
            seconds[backoff.wait(false, random.u64(..)).as_secs() as usize] += 1;
        }
        assert!(seconds.iter().all(|count| (50..200).contains(count)), "{seconds:?}");
    }
}
