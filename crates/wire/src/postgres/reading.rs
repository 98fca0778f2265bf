//! Which SQL surely only reads, so that a server that only reads may be asked it. Whatever is not surely so
//! is not: what is unknown, spelled in a way that is not followed, or different from server to server.
//!
//! A server in recovery refuses writes by itself. What is decided here is what such a server would answer
//! otherwise than the primary (its own activity, its own locks), and what would fail there for nothing.

use super::harmless::COMPUTES;
use super::lexer::{Lexer, Token, Unsure};

/// What a text is to a server that only reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sort {
    /// One statement that surely reads and does nothing else.
    Read,
    /// It begins a transaction that is said to only read, and does nothing else.
    BeginsReadOnly,
    /// It ends a transaction, and does nothing else.
    Ends,
    /// Anything else.
    #[default]
    Other,
}

/// What `sql` is.
pub fn sort(sql: &[u8]) -> Sort {
    sorted(Lexer::new(sql)).unwrap_or_default()
}

/// Whether `sql`, in a transaction that is said to only read, may take that back: no query may come before
/// what does, and it is a statement of its own.
pub fn may_allow_writes(sql: &[u8]) -> bool {
    const HARMLESS: [&[u8]; 18] = [
        b"abort",
        b"close",
        b"commit",
        b"copy",
        b"declare",
        b"end",
        b"explain",
        b"fetch",
        b"move",
        b"release",
        b"rollback",
        b"savepoint",
        b"select",
        b"show",
        b"table",
        b"values",
        b"with",
        b"lock",
    ];
    let mut lexer = Lexer::new(sql);
    let Ok(Some(Token::Word(first))) = lexer.next() else { return true };
    let harmless = HARMLESS.iter().any(|word| first.eq_ignore_ascii_case(word));
    !(harmless && is_one(lexer))
}

/// Whether what is left of a text is one statement to its end.
fn is_one(mut lexer: Lexer<'_>) -> bool {
    loop {
        match lexer.next() {
            Ok(Some(Token::Sign(b';'))) => return is_over(&mut lexer),
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(Unsure) => return false,
        }
    }
}

/// Whether nothing but the ends of statements is left.
fn is_over(lexer: &mut Lexer<'_>) -> bool {
    loop {
        match lexer.next() {
            Ok(None) => return true,
            Ok(Some(Token::Sign(b';'))) => {}
            _ => return false,
        }
    }
}

fn sorted(mut lexer: Lexer<'_>) -> Result<Sort, Unsure> {
    let mut first = lexer.next()?;
    let mut parentheses = 0;
    while first == Some(Token::Sign(b'(')) {
        parentheses += 1;
        first = lexer.next()?;
    }
    let Some(Token::Word(first)) = first else { return Ok(Sort::Other) };
    let first = Folded::of(first);
    let sort = match &*first {
        b"select" | b"values" | b"table" | b"with" => return reads(lexer, first),
        _ if parentheses > 0 => Sort::Other,
        b"show" => shows(&mut lexer)?,
        b"begin" => {
            skip_words(&mut lexer, &[b"work", b"transaction"])?;
            begins(&mut lexer)?
        }
        b"start" if skip_words(&mut lexer, &[b"transaction"])? => begins(&mut lexer)?,
        b"commit" | b"end" | b"rollback" | b"abort" => {
            skip_words(&mut lexer, &[b"work", b"transaction"])?;
            Sort::Ends
        }
        _ => Sort::Other,
    };
    Ok(if is_over(&mut lexer) { sort } else { Sort::Other })
}

/// A word in lower case; longer ones than any that matter are cut off, and so are none of those.
#[derive(Clone, Copy)]
struct Folded {
    bytes: [u8; Folded::MAX],
    length: usize,
}

impl Folded {
    const MAX: usize = 32;

    fn of(word: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX];
        let length = word.len().min(Self::MAX);
        bytes[..length].copy_from_slice(&word[..length]);
        bytes.make_ascii_lowercase();
        Self { bytes, length }
    }
}

