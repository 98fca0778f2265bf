//! One end of a link: many streams over one carrier at a time, and over the next when that one is lost.
//!
//! Owns which streams there are, what each has to say, whose bytes go next, and how much memory all of them
//! together may take. Refuses to know sockets, time and randomness: whoever drives it passes in what a
//! carrier brought and what time it is, and takes out frames and [`Event`]s.
//!
//! Start with [`Link::receive`] and [`Link::fill`]; [`resume`] is the heart of it.

#[cfg(test)]
mod audit;
mod clock;
mod flows;
mod moving;
mod offers;
mod receive;
mod resume;
mod transmit;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tieline_base::Moment;

pub use flows::Datagram;
pub use moving::{HOLD_MAX, SETTLE_MAX};
pub use resume::{Judged, Offer, ResumeError};
pub use transmit::{ACK_OF_RESET, Chunk};

use self::offers::Telling;
use super::frame::Limits;
use super::ids::{Code, Epoch, LinkId, Side, StreamId};
use super::key::{Key, Keys};
use super::pulse::Pulse;
use super::schedule::Schedule;
use super::stream::{Breach, Patience, Phase, Request, Stream};
use moving::Leaving;

/// What happened to a link, for whoever drives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The peer asks for a stream: to be answered by [`Link::accept`] or [`Link::refuse`].
    Offered {
        /// Which.
        stream: StreamId,
        /// For what.
        request: Request,
    },
    /// The peer agreed to a stream of ours.
    Opened(StreamId),
    /// The peer has yet to be told by somebody whether it may agree to a stream of ours.
    Waits {
        /// Which.
        stream: StreamId,
        /// For what, for people.
        text: Box<str>,
    },
    /// The peer refused a stream of ours, which is gone. A refusal that was lost with its carrier comes as
    /// [`Event::Reset`].
    Refused {
        /// Which.
        stream: StreamId,
        /// Why.
        code: Code,
        /// Why, for people.
        text: Box<str>,
    },
    /// There are bytes to pass on, or the end has come.
    Readable(StreamId),
    /// A write that found too little room may go on.
    Writable(StreamId),
    /// Both directions ended in order. The stream is gone.
    Closed(StreamId),
    /// The stream was broken off by the peer, by time, or by a breach of the protocol, and is gone. The
    /// socket behind it must be reset, not closed: a cut never looks like an end.
    Reset {
        /// Which.
        stream: StreamId,
        /// Why.
        code: Code,
    },
    /// The peer should have spoken: a new carrier is needed. The one in use goes on until another takes over.
    Doubt,
    /// Another carrier took over; the one before it may be closed.
    Resumed {
        /// The new one's.
        epoch: Epoch,
        /// Since the peer's last sign of life over the one before.
        gap: Duration,
        /// Bytes that go again.
        replayed: u64,
    },
}

/// Why a frame could not be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkError {
    /// Another carrier has taken over. This one is to be closed; nothing else has changed.
    #[error("frame over a carrier that another has replaced")]
    Fenced,
    /// The peer breaks the protocol. The link and all its streams are to be ended.
    #[error("{0}")]
    Breach(#[from] Breach),
}

/// One end of a link. See the module.
#[derive(Debug)]
pub struct Link {
    id: LinkId,
    side: Side,
    limits: Limits,
    keys: Keys,
    /// The carrier whose frames are applied.
    epoch: Epoch,
    /// The highest that a RESUME of ours ever bore.
    offered: Epoch,
    attached: bool,
    streams: BTreeMap<StreamId, Stream>,
    /// The next number that we give out.
    next: u64,
    /// The highest that the peer has given out.
    seen: u64,
    /// Streams with something due.
    due: VecDeque<StreamId>,
    schedule: Schedule,
    /// The same of datagrams.
    flows: Schedule,
    /// What is to be said about streams that are no more.
    answers: VecDeque<Answer>,
    pong: Option<u64>,
    telling: Telling,
    /// Streams whose confirmation waits for company, until that moment.
    later: Vec<StreamId>,
    confirm_at: Option<Moment>,
    /// No bytes go out until then.
    paused: Option<Moment>,
    /// We are about to move to another carrier.
    leaving: Option<Leaving>,
    /// When the first stream may have waited for too long.
    expires: Moment,
    pulse: Pulse,
    events: VecDeque<Event>,
    sum: Tally,
    /// The widest window that a stream came to need.
    widest: u64,
    /// Whether the process is short of memory: no credit is renewed.
    short: bool,
    /// Whether a write was refused for the sake of all.
    capped: bool,
}

