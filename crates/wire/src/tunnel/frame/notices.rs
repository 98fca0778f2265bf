//! The frames that say something about a stream, the link or the peer, beyond bytes and offsets.

use std::time::Duration;

use super::fields::{Endpoints, code, plain, stream_id, text};
use crate::cursor::Cursor;
use crate::tunnel::ids::{Code, StreamId};
use crate::tunnel::varint::{self, Put};

/// The most counters in one STATS.
pub const STATS_MAX: usize = 64;

/// Asks for a stream. The far side maps the service to an address of its own and judges by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Open<'a> {
    /// The new stream's number.
    pub stream: StreamId,
    /// What it wants to reach, by name: never an address.
    pub service: &'a str,
    /// Who wants it.
    pub subject: &'a str,
    /// The permit that allows it, for the audit trail.
    pub permit: u64,
    /// Ties the records of both sides together.
    pub trace: [u8; 16],
    /// What for, in the words of who asks; empty if he says nothing.
    pub why: &'a str,
    /// Whether it is a flow, of datagrams. That has a frame of its own, with the same fields.
    pub flow: bool,
}

impl<'a> Open<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>, flow: bool) -> Option<Self> {
        Some(Open {
            stream: stream_id(cursor)?,
            service: text(cursor)?,
            subject: text(cursor)?,
            permit: varint::take(cursor)?,
            trace: cursor.array()?,
            // Left out where it is empty, and so of one form.
            why: if cursor.is_empty() { "" } else { text(cursor).filter(|why| !why.is_empty())? },
            flow,
        })
    }

    pub(super) fn put(&self, out: &mut impl Put) {
        out.varint(self.stream.0);
        out.counted(plain(self.service).as_bytes());
        out.counted(plain(self.subject).as_bytes());
        out.varint(self.permit);
        out.bytes(&self.trace);
        let why = plain(self.why);
        if !why.is_empty() {
            out.counted(why.as_bytes());
        }
    }
}

/// Asks the peer to move its links elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GoAway<'a> {
    /// The link ends after this, whatever still runs on it.
    pub deadline: Duration,
    /// The peer waits a random part of this before it moves, so that not all come at once.
    pub spread: Duration,
    /// Where to go, best first; none means back to where it came from.
    pub next: Endpoints<'a>,
}

impl<'a> GoAway<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        Some(GoAway {
            deadline: Duration::from_millis(varint::take(cursor)?),
            spread: Duration::from_millis(varint::take(cursor)?),
            next: Endpoints::read(cursor)?,
        })
    }

    pub(super) fn put(&self, out: &mut impl Put) {
        for wait in [self.deadline, self.spread] {
            out.varint(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        }
        self.next.put(out);
    }
}

/// Ends a stream or the whole link at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kill<'a> {
    /// Which stream; `None` is the link.
    pub stream: Option<StreamId>,
    /// Why.
    pub code: Code,
    /// Who did it, for the audit trail.
    pub actor: &'a str,
}

impl<'a> Kill<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let stream = varint::take(cursor)?;
        Some(Kill {
            stream: (stream > 0).then_some(StreamId(stream)),
            code: code(cursor)?,
            actor: text(cursor)?,
        })
    }

    pub(super) fn put(&self, out: &mut impl Put) {
        out.varint(self.stream.map_or(0, |stream| stream.0));
        out.varint(self.code.number());
        out.counted(plain(self.actor).as_bytes());
    }
}

/// Counters, each a number for what it counts and how much it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats<'a> {
    /// Whole pairs of numbers, checked.
    pairs: &'a [u8],
}

/// One counter of a [`Stats`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counter {
    /// What it counts.
    pub what: u64,
    /// How much it was.
    pub count: u64,
}

impl<'a> Stats<'a> {
    /// Writes `counters`, at most [`STATS_MAX`] of them, into `out` and borrows them from there.
    pub fn write(counters: impl IntoIterator<Item = Counter>, out: &'a mut Vec<u8>) -> Self {
        out.clear();
        for Counter { what, count } in counters.into_iter().take(STATS_MAX) {
            out.varint(what);
            out.varint(count);
        }
        Stats { pairs: out }
    }

    /// The counters.
    pub fn iter(&self) -> impl Iterator<Item = Counter> + use<'a> {
        let mut cursor = Cursor::new(self.pairs);
        std::iter::from_fn(move || counter(&mut cursor))
    }

    pub(super) fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let pairs = cursor.take(cursor.remaining())?;
        let mut checked = Cursor::new(pairs);
        for _ in 0..STATS_MAX {
            if checked.is_empty() {
                break;
            }
            counter(&mut checked)?;
        }
        checked.is_empty().then_some(Stats { pairs })
    }

    pub(super) fn put(&self, out: &mut impl Put) {
        out.bytes(self.pairs);
    }
}

fn counter(cursor: &mut Cursor<'_>) -> Option<Counter> {
    Some(Counter { what: varint::take(cursor)?, count: varint::take(cursor)? })
}
