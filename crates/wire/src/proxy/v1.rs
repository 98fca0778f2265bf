//! §2.1: the human-readable header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, Proxied, ProxyError, Version};
use crate::Parsed;

pub(super) const FIRST_BYTE: u8 = START[0];

const START: &[u8] = b"PROXY ";

/// The longest line with its CRLF: the worst case of §2.1.
const LINE_MAX: usize = 107;

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed<Proxied>, ProxyError> {
    let window = &bytes[..bytes.len().min(LINE_MAX)];
    let known = window.len().min(START.len());
    if window[..known] != START[..known] {
        return Err(ProxyError::NoHeader);
    }
    match line_end(window)? {
        Some(end) => {
            let addresses = decode(&window[START.len()..end])?;
            Ok(Parsed::Done { value: Proxied::new(Version::V1, addresses), consumed: end + 2 })
        }
        None if window.len() == LINE_MAX => Err(ProxyError::EndlessLine),
        None => Ok(Parsed::Incomplete { at_most: LINE_MAX }),
    }
}

/// Where the CRLF stands. No other control character may come before it, so a stray one is refused at once.
fn line_end(window: &[u8]) -> Result<Option<usize>, ProxyError> {
    let Some(at) = window.iter().position(u8::is_ascii_control) else { return Ok(None) };
    match window[at..] {
        [b'\r', b'\n', ..] => Ok(Some(at)),
        [b'\r'] => Ok(None),
        _ => Err(ProxyError::ControlCharacter),
    }
}

/// Reads what stands between "PROXY " and the CRLF.
fn decode(line: &[u8]) -> Result<Addresses, ProxyError> {
    // §2.1: behind UNKNOWN "the receiver must ignore anything presented before the CRLF".
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let line = str::from_utf8(line).map_err(|_| ProxyError::Line)?;
    let words: Vec<&str> = line.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = words[..] else {
        return Err(ProxyError::Line);
    };
    let ip = match family {
        "TCP4" => ipv4,
        "TCP6" => ipv6,
        _ => return Err(ProxyError::Line),
    };
    let source = SocketAddr::new(ip(source)?, port(source_port)?);
    let destination = SocketAddr::new(ip(destination)?, port(destination_port)?);
    Ok(Some((source, destination)))
}

/// The standard library refuses leading zeros and every short form, as §2.1 demands.
fn ipv4(text: &str) -> Result<IpAddr, ProxyError> {
    text.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| ProxyError::Address)
}

/// An embedded dotted quad (`::ffff:10.0.0.1`) is let through, because inet_ntop and so HAProxy and nginx
/// write it.
fn ipv6(text: &str) -> Result<IpAddr, ProxyError> {
    text.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| ProxyError::Address)
}

fn port(text: &str) -> Result<u16, ProxyError> {
    // The standard library would let "+80" and "080" through.
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if !plain {
        return Err(ProxyError::Port);
    }
    text.parse().map_err(|_| ProxyError::Port)
}
