//! Log-ins that failed of late, by address and user: whoever guesses waits longer each time before the next
//! guess is heard, and guesses one at a time, over however many connections.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{LazyLock, PoisonError};
use std::time::Duration;

use tieline_base::{ClientAddr, Clock, Moment};

/// Where log-ins come from, and as whom: a user is not kept out by what others do in their name elsewhere.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Place {
    address: Option<IpAddr>,
    user: Box<str>,
}

impl Place {
    pub(crate) fn of(client: ClientAddr, user: &str) -> Self {
        Self { address: address_of(client), user: user.into() }
    }
}

/// Where `client` comes from, as far as that tells one from another; `None`: from this machine.
pub(super) fn address_of(client: ClientAddr) -> Option<IpAddr> {
    const SITE: u128 = !0 << 64;
    client.ip().map(|ip| match ip {
        IpAddr::V4(_) => ip,
        // A site has a /64 at the least.
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & SITE).into(),
    })
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    count: u32,
    last: Moment,
    /// So many were heard and not judged yet.
    heard: u32,
    /// So many wait to be heard.
    waiting: u32,
}

/// So many may fail without a wait: people mistype.
const FREE: u32 = 3;

/// The first wait, which doubles each time, and the longest.
const WAIT: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// So many of one place are heard at once where few have failed, which is more than the connections that a
/// service opens at once; and so many wait where many have.
const HEARD_MAX: u32 = 1024;
const WAITING_MAX: u32 = 64;

/// How long to wait for others of the same place, before it is looked again.
const LOOKED_EVERY: Duration = Duration::from_millis(20);

/// What was so long ago is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// So many places are remembered.
const PLACES_MAX: usize = 16 * 1024;

/// What is known of log-ins that failed.
#[derive(Debug, Default)]
struct Failures(HashMap<Place, Failed>);

// Held for a look-up: once for each log-in with a password.
#[allow(clippy::disallowed_types)]
static FAILURES: LazyLock<std::sync::Mutex<Failures>> = LazyLock::new(Default::default);

/// A log-in that is heard, until it is judged or given up.
#[derive(Debug)]
pub(crate) struct Heard(Place);

/// A log-in that waits to be heard.
struct Waiting(Place);

/// Too many of one place wait already.
#[derive(Debug)]
pub(crate) struct TooMany;

/// Returns when a log-in from `place` may be heard. May be dropped at any time.
///
/// # Errors
/// Too many others of that place wait.
pub(crate) async fn turn(place: Place) -> Result<Heard, TooMany> {
    let mut waiting = None;
    loop {
        let wait = {
            let mut failures = FAILURES.lock().unwrap_or_else(PoisonError::into_inner);
            match failures.hear(&place, Clock::now()) {
                None => break,
                Some(_) if waiting.is_none() && !failures.wait_too(&place) => return Err(TooMany),
                Some(wait) => wait,
            }
        };
        waiting.get_or_insert_with(|| Waiting(place.clone()));
        tokio::time::sleep(wait).await;
    }
    drop(waiting);
    Ok(Heard(place))
}

impl Heard {
    /// It was judged.
    pub(crate) fn judged(self, succeeded: bool) {
        FAILURES.lock().unwrap_or_else(PoisonError::into_inner).judged(&self.0, succeeded, Clock::now());
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        FAILURES.lock().unwrap_or_else(PoisonError::into_inner).leave(&self.0, |failed| &mut failed.heard);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        FAILURES.lock().unwrap_or_else(PoisonError::into_inner).leave(&self.0, |failed| &mut failed.waiting);
    }
}

impl Failures {
    /// Hears a log-in from `place`, or says after which time it is to ask again.
    fn hear(&mut self, place: &Place, now: Moment) -> Option<Duration> {
        if self.0.len() >= PLACES_MAX && !self.0.contains_key(place) {
            self.0.retain(|_, failed| failed.is_recent(now) || failed.heard + failed.waiting > 0);
            if self.0.len() >= PLACES_MAX {
                // Who comes from so many places is not held up by any of them: others must be.
                return None;
            }
        }
        let new = Failed { count: 0, last: now, heard: 0, waiting: 0 };
        let failed = self.0.entry(place.clone()).or_insert(new);
        if !failed.is_recent(now) {
            failed.count = 0;
        }
        let (most, wait) = match failed.count.checked_sub(FREE) {
            None => (HEARD_MAX, Duration::ZERO),
            // One at a time: whoever guesses side by side waits as long as who does so one by one.
            Some(doubled) => (1, WAIT.saturating_mul(1 << doubled.min(16)).min(WAIT_MAX)),
        };
        let left = failed.last.after(wait).since(now);
        if failed.heard >= most || (!wait.is_zero() && !left.is_zero()) {
            return Some(left.max(LOOKED_EVERY));
        }
        failed.heard += 1;
        None
    }

