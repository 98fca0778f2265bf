//! The fields behind a chunked body (RFC 9112 §7.1.2).

use memchr::memchr;

use super::bytes::{is_token, is_value};
use super::{HttpError, Kind};

/// Bytes of a trailer section without the empty line that ends it.
const TRAILERS_MAX: usize = 8 * 1024;
const FIELDS_MAX: usize = 32;

/// Collects the lines that may be passed on; owns memory only once there are any.
#[derive(Clone, Default, Debug)]
pub(super) struct Trailers {
    /// Whole lines with their CRLF, and behind them the one that has no end yet.
    lines: Vec<u8>,
    /// Where that one begins.
    line: usize,
    received: usize,
    fields: usize,
}

impl Trailers {
    /// The lines that may be passed on.
    pub(super) fn lines(&self) -> &[u8] {
        &self.lines[..self.line]
    }

    /// Takes what belongs to the current line: how many bytes, and whether its end was among them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), HttpError> {
        let (taken, ended) = match memchr(b'\n', bytes) {
            Some(end) => (end + 1, true),
            None => (bytes.len(), false),
        };
        self.received = self.received.saturating_add(taken);
        if self.received > TRAILERS_MAX {
            return Err(HttpError::TrailersTooLarge);
        }
        self.lines.extend_from_slice(&bytes[..taken]);
        if ended {
            self.end_line()?;
        }
        Ok((taken, ended))
    }

    fn end_line(&mut self) -> Result<(), HttpError> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(HttpError::TrailersTooLarge);
        }
        let line = self.lines[self.line..].strip_suffix(b"\r\n").ok_or(HttpError::BareNewline)?;
        if passes(line)? {
            self.line = self.lines.len();
        } else {
            self.lines.truncate(self.line);
        }
        Ok(())
    }
}

/// Checks one line, and says whether it is passed on.
fn passes(line: &[u8]) -> Result<bool, HttpError> {
    let colon = memchr(b':', line).ok_or(HttpError::FieldName)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        let spaced = is_token(name.trim_ascii());
        return Err(match (folded, spaced) {
            (true, _) => HttpError::Folded,
            (_, true) => HttpError::SpaceBeforeColon,
            _ => HttpError::FieldName,
        });
    }
    if value.contains(&b'\r') {
        return Err(HttpError::BareNewline);
    }
    if !is_value(value) {
        return Err(HttpError::FieldValue);
    }
    match Kind::of(name) {
        Kind::Plain if decides(name) => Err(HttpError::TrailerRefused),
        Kind::Plain | Kind::Accept => Ok(true),
        Kind::Dropped | Kind::Via | Kind::RequestId | Kind::Date | Kind::Server | Kind::AltSvc => Ok(false),
        _ => Err(HttpError::TrailerRefused),
    }
}

/// RFC 9110 §6.5.1: what must be known before the body is read, beyond what [`Kind`] tells.
fn decides(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 6] = [
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"max-forwards",
        b"range",
        b"www-authenticate",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}
