//! The frames that begin a link: HELLO, WELCOME, and the one answer that grants nothing.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::fields::{Endpoints, text};
use crate::cursor::Cursor;
use crate::tunnel::ids::{Epoch, LinkId};
use crate::tunnel::varint::{self, Put};

/// The most lines of a [`Welcome`]'s table of waits.
pub const TTLS_MAX: usize = 16;

/// Asks for a new link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello<'a> {
    /// The oldest version that the dialer speaks.
    pub version_min: u64,
    /// The newest.
    pub version_max: u64,
    /// Bits of what it can do beyond its version; unknown ones mean nothing.
    pub features: u64,
    /// Random, new with each start of the process: a second HELLO with another one ends the first's links.
    pub boot: [u8; 16],
    /// Which of its process's links this is: a later HELLO for the same one ends the earlier link.
    pub place: u64,
    /// What it is.
    pub party: Party,
    /// The release it was built from, for people.
    pub release: &'a str,
}

/// What a dialer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Party {
    /// It offers services of its site.
    Agent,
    /// It reaches services for one user.
    Connect,
    /// A server that forwards to another.
    Edge,
}

const PARTIES: [Party; 3] = [Party::Agent, Party::Connect, Party::Edge];

impl<'a> Hello<'a> {
    /// The version to speak with this dialer, if we speak all of `ours`: the newest that both do.
    pub fn version(&self, ours: RangeInclusive<u64>) -> Option<u64> {
        let newest = self.version_max.min(*ours.end());
        (newest >= self.version_min && ours.contains(&newest)).then_some(newest)
    }

    pub(super) fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let hello = Hello {
            version_min: varint::take(cursor)?,
            version_max: varint::take(cursor)?,
            features: varint::take(cursor)?,
            boot: cursor.array()?,
            place: varint::take(cursor)?,
            party: *PARTIES.get(usize::from(cursor.u8()?))?,
            release: text(cursor)?,
        };
        (hello.version_min <= hello.version_max).then_some(hello)
    }

    pub(super) fn put(&self, out: &mut impl Put) {
        out.varint(self.version_min);
        out.varint(self.version_max);
        out.varint(self.features);
        out.bytes(&self.boot);
        out.varint(self.place);
        out.byte(PARTIES.iter().position(|party| *party == self.party).unwrap_or_default() as u8);
        out.counted(super::plain(self.release).as_bytes());
    }
}

/// Grants a new link; the carrier that it comes on is its first epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome<'a> {
    /// The version that holds from here on.
    pub version: u64,
    /// Of the features that HELLO named, those that hold.
    pub features: u64,
    /// The link's name.
    pub link: LinkId,
    /// The epoch of this carrier.
    pub epoch: Epoch,
    /// What either side may cost the other.
    pub limits: Limits,
    /// How long silence may last on a link without streams before a PING, in milliseconds.
    pub heartbeat_ms: u64,
    /// How long streams wait for the link, by kind of service.
    pub ttls: Ttls<'a>,
    /// Where a RESUME goes first, best first.
    pub endpoints: Endpoints<'a>,
}

/// What either side of a link may cost the other. Both obey the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Streams at once, of both sides together.
    pub streams: usize,
    /// Bytes that a side may be made to hold for all streams together, one direction.
    pub budget: u64,
    /// Bytes of each direction that may be sent before the first CREDIT.
    pub first_credit: u64,
    /// The window that a stream starts with, in bytes, while the budget is not half spent.
    pub window: u64,
    /// The widest that a window grows, in bytes.
    pub window_max: u64,
}

impl Limits {
    /// 1,024 streams within 16 MiB: each may have 16 KiB, starts with 64 KiB and grows to 4 MiB while there
    /// is room.
    pub const DEFAULT: Limits = Limits {
        streams: 1024,
        budget: 16 << 20,
        first_credit: 16 << 10,
        window: 64 << 10,
        window_max: 4 << 20,
    };

    /// The most that either side will agree to: a table of as many streams still fits a frame.
    const STREAMS_MAX: u64 = 1024;
    const BUDGET_MAX: u64 = 1 << 30;

    /// Whether they contradict each other: every stream must have room for its first credit.
    fn consistent(&self) -> bool {
        let streams = self.streams as u64;
        (1..=Self::STREAMS_MAX).contains(&streams)
            && self.budget <= Self::BUDGET_MAX
            && self.first_credit > 0
            && self.first_credit <= self.window
            && self.window <= self.window_max
            && self.window_max <= self.budget
            && streams * self.first_credit <= self.budget
    }
}

