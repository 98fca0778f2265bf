//! The direction of a stream that arrives: what was received, what was passed on, and what is promised.
//!
//! ACK says "held here", CREDIT says "passed on, so there is room again": two numbers, both only rising.

use std::time::Duration;

use tieline_base::Moment;

use super::Breach;
use crate::tunnel::slabs::Slabs;

/// On a short path processes take longer to have their turns than bytes to arrive: a window that is used up
/// in less than this is too small, whatever the round trip of a ping.
const PROMPT: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Inbound {
    /// From what is passed on to what is received.
    slabs: Slabs,
    end: Option<u64>,
    /// Up to here the peer may send, as it was told.
    credit: u64,
    window: u64,
    window_max: u64,
    /// The least that is promised while the direction lives.
    floor: u64,
    /// Whether credit was ever given.
    renewed: bool,
    /// From where on it is measured how fast a window is used up, and since when.
    mark: Option<(u64, Moment)>,
    /// Whether the last window was used up fast.
    fast: bool,
    /// What the peer was told last.
    confirmed: u64,
}

impl Inbound {
    pub(crate) fn new(first_credit: u64, window: u64, window_max: u64) -> Self {
        Self {
            slabs: Slabs::default(),
            end: None,
            credit: first_credit,
            window,
            window_max,
            floor: first_credit,
            renewed: false,
            mark: None,
            fast: false,
            confirmed: 0,
        }
    }

    /// Takes `bytes` that stand at `offset`, and says how many of them are new. What was received before is
    /// dropped silently: after a change of carriers the peer may repeat itself.
    pub(crate) fn receive(&mut self, offset: u64, bytes: &[u8]) -> Result<u64, Breach> {
        let end = offset + bytes.len() as u64;
        if offset > self.received() {
            return Err(Breach::Gap);
        }
        if end > self.credit {
            return Err(Breach::Credit);
        }
        if self.end.is_some_and(|known| end > known) {
            return Err(Breach::PastEnd);
        }
        let new = end.saturating_sub(self.received());
        self.slabs.append(&bytes[bytes.len() - new as usize..]);
        Ok(new)
    }

    /// The direction ends at `end`, and all before it was received.
    pub(crate) fn finish(&mut self, end: u64) -> Result<(), Breach> {
        if end > self.received() {
            return Err(Breach::Gap);
        }
        self.expect_end(end)
    }

    /// The direction will end at `end`.
    pub(crate) fn expect_end(&mut self, end: u64) -> Result<(), Breach> {
        if end < self.received() || self.end.is_some_and(|known| known != end) {
            return Err(Breach::PastEnd);
        }
        self.end = Some(end);
        Ok(())
    }

    /// Behind the last byte received.
    pub(crate) fn received(&self) -> u64 {
        self.slabs.end()
    }

    /// Whether all was received, the end among it.
    pub(crate) fn complete(&self) -> bool {
        self.end == Some(self.received())
    }

    /// Received bytes that wait to be passed on; more may wait behind them.
    pub(crate) fn readable(&self) -> &[u8] {
        self.slabs.front()
    }

    /// The first `count` bytes of what waits were passed on.
    pub(crate) fn drain(&mut self, count: u64) {
        self.slabs.trim(self.slabs.start() + count);
    }

    /// Lets go of what waits: the stream was broken off.
    pub(crate) fn discard(&mut self) {
        self.slabs.clear();
    }

    /// How many bytes wait to be passed on.
    pub(crate) fn held(&self) -> u64 {
        self.slabs.held()
    }

    /// Whether all was received and passed on.
    pub(crate) fn done(&self) -> bool {
        self.complete() && self.held() == 0
    }

    /// What an ACK says: the end counts as one more byte.
    pub(crate) fn confirmation(&self) -> u64 {
        self.received() + u64::from(self.complete())
    }

    /// Whether the peer has yet to be told how far this is.
    pub(crate) fn unconfirmed(&self) -> bool {
        self.confirmation() > self.confirmed
    }

    /// Whether it is time to tell the peer, without waiting for more: a quarter of a window, or the end.
    pub(crate) fn confirm_now(&self) -> bool {
        self.unconfirmed() && (self.complete() || self.received() - self.confirmed >= self.window / 4)
    }

    /// The peer is told this now.
    pub(crate) fn take_confirmation(&mut self) -> u64 {
        self.confirmed = self.confirmation();
        self.confirmed
    }

    /// The carrier is a new one: nobody knows what arrived over the old one.
    pub(crate) fn forget_confirmation(&mut self) {
        self.confirmed = 0;
    }

    /// The peer needs no more confirmation: it has let go of the stream.
    pub(crate) fn confirmed_by_itself(&mut self) {
        self.confirmed = self.confirmation();
    }

    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    pub(crate) fn credit(&self) -> u64 {
        self.credit
    }

    /// The memory that this direction may come to need: what the peer may still send and what waits. Never
    /// below the first credit while more may come, so that a stream can always go on.
    pub(crate) fn promise(&self) -> u64 {
        if self.complete() { self.held() } else { (self.credit - self.slabs.start()).max(self.floor) }
    }

    /// Gives new credit if half a window was passed on, and says whether it did. The window doubles while
    /// the peer uses it up within two round trips, or within [`PROMPT`]: so it settles at twice what the path
    /// holds. `spare` bounds by how much the promise may grow.
    pub(crate) fn renew(&mut self, now: Moment, round_trip: Duration, spare: u64) -> bool {
        if self.complete() {
            return false;
        }
        let passed = self.slabs.start();
        self.measure(passed, now, PROMPT.max(2 * round_trip));
        let grows = self.fast && spare > self.window;
        let window = if grows { (2 * self.window).min(self.window_max) } else { self.window };
        let promise = window.min(self.promise().saturating_add(spare)).max(self.floor);
        let gain = (passed + promise).saturating_sub(self.credit);
        let half_used = passed + self.window.min(promise) >= self.credit + self.window.min(promise) / 2;
        if gain == 0 || !half_used && !self.starts_small() {
            return false;
        }
        self.window = window;
        self.credit += gain;
        self.renewed = true;
        self.fast = false;
        true
    }

    /// A whole window at least, so that who reads seldom, and much at once, is not taken for fast.
    fn measure(&mut self, passed: u64, now: Moment, limit: Duration) {
        let (from, since) = *self.mark.get_or_insert((passed, now));
        if passed >= from + self.window {
            self.fast = now.since(since) < limit;
            self.mark = Some((passed, now));
        }
    }

    /// Whether the credit is still the one that every stream begins with, and the window is wider.
    fn starts_small(&self) -> bool {
        !self.renewed && self.credit < self.window
    }
}
