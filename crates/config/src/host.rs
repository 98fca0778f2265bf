//! The hosts that HTTP clients ask for.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use tieline_base::is_host_name;

/// A host that a route takes, in lower case and without a port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HostPattern {
    /// This host: a name, `10.0.0.5`, or `[2001:db8::1]` as a `Host` field has it.
    Exact(String),
    /// Every name one label below this domain: `example.com` for `*.example.com`, which takes
    /// `a.example.com` and not `a.b.example.com`.
    Below(String),
}

/// Why a text is no host.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HostError {
    /// A star anywhere but alone in front.
    #[error("\"{0}\": a star stands only in front, for one label below a domain: \"*.example.com\"")]
    Star(String),
    /// A port: the same route serves every port that the listener has.
    #[error("\"{text}\" has a port, which no route looks at; write \"{host}\"")]
    Port {
        /// What was written.
        text: String,
        /// The same without its port.
        host: String,
    },
    /// A URL, or a host with a path.
    #[error("\"{text}\" is a URL; write the host alone, like \"{host}\"")]
    Url {
        /// What was written.
        text: String,
        /// The host in it.
        host: String,
    },
    /// An IPv6 address without its brackets.
    #[error("\"{0}\" stands in brackets in a URL; write \"[{0}]\"")]
    Brackets(Ipv6Addr),
    /// Characters beyond those of host names.
    #[error("\"{0}\" is no host; letters, digits, hyphens and dots make one, others are written as xn--…")]
    Name(String),
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Some(domain) = text.strip_prefix("*.").filter(|domain| is_name(domain)) {
            return Ok(HostPattern::Below(domain.to_ascii_lowercase()));
        }
        exact(text).map(HostPattern::Exact).ok_or_else(|| why_not(text))
    }
}

fn exact(text: &str) -> Option<String> {
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        // RFC 5952: an address has many spellings; one of them is compared.
        return Some(format!("[{}]", inner.parse::<Ipv6Addr>().ok()?));
    }
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => Some(ip.to_string()),
        Ok(IpAddr::V6(_)) => None,
        Err(_) => is_name(text).then(|| text.to_ascii_lowercase()),
    }
}

/// A name with a trailing dot is another spelling of the one without; one spelling is enough.
fn is_name(text: &str) -> bool {
    is_host_name(text) && !text.ends_with('.')
}

fn why_not(text: &str) -> HostError {
    let owned = || text.to_string();
    let after_scheme = text.split_once("://").map(|(_, rest)| rest);
    if after_scheme.is_some() || text.contains('/') {
        let host = after_scheme.unwrap_or(text).split(['/', ':']).next().unwrap_or_default();
        let host = if is_name(host) { host } else { "shop.example.com" };
        return HostError::Url { text: owned(), host: host.into() };
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return HostError::Brackets(ip);
    }
    match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() && host.parse::<HostPattern>().is_ok() => {
            HostError::Port { text: owned(), host: host.into() }
        }
        _ if text.contains('*') => HostError::Star(owned()),
        _ => HostError::Name(owned()),
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(host) => f.write_str(host),
            HostPattern::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lowered_and_addresses_have_one_spelling() {
        for (text, shown) in [
            ("Shop.Example.com", "shop.example.com"),
            ("*.Example.com", "*.example.com"),
            ("localhost", "localhost"),
            ("10.0.0.5", "10.0.0.5"),
            ("[2001:DB8:0:0::1]", "[2001:db8::1]"),
        ] {
            let host: HostPattern = text.parse().unwrap();
            assert_eq!(host.to_string(), shown);
            assert_eq!(shown.parse(), Ok(host));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let error = |text: &str| text.parse::<HostPattern>().unwrap_err();
        for text in ["*", "*.", "a.*.com", "*a.com", "*.*.com", "**.com"] {
            assert!(matches!(error(text), HostError::Star(_)), "{text}");
        }
        for text in ["", ".", "a.", "-a.b", "b\u{fc}cher.example", "a b", "10.0.0.256", "[::1", "*.10.0.0.1 "]
        {
            assert!(matches!(error(text), HostError::Name(_) | HostError::Star(_)), "{text}");
        }
        for text in ["shop.example.com:443", "[::1]:80", "*.example.com:1"] {
            assert!(matches!(error(text), HostError::Port { .. }), "{text}");
        }
        for text in ["https://shop.example.com/", "shop.example.com/api"] {
            assert!(
                matches!(error(text), HostError::Url { host, .. } if host == "shop.example.com"),
                "{text}"
            );
        }
        assert_eq!(error("::1"), HostError::Brackets(Ipv6Addr::LOCALHOST));
    }
}
