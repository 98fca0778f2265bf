//! Where a head ends, before anything in it is read.

use memchr::memchr;

use super::HttpError;
use super::bytes::is_token_byte;

/// Limits of one head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of the first line, without its CRLF.
    pub line: usize,
    /// Bytes of the whole head, up to and with the empty line.
    pub head: usize,
    /// Fields; at most [`FIELDS_MAX`](super::FIELDS_MAX) count.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line: 8 * 1024, head: 32 * 1024, fields: 100 }
    }
}

/// Looks for the end of one head after another, and remembers how far it has looked: a head that comes byte
/// by byte costs no more than one that comes at once.
#[derive(Clone, Default, Debug)]
pub struct HeadScan {
    looked: usize,
    /// Where the line begins whose end is sought.
    line: usize,
    /// Lines that have ended, without the empty one that may precede the first.
    lines: usize,
}

impl HeadScan {
    /// Whether it has looked at nothing of the next head yet.
    pub const fn is_fresh(&self) -> bool {
        self.looked == 0
    }

    /// The length of the head at the beginning of `bytes` with its empty line, or `None` if more bytes are
    /// needed.
    ///
    /// Each call gets what the last one got, with more behind it. Once the answer is a length, the next
    /// call is about the next head. What can never become a head is an error as early as it shows.
    pub fn find(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, HttpError> {
        // Nothing behind the limit is looked at, so the answer does not depend on how the bytes were cut.
        let window = &bytes[..bytes.len().min(limits.head)];
        if self.looked == 0 && window.first().is_some_and(|byte| !is_token_byte(*byte) && *byte != b'\r') {
            return Err(HttpError::NotHttp);
        }
        while let Some(found) = memchr(b'\n', window.get(self.looked..).unwrap_or_default()) {
            let end = self.looked + found;
            self.looked = end + 1;
            if end == self.line || window[end - 1] != b'\r' {
                // Who saw less of it at once has said before that it is too long.
                self.judge_rest(&window[..end], limits)?;
                return Err(HttpError::BareNewline);
            }
            let empty = end - 1 == self.line;
            if self.on_line(end - 1 - self.line, limits)? && empty {
                *self = Self::default();
                return Ok(Some(end + 1));
            }
            self.line = end + 1;
        }
        self.looked = window.len();
        self.judge_rest(window, limits)
    }

    /// Takes note of a line of this length, and says whether an empty one would end the head.
    fn on_line(&mut self, length: usize, limits: &Limits) -> Result<bool, HttpError> {
        if self.line == 0 && length == 0 {
            return Ok(false);
        }
        self.lines += 1;
        if self.lines > 1 {
            return Ok(true);
        }
        match length {
            0 => Err(HttpError::EmptyLines),
            _ if length > limits.line => Err(HttpError::LineTooLong),
            _ => Ok(false),
        }
    }

    /// Whether what has no end yet can still get one within the limits.
    fn judge_rest(&self, window: &[u8], limits: &Limits) -> Result<Option<usize>, HttpError> {
        if self.lines == 0 && window.len().saturating_sub(self.line) >= limits.line + 2 {
            return Err(HttpError::LineTooLong);
        }
        if window.len() == limits.head {
            return Err(HttpError::HeadTooLarge);
        }
        Ok(None)
    }
}
