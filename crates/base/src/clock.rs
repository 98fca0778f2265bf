//! The one home of time: nothing else asks the machine what time it is.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// A point on the machine's monotonic clock, in nanoseconds since [`Clock::start`]. Eight bytes, fit for
/// atomics.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `later` after this one; at most the end of time.
    #[must_use]
    pub fn after(self, later: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Reads the machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clock;

struct Anchor {
    monotonic_ns: u64,
    instant: Instant,
    wall: SystemTime,
}

static ANCHOR: OnceLock<Anchor> = OnceLock::new();

#[allow(clippy::disallowed_methods)] // this is their one home
impl Clock {
    /// Fixes the zero of every [`Moment`]. The first reading does it too; call it early for an exact uptime.
    pub fn start() {
        anchor();
    }

    /// Now, to the nanosecond.
    pub fn now() -> Moment {
        Self::since_start(ClockId::Monotonic)
    }

    /// Now, to the kernel's tick (1 to 10 ms) at a fraction of the cost: for "when did bytes last move".
    pub fn coarse() -> Moment {
        Self::since_start(ClockId::MonotonicCoarse)
    }

    /// The wall clock.
    pub fn wall() -> SystemTime {
        SystemTime::now()
    }

    /// The wall-clock time of `moment`, as the wall clock stood when the process started.
    pub fn wall_of(moment: Moment) -> SystemTime {
        anchor().wall + Duration::from_nanos(moment.0)
    }

    /// `moment` in the terms of the standard library, for timers.
    pub fn instant_of(moment: Moment) -> Instant {
        let anchor = anchor();
        anchor.instant.checked_add(Duration::from_nanos(moment.0)).unwrap_or(anchor.instant)
    }

    /// How long this machine has slept since it was started: what its monotonic clock has not counted.
    pub fn slept() -> Duration {
        let monotonic = nanoseconds(clock_gettime(ClockId::Monotonic));
        Duration::from_nanos(nanoseconds(clock_gettime(ClockId::Boottime)).saturating_sub(monotonic))
    }

    fn since_start(clock: ClockId) -> Moment {
        let zero = anchor().monotonic_ns;
        Moment(nanoseconds(clock_gettime(clock)).saturating_sub(zero))
    }
}

#[allow(clippy::disallowed_methods)] // the one home of time
fn anchor() -> &'static Anchor {
    ANCHOR.get_or_init(|| Anchor {
        monotonic_ns: nanoseconds(clock_gettime(ClockId::Monotonic)),
        instant: Instant::now(),
        wall: SystemTime::now(),
    })
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::{Clock, Moment};
    use std::time::Duration;

    #[test]
    fn moments_add_and_subtract_without_overflow() {
        let later = Moment(5).after(Duration::from_nanos(7));
        assert_eq!(later, Moment(12));
        assert_eq!(later.since(Moment(5)), Duration::from_nanos(7));
        assert_eq!(Moment(5).since(later), Duration::ZERO);
        assert_eq!(Moment(5).after(Duration::MAX), Moment(u64::MAX));
    }

    #[test]
    fn coarse_is_never_ahead_of_now() {
        Clock::start();
        let coarse = Clock::coarse();
        assert!(coarse <= Clock::now());
    }
}
