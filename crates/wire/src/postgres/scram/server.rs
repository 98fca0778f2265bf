//! The server's role: a client proves that it knows the password.

use data_encoding::BASE64;
use tieline_base::ScramVerifier;

use super::keys::{Keys, hmac, same, sha256, xor};
use super::message::{Attributes, key, nonce, text};
use super::{BINDING, NONCE_BYTES, NONCE_MAX, ScramError};

/// What the connection that carries the exchange could be bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel<'a> {
    /// Nothing: it has no TLS, or a certificate that cannot be bound to. The mechanism with binding was not
    /// offered.
    Unbound,
    /// This hash of our certificate (RFC 5929 §4). The mechanism with binding was offered.
    Bindable(&'a [u8]),
}

/// An exchange whose client has said who it would like to be, and was answered.
#[derive(Debug)]
pub struct Exchange {
    /// `r=…`: both nonces.
    nonce: String,
    /// What `c=` must be.
    binding: String,
    /// The messages so far, in the form in which both sides sign them.
    signed: String,
    verifier: ScramVerifier,
}

/// A client that knows the password.
#[derive(Debug)]
pub struct Proved {
    /// What it proved to have: with it one can log in where the same verifier is kept.
    pub keys: Keys,
    /// The last message, which proves to the client that we know it.
    pub last: String,
}

impl Exchange {
    /// Answers the client's first message, by the mechanism with binding if `bound`. `own` is drawn anew for
    /// each exchange.
    ///
    /// # Errors
    /// [`ScramError`]: the exchange is over.
    pub fn begin(
        first: &[u8],
        bound: bool,
        channel: Channel<'_>,
        verifier: ScramVerifier,
        own: &[u8; NONCE_BYTES],
    ) -> Result<(Exchange, String), ScramError> {
        let first = text(first)?;
        let (header, bare) = split_header(first)?;
        let binding = expected_binding(header, bound, channel)?;
        // A mandatory extension would stand in front, and be no name.
        let mut attributes = Attributes::of(bare);
        attributes.take('n', "no user name")?;
        let theirs = nonce(attributes.take('r', "no nonce")?)?;
        let nonce = format!("{theirs}{}", BASE64.encode(own));
        if nonce.len() > NONCE_MAX {
            return Err(ScramError::Malformed("no sound nonce"));
        }
        let answer = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        let signed = format!("{bare},{answer}");
        Ok((Exchange { nonce, binding, signed, verifier }, answer))
    }

    /// Judges the client's last message.
    ///
    /// # Errors
    /// [`ScramError`]: it does not know the password, or the exchange is not what it should be.
    pub fn finish(self, last: &[u8]) -> Result<Proved, ScramError> {
        let last = text(last)?;
        // RFC 5802 §7: the proof is the last attribute, and what stands before it is what it is made of.
        let (before, proof) = last.rsplit_once(",p=").ok_or(ScramError::Malformed("no proof"))?;
        let mut attributes = Attributes::of(before);
        let binding = attributes.take('c', "no channel binding")?;
        let theirs = attributes.take('r', "no nonce")?;
        let proof = key(proof, "the proof")?;
        if binding != self.binding {
            return Err(ScramError::Binding);
        }
        if theirs != self.nonce {
            return Err(ScramError::Malformed("the nonce is another one"));
        }
        let signed = format!("{},{before}", self.signed);
        let client_key = xor(&proof, &hmac(&self.verifier.stored_key, signed.as_bytes()));
        if !same(&sha256(&client_key), &self.verifier.stored_key) {
            return Err(ScramError::Proof);
        }
        let signature = hmac(&self.verifier.server_key, signed.as_bytes());
        let keys = Keys { client_key, server_key: self.verifier.server_key };
        Ok(Proved { keys, last: format!("v={}", BASE64.encode(&signature)) })
    }
}

/// The header of GSS-API, with the comma that ends it, and what stands behind it (RFC 5801 §4).
fn split_header(first: &str) -> Result<(&str, &str), ScramError> {
    let mut commas = first.match_indices(',').map(|(at, _)| at + 1);
    let end = commas.nth(1).ok_or(ScramError::Malformed("no header"))?;
    Ok(first.split_at(end))
}

/// What the client must repeat in its last message, so that nobody in between can have changed its header.
fn expected_binding(header: &str, bound: bool, channel: Channel<'_>) -> Result<String, ScramError> {
    let (flag, rest) = header.split_once(',').ok_or(ScramError::Malformed("no header"))?;
    if rest != "," {
        return Err(ScramError::Unsupported("a name to act as is not supported"));
    }
    let data: &[u8] = match (flag, bound, channel) {
        ("n", false, _) | ("y", false, Channel::Unbound) => &[],
        // It can bind and thinks that we cannot, though we said so: somebody took it out of what we said.
        ("y", false, Channel::Bindable(_)) => return Err(ScramError::Binding),
        ("n" | "y", true, _) => return Err(ScramError::Malformed("a mechanism with binding, and none")),
        (flag, true, Channel::Bindable(hash)) if flag.strip_prefix("p=") == Some(BINDING) => hash,
        (flag, true, _) if flag.starts_with("p=") => {
            return Err(ScramError::Unsupported("this kind of channel binding is not supported"));
        }
        _ => return Err(ScramError::Malformed("a binding where there is none")),
    };
    Ok(BASE64.encode(&[header.as_bytes(), data].concat()))
}
