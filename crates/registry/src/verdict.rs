//! When a connection must end by a word from outside, and why.

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire};

use tieline_base::{Moment, Reason};

/// An order to end: at `at`, for `reason`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// When, to the millisecond.
    pub at: Moment,
    /// Why.
    pub reason: Reason,
}

/// The earliest order given so far. One atomic word: milliseconds above, the reason's code in the lowest
/// byte, so that the smaller number is the earlier order.
#[derive(Debug)]
pub(crate) struct Sentence(AtomicU64);

const NONE: u64 = u64::MAX;
const NS_PER_MS: u64 = 1_000_000;

impl Sentence {
    pub(crate) const fn none() -> Self {
        Self(AtomicU64::new(NONE))
    }

    /// Notes an order; tells whether it is now the earliest.
    pub(crate) fn hasten(&self, verdict: Verdict) -> bool {
        let word = pack(verdict);
        self.0.fetch_min(word, AcqRel) > word
    }

    /// Replaces whatever order there was.
    pub(crate) fn replace(&self, verdict: Option<Verdict>) -> bool {
        let word = verdict.map_or(NONE, pack);
        self.0.swap(word, AcqRel) != word
    }

    pub(crate) fn read(&self) -> Option<Verdict> {
        unpack(self.0.load(Acquire))
    }
}

fn pack(verdict: Verdict) -> u64 {
    // The largest time stands for itself only in `NONE`; 2⁵⁶ ms are two million years.
    let ms = (verdict.at.0 / NS_PER_MS).min((1 << 55) - 1);
    ms << 8 | verdict.reason as u64
}

fn unpack(word: u64) -> Option<Verdict> {
    let reason = Reason::from_code(word as u8)?;
    (word != NONE).then(|| Verdict { at: Moment((word >> 8).saturating_mul(NS_PER_MS)), reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verdict() -> impl Strategy<Value = Verdict> {
        (0u64..1 << 40, 0..Reason::ALL.len())
            .prop_map(|(ms, code)| Verdict { at: Moment(ms * NS_PER_MS), reason: Reason::ALL[code] })
    }

    proptest! {
        #[test]
        fn the_earliest_order_stands(orders in prop::collection::vec(verdict(), 1..20)) {
            let sentence = Sentence::none();
            prop_assert_eq!(sentence.read(), None);
            for &order in &orders {
                sentence.hasten(order);
            }
            let earliest = orders.iter().map(|order| order.at).min();
            prop_assert_eq!(sentence.read().map(|standing| standing.at), earliest);
            prop_assert!(orders.contains(&sentence.read().unwrap()));
        }
    }
}
