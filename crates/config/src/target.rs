//! Where a redirect leads: `https://{host}{path}`.

use std::fmt;
use std::str::FromStr;

/// The URL that a redirect names, with room for parts of the request.
///
/// Whatever is asked for, the request decides about the host only where `{host}` stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    /// What it is made of, in this order; one part at least, never two texts in a row.
    pub parts: Vec<Part>,
}

/// One part of a [`Target`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Part {
    /// This text.
    Text(String),
    /// The host that was asked for, without its port.
    Host,
    /// The path that was asked for, as it was written; it begins with a slash.
    Path,
    /// The query that was asked for with the question mark before it; nothing if there is none.
    Query,
}

/// Why a text is no target.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TargetError {
    /// Neither `http://`, `https://` nor a path.
    #[error("\"{0}\" begins with none of \"https://\", \"http://\" and \"/\"")]
    Start(String),
    /// A part of the request that there is not.
    #[error("\"{0}\" has \"{1}\"; there are {{host}}, {{path}} and {{query}}")]
    Placeholder(String, String),
    /// A space, a control character, or one that is percent-encoded in URLs.
    #[error("\"{0}\" has a character that is percent-encoded in a URL, like %20 for a space")]
    Character(String),
    /// No host, or one that the path of a request would make.
    #[error("\"{0}\" has no host behind its slashes, so a request could name one by its path")]
    Host(String),
    /// A question mark before `{query}`.
    #[error("\"{0}\" has \"?\" before {{query}}, which brings its own")]
    Question(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if !text.chars().all(|c| c.is_ascii_graphic() && !"\"<>\\^`|".contains(c)) {
            return Err(TargetError::Character(text.into()));
        }
        if text.contains("?{query}") {
            return Err(TargetError::Question(text.into()));
        }
        let parts = parts(text)?;
        let scheme = ["https://", "http://"].into_iter().find_map(|scheme| text.strip_prefix(scheme));
        match scheme {
            Some(rest) if !begins_with_a_host(rest) => Err(TargetError::Host(text.into())),
            Some(_) => Ok(Self { parts }),
            None if !text.starts_with('/') => Err(TargetError::Start(text.into())),
            // RFC 3986 §4.2: two slashes in front are followed by a host, and `{path}` begins with one.
            None if text.starts_with("//") || text.starts_with("/{") => Err(TargetError::Host(text.into())),
            None => Ok(Self { parts }),
        }
    }
}

/// Whether `rest`, behind the scheme, begins with a host that ends where it should: before a port, a slash or
/// a part that begins with one.
fn begins_with_a_host(rest: &str) -> bool {
    let behind = match rest.strip_prefix("{host}") {
        Some(behind) => behind,
        None => {
            let end = rest.find(|c: char| ":/?#{".contains(c)).filter(|_| !rest.starts_with('['));
            let end = end.unwrap_or_else(|| rest.find(']').map_or(rest.len(), |at| at + 1));
            let (host, behind) = rest.split_at(end);
            if !matches!(host.parse(), Ok(crate::host::HostPattern::Exact(_))) {
                return false;
            }
            behind
        }
    };
    let behind = match behind.strip_prefix(':') {
        Some(port) => {
            let end = port.find(|c: char| !c.is_ascii_digit()).unwrap_or(port.len());
            if !port[..end].parse::<u16>().is_ok_and(|port| port > 0) {
                return false;
            }
            &port[end..]
        }
        None => behind,
    };
    let next = ["/", "?", "#", "{path}", "{query}"];
    behind.is_empty() || next.iter().any(|next| behind.starts_with(next))
}

fn parts(text: &str) -> Result<Vec<Part>, TargetError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let plain = rest.find(['{', '}']).unwrap_or(rest.len());
        if plain > 0 {
            parts.push(Part::Text(rest[..plain].into()));
            rest = &rest[plain..];
            continue;
        }
        let end = rest.find('}').map_or(rest.len(), |at| at + 1);
        parts.push(match &rest[..end] {
            "{host}" => Part::Host,
            "{path}" => Part::Path,
            "{query}" => Part::Query,
            other => return Err(TargetError::Placeholder(text.into(), other.into())),
        });
        rest = &rest[end..];
    }
    Ok(parts)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| write!(f, "{part}"))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Text(text) => text,
            Part::Host => "{host}",
            Part::Path => "{path}",
            Part::Query => "{query}",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_its_parts_and_gives_its_text_back() {
        let target: Target = "https://{host}{path}{query}".parse().unwrap();
        assert_eq!(target.parts, [Part::Text("https://".into()), Part::Host, Part::Path, Part::Query]);
        for text in [
            "https://{host}{path}",
            "https://{host}:8443{path}{query}",
            "https://www.example.com",
            "http://[::1]:80/a?from={host}",
            "https://example.com{path}",
            "/new{path}",
            "/",
            "/login?next={path}",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn no_request_names_the_host_where_it_should_not() {
        for text in [
            "https://{path}",
            "https://",
            "https:///a",
            "https://example.com.{host}",
            "https://{host}.example.com",
            "https://{host}{host}",
            "https://user@example.com/",
            "https://{host}:{path}",
            "https://{host}:99999/",
            "https://*.example.com/",
            "https://[::1",
            "//{host}{path}",
            "//example.com",
            "/{path}",
        ] {
            assert_eq!(text.parse::<Target>(), Err(TargetError::Host(text.into())), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let error = |text: &str| text.parse::<Target>().unwrap_err();
        for text in ["", "{path}", "www.example.com", "ftp://example.com", "HTTPS://example.com"] {
            assert!(matches!(error(text), TargetError::Start(_)), "{text}");
        }
        for text in ["/{port}", "/{", "/}", "/{host", "https://{Host}/"] {
            assert!(matches!(error(text), TargetError::Placeholder(..)), "{text}");
        }
        for text in ["/a b", "/\r\nSet-Cookie:a", "/\u{fc}", "/\\"] {
            assert!(matches!(error(text), TargetError::Character(_)), "{text}");
        }
        assert!(matches!(error("https://{host}{path}?{query}"), TargetError::Question(_)));
    }
}
