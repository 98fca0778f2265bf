//! The attributes that messages are made of: a letter, `=`, a value, a comma (RFC 5802 §5.1).

use data_encoding::BASE64;

use super::{NONCE_MAX, ScramError};

/// What is left of a message.
pub(super) struct Attributes<'a>(Option<&'a str>);

impl<'a> Attributes<'a> {
    pub(super) fn of(message: &'a str) -> Self {
        Self(Some(message))
    }

    /// The value of the next attribute, which must be `letter`.
    pub(super) fn take(&mut self, letter: char, what: &'static str) -> Result<&'a str, ScramError> {
        let rest = self.0.ok_or(ScramError::Malformed(what))?;
        let (attribute, behind) = match rest.split_once(',') {
            Some((attribute, behind)) => (attribute, Some(behind)),
            None => (rest, None),
        };
        let value = attribute.strip_prefix(letter).and_then(|it| it.strip_prefix('='));
        self.0 = behind;
        value.ok_or(ScramError::Malformed(what))
    }
}

/// The text of a message. All of them are ASCII but for names, which nobody reads.
pub(super) fn text(message: &[u8]) -> Result<&str, ScramError> {
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("it is not UTF-8"))
}

/// A nonce that is one: printable, without a comma, of a length that is sound.
pub(super) fn nonce(nonce: &str) -> Result<&str, ScramError> {
    let sound = (1..=NONCE_MAX).contains(&nonce.len()) && nonce.bytes().all(|byte| byte.is_ascii_graphic());
    // A comma cannot be in it: it ends the attribute.
    if sound { Ok(nonce) } else { Err(ScramError::Malformed("no sound nonce")) }
}

pub(super) fn base64(text: &str, what: &'static str) -> Result<Vec<u8>, ScramError> {
    BASE64.decode(text.as_bytes()).map_err(|_| ScramError::Malformed(what))
}

/// A key or a signature, which have 32 bytes.
pub(super) fn key(text: &str, what: &'static str) -> Result<[u8; 32], ScramError> {
    base64(text, what)?.try_into().map_err(|_| ScramError::Malformed(what))
}
