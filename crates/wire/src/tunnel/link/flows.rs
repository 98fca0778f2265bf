//! Flows: streams whose bytes are datagrams, which may be lost.
//!
//! A flow is opened, refused, resumed, timed out and broken off as a stream is, and gives no credit: what it
//! carries goes in UDP frames that nobody confirms and nobody repeats. What waits of one is bounded
//! ([`stream`](crate::tunnel::stream)), and what waits of all by [`WAITING_MAX`].

use tieline_base::Moment;

use super::Link;
use crate::tunnel::frame::Frame;
use crate::tunnel::ids::StreamId;
use crate::tunnel::stream::{Breach, Flow, Phase, Stream};

/// What may wait of all flows of a link together, both ways, as they count.
pub(super) const WAITING_MAX: u64 = 2 << 20;

/// A datagram whose turn it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Whose.
    pub flow: StreamId,
    /// All of it.
    pub bytes: Box<[u8]>,
    /// Whether the peer knows the flow for certain: until then it goes behind what asks for the flow, and
    /// must not overtake that.
    pub known: bool,
}

impl Datagram {
    /// Writes it as a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Frame::Udp { flow: self.flow, bytes: &self.bytes }.encode(out);
    }
}

impl Link {
    /// Sends a datagram of a flow, if its turn comes before others have pushed it out. One of a flow that is
    /// gone, or longer than [`DATAGRAM_MAX`](crate::tunnel::DATAGRAM_MAX), is dropped.
    pub fn send_datagram(&mut self, id: StreamId, bytes: &[u8], now: Moment) {
        self.queue(id, now, |flow| flow.outbound.push(bytes));
    }

    /// The next datagram that came for a flow; [`Event::Readable`](crate::tunnel::Event::Readable) tells of
    /// others.
    pub fn take_datagram(&mut self, id: StreamId) -> Option<Box<[u8]>> {
        self.change(id, |stream| stream.flow.as_mut()?.inbound.pop())?
    }

    /// How many datagrams of a flow were dropped at this end, both ways.
    pub fn dropped(&self, id: StreamId) -> u64 {
        self.streams.get(&id).and_then(|stream| stream.flow.as_deref()).map_or(0, Flow::dropped)
    }

    /// The next datagram to send, of the flow whose turn it is.
    pub(in crate::tunnel) fn next_datagram(&mut self) -> Option<Datagram> {
        if !self.attached || self.paused.is_some() {
            return None;
        }
        loop {
            let turn = self.flows.next()?;
            let id = turn.stream;
            let next = self.change(id, |stream| {
                let known = !matches!(stream.phase, Phase::Asked(_));
                let bytes = stream.flow.as_mut()?.outbound.pop()?;
                Some(Datagram { flow: id, bytes, known })
            });
            if let Some(Some(datagram)) = next {
                self.flows.sent(turn, datagram.bytes.len());
                return Some(datagram);
            }
            if !self.flows.nothing(turn)
                && let Some(flow) = self.streams.get_mut(&id).and_then(|stream| stream.flow.as_mut())
            {
                flow.scheduled = false;
            }
        }
    }

    /// A datagram came. That of a flow which is no more, or not yet, means nothing: the one before may be
    /// slower than this.
    pub(super) fn on_datagram(&mut self, id: StreamId, bytes: &[u8], now: Moment) -> Result<(), Breach> {
        match self.streams.get(&id) {
            Some(Stream { flow: None, .. }) => return Err(Breach::Misplaced),
            Some(stream) if !stream.ended() => {}
            _ => return Ok(()),
        }
        // Short of memory, what need not be kept is not.
        let short = self.short;
        self.queue(id, now, |flow| if short { flow.inbound.refuse() } else { flow.inbound.push(bytes) });
        self.tell_readable(id);
        Ok(())
    }

    fn queue(&mut self, id: StreamId, now: Moment, change: impl FnOnce(&mut Flow)) {
        self.change(id, |stream| {
            stream.moved = now;
            if let Some(flow) = stream.flow.as_mut().filter(|_| !matches!(stream.phase, Phase::Ended { .. }))
            {
                change(flow);
            }
        });
        // Whoever has most waiting pays for it (RFC 8290 §4.1.1).
        while self.sum.datagrams > WAITING_MAX {
            let waits = |stream: &Stream| stream.flow.as_ref().map_or(0, |flow| flow.held());
            let Some(fattest) =
                self.streams.iter().max_by_key(|(_, stream)| waits(stream)).map(|(id, _)| *id)
            else {
                return;
            };
            self.change(fattest, |stream| stream.flow.as_mut().map(|flow| flow.drop_oldest()));
        }
    }
}
