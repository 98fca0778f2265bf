//! Which endpoint comes next: pure, from what is known about each of them.

mod hash;
mod least;
mod tiers;
mod turn;
mod why;

use std::fmt;
use std::time::Duration;

use tieline_base::Percent;

pub use hash::stable_key;
pub use tiers::{Selection, select};
pub use turn::stride;
pub use why::Why;

use why::Rule;

/// How an upstream spreads its leases over its endpoints.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Balance {
    /// The better of two drawn at random, by (in flight + 1) × latency ÷ weight: a slow one is left at once.
    #[default]
    PeakEwma,
    /// The better of two drawn at random, by (in flight + 1) ÷ weight.
    LeastRequests,
    /// Each in its turn, as often as its weight says, evenly interleaved.
    RoundRobin,
    /// Drawn by weight.
    Random,
    /// The same key to the same endpoint as long as it has no more than its share of the load.
    Hash,
}

impl Balance {
    /// Every method.
    pub const ALL: [Balance; 5] =
        [Balance::PeakEwma, Balance::LeastRequests, Balance::RoundRobin, Balance::Random, Balance::Hash];

    /// The word for it in the config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Balance::PeakEwma => "peak-ewma",
            Balance::LeastRequests => "least-requests",
            Balance::RoundRobin => "round-robin",
            Balance::Random => "random",
            Balance::Hash => "hash",
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether an endpoint is thought fit for new leases.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// Nothing speaks against it.
    Healthy,
    /// Its health checks fail.
    Unhealthy,
    /// Too many leases in a row failed; it rests.
    Ejected,
    /// The agent that offers it is not linked up just now.
    Away,
    /// Too much of what it was asked failed of late; it is asked nothing, not even in panic.
    BreakerOpen,
    /// An operator takes it out of use.
    Draining,
}

impl Standing {
    /// Whether those who were there before may come back to it.
    pub fn keeps_its_own(self) -> bool {
        matches!(self, Standing::Healthy | Standing::Draining)
    }

    /// The word for it in the API and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Standing::Healthy => "healthy",
            Standing::Unhealthy => "unhealthy",
            Standing::Ejected => "ejected",
            Standing::Away => "away",
            Standing::BreakerOpen => "breaker-open",
            Standing::Draining => "draining",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// All that the choice depends on, for one endpoint.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Candidate {
    /// What it is to the hash: the same in every process that knows it by the same name ([`stable_key`]).
    pub key: u64,
    /// Its share of the load, slow start applied; above 0.
    pub weight: f64,
    /// Leases out.
    pub in_flight: u32,
    /// How long it takes to answer; `None` if not known.
    pub latency: Option<Duration>,
    /// When its next turn is, in round-robin's own time.
    pub pass: u64,
    /// Its tier; lower ones are used first.
    pub tier: u8,
    /// Whether it is thought fit.
    pub standing: Standing,
    /// Whether its cap leaves room for one more lease.
    pub room: bool,
    /// Whether this ask has tried it already and failed.
    pub tried: bool,
}

/// What differs from one choice to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Turn {
    /// 64 random bits.
    pub random: u64,
    /// The key of [`Balance::Hash`].
    pub hash: u64,
    /// The [`Candidate::key`] that is wanted before all others.
    pub wish: Option<u64>,
    /// Round-robin's time: the pass of the endpoint that was chosen last.
    pub clock: u64,
}

/// The endpoint chosen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Choice {
    /// Its place in the slice.
    pub index: usize,
    /// Why it.
    pub why: Why,
}

/// Why none was chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoChoice {
    /// There is no endpoint, or an operator drains them all.
    Empty,
    /// Those in use are at their caps.
    Full,
}

/// Chooses one of `candidates`. The one that is wished for comes first, if it may be chosen. Else the usable
/// tier ([`select`]), then those with room that were not yet tried (or, when all were, any with room), then
/// the method. Allocates only if `scratch` is too small.
///
/// # Errors
/// [`NoChoice`].
pub fn pick(
    balance: Balance,
    panic: Percent,
    candidates: &[Candidate],
    turn: Turn,
    scratch: &mut Vec<usize>,
) -> Result<Choice, NoChoice> {
    let selection = select(candidates, panic);
    if let Some(index) = turn.wish.and_then(|key| wished(candidates, key)) {
        return Ok(Choice { index, why: Why::wished(balance, &candidates[index], selection) });
    }
    let selection = selection.ok_or(NoChoice::Empty)?;
    gather(scratch, candidates, |c| selection.admits(c) && c.room && !c.tried);
    if scratch.is_empty() {
        gather(scratch, candidates, |c| selection.admits(c) && c.room);
    }
    let (index, rule) = match *scratch.as_slice() {
        [] => return Err(NoChoice::Full),
        [only] => (only, Rule::Only),
        _ => by_method(balance, candidates, scratch, turn),
    };
    let chosen = &candidates[index];
    let why = Why {
        balance,
        rule,
        in_flight: chosen.in_flight,
        latency: chosen.latency,
        selection,
        again: chosen.tried,
    };
    Ok(Choice { index, why })
}

/// The candidate of this key, if it may be chosen by it alone: an operator's drain is for others.
fn wished(candidates: &[Candidate], key: u64) -> Option<usize> {
    candidates.iter().position(|c| c.key == key && c.standing.keeps_its_own() && c.room && !c.tried)
}

fn gather(scratch: &mut Vec<usize>, candidates: &[Candidate], fits: impl Fn(&Candidate) -> bool) {
    scratch.clear();
    scratch.extend(candidates.iter().enumerate().filter(|(_, c)| fits(c)).map(|(index, _)| index));
}

fn by_method(balance: Balance, candidates: &[Candidate], eligible: &[usize], turn: Turn) -> (usize, Rule) {
    match balance {
        Balance::PeakEwma => least::by_latency(candidates, eligible, turn.random),
        Balance::LeastRequests => least::by_requests(candidates, eligible, turn.random),
        Balance::RoundRobin => (turn::next(candidates, eligible, turn.clock), Rule::NextInTurn),
        Balance::Random => (turn::drawn(candidates, eligible, turn.random), Rule::Drawn),
        Balance::Hash => hash::rendezvous(candidates, eligible, turn.hash),
    }
}

#[cfg(test)]
mod tests;
