//! Which SQL may leave something behind in its session. Not a parser: it knows words, quotes and comments,
//! and where it cannot be sure it suspects. Whoever is told of a suspicion asks the server what is true.

use std::ops::{BitOr, BitOrAssign};

use super::needle::has_needle;

/// What a text may leave behind, as a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Suspicion(u16);

impl Suspicion {
    /// Nothing.
    pub const NONE: Suspicion = Suspicion(0);
    /// Settings, the role and the user among them.
    pub const SETTINGS: Suspicion = Suspicion(1);
    /// Advisory locks of the session.
    pub const LOCKS: Suspicion = Suspicion(2);
    /// Temporary tables, or fewer of them.
    pub const TEMPORARY: Suspicion = Suspicion(4);
    /// Channels that it listens to.
    pub const LISTENING: Suspicion = Suspicion(8);
    /// Cursors that outlive their transaction.
    pub const CURSORS: Suspicion = Suspicion(16);
    /// Statements that were prepared by SQL, or fewer of them.
    pub const PREPARED: Suspicion = Suspicion(32);
    /// Something that nothing undoes: a library that was loaded, a seed, a backup that was begun.
    pub const LASTING: Suspicion = Suspicion(64);
    /// All prepared statements are gone, ours too.
    pub const DISCARDED: Suspicion = Suspicion(128);
    /// Nothing itself: it asks what sequences said last, which others may have left behind.
    pub const SEQUENCES: Suspicion = Suspicion(256);
    /// Settings by names that are not written in the text: what it does stands elsewhere.
    pub const UNSEEN: Suspicion = Suspicion(512);
    /// Everything that can be asked for.
    pub const ALL: Suspicion = Suspicion(1 | 2 | 4 | 8 | 16 | 32);

    /// Whether there is nothing.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether it has something of `other`.
    pub const fn has(self, other: Suspicion) -> bool {
        self.0 & other.0 != 0
    }

    /// What is left without `other`.
    #[must_use]
    pub const fn without(self, other: Suspicion) -> Suspicion {
        Suspicion(self.0 & !other.0)
    }
}

impl BitOr for Suspicion {
    type Output = Suspicion;

    fn bitor(self, other: Suspicion) -> Suspicion {
        Suspicion(self.0 | other.0)
    }
}

impl BitOrAssign for Suspicion {
    fn bitor_assign(&mut self, other: Suspicion) {
        self.0 |= other.0;
    }
}

/// What `sql`, which may be several statements, may leave behind.
pub fn suspect(sql: &[u8]) -> Suspicion {
    if is_harmless(sql) {
        return Suspicion::NONE;
    }
    let mut scan = Scan::default();
    scan.feed(sql);
    let found = scan.finish();
    // In a string too: it may become part of the path.
    if names_temporary_schema(sql) { found | Suspicion::TEMPORARY } else { found }
}

/// Whether the schema of temporary tables is named somewhere in `text`, which may be SQL or a `search_path`.
pub fn names_temporary_schema(text: &[u8]) -> bool {
    const NAME: &[u8] = b"pg_temp";
    let is_name = |at: usize| {
        let begun = at.checked_sub(2).and_then(|at| text.get(at..at + NAME.len()));
        begun.is_some_and(|name| name.eq_ignore_ascii_case(NAME))
    };
    memchr::memchr_iter(b'_', text).any(is_name)
}

