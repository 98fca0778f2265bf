//! What a link has to say: first about streams, then their bytes.

use bytes::Bytes;
use tieline_base::Moment;

use super::{Answer, Datagram, Link};
use crate::tunnel::frame::{DATA_MAX, Frame};
use crate::tunnel::ids::{Code, StreamId};
use crate::tunnel::stream::{Phase, Say};
use crate::tunnel::varint::VARINT_MAX;

/// What an ACK says that confirms a RESET: all of both directions, however long.
pub const ACK_OF_RESET: u64 = VARINT_MAX;

/// Bytes of a stream, for carriers that give each stream a pipe of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Whose.
    pub stream: StreamId,
    /// Where the first of them stands.
    pub offset: u64,
    /// Shared with what is kept for replay.
    pub bytes: Bytes,
    /// Whether the direction ends behind them.
    pub ends: bool,
}

impl Link {
    /// Whether [`Link::next_control`] or [`Link::next_chunk`] may have something.
    pub fn wants_to_send(&self) -> bool {
        let asked = self.farewell_due() || self.pulse.ping_due() || self.pong.is_some();
        let said = asked || !self.answers.is_empty() || self.telling.is_due();
        let bytes = self.paused.is_none() && !(self.schedule.is_empty() && self.flows.is_empty());
        self.attached && (said || !self.due.is_empty() || bytes)
    }

    /// The next frame that is not bytes. Goes before all bytes.
    pub fn next_control(&mut self, now: Moment) -> Option<Frame<'_>> {
        if !self.attached {
            return None;
        }
        if let Some(farewell) = self.take_farewell() {
            return Some(farewell);
        }
        if let Some(number) = self.pulse.take_ping() {
            return Some(Frame::Ping(number));
        }
        if let Some(number) = self.pong.take() {
            return Some(Frame::Pong(number));
        }
        if self.telling.is_due() {
            return self.telling.say();
        }
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer.frame());
        }
        let (stream, say) = self.next_said()?;
        self.pulse.waits(self.sum.waits > 0, now);
        self.frame_of(stream, say)
    }

    fn next_said(&mut self) -> Option<(StreamId, Say)> {
        loop {
            let id = *self.due.front()?;
            // As long as it says something it keeps its place: what is said about one stream stays together.
            if let Some(Some(say)) = self.change(id, |stream| stream.say()) {
                return Some((id, say));
            }
            self.due.pop_front();
            self.change(id, |stream| stream.queued = false);
        }
    }

    fn frame_of(&self, stream: StreamId, say: Say) -> Option<Frame<'_>> {
        let phase = self.streams.get(&stream).map(|stream| &stream.phase);
        Some(match (say, phase) {
            (Say::Open, Some(Phase::Asked(request))) => Frame::Open(request.as_open(stream)),
            (Say::Waits, Some(Phase::Offered(Some(text)))) => Frame::Waits { stream, text },
            (Say::Agreed, _) => Frame::Opened(stream),
            (Say::Ended, Some(Phase::Ended { code, refused: Some(text) })) => {
                Frame::OpenRefused { stream, code: *code, text }
            }
            (Say::Ended, Some(Phase::Ended { code, refused: None })) => Frame::Reset { stream, code: *code },
            (Say::Held(upto), _) => Frame::Ack { stream, upto },
            (Say::Room(upto), _) => Frame::Credit { stream, upto },
            // `say` speaks of what the phase is, and nothing changed it since.
            (Say::Open | Say::Waits | Say::Ended, _) => return None,
        })
    }

    /// The next bytes, at most `most`, of the stream whose turn it is; to be asked when there is no control
    /// frame left.
    pub fn next_chunk(&mut self, most: usize, now: Moment) -> Option<Chunk> {
        if !self.attached || self.paused.is_some() {
            return None;
        }
        loop {
            let turn = self.schedule.next()?;
            let id = turn.stream;
            let chunk = self.change(id, |stream| {
                let (offset, bytes) = stream.outbound.take(most).unwrap_or_default();
                let ends = stream.outbound.take_end();
                let offset = if bytes.is_empty() { ends.unwrap_or_default() } else { offset };
                (!bytes.is_empty() || ends.is_some()).then(|| Chunk {
                    stream: id,
                    offset,
                    bytes,
                    ends: ends.is_some(),
                })
            });
            if let Some(Some(chunk)) = chunk {
                self.schedule.sent(turn, chunk.bytes.len());
                self.pulse.waits(self.sum.waits > 0, now);
                return Some(chunk);
            }
            if !self.schedule.nothing(turn)
                && let Some(stream) = self.streams.get_mut(&id)
            {
                stream.scheduled = false;
            }
        }
    }

    /// Writes frames behind what `out` holds until that is at least `limit` bytes long or there is nothing
    /// more to say: for carriers that are one pipe of bytes. Exceeds `limit` by less than two frames.
    pub fn fill(&mut self, out: &mut Vec<u8>, limit: usize, now: Moment) {
        self.fill_beside(out, limit, now, &mut Some);
    }

    /// The same for carriers that have a way for datagrams beside the pipe: `beside` takes what can go there,
    /// and hands back what cannot. What it took counts towards `limit` too.
    pub fn fill_beside(
        &mut self,
        out: &mut Vec<u8>,
        limit: usize,
        now: Moment,
        beside: &mut impl FnMut(Datagram) -> Option<Datagram>,
    ) {
        let mut aside = 0;
        while out.len() + aside < limit {
            if let Some(frame) = self.next_control(now) {
                frame.encode(out);
                continue;
            }
            let before = out.len() + aside;
            // Streams and flows take turns: neither can starve the other.
            while out.len() + aside < before + DATA_MAX
                && let Some(datagram) = self.next_datagram()
            {
                let length = datagram.bytes.len();
                match beside(datagram) {
                    Some(datagram) => datagram.encode(out),
                    None => aside += length.max(1),
                }
            }
            if let Some(chunk) = self.next_chunk(DATA_MAX, now) {
                chunk.encode(out);
            }
            if out.len() + aside == before {
                return;
            }
        }
    }
}

impl Chunk {
    /// Writes it as DATA and FIN.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Chunk { stream, offset, bytes, ends } = self;
        if !bytes.is_empty() {
            Frame::Data { stream: *stream, offset: *offset, bytes }.encode(out);
        }
        if *ends {
            Frame::Fin { stream: *stream, end: offset + bytes.len() as u64 }.encode(out);
        }
    }
}

impl Answer {
    fn frame(self) -> Frame<'static> {
        match self {
            Answer::Confirmed(stream) => Frame::Ack { stream, upto: ACK_OF_RESET },
            Answer::Lost(stream) => Frame::Reset { stream, code: Code::Lost },
            Answer::Busy(stream) => {
                Frame::OpenRefused { stream, code: Code::Busy, text: "too many streams on this link" }
            }
        }
    }
}
