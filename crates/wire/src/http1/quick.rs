//! The heads that nearly everybody sends, read in one pass.
//!
//! What is out of the ordinary is left to [`HeadScan`](super::HeadScan) and the slower readers, which say
//! what is wrong with it, if anything is: here a head is either read exactly as they would read it, or not at
//! all. A property test and a fuzz target hold the two against each other.

use super::block::{text, word};
use super::bytes::{PATH_SPECIAL, class_of, is_path_class, is_query_byte, is_token_byte};
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
    let (facts, length) = fields(bytes, &bytes[line + 2..], limits, room)?;
    let fields = Fields::new(&bytes[..length], room);
    assemble(method, target, version, fields, &facts, room.known()).ok().map(|request| (request, length))
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
    let rest = bytes.get(13..)?;
    let (reason, rest) = rest.split_at(text(rest));
    if bytes.len() - rest.len() > limits.line {
        return None;
    }
    let reason = if reason == b"OK" { "OK" } else { str::from_utf8(reason).ok()? };
    let (facts, length) = fields(bytes, rest.strip_prefix(b"\r\n")?, limits, room)?;
    let fields = Fields::new(&bytes[..length], room);
    conclude(version, status, reason, fields, &facts, to).ok().map(|response| (response, length))
}

/// The method and where the target begins.
fn method(bytes: &[u8]) -> Option<(Method<'_>, usize)> {
    if bytes.starts_with(b"GET ") {
        return Some((Method::Get, 4));
    }
    let end = bytes.iter().position(|byte| !is_token_byte(*byte))?;
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
        // Nothing about a letter, a digit or a hyphen has to be known.
        at += word(bytes.get(at..)?);
        let byte = *bytes.get(at)?;
        let class = class_of(byte);
        if !is_path_class(class) {
            break byte;
        }
        plain &= class & PATH_SPECIAL == 0 || !needs_a_look(bytes, at);
        at += 1;
    };
    let path = str::from_utf8(&bytes[start..at]).ok()?;
    let mut query = None;
    if stop == b'?' {
        let begin = at + 1;
        at = begin + word(&bytes[begin..]);
        while is_query_byte(*bytes.get(at)?) {
            at += 1 + word(&bytes[at + 1..]);
        }
        query = Some(str::from_utf8(&bytes[begin..at]).ok()?);
    }
    let raw = if query.is_none() { path } else { str::from_utf8(&bytes[start..at]).ok()? };
    Some((Target::of_origin(path, query, raw, plain), at))
}

/// Reads the fields at the beginning of `rest`, which ends `bytes`, into `room`: what they say together, and
/// where the head ends.
fn fields<'b>(
    bytes: &'b [u8],
    rest: &'b [u8],
    limits: &Limits,
    room: &mut Room<'b>,
) -> Option<(Facts<'b>, usize)> {
    let most = room.begin(limits);
    let length = lines(bytes, rest, most, room)?;
    let facts = room.judge(Kind::of_word).ok()?;
    (length <= limits.head).then_some((facts, length))
}

/// Takes the lines apart with which `rest` begins, up to the empty one; where that ends. What their names
/// mean is asked behind this, of all together: the look for ends keeps all that it needs at hand.
fn lines<'b>(bytes: &'b [u8], mut rest: &'b [u8], most: usize, room: &mut Room<'b>) -> Option<usize> {
    loop {
        let line = bytes.len() - rest.len();
        let (name, behind) = rest.split_at_checked(word(rest))?;
        let Some(behind) = behind.strip_prefix(b":") else {
            let ends = name.is_empty() && behind.starts_with(b"\r\n");
            return ends.then_some(line + 2);
        };
        let behind = behind.strip_prefix(b" ").unwrap_or(behind);
        let (value, behind) = behind.split_at_checked(text(behind))?;
        // White space around it is rare enough for the others, and so are names of other bytes.
        if name.is_empty() || value.first() == Some(&b' ') || value.last() == Some(&b' ') {
            return None;
        }
        rest = behind.strip_prefix(b"\r\n")?;
        if !room.push(Slot { name, value, line, kind: Kind::Plain }, most) {
            return None;
        }
    }
}
