//! `host[:port]` (RFC 3986 §3.2).

use std::net::Ipv6Addr;

use super::bytes::{decimal, is_host_byte};

/// `value` as text, if it is a name or an address with an optional port. Stricter than RFC 3986: no user, no
/// percent-encoding, no empty label or port; nothing that a server could take for another host.
pub(super) fn host_and_port(value: &[u8]) -> Option<&str> {
    let port = match value.first()? {
        b'[' => behind_address(value)?,
        _ => behind_name(value)?,
    };
    // Nearly all name none.
    (port.is_empty() || is_port(port)).then(|| str::from_utf8(value).ok())?
}

/// What follows a name or an IPv4 address.
fn behind_name(value: &[u8]) -> Option<&[u8]> {
    // A name that begins with a dot begins with an empty label.
    let mut before = b'.';
    for (at, byte) in value.iter().enumerate() {
        match *byte {
            b':' => return (at > 0).then_some(&value[at..]),
            b'.' if before == b'.' => return None,
            byte if !is_host_byte(byte) => return None,
            byte => before = byte,
        }
    }
    Some(&[])
}

/// What follows an IPv6 address in brackets.
fn behind_address(value: &[u8]) -> Option<&[u8]> {
    let end = value.iter().position(|byte| *byte == b']')?;
    let address = str::from_utf8(&value[1..end]).ok()?;
    address.parse::<Ipv6Addr>().ok()?;
    Some(&value[end + 1..])
}

/// Nothing, or a colon and a number of 16 bits.
fn is_port(port: &[u8]) -> bool {
    match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && decimal(digits).is_some_and(|port| port <= 0xffff),
        _ => false,
    }
}
