//! The fields of a head, as they came.

use std::fmt;
use std::mem::MaybeUninit;

use httparse::Header;

use super::bytes::elements;
use super::facts::Facts;
use super::{HttpError, Kind, Limits};

/// The most fields that a head can have, whatever its limits say.
pub const FIELDS_MAX: usize = 128;

/// Room for the fields of one head, on the caller's stack; nothing in it needs to be set up.
pub struct Room<'b> {
    headers: [MaybeUninit<Header<'b>>; FIELDS_MAX],
    kinds: [Kind; FIELDS_MAX],
}

impl<'b> Room<'b> {
    /// Empty.
    #[inline]
    pub const fn new() -> Self {
        Self { headers: [const { MaybeUninit::uninit() }; FIELDS_MAX], kinds: [Kind::Plain; FIELDS_MAX] }
    }

    /// The two halves: where a parser writes, at most as many as `limits` allow, and what each is.
    #[inline]
    pub(super) fn split<'r>(
        &'r mut self,
        limits: &Limits,
    ) -> (&'r mut [MaybeUninit<Header<'b>>], &'r mut [Kind]) {
        let count = limits.fields.min(FIELDS_MAX);
        (&mut self.headers[..count], &mut self.kinds[..count])
    }
}

impl Default for Room<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The fields of one head in their order, each with what it is to a proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fields<'r, 'b> {
    /// From the first line to the empty one.
    head: &'b [u8],
    headers: &'r [Header<'b>],
    kinds: &'r [Kind],
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
    /// Checks how the lines of `head` end, which `headers` were read from, and what the fields say together.
    pub(super) fn read(
        head: &'b [u8],
        headers: &'r [Header<'b>],
        kinds: &'r mut [Kind],
    ) -> Result<(Self, Facts<'b>), HttpError> {
        let kinds = &mut kinds[..headers.len()];
        let mut facts = Facts::default();
        for (header, kind) in headers.iter().zip(kinds.iter_mut()) {
            // The parser takes a LF alone for the end of a line; every line but the last ends before a name.
            let start = offset(head, header.name);
            if head[..start].last_chunk() != Some(b"\r\n") {
                return Err(HttpError::BareNewline);
            }
            *kind = Kind::of(header.name.as_bytes());
            facts.take(*kind, header.value)?;
        }
        if !head.ends_with(b"\r\n\r\n") {
            return Err(HttpError::BareNewline);
        }
        if facts.names_fields {
            mark_named(headers, kinds);
        }
        Ok((Self { head, headers, kinds }, facts))
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.headers.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.headers.is_empty()
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
        let named = self.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value)
    }

    /// Writes the lines that `keep` wants to `out`, neighbours together.
    pub fn copy_kept(&self, mut keep: impl FnMut(Kind, &'b str) -> bool, out: &mut Vec<u8>) {
        let mut run = None;
        for (index, (header, kind)) in self.headers.iter().zip(self.kinds).enumerate() {
            if keep(*kind, header.name) {
                run.get_or_insert(index);
            } else if let Some(first) = run.take() {
                out.extend_from_slice(self.lines(first, index));
            }
        }
        if let Some(first) = run {
            out.extend_from_slice(self.lines(first, self.len()));
        }
    }

    fn at(&self, index: usize) -> Field<'b> {
        let Header { name, value } = self.headers[index];
        Field { kind: self.kinds[index], name, value, line: self.lines(index, index + 1) }
    }

    /// The lines from field `first` to the one before `end`.
    fn lines(&self, first: usize, end: usize) -> &'b [u8] {
        let start = |index: usize| match self.headers.get(index) {
            Some(header) => offset(self.head, header.name),
            None => self.head.len() - 2,
        };
        &self.head[start(first)..start(end)]
    }
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
fn mark_named(headers: &[Header<'_>], kinds: &mut [Kind]) {
    for at in 0..headers.len() {
        if kinds[at] != Kind::Connection {
            continue;
        }
        for named in elements(headers[at].value) {
            for (header, kind) in headers.iter().zip(kinds.iter_mut()) {
                let same = header.name.as_bytes().eq_ignore_ascii_case(named);
                if same && !kind.is_hop_by_hop() {
                    *kind = Kind::HopByHop;
                }
            }
        }
    }
}
