//! Tiers: which endpoints are in use at all.

use tieline_base::Percent;

use super::{Candidate, Standing};

/// The tier in use, and whether health counts in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selection {
    /// The tier in use.
    pub tier: u8,
    /// How many of its endpoints are healthy.
    pub available: usize,
    /// How many it has, drained ones left out.
    pub members: usize,
    /// No tier has enough healthy endpoints, so this one is used whatever their health.
    pub panic: bool,
}

impl Selection {
    /// Whether `candidate` is in use.
    pub fn admits(&self, candidate: &Candidate) -> bool {
        candidate.tier == self.tier && if self.panic { is_usable(candidate) } else { is_available(candidate) }
    }
}

/// Finds the tier in use: the lowest whose healthy share is at least `panic`. If no tier has that, health is
/// disregarded in the lowest tier: a few endpoints carrying the load of all would only fail too, and then the
/// checks are as likely wrong as the endpoints. A tier all of whose endpoints were tried is passed over while
/// a later one has untried ones. `None` if there is no endpoint, or all are drained by
/// an operator or shut by their breakers.
pub fn select(candidates: &[Candidate], panic: Percent) -> Option<Selection> {
    let fit = |tier: &Census| tier.is_fit(panic);
    let calm = tiers(candidates)
        .find(|tier| fit(tier) && tier.untried_available > 0)
        .or_else(|| tiers(candidates).find(fit))
        .map(|tier| tier.selection(false));
    calm.or_else(|| {
        tiers(candidates)
            .find(|tier| tier.untried_usable > 0)
            .or_else(|| tiers(candidates).find(|tier| tier.usable > 0))
            .map(|tier| tier.selection(true))
    })
}

#[derive(Default)]
struct Census {
    tier: u8,
    members: usize,
    available: usize,
    usable: usize,
    untried_usable: usize,
    untried_available: usize,
}

impl Census {
    fn of(candidates: &[Candidate], tier: u8) -> Census {
        let mut census = Census { tier, ..Census::default() };
        for candidate in candidates.iter().filter(|c| c.tier == tier && is_member(c)) {
            let (available, untried) = (usize::from(is_available(candidate)), usize::from(!candidate.tried));
            census.members += 1;
            census.available += available;
            let usable = usize::from(is_usable(candidate));
            census.usable += usable;
            census.untried_usable += usable * untried;
            census.untried_available += available * untried;
        }
        census
    }

    fn is_fit(&self, panic: Percent) -> bool {
        self.available > 0 && self.available * 100 >= usize::from(panic.0) * self.members
    }

    fn selection(self, panic: bool) -> Selection {
        Selection { tier: self.tier, available: self.available, members: self.members, panic }
    }
}

/// The tiers, lowest first.
fn tiers(candidates: &[Candidate]) -> impl Iterator<Item = Census> {
    let above = |below: Option<u8>| {
        candidates.iter().map(|c| c.tier).filter(|tier| below.is_none_or(|below| *tier > below)).min()
    };
    std::iter::successors(above(None), move |tier| above(Some(*tier)))
        .map(|tier| Census::of(candidates, tier))
}

fn is_available(candidate: &Candidate) -> bool {
    candidate.standing == Standing::Healthy
}

fn is_member(candidate: &Candidate) -> bool {
    candidate.standing != Standing::Draining
}

/// Whether it may be used where health is disregarded.
fn is_usable(candidate: &Candidate) -> bool {
    is_member(candidate) && candidate.standing != Standing::BreakerOpen
}
