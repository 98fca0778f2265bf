//! What servers say.

use super::cursor::Body;
use super::frame::{push, push_text};

/// Kinds of messages.
pub mod kind {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// In which state a server is between two queries, as ReadyForQuery says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Status {
    /// In no transaction.
    #[default]
    Idle,
    /// In a transaction.
    Transaction,
    /// In a transaction that failed.
    Failed,
}

impl Status {
    /// The status that `byte` stands for.
    #[inline]
    pub fn from_byte(byte: u8) -> Option<Status> {
        match byte {
            b'I' => Some(Status::Idle),
            b'T' => Some(Status::Transaction),
            b'E' => Some(Status::Failed),
            _ => None,
        }
    }

    /// The byte that stands for it.
    pub fn byte(self) -> u8 {
        match self {
            Status::Idle => b'I',
            Status::Transaction => b'T',
            Status::Failed => b'E',
        }
    }
}

/// An ErrorResponse or a NoticeResponse. Every field is optional, whatever servers usually send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Notice<'a> {
    /// How grave it is, in English where the server says so: `ERROR`, `FATAL`, `PANIC`, `WARNING`, …
    pub severity: Option<&'a [u8]>,
    /// Its SQLSTATE.
    pub code: Option<&'a [u8]>,
    /// What happened.
    pub message: Option<&'a [u8]>,
    /// More of it.
    pub detail: Option<&'a [u8]>,
    /// What to do.
    pub hint: Option<&'a [u8]>,
}

impl<'a> Notice<'a> {
    /// Reads the body of one; `None` if a field does not end.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (mut body, mut notice) = (Body(body), Notice::default());
        loop {
            let kind = body.u8()?;
            if kind == 0 {
                return Some(notice);
            }
            let text = Some(body.text()?);
            match kind {
                // The one that is never translated goes before the other.
                b'V' => notice.severity = text,
                b'S' => notice.severity = notice.severity.or(text),
                b'C' => notice.code = text,
                b'M' => notice.message = text,
                b'D' => notice.detail = text,
                b'H' => notice.hint = text,
                _ => {}
            }
        }
    }

    /// Whether the server ends the connection behind it.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity, Some(b"FATAL" | b"PANIC"))
    }

    fn push(&self, out: &mut Vec<u8>, kind: u8) {
        push(out, kind, |out| {
            let severity = self.severity.or(Some(b"ERROR"));
            let fields = [
                (b'S', severity),
                (b'V', severity),
                (b'C', self.code.or(Some(b"XX000"))),
                (b'M', self.message.or(Some(b"no message"))),
                (b'D', self.detail),
                (b'H', self.hint),
            ];
            for (kind, text) in fields {
                if let Some(text) = text {
                    out.push(kind);
                    push_text(out, text);
                }
            }
            out.push(0);
        });
    }
}

/// Appends an ErrorResponse.
pub fn push_error(out: &mut Vec<u8>, error: &Notice<'_>) {
    error.push(out, kind::ERROR_RESPONSE);
}

/// Appends a NoticeResponse.
pub fn push_notice(out: &mut Vec<u8>, notice: &Notice<'_>) {
    notice.push(out, kind::NOTICE_RESPONSE);
}

/// Appends ReadyForQuery.
pub fn push_ready(out: &mut Vec<u8>, status: Status) {
    push(out, kind::READY_FOR_QUERY, |out| out.push(status.byte()));
}

/// Appends a message without a body.
pub fn push_bare(out: &mut Vec<u8>, kind: u8) {
    push(out, kind, |_| {});
}

/// Appends AuthenticationOk.
pub fn push_authenticated(out: &mut Vec<u8>) {
    push(out, kind::AUTHENTICATION, |out| out.extend_from_slice(&[0; 4]));
}

/// Appends ParameterStatus.
pub fn push_parameter(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    push(out, kind::PARAMETER_STATUS, |out| {
        push_text(out, name);
        push_text(out, value);
    });
}

