//! Adaptive concurrency: how much an upstream can do at once, learned from how long it takes.
//!
//! After Netflix's Gradient2 (concurrency-limits): while answers take about as long as they always did, the
//! limit grows; when they take longer, more is asked than can be done at once, and the limit falls by the
//! ratio. Unlike it, the long-term average falls faster than it rises, so that a long overload is not taken
//! for the ordinary.

use std::time::Duration;

use tieline_base::Moment;

/// How far answers may slow down before the limit falls.
const TOLERANCE: f64 = 1.5;

/// What the limit grows by, and how many may wait within the upstream.
const QUEUE: f64 = 4.0;

/// How much of a new limit is taken over at once.
const SMOOTHING: f64 = 0.2;

/// The least limit.
const FLOOR: u32 = 5;

/// The greatest, where nothing else bounds it.
const CEILING: u32 = 10_000;

/// Where it begins, if it may.
const FIRST: f64 = 100.0;

/// Answers are averaged over so long, and so many at least.
const WINDOW: Duration = Duration::from_millis(100);
const ANSWERS_MIN: u32 = 10;

/// How many windows the long-term average goes back, for news that are worse and that are better.
const MEMORY_WORSE: f64 = 3_000.0;
const MEMORY_BETTER: f64 = 100.0;

/// One upstream's limit.
#[derive(Clone, Debug)]
pub(crate) struct Gradient {
    limit: f64,
    /// In seconds; 0 while nothing is known.
    long: f64,
    began: Moment,
    answers: u32,
    sum: f64,
    /// The most in flight within the window.
    in_flight: u32,
}

impl Gradient {
    /// Nothing is known; at most `ceiling` may ever be in flight.
    pub(crate) fn new(ceiling: Option<u32>, now: Moment) -> Gradient {
        let limit = FIRST.min(f64::from(ceiling.unwrap_or(CEILING)));
        Gradient { limit, long: 0.0, began: now, answers: 0, sum: 0.0, in_flight: 0 }
    }

    /// How many may be in flight.
    pub(crate) fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Takes an answer that took so long, while so many were in flight. Says the limit if it changed.
    pub(crate) fn observe(
        &mut self,
        took: Duration,
        in_flight: u32,
        ceiling: Option<u32>,
        now: Moment,
    ) -> Option<u32> {
        self.answers += 1;
        self.sum += took.as_secs_f64();
        self.in_flight = self.in_flight.max(in_flight);
        if self.answers < ANSWERS_MIN || now.since(self.began) < WINDOW {
            return None;
        }
        let before = self.limit();
        let short = (self.sum / f64::from(self.answers)).max(1e-9);
        self.learn(short, ceiling);
        (self.began, self.answers, self.sum, self.in_flight) = (now, 0, 0.0, 0);
        (self.limit() != before).then_some(self.limit())
    }

    fn learn(&mut self, short: f64, ceiling: Option<u32>) {
        if self.long == 0.0 {
            self.long = short;
        }
        let memory = if short > self.long { MEMORY_WORSE } else { MEMORY_BETTER };
        self.long += (short - self.long) / memory;
        if self.long > 2.0 * short {
            // What was slow is fast again: do not wait for the average.
            self.long *= 0.95;
        }
        let ceiling = f64::from(ceiling.unwrap_or(CEILING).max(1));
        let floor = f64::from(FLOOR).min(ceiling);
        // While half of it is free, slowness says nothing of the limit, and growth would be without reason.
        if f64::from(self.in_flight) >= self.limit / 2.0 {
            let gradient = (TOLERANCE * self.long / short).clamp(0.5, 1.0);
            let wanted = self.limit * gradient + QUEUE;
            self.limit = self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        }
        self.limit = self.limit.clamp(floor, ceiling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SERVICE: f64 = 0.010;

    /// An upstream that does `slots` things at once, each in 10 ms, and always more to do than it can.
    /// Says the mean limit and the mean goodput of the last second, as a share of what can be done.
    fn saturate(gradient: &mut Gradient, slots: f64, from: Moment, seconds: f64) -> (f64, f64, Moment) {
        let (mut now, mut limits, mut good, mut count) = (from, 0.0, 0.0, 0.0);
        let end = from.after(Duration::from_secs_f64(seconds));
        while now < end {
            let in_flight = f64::from(gradient.limit());
            let took = SERVICE * (in_flight / slots).max(1.0);
            let busy = (in_flight / slots).min(1.0);
            let gap = Duration::from_secs_f64(SERVICE / (slots * busy));
            now = now.after(gap);
            gradient.observe(Duration::from_secs_f64(took), gradient.limit(), None, now);
            if end.since(now) < Duration::from_secs(1) {
                (limits, good, count) = (limits + in_flight, good + busy, count + 1.0);
            }
        }
        (limits / count, good / count, now)
    }

    #[test]
    fn capacity_that_falls_and_comes_back_is_followed_within_five_seconds() {
        let mut gradient = Gradient::new(None, Moment(0));
        let (limit, goodput, now) = saturate(&mut gradient, 100.0, Moment(0), 30.0);
        assert!(goodput >= 0.9 && limit < 300.0, "{limit}, {goodput}");
        let (limit, goodput, now) = saturate(&mut gradient, 30.0, now, 5.0);
        assert!(goodput >= 0.9 && limit < 90.0, "{limit}, {goodput}");
        let (limit, goodput, _) = saturate(&mut gradient, 100.0, now, 15.0);
        assert!(goodput >= 0.9, "{limit}, {goodput}");
    }

    #[test]
    fn an_idle_hour_changes_nothing() {
        let mut gradient = Gradient::new(None, Moment(0));
        let (_, _, now) = saturate(&mut gradient, 50.0, Moment(0), 10.0);
        let (before, mut now) = (gradient.limit(), now);
        for _ in 0..3_600 {
            now = now.after(Duration::from_secs(1));
            gradient.observe(Duration::from_secs_f64(SERVICE), 1, None, now);
        }
        assert_eq!(gradient.limit(), before);
    }

    proptest! {
        /// Whatever answers take: the limit stays within its bounds, and only a slower answer lowers it.
        #[test]
        fn it_stays_within_its_bounds(
            ceiling in prop::option::of(1u32..500),
            answers in prop::collection::vec((1u64..5_000_000, 0u32..1_000, 0u64..500), 1..400),
        ) {
            let (mut gradient, mut now) = (Gradient::new(ceiling, Moment(0)), Moment(0));
            for (us, in_flight, pause_ms) in answers {
                now = now.after(Duration::from_millis(pause_ms));
                gradient.observe(Duration::from_micros(us), in_flight, ceiling, now);
                prop_assert!(gradient.limit() >= 1);
                prop_assert!(gradient.limit() <= ceiling.unwrap_or(CEILING));
                prop_assert!(gradient.limit() >= FLOOR.min(ceiling.unwrap_or(FLOOR)));
            }
        }
    }
}
