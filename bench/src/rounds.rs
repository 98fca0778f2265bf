//! Figures of several who are measured in turns, one a round for each.

use crate::figure::{Ratio, median};

/// What was measured: for each of them, one figure a round.
pub(crate) struct Rounds<P> {
    figures: Vec<(P, Vec<f64>)>,
}

impl<P: Copy + PartialEq> Rounds<P> {
    /// Measures each of `all` in turn, `rounds` times; every round begins with another one.
    pub(crate) fn measure(
        all: &[P],
        rounds: u32,
        mut figure: impl FnMut(P) -> anyhow::Result<f64>,
    ) -> anyhow::Result<Self> {
        let mut measured = Self { figures: all.iter().map(|&one| (one, Vec::new())).collect() };
        for round in 0..rounds as usize {
            for turn in 0..all.len() {
                let (one, figures) = &mut measured.figures[(round + turn) % all.len()];
                figures.push(figure(*one)?);
            }
        }
        Ok(measured)
    }

    /// What was measured elsewhere, for each of `all`: figures in the order of their rounds.
    pub(crate) fn told(all: &[P], figures: &[(P, f64)]) -> Self {
        let of = |one: P| figures.iter().filter(move |(other, _)| *other == one).map(|it| it.1);
        Self { figures: all.iter().map(|&one| (one, of(one).collect())).collect() }
    }

    /// The same rounds with the figures of `variant` as those of `one`.
    pub(crate) fn with(&self, variant: P, one: P) -> Self {
        let figures = self.figures.iter().filter(|(other, _)| *other != one).cloned();
        let renamed = figures.map(|(other, figures)| (if other == variant { one } else { other }, figures));
        Self { figures: renamed.collect() }
    }

    /// The figures of `one`, one a round; `None` if it was not measured.
    pub(crate) fn of(&self, one: P) -> Option<&[f64]> {
        self.figures.iter().find(|(other, _)| *other == one).map(|(_, figures)| figures.as_slice())
    }

    /// The median of `one`, as text; a dash if it was not measured.
    pub(crate) fn shown(&self, one: P, format: impl Fn(f64) -> String) -> String {
        self.median(one).map_or_else(|| "–".to_owned(), format)
    }

    /// The median of `one`.
    pub(crate) fn median(&self, one: P) -> Option<f64> {
        self.of(one).map(median)
    }

    /// The figures of `one` divided by those of `other`, round by round.
    pub(crate) fn ratio(&self, one: P, other: P) -> Option<Ratio> {
        Ratio::of(self.of(one)?, self.of(other)?)
    }
}

#[cfg(test)]
mod tests {
    use super::Rounds;
    use crate::tunnel::Peer;

    #[test]
    fn peers_take_turns_and_a_ratio_is_taken_round_by_round() {
        let mut turn = 0.0;
        let all = [Peer::Tieline, Peer::Rathole];
        let rounds = Rounds::measure(&all, 2, |_| {
            turn += 1.0;
            Ok(turn)
        });
        let rounds = rounds.unwrap();
        assert_eq!(
            (rounds.of(Peer::Tieline), rounds.of(Peer::Rathole)),
            (Some(&[1.0, 4.0][..]), Some(&[2.0, 3.0][..]))
        );
        assert_eq!(rounds.ratio(Peer::Tieline, Peer::Rathole).unwrap().to_string(), "0.50 (0.50–1.33)");
        assert_eq!(rounds.shown(Peer::SshLocal, |it| it.to_string()), "–");
    }
}
