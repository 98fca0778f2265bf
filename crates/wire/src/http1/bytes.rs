//! Which bytes may stand where (RFC 9110 §5.6.2, RFC 3986).

/// A byte of a token.
const TOKEN: u8 = 1;
/// A byte of a path, or a slash between its segments.
const PATH: u8 = 2;
/// A byte of a query.
const QUERY: u8 = 4;
/// A byte of a host name.
const HOST: u8 = 8;
/// A byte of a field's value.
const VALUE: u8 = 16;
/// A byte of a path that needs a closer look (see [`Path`](super::Path)), a dot only behind a slash; a mark
/// on top of the others.
pub(super) const PATH_SPECIAL: u8 = 32;
const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut index = 0;
    while index < 256 {
        let byte = index as u8;
        let visible = byte > b' ' && byte < 0x7f;
        let name = byte.is_ascii_alphanumeric();
        let mut class = 0;
        if name || is_one_of(byte, b"!#$%&'*+-.^_`|~") {
            class |= TOKEN;
        }
        if visible && !is_one_of(byte, b"#\\") {
            class |= QUERY;
            if !is_one_of(byte, b"?\"<>^`{|}") {
                class |= PATH;
            }
        }
        if name || is_one_of(byte, b"-._") {
            class |= HOST;
        }
        if visible || byte == b' ' || byte == b'\t' || byte >= 0x80 {
            class |= VALUE;
        }
        if is_one_of(byte, b"%.;\\\0") {
            class |= PATH_SPECIAL;
        }
        classes[index] = class;
        index += 1;
    }
    classes
}

const fn is_one_of(byte: u8, set: &[u8]) -> bool {
    let mut index = 0;
    while index < set.len() {
        if set[index] == byte {
            return true;
        }
        index += 1;
    }
    false
}

/// All that is known of `byte`, for those who ask several things at once.
#[inline]
pub(super) const fn class_of(byte: u8) -> u8 {
    CLASSES[byte as usize]
}

#[inline]
pub(super) const fn is_path_class(class: u8) -> bool {
    class & PATH != 0
}

#[inline]
pub(super) const fn is_query_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & QUERY != 0
}

pub(super) const fn is_token_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & TOKEN != 0
}

pub(super) const fn is_host_byte(byte: u8) -> bool {
    CLASSES[byte as usize] & HOST != 0
}

pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// May be empty.
pub(super) fn is_query(bytes: &[u8]) -> bool {
    all(bytes, QUERY)
}

/// May be empty.
pub(super) fn is_value(bytes: &[u8]) -> bool {
    all(bytes, VALUE)
}

/// Without an early exit: the good case has to look at every byte anyway.
fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().fold(class, |left, byte| left & CLASSES[usize::from(*byte)]) != 0
}

/// The elements of a list (RFC 9110 §5.6.1); empty ones mean nothing.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// `1*DIGIT` that fits.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

pub(super) fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
