//! Waiting on a value instead of sleeping.

use std::time::Duration;

use tieline_base::Clock;

/// How long a healthy machine may take over anything a test waits for; a slow CI machine included.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a condition: short enough to go unnoticed, long enough to leave the CPU to what we
/// wait for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Looks at `condition` until it holds or `patience` is over; whether it held.
#[must_use]
pub fn wait_until(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    wait_for(patience, || condition().then_some(())).is_some()
}

/// Looks for a value until there is one or `patience` is over. Looks at least once.
#[must_use]
pub fn wait_for<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Clock::now().after(patience);
    loop {
        if let Some(value) = look() {
            return Some(value);
        }
        if Clock::now() >= deadline {
            return None;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::{wait_for, wait_until};
    use std::time::Duration;

    #[test]
    fn a_condition_that_never_holds_costs_no_more_than_the_patience() {
        let begin = tieline_base::Clock::now();
        assert!(!wait_until(Duration::from_millis(20), || false));
        let waited = tieline_base::Clock::now().since(begin);
        assert!(waited >= Duration::from_millis(20), "{waited:?}");
    }

    #[test]
    fn the_value_found_is_handed_back_and_looking_stops() {
        let mut looks = 0;
        let found = wait_for(Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!((found, looks), (Some(3), 3));
    }
}
