//! What operators have halted: databases whose clients wait, and databases that take no more of them.

use std::collections::BTreeSet;

/// Which databases are halted, as clients call them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Halted {
    all: bool,
    paused: BTreeSet<Box<str>>,
    disabled: BTreeSet<Box<str>>,
}

/// Why nothing is halted, or let go.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum HaltError {
    /// All are halted.
    #[error("already suspended/paused")]
    Already,
    /// Nothing is.
    #[error("pooler is not paused/suspended")]
    Nothing,
    /// That one is not.
    #[error("database {0} is not paused")]
    NotPaused(Box<str>),
}

impl Halted {
    pub(crate) fn is_paused(&self, database: &str) -> bool {
        self.all || self.paused.contains(database)
    }

    /// Whether every database is.
    pub(crate) fn is_all(&self) -> bool {
        self.all
    }

    pub(crate) fn is_disabled(&self, database: &str) -> bool {
        self.disabled.contains(database)
    }

    /// Halts a database, or all; whether a database was not halted before.
    pub(crate) fn pause(&mut self, database: Option<&str>) -> Result<bool, HaltError> {
        if self.all {
            return Err(HaltError::Already);
        }
        Ok(match database {
            None => !std::mem::replace(&mut self.all, true),
            Some(database) => self.paused.insert(database.into()),
        })
    }

    /// Lets a database go on, or all that is halted.
    pub(crate) fn resume(&mut self, database: Option<&str>) -> Result<(), HaltError> {
        match database {
            None if !self.all && self.paused.is_empty() => Err(HaltError::Nothing),
            None => {
                self.all = false;
                self.paused.clear();
                Ok(())
            }
            Some(database) => match self.paused.remove(database) {
                true => Ok(()),
                false => Err(HaltError::NotPaused(database.into())),
            },
        }
    }

    pub(crate) fn disable(&mut self, database: &str, disabled: bool) {
        if disabled {
            self.disabled.insert(database.into());
        } else {
            self.disabled.remove(database);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_paused_goes_on_by_its_name_or_with_all() {
        let mut halted = Halted::default();
        assert_eq!(halted.resume(None), Err(HaltError::Nothing));
        assert_eq!(halted.pause(Some("a")), Ok(true));
        assert_eq!(halted.pause(Some("a")), Ok(false));
        assert!(halted.is_paused("a") && !halted.is_paused("b"));
        assert_eq!(halted.resume(Some("b")), Err(HaltError::NotPaused("b".into())));
        assert_eq!(halted.pause(None), Ok(true));
        assert_eq!(halted.pause(Some("b")), Err(HaltError::Already));
        assert!(halted.is_paused("b"));
        assert_eq!(halted.resume(None), Ok(()));
        assert_eq!(halted, Halted::default());
    }

    #[test]
    fn a_database_that_is_disabled_is_so_until_it_is_enabled() {
        let mut halted = Halted::default();
        halted.disable("a", true);
        halted.resume(None).unwrap_err();
        assert!(halted.is_disabled("a") && !halted.is_disabled("b") && !halted.is_paused("a"));
        halted.disable("a", false);
        assert_eq!(halted, Halted::default());
    }
}
