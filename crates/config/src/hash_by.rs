//! By what a choice is the same again: `remote`, `sni`, `header:x-user`, `cookie:sid`.

use std::fmt;
use std::str::FromStr;

use crate::http_match::is_token;

/// By what a choice among endpoints or upstreams is the same again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum HashBy {
    /// The client's IP address.
    Remote,
    /// The name that a TLS client asks for; clients that ask for none count as one.
    Sni,
    /// The field of this name, in lower case; the client's IP address where a request has none.
    Header(String),
    /// The cookie of this name; the client's IP address where a request has none.
    Cookie(String),
}

/// Why a text says nothing that a choice could go by.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HashByError {
    /// Another word.
    #[error("\"{0}\" is none of \"remote\", \"sni\", \"header:NAME\" and \"cookie:NAME\"")]
    Word(String),
    /// No name, or one that no field and no cookie has.
    #[error("\"{0}\" has no name behind the colon that a header or cookie can have")]
    Name(String),
}

impl FromStr for HashBy {
    type Err = HashByError;

    fn from_str(text: &str) -> Result<Self, HashByError> {
        let by = match text.split_once(':') {
            None if text == "remote" => return Ok(HashBy::Remote),
            None if text == "sni" => return Ok(HashBy::Sni),
            Some(("header", name)) => HashBy::Header(name.to_ascii_lowercase()),
            Some(("cookie", name)) => HashBy::Cookie(name.into()),
            _ => return Err(HashByError::Word(text.into())),
        };
        match &by {
            HashBy::Header(name) | HashBy::Cookie(name) if !is_token(name) => {
                Err(HashByError::Name(text.into()))
            }
            _ => Ok(by),
        }
    }
}

impl HashBy {
    /// Whether only a request of HTTP has it.
    pub fn is_of_requests(&self) -> bool {
        matches!(self, HashBy::Header(_) | HashBy::Cookie(_))
    }
}

impl fmt::Display for HashBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashBy::Remote => f.write_str("remote"),
            HashBy::Sni => f.write_str("sni"),
            HashBy::Header(name) => write!(f, "header:{name}"),
            HashBy::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_the_same() {
        for text in ["remote", "sni", "header:x-user", "cookie:SID"] {
            assert_eq!(text.parse::<HashBy>().unwrap().to_string(), text);
        }
        assert_eq!("header:X-User".parse(), Ok(HashBy::Header("x-user".into())));
        for text in ["", "Remote", "ip", "header", "header:", "cookie:a b", "path:/"] {
            assert!(text.parse::<HashBy>().is_err(), "{text}");
        }
    }
}