    /// One more waits; false if too many do.
    fn wait_too(&mut self, place: &Place) -> bool {
        let may = |failed: &&mut Failed| failed.waiting < WAITING_MAX || failed.count < FREE;
        let Some(failed) = self.0.get_mut(place).filter(may) else { return false };
        failed.waiting += 1;
        true
    }

    fn judged(&mut self, place: &Place, succeeded: bool, now: Moment) {
        if let Some(failed) = self.0.get_mut(place) {
            failed.count = if succeeded { 0 } else { failed.count.saturating_add(1) };
            failed.last = now;
        }
    }

    /// One fewer is heard, or waits.
    fn leave(&mut self, place: &Place, which: impl FnOnce(&mut Failed) -> &mut u32) {
        let Some(failed) = self.0.get_mut(place) else { return };
        let count = which(failed);
        *count = count.saturating_sub(1);
        if failed.count + failed.heard + failed.waiting == 0 {
            self.0.remove(place);
        }
    }
}

impl Failed {
    fn is_recent(&self, now: Moment) -> bool {
        now.since(self.last) < FORGOTTEN_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u32, user: &str) -> Place {
        let address = std::net::Ipv4Addr::from_bits(number);
        Place::of(ClientAddr::Socket((address, 1).into()), user)
    }

    /// A guess that is heard at once and fails; else how long it has to wait, in milliseconds.
    fn guess(failures: &mut Failures, place: &Place, now: Moment) -> u128 {
        match failures.hear(place, now) {
            None => {
                failures.judged(place, false, now);
                failures.leave(place, |failed| &mut failed.heard);
                0
            }
            Some(wait) => wait.as_millis(),
        }
    }

    #[test]
    fn who_guesses_waits_longer_each_time_and_others_do_not() {
        let (mut failures, mut now) = (Failures::default(), Moment(1));
        let waits: Vec<_> = (0..10)
            .map(|_| {
                let wait = guess(&mut failures, &place(1, "ana"), now);
                if wait > 0 {
                    now = now.after(Duration::from_millis(u64::try_from(wait).unwrap()));
                    assert_eq!(guess(&mut failures, &place(1, "ana"), now), 0);
                }
                wait
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(guess(&mut failures, &place(2, "ana"), now), 0);
        assert_eq!(guess(&mut failures, &place(1, "bob"), now), 0);
        let later = now.after(FORGOTTEN_AFTER);
        assert!((0..3).all(|_| guess(&mut failures, &place(1, "ana"), later) == 0), "it counts anew");
    }

    #[test]
    fn who_guesses_side_by_side_is_heard_one_by_one() {
        let (mut failures, mut now, ana) = (Failures::default(), Moment(1), place(1, "ana"));
        (0..3).for_each(|_| assert_eq!(guess(&mut failures, &ana, now), 0));
        now = now.after(Duration::from_millis(200));
        assert_eq!(failures.hear(&ana, now), None);
        assert_eq!(failures.hear(&ana, now), Some(LOOKED_EVERY), "another one is heard");
        failures.judged(&ana, false, now);
        failures.leave(&ana, |failed| &mut failed.heard);
        assert_eq!(failures.hear(&ana, now), Some(Duration::from_millis(400)));
        // Many at once who know their password are none that guess.
        let bob = place(1, "bob");
        assert!((0..HEARD_MAX).all(|_| failures.hear(&bob, now).is_none()));
        assert_eq!(failures.hear(&bob, now), Some(LOOKED_EVERY));
        assert!((0..2 * WAITING_MAX).all(|_| failures.wait_too(&bob)));
        assert!((0..WAITING_MAX).all(|_| failures.wait_too(&ana)) && !failures.wait_too(&ana));
        failures.judged(&bob, true, now);
        failures.leave(&bob, |failed| &mut failed.heard);
        assert_eq!(failures.hear(&bob, now), None);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let (mut failures, now) = (Failures::default(), Moment(1));
        for number in 0..PLACES_MAX as u32 + 100 {
            assert_eq!(guess(&mut failures, &place(number, "u"), now), 0);
        }
        assert_eq!(failures.0.len(), PLACES_MAX);
        guess(&mut failures, &place(u32::MAX, "u"), now.after(FORGOTTEN_AFTER));
        assert_eq!(failures.0.len(), 1, "what is long ago makes room");
        failures.hear(&place(1, "v"), now);
        failures.leave(&place(1, "v"), |failed| &mut failed.heard);
        assert_eq!(failures.0.len(), 1, "nothing is remembered of who did not fail");
    }
}