/// Whether a first look finds one statement that reads or writes rows, and nothing in it that could be more.
fn is_harmless(sql: &[u8]) -> bool {
    const ROWS: [&[u8; 6]; 4] = [b"select", b"insert", b"update", b"delete"];
    let Some((word, rest)) = sql.split_first_chunk::<6>() else { return false };
    let lower = word.map(|byte| byte | 0x20);
    let rest = rest.trim_ascii_end();
    let rest = rest.strip_suffix(b";").unwrap_or(rest);
    ROWS.contains(&&lower) && rest.first().is_none_or(|byte| !is_word(*byte)) && !has_needle(rest)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// A look at a text that comes in pieces.
#[derive(Clone, Debug)]
pub struct Scan {
    state: State,
    word: [u8; WORD_MAX],
    length: usize,
    /// How many words of its statement came before, as far as it matters.
    words: u8,
    first: First,
    found: Suspicion,
    /// The tag of a dollar quote that is open, without its dollars.
    tag: Vec<u8>,
}

/// What is kept of a word; those that matter are shorter.
const WORD_MAX: usize = 40;

/// A tag that is longer is not one that anybody writes.
const TAG_MAX: usize = 64;

/// How a statement began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum First {
    #[default]
    Other,
    Set,
    Declare,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Plain,
    Word,
    Number,
    /// In a string; whether a backslash escapes there, and whether one came just now.
    String {
        escapes: bool,
        escaped: bool,
    },
    Quoted,
    Dash,
    LineComment,
    Slash,
    Comment {
        depth: u32,
        last: u8,
    },
    /// A dollar, and perhaps a tag behind it.
    Tag,
    /// In a dollar quote; how much of its end has come.
    Dollar {
        matched: usize,
    },
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            state: State::Plain,
            word: [0; WORD_MAX],
            length: 0,
            words: 0,
            first: First::Other,
            found: Suspicion::NONE,
            tag: Vec::new(),
        }
    }
}

