//! The PROXY protocol, both versions: a proxy tells its server for whom it speaks.
//!
//! Source: HAProxy's `doc/proxy-protocol.txt` (2025 revision), cited below by section. Section 5 is why
//! nothing here guesses whether a header is there: the caller must know it from config, and must believe it
//! only from a trusted source.

mod crc32c;
mod encode;
mod v1;
mod v2;

use std::net::SocketAddr;

pub use encode::encode;

use crate::Parsed;

/// The longest header accepted, in bytes. §2.2 would allow 65,551; real ones with TLS details stay far below
/// this.
pub const HEADER_MAX: usize = 4096;

/// Which form of the header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Version {
    /// One line of text (§2.1).
    V1,
    /// Binary (§2.2).
    V2,
}

/// What a header says. Either both addresses are known or neither is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Proxied {
    /// The form that it came in.
    pub version: Version,
    /// The client; `None` when the sender speaks for itself (a health check) or for a client without an IP
    /// address: then the connection's own addresses hold (§2.1 UNKNOWN, §2.2 LOCAL and UNSPEC).
    pub source: Option<SocketAddr>,
    /// Where the client connected to.
    pub destination: Option<SocketAddr>,
}

/// Why bytes are no PROXY header. §2.1: "any sequence which does not exactly match the protocol" ends the
/// connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProxyError {
    /// Neither version's first bytes.
    #[error("no PROXY header: the connection does not start with one")]
    NoHeader,
    /// Version 1: no CRLF within 107 bytes.
    #[error("PROXY line has no CRLF within its 107 bytes")]
    EndlessLine,
    /// Version 1: a CR or LF alone, or another control character.
    #[error("PROXY line holds a control character or a line end that is not CRLF")]
    ControlCharacter,
    /// Version 1: not the words and single spaces of §2.1.
    #[error("PROXY line is not \"TCP4|TCP6 source destination source-port destination-port\" or \"UNKNOWN\"")]
    Line,
    /// Version 1: an address that is not canonical or not of the stated family.
    #[error("PROXY line has an address that is not of its family or not in canonical form")]
    Address,
    /// Version 1: a port that is not 0 to 65535 without leading zeros.
    #[error("PROXY line has a port that is not a plain number from 0 to 65535")]
    Port,
    /// Version 2's signature with another version behind it.
    #[error("PROXY header has version {0}, only 1 and 2 exist")]
    UnknownVersion(u8),
    /// Version 2: neither LOCAL nor PROXY.
    #[error("PROXY header has the unassigned command {0}")]
    Command(u8),
    /// Version 2: an unassigned address family or transport.
    #[error("PROXY header has the unassigned family and transport {0:#04x}")]
    Family(u8),
    /// Version 2: above [`HEADER_MAX`].
    #[error("PROXY header of {0} bytes is above the limit of {HEADER_MAX}")]
    TooLong(usize),
    /// Version 2: the stated length does not hold the addresses of the family.
    #[error("PROXY header is too short for its addresses")]
    AddressesCut,
    /// Version 2: a type-length-value field leaves the header.
    #[error("PROXY header has a field that reaches past its end")]
    FieldCut,
    /// Version 2: the checksum field is not 4 bytes, or there are two.
    #[error("PROXY header has a malformed checksum field")]
    ChecksumField,
    /// Version 2: the checksum is wrong.
    #[error("PROXY header does not match its checksum")]
    Checksum,
}

/// Reads the header at the start of `bytes`, whichever version it is.
///
/// # Errors
/// [`ProxyError`] as soon as the bytes cannot become a header any more: at the first byte for most other
/// protocols.
pub fn parse(bytes: &[u8]) -> Result<Parsed<Proxied>, ProxyError> {
    match bytes.first() {
        None => Ok(Parsed::Incomplete { at_most: HEADER_MAX }),
        Some(&v1::FIRST_BYTE) => v1::parse(bytes),
        Some(&v2::FIRST_BYTE) => v2::parse(bytes),
        Some(_) => Err(ProxyError::NoHeader),
    }
}

/// Whose connection it is, as a header states it: (source, destination).
type Addresses = Option<(SocketAddr, SocketAddr)>;

impl Proxied {
    fn new(version: Version, addresses: Addresses) -> Self {
        let (source, destination) = addresses.unzip();
        Self { version, source, destination }
    }
}

#[cfg(test)]
mod tests;
