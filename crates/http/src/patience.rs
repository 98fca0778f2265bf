//! For whom an exchange waits while a body passes, and for how long: a peer that is silent, and one that
//! moves so slowly that it might as well be.

use std::task::Poll;
use std::time::Duration;

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose};
use tieline_conn::Connection;
use tieline_transport::Io;

use crate::transfer::Transfer;

/// Whom a transfer waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// The sender has nothing more just now.
    Sender,
    /// The receiver takes nothing more just now.
    Receiver,
    /// Neither: its bandwidth is used up for now.
    Throttle,
}

/// How slowly a client may send a body, or take one, in bytes a second; more than 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MinRate(pub u64);

/// How far a client lags behind a [`MinRate`]. Its clock runs while it is waited for, and every byte that it
/// moves pays for a while; what it moves too much is worth nothing later. So whoever keeps to the rate on
/// average over the time that it may be silent is never too slow, however unevenly it does.
#[derive(Debug, Default)]
struct Pace {
    lag_ns: u64,
    since: Option<Moment>,
    /// How much of what it moved has paid.
    paid: u64,
}

impl Pace {
    /// It is waited for.
    fn wait(&mut self, now: Moment) {
        let waited = self.since.replace(now).map_or(Duration::ZERO, |since| now.since(since));
        let waited = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.lag_ns = self.lag_ns.saturating_add(waited);
    }

    /// Others are.
    fn rest(&mut self) {
        self.since = None;
    }

    /// It has moved so many bytes in all; whether that is more than when this was said before.
    fn pay(&mut self, rate: MinRate, moved: u64) -> bool {
        let more = moved.saturating_sub(self.paid);
        let worth = u128::from(more) * 1_000_000_000 / u128::from(rate.0.max(1));
        self.lag_ns = self.lag_ns.saturating_sub(u64::try_from(worth).unwrap_or(u64::MAX));
        self.paid = self.paid.max(moved);
        more > 0
    }

    /// By how much it lags behind.
    fn lag(&self) -> Duration {
        Duration::from_nanos(self.lag_ns)
    }
}

/// What is expected of a client that sends a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// How long it may be silent.
    pub(crate) gap: Duration,
    /// How slow it may be.
    pub(crate) least: Option<MinRate>,
}

/// The patience with a client that sends a body, and with the endpoint that takes it.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    waits: Option<Wait>,
    pace: Pace,
}

impl Sending {
    /// Says what is waited for, now that `up` is pending; what the endpoint may take its time for is `gap`.
    ///
    /// # Errors
    /// The client sends too slowly.
    pub(crate) fn wait<T>(
        &mut self,
        connection: &Connection,
        up: &Transfer,
        expected: Expected,
        gap: Duration,
    ) -> Poll<Result<T, Fault>> {
        let waits = up.waits();
        if self.waits.replace(waits) != Some(waits) {
            match waits {
                Wait::Sender => connection.expect(expected.gap, Reason::TimeoutBodyGap),
                // RFC 9110 §15.6.5: whoever the answer depends on is late, not the client.
                Wait::Receiver => connection.expect(gap, Reason::TimeoutGap),
                Wait::Throttle => connection.expect(Duration::MAX, Reason::Idle),
            }
        }
        match waits {
            Wait::Sender => self.sends(connection, expected, up.taken()),
            Wait::Receiver | Wait::Throttle => {
                self.pace.rest();
                Poll::Pending
            }
        }
    }

    /// The client, which is waited for, has sent so many bytes of its body.
    ///
    /// # Errors
    /// That is too slow.
    pub(crate) fn sends<T>(
        &mut self,
        connection: &Connection,
        expected: Expected,
        taken: u64,
    ) -> Poll<Result<T, Fault>> {
        let Some(rate) = expected.least else { return Poll::Pending };
        self.pace.wait(Clock::now());
        self.pace.pay(rate, taken);
        // Of one that is silent something else is told.
        if self.pace.lag() <= expected.gap || connection.overdue().is_some() {
            return Poll::Pending;
        }
        Poll::Ready(Err(too_slow("the body came too slowly")))
    }
}

/// The patience with an endpoint that sends the body of an answer, and with the client that takes it.
#[derive(Debug)]
pub(crate) struct Answering {
    gap: Duration,
    least: Option<MinRate>,
    waits: Wait,
    pace: Pace,
}

impl Answering {
    /// Each may do nothing for `gap`, and the client must take what there is for it as fast as `least`.
    pub(crate) fn begin(connection: &Connection, now: Moment, gap: Duration, least: Option<MinRate>) -> Self {
        connection.expect_from(now, gap, Reason::TimeoutGap);
        Self { gap, least, waits: Wait::Sender, pace: Pace::default() }
    }

