//! The datagrams of a flow that wait, both ways.
//!
//! Nothing is kept for replay and nothing is confirmed. What waits is bounded, and what comes beyond that
//! pushes out what has waited longest: whoever sends datagrams would rather have the next than a late one.

use std::collections::VecDeque;

/// The longest datagram, in bytes: what UDP over IPv4 has room for.
pub const DATAGRAM_MAX: usize = 65_507;

/// What waits of a flow in one direction, at most: room for the longest datagram.
pub(crate) const QUEUE_MAX: u64 = 64 << 10;

/// What a datagram counts for beside its bytes, so that empty ones count too: the headers of IPv4 and UDP.
pub(crate) const HEADERS: u64 = 28;

/// A stream of datagrams, as one of its two ends sees it.
#[derive(Default, Debug)]
pub(crate) struct Flow {
    pub(crate) outbound: Queue,
    pub(crate) inbound: Queue,
    /// Whether it stands in the schedule of flows with datagrams to send.
    pub(crate) scheduled: bool,
}

/// Datagrams in the order in which they came.
#[derive(Default, Debug)]
pub(crate) struct Queue {
    waiting: VecDeque<Box<[u8]>>,
    held: u64,
    dropped: u64,
}

impl Queue {
    /// The last to wait; what it leaves no room for is dropped, and so is one that could never be sent.
    pub(crate) fn push(&mut self, datagram: &[u8]) {
        if datagram.len() > DATAGRAM_MAX {
            return self.refuse();
        }
        while self.held + charge(datagram) > QUEUE_MAX {
            self.drop_oldest();
        }
        self.held += charge(datagram);
        self.waiting.push_back(datagram.into());
    }

    /// The one that has waited longest.
    pub(crate) fn pop(&mut self) -> Option<Box<[u8]>> {
        let datagram = self.waiting.pop_front()?;
        self.held -= charge(&datagram);
        if self.waiting.is_empty() {
            // At rest it owns nothing.
            self.waiting = VecDeque::new();
        }
        Some(datagram)
    }

    pub(crate) fn drop_oldest(&mut self) {
        self.dropped += u64::from(self.pop().is_some());
    }

    /// One came that is not to wait.
    pub(crate) fn refuse(&mut self) {
        self.dropped += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What it counts for in the memory of its link.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// How many were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

fn charge(datagram: &[u8]) -> u64 {
    datagram.len() as u64 + HEADERS
}

impl Flow {
    pub(crate) fn held(&self) -> u64 {
        self.outbound.held() + self.inbound.held()
    }

    /// How many were dropped here, both ways.
    pub(crate) fn dropped(&self) -> u64 {
        self.outbound.dropped() + self.inbound.dropped()
    }

    /// The longer of its two queues loses what waits longest there.
    pub(crate) fn drop_oldest(&mut self) {
        let inbound = self.inbound.held() > self.outbound.held();
        if inbound { self.inbound.drop_oldest() } else { self.outbound.drop_oldest() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_last_pushes_out_what_waited_longest() {
        let mut queue = Queue::default();
        (0..100).for_each(|number| queue.push(&[number; 1000]));
        let fits = QUEUE_MAX / (1000 + HEADERS);
        assert_eq!(queue.dropped(), 100 - fits);
        assert_eq!(queue.pop().unwrap()[0], 100 - fits as u8);
        queue.push(&[7; DATAGRAM_MAX]);
        assert_eq!((queue.pop().map(|last| last.len()), queue.held()), (Some(DATAGRAM_MAX), 0));
        assert!(queue.is_empty() && queue.pop().is_none());
    }

    #[test]
    fn empty_datagrams_count_and_longer_ones_than_can_be_are_dropped() {
        let mut queue = Queue::default();
        (0..10_000).for_each(|_| queue.push(&[]));
        assert_eq!(queue.dropped(), 10_000 - QUEUE_MAX / HEADERS);
        let before = queue.dropped();
        queue.push(&[0; DATAGRAM_MAX + 1]);
        assert_eq!(queue.dropped(), before + 1);
    }
}
