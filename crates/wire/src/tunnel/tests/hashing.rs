//! SHA-256, as the process would pass it in.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hmac;

use crate::tunnel::{Exporter, Hashing, Key};

pub(super) struct Sha;

impl Hashing for Sha {
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut digest = Context::new(&SHA256);
        parts.iter().for_each(|part| digest.update(part));
        digest.finish().as_ref().try_into().unwrap()
    }

    fn hmac_sha256(&self, key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        parts.iter().for_each(|part| mac.update(part));
        mac.sign().as_ref().try_into().unwrap()
    }
}

/// The key of a link whose first carrier exported `bytes`.
pub(super) fn key(bytes: u8) -> Key {
    Key::first(&Sha, &Exporter([bytes; 32]))
}