/// Appends BackendKeyData.
pub fn push_key(out: &mut Vec<u8>, process: u32, secret: &[u8]) {
    push(out, kind::BACKEND_KEY_DATA, |out| {
        out.extend_from_slice(&process.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// Appends CommandComplete.
pub fn push_complete(out: &mut Vec<u8>, tag: &[u8]) {
    push(out, kind::COMMAND_COMPLETE, |out| push_text(out, tag));
}

/// Appends NotificationResponse; `said` is channel and payload, each with its end.
pub fn push_notification(out: &mut Vec<u8>, process: u32, said: &[u8]) {
    push(out, kind::NOTIFICATION_RESPONSE, |out| {
        out.extend_from_slice(&process.to_be_bytes());
        out.extend_from_slice(said);
    });
}

/// Reads the body of NotificationResponse: who sent it, the channel, and channel and payload as
/// [`push_notification`] takes them.
pub fn notification(body: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let mut body = Body(body);
    let (process, said) = (body.u32()?, body.0);
    let channel = body.text()?;
    body.text()?;
    body.0.is_empty().then_some((process, channel, said))
}

/// Reads the body of ParameterStatus: a name, and its value.
pub fn parameter(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut body = Body(body);
    Some((body.text()?, body.text()?))
}

/// Reads the body of BackendKeyData: the process, and the secret, which is empty with some servers of other
/// makes.
pub fn key(body: &[u8]) -> Option<(u32, &[u8])> {
    let mut body = Body(body);
    Some((body.u32()?, body.0))
}

/// Reads the body of CommandComplete: the tag.
pub fn tag(body: &[u8]) -> Option<&[u8]> {
    Body(body).text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{HEADER, Head};

    #[test]
    fn every_field_of_an_error_is_optional() {
        assert_eq!(Notice::read(b"\0"), Some(Notice::default()));
        assert_eq!(Notice::read(b""), None);
        assert_eq!(Notice::read(b"Mlost"), None);
        let read = Notice::read(b"SFEHLER\0VERROR\0C57014\0Xunknown\0\0").unwrap();
        assert_eq!(
            (read.severity, read.code, read.message),
            (Some(&b"ERROR"[..]), Some(&b"57014"[..]), None)
        );
        assert!(!read.is_fatal());
    }

    #[test]
    fn what_is_built_is_read_and_no_text_breaks_out_of_its_field() {
        let mut out = Vec::new();
        let error = Notice {
            severity: Some(b"FATAL"),
            code: Some(b"53300"),
            message: Some(b"full\0Cfalse"),
            ..Notice::default()
        };
        push_error(&mut out, &error);
        let head = Head::read(&out).unwrap().unwrap();
        assert_eq!((head.kind, head.whole()), (b'E', out.len()));
        let read = Notice::read(&out[HEADER..]).unwrap();
        assert_eq!(
            (read.code, read.message, read.is_fatal()),
            (Some(&b"53300"[..]), Some(&b"full"[..]), true)
        );
    }

    #[test]
    fn notifications_are_read_as_they_are_written() {
        let mut out = Vec::new();
        push_notification(&mut out, 9, b"news\0first\0");
        let read = notification(&out[HEADER..]);
        assert_eq!(read, Some((9, &b"news"[..], &b"news\0first\0"[..])));
        assert_eq!(notification(b"\0\0\0\x09news\0first"), None);
        assert_eq!(notification(b"\0\0\0\x09news\0first\0more\0"), None);
    }

    #[test]
    fn parameters_keys_and_tags_are_read() {
        assert_eq!(parameter(b"TimeZone\0UTC\0"), Some((&b"TimeZone"[..], &b"UTC"[..])));
        assert_eq!(parameter(b"TimeZone\0UTC"), None);
        assert_eq!(key(&[0, 0, 0, 9, 1, 2, 3, 4]), Some((9, &[1, 2, 3, 4][..])));
        assert_eq!(key(&[0, 0, 0, 9]), Some((9, &[][..])));
        assert_eq!(key(&[0, 0, 0]), None);
        assert_eq!(tag(b"SELECT 1\0"), Some(&b"SELECT 1"[..]));
    }
}
