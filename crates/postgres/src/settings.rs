//! Settings of sessions: what a client wants, what a server has, and the way from one to the other.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, LazyLock, PoisonError, Weak};

use tieline_wire::postgres::sql::{Suspicion, names_temporary_schema};

use crate::login::Parameter;

/// Settings by their names, which are in lower case: what differs from a session that has just begun.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Settings(Vec<Parameter>);

/// The role and the user of a session, which are settings too. What they may do decides about the others.
const IDENTITIES: [&[u8]; 2] = [b"session_authorization", b"role"];

const CLIENT_ENCODING: &[u8] = b"client_encoding";

/// So many bytes of settings are kept of one client.
const BYTES_MAX: usize = 64 * 1024;

/// Of a client with more, only settings that servers know are kept, up to this length.
const SHORT_MAX: usize = 256;

/// A longer value is not even asked for.
pub(crate) const VALUE_MAX: usize = 64 * 1024;

impl Settings {
    /// Those of `parameters`; of a name that is given twice the last counts.
    pub(crate) fn new(parameters: impl IntoIterator<Item = Parameter>) -> Self {
        let mut settings = Self::default();
        parameters.into_iter().for_each(|(name, value)| settings.set(&name, value));
        settings
    }

    /// The same, shared with all who have the same: so that they are known to be equal by where they lie.
    pub(crate) fn shared(self) -> Arc<Self> {
        static KNOWN: Known<Settings> = Known::new(Default::default);
        share(&KNOWN, self)
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.place(name).ok().map(|at| &*self.0[at].1)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(crate) fn set(&mut self, name: &[u8], value: Box<[u8]>) {
        let name = name.to_ascii_lowercase();
        match self.place(&name) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (name.into(), value)),
        }
    }

    pub(crate) fn unset(&mut self, name: &[u8]) {
        if let Ok(at) = self.place(name) {
            self.0.remove(at);
        }
    }

    /// What a session with the settings `have` goes through on its way to these; `None` if it goes there at
    /// once. Servers read each query by the encoding that they had before it: what is not ASCII means one
    /// thing before the encoding changes, and another behind that.
    pub(crate) fn halfway_from(&self, have: &Settings) -> Option<Settings> {
        let encoding = self.get(CLIENT_ENCODING);
        if encoding == have.get(CLIENT_ENCODING) {
            return None;
        }
        let mut halfway = Self(have.0.iter().filter(|one| self.keeps(one)).cloned().collect());
        match encoding {
            Some(encoding) => halfway.set(CLIENT_ENCODING, encoding.into()),
            None => halfway.unset(CLIENT_ENCODING),
        }
        Some(halfway)
    }

    /// Whether what another session has means the same here, whatever the encodings.
    fn keeps(&self, (name, value): &Parameter) -> bool {
        !IDENTITIES.contains(&&**name)
            && name.is_ascii()
            && value.is_ascii()
            && self.get(name).is_some_and(<[u8]>::is_ascii)
    }

    /// The SQL that takes a session of the same encoding from `have` to these, in one statement that fails as
    /// a whole; `None` if there is nothing to do.
    pub(crate) fn way_from(&self, have: &Settings) -> Option<Vec<u8>> {
        if self == have {
            return None;
        }
        let mut sql = Vec::new();
        // Whoever is somebody else becomes who logged in first: others may not be allowed what follows.
        for name in IDENTITIES.iter().filter(|name| have.get(name).is_some()) {
            push(&mut sql, name, None);
        }
        let plain = |(name, _): &(&[u8], &[u8])| !IDENTITIES.contains(name);
        for (name, _) in have.iter().filter(plain).filter(|(name, _)| self.get(name).is_none()) {
            push(&mut sql, name, None);
        }
        for (name, value) in self.iter().filter(plain).filter(|(name, value)| have.get(name) != Some(value)) {
            push(&mut sql, name, Some(value));
        }
        for name in IDENTITIES {
            if let Some(value) = self.get(name) {
                push(&mut sql, name, Some(value));
            }
        }
        Some(sql)
    }

    /// Temporary tables, if the path leads to them: then whatever is made may be one.
    pub(crate) fn temporary(&self) -> Suspicion {
        let path = self.get(b"search_path").unwrap_or_default();
        if names_temporary_schema(path) { Suspicion::TEMPORARY } else { Suspicion::NONE }
    }

    /// Whether each transaction is serializable: servers that replay another's log refuse that.
    pub(crate) fn are_serializable(&self) -> bool {
        self.get(b"default_transaction_isolation") == Some(b"serializable")
    }

    /// How many bytes they are.
    fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Whether they are more than is kept of a client.
    pub(crate) fn are_too_many(&self) -> bool {
        self.bytes() > BYTES_MAX
    }

    /// Without what makes them too many.
    #[must_use]
    pub(crate) fn shortened(&self) -> Self {
        let is_short = |(name, value): &&Parameter| !name.contains(&b'.') && value.len() <= SHORT_MAX;
        Self(self.0.iter().filter(is_short).cloned().collect())
    }

    fn place(&self, name: &[u8]) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

