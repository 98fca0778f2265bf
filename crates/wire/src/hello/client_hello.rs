//! The message itself: RFC 8446 §4.1.2.

use tieline_base::is_host_name;

use super::{ClientHello, HelloError};
use crate::cursor::Cursor;

/// RFC 6066 §3.
const SERVER_NAME: u16 = 0;
/// RFC 7301 §3.1.
const ALPN: u16 = 16;

pub(super) fn parse(body: &[u8]) -> Result<ClientHello, HelloError> {
    let mut hello = ClientHello::default();
    let mut extensions = Cursor::new(extensions(body).ok_or(HelloError::Malformed)?);
    let (mut named, mut negotiated) = (false, false);
    while !extensions.is_empty() {
        let kind = extensions.u16().ok_or(HelloError::Malformed)?;
        let content = extensions.counted_u16().ok_or(HelloError::Malformed)?;
        // All others are nobody's business here, the random ones of GREASE (RFC 8701) too.
        match kind {
            SERVER_NAME if std::mem::replace(&mut named, true) => return Err(HelloError::Duplicate),
            SERVER_NAME => hello.server_name = server_name(content)?,
            ALPN if std::mem::replace(&mut negotiated, true) => return Err(HelloError::Duplicate),
            ALPN => hello.alpn = protocols(content).ok_or(HelloError::Malformed)?,
            _ => {}
        }
    }
    Ok(hello)
}

/// The extensions behind the fixed part, empty for a client of old that has none (RFC 5246 §7.4.1.2).
fn extensions(body: &[u8]) -> Option<&[u8]> {
    let mut body = Cursor::new(body);
    body.take(2 + 32)?; // legacy_version, random
    let session_id = body.counted_u8()?;
    let cipher_suites = body.counted_u16()?;
    let compression_methods = body.counted_u8()?;
    let right = session_id.len() <= 32
        && cipher_suites.len() >= 2
        && cipher_suites.len().is_multiple_of(2)
        && !compression_methods.is_empty();
    if !right {
        return None;
    }
    if body.is_empty() {
        return Some(&[]);
    }
    let extensions = body.counted_u16()?;
    body.is_empty().then_some(extensions)
}

/// Reads a ServerNameList.
fn server_name(content: &[u8]) -> Result<Option<String>, HelloError> {
    /// The one name type there is.
    const HOST_NAME: u8 = 0;
    let mut content = Cursor::new(content);
    let list = content.counted_u16().filter(|list| !list.is_empty()).ok_or(HelloError::Malformed)?;
    if !content.is_empty() {
        return Err(HelloError::Malformed);
    }
    let mut list = Cursor::new(list);
    let mut found = None;
    while !list.is_empty() {
        let kind = list.u8().ok_or(HelloError::Malformed)?;
        // RFC 6066 §3: other types, should there ever be any, start with a length too.
        let name = list.counted_u16().ok_or(HelloError::Malformed)?;
        if kind == HOST_NAME && found.replace(host_name(name)?).is_some() {
            return Err(HelloError::Duplicate);
        }
    }
    Ok(found)
}

/// RFC 6066 §3: ASCII, no dot at the end, and "literal IPv4 and IPv6 addresses are not permitted".
fn host_name(bytes: &[u8]) -> Result<String, HelloError> {
    let name = str::from_utf8(bytes).map_err(|_| HelloError::ServerName)?;
    let right = is_host_name(name) && !name.ends_with('.');
    right.then(|| name.to_ascii_lowercase()).ok_or(HelloError::ServerName)
}

/// Reads a ProtocolNameList: not empty, and no name in it is.
fn protocols(content: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut content = Cursor::new(content);
    let mut list = Cursor::new(content.counted_u16().filter(|list| !list.is_empty())?);
    let mut names = Vec::new();
    while !list.is_empty() {
        names.push(list.counted_u8().filter(|name| !name.is_empty())?.to_vec());
    }
    content.is_empty().then_some(names)
}
