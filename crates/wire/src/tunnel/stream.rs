//! One stream of a link, as one of its two ends sees it.
//!
//! Owns both directions, how the opening stands, and for how long the stream may wait. Refuses to know
//! carriers and other streams: what has to be said about it is noted in [`Due`], and said by the link.

mod flow;
mod inbound;
mod outbound;

use std::time::Duration;

use tieline_base::Moment;

pub use flow::DATAGRAM_MAX;
pub(super) use flow::Flow;
#[cfg(test)]
pub(super) use flow::QUEUE_MAX;
pub(super) use inbound::Inbound;
pub(super) use outbound::Outbound;

use super::frame::{Limits, Open};
use super::ids::{Code, StreamId};

/// What a peer said that cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Breach {
    /// Carriers keep order: what is missing was never sent.
    #[error("bytes or an end beyond what was received: some are missing")]
    Gap,
    /// Every promise of memory is kept, but no more than that.
    #[error("bytes beyond the credit that was given")]
    Credit,
    /// An end that is not where the bytes end.
    #[error("bytes behind the end of their direction, or two ends")]
    PastEnd,
    /// Ends that stream alone.
    #[error("confirmation of bytes that were never sent")]
    Unsent,
    /// Bytes or an answer for a stream that was never asked for.
    #[error("a stream that does not exist yet")]
    Unopened,
    /// A number that belongs to the other side, or lies below one already given.
    #[error("a stream's number that its sender may not give")]
    Number,
    /// Only a HELLO or RESUME begins a carrier, and only there.
    #[error("a frame that may not come here")]
    Misplaced,
    /// So many resets in a row that the answers do not fit.
    #[error("more streams broken off than can be answered")]
    Flood,
}

/// What a stream is to reach, and for whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The service, by name.
    pub service: Box<str>,
    /// Who asks.
    pub subject: Box<str>,
    /// The permit that allows it.
    pub permit: u64,
    /// Ties the records of both sides together.
    pub trace: [u8; 16],
    /// What for, in the words of who asks; may be empty.
    pub why: Box<str>,
    /// Whether it is a flow: what it carries is datagrams, which may be lost, and no bytes.
    pub flow: bool,
}

impl Request {
    pub(super) fn of(open: &Open<'_>) -> Self {
        Self {
            service: open.service.into(),
            subject: open.subject.into(),
            permit: open.permit,
            trace: open.trace,
            why: open.why.into(),
            flow: open.flow,
        }
    }

    pub(super) fn as_open(&self, stream: StreamId) -> Open<'_> {
        let Request { service, subject, permit, trace, why, flow } = self;
        Open { stream, service, subject, permit: *permit, trace: *trace, why, flow: *flow }
    }
}

/// For how long a stream may wait. The end that sets them counts alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// While the link is down: since the peer's last sign of life.
    pub detached: Duration,
    /// While no byte moves either way; `None` waits for ever.
    pub idle: Option<Duration>,
}

impl Patience {
    /// Of a stream that knows no better: two minutes without a link.
    pub const DEFAULT: Patience = Patience { detached: Duration::from_secs(120), idle: None };
}

/// How far the opening has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// We asked, and ask again over each carrier until there is an answer.
    Asked(Box<Request>),
    /// We asked, and the peer knows; somebody there has to agree first.
    Waits,
    /// The peer asked; we have not answered, or told what for the answer waits.
    Offered(Option<Box<str>>),
    /// The peer asked, and we agreed.
    Agreed,
    /// We asked, and the peer agreed.
    Granted,
    /// We broke it off, and the peer has not confirmed that.
    Ended {
        code: Code,
        /// Why it was refused, if it never began.
        refused: Option<Box<str>>,
    },
}

/// What has to be said about a stream, in the order in which it is said.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Due {
    pub(super) open: bool,
    pub(super) wait: bool,
    pub(super) answer: bool,
    pub(super) reset: bool,
    pub(super) confirmation: bool,
    pub(super) credit: bool,
}

impl Due {
    pub(super) fn any(self) -> bool {
        self != Due::default()
    }
}

/// One thing to say about a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Say {
    Open,
    Waits,
    Agreed,
    Ended,
    /// An ACK.
    Held(u64),
    /// A CREDIT.
    Room(u64),
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) phase: Phase,
    pub(super) outbound: Outbound,
    pub(super) inbound: Inbound,
    /// Its datagrams, if that is what it carries.
    pub(super) flow: Option<Box<Flow>>,
    pub(super) due: Due,
    /// Whether it stands in the link's line of streams with something due.
    pub(super) queued: bool,
    /// Whether it stands in the schedule of streams with bytes to send.
    pub(super) scheduled: bool,
    /// Whether a confirmation waits for the link's next round of them.
    pub(super) confirms_later: bool,
    pub(super) patience: Patience,
    /// When a byte last moved, either way.
    pub(super) moved: Moment,
    /// Whether a write found no room, so that new room is worth telling.
    pub(super) blocked: bool,
}

