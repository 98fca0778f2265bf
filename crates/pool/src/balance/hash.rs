//! Consistent hashing: weighted rendezvous with bounded load.
//!
//! Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates" (1998): each endpoint draws a
//! number for the key, the best wins, so an endpoint that leaves moves only its own keys. Mirrokni, Thorup
//! and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2018): nobody carries more than 1.25 times the
//! average.

use super::{Candidate, Rule};

/// What an endpoint may carry, in shares of the average.
const BOUND: f64 = 1.25;

/// Up to here no bound holds: with a handful in flight a key's own endpoint is worth more than evenness.
const BOUND_FLOOR: f64 = 8.0;

/// What an endpoint known as `name` is to the hash: the same in every process and version. FNV-1a, mixed.
pub fn stable_key(name: &str) -> u64 {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(name.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The key's best endpoint that is within its bound.
pub(super) fn rendezvous(candidates: &[Candidate], eligible: &[usize], hash: u64) -> (usize, Rule) {
    let of = |index: &usize| &candidates[*index];
    let carried: f64 = eligible.iter().map(|index| f64::from(of(index).in_flight)).sum::<f64>() + 1.0;
    let weights: f64 = eligible.iter().map(|index| of(index).weight).sum();
    let within = |index: &&usize| {
        let bound = (BOUND * carried * of(index).weight / weights).ceil().max(BOUND_FLOOR);
        f64::from(of(index).in_flight) + 1.0 <= bound
    };
    let key = mix(hash);
    let by_draw = |a: &&usize, b: &&usize| draw(of(a), key).total_cmp(&draw(of(b), key));
    let first = eligible.iter().min_by(by_draw).copied().unwrap_or_default();
    match eligible.iter().filter(within).min_by(by_draw).copied() {
        Some(best) if best != first => (best, Rule::HashNextBest { bound_by: candidates[first].in_flight }),
        _ => (first, Rule::HashFirst),
    }
}

/// An exponentially distributed number of rate `weight`: who draws the smallest does so by share of weight.
fn draw(candidate: &Candidate, key: u64) -> f64 {
    let uniform = ((mix(candidate.key ^ key) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -uniform.ln() / candidate.weight
}

/// SplitMix64's finalizer: every bit of the result depends on every bit of `x`.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
