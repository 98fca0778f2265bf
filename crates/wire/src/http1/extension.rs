//! Extensions of chunks (RFC 9112 §7.1.1): checked, and never passed on.

use super::bytes::{is_token_byte, is_value};

/// Bytes of one chunk's extensions.
const EXTENSION_MAX: u16 = 256;
/// Bytes of all extensions of a body: small chunks cannot smuggle in many times their size.
const EXTENSIONS_MAX: u32 = 16 * 1024;

/// Reads the extensions of one chunk after another.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Extensions {
    part: Part,
    length: u16,
    total: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Part {
    /// A name must begin.
    #[default]
    Start,
    Name,
    /// A value must begin.
    Equals,
    Value,
    Quoted,
    /// Behind a backslash in quotes.
    Escaped,
    /// Behind the closing quote.
    Closed,
}

impl Extensions {
    /// Begins with the extensions of a chunk, behind their semicolon.
    pub(super) fn start(&mut self) -> Option<()> {
        self.part = Part::Start;
        self.length = 0;
        self.count()
    }

    /// Takes a byte that does not end the line; `None` if it may not stand there.
    pub(super) fn take(&mut self, byte: u8) -> Option<()> {
        self.count()?;
        self.part = match (self.part, byte) {
            (Part::Quoted, b'"') => Part::Closed,
            (Part::Quoted, b'\\') => Part::Escaped,
            (Part::Quoted | Part::Escaped, _) if is_value(&[byte]) => Part::Quoted,
            (Part::Name | Part::Value | Part::Closed, b';') => Part::Start,
            (Part::Name, b'=') => Part::Equals,
            (Part::Equals, b'"') => Part::Quoted,
            (Part::Start | Part::Name, _) if is_token_byte(byte) => Part::Name,
            (Part::Equals | Part::Value, _) if is_token_byte(byte) => Part::Value,
            _ => return None,
        };
        Some(())
    }

    /// Whether the line may end here.
    pub(super) fn may_end(&self) -> bool {
        matches!(self.part, Part::Name | Part::Value | Part::Closed)
    }

    fn count(&mut self) -> Option<()> {
        self.length += 1;
        self.total += 1;
        (self.length <= EXTENSION_MAX && self.total <= EXTENSIONS_MAX).then_some(())
    }
}
