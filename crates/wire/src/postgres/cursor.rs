//! Reading the body of one message forward.

use memchr::memchr;

/// What is left of a body. Each read takes all it asks for and moves on, or answers `None`.
#[derive(Clone, Copy)]
pub(super) struct Body<'a>(pub(super) &'a [u8]);

impl<'a> Body<'a> {
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A text, without the NUL that ends it.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        // Names are empty more often than not.
        let end = if self.0.first() == Some(&0) { 0 } else { memchr(0, self.0)? };
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}
