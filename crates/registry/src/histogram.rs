//! Durations counted in buckets that double, so that readings of many workers add up exactly.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many buckets: bucket `n` holds durations of at most `64 µs · 2ⁿ`, the last one everything longer.
pub const BUCKETS: usize = 32;

const SMALLEST_BITS: u32 = 6;

/// A histogram written by one thread and read by any.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts `duration`.
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        add(&self.counts[bucket(us)], 1);
        add(&self.sum_us, us);
    }

    /// Adds what it holds to `reading`.
    pub fn add_to(&self, reading: &mut HistogramReading) {
        for (total, count) in reading.counts.iter_mut().zip(&self.counts) {
            *total += count.load(Relaxed);
        }
        reading.sum += Duration::from_micros(self.sum_us.load(Relaxed));
    }
}

/// Adds without a locked instruction: a counter has one writer.
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(amount), Relaxed);
}

fn bucket(us: u64) -> usize {
    let bits = u64::BITS - us.saturating_sub(1).leading_zeros();
    (bits.saturating_sub(SMALLEST_BITS) as usize).min(BUCKETS - 1)
}

/// What histograms held when they were read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HistogramReading {
    /// How many durations each bucket holds (not cumulative).
    pub counts: [u64; BUCKETS],
    /// Their sum.
    pub sum: Duration,
}

impl HistogramReading {
    /// The upper bound of bucket `index` in seconds; infinite for the last.
    pub fn bound_seconds(index: usize) -> f64 {
        if index + 1 >= BUCKETS { f64::INFINITY } else { (64u64 << index) as f64 / 1e6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_duration_lies_within_its_bucket(us in any::<u64>()) {
            let index = bucket(us);
            let seconds = us as f64 / 1e6;
            prop_assert!(seconds <= HistogramReading::bound_seconds(index));
            prop_assert!(index == 0 || seconds > HistogramReading::bound_seconds(index - 1) * (1.0 - 1e-9));
        }
    }
}