/// Something to say about a stream that is no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    /// Its reset is confirmed.
    Confirmed(StreamId),
    /// It is not known any more.
    Lost(StreamId),
    /// There was no room for it.
    Busy(StreamId),
}

/// What a stream counts for in the sums of its link.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Tally {
    promise: u64,
    outbound: u64,
    inbound: u64,
    waits: u64,
    /// How many are flows, and what waits of them.
    flows: u64,
    datagrams: u64,
}

/// One part in so many of what is left is promised to a stream that has proved nothing yet.
const FIRST_PART: u64 = 16;

impl Tally {
    fn of(stream: &Stream) -> Tally {
        let (outbound, inbound) = (stream.outbound.held(), stream.inbound.held());
        let (flows, datagrams) = stream.flow.as_ref().map_or((0, 0), |flow| (1, flow.held()));
        let (promise, waits) = (stream.promise(), u64::from(stream.waits()));
        Tally { promise, outbound, inbound, waits, flows, datagrams }
    }
}

impl Link {
    /// A new link, over the carrier that HELLO and WELCOME passed on. `key` comes from that carrier;
    /// `heartbeat` is the longest silence while there are no streams.
    pub fn new(id: LinkId, side: Side, limits: Limits, key: Key, heartbeat: Duration, now: Moment) -> Self {
        Self {
            id,
            side,
            limits,
            keys: Keys::new(key),
            epoch: Epoch::FIRST,
            offered: Epoch::FIRST,
            attached: true,
            streams: BTreeMap::new(),
            next: side.first().0,
            seen: 0,
            due: VecDeque::new(),
            schedule: Schedule::default(),
            flows: Schedule::default(),
            answers: VecDeque::new(),
            pong: None,
            telling: Telling::default(),
            later: Vec::new(),
            confirm_at: None,
            paused: None,
            leaving: None,
            expires: Moment(u64::MAX),
            pulse: Pulse::new(heartbeat, now),
            events: VecDeque::new(),
            sum: Tally::default(),
            widest: 0,
            short: false,
            capped: false,
        }
    }

    /// Its name.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// The carrier whose frames are applied.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether that carrier is still there, as far as is known.
    pub fn attached(&self) -> bool {
        self.attached
    }

    /// Whether the peer should have spoken over that carrier.
    pub fn in_doubt(&self) -> bool {
        self.pulse.doubts()
    }

    /// The smoothed round trip over the carrier in use; a usual one until it is measured.
    pub fn round_trip(&self) -> Duration {
        self.pulse.round_trip()
    }

    /// The same, if it was measured.
    pub fn measured_round_trip(&self) -> Option<Duration> {
        self.pulse.measured()
    }

    /// The next thing that happened. To be asked until there is none, after every other call.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Asks the peer for a stream. Bytes may be written at once: as many as every acceptor promises.
    ///
    /// # Errors
    /// [`Code::Busy`] if there is no room for one more.
    pub fn open(&mut self, request: Request, now: Moment) -> Result<StreamId, Code> {
        if !self.has_room(request.flow) {
            return Err(Code::Busy);
        }
        let id = StreamId(self.next);
        self.next += 2;
        let flow = request.flow;
        self.insert(id, Phase::Asked(Box::new(request)), flow, now);
        Ok(id)
    }

    /// Agrees to a stream that was offered.
    pub fn accept(&mut self, id: StreamId) {
        self.change(id, |stream| {
            if matches!(stream.phase, Phase::Offered(_)) {
                stream.phase = Phase::Agreed;
                (stream.due.wait, stream.due.answer) = (false, true);
            }
        });
    }

