//! SQL that names a prepared statement: clients know it by their name, servers by ours.

use std::ops::Range;

use tieline_wire::postgres::{HEADER, backend};

/// What a text does with a statement that it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verb {
    Execute,
    Deallocate,
}

/// A text that begins with EXECUTE or DEALLOCATE, and what it names.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Named {
    pub(crate) verb: Verb,
    /// The name, as PostgreSQL reads it.
    pub(crate) name: Vec<u8>,
    /// Where it stands.
    place: Range<usize>,
}

impl Named {
    /// Whether a text that begins like this may be one.
    pub(crate) fn may_begin(sql: &[u8]) -> bool {
        let begun = &sql[blank(sql, 0)..];
        let begins = |verb: &[u8]| {
            let there = begun.len().min(verb.len());
            begun[..there].eq_ignore_ascii_case(&verb[..there])
        };
        // It may be the beginning of a comment.
        begins(b"execute") || begins(b"deallocate") || matches!(begun, b"-" | b"/")
    }

    /// Reads `sql`; `None` if it is anything else.
    pub(crate) fn read(sql: &[u8]) -> Option<Self> {
        let mut at = blank(sql, 0);
        let verb = match &*word(sql, &mut at)? {
            b"execute" => Verb::Execute,
            b"deallocate" => Verb::Deallocate,
            _ => return None,
        };
        at = blank(sql, at);
        let mut start = at;
        let (mut name, mut quoted) = name(sql, &mut at)?;
        if verb == Verb::Deallocate && !quoted && name == b"prepare" {
            at = blank(sql, at);
            start = at;
            (name, quoted) = self::name(sql, &mut at)?;
        }
        let all = verb == Verb::Deallocate && !quoted && name == b"all";
        (!all).then_some(Self { verb, name, place: start..at })
    }

    /// What stands behind the name.
    pub(crate) fn behind<'s>(&self, sql: &'s [u8]) -> &'s [u8] {
        &sql[self.place.end..]
    }

    /// What becomes of places in `sql` where `ours` stands for the name.
    pub(crate) fn renamed(&self, sql: &[u8], ours: &[u8]) -> Renamed {
        // Each begins with a byte that is not the middle of one.
        let characters = |text: &[u8]| text.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        let (before, theirs) = (&sql[..self.place.start], &sql[self.place.clone()]);
        Renamed { before: characters(before), theirs: characters(theirs), ours: characters(ours) + 2 }
    }

    /// The same text with `ours` for the name.
    pub(crate) fn with(&self, sql: &[u8], ours: &[u8]) -> Vec<u8> {
        [&sql[..self.place.start], b"\"", ours, b"\"", &sql[self.place.end..]].concat()
    }
}

/// A text in which a name stands that is longer or shorter than what the client wrote there, in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Renamed {
    /// What stands before it.
    before: usize,
    theirs: usize,
    ours: usize,
}

impl Renamed {
    /// What the client calls the place in its text that the server calls `position`; the first one is 1.
    fn position(self, position: usize) -> usize {
        let Self { before, theirs, ours } = self;
        match position.saturating_sub(1 + before) {
            0 => position,
            within if within < ours => before + 1 + within.min(theirs.saturating_sub(1)),
            behind => before + 1 + theirs + (behind - ours),
        }
    }

    /// The ErrorResponse of `body` with the client's position; `None`: it has none.
    pub(crate) fn in_error(self, body: &[u8]) -> Option<Vec<u8>> {
        let mut error = vec![backend::kind::ERROR_RESPONSE, 0, 0, 0, 0];
        let (mut rest, mut is_found) = (body, false);
        while let Some((field, behind)) = rest.split_first().filter(|(field, _)| **field != 0) {
            let end = memchr::memchr(0, behind)?;
            let (value, next) = behind.split_at(end);
            error.push(*field);
            let position = std::str::from_utf8(value).ok().and_then(|it| it.parse::<usize>().ok());
            match position.filter(|_| *field == b'P') {
                Some(position) => {
                    is_found = true;
                    error.extend_from_slice(self.position(position).to_string().as_bytes());
                }
                None => error.extend_from_slice(value),
            }
            error.push(0);
            rest = &next[1..];
        }
        error.push(0);
        let stated = u32::try_from(error.len() - 1).ok()?;
        error[1..HEADER].copy_from_slice(&stated.to_be_bytes());
        is_found.then_some(error)
    }
}

/// Behind blanks and comments.
fn blank(sql: &[u8], mut at: usize) -> usize {
    loop {
        // A vertical tab is one to servers since 16; to those before, nothing begins with it.
        at += sql[at..].iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0x0b).count();
        let rest = &sql[at..];
        if rest.starts_with(b"--") {
            at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        } else if rest.starts_with(b"/*") {
            at += comment(rest);
        } else {
            return at;
        }
    }
}

