//! What HTTP/1.1 asks of who opens a WebSocket, and HTTP/2 does not (RFC 6455 §4.1, RFC 8441 §5).

use std::fmt;

use crate::websocket::{accept, base64};

/// The key of one opening: 16 bytes that nobody has used before, in base64.
pub(super) struct Key(String);

impl Key {
    pub(super) fn new() -> Self {
        // RFC 6455 §1.3: it proves that both ends mean this opening; it is no secret.
        let random: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
        Key(base64(&random))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether `accept` is what only who has read this opening answers.
    pub(super) fn is_accepted_by(&self, answer: &[u8]) -> bool {
        accept(self.as_bytes()).as_bytes() == answer
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let key = Key("dGhlIHNhbXBsZSBub25jZQ==".into());
        assert!(key.is_accepted_by(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(!key.is_accepted_by(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOp="));
        assert!(!key.is_accepted_by(b""));
        assert_eq!(base64(b"the sample nonce"), key.0);
    }

    #[test]
    fn no_key_comes_twice() {
        assert_ne!(Key::new().as_bytes(), Key::new().as_bytes());
    }
}
