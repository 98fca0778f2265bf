//! How old connections become.

use std::time::Duration;

use tieline_base::Moment;

/// Whether a connection that was `born` then has lived for `age`, give or take a tenth: those that were made
/// together do not end together.
pub(crate) fn is_past(age: Duration, born: Moment, now: Moment) -> bool {
    let lived = now.since(born);
    // By far the most are far from it.
    if lived.as_secs() < age.as_secs() - age.as_secs() / 8 {
        return false;
    }
    // The upper bits of a product depend on all of the number.
    let spread = born.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    lived.as_secs_f64() > age.as_secs_f64() * (0.9 + 0.2 * spread as f64 / 65_536.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_were_made_together_do_not_end_together() {
        let (age, second) = (Duration::from_secs(3_600), Duration::from_secs(1));
        let past = |born: u64, lived: Duration| is_past(age, Moment(born), Moment(born).after(lived));
        let born = || (0..1_000).map(|at| 1 + at * 1_000);
        assert!(born().all(|born| !past(born, second * 3_239) && past(born, second * 3_961)));
        // A sixtieth of the time in which they end sees hardly more than a sixtieth of them.
        let most = (3_240..3_960).step_by(12).map(|from| {
            let from = second * from;
            born().filter(|born| !past(*born, from) && past(*born, from + second * 12)).count()
        });
        assert!(most.max().unwrap() < 40);
        assert!(is_past(Duration::ZERO, Moment(1), Moment(2)));
    }
}
