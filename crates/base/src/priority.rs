//! How important an exchange is, beside others.

use std::fmt;

/// How important an exchange is: where there is not enough for all, the more important are served first, and
/// the least important are refused first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum Priority {
    /// Served as long as anything is.
    Critical,
    /// Before the usual.
    High,
    /// The usual.
    #[default]
    Normal,
    /// What can wait, or be done another time.
    Low,
}

impl Priority {
    /// Every priority, the most important first; a priority's place in it is its code.
    pub const ALL: [Priority; 4] = [Priority::Critical, Priority::High, Priority::Normal, Priority::Low];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Priority::Critical => "critical",
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        }
    }

    /// The priority that `word` names, in any case.
    pub fn from_word(word: &[u8]) -> Option<Priority> {
        Priority::ALL.into_iter().find(|priority| word.eq_ignore_ascii_case(priority.as_str().as_bytes()))
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Priority;

    #[test]
    fn every_priority_survives_its_code_and_its_word() {
        for (code, priority) in Priority::ALL.into_iter().enumerate() {
            assert_eq!(priority as usize, code);
            assert_eq!(Priority::from_word(priority.as_str().to_uppercase().as_bytes()), Some(priority));
        }
        assert_eq!(Priority::from_word(b"urgent"), None);
    }
}
