//! SCRAM-SHA-256, both roles (RFC 5802, RFC 7677), as PostgreSQL speaks it: the user's name is that of the
//! startup packet, and the one within the messages counts for nothing.
//!
//! Pure: nonces come from the caller, who must draw them anew for each exchange from a secure generator.
//! [`server::Exchange`] verifies a client without hashing its password; [`client::Exchange`] proves what
//! [`Keys`] were derived, which is the costly part, or what a client has proved to us.

pub mod client;
mod keys;
mod message;
pub mod server;

pub use keys::{Keys, SALT_BYTES, derive, prepared};

/// The name of the mechanism.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";

/// The same, bound to the TLS connection that carries it.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// The name of the one kind of binding that is known: the hash of the server's certificate (RFC 5929 §4).
const BINDING: &str = "tls-server-end-point";

/// The least that a password is hashed (RFC 7677 §4), and what PostgreSQL does.
pub const ITERATIONS: u32 = 4_096;

/// How many random bytes make a nonce.
pub const NONCE_BYTES: usize = 18;

/// The longest nonce in bytes, that of both sides together.
const NONCE_MAX: usize = 256;

/// Why an exchange failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScramError {
    /// A message is not what it should be.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// What is asked for is not spoken here.
    #[error("SCRAM: {0}")]
    Unsupported(&'static str),
    /// The messages are about another connection, or somebody took the binding out.
    #[error("SCRAM channel binding check failed")]
    Binding,
    /// The other side does not know the password.
    #[error("SCRAM: the proof is wrong")]
    Proof,
}

#[cfg(test)]
mod tests;
