//! Numbers of one to eight bytes (RFC 9000 §16), each in its shortest form only.
//!
//! RFC 9000 lets a number be written longer than it needs. Here every frame has one reading and one writing:
//! a longer form is an error.

use crate::cursor::Cursor;

/// The greatest number that can be written.
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// The longest form, in bytes.
pub(super) const VARINT_BYTES: usize = 8;

/// Where a frame is written to: its bytes, or only their count.
pub(super) trait Put {
    fn bytes(&mut self, bytes: &[u8]);

    fn byte(&mut self, byte: u8) {
        self.bytes(&[byte]);
    }

    /// `value` in its shortest form; what exceeds [`VARINT_MAX`] is written as that, which no caller passes.
    fn varint(&mut self, value: u64) {
        let value = value.min(VARINT_MAX);
        let length = length(value);
        let tagged = value | u64::from(length.trailing_zeros()) << (length * 8 - 2);
        self.bytes(&tagged.to_be_bytes()[8 - length..]);
    }

    /// Bytes behind their own length.
    fn counted(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.bytes(bytes);
    }
}

impl Put for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts what would be written, so that a length is known before its bytes.
#[derive(Default)]
pub(super) struct Count(pub(super) usize);

impl Put for Count {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// How many bytes the shortest form of `value` takes.
fn length(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// What the start of some bytes says about a number there.
pub(super) enum Number {
    /// Its last bytes are not there.
    Cut,
    /// Written longer than it needs.
    Long,
    /// The number, and how many bytes it took.
    Is(u64, usize),
}

/// The number at the start of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Number {
    let Some(&first) = bytes.first() else { return Number::Cut };
    let taken = 1 << (first >> 6);
    let Some(form) = bytes.get(..taken) else { return Number::Cut };
    let value = form[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    if length(value) == taken { Number::Is(value, taken) } else { Number::Long }
}

/// Takes a number; `None` if it is cut or too long.
pub(super) fn take(cursor: &mut Cursor<'_>) -> Option<u64> {
    match read(cursor.unread()) {
        Number::Is(value, taken) => cursor.take(taken).map(|_| value),
        Number::Cut | Number::Long => None,
    }
}

/// Takes bytes behind their own length; `None` if they are cut or more than `most`.
pub(super) fn take_counted<'a>(cursor: &mut Cursor<'a>, most: usize) -> Option<&'a [u8]> {
    let length = usize::try_from(take(cursor)?).ok().filter(|length| *length <= most)?;
    cursor.take(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_rfc_does() {
        // RFC 9000 §A.1.
        let samples: [(u64, &[u8]); 4] = [
            (151_288_809_941_952_652, b"\xc2\x19\x7c\x5e\xff\x14\xe8\x8c"),
            (494_878_333, b"\x9d\x7f\x3e\x7d"),
            (15_293, b"\x7b\xbd"),
            (37, b"\x25"),
        ];
        for (value, form) in samples {
            let mut written = Vec::new();
            written.varint(value);
            assert_eq!(written, form);
            assert!(matches!(read(form), Number::Is(read, taken) if read == value && taken == form.len()));
        }
    }

    #[test]
    fn every_length_has_its_edges() {
        for edge in [0, 0x3f, 0x40, 0x3fff, 0x4000, 0x3fff_ffff, 0x4000_0000, VARINT_MAX] {
            let mut written = Vec::new();
            written.varint(edge);
            assert!(matches!(read(&written), Number::Is(value, _) if value == edge), "{edge}");
            assert!(matches!(read(&written[..written.len() - 1]), Number::Cut), "{edge}");
        }
    }

    #[test]
    fn a_longer_form_is_refused() {
        for long in [&b"\x40\x25"[..], b"\x80\0\0\x25", b"\xc0\0\0\0\0\0\0\x25", b"\x80\0\x3f\xff"] {
            assert!(matches!(read(long), Number::Long), "{long:?}");
        }
    }
}
