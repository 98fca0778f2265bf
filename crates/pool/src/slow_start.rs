//! Slow start: an endpoint that just came up gets its share little by little, while its caches warm.

use std::time::Duration;

const FLOOR: f64 = 0.1;

/// The share of its weight that an endpoint counts with, `up` after it came up: from 10 % straight to 100 %
/// over `window`; always 100 % if `window` is zero.
pub(crate) fn share(up: Duration, window: Duration) -> f64 {
    if up >= window {
        return 1.0;
    }
    FLOOR + (1.0 - FLOOR) * up.as_secs_f64() / window.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::share;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn it_begins_at_a_tenth_and_ends_whole() {
        let window = Duration::from_secs(30);
        assert!((share(Duration::ZERO, window) - 0.1).abs() < 1e-9);
        assert!((share(Duration::from_secs(15), window) - 0.55).abs() < 1e-9);
        assert_eq!(share(window, window), 1.0);
        assert_eq!(share(Duration::ZERO, Duration::ZERO), 1.0);
    }

    proptest! {
        #[test]
        fn it_never_falls(window in 1u64..100_000, a in 0u64..200_000, b in 0u64..200_000) {
            let of = |ms: u64| share(Duration::from_millis(ms), Duration::from_millis(window));
            prop_assert!(of(a.min(b)) <= of(a.max(b)));
            prop_assert!((0.1..=1.0).contains(&of(a)));
        }
    }
}
