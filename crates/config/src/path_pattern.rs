//! The paths that routes take: `/api`, `= /healthz`, `/users/{id}/orders`.

use std::fmt;
use std::str::FromStr;

/// The paths that a route takes.
///
/// Segments are compared one by one, never letter by letter: `/api` takes `/api` and `/api/users`, and not
/// `/apis`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct PathPattern {
    /// Whether it takes this path alone; else whatever begins with its segments as well.
    pub exact: bool,
    /// What stands between the slashes; none for `/`. An exact path that ends with a slash has an empty last
    /// segment, and no other has an empty one.
    pub segments: Vec<Segment>,
}

/// One segment of a path.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Segment {
    /// This one, after percent-decoding: with a space where the file has `%20`.
    Literal(String),
    /// Any one that is not empty; it bears this name.
    Any(String),
}

/// Why a text is no pattern of paths.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathError {
    /// No slash in front.
    #[error("\"{0}\" does not begin with a slash; write \"/{0}\"")]
    Slash(String),
    /// A slash with nothing before the next one.
    #[error("\"{0}\" has an empty segment; write each slash once")]
    Empty(String),
    /// A slash at the end of a prefix.
    #[error("\"{0}\" is a prefix, with a slash at its end or without; write \"{1}\"")]
    Trailing(String, String),
    /// A query or a fragment.
    #[error("\"{0}\" has more than a path; `query` tells routes apart by what follows a question mark")]
    Query(String),
    /// `.` or `..`.
    #[error("\"{0}\" has the segment \"{1}\", which no request has: such requests are refused")]
    Dots(String, String),
    /// A star for "anything".
    #[error("\"{0}\" has a star; a path takes what is below it anyway, and \"{{name}}\" is any one segment")]
    Star(String),
    /// Braces that are not the whole of a segment, or hold no name.
    #[error("\"{0}\": \"{1}\" is no whole segment with a name in braces, like \"{{id}}\"")]
    Braces(String, String),
    /// One name for two segments.
    #[error("\"{0}\" has two segments called \"{1}\"")]
    Twice(String, String),
    /// A character that is percent-encoded and need not be, or must be and is not, or with small letters.
    #[error("\"{0}\" has \"{1}\", which is written \"{2}\"")]
    Encoding(String, String, String),
    /// A semicolon, an encoded slash, backslash or NUL, half an encoding, or one of no UTF-8.
    #[error("\"{0}\" has \"{1}\", which no request has: such requests are refused")]
    Refused(String, String),
}

impl FromStr for PathPattern {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let (exact, path) = match text.strip_prefix('=') {
            Some(path) => (true, path.trim_start_matches(' ')),
            None => (false, text),
        };
        if path.contains(['?', '#']) {
            return Err(PathError::Query(text.into()));
        }
        if path.starts_with('*') {
            return Err(PathError::Star(text.into()));
        }
        let Some(inner) = path.strip_prefix('/') else { return Err(PathError::Slash(path.into())) };
        if inner.is_empty() {
            return Ok(Self { exact, segments: Vec::new() });
        }
        let mut segments = Vec::new();
        let count = inner.split('/').count();
        for (at, segment) in inner.split('/').enumerate() {
            match segment {
                "" if at + 1 < count || inner.starts_with('/') => return Err(PathError::Empty(text.into())),
                "" if !exact => {
                    return Err(PathError::Trailing(text.into(), path.trim_end_matches('/').into()));
                }
                _ => segments.push(self::segment(text, segment)?),
            }
        }
        no_name_twice(text, &segments)?;
        Ok(Self { exact, segments })
    }
}

fn segment(text: &str, segment: &str) -> Result<Segment, PathError> {
    let pair = || (text.to_string(), segment.to_string());
    if segment.contains(['{', '}']) {
        let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        return match name.filter(|name| is_parameter(name)) {
            Some(name) => Ok(Segment::Any(name.into())),
            None => Err(PathError::Braces(pair().0, pair().1)),
        };
    }
    match segment {
        "." | ".." => Err(PathError::Dots(pair().0, pair().1)),
        "*" | "**" => Err(PathError::Star(text.into())),
        _ => literal(text, segment).map(Segment::Literal),
    }
}

fn is_parameter(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `segment` after percent-decoding. There is one spelling for each: two spellings of one path would be two
/// routes, of which one is never reached.
fn literal(text: &str, segment: &str) -> Result<String, PathError> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment;
    while let Some(c) = rest.chars().next() {
        let (written, byte) = match c {
            '%' => (rest.get(..3).unwrap_or(rest), encoded_byte(rest)),
            _ => (&rest[..c.len_utf8()], u8::try_from(c).ok()),
        };
        let canonical = match byte {
            None if c == '%' => return Err(PathError::Refused(text.into(), written.into())),
            // Servers disagree on what these end.
            Some(b'/' | b'\\' | b';' | 0) => return Err(PathError::Refused(text.into(), written.into())),
            Some(byte) if c == '%' => spelled(&[byte]),
            _ => spelled(written.as_bytes()),
        };
        if canonical != written {
            return Err(PathError::Encoding(text.into(), written.into(), canonical));
        }
        decoded.extend(byte);
        rest = &rest[written.len()..];
    }
    String::from_utf8(decoded).map_err(|_| PathError::Refused(text.into(), segment.into()))
}

