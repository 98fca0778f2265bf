//! The circuit breaker of an endpoint: where most of what it is asked fails, it is asked nothing for a while,
//! and then one thing at a time until one succeeds.
//!
//! Nygard, "Release It!" (2007). It goes by the share of failures over seconds, where outlier ejection goes
//! by failures in a row; and it also holds for the last endpoint that is left.

use std::num::NonZeroU32;
use std::time::Duration;

use tieline_base::{Moment, Percent};

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerSettings {
    /// How many requests there must have been within `window`.
    pub requests: NonZeroU32,
    /// The share of them that must have failed.
    pub failures: Percent,
    /// What counts as of late.
    pub window: Duration,
    /// For how long it stays open the first time; twice as long each time that a probe fails.
    pub open: Duration,
    /// For how long it stays open at most.
    pub longest: Duration,
}

impl Default for BreakerSettings {
    /// Half of 20 within 10 s; 5 s, and a minute at most: the config's defaults.
    fn default() -> Self {
        BreakerSettings {
            requests: NonZeroU32::MIN.saturating_add(19),
            failures: Percent(50),
            window: Duration::from_secs(10),
            open: Duration::from_secs(5),
            longest: Duration::from_secs(60),
        }
    }
}

/// What a result has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// It is open for so long.
    Opened(Duration),
    /// It is closed: the probe succeeded.
    Closed,
}

/// In how many steps the window moves.
const STEPS: usize = 10;

/// A probe of which nothing was heard for so long counts for nothing, and another may go.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// One endpoint's breaker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Breaker {
    steps: [Step; STEPS],
    state: State,
}

/// What happened within one step of the window.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    /// Which step of all time.
    number: u64,
    good: u32,
    bad: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Closed,
    /// Nothing goes until then; it has opened so many times in a row.
    Open { until: Moment, row: u32 },
    /// One request has gone to see.
    Probing { until: Moment, row: u32 },
}

impl Breaker {
    /// Takes the result of a request.
    pub(crate) fn report(&mut self, good: bool, now: Moment, settings: &BreakerSettings) -> Option<Change> {
        match self.state {
            State::Closed => {
                self.count(good, now, settings);
                let (good, bad) = self.of_late(now, settings);
                let total = u64::from(good) + u64::from(bad);
                let enough = total >= u64::from(settings.requests.get());
                let failing = u64::from(bad) * 100 >= total * u64::from(settings.failures.0);
                (enough && failing && bad > 0).then(|| self.open(1, now, settings))
            }
            // What was asked before it opened, and is answered now.
            State::Open { .. } => None,
            State::Probing { row, .. } if !good => Some(self.open(row.saturating_add(1), now, settings)),
            State::Probing { .. } => {
                *self = Breaker::default();
                Some(Change::Closed)
            }
        }
    }

    /// Until when nothing may be asked; `None` while it is closed.
    pub(crate) fn shut_until(&self) -> Option<Moment> {
        match self.state {
            State::Closed => None,
            State::Open { until, .. } | State::Probing { until, .. } => Some(until),
        }
    }

    /// Whether a request may go although it is not closed: a probe, one at a time.
    pub(crate) fn take_probe(&mut self, now: Moment) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until, row } | State::Probing { until, row } if until <= now => {
                self.state = State::Probing { until: now.after(PROBE_PATIENCE), row };
                true
            }
            State::Open { .. } | State::Probing { .. } => false,
        }
    }

    fn open(&mut self, row: u32, now: Moment, settings: &BreakerSettings) -> Change {
        let doubled = settings.open.saturating_mul(1u32.checked_shl(row - 1).unwrap_or(u32::MAX));
        let rest = doubled.min(settings.longest.max(settings.open));
        *self = Breaker { state: State::Open { until: now.after(rest), row }, ..Breaker::default() };
        Change::Opened(rest)
    }

    fn count(&mut self, good: bool, now: Moment, settings: &BreakerSettings) {
        let number = step(now, settings);
        let slot = &mut self.steps[(number % STEPS as u64) as usize];
        if slot.number != number {
            *slot = Step { number, ..Step::default() };
        }
        let count = if good { &mut slot.good } else { &mut slot.bad };
        *count = count.saturating_add(1);
    }

    fn of_late(&self, now: Moment, settings: &BreakerSettings) -> (u32, u32) {
        let oldest = (step(now, settings) + 1).saturating_sub(STEPS as u64);
        let within = self.steps.iter().filter(|step| step.number >= oldest);
        within.fold((0, 0), |(good, bad), step| {
            (u32::saturating_add(good, step.good), u32::saturating_add(bad, step.bad))
        })
    }
}

