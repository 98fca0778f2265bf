//! A server's own words, made fit for a log line.

/// So many characters of a server's text are kept.
const KEPT_MAX: usize = 200;

/// `bytes` as text in one line: control characters and broken UTF-8 become `?`, a long text is cut.
pub(super) fn quote(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * KEPT_MAX)]);
    let tame = |letter: char| if letter.is_control() || letter == '\u{fffd}' { '?' } else { letter };
    text.trim_end().chars().take(KEPT_MAX).map(tame).collect()
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn a_server_cannot_write_into_the_log() {
        assert_eq!(
            quote(b"too many\r\n2026 INFO all is well\x1b[2J\xff"),
            "too many??2026 INFO all is well?[2J?"
        );
        assert_eq!(quote(&[b'x'; 5000]).len(), 200);
    }
}
