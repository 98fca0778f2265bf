//! One end: the link, its carriers as this side sees them, and its applications.

use std::collections::BTreeMap;

use tieline_base::Moment;

use super::apps::App;
use crate::Parsed;
use crate::tunnel::{Chunk, Epoch, Frame, Link, LinkError, Offer, StreamId, parse};

pub(super) struct End {
    pub(super) link: Link,
    pub(super) apps: BTreeMap<StreamId, App>,
    /// The carrier in use.
    pub(super) carrier: Option<usize>,
    /// What came over each carrier that this side has not closed.
    pub(super) inboxes: BTreeMap<usize, Inbox>,
    /// The dialer's: the carrier that it tries, and what it said there.
    pub(super) attempt: Option<(usize, Option<Offer>)>,
    /// When this end is woken next.
    pub(super) wakes: Moment,
}

#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// Chunks that cannot be taken yet.
    parked: Vec<Chunk>,
    /// Since it carries the link.
    pub(super) epoch: Option<Epoch>,
}

impl End {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            apps: BTreeMap::new(),
            carrier: None,
            inboxes: BTreeMap::new(),
            attempt: None,
            wakes: Moment(u64::MAX),
        }
    }

    /// The carrier carries the link from now on.
    pub(super) fn attach(&mut self, carrier: usize) {
        self.carrier = Some(carrier);
        self.inboxes.entry(carrier).or_default().epoch = Some(self.link.epoch());
    }

    /// Bytes came over a carrier. Answers the first frame, as bytes, if the carrier does not carry the link.
    pub(super) fn bytes_came(&mut self, carrier: usize, bytes: &[u8], now: Moment) -> Option<Vec<u8>> {
        let inbox = self.inboxes.get_mut(&carrier)?;
        inbox.bytes.extend_from_slice(bytes);
        if inbox.epoch.is_some() {
            self.take_frames(carrier, now);
            return None;
        }
        let Ok(Parsed::Done { consumed, .. }) = parse(&inbox.bytes) else { return None };
        Some(inbox.bytes.drain(..consumed).collect())
    }

    /// A piece of a stream came over a lane of its own.
    pub(super) fn chunk_came(&mut self, carrier: usize, chunk: Chunk, now: Moment) {
        if let Some(inbox) = self.inboxes.get_mut(&carrier) {
            inbox.parked.push(chunk);
            self.take_chunks(carrier, now);
        }
    }

    /// A datagram came beside the frames.
    pub(super) fn datagram_came(&mut self, carrier: usize, bytes: &[u8], now: Moment) {
        let Some(epoch) = self.inboxes.get(&carrier).and_then(|inbox| inbox.epoch) else { return };
        let Ok(Parsed::Done { value, .. }) = parse(bytes) else { panic!("a whole frame") };
        if self.give(epoch, value, now) {
            self.inboxes.remove(&carrier);
        }
    }

    /// Gives all whole frames to the link.
    pub(super) fn take_frames(&mut self, carrier: usize, now: Moment) {
        let Some(mut inbox) = self.inboxes.remove(&carrier) else { return };
        let Some(epoch) = inbox.epoch else { unreachable!("a carrier that carries the link") };
        let mut at = 0;
        let mut fenced = false;
        while let Parsed::Done { value, consumed } = parse(&inbox.bytes[at..]).expect("an honest peer") {
            at += consumed;
            if self.give(epoch, value, now) {
                fenced = true;
                break;
            }
        }
        inbox.bytes.drain(..at);
        if !fenced {
            self.inboxes.insert(carrier, inbox);
            self.take_chunks(carrier, now);
        }
    }

    /// Gives the chunks to the link that it can take: those of streams it knows, over a carrier it knows.
    fn take_chunks(&mut self, carrier: usize, now: Moment) {
        let Some(inbox) = self.inboxes.get_mut(&carrier) else { return };
        let Some(epoch) = inbox.epoch else { return };
        let parked = std::mem::take(&mut inbox.parked);
        let (known, unknown) = parked.into_iter().partition(|chunk| self.link.knows(chunk.stream));
        inbox.parked = unknown;
        let known: Vec<Chunk> = known;
        for Chunk { stream, offset, bytes, ends } in known {
            let end = offset + bytes.len() as u64;
            let data = (!bytes.is_empty()).then_some(Frame::Data { stream, offset, bytes: &bytes });
            let fin = ends.then_some(Frame::Fin { stream, end });
            let fenced = data.into_iter().chain(fin).any(|frame| self.give(epoch, frame, now));
            if fenced {
                self.inboxes.remove(&carrier);
                return;
            }
        }
    }

    /// Says whether the carrier is fenced.
    fn give(&mut self, epoch: Epoch, frame: Frame<'_>, now: Moment) -> bool {
        let result = match self.link.receive(epoch, frame, now) {
            Ok(None) => false,
            Err(LinkError::Fenced) => true,
            other => panic!("an honest peer: {other:?}"),
        };
        self.link.audit();
        result
    }
}
