//! The first bytes of a connection: is it TLS, and which server does it ask for?
//!
//! Reads a ClientHello without taking part in the handshake (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2), so that a
//! connection can be routed by its server name and passed through untouched. Encrypted ClientHello (RFC 9849)
//! shows its outer name here, as it is meant to.

mod client_hello;
mod record;

use crate::Parsed;

/// The most bytes that are read in search of a whole ClientHello, record headers counted. Real ones take 200
/// to 2,000 bytes; with large post-quantum key shares some 10,000.
pub const HELLO_MAX: usize = 64 * 1024;

/// What a connection starts with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hello {
    /// Something else than TLS.
    NotTls,
    /// A whole ClientHello.
    Tls(ClientHello),
}

/// What a client says about itself before anything is encrypted. None of it is proved.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientHello {
    /// The server asked for (RFC 6066 §3): a valid host name in lower case, without a dot at its end.
    pub server_name: Option<String>,
    /// The application protocols offered (RFC 7301 §3.1), the preferred one first.
    pub alpn: Vec<Vec<u8>>,
}

/// Why bytes that begin as TLS are no ClientHello.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HelloError {
    /// A record that carries no handshake, before the ClientHello was whole.
    #[error("TLS record of type {0} where the ClientHello should be")]
    RecordType(u8),
    /// An empty record or one of more than 2^14 bytes (RFC 8446 §5.1).
    #[error("TLS record of {0} bytes, 1 to 16384 are allowed")]
    RecordLength(usize),
    /// A ClientHello cut into more records than any honest client makes.
    #[error("ClientHello in more than {} records", record::RECORDS_MAX)]
    TooManyRecords,
    /// Another handshake message.
    #[error("TLS handshake starts with message type {0}, not with a ClientHello")]
    MessageType(u8),
    /// Above [`HELLO_MAX`].
    #[error("ClientHello is longer than {HELLO_MAX} bytes")]
    TooLong,
    /// The record that ends the ClientHello goes on behind it, which no client may do before it has an
    /// answer.
    #[error("bytes behind the ClientHello in its record")]
    TrailingBytes,
    /// A length inside that does not fit, or a vector shorter than the RFC allows.
    #[error("ClientHello is malformed")]
    Malformed,
    /// Two extensions of one type (RFC 8446 §4.2) or two names of one kind (RFC 6066 §3).
    #[error("ClientHello states its server name or its protocols twice")]
    Duplicate,
    /// The server name is no host name: an IP literal, a NUL, an empty label.
    #[error("ClientHello asks for a server name that is no host name")]
    ServerName,
}

/// Reads the start of a connection. Nothing is taken: whoever answers it needs the same bytes again;
/// `consumed` says how many the ClientHello spans, records and all, and is 0 for [`Hello::NotTls`].
///
/// # Errors
/// [`HelloError`] when the bytes begin as TLS does (0x16 0x03) and then break its rules.
pub fn parse(bytes: &[u8]) -> Result<Parsed<Hello>, HelloError> {
    match bytes {
        // RFC 8446 §5.1: content type handshake, then a version whose major part has been 3 since SSL 3.0.
        [] | [0x16] => return Ok(Parsed::Incomplete { at_most: HELLO_MAX }),
        [0x16, 0x03, ..] => {}
        _ => return Ok(Parsed::Done { value: Hello::NotTls, consumed: 0 }),
    }
    let Some(message) = record::join(bytes)? else {
        return Ok(Parsed::Incomplete { at_most: HELLO_MAX });
    };
    let hello = client_hello::parse(&message.body)?;
    Ok(Parsed::Done { value: Hello::Tls(hello), consumed: message.consumed })
}

#[cfg(test)]
mod tests;
