//! The fields of a head, as they came.

use std::fmt;

use httparse::Header;
use smallvec::SmallVec;

use super::bytes::elements;
use super::facts::Facts;
use super::{HttpError, Kind, Limits};

/// The most fields that a head can have, whatever its limits say: 128 that came, and room for ours.
pub const FIELDS_MAX: usize = 192;

/// So many fields fit without a place of their own.
const USUAL: usize = 24;

/// Room for the fields of one head, on the caller's stack unless there are many.
#[derive(Default)]
pub struct Room<'b> {
    slots: SmallVec<[Slot<'b>; USUAL]>,
    /// A bit for each kind among them.
    kinds: u32,
    /// A host that was found right before.
    known: &'b str,
}

/// A field as it was found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot<'b> {
    /// A token.
    pub(super) name: &'b [u8],
    pub(super) value: &'b [u8],
    /// Where its line begins in the head.
    pub(super) line: usize,
    /// Known once it was judged.
    pub(super) kind: Kind,
}

impl<'b> Room<'b> {
    /// Empty.
    #[inline]
    pub fn new() -> Self {
        // Not the constant one, which would be copied here with all its empty places.
        Self { slots: SmallVec::new(), kinds: 0, known: "" }
    }

    /// Empty, for a client that has asked `host` before, by the [`Request::host`](super::Request::host) of
    /// that time: most ask the same again, and what is equal need not be judged anew.
    #[inline]
    pub fn knowing(host: &'b str) -> Self {
        Self { known: host, ..Self::new() }
    }

    /// What [`Room::knowing`] was told; else nothing.
    pub(super) fn known(&self) -> &'b str {
        self.known
    }

    /// Makes ready for another head; how many fields it may have.
    #[inline]
    pub(super) fn begin(&mut self, limits: &Limits) -> usize {
        self.slots.clear();
        self.kinds = 0;
        limits.fields.min(FIELDS_MAX)
    }

    /// Adds a field, unless there are `most` already.
    #[inline]
    pub(super) fn push(&mut self, slot: Slot<'b>, most: usize) -> bool {
        let fits = self.slots.len() < most;
        if fits {
            self.slots.push(slot);
        }
        fits
    }

    /// Asks what the name of each field means, and what all of them say together.
    #[inline]
    pub(super) fn judge(&mut self, kind_of: impl Fn(&[u8]) -> Kind) -> Result<Facts<'b>, HttpError> {
        let mut facts = Facts::default();
        for slot in &mut self.slots {
            slot.kind = kind_of(slot.name);
            self.kinds |= bit(slot.kind);
            facts.take(slot.kind, slot.value)?;
        }
        if facts.names_fields {
            mark_named(&mut self.slots);
            self.kinds |= bit(Kind::HopByHop);
        }
        Ok(facts)
    }
}

/// The fields of one head in their order, each with what it is to a proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fields<'r, 'b> {
    /// From the first line to the empty one.
    head: &'b [u8],
    slots: &'r [Slot<'b>],
    /// A bit for each kind that may be among them: those that are not there need not be sought.
    kinds: u32,
}

/// One field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field<'b> {
    /// What it is to a proxy.
    pub kind: Kind,
    /// Its name as it was spelled.
    pub name: &'b str,
    /// Its value without the white space around it.
    pub value: &'b [u8],
    /// The whole line with its CRLF.
    pub line: &'b [u8],
}

impl<'r, 'b> Fields<'r, 'b> {
    /// The fields of `head` that are in `room`.
    #[inline]
    pub(super) fn new(head: &'b [u8], room: &'r Room<'b>) -> Self {
        Self { head, slots: &room.slots, kinds: room.kinds }
    }