impl Scan {
    /// Takes the next piece.
    pub fn feed(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.step(*byte));
    }

    /// The verdict, when there is no more.
    pub fn finish(mut self) -> Suspicion {
        match self.state {
            State::Word => self.end_word(false),
            // What is left open is an error of its own, or we misread it.
            State::String { .. } | State::Quoted | State::Comment { .. } | State::Dollar { .. } => {
                self.found |= Suspicion::ALL;
            }
            _ => {}
        }
        self.end_statement();
        self.found
    }

    fn step(&mut self, byte: u8) {
        match self.state {
            State::Plain => self.plain(byte),
            State::Word if is_word(byte) => self.push(byte),
            State::Word => {
                let escapes = self.length == 1 && self.word[0] == b'e';
                if byte == b'\'' && escapes {
                    self.length = 0;
                    self.state = State::String { escapes: true, escaped: false };
                    return;
                }
                self.end_word(false);
                self.plain(byte);
            }
            State::Number if is_word(byte) || byte == b'.' => {}
            State::Number => self.plain(byte),
            State::String { escapes, escaped } => self.string(byte, escapes, escaped),
            State::Quoted if byte == b'"' => {
                self.end_word(true);
                self.state = State::Plain;
            }
            State::Quoted => {
                // It may be spelled with escapes, which we do not read.
                if byte == b'\\' {
                    self.found |= Suspicion::ALL;
                }
                self.push(byte);
            }
            State::Dash if byte == b'-' => self.state = State::LineComment,
            State::Slash if byte == b'*' => self.state = State::Comment { depth: 1, last: 0 },
            State::Dash | State::Slash => self.plain(byte),
            State::LineComment if byte == b'\n' || byte == b'\r' => self.state = State::Plain,
            State::LineComment => {}
            State::Comment { depth, last } => self.comment(byte, depth, last),
            State::Tag => self.tag(byte),
            State::Dollar { matched } => self.dollar(byte, matched),
        }
    }

    fn plain(&mut self, byte: u8) {
        self.state = match byte {
            b'\'' => {
                self.not_a_word();
                State::String { escapes: false, escaped: false }
            }
            b'"' => {
                self.length = 0;
                State::Quoted
            }
            b'-' => State::Dash,
            b'/' => State::Slash,
            b'$' => {
                self.tag.clear();
                State::Tag
            }
            b';' => {
                self.end_statement();
                State::Plain
            }
            b'0'..=b'9' => State::Number,
            _ if is_word(byte) => {
                self.length = 0;
                self.push(byte);
                State::Word
            }
            _ => State::Plain,
        };
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.word.get_mut(self.length) {
            *place = byte.to_ascii_lowercase();
        }
        self.length += 1;
    }

    fn string(&mut self, byte: u8, escapes: bool, escaped: bool) {
        self.state = match byte {
            _ if escaped && escapes => State::String { escapes, escaped: false },
            b'\\' => State::String { escapes, escaped: true },
            b'\'' => {
                // Whether it ends here goes by a setting that we do not follow.
                if escaped {
                    self.found |= Suspicion::ALL;
                }
                // A second one at once opens it again, which comes to the same.
                State::Plain
            }
            _ => State::String { escapes, escaped: false },
        };
    }

    fn comment(&mut self, byte: u8, depth: u32, last: u8) {
        self.state = match (last, byte) {
            (b'*', b'/') if depth == 1 => State::Plain,
            (b'*', b'/') => State::Comment { depth: depth - 1, last: 0 },
            (b'/', b'*') => State::Comment { depth: depth.saturating_add(1), last: 0 },
            _ => State::Comment { depth, last: byte },
        };
    }

    fn tag(&mut self, byte: u8) {
        match byte {
            b'$' => self.state = State::Dollar { matched: 0 },
            // `$1` is a parameter.
            b'0'..=b'9' if self.tag.is_empty() => self.state = State::Number,
            _ if is_word(byte) && self.tag.len() < TAG_MAX => self.tag.push(byte),
            _ => {
                self.state = State::Plain;
                self.plain(byte);
            }
        }
    }

    fn dollar(&mut self, byte: u8, matched: usize) {
        // `matched` counts the first dollar of the end, and what follows of it.
        let matched = match matched {
            0 => usize::from(byte == b'$'),
            _ if matched <= self.tag.len() && self.tag[matched - 1] == byte => matched + 1,
            _ if matched == self.tag.len() + 1 && byte == b'$' => {
                self.state = State::Plain;
                return;
            }
            _ => usize::from(byte == b'$'),
        };
        self.state = State::Dollar { matched };
    }

    /// What follows `set` is no word of its own.
    fn not_a_word(&mut self) {
        if self.first == First::Set && self.words == 1 {
            self.found |= Suspicion::SETTINGS;
        }
    }

    fn end_word(&mut self, quoted: bool) {
        let length = self.length.min(WORD_MAX);
        let (word, whole) = (self.word, self.length <= WORD_MAX);
        let word = &word[..length];
        self.length = 0;
        self.state = State::Plain;
        self.found |= anywhere(word);
        if self.words == 0 && !quoted && whole {
            let (first, found) = beginning(word);
            self.first = first;
            self.found |= found;
        } else if self.words == 1 && self.first == First::Set {
            let lasts_no_longer = !quoted && matches!(word, b"local" | b"transaction" | b"constraints");
            if !lasts_no_longer {
                self.found |= Suspicion::SETTINGS;
            }
        } else if self.first == First::Declare && word == b"hold" {
            self.found |= Suspicion::CURSORS;
        }
        self.words = self.words.saturating_add(1);
    }

    fn end_statement(&mut self) {
        (self.words, self.first) = (0, First::Other);
    }
}

/// What the first word of a statement means.
fn beginning(word: &[u8]) -> (First, Suspicion) {
    match word {
        b"set" => (First::Set, Suspicion::NONE),
        b"declare" => (First::Declare, Suspicion::NONE),
        b"reset" => (First::Other, Suspicion::SETTINGS),
        b"listen" | b"unlisten" => (First::Other, Suspicion::LISTENING),
        b"prepare" => (First::Other, Suspicion::PREPARED),
        b"deallocate" => (First::Other, Suspicion::PREPARED | Suspicion::DISCARDED),
        b"discard" => (First::Other, Suspicion::ALL | Suspicion::DISCARDED),
        b"load" => (First::Other, Suspicion::LASTING),
        b"close" => (First::Other, Suspicion::CURSORS),
        b"drop" => (First::Other, Suspicion::TEMPORARY),
        // What they do is not written here.
        b"do" | b"call" => (First::Other, Suspicion::ALL | Suspicion::UNSEEN),
        _ => (First::Other, Suspicion::NONE),
    }
}