/// Appends one change to `sql`; without a value, back to what the session began with.
fn push(sql: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    sql.extend_from_slice(if sql.is_empty() { b"SELECT " } else { b", " });
    sql.extend_from_slice(b"pg_catalog.set_config(");
    push_literal(sql, name);
    sql.extend_from_slice(b", ");
    match value {
        Some(value) => push_literal(sql, value),
        None => sql.extend_from_slice(b"NULL"),
    }
    sql.extend_from_slice(b", false)");
}

/// Appends `text` as a literal that means the same whatever `standard_conforming_strings` says.
pub(crate) fn push_literal(sql: &mut Vec<u8>, text: &[u8]) {
    sql.extend_from_slice(b"E'");
    for byte in text {
        if matches!(byte, b'\'' | b'\\') {
            sql.push(*byte);
        }
        sql.push(*byte);
    }
    sql.push(b'\'');
}

/// What is shared. Held for a look-up: when settings change, and not when they are compared.
#[allow(clippy::disallowed_types)]
type Known<T> = LazyLock<std::sync::Mutex<HashMap<T, Weak<T>>>>;

/// Beyond so many the forgotten ones are looked for, whenever their number has doubled.
const TIDY_AT: usize = 256;

fn share<T: Clone + Eq + Hash>(known: &Known<T>, value: T) -> Arc<T> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(same) = known.get(&value).and_then(Weak::upgrade) {
        return same;
    }
    if known.len() >= TIDY_AT && known.len().is_power_of_two() {
        known.retain(|_, shared| shared.strong_count() > 0);
    }
    let shared = Arc::new(value.clone());
    known.insert(value, Arc::downgrade(&shared));
    shared
}

/// What a server tells of its settings by itself, in the order in which it first told it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Reported(Vec<Parameter>);

impl Reported {
    pub(crate) fn new(parameters: Vec<Parameter>) -> Arc<Self> {
        static KNOWN: Known<Reported> = Known::new(Default::default);
        share(&KNOWN, Self(parameters))
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The same, with `name` being `value`.
    #[must_use]
    pub(crate) fn with(&self, name: &[u8], value: &[u8]) -> Arc<Self> {
        let mut parameters = self.0.clone();
        match parameters.iter_mut().find(|(other, _)| **other == *name) {
            Some((_, old)) => *old = value.into(),
            None => parameters.push((name.into(), value.into())),
        }
        Self::new(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::new(pairs.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into())))
    }

    fn way(from: &[(&str, &str)], to: &[(&str, &str)]) -> Option<String> {
        settings(to).way_from(&settings(from)).map(|sql| String::from_utf8(sql).unwrap())
    }

    #[test]
    fn what_is_equal_is_one() {
        let one = settings(&[("a", "1")]).shared();
        assert!(Arc::ptr_eq(&one, &settings(&[("A", "1")]).shared()));
        assert!(!Arc::ptr_eq(&one, &settings(&[("a", "2")]).shared()));
        let told = Reported::new(Vec::new()).with(b"x", b"1");
        assert!(Arc::ptr_eq(&told, &told.with(b"x", b"2").with(b"x", b"1")));
    }

