//! Active health: how many answers in a row change an endpoint's verdict.

use std::num::NonZeroU32;

/// How many answers in a row it takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Thresholds {
    /// Good ones, for an endpoint that is down to be up again.
    pub rise: NonZeroU32,
    /// Bad ones, for an endpoint that is up to be down.
    pub fall: NonZeroU32,
}

/// What the checks say of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Verdict {
    /// Not checked yet: it counts as up, and its first check alone decides.
    #[default]
    Unknown,
    /// It answers as it should.
    Up,
    /// It does not.
    Down,
}

/// The verdict and the row of answers that speaks against it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Health {
    verdict: Verdict,
    against: u32,
}

impl Health {
    /// What the checks say now.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Takes one check's result; says the new verdict if it changed.
    pub(crate) fn observe(&mut self, passed: bool, thresholds: Thresholds) -> Option<Verdict> {
        let (opposite, needed) = match (self.verdict, passed) {
            (Verdict::Up, true) | (Verdict::Down, false) => {
                self.against = 0;
                return None;
            }
            (Verdict::Unknown, true) => (Verdict::Up, 1),
            (Verdict::Unknown, false) => (Verdict::Down, 1),
            (Verdict::Down, true) => (Verdict::Up, thresholds.rise.get()),
            (Verdict::Up, false) => (Verdict::Down, thresholds.fall.get()),
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        *self = Health { verdict: opposite, against: 0 };
        Some(opposite)
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, Thresholds, Verdict};
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    fn thresholds(rise: u32, fall: u32) -> Thresholds {
        Thresholds { rise: NonZeroU32::new(rise).unwrap(), fall: NonZeroU32::new(fall).unwrap() }
    }

    #[test]
    fn the_first_check_alone_decides() {
        for (passed, verdict) in [(true, Verdict::Up), (false, Verdict::Down)] {
            assert_eq!(Health::default().observe(passed, thresholds(5, 5)), Some(verdict));
        }
    }

    #[test]
    fn a_good_answer_breaks_a_bad_row() {
        let (mut health, thresholds) = (Health::default(), thresholds(2, 3));
        let verdicts: Vec<_> = [true, false, false, true, false, false, false, true, true]
            .into_iter()
            .map(|passed| health.observe(passed, thresholds))
            .collect();
        let (up, down) = (Some(Verdict::Up), Some(Verdict::Down));
        assert_eq!(verdicts, [up, None, None, None, None, None, down, None, up]);
    }

    proptest! {
        /// The verdict changes exactly when the last answers, as many as it takes, all speak against it.
        #[test]
        fn the_verdict_is_what_the_last_row_says(
            answers in prop::collection::vec(any::<bool>(), 1..60), rise in 1u32..5, fall in 1u32..5,
        ) {
            let (mut health, mut expected) = (Health::default(), Verdict::Unknown);
            let mut since = 0; // answers before this one were used up by the last change
            for (end, &answer) in answers.iter().enumerate() {
                health.observe(answer, thresholds(rise, fall));
                let needed = match expected {
                    Verdict::Unknown => 1,
                    Verdict::Up => fall,
                    Verdict::Down => rise,
                } as usize;
                let wanted = expected == Verdict::Down || (expected == Verdict::Unknown && answer);
                let row = &answers[since..=end];
                if row.len() >= needed && row[row.len() - needed..].iter().all(|a| *a == wanted) {
                    expected = if wanted { Verdict::Up } else { Verdict::Down };
                    since = end + 1;
                }
                prop_assert_eq!(health.verdict(), expected);
            }
        }
    }
}
