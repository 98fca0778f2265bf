//! What HTTP/1.1 asks of who opens a WebSocket, and HTTP/2 does not (RFC 6455 §4.1, RFC 8441 §5).

use std::fmt;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The key of one opening: 16 bytes that nobody has used before, in base64.
pub(super) struct Key([u8; KEY]);

const KEY: usize = 24;

impl Key {
    pub(super) fn new() -> Self {
        // RFC 6455 §1.3: it proves that both ends mean this opening; it is no secret.
        let random: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
        Key(base64(&random))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether `accept` is what only who has read this opening answers.
    pub(super) fn is_accepted_by(&self, accept: &[u8]) -> bool {
        const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[&self.0[..], GUID].concat());
        base64::<28>(hash.as_ref())[..] == *accept
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.escape_ascii().to_string())
    }
}

/// RFC 4648 §4, padded; `N` is the length of what comes out.
fn base64<const N: usize>(bytes: &[u8]) -> [u8; N] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = [b'='; N];
    for (three, four) in bytes.chunks(3).zip(text.chunks_mut(4)) {
        let at = |place: usize| u32::from(three.get(place).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for (place, digit) in four.iter_mut().take(three.len() + 1).enumerate() {
            *digit = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let key = Key(*b"dGhlIHNhbXBsZSBub25jZQ==");
        assert!(key.is_accepted_by(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!key.is_accepted_by(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOp="));
        assert!(!key.is_accepted_by(b""));
        assert_eq!(base64::<24>(b"the sample nonce"), key.0);
    }

    #[test]
    fn no_key_comes_twice() {
        assert_ne!(Key::new().as_bytes(), Key::new().as_bytes());
    }
}
