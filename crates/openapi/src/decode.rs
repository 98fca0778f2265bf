//! Percent-encoding (RFC 3986 §2.1), strictly: half an escape, or bytes that are no UTF-8, are an error and
//! never a guess.

use std::borrow::Cow;

/// An escape that is none, or bytes that are no text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

/// What `text` stands for; with `plus` a plus is a space, as in forms and queries.
pub(crate) fn percent(text: &str, plus: bool) -> Result<Cow<'_, str>, Malformed> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|byte| *byte == b'%' || (plus && *byte == b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, behind)) = rest.split_first() {
        rest = match (first, behind) {
            (b'%', [high, low, behind @ ..]) => {
                out.push(hex(*high)? << 4 | hex(*low)?);
                behind
            }
            (b'%', _) => return Err(Malformed),
            (b'+', behind) if plus => {
                out.push(b' ');
                behind
            }
            (byte, behind) => {
                out.push(byte);
                behind
            }
        };
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| Malformed)
}

fn hex(digit: u8) -> Result<u8, Malformed> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_whole_or_wrong() {
        for (text, plus, expected) in [
            ("plain", true, Ok("plain")),
            ("a%20b", false, Ok("a b")),
            ("a+b", true, Ok("a b")),
            ("a+b", false, Ok("a+b")),
            ("%C3%A4", false, Ok("\u{e4}")),
            ("%c3", false, Err(Malformed)),
            ("%2", false, Err(Malformed)),
            ("%", false, Err(Malformed)),
            ("%zz", false, Err(Malformed)),
        ] {
            assert_eq!(percent(text, plus).as_deref().map_err(|error| *error), expected, "{text}");
        }
    }
}
