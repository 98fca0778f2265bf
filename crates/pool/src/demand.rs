//! How many places were wanted at once of late: those that were taken, and those that were waited for.

use std::time::Duration;

/// A bucket lasts so long.
pub(crate) const BUCKET: Duration = Duration::from_secs(10);

/// So many whole ones count besides the one that runs: half a minute.
const BUCKETS: usize = 3;

/// The most that was wanted at once, in each of the last buckets. One look at a moment says little of those
/// who come in bursts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demand {
    now: u32,
    past: [u32; BUCKETS],
}

impl Demand {
    /// So many are wanted by now.
    pub(crate) fn note(&mut self, wanted: u32) {
        self.now = self.now.max(wanted);
    }

    /// A bucket is over, and so many are wanted just now.
    pub(crate) fn turn(&mut self, wanted: u32) {
        self.past.rotate_right(1);
        self.past[0] = std::mem::replace(&mut self.now, wanted);
    }

    /// The most that was wanted at once in all of them.
    pub(crate) fn most(&self) -> u32 {
        self.past.into_iter().fold(self.now, u32::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_for_half_a_minute_and_then_no_more() {
        let mut demand = Demand::default();
        [3, 8, 2].into_iter().for_each(|wanted| demand.note(wanted));
        assert_eq!(demand.most(), 8);
        let mut turn = |wanted| {
            demand.turn(wanted);
            demand.most()
        };
        assert_eq!([turn(2), turn(5), turn(1), turn(1)], [8, 8, 8, 5]);
        // What is wanted all the time is wanted in each.
        assert_eq!([turn(1), turn(1), turn(1)], [5, 1, 1]);
    }
}
