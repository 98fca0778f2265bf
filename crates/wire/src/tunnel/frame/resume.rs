//! RESUME and RESUMED: where both sides of every stream stand when a link changes its carrier.

use super::fields::{code, stream_id};
use crate::cursor::Cursor;
use crate::tunnel::ids::{Code, Epoch, LinkId, StreamId};
use crate::tunnel::varint::{self, Put, VARINT_MAX};

/// Proof of the link's key, over all that a RESUME or RESUMED says.
#[derive(Clone, Copy, Debug)]
pub struct Mac(pub [u8; 32]);

impl PartialEq for Mac {
    /// Takes the same time wherever the two differ.
    fn eq(&self, other: &Mac) -> bool {
        let difference = self.0.iter().zip(other.0).fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

impl Eq for Mac {}

/// A link goes on over this carrier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume<'a> {
    /// Which link.
    pub link: LinkId,
    /// Greater than any that the dialer ever sent for it.
    pub epoch: Epoch,
    /// The dialer's proof.
    pub mac: Mac,
    /// Where the dialer stands.
    pub table: Table<'a>,
}

impl<'a> Resume<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        Some(Resume {
            link: LinkId(cursor.array()?),
            epoch: Epoch(varint::take(cursor)?),
            mac: Mac(cursor.array()?),
            table: Table::read(cursor)?,
        })
    }

    pub(super) fn put(&self, out: &mut impl Put) {
        out.bytes(&self.link.0);
        out.varint(self.epoch.0);
        out.bytes(&self.mac.0);
        out.bytes(self.table.bytes);
    }
}

/// Agrees to a [`Resume`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resumed<'a> {
    /// As asked.
    pub epoch: Epoch,
    /// The acceptor's proof.
    pub mac: Mac,
    /// Where the acceptor stands.
    pub table: Table<'a>,
}

impl<'a> Resumed<'a> {
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        Some(Resumed {
            epoch: Epoch(varint::take(cursor)?),
            mac: Mac(cursor.array()?),
            table: Table::read(cursor)?,
        })
    }

    pub(super) fn put(&self, out: &mut impl Put) {
        out.varint(self.epoch.0);
        out.bytes(&self.mac.0);
        out.bytes(self.table.bytes);
    }
}

/// Where one side of a link stands: which streams it has seen, which live and how far they are, which it
/// broke off. Checked once, read from its bytes each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table<'a> {
    bytes: &'a [u8],
}

/// One live stream of a [`Table`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Which.
    pub stream: StreamId,
    /// All below this was received; the end of the direction counts as one more byte.
    pub received: u64,
    /// Up to here the peer may send.
    pub credit: u64,
    /// Where what this side sends ends, once that is known.
    pub end: Option<u64>,
}

/// One stream of a [`Table`] that its side broke off, and the peer has not confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dead {
    /// Which.
    pub stream: StreamId,
    /// Why.
    pub code: Code,
}

impl<'a> Table<'a> {
    /// The bytes that a MAC is taken over.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The highest number of a stream of the peer's that was ever asked for; 0 is none.
    pub fn seen(&self) -> u64 {
        self.parts().map_or(0, |parts| parts.seen)
    }

    /// The highest number that this side itself ever gave out; 0 is none.
    pub fn opened(&self) -> u64 {
        self.parts().map_or(0, |parts| parts.opened)
    }

    /// Its live streams, by rising number.
    pub fn live(&self) -> impl Iterator<Item = Entry> + use<'a> {
        let mut cursor = Cursor::new(self.parts().map_or(&[][..], |parts| parts.live));
        std::iter::from_fn(move || entry(&mut cursor))
    }

    /// The streams that it broke off, by rising number.
    pub fn dead(&self) -> impl Iterator<Item = Dead> + use<'a> {
        let mut cursor = Cursor::new(self.parts().map_or(&[][..], |parts| parts.dead));
        std::iter::from_fn(move || dead(&mut cursor))
    }

    fn parts(&self) -> Option<Parts<'a>> {
        Parts::read(&mut Cursor::new(self.bytes))
    }

    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let bytes = cursor.take(cursor.remaining())?;
        let mut checked = Cursor::new(bytes);
        let parts = Parts::read(&mut checked).filter(|_| checked.is_empty())?;
        let table = Table { bytes };
        let live = rising(parts.live, |cursor| entry(cursor).map(|entry| entry.stream));
        let dead = rising(parts.dead, |cursor| dead(cursor).map(|dead| dead.stream));
        (live && dead).then_some(table)
    }
}

/// Both lists stand behind their length in bytes.
struct Parts<'a> {
    seen: u64,
    opened: u64,
    live: &'a [u8],
    dead: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        Some(Parts {
            seen: varint::take(cursor)?,
            opened: varint::take(cursor)?,
            live: varint::take_counted(cursor, super::BODY_MAX)?,
            dead: varint::take_counted(cursor, super::BODY_MAX)?,
        })
    }
}

/// Whether `bytes` are whole lines, each of a higher stream than the one before: none is there twice.
fn rising(bytes: &[u8], line: impl Fn(&mut Cursor<'_>) -> Option<StreamId>) -> bool {
    let mut cursor = Cursor::new(bytes);
    let mut last = StreamId(0);
    while !cursor.is_empty() {
        match line(&mut cursor) {
            Some(stream) if stream > last => last = stream,
            _ => return false,
        }
    }
    true
}

/// `received` and `credit` as they are; `end` as 0 for none, or one more than it is.
fn entry(cursor: &mut Cursor<'_>) -> Option<Entry> {
    Some(Entry {
        stream: stream_id(cursor)?,
        received: varint::take(cursor)?,
        credit: varint::take(cursor)?,
        end: varint::take(cursor)?.checked_sub(1),
    })
}

fn dead(cursor: &mut Cursor<'_>) -> Option<Dead> {
    Some(Dead { stream: stream_id(cursor)?, code: code(cursor)? })
}

/// Writes a [`Table`].
#[derive(Default, Debug)]
pub struct TableWriter {
    live: Vec<u8>,
    dead: Vec<u8>,
    bytes: Vec<u8>,
}

impl TableWriter {
    /// Adds a live stream, of a higher number than those before.
    pub fn live(&mut self, entry: Entry) {
        self.live.varint(entry.stream.0);
        self.live.varint(entry.received);
        self.live.varint(entry.credit);
        self.live.varint(entry.end.map_or(0, |end| (end + 1).min(VARINT_MAX)));
    }

    /// Adds a stream that was broken off, of a higher number than those before.
    pub fn dead(&mut self, dead: Dead) {
        self.dead.varint(dead.stream.0);
        self.dead.varint(dead.code.number());
    }

    /// The table, with the highest numbers [`seen`](Table::seen) and [`opened`](Table::opened).
    pub fn finish(&mut self, seen: u64, opened: u64) -> Table<'_> {
        self.bytes.clear();
        self.bytes.varint(seen);
        self.bytes.varint(opened);
        self.bytes.counted(&self.live);
        self.bytes.counted(&self.dead);
        Table { bytes: &self.bytes }
    }
}
