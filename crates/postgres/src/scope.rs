//! By which settings a server understands the text of a statement when it prepares it. What was prepared by
//! others is another statement, though it reads the same.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::settings::Settings;

/// What decides which tables, functions and operators a text names, where its literals end, and what they
/// come to: a server reads `'01/02/2020'::date` when it prepares it, and never again.
const DECIDING: [&[u8]; 14] = [
    b"array_nulls",
    b"backslash_quote",
    b"client_encoding",
    b"datestyle",
    b"intervalstyle",
    b"lc_monetary",
    b"role",
    b"search_path",
    b"session_authorization",
    b"standard_conforming_strings",
    b"timezone",
    b"timezone_abbreviations",
    b"transform_null_equals",
    b"xmloption",
];

static NEXT: AtomicU64 = AtomicU64::new(1);

/// That of a session with `settings`. Where a transaction `may_differ` from them by what it has set, nobody
/// knows: then it is nobody else's.
pub(crate) fn scope(settings: &Settings, may_differ: bool) -> Vec<u8> {
    let mut scope = Vec::new();
    if may_differ {
        // A name is never empty, so no other one begins so.
        scope.push(0);
        scope.extend_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        return scope;
    }
    for (name, value) in settings.iter().filter(|(name, _)| DECIDING.contains(name)) {
        for part in [name, value] {
            scope.extend_from_slice(part);
            scope.push(0);
        }
    }
    scope
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(all: &[(&str, &str)]) -> Settings {
        Settings::new(all.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into())))
    }

    #[test]
    fn what_decides_tells_statements_apart_and_nothing_else_does() {
        assert!(DECIDING.is_sorted());
        let usual = scope(&Settings::default(), false);
        assert_eq!(usual, scope(&settings(&[("application_name", "x"), ("work_mem", "1MB")]), false));
        for name in DECIDING {
            let name = std::str::from_utf8(name).unwrap();
            let one = scope(&settings(&[(name, "a")]), false);
            assert!(one != usual && one != scope(&settings(&[(name, "b")]), false), "{name}");
        }
        let (before, behind) = (("role", "a"), ("search_path", "b"));
        let one = scope(&settings(&[before, behind]), false);
        assert_eq!(one, scope(&settings(&[behind, ("x", "y"), before]), false));
    }

    #[test]
    fn what_nobody_knows_is_nobody_elses() {
        let of = |may_differ| scope(&Settings::default(), may_differ);
        assert!(of(true) != of(true) && of(true) != of(false));
    }
}
