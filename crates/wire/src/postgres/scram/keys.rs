//! What is derived from a password.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use tieline_base::ScramVerifier;

/// How long a salt of ours is in bytes.
pub const SALT_BYTES: usize = 16;

/// Both keys that a password comes to with a salt. Who has them can log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Proves that the client knows the password.
    pub client_key: [u8; 32],
    /// Proves that the server knows the client.
    pub server_key: [u8; 32],
}

/// Derives the keys of `password` (RFC 5802 §3). Costly by intention: milliseconds, never to be spent where
/// connections are served.
pub fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Keys {
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, &prepared(password), &mut salted);
    let keys = Keys { client_key: hmac(&salted, b"Client Key"), server_key: hmac(&salted, b"Server Key") };
    wipe(&mut salted);
    keys
}

/// `password` in its normal form (SASLprep, RFC 4013); as it is where it has none, as PostgreSQL has it.
pub fn prepared(password: &[u8]) -> Vec<u8> {
    let normal = std::str::from_utf8(password).ok().and_then(|text| stringprep::saslprep(text).ok());
    normal.map_or_else(|| password.to_vec(), |text| text.into_owned().into_bytes())
}

impl Keys {
    /// What a server keeps of them.
    pub fn verifier(&self, salt: &[u8], iterations: NonZeroU32) -> ScramVerifier {
        ScramVerifier {
            iterations: iterations.get(),
            salt: salt.into(),
            stored_key: sha256(&self.client_key),
            server_key: self.server_key,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        wipe(&mut self.client_key);
        wipe(&mut self.server_key);
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// Overwrites `bytes`, so that they are not found in memory that is used again.
fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // Without it the writes are of no use to anybody, and left out.
    std::hint::black_box(bytes);
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

pub(super) fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut tag = [0; 32];
    tag.copy_from_slice(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref());
    tag
}

/// Each byte of `one` with its counterpart of `other`.
pub(super) fn xor(one: &[u8; 32], other: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|at| one[at] ^ other[at])
}

/// Compares in a time that tells nothing of where they differ.
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one, other).is_ok()
}
