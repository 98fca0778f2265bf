//! Round-robin by strides, and the draw by weight.

use super::Candidate;

/// The way of one turn of an endpoint of weight 1.
const LAP: f64 = (1u64 << 32) as f64;

/// How far a turn moves an endpoint of `weight`: the heavier, the shorter, the sooner its next turn.
///
/// Waldspurger and Weihl, "Stride Scheduling" (MIT TM-528, 1995): no two endpoints are ever
/// further apart than one turn of the lighter, and the turns of a heavy one do not come in a row.
pub fn stride(weight: f64) -> u64 {
    (LAP / weight).clamp(1.0, LAP * 1024.0) as u64
}

/// The one whose turn it is. Who was away comes back at `clock`, not with all the turns that it missed.
pub(super) fn next(candidates: &[Candidate], eligible: &[usize], clock: u64) -> usize {
    let due = |index: &&usize| candidates[**index].pass.max(clock);
    eligible.iter().min_by_key(due).copied().unwrap_or_default()
}

/// One drawn at random by weight.
pub(super) fn drawn(candidates: &[Candidate], eligible: &[usize], random: u64) -> usize {
    let total: f64 = eligible.iter().map(|index| candidates[*index].weight).sum();
    // 53 bits are what a double holds exactly.
    let mut point = (random >> 11) as f64 / (1u64 << 53) as f64 * total;
    for &index in eligible {
        point -= candidates[index].weight;
        if point < 0.0 {
            return index;
        }
    }
    // Rounding may leave a crumb behind the last one.
    eligible.last().copied().unwrap_or_default()
}
