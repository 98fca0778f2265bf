//! SHA-256, as links want it.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hmac;
use tieline_wire::tunnel::Hashing;

/// The process's one implementation.
pub(crate) struct Sha;

impl Hashing for Sha {
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut digest = Context::new(&SHA256);
        parts.iter().for_each(|part| digest.update(part));
        fixed(digest.finish().as_ref())
    }

    fn hmac_sha256(&self, key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        parts.iter().for_each(|part| mac.update(part));
        fixed(mac.sign().as_ref())
    }
}

fn fixed(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().expect("a SHA-256 has 32 bytes")
}

/// Random bytes of the kernel's, which nobody can guess.
pub(crate) fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // getrandom(2): up to 256 bytes come whole or not at all.
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}
