//! The power of two choices: two drawn at random, the cheaper taken.
//!
//! Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001): nearly as even as comparing
//! all, and no endpoint that looks cheap is stormed by everybody at once.

use super::{Candidate, Rule};

pub(super) fn by_requests(candidates: &[Candidate], eligible: &[usize], random: u64) -> (usize, Rule) {
    lower_of_two(eligible, random, |index| load(&candidates[index]))
}

/// An endpoint of unknown latency is taken to be as fast as the known ones are on average: it gets its share
/// from the start, and what it has in flight protects it from more.
pub(super) fn by_latency(candidates: &[Candidate], eligible: &[usize], random: u64) -> (usize, Rule) {
    let seconds = |index: usize| candidates[index].latency.map(|latency| latency.as_secs_f64());
    lower_of_two(eligible, random, |index| {
        let latency = seconds(index).unwrap_or_else(|| mean(eligible.iter().filter_map(|i| seconds(*i))));
        load(&candidates[index]) * latency
    })
}

/// What the endpoint would carry, the new lease included.
fn load(candidate: &Candidate) -> f64 {
    (f64::from(candidate.in_flight) + 1.0) / candidate.weight
}

/// The mean; 1 for no number, which leaves the comparison to the load.
fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = numbers.fold((0.0, 0.0), |(sum, count), number| (sum + number, count + 1.0));
    if count == 0.0 { 1.0 } else { sum / count }
}

/// Both draws are in random order, so that equal costs fall to either. Needs two eligible ones.
fn lower_of_two(eligible: &[usize], random: u64, cost: impl Fn(usize) -> f64) -> (usize, Rule) {
    let count = eligible.len() as u64;
    let first = ((random & 0xffff_ffff) * count) >> 32;
    let other = ((random >> 32) * (count - 1)) >> 32;
    let second = if other >= first { other + 1 } else { other };
    let (first, second) = (eligible[first as usize], eligible[second as usize]);
    let lower = if cost(second) < cost(first) { second } else { first };
    (lower, Rule::LowestOfTwo)
}
