//! Settings that applications make up (`app.tenant`). Servers do not list them, so their names are looked for
//! in the SQL that sets them; where a name may stand there that is not found, nothing can be undone.

use memchr::memmem;

/// So many names are followed in one transaction.
const NAMES_MAX: usize = 64;

/// Servers take longer ones, which are hardly meant to be names.
const NAME_LONGEST: usize = 1024;

/// Whether all names in a text are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Followed {
    All,
    /// But for some that are too long.
    NoneSoLong,
    /// There are too many.
    NotAll,
}

/// Adds to `found` what may be such a name in `sql`: two words with a dot between them, quoted or not. That a
/// column of a table looks the same does no harm: the server is asked which of them are settings.
pub(crate) fn names(sql: &[u8], found: &mut Vec<Box<[u8]>>) -> Followed {
    let mut followed = Followed::All;
    for run in sql.split(|byte| !is_part_of_name(*byte)).filter(|run| run.contains(&b'.')) {
        if run.len() > NAME_LONGEST {
            followed = Followed::NoneSoLong;
            continue;
        }
        let name: Vec<u8> =
            run.iter().filter(|byte| **byte != b'"').map(|byte| byte.to_ascii_lowercase()).collect();
        let sound =
            name.split(|byte| *byte == b'.').all(|part| part.first().is_some_and(|it| !it.is_ascii_digit()));
        if !sound || found.iter().any(|known| **known == *name) {
            continue;
        }
        if found.len() == NAMES_MAX {
            return Followed::NotAll;
        }
        found.push(name.into());
    }
    followed
}

/// Whether `sql` may set something by a name that is not written in it as [`names`] reads it.
pub(crate) fn hides_a_name(sql: &[u8]) -> bool {
    computes_a_name(sql) || spells_a_name_oddly(sql)
}

/// Whether `set_config` is called otherwise than with a plain literal for the name.
fn computes_a_name(sql: &[u8]) -> bool {
    const CALL: &[u8] = b"set_config";
    let lower = sql.to_ascii_lowercase();
    memmem::find_iter(&lower, CALL).any(|at| {
        let rest = &lower[at + CALL.len()..];
        // A quoted name of the function ends with its quote.
        let rest = rest.strip_prefix(b"\"").unwrap_or(rest).trim_ascii_start();
        let name = rest.strip_prefix(b"(").and_then(|rest| rest.trim_ascii_start().strip_prefix(b"'"));
        let behind = name.and_then(|name| {
            let length = name.iter().position(|byte| !is_plain(*byte))?;
            name[length..].strip_prefix(b"'")
        });
        !behind.is_some_and(|behind| behind.trim_ascii_start().starts_with(b","))
    })
}

/// What a literal is made of that says nothing but itself.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$') || byte >= 0x80
}

/// Whether a name of two parts may be spelled with escapes, or with something around its dot.
fn spells_a_name_oddly(sql: &[u8]) -> bool {
    // Quotes of another kind: where literals begin and end in there is not followed.
    let in_dollars = sql.split(|byte| *byte == b'$').nth(2).is_some();
    let mut at = 0;
    while let Some(byte) = sql.get(at) {
        let rest = &sql[at..];
        at += match byte {
            b'\'' if !in_dollars => {
                let escapes = sql[..at].last().is_some_and(|byte| byte.eq_ignore_ascii_case(&b'e'));
                match literal(&rest[1..], escapes) {
                    Some(length) => 1 + length,
                    None => return true,
                }
            }
            b'-' if rest.starts_with(b"--") && !in_dollars => {
                memchr::memchr(b'\n', rest).unwrap_or(rest.len())
            }
            b'/' if rest.starts_with(b"/*") && !in_dollars => {
                memmem::find(rest, b"*/").map_or(rest.len(), |length| length + 2)
            }
            b'&' if rest.starts_with(b"&\"") => return true,
            b'"' => {
                let length = memchr::memchr(b'"', &rest[1..]).map_or(rest.len(), |length| length + 2);
                let (quoted, behind) = rest.split_at(length);
                let is_part = sql[..at].ends_with(b".") || behind.starts_with(b".");
                if is_part && !quoted[1..].iter().all(|byte| is_part_of_name(*byte)) {
                    return true;
                }
                length
            }
            b'.' if stands_alone(sql, at) => return true,
            _ => 1,
        };
    }
    false
}

