//! Where things stand in the file.

use std::fmt;

/// A line and a column of the config file, both from 1, the column in characters.
///
/// Two places always compare equal, so that two configs are equal if they mean the same: a comment added on
/// top of the file moves every place and changes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The line, from 1.
    pub line: u32,
    /// The character within the line, from 1.
    pub column: u32,
}

impl Place {
    /// Where the file begins: stands for what the file should hold and does not.
    pub const START: Place = Place { line: 1, column: 1 };
}

impl PartialEq for Place {
    fn eq(&self, _: &Place) -> bool {
        true
    }
}

impl Eq for Place {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Spot<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// Finds the place of a byte offset in constant time after one pass over the text.
pub(crate) struct Lines<'a> {
    text: &'a [u8],
    /// The byte offset at which each line starts.
    starts: Vec<usize>,
    /// How many characters stand before each multiple of [`STRIDE`] bytes.
    characters: Vec<usize>,
}

const STRIDE: usize = 64;

impl<'a> Lines<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        // A byte order mark is no character that an editor would count.
        let first = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let characters = text.as_bytes().chunks(STRIDE).scan(0, |before, chunk| {
            let here = *before;
            *before += count_characters(chunk);
            Some(here)
        });
        Self {
            text: text.as_bytes(),
            starts: std::iter::once(first).chain(breaks).collect(),
            characters: characters.collect(),
        }
    }

    /// The place of the byte at `offset`; the end of the text for one beyond it.
    pub(crate) fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts[line - 1];
        let column = self.characters_before(offset.max(start)) - self.characters_before(start) + 1;
        Place { line: narrow(line), column: narrow(column) }
    }

    fn characters_before(&self, offset: usize) -> usize {
        let offset = offset.min(self.text.len());
        let stride = (offset / STRIDE).min(self.characters.len().saturating_sub(1));
        let counted = self.characters.get(stride).copied().unwrap_or(0);
        counted + count_characters(&self.text[stride * STRIDE..offset])
    }
}

/// UTF-8 marks every byte of a character but its first with the bits `10`.
fn count_characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count()
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_compare_equal_wherever_they_are() {
        assert_eq!(Place::START, Place { line: 9, column: 9 });
    }

    #[test]
    fn a_byte_order_mark_is_not_counted() {
        assert_eq!(Lines::of("\u{feff}a=1").place(3).to_string(), "1:1");
    }

    proptest! {
        #[test]
        fn agrees_with_counting_from_the_start(
            text in "[a-c\\n\\r\u{e4}\u{20ac}\u{1f600}]{0,300}", pick in 0usize..400,
        ) {
            let offset = (0..=pick.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            let before = &text[..offset];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
            prop_assert_eq!(Lines::of(&text).place(offset).to_string(), format!("{line}:{column}"));
        }
    }
}