/// How long streams wait while the link is down, by kind of service: lines, checked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Ttls<'a> {
    lines: &'a [u8],
    count: u8,
}

/// A kind of service, and how long its streams wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ttl {
    /// The kind's number.
    pub kind: u8,
    /// In milliseconds.
    pub wait_ms: u64,
}

impl<'a> Ttls<'a> {
    /// Writes the first [`TTLS_MAX`] of `lines` into `out` and borrows them from there.
    pub fn write(lines: impl IntoIterator<Item = Ttl>, out: &'a mut Vec<u8>) -> Self {
        out.clear();
        let mut count = 0;
        for Ttl { kind, wait_ms } in lines.into_iter().take(TTLS_MAX) {
            out.byte(kind);
            out.varint(wait_ms);
            count += 1;
        }
        Ttls { lines: out, count }
    }

    /// The lines.
    pub fn iter(&self) -> impl Iterator<Item = Ttl> + use<'a> {
        let mut cursor = Cursor::new(self.lines);
        std::iter::from_fn(move || ttl(&mut cursor))
    }

    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let count = cursor.u8().filter(|count| usize::from(*count) <= TTLS_MAX)?;
        let lines = cursor.while_read(|cursor| (0..count).try_for_each(|_| ttl(cursor).map(|_| ())))?;
        Some(Ttls { lines, count })
    }

    fn put(&self, out: &mut impl Put) {
        out.byte(self.count);
        out.bytes(self.lines);
    }
}

fn ttl(cursor: &mut Cursor<'_>) -> Option<Ttl> {
    Some(Ttl { kind: cursor.u8()?, wait_ms: varint::take(cursor)? })
}

impl<'a> Welcome<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let welcome = Welcome {
            version: varint::take(cursor)?,
            features: varint::take(cursor)?,
            link: LinkId(cursor.array()?),
            epoch: Epoch(varint::take(cursor)?),
            limits: Limits {
                streams: usize::try_from(varint::take(cursor)?).ok()?,
                budget: varint::take(cursor)?,
                first_credit: varint::take(cursor)?,
                window: varint::take(cursor)?,
                window_max: varint::take(cursor)?,
            },
            heartbeat_ms: varint::take(cursor)?,
            endpoints: Endpoints::read(cursor)?,
            ttls: Ttls::read(cursor)?,
        };
        (welcome.epoch == Epoch::FIRST && welcome.limits.consistent()).then_some(welcome)
    }

    pub(super) fn put(&self, out: &mut impl Put) {
        out.varint(self.version);
        out.varint(self.features);
        out.bytes(&self.link.0);
        out.varint(self.epoch.0);
        out.varint(self.limits.streams as u64);
        for bytes in
            [self.limits.budget, self.limits.first_credit, self.limits.window, self.limits.window_max]
        {
            out.varint(bytes);
        }
        out.varint(self.heartbeat_ms);
        self.endpoints.put(out);
        self.ttls.put(out);
    }
}

/// Grants nothing. An unknown link, somebody else's link and a wrong MAC look the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused<'a> {
    /// Why, as far as a stranger may know.
    pub refusal: Refusal,
    /// When to ask again at the earliest.
    pub retry_after: Duration,
    /// Where to ask instead; only ever told to the owner of the link.
    pub elsewhere: Endpoints<'a>,
}

/// Why a HELLO or RESUME was not granted, as far as a stranger may know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Nothing to resume, for whatever reason: begin anew with HELLO.
    NoLink,
    /// No version that both sides speak.
    Version,
    /// Too much to do: come back later.
    Busy,
    /// Who asks may not.
    Denied,
    /// Another server has the link.
    Elsewhere,
    /// A later carrier of this link was here first.
    Stale,
}

const REFUSALS: [Refusal; 6] =
    [Refusal::NoLink, Refusal::Version, Refusal::Busy, Refusal::Denied, Refusal::Elsewhere, Refusal::Stale];

impl<'a> Refused<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        Some(Refused {
            refusal: *REFUSALS.get(usize::from(cursor.u8()?))?,
            retry_after: Duration::from_millis(varint::take(cursor)?),
            elsewhere: Endpoints::read(cursor)?,
        })
    }

    pub(super) fn put(&self, out: &mut impl Put) {
        out.byte(REFUSALS.iter().position(|refusal| *refusal == self.refusal).unwrap_or_default() as u8);
        out.varint(u64::try_from(self.retry_after.as_millis()).unwrap_or(u64::MAX));
        self.elsewhere.put(out);
    }
}
