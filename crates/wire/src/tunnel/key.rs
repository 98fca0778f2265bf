//! The key of a link: how it comes about, how it changes with each carrier, and what is proved with it.
//!
//! Owns the labels and the order of what is hashed. Refuses to implement the hash: SHA-256 is an argument, so
//! that the one audited implementation of the process does the work.

use std::fmt;

use zeroize::Zeroize;

use super::frame::Mac;
use super::ids::{Epoch, LinkId};

/// SHA-256 and what is made of it.
pub trait Hashing {
    /// SHA-256 (FIPS 180-4) of `parts` in a row.
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32];

    /// HMAC-SHA256 (RFC 2104) of `parts` in a row.
    fn hmac_sha256(&self, key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32];
}

/// What TLS or QUIC exports for one carrier (RFC 9266, RFC 8446 §7.5): the same at both ends, and at no other
/// carrier. To be exported under labels of our own, and used for nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Exporter(pub [u8; 32]);

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(…)")
    }
}

/// The key of a link after some carrier. It lives in memory only, is overwritten when it goes, and shows
/// nothing of itself.
#[derive(Clone)]
pub struct Key([u8; 32]);

const KEY_LABEL: &[u8] = b"tieline rsl key v1";
const DIALER_LABEL: &[u8] = b"resume c";
const ACCEPTOR_LABEL: &[u8] = b"resume s";

impl Key {
    /// The key of a new link, from its first carrier.
    pub fn first(hashing: &impl Hashing, exporter: &Exporter) -> Key {
        Key::expand(hashing, &[0; 32], exporter)
    }

    /// The key after the next carrier. Whoever learns it cannot go back to this one.
    pub(super) fn next(&self, hashing: &impl Hashing, exporter: &Exporter) -> Key {
        Key::expand(hashing, &self.0, exporter)
    }

    /// HKDF-SHA256 (RFC 5869) with one block of output.
    fn expand(hashing: &impl Hashing, salt: &[u8; 32], exporter: &Exporter) -> Key {
        let mut extracted = hashing.hmac_sha256(salt, &[&exporter.0]);
        let key = Key(hashing.hmac_sha256(&extracted, &[KEY_LABEL, &[1]]));
        extracted.zeroize();
        key
    }

    /// The dialer's proof for a RESUME.
    pub(super) fn mac_of_dialer(&self, hashing: &impl Hashing, said: &Said<'_>) -> Mac {
        self.mac(hashing, DIALER_LABEL, said, &[])
    }

    /// The acceptor's proof for a RESUMED: it covers the dialer's, so that it answers this RESUME and no
    /// other. The labels differ, so that neither can be sent back as the other.
    pub(super) fn mac_of_acceptor(&self, hashing: &impl Hashing, said: &Said<'_>, dialer: &Mac) -> Mac {
        self.mac(hashing, ACCEPTOR_LABEL, said, &dialer.0)
    }

    fn mac(&self, hashing: &impl Hashing, label: &[u8], said: &Said<'_>, before: &[u8]) -> Mac {
        let table = hashing.sha256(&[said.table]);
        let epoch = said.epoch.0.to_be_bytes();
        Mac(hashing.hmac_sha256(&self.0, &[label, &said.link.0, &epoch, &said.exporter.0, &table, before]))
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What a RESUME or RESUMED says, and on which carrier.
pub(super) struct Said<'a> {
    pub(super) link: LinkId,
    pub(super) epoch: Epoch,
    pub(super) exporter: &'a Exporter,
    pub(super) table: &'a [u8],
}

/// The keys that an end of a link accepts. Between RESUMED and the first frame behind it the acceptor cannot
/// know whether RESUMED arrived, so it accepts both: if it rotated alone, it would lock the dialer out.
#[derive(Debug)]
pub(super) struct Keys {
    confirmed: Key,
    pending: Option<Key>,
}

impl Keys {
    pub(super) fn new(first: Key) -> Self {
        Self { confirmed: first, pending: None }
    }

    /// The key that both ends are known to have.
    pub(super) fn confirmed(&self) -> &Key {
        &self.confirmed
    }

    /// Which key the dialer proved with `mac`, if any.
    pub(super) fn proved(&self, hashing: &impl Hashing, said: &Said<'_>, mac: &Mac) -> Option<Proved> {
        let by = |key: &Key| key.mac_of_dialer(hashing, said) == *mac;
        // Both are tried, whichever fits: the time says nothing.
        let (confirmed, pending) = (by(&self.confirmed), self.pending.as_ref().is_some_and(by));
        match (confirmed, pending) {
            (true, _) => Some(Proved::Confirmed),
            (false, true) => Some(Proved::Pending),
            (false, false) => None,
        }
    }

    pub(super) fn of(&self, proved: Proved) -> &Key {
        match (proved, &self.pending) {
            (Proved::Pending, Some(pending)) => pending,
            _ => &self.confirmed,
        }
    }

    /// The dialer has proved a key and is being told so: the next one is pending.
    pub(super) fn rotate(&mut self, proved: Proved, next: Key) {
        if let (Proved::Pending, Some(pending)) = (proved, self.pending.take()) {
            self.confirmed = pending;
        }
        self.pending = Some(next);
    }

    /// The peer has shown that it has the pending key.
    pub(super) fn confirm(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.confirmed = pending;
        }
    }

    /// The peer has proved that it has `next`.
    pub(super) fn replace(&mut self, next: Key) {
        *self = Keys::new(next);
    }
}

/// Which of [`Keys`] a MAC was made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Proved {
    Confirmed,
    Pending,
}