/// How long a literal is, with the quote at its end; `None` if that goes by a setting that is not followed.
fn literal(text: &[u8], escapes: bool) -> Option<usize> {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\'' => return Some(at + 1),
            b'\\' if escapes => at += 1,
            b'\\' if text.get(at + 1) == Some(&b'\'') => return None,
            _ => {}
        }
        at += 1;
    }
    Some(text.len())
}

/// Whether the dot at `at` is part of no number, and something other than a name stands at one of its sides.
fn stands_alone(sql: &[u8], at: usize) -> bool {
    let sides = [at.checked_sub(1).and_then(|at| sql.get(at)), sql.get(at + 1)];
    let is_number = |byte: &Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let touches = |byte: &Option<&u8>| byte.is_some_and(|byte| is_part_of_name(*byte));
    !sides.iter().any(is_number) && !sides.iter().all(touches)
}

fn is_part_of_name(byte: u8) -> bool {
    is_plain(byte) || byte == b'"'
}

#[cfg(test)]
mod tests {
    use super::{Followed, NAME_LONGEST, NAMES_MAX, hides_a_name, names};

    #[test]
    fn a_name_that_is_not_written_is_told() {
        for sql in [
            "select set_config($1, $2, false)",
            "select SET_CONFIG ( lower('A.b'), '1', false)",
            "select set_config('app' || '.tenant', 'x', false)",
            "select set_config/**/('a.b', 'x', false)",
            "select set_config -- x\n ($1, 'x', false)",
            "select set_config(E'a\\x2eb', 'x', false)",
            "select set_config('a''b.c', 'x', false)",
            "select set_config",
            "set U&\"\\0061pp\".tenant = 'x'",
            "set app . tenant = 'x'",
            "set app./**/tenant = 'x'",
            "set \"my app\".tenant = 'x'",
            "set app.\"the tenant\" = 'x'",
            "select e'\\''; set app . tenant = 'x'",
            "select 'a\\'; set app . tenant = 'x' --'",
            "do $$ begin perform 'it''s'; execute 'set app . tenant = 1'; end $$",
        ] {
            assert!(hides_a_name(sql.as_bytes()), "{sql}");
        }
    }

    #[test]
    fn what_is_written_plainly_hides_nothing() {
        for sql in [
            "select set_config('a.b', $1, false)",
            "select \"set_config\"( 'a' , 'b', true)",
            "set a.b = 1",
            "set a.b = 1.5; set c = .5; set d = 5.",
            "set a.b = 'A sentence. And another . one'",
            "/* What it is about. */ set a.b = 1 -- there. It is",
            "set search_path to \"my-schema\", \"$user\"",
            "set \"app\".\"tenant\" = 'it''s . odd'",
        ] {
            assert!(!hides_a_name(sql.as_bytes()), "{sql}");
        }
    }

    #[test]
    fn names_are_found_wherever_they_stand() {
        let found = |sql: &str| {
            let mut found = Vec::new();
            assert_eq!(names(sql.as_bytes(), &mut found), Followed::All);
            found.iter().map(|name| String::from_utf8(name.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(found("SET App.Tenant = 'x'"), ["app.tenant"]);
        assert_eq!(found("set \"app\".\"tenant\" to 1"), ["app.tenant"]);
        assert_eq!(found("select set_config('app.tenant', '1.5', false)"), ["app.tenant"]);
        assert_eq!(found("set ärger.groß = 1"), ["ärger.groß"]);
        assert!(found("set x = 1.5; select .a, b.").is_empty());
    }

    #[test]
    fn more_names_than_are_followed_are_told() {
        let many: String = (0..NAMES_MAX).map(|at| format!("set a.b{at} = 1;")).collect();
        let mut found = Vec::new();
        assert_eq!(names(many.as_bytes(), &mut found), Followed::All);
        assert_eq!(names(b"set a.b0 = 2", &mut found), Followed::All);
        assert_eq!(names(b"set a.c = 1", &mut found), Followed::NotAll);
        let long = format!("set a.{} = 1", "x".repeat(NAME_LONGEST));
        assert_eq!(names(long.as_bytes(), &mut found), Followed::NoneSoLong);
    }
}
