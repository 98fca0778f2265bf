//! What is shown to a server to prove who we are.

use std::fmt;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::{hmac, rand};
use tieline_base::Secret;
use tieline_wire::postgres::scram::Keys;

/// What proves to servers who we are.
#[derive(Clone, Default)]
pub(crate) enum Credential {
    /// Nothing: a server trusts us, or our certificate.
    #[default]
    None,
    /// A password.
    Password(Secret),
    /// The MD5 of a password and a name, which is all that a server of that kind wants to see proved.
    Md5([u8; 16]),
    /// What a client proved to have. A server that keeps the same verifier as we do takes it from us.
    Keys {
        keys: Arc<Keys>,
        /// What the verifier was made with.
        iterations: u32,
        salt: Box<[u8]>,
    },
}

impl Credential {
    /// What tells it from every other one, and says nothing of it.
    pub(crate) fn key(&self) -> Blinded {
        let (kind, parts): (u8, [&[u8]; 2]) = match self {
            Credential::None => (0, [&[], &[]]),
            Credential::Password(password) => (1, [password.reveal().as_bytes(), &[]]),
            Credential::Md5(hash) => (2, [hash, &[]]),
            // Both keys of one password and salt: the salt and the iterations are in them.
            Credential::Keys { keys, .. } => (3, [&keys.client_key, &keys.server_key]),
        };
        blinded(&[&[kind], parts[0], parts[1]])
    }
}

/// Stands for secrets where they are looked up by, and outlive their use: what they were is not in it.
pub(crate) type Blinded = [u8; 32];

/// What stands for `parts` in this process.
pub(crate) fn blinded(parts: &[&[u8]]) -> Blinded {
    static KEY: LazyLock<hmac::Key> = LazyLock::new(|| {
        let mut own = [0; 32];
        rand::fill(&mut own).expect("the kernel has random bytes for whoever waits for them");
        hmac::Key::new(hmac::HMAC_SHA256, &own)
    });
    let mut tag = hmac::Context::with_key(&KEY);
    for part in parts {
        // Where one ends is part of what it is.
        tag.update(&(part.len() as u64).to_be_bytes());
        tag.update(part);
    }
    let mut blinded = Blinded::default();
    blinded.copy_from_slice(tag.sign().as_ref());
    blinded
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::None => "None",
            Credential::Password(_) => "Password(…)",
            Credential::Md5(_) => "Md5(…)",
            Credential::Keys { .. } => "Keys(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_secrets_tells_them_apart_and_shows_nothing() {
        let one = blinded(&[b"pencil", b"salt"]);
        assert_eq!(one, blinded(&[b"pencil", b"salt"]));
        for other in [&[&b"pencils"[..], b"alt"][..], &[b"pencil", b"salt", b""], &[b"pencilsalt"]] {
            assert_ne!(one, blinded(other), "{other:?}");
        }
        assert!(!one.windows(6).any(|bytes| bytes == b"pencil"));
    }
}