impl std::ops::Deref for Folded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Skips the next word if it is one of `words`; whether it was.
fn skip_words(lexer: &mut Lexer<'_>, words: &[&[u8]]) -> Result<bool, Unsure> {
    let Some(Token::Word(word)) = lexer.peek()? else { return Ok(false) };
    let skips = words.iter().any(|wanted| word.eq_ignore_ascii_case(wanted));
    if skips {
        lexer.next()?;
    }
    Ok(skips)
}

/// Behind BEGIN: its modes, and those of SET TRANSACTION right behind it.
fn begins(lexer: &mut Lexer<'_>) -> Result<Sort, Unsure> {
    let mut read_only = false;
    loop {
        match lexer.peek()? {
            None => break,
            Some(Token::Sign(b',')) => drop(lexer.next()?),
            Some(Token::Sign(b';')) => {
                let mut behind = lexer.clone();
                behind.next()?;
                if !(skip_words(&mut behind, &[b"set"])? && skip_words(&mut behind, &[b"transaction"])?) {
                    break;
                }
                *lexer = behind;
            }
            Some(_) => match mode(lexer)? {
                Some(reads) => read_only = reads.unwrap_or(read_only),
                None => return Ok(Sort::Other),
            },
        }
    }
    Ok(if read_only { Sort::BeginsReadOnly } else { Sort::Other })
}

/// One mode of a transaction, and whether it says that the transaction only reads; `None` if it is not
/// known, or a server in recovery would refuse it.
fn mode(lexer: &mut Lexer<'_>) -> Result<Option<Option<bool>>, Unsure> {
    let mut words = [const { Folded { bytes: [0; Folded::MAX], length: 0 } }; 4];
    let mut count = 0;
    while let (true, Some(Token::Word(word))) = (count < words.len(), lexer.peek()?) {
        lexer.next()?;
        words[count] = Folded::of(word);
        count += 1;
        let known = match words.each_ref().map(|word| &**word) {
            [b"read", b"only", ..] => Some(Some(true)),
            [b"read", b"write", ..] => Some(Some(false)),
            [b"deferrable", ..] | [b"not", b"deferrable", ..] => Some(None),
            [b"isolation", b"level", b"repeatable", b"read"] => Some(None),
            [b"isolation", b"level", b"read", b"committed" | b"uncommitted"] => Some(None),
            // SERIALIZABLE there is none in recovery.
            _ => None,
        };
        if known.is_some() {
            return Ok(known);
        }
    }
    Ok(None)
}

/// Behind SHOW: a setting that every session brings with it.
fn shows(lexer: &mut Lexer<'_>) -> Result<Sort, Unsure> {
    const SAME: [&[u8]; 12] = [
        b"application_name",
        b"client_encoding",
        b"datestyle",
        b"extra_float_digits",
        b"integer_datetimes",
        b"intervalstyle",
        b"search_path",
        b"server_encoding",
        b"server_version",
        b"server_version_num",
        b"standard_conforming_strings",
        b"timezone",
    ];
    Ok(if skip_words(lexer, &SAME)? { Sort::Read } else { Sort::Other })
}

/// Behind the first word of a query.
fn reads(mut lexer: Lexer<'_>, first: Folded) -> Result<Sort, Unsure> {
    let (mut last, mut before) = (Some(Before::Word(first)), None);
    while let Some(token) = lexer.next()? {
        let calls = lexer.peek()? == Some(Token::Sign(b'('));
        let fits = match token {
            Token::Value => true,
            Token::Sign(b';') => return Ok(if is_over(&mut lexer) { Sort::Read } else { Sort::Other }),
            Token::Sign(_) => true,
            Token::Quoted(name) => !calls && !is_of_the_server(name),
            Token::Word(word) => word_fits(&Folded::of(word), calls, last, before),
        };
        if !fits {
            return Ok(Sort::Other);
        }
        before = last;
        last = match token {
            Token::Word(word) => Some(Before::Word(Folded::of(word))),
            Token::Sign(sign) => Some(Before::Sign(sign)),
            Token::Quoted(_) | Token::Value => None,
        };
    }
    Ok(Sort::Read)
}

/// What stood before.
#[derive(Clone, Copy)]
enum Before {
    Word(Folded),
    Sign(u8),
}

