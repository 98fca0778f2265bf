//! Fields that several frames have.

use super::{ENDPOINTS_MAX, TEXT_MAX};
use crate::cursor::Cursor;
use crate::tunnel::ids::{Code, StreamId};
use crate::tunnel::varint::{self, Put};

pub(super) fn stream_id(cursor: &mut Cursor<'_>) -> Option<StreamId> {
    varint::take(cursor).filter(|number| *number > 0).map(StreamId)
}

pub(super) fn code(cursor: &mut Cursor<'_>) -> Option<Code> {
    varint::take(cursor).map(Code::of)
}

/// All that is left of the body, if it is as long as that.
pub(super) fn byte_string<'a>(cursor: &mut Cursor<'a>, least: usize, most: usize) -> Option<&'a [u8]> {
    let bytes = cursor.take(cursor.remaining())?;
    (least..=most).contains(&bytes.len()).then_some(bytes)
}

/// A text that may stand in a log as it is: what comes from a peer has no control characters.
pub(super) fn text<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    let bytes = varint::take_counted(cursor, TEXT_MAX)?;
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control))
}

/// As much of `text` as a frame may bear: up to its first control character, and to [`TEXT_MAX`] bytes.
pub(super) fn plain(text: &str) -> &str {
    let end = text.find(char::is_control).unwrap_or(text.len());
    &text[..text[..end].floor_char_boundary(TEXT_MAX)]
}

/// A list of addresses to dial: texts, checked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Endpoints<'a> {
    /// Each behind its length.
    texts: &'a [u8],
    count: u8,
}

impl<'a> Endpoints<'a> {
    /// Writes the first [`ENDPOINTS_MAX`] of `texts` into `out` and borrows them from there.
    pub fn write<'t>(texts: impl IntoIterator<Item = &'t str>, out: &'a mut Vec<u8>) -> Self {
        out.clear();
        let mut count = 0;
        for text in texts.into_iter().take(ENDPOINTS_MAX) {
            out.counted(plain(text).as_bytes());
            count += 1;
        }
        Endpoints { texts: out, count }
    }

    /// The addresses, best first.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut cursor = Cursor::new(self.texts);
        std::iter::from_fn(move || text(&mut cursor))
    }

    pub(super) fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let count = cursor.u8().filter(|count| usize::from(*count) <= ENDPOINTS_MAX)?;
        let texts = cursor.while_read(|cursor| (0..count).try_for_each(|_| text(cursor).map(|_| ())))?;
        Some(Endpoints { texts, count })
    }

    pub(super) fn put(&self, out: &mut impl Put) {
        out.byte(self.count);
        out.bytes(self.texts);
    }
}