/// Steps are numbered from 1: 0 is one that never was.
fn step(now: Moment, settings: &BreakerSettings) -> u64 {
    let length = (settings.window.as_nanos() as u64 / STEPS as u64).max(1);
    now.0 / length + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn fail(breaker: &mut Breaker, times: u32, now: Moment) -> Option<Change> {
        (0..times).filter_map(|_| breaker.report(false, now, &BreakerSettings::default())).last()
    }

    #[test]
    fn half_of_twenty_opens_it_and_fewer_do_not() {
        let (mut breaker, settings) = (Breaker::default(), BreakerSettings::default());
        for _ in 0..10 {
            assert_eq!(breaker.report(true, at(1_000), &settings), None);
        }
        assert_eq!(fail(&mut breaker, 9, at(2_000)), None);
        assert_eq!(fail(&mut breaker, 1, at(3_000)), Some(Change::Opened(settings.open)));
        assert!(!breaker.take_probe(at(7_999)));
    }

    #[test]
    fn what_lies_back_ten_seconds_counts_no_more() {
        let mut breaker = Breaker::default();
        assert_eq!(fail(&mut breaker, 19, at(1_000)), None);
        assert_eq!(fail(&mut breaker, 19, at(11_001)), None);
    }

    #[test]
    fn probes_go_one_at_a_time_and_double_the_wait_until_one_succeeds() {
        let (mut breaker, settings) = (Breaker::default(), BreakerSettings::default());
        fail(&mut breaker, 20, at(0));
        let mut waits = Vec::new();
        for _ in 0..6 {
            let now = breaker.shut_until().unwrap();
            assert!(breaker.take_probe(now) && !breaker.take_probe(now), "one, and no other");
            match breaker.report(false, now, &settings) {
                Some(Change::Opened(wait)) => waits.push(wait.as_secs()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(waits, [10, 20, 40, 60, 60, 60]);
        let now = breaker.shut_until().unwrap();
        assert!(breaker.take_probe(now));
        assert_eq!(breaker.report(true, now, &settings), Some(Change::Closed));
        assert_eq!(breaker.shut_until(), None);
        assert_eq!(fail(&mut breaker, 19, now), None, "it begins anew");
    }

    #[test]
    fn a_probe_that_says_nothing_is_followed_by_another() {
        let mut breaker = Breaker::default();
        fail(&mut breaker, 20, at(0));
        assert!(breaker.take_probe(at(5_000)));
        assert!(!breaker.take_probe(at(14_999)));
        assert!(breaker.take_probe(at(15_000)));
    }

    proptest! {
        /// Whatever comes when: it opens exactly when the window says so, stays open within its bounds, and
        /// while it is open at most one probe is under way.
        #[test]
        fn it_opens_by_the_window_and_lets_single_probes_through(
            events in prop::collection::vec((0u64..3_000, any::<bool>(), any::<bool>()), 1..400),
        ) {
            let settings = BreakerSettings::default();
            let (mut breaker, mut now, mut seen) = (Breaker::default(), at(0), Vec::<(u64, bool)>::new());
            let mut probe_since: Option<Moment> = None;
            for (pause_ms, good, asks) in events {
                now = now.after(Duration::from_millis(pause_ms));
                if breaker.shut_until().is_some() && asks {
                    let before = breaker.shut_until().unwrap();
                    let went = breaker.take_probe(now);
                    prop_assert_eq!(went, before <= now);
                    if went {
                        prop_assert!(probe_since.is_none_or(|since| now.since(since) >= PROBE_PATIENCE));
                        probe_since = Some(now);
                    }
                    continue;
                }
                let was_closed = breaker.shut_until().is_none();
                let change = breaker.report(good, now, &settings);
                if was_closed {
                    let number = step(now, &settings);
                    seen.push((number, good));
                    let late: Vec<_> = seen.iter().filter(|(s, _)| s + STEPS as u64 > number).collect();
                    let bad = late.iter().filter(|(_, good)| !good).count();
                    let opens = late.len() >= 20 && bad * 2 >= late.len();
                    prop_assert_eq!(change.is_some(), opens);
                }
                match change {
                    Some(Change::Opened(wait)) => {
                        prop_assert!(wait >= settings.open && wait <= settings.longest);
                        (probe_since, seen) = (None, Vec::new());
                    }
                    Some(Change::Closed) => {
                        prop_assert!(probe_since.is_some() && good);
                        (probe_since, seen) = (None, Vec::new());
                    }
                    None => {}
                }
            }
        }
    }
}