    /// Tells the peer what for the answer to a stream that was offered waits, so that it does not take the
    /// silence for that of a link which is lost. The text is for people.
    pub fn wait(&mut self, id: StreamId, text: &str) {
        self.change(id, |stream| {
            if let Phase::Offered(told) = &mut stream.phase {
                *told = Some(text.into());
                stream.due.wait = true;
            }
        });
    }

    /// Refuses a stream that was offered. The text is for people, and for strangers.
    pub fn refuse(&mut self, id: StreamId, code: Code, text: &str) {
        self.change(id, |stream| {
            if matches!(stream.phase, Phase::Offered(_)) {
                stream.end(code, Some(text.into()));
            }
        });
    }

    /// How long a stream may wait, by what it is for.
    pub fn set_patience(&mut self, id: StreamId, patience: Patience) {
        self.change(id, |stream| stream.patience = patience);
        self.expires = Moment(0);
    }

    /// Takes as many of `bytes` as there is room for and says how many; [`Event::Writable`] tells when there
    /// is more room. None are taken of a stream that is gone or finished.
    pub fn write(&mut self, id: StreamId, bytes: &[u8], now: Moment) -> usize {
        // A peer may promise credit and never confirm anything; the sum bounds what that costs.
        let spare = (2 * self.limits.budget).saturating_sub(self.sum.outbound);
        let written = self.change(id, |stream| {
            let room = if stream.ended() { 0 } else { stream.outbound.room().min(spare) };
            let length = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            stream.outbound.write(&bytes[..length]);
            stream.blocked = length < bytes.len();
            stream.moved = now;
            length
        });
        let written = written.unwrap_or(0);
        self.capped |= spare < bytes.len() as u64;
        written
    }

    /// How many bytes [`Link::write`] would take.
    pub fn room(&self, id: StreamId) -> u64 {
        let spare = (2 * self.limits.budget).saturating_sub(self.sum.outbound);
        self.streams
            .get(&id)
            .filter(|stream| !stream.ended())
            .map_or(0, |stream| stream.outbound.room().min(spare))
    }

    /// Ends our direction of a stream, in order: the peer sees the end behind the last byte.
    pub fn finish(&mut self, id: StreamId) {
        self.change(id, |stream| stream.outbound.finish());
    }

    /// Breaks a stream off, both ways. No [`Event`] follows.
    pub fn reset(&mut self, id: StreamId, code: Code) {
        self.change(id, |stream| {
            if !stream.ended() {
                stream.end(code, None);
            }
        });
    }

    /// The first of the bytes that wait to be passed on; more may wait behind them.
    pub fn readable(&self, id: StreamId) -> &[u8] {
        self.streams.get(&id).map_or(&[], |stream| stream.inbound.readable())
    }

    /// Whether all of the peer's direction was received and passed on, its end among it.
    pub fn at_end(&self, id: StreamId) -> bool {
        self.streams.get(&id).is_some_and(|stream| !stream.ended() && stream.inbound.done())
    }

    /// The first `count` of [`Link::readable`] were passed on: there is room for others.
    pub fn drain(&mut self, id: StreamId, count: usize, now: Moment) {
        let round_trip = self.pulse.round_trip();
        let spare = self.spare();
        let window = self.change(id, |stream| {
            stream.moved = now;
            stream.inbound.drain(count as u64);
            stream.due.credit |= !stream.ended() && stream.inbound.renew(now, round_trip, spare);
            stream.inbound.window()
        });
        self.widest = self.widest.max(window.unwrap_or_default());
    }

    /// Whether the process is short of memory. While it is, no credit is renewed; what was promised holds.
    pub fn set_short(&mut self, short: bool, now: Moment) {
        let ends = self.short && !short;
        self.short = short;
        if ends {
            let ids: Vec<StreamId> = self.streams.keys().copied().collect();
            ids.into_iter().for_each(|id| self.drain(id, 0, now));
        }
    }

    /// Bytes held for all streams, both ways.
    pub fn held(&self) -> u64 {
        self.sum.outbound + self.sum.inbound + self.sum.datagrams
    }

