//! For how long an endpoint leaves an idle connection open, by what it says and by what it has done.
//!
//! What it says counts until it says otherwise. What it has done counts once it was done twice, alike and
//! apart: one restart closes what rests at any age, and is no habit. It is forgotten slowly, because whoever
//! keeps to a habit that is none never finds out.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tieline_base::Moment;

/// What is known of one endpoint, for those who look often.
#[derive(Debug)]
pub(crate) struct Habit {
    /// For how long it leaves a connection open, and what it said of that last: nanoseconds; the most: it is
    /// not known.
    allowed: AtomicU64,
    said: AtomicU64,
    /// When that is to be thought over.
    until: AtomicU64,
    // Held for a few instructions, when something is learned; never over an await.
    #[allow(clippy::disallowed_types)]
    known: std::sync::Mutex<Known>,
}

impl Default for Habit {
    fn default() -> Self {
        let unknown = || AtomicU64::new(u64::MAX);
        Self { allowed: unknown(), said: unknown(), until: unknown(), known: Default::default() }
    }
}

impl Habit {
    /// It says that it closes after so long.
    pub(crate) fn says(&self, at_most: Duration) {
        let said = ns(at_most);
        // Many say so with each answer.
        if said != self.said.load(Relaxed) {
            self.said.store(said, Relaxed);
            self.learn(|known| known.said = Some(at_most));
        }
    }

    /// A connection that was idle for so long was found closed at `now`.
    pub(crate) fn closed(&self, after: Duration, now: Moment) {
        self.learn(|known| known.closed(after, now));
    }

    /// Believes less in what was shown long ago.
    pub(crate) fn forget(&self, now: Moment) {
        if self.until.load(Relaxed) <= now.0 {
            self.learn(|known| known.forget(now));
        }
    }

    /// For how long it leaves one open; `None` if that is not known.
    pub(crate) fn allowed(&self) -> Option<Duration> {
        let ns = self.allowed.load(Relaxed);
        (ns != u64::MAX).then(|| Duration::from_nanos(ns))
    }

    fn learn(&self, learn: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        learn(&mut known);
        self.allowed.store(known.allowed().map_or(u64::MAX, ns), Relaxed);
        self.until.store(known.shown.map_or(u64::MAX, |shown| shown.until.0), Relaxed);
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Debug, Default)]
struct Known {
    said: Option<Duration>,
    shown: Option<Shown>,
    /// How old the youngest was that was found closed last, and when the first of those was.
    suspected: Option<(Duration, Moment)>,
}

/// What it has shown.
#[derive(Clone, Copy, Debug)]
struct Shown {
    allowed: Duration,
    /// When it is less sure again.
    until: Moment,
}

/// The shortest idle time that is taken for a habit: one that was closed at once tells of a restart.
const SHORTEST: Duration = Duration::from_millis(250);

/// Closings that are found within this time are one: workers look after their own every second.
const AT_ONCE: Duration = Duration::from_secs(3);

/// How much later than it happens an end may be found.
const LATE: Duration = Duration::from_secs(1);

/// How long a habit is believed in before it is believed to be half as strict.
const BELIEVED: Duration = Duration::from_secs(600);

/// Beyond this nobody asks.
const LONGEST: Duration = Duration::from_secs(3600);

impl Known {
    fn closed(&mut self, after: Duration, now: Moment) {
        if after < SHORTEST {
            return;
        }
        match &mut self.suspected {
            Some((youngest, at)) if now.since(*at) < AT_ONCE => *youngest = after.min(*youngest),
            suspected => {
                if let Some((before, _)) = suspected.filter(|(before, _)| agree(*before, after)) {
                    self.shown = Some(Shown { allowed: before.min(after), until: now.after(BELIEVED) });
                }
                *suspected = Some((after, now));
            }
        }
    }

    fn forget(&mut self, now: Moment) {
        if let Some(shown) = self.shown.filter(|shown| shown.until <= now) {
            let allowed = shown.allowed.saturating_mul(2);
            let shown = Shown { allowed, until: now.after(BELIEVED) };
            self.shown = (allowed < LONGEST).then_some(shown);
        }
    }

    fn allowed(&self) -> Option<Duration> {
        self.said.into_iter().chain(self.shown.map(|shown| shown.allowed)).min()
    }
}

/// Whether two ages may be those of one habit.
fn agree(one: Duration, other: Duration) -> bool {
    let (less, more) = (one.min(other), one.max(other));
    more - less <= more / 4 + LATE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u32) -> Moment {
        Moment(1).after(Duration::from_secs(second.into()))
    }

    fn after(closings: &[(u32, u64)]) -> Habit {
        let habit = Habit::default();
        for (second, age_ms) in closings {
            habit.closed(Duration::from_millis(*age_ms), at(*second));
        }
        habit
    }

    #[test]
    fn one_restart_is_no_habit_however_much_it_closes() {
        assert_eq!(after(&[(10, 300), (10, 9_000), (11, 320), (12, 300)]).allowed(), None);
        // Nor are two, that close what has rested for any time.
        assert_eq!(after(&[(10, 9_000), (60, 3_000)]).allowed(), None);
        assert_eq!(after(&[(10, 20), (60, 20)]).allowed(), None, "closed at once");
    }

    #[test]
    fn two_closings_that_agree_are_one() {
        let habit = after(&[(10, 5_100), (30, 5_900)]);
        assert_eq!(habit.allowed(), Some(Duration::from_millis(5_100)));
        // What restarts between them does not hide it for long.
        let habit = after(&[(10, 5_100), (30, 400), (50, 5_200), (70, 5_300)]);
        assert_eq!(habit.allowed(), Some(Duration::from_millis(5_200)));
    }

    #[test]
    fn a_habit_is_forgotten_slowly_and_learned_again_at_once() {
        let habit = after(&[(10, 5_000), (30, 5_000)]);
        habit.forget(at(600));
        assert_eq!(habit.allowed(), Some(Duration::from_secs(5)));
        let mut strictest = Vec::new();
        for hour in 1..12 {
            habit.forget(at(hour * 3_600));
            strictest.push(habit.allowed().map(|allowed| allowed.as_secs()));
        }
        assert_eq!(strictest[..3], [Some(10), Some(20), Some(40)]);
        assert_eq!(strictest[10], None);
        habit.closed(Duration::from_secs(5), at(60_000));
        assert_eq!(habit.allowed(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn its_last_word_counts_and_no_more_than_what_it_does() {
        let habit = Habit::default();
        for seconds in [5, 75, 15] {
            habit.says(Duration::from_secs(seconds));
            assert_eq!(habit.allowed(), Some(Duration::from_secs(seconds)));
        }
        habit.closed(Duration::from_secs(9), at(10));
        habit.closed(Duration::from_secs(9), at(40));
        assert_eq!(habit.allowed(), Some(Duration::from_secs(9)));
        habit.forget(at(10_000));
        assert_eq!(habit.allowed(), Some(Duration::from_secs(15)));
    }
}
