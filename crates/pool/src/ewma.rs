//! How long an endpoint takes to answer: a peak-sensitive moving average.
//!
//! After Finagle's `PeakEwma`: a rise is believed at once, a fall slowly. Without news the value sinks, so
//! that an endpoint which was slow once is given another chance, and in the end it counts as unknown.

use std::time::Duration;

use tieline_base::Moment;

const HALF_LIFE: Duration = Duration::from_secs(10);

/// After so long without news nothing is known: the value would have sunk to 1/64 and invite a stampede.
const STALE: Duration = Duration::from_secs(60);

/// A latency and when it was last measured. Fits one atomic ([`PeakEwma::to_bits`]).
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct PeakEwma {
    /// 0 if nothing is known.
    seconds: f32,
    /// In units of 2²⁰ ns; wraps after 52 days, when the value has long been stale.
    tick: u32,
}

impl PeakEwma {
    /// The average with `sample`, which was measured at `now`.
    #[must_use]
    pub(crate) fn observe(self, sample: Duration, now: Moment) -> PeakEwma {
        // No measurement is 0, which would mean "not known".
        let sample = sample.as_secs_f32().max(1e-9);
        let seconds = match self.sunk(now) {
            // The half-life decides how much of the old average is left, however many samples come.
            Some(old) if sample < old => sample + (old - sample) * self.decay(now),
            _ => sample,
        };
        PeakEwma { seconds, tick: tick(now) }
    }

    /// The average as of `now`; `None` if there is none, or if it is too old.
    pub(crate) fn at(self, now: Moment) -> Option<Duration> {
        self.sunk(now).map(Duration::from_secs_f32)
    }

    /// Whether nothing was measured for so long before `now`.
    pub(crate) fn is_older_than(self, age: Duration, now: Moment) -> bool {
        self.age(now) > age
    }

    /// Both halves in one word.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.seconds.to_bits()) << 32 | u64::from(self.tick)
    }

    /// What [`PeakEwma::to_bits`] made; 0 is "nothing known".
    pub(crate) fn from_bits(bits: u64) -> PeakEwma {
        PeakEwma { seconds: f32::from_bits((bits >> 32) as u32), tick: bits as u32 }
    }

    fn sunk(self, now: Moment) -> Option<f32> {
        let known = self.seconds > 0.0 && self.age(now) < STALE;
        known.then(|| self.seconds * self.decay(now))
    }

    fn decay(self, now: Moment) -> f32 {
        if self.tick == tick(now) {
            return 1.0;
        }
        (-self.age(now).as_secs_f32() / HALF_LIFE.as_secs_f32()).exp2()
    }

    fn age(self, now: Moment) -> Duration {
        let ticks = tick(now).wrapping_sub(self.tick);
        // Another thread's clock may have been read a moment after ours: that is no age of 52 days.
        let ticks = if ticks > u32::MAX / 2 { 0 } else { ticks };
        Duration::from_nanos(u64::from(ticks) << 20)
    }
}

fn tick(now: Moment) -> u32 {
    (now.0 >> 20) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1_000_000_000)
    }

    fn known(ewma: PeakEwma, now: Moment) -> f64 {
        ewma.at(now).unwrap().as_secs_f64()
    }

    #[test]
    fn a_peak_is_believed_at_once_and_forgotten_by_half_lives() {
        let calm = PeakEwma::default().observe(Duration::from_millis(1), at(1));
        let peak = calm.observe(Duration::from_secs(1), at(1));
        assert!((known(peak, at(1)) - 1.0).abs() < 1e-3);
        assert!((known(peak, at(11)) - 0.5).abs() < 1e-2);
        assert!((known(peak, at(31)) - 0.125).abs() < 1e-2);
    }

    #[test]
    fn good_news_right_after_a_peak_changes_little() {
        let peak = PeakEwma::default().observe(Duration::from_secs(1), at(1));
        let after = peak.observe(Duration::from_millis(1), Moment(at(1).0 + 10_000_000));
        assert!(known(after, at(1)) > 0.9);
    }

    #[test]
    fn old_news_is_no_news() {
        let ewma = PeakEwma::default().observe(Duration::from_millis(5), at(1));
        assert!(ewma.at(at(60)).is_some());
        assert_eq!(ewma.at(at(62)), None);
        assert_eq!(PeakEwma::default().at(at(0)), None);
    }

    proptest! {
        #[test]
        fn it_lies_between_zero_and_the_greatest_sample(
            samples in prop::collection::vec((0u64..10_000_000, 0u64..20_000_000_000), 1..50),
        ) {
            let (mut ewma, mut now, mut greatest) = (PeakEwma::default(), Moment(0), Duration::ZERO);
            for (micros, pause_ns) in samples {
                now = now.after(Duration::from_nanos(pause_ns));
                let sample = Duration::from_micros(micros);
                greatest = greatest.max(sample);
                ewma = ewma.observe(sample, now);
                let value = ewma.at(now).unwrap();
                prop_assert!(value <= greatest.mul_f64(1.001) + Duration::from_nanos(2));
                prop_assert!(value.mul_f64(1.001) + Duration::from_nanos(2) >= sample);
            }
        }

        #[test]
        fn it_survives_its_bits(micros in 1u64..10_000_000, at_ns: u64) {
            let ewma = PeakEwma::default().observe(Duration::from_micros(micros), Moment(at_ns));
            prop_assert_eq!(PeakEwma::from_bits(ewma.to_bits()), ewma);
        }
    }
}
