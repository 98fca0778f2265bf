//! What an agent is labelled with, and what labels a group of agents is chosen by.

use std::fmt;
use std::str::FromStr;

use crate::is_far_name;

/// Labels, each of a different key: `site=berlin,tier=edge`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Labels(Vec<(String, String)>);

/// The most labels that one may have.
pub const LABELS_MAX: usize = 16;

/// Why a text is no labels.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LabelError {
    /// A part of it is not `key=value`, of names as agents have.
    #[error(
        "\"{0}\" is no label; write key=value, each of 1 to 63 letters, digits, dots, hyphens and underscores"
    )]
    Malformed(String),
    /// A key stands there twice.
    #[error("the label \"{0}\" stands there twice")]
    Twice(String),
    /// There are more than [`LABELS_MAX`].
    #[error("there are {0} labels, more than {LABELS_MAX}")]
    TooMany(usize),
}

impl Labels {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every key and value, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether all of `wanted` are among them.
    pub fn have(&self, wanted: &Labels) -> bool {
        wanted.0.iter().all(|label| self.0.binary_search(label).is_ok())
    }

    /// These, and `key` as `value`.
    ///
    /// # Errors
    /// [`LabelError`].
    fn with(mut self, text: &str) -> Result<Labels, LabelError> {
        let malformed = || LabelError::Malformed(text.escape_debug().to_string());
        let (key, value) = text.split_once('=').ok_or_else(malformed)?;
        if !(is_far_name(key) && is_far_name(value)) {
            return Err(malformed());
        }
        match self.0.binary_search_by(|(known, _)| known.as_str().cmp(key)) {
            Ok(_) => Err(LabelError::Twice(key.into())),
            Err(at) => {
                self.0.insert(at, (key.into(), value.into()));
                Ok(self)
            }
        }
    }
}

impl FromStr for Labels {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Labels, LabelError> {
        let parts: Vec<&str> = text.split(',').filter(|part| !part.is_empty()).collect();
        if parts.len() > LABELS_MAX {
            return Err(LabelError::TooMany(parts.len()));
        }
        parts.into_iter().try_fold(Labels::default(), Labels::with)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.0.iter().enumerate() {
            write!(f, "{}{key}={value}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        text.parse().unwrap()
    }

    #[test]
    fn labels_are_the_same_in_whatever_order_they_are_written() {
        assert_eq!(labels("tier=edge,site=berlin"), labels("site=berlin,tier=edge"));
        assert_eq!(labels("tier=edge,site=berlin").to_string(), "site=berlin,tier=edge");
        assert!(labels("").is_empty());
    }

    #[test]
    fn a_choice_takes_who_has_all_of_it() {
        let has = labels("site=berlin,tier=edge");
        for wanted in ["", "site=berlin", "tier=edge,site=berlin"] {
            assert!(has.have(&labels(wanted)), "{wanted}");
        }
        for wanted in ["site=bern", "sites=berlin", "site=berlin,os=linux"] {
            assert!(!has.have(&labels(wanted)), "{wanted}");
        }
    }

    #[test]
    fn what_is_no_label_is_told() {
        for text in ["site", "=berlin", "site=", "si te=x", "site=a=b", "site=a/b", "-a=b"] {
            assert!(matches!(text.parse::<Labels>(), Err(LabelError::Malformed(_))), "{text}");
        }
        assert!(matches!("a=1,a=2".parse::<Labels>(), Err(LabelError::Twice(_))));
        let many: Vec<String> = (0..=LABELS_MAX).map(|at| format!("k{at}=v")).collect();
        assert!(matches!(many.join(",").parse::<Labels>(), Err(LabelError::TooMany(17))));
    }
}