    /// The stream that holds most, and how many bytes it holds.
    pub fn largest(&self) -> Option<(StreamId, u64)> {
        self.streams.iter().map(|(id, stream)| (*id, stream.held())).max_by_key(|(_, held)| *held)
    }

    /// The memory that the peer may still make this end take, in bytes: at most the link's budget.
    pub fn promised(&self) -> u64 {
        self.sum.promise
    }

    /// The streams that live or wait for their end to be confirmed.
    pub fn streams(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.streams.keys().copied()
    }

    /// How many of them are flows.
    pub fn flows(&self) -> usize {
        usize::try_from(self.sum.flows).unwrap_or(usize::MAX)
    }

    /// Flows promise nothing, and half of the streams may be flows.
    fn has_room(&self, flow: bool) -> bool {
        let fits = match flow {
            true => self.flows() < self.limits.streams / 2,
            false => self.sum.promise + self.limits.first_credit <= self.limits.budget,
        };
        fits && self.streams.len() < self.limits.streams
    }

    /// By how much promises may grow.
    fn spare(&self) -> u64 {
        if self.short { 0 } else { self.limits.budget.saturating_sub(self.sum.promise) }
    }

    /// The window that a stream begins with: as wide as an earlier one came to need, for the path is the
    /// same, but no more than a small part of what is left.
    fn first_window(&self) -> u64 {
        if self.sum.promise > self.limits.budget / 2 {
            return self.limits.first_credit;
        }
        self.limits.window.max(self.widest.min(self.spare() / FIRST_PART))
    }

    fn insert(&mut self, id: StreamId, phase: Phase, flow: bool, now: Moment) {
        let window = self.first_window();
        let mut stream = match flow {
            true => Stream::of_datagrams(phase, now),
            false => Stream::new(phase, &self.limits, window, now),
        };
        stream.due.open = matches!(stream.phase, Phase::Asked(_));
        self.count(Tally::default(), Tally::of(&stream));
        self.streams.insert(id, stream);
        let spare = self.spare();
        self.change(id, |stream| stream.due.credit = stream.inbound.renew(now, Duration::ZERO, spare));
    }

    /// Changes a stream. All that follows from its state (sums, places in line, its end) is brought up to
    /// date here and nowhere else. `None` if there is no such stream.
    fn change<T>(&mut self, id: StreamId, change: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        let stream = self.streams.get_mut(&id)?;
        let before = Tally::of(stream);
        let result = change(stream);
        self.settle(id, before);
        Some(result)
    }

    fn settle(&mut self, id: StreamId, before: Tally) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.due.any() && !stream.queued {
            stream.queued = true;
            self.due.push_back(id);
        }
        if stream.sends() && !stream.scheduled {
            stream.scheduled = true;
            self.schedule.wake(id);
        }
        if stream.sends_datagrams()
            && let Some(flow) = stream.flow.as_mut().filter(|flow| !flow.scheduled)
        {
            flow.scheduled = true;
            self.flows.wake(id);
        }
        let (done, after) = (stream.done(), Tally::of(stream));
        self.count(before, after);
        if done {
            self.remove(id);
            self.events.push_back(Event::Closed(id));
        }
    }

    fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        self.count(Tally::of(&stream), Tally::default());
        Some(stream)
    }

    fn count(&mut self, before: Tally, after: Tally) {
        self.sum.promise = self.sum.promise - before.promise + after.promise;
        self.sum.outbound = self.sum.outbound - before.outbound + after.outbound;
        self.sum.inbound = self.sum.inbound - before.inbound + after.inbound;
        self.sum.waits = self.sum.waits - before.waits + after.waits;
        self.sum.flows = self.sum.flows - before.flows + after.flows;
        self.sum.datagrams = self.sum.datagrams - before.datagrams + after.datagrams;
    }

    /// There are bytes to pass on; the last event says so already, or one more does.
    fn tell_readable(&mut self, id: StreamId) {
        if self.events.back() != Some(&Event::Readable(id)) {
            self.events.push_back(Event::Readable(id));
        }
    }
}
