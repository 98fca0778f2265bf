//! What an application says over a flow, and what it finds out of what was said to it.

use std::collections::BTreeSet;

use fastrand::Rng;

use crate::tunnel::StreamId;

/// One end of a flow. Each datagram says whose it is and which, and is filled with that.
pub(super) struct FlowApp {
    to_send: u64,
    pub(super) sent: u64,
    received: BTreeSet<u64>,
}

/// End, flow and number.
const HEAD: usize = 17;

impl FlowApp {
    pub(super) fn new(random: &mut Rng) -> Self {
        Self { to_send: random.u64(..60), sent: 0, received: BTreeSet::new() }
    }

    pub(super) fn has_more(&self) -> bool {
        self.sent < self.to_send
    }

    /// The next datagram from `end`.
    pub(super) fn next(&mut self, end: usize, flow: StreamId, random: &mut Rng) -> Vec<u8> {
        let length = match random.u8(..10) {
            0 => 0,
            1..=7 => random.usize(..1_500),
            _ => random.usize(..60_000),
        };
        self.sent += 1;
        written(end, flow, self.sent, length)
    }

    /// Panics unless `datagram` is one that the other end said over this flow, whole, and for the first time.
    pub(super) fn take(&mut self, end: usize, flow: StreamId, datagram: &[u8]) {
        let number = datagram.get(9..HEAD).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let number = number.unwrap_or_else(|| panic!("{flow}: a datagram that is torn"));
        assert!(
            datagram == written(1 - end, flow, number, datagram.len() - HEAD),
            "{flow}: not what was said"
        );
        assert!(self.received.insert(number), "{flow}: datagram {number} came twice");
    }

    pub(super) fn received(&self) -> u64 {
        self.received.len() as u64
    }
}

fn written(end: usize, flow: StreamId, number: u64, length: usize) -> Vec<u8> {
    let mut datagram = vec![end as u8];
    datagram.extend(flow.0.to_be_bytes());
    datagram.extend(number.to_be_bytes());
    datagram.resize(HEAD + length, number as u8);
    datagram
}
