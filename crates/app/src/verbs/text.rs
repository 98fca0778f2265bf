//! How values look to people.

use std::borrow::Cow;
use std::fmt;

use tieline_base::text::is_hostile;

/// A duration in seconds, in two parts at most: `0.4s`, `42s`, `5m10s`, `2h05m`, `3d04h`.
pub(crate) struct Span(pub(crate) f64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0 as u64;
        let (days, hours, minutes, seconds) =
            (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60, whole % 60);
        match (days, hours, minutes) {
            (0, 0, 0) if self.0 < 10.0 => write!(f, "{:.1}s", self.0),
            (0, 0, 0) => write!(f, "{seconds}s"),
            (0, 0, _) => write!(f, "{minutes}m{seconds:02}s"),
            (0, _, _) => write!(f, "{hours}h{minutes:02}m"),
            _ => write!(f, "{days}d{hours:02}h"),
        }
    }
}

/// Lines of cells, in columns as wide as their widest cell.
pub(super) fn columns<const COUNT: usize>(lines: impl Iterator<Item = [String; COUNT]>) -> String {
    let lines: Vec<[String; COUNT]> = lines.collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COUNT] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// `text` with every character spelled out that a terminal would obey instead of showing.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() || is_hostile(c);
    if !text.chars().any(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if obeyed(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// `1 connection`, `2 connections`.
pub(super) fn connections(count: u64) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short_and_round_down() {
        for (seconds, text) in [
            (0.0, "0.0s"),
            (0.44, "0.4s"),
            (10.9, "10s"),
            (59.99, "59s"),
            (310.0, "5m10s"),
            (7_500.0, "2h05m"),
            (273_600.0, "3d04h"),
        ] {
            assert_eq!(Span(seconds).to_string(), text);
        }
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_printed() {
        assert!(matches!(printable("plain é"), Cow::Borrowed(_)));
        assert_eq!(printable("a\u{1b}[2J\n\u{202e}b"), "a\\u{1b}[2J\\n\\u{202e}b");
    }
}
