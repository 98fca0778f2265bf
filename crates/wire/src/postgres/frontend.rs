//! What clients say once they are logged in.

use super::cursor::Body;
use super::frame::{push, push_text};

/// Kinds of messages.
pub mod kind {
    #![allow(missing_docs, reason = "the names are the protocol's own")]
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    /// Also what answers SCRAM and GSSAPI while logging in.
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// The code of a request to cancel, in place of a protocol version.
pub const CANCEL_REQUEST: u32 = 80_877_102;

/// The protocol that every server of the last twenty years speaks.
pub const PROTOCOL_3_0: u32 = 196_608;

/// The body of Parse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parse<'a> {
    /// The statement's name; empty for the unnamed one.
    pub name: &'a [u8],
    /// Its SQL.
    pub sql: &'a [u8],
    /// How many parameter types follow, and the types, as they stand in the message.
    pub types: &'a [u8],
}

impl<'a> Parse<'a> {
    /// Reads the body of one; `None` if it is not what it should be.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut body = Body(body);
        let (name, sql, types) = (body.text()?, body.text()?, body.0);
        let count = body.u16()?;
        (body.0.len() == usize::from(count) * 4).then_some(Parse { name, sql, types })
    }
}

/// The beginning of Bind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bind<'a> {
    /// The portal that it makes; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement that it is made of.
    pub statement: &'a [u8],
    /// What follows: formats and values.
    pub rest: &'a [u8],
}

impl<'a> Bind<'a> {
    /// Reads the names at the beginning of a body; `None` if they do not end.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut body = Body(body);
        Some(Bind { portal: body.text()?, statement: body.text()?, rest: body.0 })
    }
}

/// What Describe or Close is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Object<'a> {
    /// The statement of this name.
    Statement(&'a [u8]),
    /// The portal of this name.
    Portal(&'a [u8]),
}

impl<'a> Object<'a> {
    /// Reads the body of Describe or Close; `None` if it is not what it should be.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut body = Body(body);
        let (kind, name) = (body.u8()?, body.text()?);
        match kind {
            _ if !body.0.is_empty() => None,
            b'S' => Some(Object::Statement(name)),
            b'P' => Some(Object::Portal(name)),
            _ => None,
        }
    }
}

/// Reads the body of Query: its SQL; `None` if it does not end, or something follows.
pub fn query(body: &[u8]) -> Option<&[u8]> {
    let (last, sql) = body.split_last()?;
    (*last == 0 && memchr::memchr(0, sql).is_none()).then_some(sql)
}

/// Appends a startup packet of protocol 3.0.
pub fn push_startup<'p>(out: &mut Vec<u8>, parameters: impl Iterator<Item = (&'p [u8], &'p [u8])>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
    for (name, value) in parameters {
        push_text(out, name);
        push_text(out, value);
    }
    out.push(0);
    let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends Query.
pub fn push_query(out: &mut Vec<u8>, sql: &[u8]) {
    push(out, kind::QUERY, |out| push_text(out, sql));
}

/// Appends Parse; `types` as [`Parse::types`].
pub fn push_parse(out: &mut Vec<u8>, name: &[u8], sql: &[u8], types: &[u8]) {
    push(out, kind::PARSE, |out| {
        push_text(out, name);
        push_text(out, sql);
        out.extend_from_slice(types);
    });
}

/// Appends the beginning of Bind, whose `rest_length` further bytes the caller appends.
pub fn push_bind_head(out: &mut Vec<u8>, portal: &[u8], statement: &[u8], rest_length: usize) {
    let length = 4 + portal.len() + 1 + statement.len() + 1 + rest_length;
    out.push(kind::BIND);
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    push_text(out, portal);
    push_text(out, statement);
}

/// Appends Execute of a portal: all of its rows.
pub fn push_execute(out: &mut Vec<u8>, portal: &[u8]) {
    push(out, kind::EXECUTE, |out| {
        push_text(out, portal);
        out.extend_from_slice(&[0; 4]);
    });
}

/// Appends Describe or Close (`kind`) of a statement.
pub fn push_about_statement(out: &mut Vec<u8>, kind: u8, name: &[u8]) {
    push(out, kind, |out| {
        out.push(b'S');
        push_text(out, name);
    });
}

/// The same about a portal.
pub fn push_about_portal(out: &mut Vec<u8>, kind: u8, name: &[u8]) {
    push(out, kind, |out| {
        out.push(b'P');
        push_text(out, name);
    });
}

/// Appends a message without a body, as Sync and Terminate are.
pub fn push_bare(out: &mut Vec<u8>, kind: u8) {
    push(out, kind, |_| {});
}

/// A request to cancel what `process` does, who knows its `secret`. It is sent on a connection of its own.
pub fn cancel_request(process: u32, secret: &[u8]) -> Vec<u8> {
    let length = u32::try_from(12 + secret.len()).unwrap_or(u32::MAX);
    let head = [length, CANCEL_REQUEST, process].map(u32::to_be_bytes);
    [head.as_flattened(), secret].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{HEADER, Head};

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        push_parse(&mut out, b"s", b"select $1", &[0, 1, 0, 0, 0, 23]);
        let parse = Parse { name: b"s", sql: b"select $1", types: &[0, 1, 0, 0, 0, 23] };
        assert_eq!(Parse::read(&out[HEADER..]), Some(parse));
        out.clear();
        push_bind_head(&mut out, b"p", b"s", 3);
        out.extend_from_slice(b"abc");
        assert_eq!(Head::read(&out).unwrap().unwrap().whole(), out.len());
        let bind = Bind { portal: b"p", statement: b"s", rest: b"abc" };
        assert_eq!(Bind::read(&out[HEADER..]), Some(bind));
        out.clear();
        push_about_statement(&mut out, kind::DESCRIBE, b"s");
        assert_eq!(Object::read(&out[HEADER..]), Some(Object::Statement(b"s")));
        out.clear();
        push_query(&mut out, b"select 1");
        assert_eq!(query(&out[HEADER..]), Some(&b"select 1"[..]));
    }

    #[test]
    fn what_is_malformed_is_not_read() {
        assert_eq!(Parse::read(b"s\0select 1\0\0\x01"), None);
        assert_eq!(Parse::read(b"s\0select 1\0\0\0x"), None);
        assert_eq!(Parse::read(b"s\0select 1"), None);
        assert_eq!(Bind::read(b"p\0s"), None);
        assert_eq!(Object::read(b"Xs\0"), None);
        assert_eq!(Object::read(b"Ss\0s"), None);
        assert_eq!(query(b"select 1"), None);
        assert_eq!(query(b"select 1\0select 2\0"), None);
        assert_eq!(query(b""), None);
    }

    #[test]
    fn a_request_to_cancel_counts_its_secret() {
        assert_eq!(cancel_request(1, &[7; 4])[..8], [0, 0, 0, 16, 4, 210, 22, 46]);
        assert_eq!(cancel_request(1, &[7; 32]).len(), 44);
    }
}
