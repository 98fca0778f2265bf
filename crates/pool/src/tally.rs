//! Leases out at one endpoint: one atomic word while there is no cap, under the gate's lock once there is
//! one.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count, and in the lowest bit whether the gate governs it. While it does, only the holder of the gate's
/// lock changes the count; because both are one word, not one lease is miscounted when caps come up on a
/// reload.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

const GOVERNED: u64 = 1;
const ONE: u64 = 2;

impl Tally {
    /// The count.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.0.load(Ordering::Relaxed) / ONE).unwrap_or(u32::MAX)
    }

    /// Counts one more; false, with nothing changed, if only the gate may.
    pub(crate) fn enter(&self) -> bool {
        self.update(|word| word + ONE)
    }

    /// Counts one less; false, with nothing changed, if only the gate may.
    pub(crate) fn leave(&self) -> bool {
        self.update(|word| word - ONE)
    }

    /// From now on only the gate counts here. Says what the count is.
    pub(crate) fn govern(&self) -> u32 {
        u32::try_from(self.0.fetch_or(GOVERNED, Ordering::AcqRel) / ONE).unwrap_or(u32::MAX)
    }

    /// The gate counts one more.
    pub(crate) fn enter_governed(&self) {
        self.0.fetch_add(ONE, Ordering::AcqRel);
    }

    /// The gate counts one less.
    pub(crate) fn leave_governed(&self) {
        self.0.fetch_sub(ONE, Ordering::AcqRel);
    }

    fn update(&self, change: impl Fn(u64) -> u64) -> bool {
        let free = |word: u64| (word & GOVERNED == 0).then(|| change(word));
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn once_governed_only_the_gate_counts() {
        let tally = Tally::default();
        assert!(tally.enter() && tally.enter() && tally.leave());
        assert_eq!(tally.govern(), 1);
        assert!(!tally.enter() && !tally.leave());
        tally.enter_governed();
        assert_eq!(tally.count(), 2);
        tally.leave_governed();
        assert_eq!(tally.count(), 1);
    }

    #[test]
    fn no_lease_is_lost_when_the_gate_takes_over() {
        for _ in 0..200 {
            let tally = Tally::default();
            let (entered, seen) = std::thread::scope(|scope| {
                let entering = || (0..100).filter(|_| tally.enter()).count() as u32;
                let threads = [scope.spawn(entering), scope.spawn(entering)];
                let seen = tally.govern();
                (threads.map(|thread| thread.join().unwrap()).iter().sum::<u32>(), seen)
            });
            assert_eq!(seen, entered);
        }
    }
}
