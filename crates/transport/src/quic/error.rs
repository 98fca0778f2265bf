use std::io;

use quinn::{ConnectError, ConnectionError};

/// Why a connection of QUIC did not come about.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// The peer closed midway.
    #[error("the peer closed during the handshake of QUIC")]
    Closed,
    /// Nothing more came of it.
    #[error("the peer fell silent during the handshake of QUIC")]
    Silent,
    /// The socket broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server has no address of the family that was asked for.
    #[error("the server has no address of this family")]
    NoAddress,
    /// The peer's certificate is refused, or it refused ours.
    #[error("a certificate is refused: {0}")]
    Certificate(String),
    /// The peer broke the protocol, or refused us.
    #[error("QUIC: {0}")]
    Protocol(String),
    /// TLS has no cipher for the first packets of QUIC.
    #[error("TLS is set up without the cipher that QUIC begins with")]
    NoCipher,
}

impl From<ConnectError> for QuicError {
    fn from(error: ConnectError) -> Self {
        QuicError::Protocol(error.to_string())
    }
}

impl From<ConnectionError> for QuicError {
    fn from(error: ConnectionError) -> Self {
        let code = match &error {
            ConnectionError::TransportError(error) => u64::from(error.code),
            ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
            ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed => {
                return QuicError::Closed;
            }
            ConnectionError::TimedOut | ConnectionError::Reset => return QuicError::Silent,
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => 0,
        };
        if is_about_certificates(code) {
            QuicError::Certificate(error.to_string())
        } else {
            QuicError::Protocol(error.to_string())
        }
    }
}

/// RFC 9001 §4.8: an alert of TLS is the error 0x0100 and its number; RFC 8446 §6: those from 42 to 49, and
/// 116, are about certificates.
fn is_about_certificates(code: u64) -> bool {
    matches!(code.checked_sub(0x100), Some(42..=49 | 116))
}
