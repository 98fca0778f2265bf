//! Medians, spreads and percentiles.

use std::fmt;
use std::time::Duration;

/// The middle of `values`; 0 if there are none.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The value that `percent` of `values` do not exceed, by the nearest rank; 0 if there are none.
pub(crate) fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

/// The ratio of two products, round by round.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    least: f64,
    greatest: f64,
}

impl Ratio {
    /// Each of `ours` divided by the one of `theirs` in the same round; `None` without rounds.
    pub(crate) fn of(ours: &[f64], theirs: &[f64]) -> Option<Ratio> {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        let least = ratios.iter().copied().reduce(f64::min)?;
        let greatest = ratios.iter().copied().reduce(f64::max)?;
        Some(Ratio { median: median(&ratios), least, greatest })
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} ({:.2}–{:.2})", self.median, self.least, self.greatest)
    }
}

/// A duration in milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::{Ratio, median, percentile};

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(
            (median(&values), percentile(&values, 99.0), percentile(&values, 100.0)),
            (50.0, 99.0, 100.0)
        );
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[])), (2.0, 0.0));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The second round was slow for both: its ratio is as good as the others'.
        let ratio = Ratio::of(&[1.0, 10.0, 3.0], &[2.0, 20.0, 3.0]).unwrap();
        assert_eq!(ratio.to_string(), "0.50 (0.50–1.00)");
        assert_eq!(Ratio::of(&[], &[]), None);
    }
}
