//! How many clients are logged in as each user and to each database, and how many may be.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError};

/// How many clients may be logged in at once as each user, by one listener; databases have limits of their
/// own ([`crate::Target`]).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UserSeats {
    /// As each that is not named; `None`: any number.
    pub each: Option<u32>,
    /// As these; `None`: any number.
    pub named: Arc<HashMap<Box<str>, Option<u32>>>,
}

impl UserSeats {
    /// How many may be logged in as `user`; `None`: any number.
    pub(crate) fn of(&self, user: &str) -> Option<u32> {
        self.named.get(user).copied().unwrap_or(self.each)
    }
}

/// What there is no seat for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Full {
    /// As many are logged in as the user as may be.
    #[error("too many clients: user \"{name}\" may have {limit} at once (max_user_client_connections)")]
    User {
        /// The user.
        name: Box<str>,
        /// How many may be.
        limit: u32,
    },
    /// As many are logged in to the database as may be.
    #[error("too many clients: database \"{name}\" may have {limit} at once (max_db_client_connections)")]
    Database {
        /// The database, as clients call it.
        name: Box<str>,
        /// How many may be.
        limit: u32,
    },
}

/// How many are seated: by user, and by database.
#[derive(Default)]
struct Seated {
    users: HashMap<Box<str>, u32>,
    databases: HashMap<Box<str>, u32>,
}

// Held for two look-ups: once for each client that comes or goes, and by the console.
#[allow(clippy::disallowed_types)]
static SEATED: LazyLock<std::sync::Mutex<Seated>> = LazyLock::new(Default::default);

/// Counts one more client of `user` at `database`, where so many may be; `None`: any number.
///
/// # Errors
/// It would be one too many; nothing is counted then.
pub(super) fn enter(user: &str, database: &str, limits: (Option<u32>, Option<u32>)) -> Result<(), Full> {
    with(|seated| seated.enter(user, database, limits))
}

/// One that was counted has gone.
pub(super) fn leave(user: &str, database: &str) {
    with(|seated| seated.leave(user, database));
}

impl Seated {
    fn enter(
        &mut self,
        user: &str,
        database: &str,
        (of_user, of_database): (Option<u32>, Option<u32>),
    ) -> Result<(), Full> {
        let full = |seats: &HashMap<Box<str>, u32>, name: &str, limit: Option<u32>| {
            let held = seats.get(name).copied().unwrap_or_default();
            limit.filter(|limit| held >= *limit)
        };
        if let Some(limit) = full(&self.users, user, of_user) {
            return Err(Full::User { name: user.into(), limit });
        }
        if let Some(limit) = full(&self.databases, database, of_database) {
            return Err(Full::Database { name: database.into(), limit });
        }
        for (seats, name) in [(&mut self.users, user), (&mut self.databases, database)] {
            match seats.get_mut(name) {
                Some(held) => *held += 1,
                None => drop(seats.insert(name.into(), 1)),
            }
        }
        Ok(())
    }

    fn leave(&mut self, user: &str, database: &str) {
        for (seats, name) in [(&mut self.users, user), (&mut self.databases, database)] {
            if let Some(held) = seats.get_mut(name) {
                *held -= 1;
                if *held == 0 {
                    seats.remove(name);
                }
            }
        }
    }
}

fn with<R>(act: impl FnOnce(&mut Seated) -> R) -> R {
    act(&mut SEATED.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whoever_is_one_too_many_is_told_of_what() {
        let mut seated = Seated::default();
        seated.enter("ana", "orders", (Some(1), Some(2))).unwrap();
        let full = seated.enter("ana", "stock", (Some(1), None)).unwrap_err();
        assert_eq!(
            full.to_string(),
            "too many clients: user \"ana\" may have 1 at once (max_user_client_connections)"
        );
        seated.enter("bob", "orders", (Some(1), Some(2))).unwrap();
        let full = seated.enter("cyd", "orders", (None, Some(2))).unwrap_err();
        assert_eq!(full, Full::Database { name: "orders".into(), limit: 2 });
        // Who was refused is not counted.
        assert!(!seated.users.contains_key("cyd") && !seated.databases.contains_key("stock"));
    }

    #[test]
    fn a_user_that_is_named_has_a_limit_of_its_own_or_none() {
        let named = [("ana".into(), Some(9)), ("bob".into(), None)];
        let seats = UserSeats { each: Some(3), named: Arc::new(named.into()) };
        assert_eq!(["ana", "bob", "cyd"].map(|user| seats.of(user)), [Some(9), None, Some(3)]);
    }

    proptest! {
        /// Whatever comes and goes, no count is ever above its limit, and nothing is left of who has gone.
        #[test]
        fn counts_are_exact(steps in prop::collection::vec((0usize..3, 0usize..3, any::<bool>()), 1..200)) {
            let names = ["a", "b", "c"];
            let (mut seated, mut here) = (Seated::default(), Vec::new());
            for (user, database, comes) in steps {
                let (user, database) = (names[user], names[database]);
                if comes {
                    let as_user = here.iter().filter(|(other, _)| *other == user).count();
                    let at_database = here.iter().filter(|(_, other)| *other == database).count();
                    let fits = as_user < 4 && at_database < 6;
                    prop_assert_eq!(seated.enter(user, database, (Some(4), Some(6))).is_ok(), fits);
                    if fits {
                        here.push((user, database));
                    }
                } else if let Some((user, database)) = here.pop() {
                    seated.leave(user, database);
                }
            }
            for (user, database) in here {
                seated.leave(user, database);
            }
            prop_assert!(seated.users.is_empty() && seated.databases.is_empty());
        }
    }
}
