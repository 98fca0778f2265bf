//! §2.2: the binary header.

use std::net::{IpAddr, SocketAddr};

use super::crc32c::crc32c;
use super::{Addresses, HEADER_MAX, Proxied, ProxyError, Version};
use crate::Parsed;
use crate::cursor::Cursor;

pub(super) const FIRST_BYTE: u8 = SIGNATURE[0];

pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length.
const FIXED_LENGTH: usize = 16;

pub(super) fn parse(bytes: &[u8]) -> Result<Parsed<Proxied>, ProxyError> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(ProxyError::NoHeader);
    }
    let Some((command, family, length)) = fixed_part(bytes)? else {
        return Ok(Parsed::Incomplete { at_most: HEADER_MAX });
    };
    let Some(header) = bytes.get(..length) else { return Ok(Parsed::Incomplete { at_most: length }) };
    let addresses = match command {
        // "The receiver must accept this connection as valid and [...] discard the protocol block".
        Command::Local => None,
        Command::Proxy => read_block(header, family)?,
    };
    Ok(Parsed::Done { value: Proxied::new(Version::V2, addresses), consumed: length })
}

#[derive(Clone, Copy)]
enum Command {
    Local,
    Proxy,
}

#[derive(Clone, Copy)]
enum Family {
    /// The family or the transport is UNSPEC: what follows is not to be interpreted.
    Unspecified,
    Inet,
    Inet6,
    Unix,
}

/// Reads command, family and the whole header's length; each is refused as soon as its byte is there.
fn fixed_part(bytes: &[u8]) -> Result<Option<(Command, Family, usize)>, ProxyError> {
    let Some(&version_and_command) = bytes.get(12) else { return Ok(None) };
    let command = command(version_and_command)?;
    let Some(&family_and_transport) = bytes.get(13) else { return Ok(None) };
    let family = match command {
        // LOCAL: "discard the protocol block including the family which is ignored".
        Command::Local => Family::Unspecified,
        Command::Proxy => family(family_and_transport)?,
    };
    let Some(&[high, low]) = bytes.get(14..FIXED_LENGTH) else { return Ok(None) };
    let length = FIXED_LENGTH + usize::from(u16::from_be_bytes([high, low]));
    if length > HEADER_MAX {
        return Err(ProxyError::TooLong(length));
    }
    Ok(Some((command, family, length)))
}

fn command(byte: u8) -> Result<Command, ProxyError> {
    match (byte >> 4, byte & 0x0f) {
        (2, 0) => Ok(Command::Local),
        (2, 1) => Ok(Command::Proxy),
        (2, command) => Err(ProxyError::Command(command)),
        (version, _) => Err(ProxyError::UnknownVersion(version)),
    }
}

fn family(byte: u8) -> Result<Family, ProxyError> {
    match (byte >> 4, byte & 0x0f) {
        (0, 0..=2) | (1..=3, 0) => Ok(Family::Unspecified),
        (1, 1 | 2) => Ok(Family::Inet),
        (2, 1 | 2) => Ok(Family::Inet6),
        (3, 1 | 2) => Ok(Family::Unix),
        _ => Err(ProxyError::Family(byte)),
    }
}

/// Reads the addresses and checks the fields behind them.
fn read_block(header: &[u8], family: Family) -> Result<Addresses, ProxyError> {
    let mut block = Cursor::new(&header[FIXED_LENGTH..]);
    let addresses = match family {
        // The receiver cannot know where addresses end and fields begin, so neither is read.
        Family::Unspecified => return Ok(None),
        Family::Inet => Some(inet::<4>(&mut block).ok_or(ProxyError::AddressesCut)?),
        Family::Inet6 => Some(inet::<16>(&mut block).ok_or(ProxyError::AddressesCut)?),
        Family::Unix => {
            block.take(2 * 108).ok_or(ProxyError::AddressesCut)?;
            None
        }
    };
    check_fields(header, block.rest())?;
    Ok(addresses)
}

/// Both addresses, then both ports.
fn inet<const N: usize>(block: &mut Cursor<'_>) -> Option<(SocketAddr, SocketAddr)>
where
    IpAddr: From<[u8; N]>,
{
    let (source, destination) = (block.array::<N>()?, block.array::<N>()?);
    let (source_port, destination_port) = (block.u16()?, block.u16()?);
    Some((SocketAddr::new(source.into(), source_port), SocketAddr::new(destination.into(), destination_port)))
}

/// The type-length-value fields: bounds, and the checksum if one is there. Their values are not needed.
fn check_fields(header: &[u8], fields: &[u8]) -> Result<(), ProxyError> {
    /// PP2_TYPE_CRC32C (§2.2.3).
    const CRC32C: u8 = 0x03;
    let mut fields = Cursor::new(fields);
    let mut checksum = None;
    while !fields.is_empty() {
        let kind = fields.u8().ok_or(ProxyError::FieldCut)?;
        let value = fields.counted_u16().ok_or(ProxyError::FieldCut)?;
        if kind == CRC32C {
            let value: [u8; 4] = value.try_into().map_err(|_| ProxyError::ChecksumField)?;
            let end = header.len() - fields.remaining();
            if checksum.replace((end - value.len(), u32::from_be_bytes(value))).is_some() {
                return Err(ProxyError::ChecksumField);
            }
        }
    }
    match checksum {
        Some((at, stated)) if stated != checksum_of(header, at) => Err(ProxyError::Checksum),
        _ => Ok(()),
    }
}

/// The checksum over the header with the four bytes at `at`, where it is stored, taken as zero.
fn checksum_of(header: &[u8], at: usize) -> u32 {
    let (before, behind) = (&header[..at], &header[at + 4..]);
    crc32c(before.iter().chain(&[0; 4]).chain(behind))
}
