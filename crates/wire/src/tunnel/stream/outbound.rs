//! The direction of a stream that leaves: what may be sent, what was, and what the peer has not confirmed.
//!
//! Bytes stay here until the peer holds them, so that they can be sent again over another carrier. As nothing
//! is taken beyond the peer's credit, and credit is at most a window beyond what the peer confirmed, the
//! replay is bounded by the window.

use bytes::Bytes;

use super::Breach;
use crate::tunnel::slabs::Slabs;

#[derive(Debug)]
pub(crate) struct Outbound {
    slabs: Slabs,
    /// The next to go over this carrier.
    next: u64,
    /// Behind the last that ever went over any.
    sent: u64,
    credit: u64,
    /// How far beyond what is confirmed we go, whatever credit a peer gives.
    window_max: u64,
    end: End,
}

/// How far the end of the direction has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// More may come.
    Open,
    /// No more comes; the peer has not been told over this carrier. It may have been over an earlier one.
    Due { told: bool },
    /// The peer has been told.
    Told,
    /// The peer has confirmed it.
    Confirmed,
}

impl Outbound {
    pub(crate) fn new(first_credit: u64, window_max: u64) -> Self {
        Self { slabs: Slabs::default(), next: 0, sent: 0, credit: first_credit, window_max, end: End::Open }
    }

    /// How many bytes may be written now.
    pub(crate) fn room(&self) -> u64 {
        let own = self.slabs.start().saturating_add(self.window_max);
        if self.end == End::Open { self.credit.min(own).saturating_sub(self.slabs.end()) } else { 0 }
    }

    /// Takes `bytes`, which are at most [`Outbound::room`].
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.slabs.append(bytes);
    }

    /// No more will be written.
    pub(crate) fn finish(&mut self) {
        if self.end == End::Open {
            self.end = End::Due { told: false };
        }
    }

    /// Whether there is something to send.
    pub(crate) fn ready(&self) -> bool {
        self.next < self.slabs.end() || matches!(self.end, End::Due { .. })
    }

    /// The next bytes to send, at most `most`, and where they stand; then none, and the end by
    /// [`Outbound::take_end`].
    pub(crate) fn take(&mut self, most: usize) -> Option<(u64, Bytes)> {
        if self.next == self.slabs.end() {
            return None;
        }
        let offset = self.next;
        let bytes = self.slabs.share(offset, most);
        self.next += bytes.len() as u64;
        // Sent, before a carrier has them: a confirmation may be faster than what wrote them says so.
        self.sent = self.sent.max(self.next);
        Some((offset, bytes))
    }

    /// Where the direction ends, if all before it went out and the peer is to be told now.
    pub(crate) fn take_end(&mut self) -> Option<u64> {
        if !matches!(self.end, End::Due { .. }) || self.next < self.slabs.end() {
            return None;
        }
        self.end = End::Told;
        Some(self.slabs.end())
    }

    /// The peer holds all below `upto`; its end counts as one more byte. Says whether that is news.
    pub(crate) fn confirm(&mut self, upto: u64) -> Result<bool, Breach> {
        let whole = self.end_told() && self.sent == self.slabs.end();
        if upto > self.sent + u64::from(whole) {
            return Err(Breach::Unsent);
        }
        let news = upto > self.slabs.start();
        if whole && upto == self.slabs.end() + 1 {
            let first = self.end != End::Confirmed;
            self.end = End::Confirmed;
            self.slabs.clear();
            self.next = self.slabs.end();
            return Ok(first);
        }
        self.slabs.trim(upto);
        self.next = self.next.max(self.slabs.start());
        Ok(news)
    }

    /// The peer allows bytes up to `upto`. Credit is never taken back.
    pub(crate) fn allow(&mut self, upto: u64) {
        self.credit = self.credit.max(upto);
    }

    /// The carrier is a new one: all that is not confirmed goes again. Answers how many bytes that is.
    pub(crate) fn rewind(&mut self) -> u64 {
        self.next = self.slabs.start();
        if self.end == End::Told {
            self.end = End::Due { told: true };
        }
        self.sent.saturating_sub(self.next)
    }

    /// The peer has let go of the stream, which it does only when it has confirmed all of this.
    pub(crate) fn confirm_all(&mut self) {
        self.end = End::Confirmed;
        self.slabs.clear();
        self.next = self.slabs.end();
    }

    /// How many bytes are held for the peer.
    pub(crate) fn held(&self) -> u64 {
        self.slabs.held()
    }

    /// Whether something went out that the peer has not confirmed.
    pub(crate) fn unconfirmed(&self) -> bool {
        self.slabs.start() < self.next || self.end == End::Told
    }

    /// Where the direction ends, once that is known. Whoever asks tells the peer, in a table.
    pub(crate) fn tell_end(&mut self) -> Option<u64> {
        if let End::Due { told } = &mut self.end {
            *told = true;
        }
        (self.end != End::Open).then_some(self.slabs.end())
    }

    /// Whether the peer was told of the end over any carrier.
    pub(crate) fn end_told(&self) -> bool {
        matches!(self.end, End::Due { told: true } | End::Told | End::Confirmed)
    }

    pub(crate) fn done(&self) -> bool {
        self.end == End::Confirmed
    }
}
