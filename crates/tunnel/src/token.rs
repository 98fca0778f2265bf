//! What an agent redeems for its first certificate: 128 random bits, and the hash of the authority that the
//! server will show.

use data_encoding::BASE64URL_NOPAD;
use tieline_base::Secret;
use tieline_transport::tls::Fingerprint;

use crate::store::StoreError;

/// What an agent redeems for its first certificate, once.
pub struct Token {
    secret: [u8; SECRET_BYTES],
    /// The authority that the server will show.
    pub(crate) authority: Fingerprint,
}

/// Why a token is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is none.
    #[error("this is no token; `tieline agent token NAME` prints one")]
    Malformed,
    /// Nobody issued it, or it was redeemed.
    #[error("the token is unknown, or was used before; ask for a new one")]
    Unknown,
    /// It is no person's.
    #[error("this is no person's token; `tieline token create NAME` prints one")]
    NoPersons,
    /// Nobody issued it to a person, or it was revoked.
    #[error("the token is unknown, or was revoked; ask for a new one")]
    Revoked,
    /// The key that asks is of a kind that nobody here makes.
    #[error("the key of an agent is one of P-256 or Ed25519")]
    Key,
    /// Its time is over.
    #[error("the token has expired; ask for a new one")]
    Expired,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// 128 bits: nobody guesses one.
const SECRET_BYTES: usize = 16;

/// What stands before every token.
const PREFIX: &str = "tla1_";

impl Token {
    /// One of `secret`, for the server that will show `authority`.
    pub(crate) fn new(secret: [u8; SECRET_BYTES], authority: Fingerprint) -> Token {
        Token { secret, authority }
    }

    /// Its text, for the one who is to redeem it.
    pub fn text(&self) -> Secret {
        let mut bytes = self.secret.to_vec();
        bytes.extend_from_slice(&self.authority.0);
        Secret::new(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`TokenError::Malformed`].
    pub fn parse(text: &str) -> Result<Token, TokenError> {
        let bytes =
            text.trim().strip_prefix(PREFIX).and_then(|it| BASE64URL_NOPAD.decode(it.as_bytes()).ok());
        let bytes = bytes.ok_or(TokenError::Malformed)?;
        let (secret, authority) = bytes.split_first_chunk().ok_or(TokenError::Malformed)?;
        let authority = authority.try_into().map_err(|_| TokenError::Malformed)?;
        Ok(Token { secret: *secret, authority: Fingerprint(authority) })
    }

    /// What it is kept as: whoever reads that cannot redeem it.
    pub(crate) fn hash(&self) -> String {
        Fingerprint::of(&self.secret).to_string()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_was_printed_and_prints_itself_nowhere_else() {
        let token = Token::new([9; 16], Fingerprint([7; 32]));
        let again = Token::parse(token.text().reveal()).unwrap();
        assert_eq!((again.hash(), again.authority), (token.hash(), Fingerprint([7; 32])));
        assert_eq!(format!("{:?} {token:?}", token.text()), "Secret(…) Token(…)");
        for text in ["", "tla1_", "tla1_AAAA", "abc"] {
            assert!(matches!(Token::parse(text), Err(TokenError::Malformed)), "{text}");
        }
    }
}
