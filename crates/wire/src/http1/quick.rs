//! The heads that nearly everybody sends, read in one pass.
//!
//! What is out of the ordinary is left to [`HeadScan`](super::HeadScan) and the slower readers, which say
//! what is wrong with it, if anything is: here a head is either read exactly as they would read it, or not at
//! all. A property test and a fuzz target hold the two against each other.

use super::bytes::{
    HAS_UNDERSCORE, PATH_SPECIAL, class_of, is_path_class, is_query_byte, is_token_class, ordinary_value_end,
};
use super::facts::Facts;
use super::fields::{Fields, Room, Slot};
use super::request::{Request, assemble};
use super::response::{Response, conclude};
use super::target::needs_a_look;
use super::{Kind, Limits, Method, RequestKind, Target, Version};

/// The request whose head is at the beginning of `bytes`, and how long that is. `None` says nothing of it: it
/// may be cut, wrong, or rare.
pub fn quick_request<'r, 'b>(
    bytes: &'b [u8],
    limits: &Limits,
    room: &'r mut Room<'b>,
) -> Option<(Request<'r, 'b>, usize)> {
    let (method, at) = method(bytes)?;
    let (target, at) = target(bytes, at)?;
    let (version, line) = match bytes.get(at..)?.first_chunk()? {
        b" HTTP/1.1\r\n" => (Version::Http11, at + 9),
        b" HTTP/1.0\r\n" => (Version::Http10, at + 9),
        _ => return None,
    };
    if line > limits.line {
        return None;
    }
    let (facts, length) = fields(bytes, line + 2, limits, room)?;
    let fields = Fields::new(&bytes[..length], room);
    assemble(method, target, version, fields, &facts).ok().map(|request| (request, length))
}

/// The response whose head is at the beginning of `bytes`, and how long that is; see [`quick_request`].
pub fn quick_response<'r, 'b>(
    bytes: &'b [u8],
    limits: &Limits,
    room: &'r mut Room<'b>,
    to: RequestKind,
) -> Option<(Response<'r, 'b>, usize)> {
    let version = match bytes.first_chunk()? {
        b"HTTP/1.1 " => Version::Http11,
        b"HTTP/1.0 " => Version::Http10,
        _ => return None,
    };
    let &[hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b' '] =
        bytes.get(9..)?.first_chunk()?
    else {
        return None;
    };
    let digit = |byte: u8| u16::from(byte - b'0');
    let status = digit(hundreds) * 100 + digit(tens) * 10 + digit(ones);
    let end = ordinary_value_end(bytes, 13);
    let reason = str::from_utf8(&bytes[13..end]).ok()?;
    let (facts, length) = fields(bytes, line_end(bytes, end)?, limits, room)?;
    let fields = Fields::new(&bytes[..length], room);
    conclude(version, status, reason, fields, &facts, to).ok().map(|response| (response, length))
}

/// The method and where the target begins.
fn method(bytes: &[u8]) -> Option<(Method<'_>, usize)> {
    if bytes.starts_with(b"GET ") {
        return Some((Method::Get, 4));
    }
    let end = bytes.iter().position(|byte| !is_token_class(class_of(*byte)))?;
    let name = str::from_utf8(&bytes[..end]).ok()?;
    let method = (bytes[end] == b' ' && end > 0).then(|| Method::parse(name).ok())??;
    Some((method, end + 1))
}

/// The target that begins at `start`, if it is of the origin form, and where it ends.
fn target(bytes: &[u8], start: usize) -> Option<(Target<'_>, usize)> {
    if *bytes.get(start)? != b'/' {
        return None;
    }
    let (mut at, mut plain) = (start + 1, true);
    let stop = loop {
        let byte = *bytes.get(at)?;
        let class = class_of(byte);
        if !is_path_class(class) {
            break byte;
        }
        if class & PATH_SPECIAL != 0 && needs_a_look(bytes, at) {
            plain = false;
        }
        at += 1;
    };
    let path = str::from_utf8(&bytes[start..at]).ok()?;
    let mut query = None;
    if stop == b'?' {
        let begin = at + 1;
        at = begin + bytes[begin..].iter().position(|byte| !is_query_byte(*byte))?;
        query = Some(str::from_utf8(&bytes[begin..at]).ok()?);
    }
    let raw = if query.is_none() { path } else { str::from_utf8(&bytes[start..at]).ok()? };
    Some((Target::of_origin(path, query, raw, plain), at))
}

/// Reads the fields from `at` to the empty line into `room`: what they say together, and where the head ends.
fn fields<'b>(
    bytes: &'b [u8],
    mut at: usize,
    limits: &Limits,
    room: &mut Room<'b>,
) -> Option<(Facts<'b>, usize)> {
    let most = room.begin(limits);
    let mut facts = Facts::default();
    loop {
        let line = at;
        let mut seen = 0;
        let stop = loop {
            let byte = *bytes.get(at)?;
            let class = class_of(byte);
            if !is_token_class(class) {
                break byte;
            }
            seen |= class;
            at += 1;
        };
        if stop != b':' || at == line {
            let empty = stop == b'\r' && at == line && bytes.get(at + 1) == Some(&b'\n');
            let length = at + 2;
            if !empty || length > limits.head {
                return None;
            }
            room.finish(&facts);
            return Some((facts, length));
        }
        let name = &bytes[line..at];
        let begin = at + 1 + usize::from(bytes.get(at + 1) == Some(&b' '));
        let end = ordinary_value_end(bytes, begin);
        let value = &bytes[begin..end];
        // White space around it is rare enough for the others.
        if value.first() == Some(&b' ') || value.last() == Some(&b' ') {
            return None;
        }
        at = line_end(bytes, end)?;
        let kind = Kind::of_token(name, seen & HAS_UNDERSCORE != 0);
        facts.take(kind, value).ok()?;
        if !room.push(Slot { name, value, line, kind }, most) {
            return None;
        }
    }
}

/// Behind the end of a line that stands at `at`.
fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    (bytes.get(at..)?.first_chunk()? == b"\r\n").then_some(at + 2)
}