/// Functions that leave behind what is nobody's business to undo: slots, which may be temporary, origins,
/// connections of the server's own, backups.
const LASTING: [&[u8]; 9] = [
    b"pg_backup_start",
    b"pg_start_backup",
    b"pg_create_physical_replication_slot",
    b"pg_create_logical_replication_slot",
    b"pg_copy_physical_replication_slot",
    b"pg_copy_logical_replication_slot",
    b"pg_replication_origin_session_setup",
    b"dblink_connect",
    b"dblink_connect_u",
];

/// What a word means wherever it stands.
fn anywhere(word: &[u8]) -> Suspicion {
    let contains = |part: &[u8]| memchr::memmem::find(word, part).is_some();
    match word {
        // What it sets may be the path, for as long as something is made of by it in a temporary schema.
        b"set_config" => Suspicion::SETTINGS | Suspicion::TEMPORARY,
        b"setseed" => Suspicion::LASTING,
        b"temp" | b"temporary" => Suspicion::TEMPORARY,
        // What was prepared is not written here.
        b"execute" => Suspicion::ALL | Suspicion::UNSEEN,
        // They can be written to.
        b"pg_settings" => Suspicion::SETTINGS | Suspicion::TEMPORARY,
        b"lastval" | b"currval" => Suspicion::SEQUENCES,
        _ if word.starts_with(b"pg_temp") => Suspicion::TEMPORARY,
        _ if LASTING.contains(&word) => Suspicion::LASTING,
        _ if word.len() >= 8 && contains(b"advisory") && !contains(b"xact") => Suspicion::LOCKS,
        _ => Suspicion::NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(sql: &str) -> Suspicion {
        suspect(sql.as_bytes())
    }

    #[test]
    fn what_reads_and_writes_rows_leaves_nothing_behind() {
        for sql in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
            "select 'set_x; reset all', $1, \"reset\" from t -- ; set x = 1",
            "select 1 /* ; set x = 1 /* nested */ ; reset all */;",
            "select $$; set x = 1$$, $tag$ $$ ; reset all $tag$",
            "update t set x = 1 where temperature > 3",
            "begin; update t set a = 'b''; reset all'; commit",
            "set local x = 1; set transaction read only; SET CONSTRAINTS ALL DEFERRED",
            "select 1 from t limit 5 offset 10 ;",
            "select pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2)",
            "declare c cursor for select 1",
            "",
            ";;",
        ] {
            assert_eq!(of(sql), Suspicion::NONE, "{sql}");
        }
    }

    #[test]
    fn what_changes_the_session_is_suspected() {
        for (sql, found) in [
            ("SET x = 1", Suspicion::SETTINGS),
            ("set \"x\" to 1", Suspicion::SETTINGS),
            ("/* a */ -- b\n Set Session Characteristics As Transaction Read Only", Suspicion::SETTINGS),
            ("select 1; reset all", Suspicion::SETTINGS),
            ("select pg_catalog.set_config('a', 'b', false)", Suspicion::SETTINGS | Suspicion::TEMPORARY),
            ("SELECT SET_CONFIG('a', 'b', false)", Suspicion::SETTINGS | Suspicion::TEMPORARY),
            ("select \"set_config\"('a', 'b', false)", Suspicion::SETTINGS | Suspicion::TEMPORARY),
            ("select Pg_Advisory_Lock(1)", Suspicion::LOCKS),
            ("select pg_try_advisory_lock_shared(1)", Suspicion::LOCKS),
            ("create temp table t (a int)", Suspicion::TEMPORARY),
            ("create table pg_temp.t (a int)", Suspicion::TEMPORARY),
            ("select 1 into temporary t", Suspicion::TEMPORARY),
            ("listen a", Suspicion::LISTENING),
            ("begin; declare c cursor with hold for select 1; end", Suspicion::CURSORS),
            ("prepare p as select 1", Suspicion::PREPARED),
            ("select setseed(0.5)", Suspicion::LASTING),
            ("load 'x'", Suspicion::LASTING),
            (
                "update pg_settings set setting = '1' where name = 'a'",
                Suspicion::SETTINGS | Suspicion::TEMPORARY,
            ),
            ("select pg_backup_start('nightly')", Suspicion::LASTING),
            ("SELECT * FROM pg_start_backup('nightly')", Suspicion::LASTING),
            ("select pg_create_logical_replication_slot('a', 'pgoutput', true)", Suspicion::LASTING),
            ("select pg_create_physical_replication_slot('a', true, true)", Suspicion::LASTING),
            ("select pg_copy_physical_replication_slot('a', 'b', true)", Suspicion::LASTING),
            ("select pg_replication_origin_session_setup('a')", Suspicion::LASTING),
            ("select dblink_connect_u('a', 'dbname=b')", Suspicion::LASTING),
            ("select 1 where a = ';' and 'x' = 'TEMP' or pg_advisory_lock(1)", Suspicion::LOCKS),
            ("select 12345678901 , setseed(1)", Suspicion::LASTING),
            ("set local search_path = 'PG_TEMP', public", Suspicion::TEMPORARY),
            ("select lastval()", Suspicion::SEQUENCES),
            ("insert into t values (CURRVAL('s'))", Suspicion::SEQUENCES),
            ("select U&\"set\\005fconfig\"('a', 'b', false)", Suspicion::ALL),
        ] {
            assert_eq!(of(sql), found, "{sql}");
        }
        assert_eq!(of("do $$ begin end $$"), Suspicion::ALL | Suspicion::UNSEEN);
        assert!(of("DISCARD ALL").has(Suspicion::DISCARDED));
    }

    #[test]
    fn where_quotes_may_end_in_two_ways_everything_is_suspected() {
        // With standard_conforming_strings off the string goes on behind the backslash.
        assert_eq!(of("select 1 where a = 'b\\' ; set x = 1 --'"), Suspicion::ALL);
        assert_eq!(of("select e'it\\'s; set x = 1'"), Suspicion::NONE);
        assert_eq!(of("begin 'open"), Suspicion::ALL);
    }

    proptest! {
        /// A text says the same whole and in pieces, and the first look never clears what the second would
        /// not.
        #[test]
        fn pieces_and_shortcuts_change_nothing(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "select ", "set ", "'", "\"", "$$", "$a$", "--", "\n", "/*", "*/", ";", "e'", "\\", "x",
                    "1", "reset", "temp ", " ", "_", "set_config", "advisory", "setseed", "TEMP", "é",
                    "local ",
                    "seLect", "from", "insert ",
                ]),
                0..20,
            ),
            cut in 0usize..100,
        ) {
            let text = parts.concat();
            let bytes = text.as_bytes();
            let mut whole = Scan::default();
            whole.feed(bytes);
            let whole = whole.finish();
            let cut = cut.min(bytes.len());
            let mut pieces = Scan::default();
            pieces.feed(&bytes[..cut]);
            pieces.feed(&bytes[cut..]);
            prop_assert_eq!(pieces.finish(), whole);
            if suspect(bytes).is_none() {
                // The first look does not mind what is left open: the server will.
                prop_assert!(whole.is_none() || whole == Suspicion::ALL, "{text}: {whole:?}");
            }
        }

        /// However a change of settings is dressed up, it is found.
        #[test]
        fn a_statement_is_found_behind_any_other(
            before in prop::sample::select(vec![
                "select 1;", "select ';' ;", "select $x$;$x$ ;", "/* ; */ begin;", "-- ;\n",
                "select \";\";", "",
                "select e'\\';';", "select 'a''b';", "insert into t values (1);",
            ]),
            space in prop::sample::select(vec!["", " ", "\n", "/**/", "--\n"]),
        ) {
            let found = suspect(format!("{before}{space}SeT{space} x = 1").as_bytes());
            // Without anything between, it is one word.
            prop_assert!(found.has(Suspicion::SETTINGS));
        }
    }
}