    /// Says what is waited for, now that `down` is pending on its way to `client`.
    ///
    /// # Errors
    /// Who is waited for did nothing for too long, or the client takes too little.
    pub(crate) fn wait<T>(
        &mut self,
        connection: &Connection,
        down: &Transfer,
        client: &Io,
    ) -> Poll<Result<T, Fault>> {
        let waits = down.waits();
        if std::mem::replace(&mut self.waits, waits) != waits {
            let gap = if waits == Wait::Throttle { Duration::MAX } else { self.gap };
            connection.expect(gap, Reason::TimeoutGap);
        }
        if waits == Wait::Receiver {
            let taken = self.takes(connection, down, client);
            return taken.map_or_else(|fault| Poll::Ready(Err(fault)), |()| Poll::Pending);
        }
        self.pace.rest();
        match connection.overdue() {
            None => Poll::Pending,
            Some(late) => Poll::Ready(Err(Fault::new(Stage::Relay, Whose::Upstream, late))),
        }
    }

    /// The client is waited for. What its machine has acknowledged it has taken: the kernel has room for more
    /// only now and then, which says nothing of how fast it takes what is on its way.
    fn takes(&mut self, connection: &Connection, down: &Transfer, client: &Io) -> Result<(), Fault> {
        // Asking the kernel costs a system call, so it is asked when the client is in doubt.
        let rate = self.least.unwrap_or(MinRate(u64::MAX));
        let overdue = connection.overdue().is_some();
        if self.least.is_some() {
            self.pace.wait(Clock::now());
        }
        if !overdue && self.pace.lag() <= self.gap / 2 {
            return Ok(());
        }
        let taken = down.given().saturating_sub(client.unacknowledged().unwrap_or(0));
        let took_more = self.pace.pay(rate, taken);
        if overdue && !took_more {
            let nothing = Fault::new(Stage::Relay, Whose::Client, Reason::TimeoutGap);
            return Err(nothing.because("the client took nothing of the answer"));
        }
        if self.least.is_some() && self.pace.lag() > self.gap {
            return Err(too_slow("the client took the answer too slowly"));
        }
        if took_more {
            connection.expect(self.gap, Reason::TimeoutGap);
        }
        Ok(())
    }
}

fn too_slow(what: &'static str) -> Fault {
    Fault::new(Stage::Relay, Whose::Client, Reason::TimeoutMinRate).because(what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GAP: Duration = Duration::from_secs(60);
    const RATE: MinRate = MinRate(256);

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    /// When a client is too slow that moves so many bytes after so many milliseconds, again and again.
    fn too_slow_after(every_ms: u64, bytes: u64) -> Option<u64> {
        let mut pace = Pace::default();
        (0..2_000).map(|turn| (turn * every_ms, turn * bytes)).find_map(|(now, moved)| {
            pace.wait(at(now));
            pace.pay(RATE, moved);
            (pace.lag() > GAP).then_some(now / 1_000)
        })
    }

    #[test]
    fn a_trickle_ends_and_what_keeps_to_the_rate_does_not() {
        assert_eq!(too_slow_after(5_000, 1), Some(65));
        assert_eq!(too_slow_after(1_000, 128), Some(121));
        assert_eq!(too_slow_after(1_000, 256), None);
        assert_eq!(too_slow_after(50_000, 50 * 256), None, "unevenly, but as much");
    }

    #[test]
    fn nothing_is_saved_for_later() {
        let mut pace = Pace::default();
        pace.wait(at(0));
        pace.pay(RATE, 1 << 30);
        pace.wait(at(61_000));
        assert!(!pace.pay(RATE, 1 << 30) && pace.lag() > GAP);
    }

    #[test]
    fn while_others_are_waited_for_nobody_lags() {
        let mut pace = Pace::default();
        pace.wait(at(0));
        pace.wait(at(30_000));
        pace.rest();
        pace.wait(at(900_000));
        assert_eq!(pace.lag(), Duration::from_secs(30));
    }

    proptest! {
        #[test]
        fn who_keeps_to_the_rate_within_each_gap_is_never_too_slow(
            pieces in prop::collection::vec((1u64..60_000, 0u64..10_000), 1..200),
        ) {
            let (mut pace, mut now, mut moved) = (Pace::default(), 0, 0);
            for (ms, extra) in pieces {
                pace.wait(at(now));
                now += ms;
                moved += (ms * RATE.0).div_ceil(1_000) + extra;
                pace.wait(at(now));
                pace.pay(RATE, moved);
                prop_assert!(pace.lag() <= GAP, "{:?}", pace.lag());
            }
        }

        #[test]
        fn half_the_rate_is_too_slow_before_three_gaps_are_over(every_ms in 1u64..20_000) {
            let ended = too_slow_after(every_ms, every_ms * RATE.0 / 2_000);
            let long_enough = 2_000 * every_ms > 180_000;
            prop_assert!(!long_enough || ended.is_some_and(|after| after <= 180), "{ended:?}");
        }
    }
}
