//! Why an endpoint was chosen, in words for `tieline show`.

use std::fmt;
use std::time::Duration;

use super::{Balance, Candidate, Selection};

/// Why an endpoint was chosen; `Display` says it in one line. Small and `Copy`: text is made when one asks.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Why {
    pub(super) balance: Balance,
    pub(super) rule: Rule,
    pub(super) in_flight: u32,
    pub(super) latency: Option<Duration>,
    pub(super) selection: Selection,
    pub(super) again: bool,
}

impl Why {
    /// It is the only endpoint there is, and healthy.
    pub(crate) fn only(balance: Balance, in_flight: u32, tier: u8) -> Why {
        let selection = Selection { tier, available: 1, members: 1, panic: false };
        Why { balance, rule: Rule::Only, in_flight, latency: None, selection, again: false }
    }

    /// The endpoint's breaker lets one ask through.
    pub(crate) fn probe(balance: Balance, in_flight: u32, selection: Selection) -> Why {
        Why { balance, rule: Rule::Probe, in_flight, latency: None, selection, again: false }
    }

    /// For an endpoint that was wished for.
    pub(super) fn wished(balance: Balance, chosen: &Candidate, selection: Option<Selection>) -> Self {
        let none = Selection { tier: chosen.tier, available: 0, members: 0, panic: false };
        let Candidate { in_flight, latency, .. } = *chosen;
        let selection = selection.unwrap_or(none);
        Self { balance, rule: Rule::Wished, in_flight, latency, selection, again: false }
    }

    /// Whether it was chosen because it was wished for.
    pub fn by_wish(&self) -> bool {
        self.rule == Rule::Wished
    }

    /// Whether health was disregarded, because too few endpoints have it.
    pub fn in_panic(&self) -> bool {
        self.selection.panic
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Rule {
    Only,
    Probe,
    Wished,
    LowestOfTwo,
    NextInTurn,
    Drawn,
    HashFirst,
    /// The key's first choice is at its bound, with so many in flight.
    HashNextBest {
        bound_by: u32,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Why { balance, in_flight, .. } = self;
        match self.rule {
            Rule::Only => write!(f, "the only one with room")?,
            Rule::Probe => write!(f, "to see whether it is well again: its breaker is half open")?,
            Rule::Wished => write!(f, "the one of its session")?,
            Rule::LowestOfTwo => write!(f, "lowest of two by {balance}: {in_flight} in flight")?,
            Rule::NextInTurn => write!(f, "next in turn by {balance}")?,
            Rule::Drawn => write!(f, "drawn by weight")?,
            Rule::HashFirst => write!(f, "the key's first choice by {balance}")?,
            Rule::HashNextBest { bound_by } => write!(
                f,
                "the key's next best by {balance}, as its first choice carries over 1.25 times the average \
                 ({bound_by} in flight)"
            )?,
        }
        if self.rule == Rule::LowestOfTwo && self.balance == Balance::PeakEwma {
            match self.latency {
                Some(latency) => write!(f, " x {latency:.1?}")?,
                None => write!(f, ", latency not known yet")?,
            }
        }
        let Selection { tier, available, members, panic } = self.selection;
        write!(f, "; tier {tier}; {available} of {members} available")?;
        if panic {
            write!(f, ", too few, so health is disregarded")?;
        }
        if self.again {
            write!(f, "; tried again, as no other is left")?;
        }
        Ok(())
    }
}
