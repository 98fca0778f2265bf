//! PROXY headers.

use std::net::{IpAddr, SocketAddr};

use tieline_wire::Parsed;
use tieline_wire::proxy::{HEADER_MAX, Version, encode, parse};

use crate::prefixes::assert_final;

/// Answers are final; a header stays within its limit; what it says survives being written in either version.
pub fn proxy(data: &[u8]) {
    assert_final(data, parse);
    let Ok(Parsed::Done { value, consumed }) = parse(data) else { return };
    assert!(consumed <= HEADER_MAX);
    assert_eq!(value.source.is_some(), value.destination.is_some());
    for version in [Version::V1, Version::V2] {
        let mut header = Vec::new();
        encode(version, value.source, value.destination, &mut header);
        let Ok(Parsed::Done { value: again, consumed }) = parse(&header) else {
            panic!("{value:?} as {version:?} does not read back: {header:?}");
        };
        assert_eq!(consumed, header.len());
        assert_eq!(again.version, version);
        assert_eq!(again.source.map(plain), value.source.map(plain));
        assert_eq!(again.destination.map(plain), value.destination.map(plain));
    }
}

/// IPv4 and its mapped form are one address.
fn plain(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}