impl Stream {
    pub(super) fn new(phase: Phase, limits: &Limits, window: u64, now: Moment) -> Self {
        Self {
            phase,
            outbound: Outbound::new(limits.first_credit, limits.window_max),
            inbound: Inbound::new(limits.first_credit, window, limits.window_max),
            flow: None,
            due: Due::default(),
            queued: false,
            scheduled: false,
            confirms_later: false,
            patience: Patience::DEFAULT,
            moved: now,
            blocked: false,
        }
    }

    /// One that carries datagrams: no byte may be sent either way.
    pub(super) fn of_datagrams(phase: Phase, now: Moment) -> Self {
        let nothing = Limits { streams: 0, budget: 0, first_credit: 0, window: 0, window_max: 0 };
        Self { flow: Some(Box::default()), ..Stream::new(phase, &nothing, 0, now) }
    }

    /// Whether it is only kept until the peer confirms its end.
    pub(super) fn ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// Whether it is ours, and the peer has not answered.
    pub(super) fn asks(&self) -> bool {
        matches!(self.phase, Phase::Asked(_) | Phase::Waits)
    }

    /// Whether bytes may go out. The first ones need not wait for the answer: every acceptor has promised
    /// room for them.
    pub(super) fn sends(&self) -> bool {
        !self.ended() && self.outbound.ready()
    }

    /// Whether both directions ended in order, both sides know it, and all was passed on.
    pub(super) fn done(&self) -> bool {
        let ended = self.outbound.done() && self.inbound.done();
        !self.ended() && ended && !self.due.confirmation && !self.inbound.unconfirmed()
    }

    /// Whether something was said that the peer has not confirmed.
    pub(super) fn waits(&self) -> bool {
        match self.phase {
            Phase::Asked(_) => !self.due.open,
            Phase::Ended { .. } => !self.due.reset,
            Phase::Waits | Phase::Offered(_) | Phase::Agreed | Phase::Granted => self.outbound.unconfirmed(),
        }
    }

    /// The next thing to say about it.
    pub(super) fn say(&mut self) -> Option<Say> {
        let due = &mut self.due;
        Some(if std::mem::take(&mut due.open) {
            Say::Open
        } else if std::mem::take(&mut due.wait) {
            Say::Waits
        } else if std::mem::take(&mut due.answer) {
            Say::Agreed
        } else if std::mem::take(&mut due.reset) {
            Say::Ended
        } else if std::mem::take(&mut due.confirmation) {
            Say::Held(self.inbound.take_confirmation())
        } else if std::mem::take(&mut due.credit) {
            Say::Room(self.inbound.credit())
        } else {
            return None;
        })
    }

    /// The carrier is a new one: whatever was said may not have been heard. Answers how many bytes go again.
    pub(super) fn rewind(&mut self, first_credit: u64) -> u64 {
        self.inbound.forget_confirmation();
        self.due = Due {
            open: self.due.open,
            wait: matches!(self.phase, Phase::Offered(Some(_))),
            answer: matches!(self.phase, Phase::Agreed),
            reset: self.ended(),
            confirmation: !self.ended() && self.inbound.unconfirmed(),
            credit: !self.ended() && self.inbound.credit() > first_credit,
        };
        self.outbound.rewind()
    }

    /// Whether there are datagrams to send.
    pub(super) fn sends_datagrams(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| !flow.outbound.is_empty())
    }

    /// The link's lines are empty.
    pub(super) fn leave_lines(&mut self) {
        if let Some(flow) = &mut self.flow {
            flow.scheduled = false;
        }
        (self.queued, self.scheduled, self.confirms_later) = (false, false, false);
    }

    /// Whether the peer, which no longer knows the stream, can only have let go of it because both directions
    /// had ended in order.
    pub(super) fn ended_in_order(&self) -> bool {
        !self.ended() && self.outbound.end_told() && self.inbound.complete()
    }

    /// The memory that the peer may still make this stream take.
    pub(super) fn promise(&self) -> u64 {
        if self.ended() { 0 } else { self.inbound.promise() }
    }

    /// Bytes held, both ways.
    pub(super) fn held(&self) -> u64 {
        self.outbound.held() + self.inbound.held() + self.flow.as_ref().map_or(0, |flow| flow.held())
    }

    /// When it has waited for too long: `detached` is since when the link is down.
    pub(super) fn deadline(&self, detached: Option<Moment>) -> Option<(Moment, Code)> {
        let idle = self.patience.idle.map(|idle| (self.moved.after(idle), Code::Idle));
        let expiry = detached.map(|since| (since.after(self.patience.detached), Code::Expired));
        let live = !self.ended();
        idle.into_iter().chain(expiry).filter(|_| live).min_by_key(|(at, _)| *at)
    }

    /// Lets go of all bytes: it was broken off.
    pub(super) fn end(&mut self, code: Code, refused: Option<Box<str>>) {
        self.phase = Phase::Ended { code, refused };
        self.outbound.confirm_all();
        self.inbound.discard();
        if let Some(flow) = &mut self.flow {
            **flow = Flow { scheduled: flow.scheduled, ..Flow::default() };
        }
        self.due = Due { reset: true, ..Due::default() };
    }
}