    /// Takes what was read from `head` as `headers` into `room`: checks how the lines end, and what the
    /// fields say together.
    pub(super) fn read(
        head: &'b [u8],
        headers: &[Header<'b>],
        limits: &Limits,
        room: &'r mut Room<'b>,
    ) -> Result<(Self, Facts<'b>), HttpError> {
        let most = room.begin(limits);
        for header in headers {
            // The parser takes a LF alone for the end of a line; every line but the last ends before a name.
            let line = offset(head, header.name);
            if head[..line].last_chunk() != Some(b"\r\n") {
                return Err(HttpError::BareNewline);
            }
            let (name, value) = (header.name.as_bytes(), header.value);
            if !room.push(Slot { name, value, line, kind: Kind::Plain }, most) {
                return Err(HttpError::TooManyFields);
            }
        }
        if !head.ends_with(b"\r\n\r\n") {
            return Err(HttpError::BareNewline);
        }
        let facts = room.judge(Kind::of)?;
        Ok((Self::new(head, room), facts))
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All of them, as they came.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Field<'b>> + use<'r, 'b> {
        let fields = *self;
        (0..fields.len()).map(move |index| fields.at(index))
    }

    /// The value of the first field of this name, in any case.
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// The values of all fields of this name, in any case.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'b [u8]> + use<'r, 'b, 'n> {
        let named = self.slots.iter().filter(move |slot| slot.name.eq_ignore_ascii_case(name.as_bytes()));
        named.map(|slot| slot.value)
    }

    /// The value of the first field of `kind`.
    #[inline]
    pub fn of_kind(&self, kind: Kind) -> Option<&'b [u8]> {
        self.all_of_kind(kind).next()
    }

    /// The values of all fields of `kind`.
    #[inline]
    pub fn all_of_kind(&self, kind: Kind) -> impl Iterator<Item = &'b [u8]> + use<'r, 'b> {
        let slots = if self.kinds & bit(kind) == 0 { &[] } else { self.slots };
        slots.iter().filter(move |slot| slot.kind == kind).map(|slot| slot.value)
    }

    /// Writes the lines that `keep` wants to `out`, neighbours together.
    pub fn copy_kept(&self, keep: impl FnMut(Kind) -> bool, out: &mut Vec<u8>) {
        self.copy_behind(None, keep, out);
    }

    /// The same, with the first line of the head before them as it came.
    pub fn copy_head(&self, keep: impl FnMut(Kind) -> bool, out: &mut Vec<u8>) {
        self.copy_behind(Some(0), keep, out);
    }

    /// How long the first line of the head is.
    pub fn first_line(&self) -> usize {
        self.slots.first().map_or(self.head.len().saturating_sub(2), |slot| slot.line)
    }

    fn copy_behind(&self, mut run: Option<usize>, mut keep: impl FnMut(Kind) -> bool, out: &mut Vec<u8>) {
        for slot in self.slots {
            if keep(slot.kind) {
                run.get_or_insert(slot.line);
            } else if let Some(first) = run.take() {
                out.extend_from_slice(&self.head[first..slot.line]);
            }
        }
        if let Some(first) = run {
            out.extend_from_slice(&self.head[first..self.head.len() - 2]);
        }
    }

    fn at(&self, index: usize) -> Field<'b> {
        let Slot { name, value, line, kind } = self.slots[index];
        let end = self.slots.get(index + 1).map_or(self.head.len() - 2, |next| next.line);
        // A token is ASCII.
        Field { kind, name: str::from_utf8(name).unwrap_or_default(), value, line: &self.head[line..end] }
    }
}

/// There are fewer kinds than bits.
const fn bit(kind: Kind) -> u32 {
    1 << kind as u32
}

impl fmt::Debug for Fields<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Where `part` begins in `whole`, which it was cut from.
fn offset(whole: &[u8], part: &str) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr()
}

/// RFC 9110 §7.6.1: a field that `Connection` names ends at this hop.
#[cold]
fn mark_named(slots: &mut [Slot<'_>]) {
    for at in 0..slots.len() {
        if slots[at].kind != Kind::Connection {
            continue;
        }
        for named in elements(slots[at].value) {
            for slot in slots.iter_mut() {
                if slot.name.eq_ignore_ascii_case(named) && !slot.kind.is_hop_by_hop() {
                    slot.kind = Kind::HopByHop;
                }
            }
        }
    }
}
