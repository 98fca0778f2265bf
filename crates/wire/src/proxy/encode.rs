//! Writing the header.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::Version;
use super::v2::SIGNATURE;

/// Appends the header for a connection from `source` to `destination`; at most 107 bytes.
///
/// Without both (a unix socket, a health check) version 1 says UNKNOWN and version 2 LOCAL, the one form that
/// every receiver must accept (§2.2). Addresses of different families are both written as IPv6, IPv4 in its
/// mapped form.
pub fn encode(
    version: Version,
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    out: &mut Vec<u8>,
) {
    let pair = source.zip(destination).map(|(source, destination)| Pair::new(source, destination));
    match version {
        Version::V1 => encode_v1(pair, out),
        Version::V2 => encode_v2(pair, out),
    }
}

/// Two addresses of one family, as both versions need them.
enum Pair {
    V4(SocketAddrV4, SocketAddrV4),
    V6(SocketAddrV6, SocketAddrV6),
}

impl Pair {
    fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        match (unmapped(source), unmapped(destination)) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => Pair::V4(source, destination),
            (source, destination) => Pair::V6(mapped(source), mapped(destination)),
        }
    }
}

fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn mapped(address: SocketAddr) -> SocketAddrV6 {
    match address {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0),
        SocketAddr::V6(v6) => v6,
    }
}

fn encode_v1(pair: Option<Pair>, out: &mut Vec<u8>) {
    let line = match pair {
        None => "PROXY UNKNOWN\r\n".to_owned(),
        Some(Pair::V4(from, to)) => {
            format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
        }
        Some(Pair::V6(from, to)) => {
            let (from_ip, to_ip) = (hexadecimal(from.ip()), hexadecimal(to.ip()));
            format!("PROXY TCP6 {from_ip} {to_ip} {} {}\r\n", from.port(), to.port())
        }
    };
    out.extend_from_slice(line.as_bytes());
}

/// §2.1 knows sets of hexadecimal digits only; the usual text of a mapped address ends in a dotted quad.
fn hexadecimal(ip: &Ipv6Addr) -> String {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => format!("::ffff:{high:x}:{low:x}"),
        _ => ip.to_string(),
    }
}

fn encode_v2(pair: Option<Pair>, out: &mut Vec<u8>) {
    out.extend_from_slice(&SIGNATURE);
    match pair {
        None => out.extend_from_slice(&[0x20, 0x00, 0, 0]), // LOCAL, UNSPEC, nothing behind
        Some(Pair::V4(from, to)) => {
            out.extend_from_slice(&[0x21, 0x11, 0, 12]); // PROXY, TCP over IPv4
            out.extend_from_slice(&from.ip().octets());
            out.extend_from_slice(&to.ip().octets());
            push_ports(from.port(), to.port(), out);
        }
        Some(Pair::V6(from, to)) => {
            out.extend_from_slice(&[0x21, 0x21, 0, 36]); // PROXY, TCP over IPv6
            out.extend_from_slice(&from.ip().octets());
            out.extend_from_slice(&to.ip().octets());
            push_ports(from.port(), to.port(), out);
        }
    }
}

fn push_ports(from: u16, to: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&from.to_be_bytes());
    out.extend_from_slice(&to.to_be_bytes());
}