    #[test]
    fn values_are_literals_and_nothing_else() {
        let sql = way(&[], &[("Search_Path", "")]).unwrap();
        assert_eq!(sql, "SELECT pg_catalog.set_config(E'search_path', E'', false)");
        let sql = way(&[], &[("a", "it's \\")]).unwrap();
        assert!(sql.contains("E'it''s \\\\'"), "{sql}");
        assert_eq!(way(&[("a", "1")], &[("A", "1")]), None);
    }

    #[test]
    fn the_role_is_laid_down_first_and_taken_up_last() {
        let sql = way(&[("role", "low"), ("b", "1")], &[("a", "2"), ("role", "high")]).unwrap();
        let order = ["E'role', NULL", "E'b', NULL", "E'a', E'2'", "E'role', E'high'"];
        let places: Vec<_> = order.iter().map(|part| sql.find(part).expect(part)).collect();
        assert!(places.is_sorted(), "{sql}");
    }

    #[test]
    fn a_role_that_stays_is_laid_down_for_what_it_may_not_change() {
        let sql = way(&[("role", "low"), ("b", "1")], &[("role", "low")]).unwrap();
        let order = ["E'role', NULL", "E'b', NULL", "E'role', E'low'"];
        let places: Vec<_> = order.iter().map(|part| sql.find(part).expect(part)).collect();
        assert!(places.is_sorted(), "{sql}");
    }

    #[test]
    fn what_is_not_ascii_is_said_in_the_encoding_that_it_is_of() {
        let have = settings(&[("client_encoding", "latin1"), ("a.b", "\u{fc}"), ("b", "1"), ("role", "x")]);
        let want = settings(&[("a.b", "\u{fc}"), ("b", "1")]);
        assert_eq!(want.halfway_from(&have), Some(settings(&[("b", "1")])));
        assert_eq!(have.halfway_from(&have), None);
        let halfway = have.halfway_from(&want).unwrap();
        assert_eq!(halfway, settings(&[("b", "1"), ("client_encoding", "latin1")]));
    }

    #[test]
    fn settings_without_end_are_not_kept() {
        let long = "x".repeat(BYTES_MAX);
        let many = settings(&[("a.b", "1"), ("search_path", &long), ("work_mem", "5MB")]);
        assert!(many.are_too_many());
        assert_eq!(many.shortened(), settings(&[("work_mem", "5MB")]));
    }

    /// Goes a step of the way, as a server does; false if a role that may not changes what only others may.
    fn go(reached: &mut BTreeMap<String, String>, sql: &str) -> bool {
        for change in sql.split("set_config(").skip(1) {
            let mut parts = change.split(", ");
            let text = |part: &str| part.trim().trim_start_matches('E').trim_matches('\'').to_owned();
            let (name, value) = (text(parts.next().unwrap()), parts.next().unwrap());
            if name != "role" && reached.contains_key("role") {
                return false;
            }
            match value {
                "NULL" => drop(reached.remove(&name)),
                _ => drop(reached.insert(name, text(value))),
            }
        }
        true
    }

    proptest! {
        /// Whoever goes the way from one to the other has the other, and changes nothing in another's role.
        #[test]
        fn the_way_leads_there(
            have in prop::collection::btree_map("[a-e]|role|client_encoding", "[x-z]|\u{fc}", 0..5),
            want in prop::collection::btree_map("[a-e]|role|client_encoding", "[x-z]|\u{fc}", 0..5),
        ) {
            let of = |map: &BTreeMap<String, String>| {
                let pairs: Vec<_> = map.iter().map(|(name, value)| (&**name, &**value)).collect();
                settings(&pairs)
            };
            let (mut reached, mut at) = (have.clone(), of(&have));
            for step in of(&want).halfway_from(&at).into_iter().chain([of(&want)]) {
                if let Some(sql) = step.way_from(&at) {
                    prop_assert!(go(&mut reached, &String::from_utf8(sql).unwrap()));
                }
                at = step;
                prop_assert_eq!(&of(&reached), &at);
            }
            prop_assert_eq!(reached, want);
        }
    }
}
