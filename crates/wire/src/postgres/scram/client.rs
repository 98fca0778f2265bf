//! The client's role: we prove to a server that we know the password.

use std::num::NonZeroU32;

use data_encoding::BASE64;
use tieline_base::{SCRAM_ITERATIONS_MAX, SCRAM_SALT_MAX};

use super::keys::{Keys, hmac, same, sha256, xor};
use super::message::{Attributes, base64, key, nonce, text};
use super::{BINDING, NONCE_BYTES, ScramError};

/// What we bind the exchange to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel<'a> {
    /// Nothing, and we could not: there is no TLS.
    Unable,
    /// Nothing, because the server does not offer it, though we could. It will notice if it did.
    NotOffered,
    /// This hash of the server's certificate (RFC 5929 §4), by the mechanism with binding.
    Bound(&'a [u8]),
}

/// An exchange that was begun.
#[derive(Debug)]
pub struct Exchange {
    own: String,
    /// What `c=` will be.
    binding: String,
    bare: String,
}

/// What the server wants to have proved.
#[derive(Debug)]
pub struct Challenge {
    /// What the password is to be hashed with: at most [`SCRAM_SALT_MAX`] bytes.
    pub salt: Vec<u8>,
    /// How often: at most [`SCRAM_ITERATIONS_MAX`].
    pub iterations: NonZeroU32,
    before: String,
    signed: String,
}

/// An exchange whose server has yet to prove that it knows us.
#[derive(Debug)]
pub struct Unverified {
    signature: [u8; 32],
}

impl Exchange {
    /// Begins: the exchange, and our first message. `own` is drawn anew for each exchange.
    pub fn begin(channel: Channel<'_>, own: &[u8; NONCE_BYTES]) -> (Exchange, String) {
        let (flag, data): (String, &[u8]) = match channel {
            Channel::Unable => ("n".into(), &[]),
            Channel::NotOffered => ("y".into(), &[]),
            Channel::Bound(hash) => (format!("p={BINDING}"), hash),
        };
        let (header, own) = (format!("{flag},,"), BASE64.encode(own));
        let bare = format!("n=,r={own}");
        let first = format!("{header}{bare}");
        let binding = BASE64.encode(&[header.as_bytes(), data].concat());
        (Exchange { own, binding, bare }, first)
    }

    /// Reads the server's first message.
    ///
    /// # Errors
    /// [`ScramError`]: it is not what it should be, or asks for more than is sound.
    pub fn hear(self, first: &[u8]) -> Result<Challenge, ScramError> {
        let first = text(first)?;
        let mut attributes = Attributes::of(first);
        let both = nonce(attributes.take('r', "no nonce")?)?;
        let salt = base64(attributes.take('s', "no salt")?, "the salt")?;
        let iterations = attributes.take('i', "no iterations")?;
        if !both.starts_with(&self.own) || both.len() == self.own.len() {
            return Err(ScramError::Malformed("the nonce does not go on from ours"));
        }
        if !(1..=SCRAM_SALT_MAX).contains(&salt.len()) {
            return Err(ScramError::Malformed("the salt"));
        }
        // A hostile server would have us hash for hours.
        let sound = |count: &NonZeroU32| count.get() <= SCRAM_ITERATIONS_MAX;
        let iterations = iterations.parse().ok().filter(sound);
        let iterations = iterations.ok_or(ScramError::Malformed("the iterations"))?;
        let before = format!("c={},r={both}", self.binding);
        let signed = format!("{},{first},{before}", self.bare);
        Ok(Challenge { salt, iterations, before, signed })
    }
}

impl Challenge {
    /// Proves it by `keys`: what the server has yet to prove, and our last message.
    pub fn prove(self, keys: &Keys) -> (Unverified, String) {
        let stored_key = sha256(&keys.client_key);
        let proof = xor(&keys.client_key, &hmac(&stored_key, self.signed.as_bytes()));
        let last = format!("{},p={}", self.before, BASE64.encode(&proof));
        (Unverified { signature: hmac(&keys.server_key, self.signed.as_bytes()) }, last)
    }
}

impl Unverified {
    /// Reads the server's last message.
    ///
    /// # Errors
    /// [`ScramError::Proof`] if it does not know us; nothing it says may be believed then.
    pub fn verify(self, last: &[u8]) -> Result<(), ScramError> {
        let last = text(last)?;
        if last.starts_with("e=") {
            return Err(ScramError::Proof);
        }
        let signature = key(Attributes::of(last).take('v', "no signature")?, "the signature")?;
        if same(&signature, &self.signature) { Ok(()) } else { Err(ScramError::Proof) }
    }
}
