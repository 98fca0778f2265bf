//! OFFERS: what an agent serves, by name. Where a service is stays with the agent.

use std::fmt;

use tieline_base::is_far_name;

use crate::cursor::Cursor;
use crate::tunnel::varint::{self, Put, VARINT_BYTES};

/// The most services that one agent tells of.
pub const OFFERS_MAX: usize = 256;

/// The longest name of a service, in bytes ([`is_far_name`]).
const NAME_MAX: usize = 63;

/// The longest body of the frame.
pub(super) const OFFERS_BODY_MAX: usize = OFFERS_MAX * (2 * VARINT_BYTES + NAME_MAX);

/// All that an agent offers now: it takes the place of what was told before.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Offers<'a> {
    /// Whole lines, checked: kind and name, by rising name.
    lines: &'a [u8],
}

/// One line of [`Offers`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offered<'a> {
    /// What the service is called.
    pub name: &'a str,
    /// What it speaks.
    pub kind: OfferKind,
}

/// What a service that is offered speaks. Numbers are for ever; an unknown one is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OfferKind {
    /// A stream, to a TCP address.
    Tcp,
    /// A stream, to a unix socket.
    Unix,
    /// Datagrams, to an address of UDP.
    Udp,
    /// A number that this version does not know.
    Other(u64),
}

impl OfferKind {
    fn number(self) -> u64 {
        match self {
            OfferKind::Tcp => 1,
            OfferKind::Unix => 2,
            OfferKind::Udp => 3,
            OfferKind::Other(number) => number,
        }
    }

    fn of(number: u64) -> OfferKind {
        match number {
            1 => OfferKind::Tcp,
            2 => OfferKind::Unix,
            3 => OfferKind::Udp,
            other => OfferKind::Other(other),
        }
    }
}

impl fmt::Display for OfferKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OfferKind::Tcp => f.pad("tcp"),
            OfferKind::Unix => f.pad("unix"),
            OfferKind::Udp => f.pad("udp"),
            OfferKind::Other(number) => write!(f, "kind {number}"),
        }
    }
}

impl<'a> Offers<'a> {
    /// Writes `offers` into `out` and borrows them from there: the first [`OFFERS_MAX`], by rising name, of
    /// which none may be there twice.
    pub fn write<'t>(offers: impl IntoIterator<Item = Offered<'t>>, out: &'a mut Vec<u8>) -> Self {
        out.clear();
        for Offered { name, kind } in offers.into_iter().take(OFFERS_MAX) {
            out.varint(kind.number());
            out.counted(name.as_bytes());
        }
        Offers { lines: out }
    }

    /// The same, as [`Offers::write`] left it in `lines`.
    pub(in crate::tunnel) fn written(lines: &'a [u8]) -> Self {
        Offers { lines }
    }

    /// The services, by name.
    pub fn iter(&self) -> impl Iterator<Item = Offered<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.lines);
        std::iter::from_fn(move || offered(&mut cursor))
    }

    pub(super) fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let lines = cursor.take(cursor.remaining())?;
        let mut checked = Cursor::new(lines);
        let mut last = "";
        for _ in 0..OFFERS_MAX {
            if checked.is_empty() {
                break;
            }
            let name = offered(&mut checked)?.name;
            if name <= last {
                return None;
            }
            last = name;
        }
        checked.is_empty().then_some(Offers { lines })
    }

    pub(super) fn put(&self, out: &mut impl Put) {
        out.bytes(self.lines);
    }
}

fn offered<'a>(cursor: &mut Cursor<'a>) -> Option<Offered<'a>> {
    let kind = OfferKind::of(varint::take(cursor)?);
    let name = std::str::from_utf8(varint::take_counted(cursor, NAME_MAX)?).ok()?;
    is_far_name(name).then_some(Offered { name, kind })
}
