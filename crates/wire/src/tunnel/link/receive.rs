//! What a carrier brought.

use std::time::Duration;

use tieline_base::Moment;

use super::transmit::ACK_OF_RESET;
use super::{Answer, Event, Link, LinkError};
use crate::tunnel::frame::{Frame, Kill, Open};
use crate::tunnel::ids::{Code, Epoch, Side, StreamId};
use crate::tunnel::stream::{Breach, Phase, Request, Stream};

/// The least time that a confirmation waits for others to go with.
const CONFIRM_MIN: Duration = Duration::from_millis(25);

impl Link {
    /// Takes a frame that the carrier of `epoch` brought. What is not the link's own business is handed back:
    /// GOAWAY to the dialer, KILL of the whole link, STATS, OFFERS, and what may be skipped.
    ///
    /// # Errors
    /// [`LinkError::Fenced`]: nothing has changed, and that carrier is to be closed. [`LinkError::Breach`]:
    /// the link is to be ended.
    pub fn receive<'f>(
        &mut self,
        epoch: Epoch,
        frame: Frame<'f>,
        now: Moment,
    ) -> Result<Option<Frame<'f>>, LinkError> {
        if epoch != self.epoch {
            return Err(LinkError::Fenced);
        }
        self.keys.confirm();
        self.pulse.heard(now);
        match frame {
            Frame::Data { stream, offset, bytes } => self.on_bytes(stream, offset, bytes, now)?,
            Frame::Ack { stream, upto } => self.on_ack(stream, upto, now)?,
            Frame::Credit { stream, upto } => self.on_credit(stream, upto)?,
            Frame::Fin { stream, end } => self.on_fin(stream, end, now)?,
            Frame::Reset { stream, code } => self.on_reset(stream, code)?,
            Frame::Open(open) => self.on_open(&open, now)?,
            Frame::Opened(stream) => self.on_opened(stream, now)?,
            Frame::Waits { stream, text } => self.on_waits(stream, text, now)?,
            Frame::OpenRefused { stream, code, text } => self.on_refused(stream, code, text, now)?,
            Frame::Ping(number) => {
                self.pong = Some(number);
                self.confirm_all();
            }
            Frame::Pong(number) => {
                self.pulse.pong(number, now);
                self.on_answer(number);
            }
            Frame::GoAway(goodbye) if self.side == Side::Acceptor => self.on_farewell(&goodbye, now),
            Frame::Kill(Kill { stream: Some(stream), code, .. }) => self.on_reset(stream, code)?,
            Frame::Udp { flow, bytes } => self.on_datagram(flow, bytes, now)?,
            Frame::Kill(_) | Frame::GoAway(_) | Frame::Stats(_) | Frame::Offers(_) | Frame::Skipped(_) => {
                return Ok(Some(frame));
            }
            Frame::Hello(_)
            | Frame::Welcome(_)
            | Frame::Resume(_)
            | Frame::Resumed(_)
            | Frame::Refused(_) => return Err(Breach::Misplaced.into()),
        }
        Ok(None)
    }

    /// Whether a stream of this number was ever asked for: carriers that give each stream a pipe of its own
    /// may bring its bytes before that, and have to wait with them.
    pub fn knows(&self, id: StreamId) -> bool {
        if id.opener() == self.side { id.0 < self.next } else { id.0 <= self.seen }
    }

    /// The stream, or `None` if it is no more: a late frame for it means nothing.
    fn find(&mut self, id: StreamId) -> Result<Option<&mut Stream>, Breach> {
        if !self.knows(id) {
            return Err(Breach::Unopened);
        }
        Ok(self.streams.get_mut(&id).filter(|stream| !stream.ended()))
    }

    fn on_bytes(&mut self, id: StreamId, offset: u64, bytes: &[u8], now: Moment) -> Result<(), Breach> {
        if self.find(id)?.is_none() {
            return Ok(());
        }
        let new = self.change(id, |stream| {
            stream.moved = now;
            stream.inbound.receive(offset, bytes)
        });
        if let Some(new) = new.transpose()?
            && new > 0
        {
            self.tell_readable(id);
        }
        self.confirm(id, now);
        Ok(())
    }

    fn on_fin(&mut self, id: StreamId, end: u64, now: Moment) -> Result<(), Breach> {
        if self.find(id)?.is_none() {
            return Ok(());
        }
        self.change(id, |stream| stream.inbound.finish(end)).transpose()?;
        self.tell_readable(id);
        self.confirm(id, now);
        Ok(())
    }

    /// Has what was received confirmed: now, or together with others soon.
    pub(super) fn confirm(&mut self, id: StreamId, now: Moment) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.inbound.unconfirmed()) else {
            return;
        };
        if stream.inbound.confirm_now() || self.paused.is_some() {
            self.change(id, |stream| stream.due.confirmation = true);
        } else if !std::mem::replace(&mut stream.confirms_later, true) {
            self.later.push(id);
            let wait = CONFIRM_MIN.max(self.pulse.round_trip() / 4);
            self.confirm_at = Some(self.confirm_at.unwrap_or(now.after(wait)));
        }
    }

    /// Has all confirmed that waited for company.
    pub(super) fn confirm_all(&mut self) {
        self.confirm_at = None;
        for id in std::mem::take(&mut self.later) {
            self.change(id, |stream| {
                stream.confirms_later = false;
                stream.due.confirmation |= !stream.ended() && stream.inbound.unconfirmed();
            });
        }
    }

    fn on_ack(&mut self, id: StreamId, upto: u64, now: Moment) -> Result<(), Breach> {
        if !self.knows(id) {
            return Err(Breach::Unopened);
        }
        if upto == ACK_OF_RESET {
            match self.streams.get(&id).map(Stream::ended) {
                Some(true) => {
                    self.remove(id);
                    self.progress(now);
                }
                Some(false) => self.break_off(id, Code::Protocol),
                None => {}
            }
            return Ok(());
        }
        if self.find(id)?.is_none() {
            return Ok(());
        }
        match self.change(id, |stream| stream.outbound.confirm(upto)) {
            Some(Ok(true)) => {
                self.progress(now);
                self.tell_writable(id);
                self.tell_capped();
            }
            Some(Err(_)) => self.break_off(id, Code::Protocol),
            Some(Ok(false)) | None => {}
        }
        Ok(())
    }

    pub(super) fn progress(&mut self, now: Moment) {
        self.pulse.progress(now);
        self.pulse.waits(self.sum.waits > 0, now);
    }

    fn on_credit(&mut self, id: StreamId, upto: u64) -> Result<(), Breach> {
        if self.find(id)?.is_some() {
            self.change(id, |stream| stream.outbound.allow(upto));
            self.tell_writable(id);
        }
        Ok(())
    }

    pub(super) fn tell_writable(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.blocked && !stream.ended() && stream.outbound.room() > 0 {
            stream.blocked = false;
            self.events.push_back(Event::Writable(id));
        }
    }

    /// Writes that were refused for the sake of all may go on, once a part of what all hold is gone.
    fn tell_capped(&mut self) {
        if self.capped && self.sum.outbound <= self.limits.budget {
            self.capped = false;
            let ids: Vec<StreamId> = self.streams.keys().copied().collect();
            ids.into_iter().for_each(|id| self.tell_writable(id));
        }
    }

    /// The peer broke a stream off. It is told that we know, also if we have long forgotten the stream: it
    /// keeps it until then.
    pub(super) fn on_reset(&mut self, id: StreamId, code: Code) -> Result<(), Breach> {
        if !self.knows(id) {
            return Err(Breach::Unopened);
        }
        self.answer(Answer::Confirmed(id))?;
        match self.find(id)? {
            Some(_) if code == Code::Lost => self.lost(id),
            Some(_) => {
                self.remove(id);
                self.events.push_back(Event::Reset { stream: id, code });
            }
            // Broken off by both: ours is kept until the peer confirms it.
            None => {}
        }
        Ok(())
    }

    fn on_open(&mut self, open: &Open<'_>, now: Moment) -> Result<(), Breach> {
        let id = open.stream;
        if id.opener() == self.side {
            return Err(Breach::Number);
        }
        if id.0 > self.seen {
            self.seen = id.0;
            return self.offer_stream(open, now);
        }
        // Asked again, because the carrier changed: answered again, and never dialled twice.
        let known = self.change(id, |stream| stream.due.answer |= matches!(stream.phase, Phase::Agreed));
        if known.is_none() { self.answer(Answer::Lost(id)) } else { Ok(()) }
    }

    fn offer_stream(&mut self, open: &Open<'_>, now: Moment) -> Result<(), Breach> {
        if !self.has_room(open.flow) {
            return self.answer(Answer::Busy(open.stream));
        }
        self.insert(open.stream, Phase::Offered(None), open.flow, now);
        self.events.push_back(Event::Offered { stream: open.stream, request: Request::of(open) });
        Ok(())
    }

    fn on_waits(&mut self, id: StreamId, text: &str, now: Moment) -> Result<(), Breach> {
        if self.goes_on(id, Phase::Waits, now)? {
            self.events.push_back(Event::Waits { stream: id, text: text.into() });
        }
        Ok(())
    }

    fn on_opened(&mut self, id: StreamId, now: Moment) -> Result<(), Breach> {
        if self.goes_on(id, Phase::Granted, now)? {
            self.events.push_back(Event::Opened(id));
        }
        Ok(())
    }

    /// A stream that we asked for is in `phase` now; whether that is news.
    fn goes_on(&mut self, id: StreamId, phase: Phase, now: Moment) -> Result<bool, Breach> {
        if id.opener() != self.side {
            return Err(Breach::Number);
        }
        self.find(id)?;
        let news = self.change(id, |stream| {
            let news = stream.asks();
            if news {
                stream.phase = phase;
            }
            news
        });
        if news == Some(true) {
            self.progress(now);
        }
        Ok(news == Some(true))
    }

    fn on_refused(&mut self, id: StreamId, code: Code, text: &str, now: Moment) -> Result<(), Breach> {
        if id.opener() != self.side {
            return Err(Breach::Number);
        }
        let asked = self.find(id)?.is_some_and(|stream| stream.asks());
        if !asked {
            return self.on_reset(id, code);
        }
        self.answer(Answer::Confirmed(id))?;
        self.remove(id);
        self.progress(now);
        self.events.push_back(Event::Refused { stream: id, code, text: text.into() });
        Ok(())
    }

    /// The peer no longer knows a stream: it ended in order and only the last word was lost, or it broke.
    pub(super) fn lost(&mut self, id: StreamId) {
        let in_order = self.streams.get(&id).is_some_and(Stream::ended_in_order);
        if in_order {
            self.change(id, |stream| {
                stream.outbound.confirm_all();
                stream.inbound.confirmed_by_itself();
                stream.due.confirmation = false;
            });
        } else if self.remove(id).is_some_and(|stream| !stream.ended()) {
            self.events.push_back(Event::Reset { stream: id, code: Code::Lost });
        }
    }

    /// Ends a stream for a reason that neither side's application gave.
    pub(super) fn break_off(&mut self, id: StreamId, code: Code) {
        if self.streams.get(&id).is_some_and(|stream| !stream.ended()) {
            self.reset(id, code);
            self.events.push_back(Event::Reset { stream: id, code });
        }
    }

    pub(super) fn answer(&mut self, answer: Answer) -> Result<(), Breach> {
        // A peer that reads its answers never has more of them under way than two lists of a table bring.
        if self.answers.len() >= 2 * self.limits.streams {
            return Err(Breach::Flood);
        }
        self.answers.push_back(answer);
        Ok(())
    }
}
