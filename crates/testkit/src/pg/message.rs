//! A message of a server, and its text, by which two are compared.

use std::fmt;

/// Objects that a user makes have numbers from here on (`FirstNormalObjectId`), another one in each run.
const FIRST_USER_OID: u32 = 16_384;

/// A message of a server.
///
/// Its text ([`fmt::Display`]) names the message and holds all that a client can see of it, but for what
/// differs from one run to the next: process ids, keys, the numbers of user objects, and where in the
/// server's source an error was raised.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type byte.
    pub kind: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

impl Message {
    /// A field of an ErrorResponse or a NoticeResponse, as `C` for the SQLSTATE; empty if it is not there.
    pub fn field(&self, kind: u8) -> String {
        let fields = self.body.split(|byte| *byte == 0);
        let mut found = fields.filter(|field| field.first() == Some(&kind)).map(|field| lossy(&field[1..]));
        found.next_back().unwrap_or_default()
    }

    /// The columns of a DataRow as text; `None` for null.
    pub fn columns(&self) -> Vec<Option<String>> {
        let mut body = Reader(&self.body);
        let count = body.u16();
        (0..count).map(|_| body.value().map(lossy)).collect()
    }

    fn status(&self, body: &mut Reader<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, value) = (body.text(), body.text());
        write!(f, "ParameterStatus {name}={value}")
    }

    fn fields(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name)?;
        for field in self.body.split(|byte| *byte == 0).filter(|field| !field.is_empty()) {
            // F, L and R tell the line of the server's source, which a proxy's own errors have not.
            if !b"FLR".contains(&field[0]) {
                write!(f, " {}={}", char::from(field[0]), lossy(&field[1..]))?;
            }
        }
        Ok(())
    }

    fn row_description(body: &mut Reader<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowDescription")?;
        for _ in 0..body.u16() {
            let name = body.text();
            let (table, column) = (body.oid(), body.u16());
            let (kind, size, modifier, format) = (body.oid(), body.i16(), body.i32(), body.u16());
            write!(f, " {name}:{kind}")?;
            write!(f, "(table {table}.{column} size {size} modifier {modifier} format {format})")?;
        }
        Ok(())
    }

    fn data_row(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataRow")?;
        self.columns().iter().try_for_each(|column| match column {
            Some(value) => write!(f, " {value:?}"),
            None => f.write_str(" null"),
        })
    }

    fn copy_response(name: &str, body: &mut Reader<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{name} format {}", body.u8())?;
        (0..body.u16()).try_for_each(|_| write!(f, " {}", body.u16()))
    }

    fn negotiation(body: &mut Reader<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NegotiateProtocolVersion {:#x}", body.i32())?;
        (0..body.i32().max(0)).try_for_each(|_| write!(f, " {}", body.text()))
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = &mut Reader(&self.body);
        match self.kind {
            b'1' => f.write_str("ParseComplete"),
            b'2' => f.write_str("BindComplete"),
            b'3' => f.write_str("CloseComplete"),
            b'A' => {
                body.i32(); // the process that notified
                write!(f, "NotificationResponse {} {:?}", body.text(), body.text())
            }
            b'C' => write!(f, "CommandComplete {}", body.text()),
            b'D' => self.data_row(f),
            b'E' => self.fields("ErrorResponse", f),
            b'G' => Message::copy_response("CopyInResponse", body, f),
            b'H' => Message::copy_response("CopyOutResponse", body, f),
            b'I' => f.write_str("EmptyQueryResponse"),
            b'K' => write!(f, "BackendKeyData"),
            b'N' => self.fields("NoticeResponse", f),
            b'R' => write!(f, "Authentication {}", body.i32()),
            b'S' => self.status(body, f),
            b'T' => Message::row_description(body, f),
            b'V' => write!(f, "FunctionCallResponse {:?}", body.value().map(lossy)),
            b'W' => Message::copy_response("CopyBothResponse", body, f),
            b'Z' => write!(f, "ReadyForQuery {}", char::from(body.u8())),
            b'c' => f.write_str("CopyDone"),
            b'd' => write!(f, "CopyData {}", self.body.escape_ascii()),
            b'n' => f.write_str("NoData"),
            b's' => f.write_str("PortalSuspended"),
            b't' => {
                f.write_str("ParameterDescription")?;
                (0..body.u16()).try_for_each(|_| write!(f, " {}", body.oid()))
            }
            b'v' => Message::negotiation(body, f),
            other => write!(f, "{:?} {}", char::from(other), self.body.escape_ascii()),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads on; behind the end of a body everything is 0 or empty, and the text shows it.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn number<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap_or([0; N])
    }

    fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.number())
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.number())
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.number())
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.number())
    }

    /// The number of an object; `user` if a user made it.
    fn oid(&mut self) -> String {
        let oid = u32::from_be_bytes(self.number());
        if oid < FIRST_USER_OID { oid.to_string() } else { "user".to_owned() }
    }

    fn text(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let text = lossy(self.take(end));
        self.take(1);
        text
    }

    /// A length and so many bytes; -1 is null.
    fn value(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.i32()).ok()?;
        Some(self.take(length))
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::Message;

    fn text(kind: u8, body: &[u8]) -> String {
        Message { kind, body: body.to_vec() }.to_string()
    }

    #[test]
    fn the_text_holds_what_a_client_sees_and_nothing_of_the_run() {
        assert_eq!(text(b'Z', b"T"), "ReadyForQuery T");
        assert_eq!(text(b'D', b"\0\x02\0\0\0\x01x\xff\xff\xff\xff"), "DataRow \"x\" null");
        assert_eq!(text(b'K', b"12345678"), text(b'K', b"87654321"));
        let error = Message { kind: b'E', body: b"SERROR\0C42601\0Mno\0Fscan.l\0L1\0Ryy\0\0".to_vec() };
        assert_eq!(error.to_string(), "ErrorResponse S=ERROR C=42601 M=no");
        assert_eq!((error.field(b'C').as_str(), error.field(b'D').as_str()), ("42601", ""));
        assert_eq!(text(b't', b"\0\x02\0\0\0\x17\0\x01\0\0"), "ParameterDescription 23 user");
        assert_eq!(text(b'v', b"\0\x03\0\x02\0\0\0\x01_pq_.x\0"), "NegotiateProtocolVersion 0x30002 _pq_.x");
    }

    #[test]
    fn a_body_that_ends_early_is_shown_all_the_same() {
        for kind in 0..=255 {
            assert!(!text(kind, b"").is_empty() && !text(kind, b"\xff\xff").is_empty());
        }
    }
}
