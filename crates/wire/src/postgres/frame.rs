//! How messages are told apart: one byte for the kind, four for the length.

/// How long a head is: the kind, and the length.
pub const HEADER: usize = 5;

/// The longest body that a server takes: its allocations end at 1 GiB.
pub const MESSAGE_MAX: u32 = 0x3fff_ffff;

/// The head of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// What it is.
    pub kind: u8,
    /// How many bytes follow the head: 0 to [`MESSAGE_MAX`].
    pub length: u32,
}

/// A length that no message has: behind it nothing can be told apart any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("message {kind:#04x} states an impossible length of {stated}")]
pub struct BadFrame {
    /// What it would be.
    pub kind: u8,
    /// The length as stated, which counts itself.
    pub stated: u32,
}

impl Head {
    /// Reads the head at the beginning of `bytes`; `None` if it is not whole.
    ///
    /// # Errors
    /// [`BadFrame`] if it states less than the length's own four bytes, or more than [`MESSAGE_MAX`].
    #[inline]
    pub fn read(bytes: &[u8]) -> Result<Option<Head>, BadFrame> {
        let Some(&[kind, a, b, c, d]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let stated = u32::from_be_bytes([a, b, c, d]);
        let length = stated.wrapping_sub(4);
        // A length below 4 wraps round to one that is too large.
        if length > MESSAGE_MAX { Err(BadFrame { kind, stated }) } else { Ok(Some(Head { kind, length })) }
    }

    /// How long the message is with its head.
    pub fn whole(self) -> usize {
        HEADER + self.length as usize
    }
}

/// Appends a message of `kind` to `out`, whose body `write` appends.
pub(super) fn push(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends `text` and the NUL that ends it. What stands behind a NUL of its own would be taken for something
/// else, so it is left out.
pub(super) fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    out.extend_from_slice(&text[..end]);
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_strict() {
        let read = |stated: u32| Head::read(&[&b"Q"[..], &stated.to_be_bytes()].concat());
        for stated in [0, 3, u32::MAX, MESSAGE_MAX + 5] {
            assert_eq!(read(stated), Err(BadFrame { kind: b'Q', stated }));
        }
        assert_eq!(read(4), Ok(Some(Head { kind: b'Q', length: 0 })));
        assert_eq!(read(MESSAGE_MAX + 4).unwrap().unwrap().whole(), MESSAGE_MAX as usize + HEADER);
        assert_eq!(Head::read(b"Q\0\0\0"), Ok(None));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(kind: u8, body in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut out = Vec::new();
            push(&mut out, kind, |out| out.extend_from_slice(&body));
            let head = Head::read(&out).unwrap().unwrap();
            prop_assert_eq!((head.kind, head.whole()), (kind, out.len()));
        }
    }
}