/// The byte that `%` and two digits in front of `text` stand for.
fn encoded_byte(text: &str) -> Option<u8> {
    let digits = text.get(1..3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// `decoded` as it is spelled in a path: RFC 3986 §6.2.2, encoding what must be encoded and nothing else.
fn spelled(decoded: &[u8]) -> String {
    let spell = |byte: &u8| if is_plain(*byte) { char::from(*byte).into() } else { format!("%{byte:02X}") };
    decoded.iter().map(spell).collect()
}

/// RFC 3986 §3.3: what stands in a segment as it is.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

fn no_name_twice(text: &str, segments: &[Segment]) -> Result<(), PathError> {
    let mut names: Vec<_> = segments
        .iter()
        .filter_map(|it| if let Segment::Any(name) = it { Some(name) } else { None })
        .collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(PathError::Twice(text.into(), pair[0].clone())),
        None => Ok(()),
    }
}

impl PathPattern {
    /// The same without the names of its segments: what tells which paths it takes.
    pub(crate) fn unnamed(&self) -> Self {
        let unnamed = |segment: &Segment| match segment {
            Segment::Any(_) => Segment::Any(String::new()),
            literal => literal.clone(),
        };
        Self { exact: self.exact, segments: self.segments.iter().map(unnamed).collect() }
    }
}

/// As it stands in the file, with one space behind the `=` of an exact one.
impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.exact { "= " } else { "" })?;
        if self.segments.is_empty() {
            return f.write_str("/");
        }
        self.segments.iter().try_for_each(|segment| write!(f, "/{segment}"))
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Segment::Literal(text) => f.write_str(&spelled(text.as_bytes())),
            Segment::Any(name) => write!(f, "{{{name}}}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn literal(text: &str) -> Segment {
        Segment::Literal(text.into())
    }

    #[test]
    fn a_pattern_is_its_segments_and_gives_its_text_back() {
        let any = Segment::Any("id".into());
        for (text, exact, segments) in [
            ("/", false, vec![]),
            ("= /", true, vec![]),
            ("/api", false, vec![literal("api")]),
            ("= /healthz", true, vec![literal("healthz")]),
            ("= /api/", true, vec![literal("api"), literal("")]),
            ("/users/{id}/a%20b", false, vec![literal("users"), any, literal("a b")]),
            ("/caf%C3%A9/%7Bid%7D", false, vec![literal("caf\u{e9}"), literal("{id}")]),
            ("/...", false, vec![literal("...")]),
        ] {
            let pattern: PathPattern = text.parse().unwrap();
            assert_eq!(pattern, PathPattern { exact, segments });
            assert_eq!(pattern.to_string(), text);
        }
        assert_eq!("=/a".parse::<PathPattern>().unwrap().to_string(), "= /a");
    }

    #[test]
    fn says_what_is_wrong() {
        let error = |text: &str| text.parse::<PathPattern>().unwrap_err().to_string();
        for (text, part) in [
            ("", "begin with a slash"),
            ("api", "write \"/api\""),
            ("=", "begin with a slash"),
            ("//", "empty segment"),
            ("/a//b", "empty segment"),
            ("= /a//", "empty segment"),
            ("/a/", "write \"/a\""),
            ("/a?b=c", "more than a path"),
            ("/a#b", "more than a path"),
            ("/a/../b", "\"..\""),
            ("/./b", "\".\""),
            ("/api/*", "a star"),
            ("*", "a star"),
            ("/{id", "no whole segment"),
            ("/a{id}", "no whole segment"),
            ("/{}", "no whole segment"),
            ("/{1}", "no whole segment"),
            ("/{id}/{id}", "two segments called \"id\""),
            ("/%61", "written \"a\""),
            ("/%2e%2e", "written \".\""),
            ("/%c3", "written \"%C3\""),
            ("/\u{fc}", "written \"%C3%BC\""),
            ("/a b", "written \"%20\""),
            ("/a;b", "\";\", which no request has"),
            ("/a%3Bb", "refused"),
            ("/a%5Cb", "refused"),
            ("/a%FF", "refused"),
            ("/%24", "written \"$\""),
            ("/a%2Fb", "refused"),
            ("/%", "refused"),
            ("/%\u{fc}", "refused"),
            ("/%+1", "refused"),
        ] {
            assert!(error(text).contains(part), "{text}: {}", error(text));
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(
            text in "(= )?(/([a-c.%{}*;\u{fc}]|%20|%C3%BC|%7B|\\{a\\}){0,3}){0,4}",
        ) {
            if let Ok(pattern) = text.parse::<PathPattern>() {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }
    }
}
