//! Messages of authentication, both ways (PostgreSQL documentation, "Message Formats").

use super::frame::{push, push_text};
use crate::cursor::Cursor;

/// The longest answer of a client to a question about who it is, its head left out. Those of SCRAM have some
/// hundred bytes.
pub const ANSWER_MAX: usize = 2_048;

/// What a server wants to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Demand<'a> {
    /// Nothing more.
    Ok,
    /// The password as it is.
    Cleartext,
    /// The password's MD5, hashed again with this salt.
    Md5([u8; 4]),
    /// SASL by one of these mechanisms, best first.
    Sasl(Mechanisms<'a>),
    /// What its mechanism says next.
    SaslContinue(&'a [u8]),
    /// What its mechanism says last.
    SaslFinal(&'a [u8]),
    /// Something that nobody here knows, by its number.
    Other(u32),
}

/// The names of mechanisms, as they stand in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mechanisms<'a>(&'a [u8]);

impl Mechanisms<'_> {
    /// Whether `name` is among them.
    pub fn has(&self, name: &str) -> bool {
        self.0.split(|byte| *byte == 0).any(|it| it == name.as_bytes())
    }
}

impl<'a> Demand<'a> {
    /// Reads the body of an authentication message; `None` if it is not what it should be.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut body = Cursor::new(body);
        let kind = u32::from_be_bytes(body.array()?);
        let demand = match kind {
            0 => Demand::Ok,
            3 => Demand::Cleartext,
            5 => Demand::Md5(body.array()?),
            10 => return Some(Demand::Sasl(Mechanisms(body.rest()))),
            11 => return Some(Demand::SaslContinue(body.rest())),
            12 => return Some(Demand::SaslFinal(body.rest())),
            other => return Some(Demand::Other(other)),
        };
        body.is_empty().then_some(demand)
    }

    /// Appends the message that says it.
    pub fn push(&self, out: &mut Vec<u8>) {
        let (kind, rest): (u32, &[u8]) = match self {
            Demand::Ok => (0, &[]),
            Demand::Cleartext => (3, &[]),
            Demand::Md5(salt) => (5, salt),
            Demand::Sasl(mechanisms) => (10, mechanisms.0),
            Demand::SaslContinue(said) => (11, said),
            Demand::SaslFinal(said) => (12, said),
            Demand::Other(kind) => (*kind, &[]),
        };
        push(out, b'R', |out| {
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(rest);
        });
    }
}

/// Appends the message that asks for SASL by one of `mechanisms`, best first.
pub fn push_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    push(out, b'R', |out| {
        out.extend_from_slice(&10_u32.to_be_bytes());
        mechanisms.iter().for_each(|name| push_text(out, name.as_bytes()));
        out.push(0);
    });
}

/// Appends a password, or the hash of one.
pub fn push_password(out: &mut Vec<u8>, password: &[u8]) {
    push(out, b'p', |out| push_text(out, password));
}

/// Appends the choice of a mechanism, and what it says first.
pub fn push_sasl_initial(out: &mut Vec<u8>, mechanism: &str, said: &[u8]) {
    push(out, b'p', |out| {
        push_text(out, mechanism.as_bytes());
        out.extend_from_slice(&u32::try_from(said.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(said);
    });
}

/// Appends what a mechanism says next.
pub fn push_sasl_response(out: &mut Vec<u8>, said: &[u8]) {
    push(out, b'p', |out| out.extend_from_slice(said));
}

/// Reads a password, or the hash of one, from the body of a client's answer.
pub fn password(body: &[u8]) -> Option<&[u8]> {
    let (&end, text) = body.split_last()?;
    (end == 0 && memchr::memchr(0, text).is_none()).then_some(text)
}

/// Reads the choice of a mechanism from the body of a client's answer: its name, and what it says first.
pub fn sasl_initial(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut body = Cursor::new(body);
    let mechanism = body.until_nul()?;
    let length = usize::try_from(u32::from_be_bytes(body.array()?)).ok()?;
    let said = body.take(length)?;
    body.is_empty().then_some((mechanism, said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::HEADER;
    use proptest::prelude::*;

    #[test]
    fn every_demand_reads_back() {
        let mechanisms = Mechanisms(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
        for demand in [
            Demand::Ok,
            Demand::Cleartext,
            Demand::Md5([1, 2, 3, 4]),
            Demand::Sasl(mechanisms),
            Demand::SaslContinue(b"r=x"),
            Demand::SaslFinal(b"v=x"),
            Demand::Other(7),
        ] {
            let mut out = Vec::new();
            demand.push(&mut out);
            assert_eq!(Demand::read(&out[HEADER..]), Some(demand));
        }
        assert!(mechanisms.has("SCRAM-SHA-256") && !mechanisms.has("SCRAM"));
        let mut out = Vec::new();
        push_sasl(&mut out, &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]);
        assert_eq!(Demand::read(&out[HEADER..]), Some(Demand::Sasl(mechanisms)));
    }

    #[test]
    fn what_is_malformed_is_not_read() {
        for body in [&b""[..], b"\0\0\0", b"\0\0\0\0x", b"\0\0\0\x05abc", b"\0\0\0\x05abcde"] {
            assert_eq!(Demand::read(body), None, "{body:?}");
        }
        for body in [&b""[..], b"secret", b"a\0b\0"] {
            assert_eq!(password(body), None, "{body:?}");
        }
        for body in [&b""[..], b"X", b"X\0\0\0\0\x02a", b"X\0\0\0\0\0a", b"X\0\xff\xff\xff\xff"] {
            assert_eq!(sasl_initial(body), None, "{body:?}");
        }
    }

    #[test]
    fn answers_read_back() {
        let mut out = Vec::new();
        push_password(&mut out, b"md5abc");
        assert_eq!(password(&out[HEADER..]), Some(&b"md5abc"[..]));
        out.clear();
        push_sasl_initial(&mut out, "SCRAM-SHA-256", b"n,,n=,r=x");
        assert_eq!(sasl_initial(&out[HEADER..]), Some((&b"SCRAM-SHA-256"[..], &b"n,,n=,r=x"[..])));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (Demand::read(&bytes), password(&bytes), sasl_initial(&bytes));
        }
    }
}
