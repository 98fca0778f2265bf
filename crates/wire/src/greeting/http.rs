//! HTTP/1.1: `GET path`, healthy when the final status is from 200 to 399 (RFC 9110 §15).

use super::Heard;
use super::text::quote;

pub(super) fn request(path: &str, host: &str) -> Vec<u8> {
    let (path, host) = (encoded(path), encoded(host));
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!(
        "GET {slash}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tieline-health\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// Percent-encodes what would end the target or the field: everything but visible ASCII (RFC 3986 §2.1).
pub(super) fn encoded(text: &str) -> String {
    let letter = |byte: u8| match byte {
        0x21..=0x7e => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(letter).collect()
}

pub(super) fn hear(bytes: &[u8]) -> Heard {
    const START: &[u8] = b"HTTP/1.";
    let known = bytes.len().min(START.len());
    if bytes[..known] != START[..known] {
        return Heard::Unhealthy(format!(
            "no HTTP/1 answer: \"{}\"",
            quote(first_line(bytes).unwrap_or(bytes))
        ));
    }
    let Some(line) = first_line(bytes) else { return Heard::Nothing };
    match status(line) {
        Some(200..=399) => Heard::Healthy(&[]),
        // RFC 9110 §15.2: interim answers come before the final one; 101 was not asked for.
        Some(100 | 102..=199) => match bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(end) => Heard::Skip(end + 4),
            None => Heard::Nothing,
        },
        Some(_) => Heard::Unhealthy(format!("answered \"{}\"", quote(line))),
        None => Heard::Unhealthy(format!("malformed status line \"{}\"", quote(line))),
    }
}

fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some(bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]))
}

/// RFC 9112 §4: version, space, three digits, and a space or the end.
fn status(line: &[u8]) -> Option<u16> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9', b' ', digits @ ..] = line else {
        return None;
    };
    let (code, behind) = digits.split_first_chunk::<3>()?;
    let right = code.iter().all(u8::is_ascii_digit) && matches!(behind.first(), None | Some(b' '));
    right.then(|| code.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
}
