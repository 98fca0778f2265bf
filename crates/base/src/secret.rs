//! Values that must never reach a log, a screen or an error.

use std::fmt;

/// A secret text. It has no `Display`, and its `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`; from here on only [`Secret::reveal`] shows it.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that must send or store it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Compares in a time that depends on the lengths alone, so that an answer's delay tells nothing.
    pub fn matches(&self, offered: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), offered.as_bytes());
        let difference = ours.iter().zip(theirs).fold(0, |sum, (a, b)| sum | (a ^ b));
        ours.len() == theirs.len() && std::hint::black_box(difference) == 0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.reveal())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "Secret(…)");
    }

    #[test]
    fn matches_only_the_same_text() {
        let secret = Secret::new("abc".into());
        assert!(secret.matches("abc"));
        for wrong in ["", "ab", "abd", "abcd"] {
            assert!(!secret.matches(wrong), "{wrong:?}");
        }
    }
}