/// How long the comment is with which `text` begins; comments stand within comments.
fn comment(text: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        match &text[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    text.len()
}

/// The word at `at`, in lower case.
fn word(sql: &[u8], at: &mut usize) -> Option<Vec<u8>> {
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_' || **byte >= 0x80;
    let length = sql[*at..].iter().take_while(is_part).count();
    let word = sql[*at..*at + length].to_ascii_lowercase();
    *at += length;
    (length > 0).then_some(word)
}

/// The name at `at`, and whether it is quoted.
fn name(sql: &[u8], at: &mut usize) -> Option<(Vec<u8>, bool)> {
    if sql.get(*at) != Some(&b'"') {
        return word(sql, at).map(|word| (word, false));
    }
    let length = memchr::memchr(b'"', &sql[*at + 1..])?;
    let name = sql[*at + 1..*at + 1 + length].to_vec();
    *at += length + 2;
    // A doubled quote is part of a longer name, which nobody gives a statement.
    (sql.get(*at) != Some(&b'"')).then_some((name, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_server_reads_them() {
        for (sql, verb, name, ours) in [
            ("execute One(1)", Verb::Execute, "one", "execute \"x\"(1)"),
            (" EXECUTE \"One\" (1)", Verb::Execute, "One", " EXECUTE \"x\" (1)"),
            ("deallocate prepare p;", Verb::Deallocate, "p", "deallocate prepare \"x\";"),
            ("DEALLOCATE \"all\"", Verb::Deallocate, "all", "DEALLOCATE \"x\""),
            (
                "/* a /* b */ */-- c\nexecute/**/p",
                Verb::Execute,
                "p",
                "/* a /* b */ */-- c\nexecute/**/\"x\"",
            ),
        ] {
            let named = Named::read(sql.as_bytes()).unwrap();
            assert_eq!((named.verb, &*named.name), (verb, name.as_bytes()), "{sql}");
            assert_eq!(named.with(sql.as_bytes(), b"x"), ours.as_bytes());
        }
    }

    #[test]
    fn places_in_a_text_are_where_the_client_wrote_it() {
        for (sql, ours, what) in [
            ("execute p(1, )", "tieline_1f", ')'),
            ("/* \u{e4} */ execute \"much longer than ours\" (1, )", "x", ')'),
            ("deallocate p nonsense", "tieline_1f", 'o'),
            ("execute p(1)", "tieline_1f", 'u'),
        ] {
            let named = Named::read(sql.as_bytes()).unwrap();
            let renamed = named.renamed(sql.as_bytes(), ours.as_bytes());
            let told = String::from_utf8(named.with(sql.as_bytes(), ours.as_bytes())).unwrap();
            let place_in = |text: &str| 1 + text.chars().position(|c| c == what).unwrap();
            let from_end = |text: &str| text.chars().count() - place_in(text);
            let (theirs, there) = (place_in(sql), place_in(&told));
            assert!(theirs == there || from_end(sql) == from_end(&told), "{sql}");
            assert_eq!(renamed.position(there), theirs, "{sql}");
        }
        let within = Named::read(b"execute p(1)").unwrap().renamed(b"execute p(1)", b"tieline_1f");
        assert_eq!([1, 8, 9, 10, 20, 21].map(|at| within.position(at)), [1, 8, 9, 9, 9, 10]);
        let renamed = Named::read(b"execute p(1, )").unwrap().renamed(b"execute p(1, )", b"tieline_1f");
        let error = renamed.in_error(b"SERROR\0C42601\0Msyntax error\0P25\0\0").unwrap();
        assert_eq!(&error[HEADER..], b"SERROR\0C42601\0Msyntax error\0P14\0\0");
        assert_eq!(error[..HEADER], [b'E', 0, 0, 0, error.len() as u8 - 1]);
        for without in [&b"SERROR\0\0"[..], b"Px\0\0", b"P", b""] {
            assert_eq!(renamed.in_error(without), None);
        }
    }

    #[test]
    fn a_beginning_is_enough_to_rule_most_texts_out() {
        for (begun, may) in [
            ("", true),
            (" ", true),
            ("/", true),
            ("/* select", true),
            ("-- a\nexe", true),
            ("-- a\nsel", false),
            ("DE", true),
            ("execute one", true),
            ("del", false),
            ("s", false),
        ] {
            assert_eq!(Named::may_begin(begun.as_bytes()), may, "{begun:?}");
        }
    }

    #[test]
    fn what_names_nothing_is_left_alone() {
        for sql in
            ["deallocate all", "DEALLOCATE PREPARE ALL", "select 1", "execute", "execute \"a\"\"b\"", ""]
        {
            assert_eq!(Named::read(sql.as_bytes()), None, "{sql}");
        }
    }
}