/// Whether a word may stand in what only reads; `calls`: a parenthesis follows.
fn word_fits(word: &[u8], calls: bool, last: Option<Before>, before: Option<Before>) -> bool {
    // Rows that are written or locked, and where a sequence is, which a copy knows only roughly.
    const NEVER: [&[u8]; 9] =
        [b"into", b"insert", b"update", b"delete", b"merge", b"for", b"returning", b"nextval", b"lock"];
    let qualified = matches!(last, Some(Before::Sign(b'.')));
    let of_catalog = qualified && matches!(before, Some(Before::Word(schema)) if *schema == *b"pg_catalog");
    if NEVER.contains(&word) {
        return false;
    }
    if calls {
        let is_alias = matches!(last, Some(Before::Word(before)) if *before == *b"as");
        return is_alias || ((!qualified || of_catalog) && COMPUTES.binary_search(&word).is_ok());
    }
    word == b"pg_catalog" || !(is_of_the_server(word) || word == b"last_value")
}

/// Whether what bears this name is another thing at every server.
fn is_of_the_server(name: &[u8]) -> bool {
    name.starts_with(b"pg_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(sql: &str) -> Sort {
        sort(sql.as_bytes())
    }

    #[test]
    fn the_words_are_in_order() {
        assert!(COMPUTES.is_sorted());
    }

    #[test]
    fn what_surely_only_reads_is_known() {
        for sql in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
            "select 1",
            "select count(*), max(\"A\"), 'update' from s.t as x(a) where b in ('x', $1) -- for update",
            "with x as materialized (select 1) select * from x union all (values (1)) order by 1 limit 5",
            "(select 1) union (select 2);",
            "table numbers",
            "VALUES (1, 'a')",
            "select pg_catalog.lower(t), now(), current_timestamp(3), a::numeric(10, 2) from t",
            "select e'it\\'s', $$ nextval('x') $$ /* into */ from t;  ; ",
            "show TimeZone",
            "select row_number() over (partition by a order by b) from only (t) fetch first 5 rows only",
            "select last_value(n) over () from t",
        ] {
            assert_eq!(of(sql), Sort::Read, "{sql}");
        }
    }

    #[test]
    fn what_is_not_surely_a_read_is_none() {
        for sql in [
            "",
            ";",
            "insert into t values (1)",
            "select 1; select 2",
            "select 1; delete from t",
            "select * from t for update",
            "select * from t for no key update",
            "select * from t FOR SHARE",
            "select 1 into t",
            "with x as (insert into t values (1) returning 1) select * from x",
            "with x as (select 1) delete from t",
            "select nextval('s')",
            "select pg_catalog.nextval('s')",
            "select setval('s', 1)",
            "select last_value from s",
            "select set_config('a', 'b', false)",
            "select pg_advisory_lock(1)",
            "select pg_advisory_xact_lock(1)",
            "select pg_notify('a', 'b')",
            "select pg_is_in_recovery()",
            "select pg_backend_pid()",
            "select my_function(1)",
            "select s.lower(1)",
            "select \"lower\"('x')",
            "select \"pg_stat_activity\".pid from \"pg_stat_activity\"",
            "select * from pg_stat_activity",
            "select * from pg_catalog.pg_locks",
            "select txid_current()",
            "select lo_create(0)",
            "select dblink_exec('x', 'y')",
            "show transaction_read_only",
            "show in_hot_standby",
            "show all",
            "explain analyze delete from t",
            "execute p",
            "declare c cursor for select 1",
            "fetch 1 from c",
            "copy t to stdout",
            "call p()",
            "do $$ begin end $$",
            "lock t",
            "set x = 1",
            "listen a",
            "create table x as select 1",
            "select 'a\\' , nextval($$s$$) --'",
            "select U&'a'",
            "select u&\"a\"()",
            "prepare p as select 1",
            "begin",
            "begin; select 1; commit",
            "vacuum",
            "select 'open",
        ] {
            assert_eq!(of(sql), Sort::Other, "{sql}");
        }
    }

    #[test]
    fn transactions_that_are_said_to_read_are_known() {
        for sql in [
            "BEGIN READ ONLY",
            "begin transaction read only;",
            "BEGIN WORK ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            "start transaction isolation level read committed read only",
            "START TRANSACTION READ ONLY, NOT DEFERRABLE",
            "begin; set transaction read only",
            "begin read write, read only",
            "BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;",
        ] {
            assert_eq!(of(sql), Sort::BeginsReadOnly, "{sql}");
        }
        for sql in [
            "begin",
            "start transaction",
            "begin read write",
            "begin read only, read write",
            "begin isolation level serializable read only",
            "begin isolation level serializable, read only, deferrable",
            "begin read only; insert into t values (1)",
            "begin; set transaction read only; commit; drop table t",
            "begin; set transaction snapshot 'x'",
            "start read only",
            "begin read",
            "begin only",
        ] {
            assert_eq!(of(sql), Sort::Other, "{sql}");
        }
    }

    #[test]
    fn ends_of_transactions_are_known() {
        for sql in ["commit", "END;", "rollback work", "Abort transaction ;"] {
            assert_eq!(of(sql), Sort::Ends, "{sql}");
        }
        for sql in ["commit and chain", "rollback to a", "commit prepared 'x'", "commit; drop table t"] {
            assert_eq!(of(sql), Sort::Other, "{sql}");
        }
    }

    #[test]
    fn only_what_is_set_first_allows_writes_again() {
        for sql in ["select 1", "SELECT f(x) ;", "fetch 5 from c", "commit", "declare c cursor for select 1"]
        {
            assert!(!may_allow_writes(sql.as_bytes()), "{sql}");
        }
        for sql in [
            "set transaction read write",
            "show x; set transaction read write",
            "set transaction_read_only = off",
            "reset all",
            "do $$ $$",
            "select 'a\\'",
            "",
        ] {
            assert!(may_allow_writes(sql.as_bytes()), "{sql}");
        }
    }

    proptest! {
        /// However words that write are mixed with words that read, and however they are quoted and spaced,
        /// a text is no read if one of them stands there as a word of its own.
        #[test]
        fn no_word_that_writes_is_overlooked(
            before in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..8),
            writes in prop::sample::select(WRITES.to_vec()),
            after in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..8),
            blank in prop::sample::select(vec![" ", "\n", "/**/", "--\n", "\t"]),
        ) {
            let words = [&["select"], &*before, &[writes], &*after].concat();
            let sql = words.join(blank);
            prop_assert_ne!(of(&sql), Sort::Read, "{}", sql);
            let upper = sql.to_ascii_uppercase();
            prop_assert_ne!(of(&upper), Sort::Read, "{}", upper);
        }

        /// What stands in a string, a comment or a name is no word.
        #[test]
        fn what_is_quoted_says_nothing(
            word in prop::sample::select(WRITES.to_vec()),
            quote in prop::sample::select(vec![("'", "'"), ("$$", "$$"), ("/*", "*/1"), ("\"x ", "\"")]),
        ) {
            let quoted = word.replace('\'', "");
            let sql = format!("select {}{quoted}{} from t", quote.0, quote.1);
            prop_assert_eq!(of(&sql), Sort::Read, "{}", sql);
        }

        /// Whatever comes, it is sorted.
        #[test]
        fn every_text_is_sorted(text in "[ -~é\\n]{0,80}") {
            let _ = (of(&text), may_allow_writes(text.as_bytes()));
        }
    }

    /// Pieces of texts that read, each whole in itself.
    const PIECES: [&str; 12] = [
        "a",
        "from",
        "t",
        "'it''s'",
        "$1",
        "(1)",
        "\"insert into\"",
        "/* update */",
        "$x$ for $x$",
        "e'\\''",
        ",",
        "*",
    ];

    /// What makes a text none that only reads.
    const WRITES: [&str; 12] = [
        "insert",
        "update",
        "delete",
        "into",
        "for",
        "nextval('s')",
        "f(1)",
        "; delete",
        "pg_advisory_lock(1)",
        "merge",
        "set_config('a', 'b', true)",
        "pg_locks",
    ];
}
