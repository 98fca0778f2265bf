//! The names that TLS clients ask for.

use std::fmt;
use std::str::FromStr;

/// A name that a route takes, in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Sni {
    /// This name.
    Exact(String),
    /// Every name one label below this domain, as in certificates (RFC 9525 §6.3): `example.com` for
    /// `*.example.com`, which takes `a.example.com` and not `a.b.example.com`.
    Below(String),
}

/// Why a text is no server name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SniError {
    /// A star anywhere but alone in front.
    #[error("\"{0}\": a star stands only in front, for one label below a domain: \"*.example.com\"")]
    Star(String),
    /// An IP address, which RFC 6066 §3 forbids clients to ask for.
    #[error("\"{0}\" is an IP address; TLS clients ask for names, never for addresses")]
    Ip(String),
    /// Characters beyond those of host names.
    #[error(
        "\"{0}\" is no server name; letters, digits, hyphens and dots make one, others are written as xn--…"
    )]
    Name(String),
    /// A port, which no client sends.
    #[error("\"{0}\" has a port; clients ask for a name alone")]
    Port(String),
}

impl FromStr for Sni {
    type Err = SniError;

    fn from_str(text: &str) -> Result<Self, SniError> {
        let lower = text.to_ascii_lowercase();
        if let Some(domain) = lower.strip_prefix("*.").filter(|domain| is_server_name(domain)) {
            return Ok(Sni::Below(domain.into()));
        }
        if is_server_name(&lower) {
            return Ok(Sni::Exact(lower));
        }
        Err(why_not(text))
    }
}

/// RFC 6066 §3: a DNS host name in ASCII without a trailing dot, never an IP address.
fn is_server_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(label) && !numeric
}

fn why_not(text: &str) -> SniError {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if text.contains('*') {
        SniError::Star(text.into())
    } else if text.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() {
        SniError::Ip(text.into())
    } else if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && !host.contains(':') {
        SniError::Port(text.into())
    } else {
        SniError::Name(text.into())
    }
}

impl fmt::Display for Sni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sni::Exact(name) => f.write_str(name),
            Sni::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lowered_and_stars_stand_in_front() {
        assert_eq!("DB.Example.com".parse(), Ok(Sni::Exact("db.example.com".into())));
        assert_eq!("*.Example.com".parse(), Ok(Sni::Below("example.com".into())));
        for text in ["db.example.com", "*.example.com", "localhost", "xn--bcher-kva.example"] {
            assert_eq!(text.parse::<Sni>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let error = |text: &str| text.parse::<Sni>().unwrap_err();
        for text in ["*", "*.", "a.*.com", "*a.com", "*.*.com", "**.com"] {
            assert!(matches!(error(text), SniError::Star(_)), "{text}");
        }
        for text in ["10.0.0.1", "::1", "[::1]"] {
            assert!(matches!(error(text), SniError::Ip(_)), "{text}");
        }
        for text in ["", ".", "a.", "-a.b", "b\u{fc}cher.example", "a b", &"a.".repeat(200), "10.0.0.256"] {
            assert!(matches!(error(text), SniError::Name(_)), "{text}");
        }
        assert!(matches!(error("db.example.com:443"), SniError::Port(_)));
    }
}
