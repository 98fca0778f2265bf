//! Whether a path means one thing to everybody, and the form that routes are matched in.

use std::borrow::Cow;

use super::bytes::hex_digit;

/// A path that no server reads as another path than we do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Path<'b>(&'b str);

/// What a route lets through although servers differ about it; it is passed on unchanged. Nothing by default.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PathRules {
    /// `%2f`, which some servers take for a slash.
    pub encoded_slash: bool,
    /// `\` or `%5c`, which some take for a slash too.
    pub backslash: bool,
    /// A NUL, plain or `%00`, which ends a name in C.
    pub nul: bool,
    /// `;` or `%3b`: what follows is part of the name to some, and nothing to others.
    pub semicolon: bool,
    /// Segments `.` and `..`, encoded or not.
    pub dot_segments: bool,
}

/// Why a path is refused, with 400.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum PathError {
    /// RFC 3986 §2.1. No rule lets it through.
    #[error("a % in the path is not followed by two hexadecimal digits")]
    Percent,
    /// See [`PathRules::encoded_slash`].
    #[error("the path contains an encoded slash")]
    EncodedSlash,
    /// See [`PathRules::backslash`].
    #[error("the path contains a backslash")]
    Backslash,
    /// See [`PathRules::nul`].
    #[error("the path contains a NUL")]
    Nul,
    /// See [`PathRules::semicolon`].
    #[error("the path contains a semicolon")]
    Semicolon,
    /// See [`PathRules::dot_segments`].
    #[error("the path contains a segment . or ..")]
    DotSegment,
}

impl<'b> Path<'b> {
    /// `path`, if it needs no rule.
    pub fn checked(path: &'b str) -> Result<Self, PathError> {
        Self::checked_by(path, &PathRules::default())
    }

    /// `path`, if `rules` let it through.
    pub fn checked_by(path: &'b str, rules: &PathRules) -> Result<Self, PathError> {
        if path.bytes().any(|byte| matches!(byte, b'%' | b'.' | b';' | b'\\' | 0)) {
            check(path.as_bytes(), rules)?;
        }
        Ok(Self(path))
    }

    /// As it was written.
    pub const fn as_str(self) -> &'b str {
        self.0
    }
}

/// What `path` is compared as; never what is passed on. Triplets are decoded once, where that cannot change
/// the structure of the path: those of `%`, `/`, `\`, `;`, control characters and bytes that are not UTF-8
/// stay, with digits in upper case. So paths that differ in this form differ to a server that decodes once,
/// and the form of the form is the same.
pub fn match_form(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((byte, length)) = next(rest) {
        match length {
            3 if byte.is_ascii() && !decodes(byte) => decoded.extend(triplet(byte)),
            // A malformed triplet must not become part of a right one.
            1 if byte == b'%' => decoded.extend(triplet(byte)),
            _ => decoded.push(byte),
        }
        rest = &rest[length..];
    }
    Cow::Owned(with_triplets(&decoded))
}

/// One pass over a path that has bytes worth a look.
fn check(path: &[u8], rules: &PathRules) -> Result<(), PathError> {
    // Dots of the segment so far, while it has nothing else.
    let mut dots = Some(0);
    let mut rest = path;
    while let Some((byte, length)) = next(rest) {
        let encoded = length == 3;
        let refused = match byte {
            b'%' if !encoded => Some(PathError::Percent),
            b'/' if encoded && !rules.encoded_slash => Some(PathError::EncodedSlash),
            b'\\' if !rules.backslash => Some(PathError::Backslash),
            0 if !rules.nul => Some(PathError::Nul),
            b';' if !rules.semicolon => Some(PathError::Semicolon),
            _ => None,
        };
        if let Some(error) = refused {
            return Err(error);
        }
        dots = match byte {
            // All that some server ends a segment at.
            b'/' | b'\\' | b';' | 0 => {
                check_segment(dots, rules)?;
                Some(0)
            }
            b'.' => dots.map(|dots| dots + 1),
            _ => None,
        };
        rest = &rest[length..];
    }
    check_segment(dots, rules)
}

fn check_segment(dots: Option<usize>, rules: &PathRules) -> Result<(), PathError> {
    match dots {
        Some(1 | 2) if !rules.dot_segments => Err(PathError::DotSegment),
        _ => Ok(()),
    }
}

/// The first byte of a path and how many bytes it takes: three if it is a triplet, else one.
fn next(path: &[u8]) -> Option<(u8, usize)> {
    let triplet = match path {
        [b'%', high, low, ..] => hex_digit(*high).zip(hex_digit(*low)),
        _ => None,
    };
    match triplet {
        Some((high, low)) => Some((high << 4 | low, 3)),
        None => path.first().map(|byte| (*byte, 1)),
    }
}

/// Whether an ASCII byte means the same encoded and not.
fn decodes(byte: u8) -> bool {
    !byte.is_ascii_control() && !matches!(byte, b'%' | b'/' | b'\\' | b';')
}

/// `bytes` as text, with triplets for what is not UTF-8.
fn with_triplets(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().flat_map(|byte| triplet(*byte).map(char::from)));
    }
    text
}

fn triplet(byte: u8) -> [u8; 3] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]
}
