//! Who may log in with a password, and what is asked of those who may not: the same.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::hmac;
use tieline_base::{ScramVerifier, Secret, Verifier};
use tieline_wire::postgres::scram::{ITERATIONS, SALT_BYTES};

/// Those who may log in with a password, by name.
pub struct Users {
    by_name: HashMap<Box<str>, User>,
    /// What the answers to strangers are drawn from.
    key: hmac::Key,
    /// How often most users hash their password.
    iterations: u32,
    /// How many of a thousand users have a verifier of MD5.
    md5_share: u32,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// What its password is judged by.
    pub verifier: Verifier,
    /// The password itself, if it is known: servers may want it.
    pub password: Option<Secret>,
}

impl Users {
    /// `key` is secret and stays the same for years: by it strangers are answered the same each time, so that
    /// they cannot be told from users.
    pub fn new(by_name: HashMap<Box<str>, User>, key: &[u8; 32]) -> Self {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        let mut md5 = 0;
        for user in by_name.values() {
            match &user.verifier {
                Verifier::Scram(scram) => *counts.entry(scram.iterations).or_default() += 1,
                Verifier::Md5(_) => md5 += 1,
            }
        }
        let usual = counts.into_iter().max_by_key(|(iterations, count)| (*count, *iterations));
        let md5_share = u32::try_from(md5 * 1_000 / by_name.len().max(1)).unwrap_or(0);
        let iterations = usual.map_or(ITERATIONS, |(iterations, _)| iterations);
        Self { by_name, key: hmac::Key::new(hmac::HMAC_SHA256, key), iterations, md5_share }
    }

    /// The user called `name`.
    pub fn find(&self, name: &str) -> Option<&User> {
        self.by_name.get(name)
    }

    /// What a stranger called `name` is judged by: nothing that it could know, and the same at each try.
    /// `usual` is how often those hash their password among whom it would be found, if that is known.
    pub(crate) fn stranger(&self, name: &str, md5_may_be: bool, usual: Option<u32>) -> Verifier {
        let drawn = |what: &str| hmac::sign(&self.key, format!("{what}:{name}").as_bytes());
        let first = |bytes: &[u8]| bytes.first_chunk::<4>().map_or(0, |four| u32::from_be_bytes(*four));
        if md5_may_be && first(drawn("kind").as_ref()) % 1_000 < self.md5_share {
            let hash = drawn("md5").as_ref().first_chunk().copied().unwrap_or_default();
            return Verifier::Md5(hash);
        }
        let key = |what| drawn(what).as_ref().first_chunk().copied().unwrap_or_default();
        let salt = drawn("salt").as_ref()[..SALT_BYTES].into();
        let iterations = usual.unwrap_or(self.iterations);
        let (stored_key, server_key) = (key("stored"), key("server"));
        Verifier::Scram(ScramVerifier { iterations, salt, stored_key, server_key })
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.by_name.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(verifiers: &[Verifier]) -> Users {
        let users = verifiers.iter().enumerate();
        let users = users.map(|(at, verifier)| {
            (format!("user{at}").into(), User { verifier: verifier.clone(), password: None })
        });
        Users::new(users.collect(), &[7; 32])
    }

    fn scram(iterations: u32) -> Verifier {
        let salt = vec![1; 16].into();
        Verifier::Scram(ScramVerifier { iterations, salt, stored_key: [1; 32], server_key: [2; 32] })
    }

    #[test]
    fn a_stranger_is_answered_as_most_users_are_and_the_same_each_time() {
        let users = users(&[scram(10_000), scram(10_000), scram(4_096)]);
        let Verifier::Scram(answer) = users.stranger("nobody", true, None) else { panic!("nobody has MD5") };
        assert_eq!((answer.iterations, answer.salt.len()), (10_000, SALT_BYTES));
        assert_eq!(users.stranger("nobody", true, None), Verifier::Scram(answer.clone()));
        let Verifier::Scram(looked_up) = users.stranger("nobody", true, Some(7_000)) else {
            panic!("the same")
        };
        assert_eq!((looked_up.iterations, &looked_up.salt), (7_000, &answer.salt));
        assert_ne!(users.stranger("somebody", true, None), Verifier::Scram(answer));
        assert_eq!(users.find("nobody"), None);
    }

    #[test]
    fn strangers_are_asked_by_md5_as_often_as_users_are() {
        let users = users(&[Verifier::Md5([1; 16]), scram(4_096)]);
        let names = (0..1_000).map(|at| format!("stranger{at}"));
        let md5 = names.filter(|name| matches!(users.stranger(name, true, None), Verifier::Md5(_))).count();
        assert!((400..600).contains(&md5), "{md5}");
        assert!(
            (0..100).all(|at| matches!(users.stranger(&at.to_string(), false, None), Verifier::Scram(_)))
        );
    }
}
