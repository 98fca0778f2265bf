//! Numbers, addresses and texts as messages and logs have them, written by hand: every exchange pays for some
//! of them, and formatting costs ten times as much.

use std::net::IpAddr;

/// The longest number in decimal: 2^64 - 1.
const DECIMAL_MAX: usize = 20;

/// Writes `number` in decimal.
pub fn push_decimal(number: u64, out: &mut Vec<u8>) {
    push_decimal_of(number, 1, out);
}

/// Writes `number` in decimal, with zeros before it as far as `least` digits, of which there are 20 at most.
pub fn push_decimal_of(mut number: u64, least: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; DECIMAL_MAX];
    let mut start = DECIMAL_MAX;
    while number > 0 {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[start.min(DECIMAL_MAX.saturating_sub(least))..]);
}

/// `number` as 16 hexadecimal digits.
pub fn hexadecimal(number: u64) -> [u8; 16] {
    std::array::from_fn(|at| b"0123456789abcdef"[(number >> (60 - 4 * at)) as usize & 0xf])
}

/// Writes `byte` as `%` and two hexadecimal digits (RFC 3986 §2.1).
pub fn push_percent(byte: u8, out: &mut Vec<u8>) {
    let digit = |four: u8| b"0123456789ABCDEF"[usize::from(four & 0xf)];
    out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
}

/// Writes `ip` without brackets.
pub fn push_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(v4) => {
            let (mut text, mut end) = ([b'.'; 16], 0);
            for octet in v4.octets() {
                for (least, digit) in [(100, octet / 100), (10, octet / 10 % 10), (0, octet % 10)] {
                    if octet >= least {
                        text[end] = b'0' + digit;
                        end += 1;
                    }
                }
                // The dot is there already.
                end += 1;
            }
            out.extend_from_slice(&text[..end - 1]);
        }
        IpAddr::V6(v6) => out.extend_from_slice(v6.to_string().as_bytes()),
    }
}

/// Writes `text` as a string of JSON (RFC 8259 §7) that holds nothing a terminal or a log viewer obeys. JSON
/// itself escapes only what is below a space; names come from strangers and may hold DEL, C1 controls, line
/// separators and direction changes.
pub fn push_json(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') & (*byte != b'"') & (*byte != b'\\');
    // Without an early exit: the good case has to look at every byte anyway.
    if text.as_bytes().iter().fold(true, |so_far, byte| so_far & plain(byte)) {
        out.extend_from_slice(text.as_bytes());
    } else {
        text.chars().for_each(|c| push_json_char(c, out));
    }
    out.push(b'"');
}

fn push_json_char(c: char, out: &mut Vec<u8>) {
    let escape = match c {
        '"' | '\\' => c as u8,
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        c if c < ' ' || is_hostile(c) => {
            // All of them are within the first plane: one escape is enough.
            out.extend_from_slice(b"\\u");
            return out.extend_from_slice(&hexadecimal(u64::from(u32::from(c)))[12..]);
        }
        c => return out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    };
    out.extend_from_slice(&[b'\\', escape]);
}

/// Whether a terminal or a viewer may obey `c`, which JSON lets stand as it is.
pub fn is_hostile(c: char) -> bool {
    matches!(
        c,
        '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_ends_of_the_range_are_written_too() {
        assert_eq!(written(|out| push_decimal(0, out)), "0");
        assert_eq!(written(|out| push_decimal_of(0, 0, out)), "");
        assert_eq!(written(|out| push_decimal_of(7, 3, out)), "007");
        assert_eq!(written(|out| push_decimal_of(u64::MAX, 99, out)), u64::MAX.to_string());
        assert_eq!(written(|out| push_percent(0xe9, out)), "%E9");
        let text = "\"\\\u{0}\n\u{1f}é\u{7f}\u{2028}";
        assert_eq!(written(|out| push_json(text, out)), r#""\"\\\u0000\n\u001fé\u007f\u2028""#);
    }

    proptest! {
        #[test]
        fn all_is_written_as_formatting_would(number: u64, small in 0u64..2_000, ip: IpAddr) {
            for number in [number, small] {
                prop_assert_eq!(written(|out| push_decimal(number, out)), number.to_string());
                prop_assert_eq!(written(|out| push_decimal_of(number, 3, out)), format!("{number:03}"));
                prop_assert_eq!(written(|out| out.extend(hexadecimal(number))), format!("{number:016x}"));
            }
            prop_assert_eq!(written(|out| push_ip(ip, out)), ip.to_string());
        }

        #[test]
        fn what_is_read_is_what_was_written(text in prop::collection::vec(any::<char>(), 0..20)) {
            let text = String::from_iter(text);
            let written = written(|out| push_json(&text, out));
            prop_assert!(!written.chars().any(|c| c.is_control() || is_hostile(c)), "{:?}", written);
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}
