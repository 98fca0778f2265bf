//! What is said to the console: PgBouncer's words, one command at a time.

use super::columns::Shown;

/// A command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Nothing but spaces.
    Nothing,
    /// A table.
    Show(Shown),
    /// How the console is used.
    Help,
    /// Clients of a database, or of all, get no servers any more, and those that are lent come back.
    Pause(Option<Box<str>>),
    /// They get servers again.
    Resume(Option<Box<str>>),
    /// Clients and servers of a database, or of all, are ended, and it is paused.
    Kill(Option<Box<str>>),
    /// One client is ended.
    KillClient(u64),
    /// Servers are closed as soon as nobody holds them.
    Reconnect(Option<Box<str>>),
    /// Waits until those that were to be closed are.
    WaitClose(Option<Box<str>>),
    /// New clients of a database are turned away.
    Disable(Box<str>),
    /// They are let in again.
    Enable(Box<str>),
    /// The config file is read again.
    Reload,
    /// A setting of sessions that means nothing here.
    SetIgnored,
}

/// Why a text is no command.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// It is none of PgBouncer's.
    #[error("invalid command '{0}', use SHOW HELP;")]
    Unknown(Box<str>),
    /// It is one, and there is something better.
    #[error("{0}")]
    Elsewhere(&'static str),
}

/// Settings that drivers make before they ask anything.
const IGNORED: [&str; 8] = [
    "application_name",
    "client_encoding",
    "client_min_messages",
    "datestyle",
    "extra_float_digits",
    "standard_conforming_strings",
    "statement_timeout",
    "timezone",
];

impl Command {
    /// Reads one command.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn read(text: &str) -> Result<Self, CommandError> {
        let unknown = || CommandError::Unknown(text.trim().into());
        let words = words(text).ok_or_else(unknown)?;
        let keys: Vec<String> = words.iter().map(|word| word.keyword()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let name = |at: usize| words[at].text.as_str().into();
        let maybe = |make: fn(Option<Box<str>>) -> Command| match words.len() {
            1 => Ok(make(None)),
            2 => Ok(make(Some(name(1)))),
            _ => Err(unknown()),
        };
        match keys[..] {
            [] => Ok(Command::Nothing),
            ["show", "help"] => Ok(Command::Help),
            ["show", "fds"] => Err(CommandError::Elsewhere(
                "sockets are handed to nobody: a reload cuts nothing, and `tieline stop` drains",
            )),
            ["show", what] => Shown::from_word(what).map(Command::Show).ok_or_else(unknown),
            ["show", "time", "zone"] => Ok(Command::Show(Shown::TimeZone)),
            ["pause", ..] => maybe(Command::Pause),
            ["resume", ..] => maybe(Command::Resume),
            ["kill", ..] => maybe(Command::Kill),
            ["reconnect", ..] => maybe(Command::Reconnect),
            ["wait_close", ..] => maybe(Command::WaitClose),
            ["disable", _] => Ok(Command::Disable(name(1))),
            ["enable", _] => Ok(Command::Enable(name(1))),
            ["kill_client", id] => id.parse().map(Command::KillClient).map_err(|_| unknown()),
            ["reload"] => Ok(Command::Reload),
            ["set", "time", "zone", ..] => Ok(Command::SetIgnored),
            ["set", key, ..] | ["set", "session", key, ..] if IGNORED.contains(&key) => {
                Ok(Command::SetIgnored)
            }
            ["set", ..] => {
                Err(CommandError::Elsewhere("settings are those of the config file: change it, and RELOAD"))
            }
            ["suspend" | "shutdown", ..] => {
                Err(CommandError::Elsewhere("the server is stopped by `tieline stop`, which drains it"))
            }
            _ => Err(unknown()),
        }
    }

    /// What says that it was done.
    pub(crate) fn tag(&self) -> &'static str {
        match self {
            Command::Nothing => "",
            Command::Show(_) | Command::Help => "SHOW",
            Command::Pause(_) => "PAUSE",
            Command::Resume(_) => "RESUME",
            Command::Kill(_) => "KILL",
            Command::KillClient(_) => "KILL_CLIENT",
            Command::Reconnect(_) => "RECONNECT",
            Command::WaitClose(_) => "WAIT_CLOSE",
            Command::Disable(_) => "DISABLE",
            Command::Enable(_) => "ENABLE",
            Command::Reload => "RELOAD",
            Command::SetIgnored => "SET",
        }
    }
}

/// A word of a command.
#[derive(PartialEq, Eq, Debug)]
struct Word {
    text: String,
    quoted: bool,
}

impl Word {
    /// As it is compared with the console's own words; a quoted one is a name, and none of them.
    fn keyword(&self) -> String {
        if self.quoted { format!("\"{}", self.text) } else { self.text.to_ascii_lowercase() }
    }
}

/// The parts of a text that semicolons outside quotes and comments part.
pub(crate) fn statements(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut rest) = (Vec::new(), 0, text);
    while let Some(piece) = piece(rest) {
        let at = text.len() - rest.len();
        rest = &rest[piece.length..];
        if matches!(piece.what, What::End) {
            parts.push(&text[from..at]);
            from = at + piece.length;
        }
    }
    parts.push(&text[from..]);
    parts.retain(|part| words(part).is_none_or(|words| !words.is_empty()));
    parts
}

/// The words of a command; `None` if a quote does not end. A semicolon at the end is none of them, and an
/// equals sign stands for a space.
fn words(text: &str) -> Option<Vec<Word>> {
    let (mut words, mut rest) = (Vec::new(), text);
    while let Some(piece) = piece(rest) {
        rest = &rest[piece.length..];
        match piece.what {
            What::Word(word) => words.push(word),
            What::Open => return None,
            What::End | What::Space => {}
        }
    }
    Some(words)
}

/// What a text begins with.
struct Piece {
    what: What,
    /// In bytes, 1 at least.
    length: usize,
}

enum What {
    Space,
    Word(Word),
    /// A semicolon.
    End,
    /// A quote or a comment without an end.
    Open,
}

fn piece(text: &str) -> Option<Piece> {
    let first = text.chars().next()?;
    let piece = |what, length| Some(Piece { what, length });
    match first {
        ';' => piece(What::End, 1),
        '=' => piece(What::Space, 1),
        _ if first.is_whitespace() => piece(What::Space, first.len_utf8()),
        _ if text.starts_with("--") => piece(What::Space, text.find('\n').unwrap_or(text.len())),
        _ if text.starts_with("/*") => match text.find("*/") {
            Some(end) => piece(What::Space, end + 2),
            None => piece(What::Open, text.len()),
        },
        '"' | '\'' => match quoted(text, first) {
            Some((inner, length)) => piece(What::Word(Word { text: inner, quoted: true }), length),
            None => piece(What::Open, text.len()),
        },
        _ => {
            let ends = |c: char| c.is_whitespace() || matches!(c, ';' | '=' | '"' | '\'');
            let length = text.find(ends).unwrap_or(text.len());
            piece(What::Word(Word { text: text[..length].into(), quoted: false }), length)
        }
    }
}

/// The text between quotes, doubled ones within being one, and how long it is with them.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let (mut inner, mut chars) = (String::new(), text.char_indices().skip(1).peekable());
    while let Some((at, c)) = chars.next() {
        if c != quote {
            inner.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            inner.push(quote);
        } else {
            return Some((inner, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Command {
        Command::read(text).unwrap()
    }

    #[test]
    fn commands_are_read_in_any_case_and_names_as_they_are() {
        assert_eq!(read("SHOW pools;"), Command::Show(Shown::Pools));
        assert_eq!(read(" show\n Version ; "), Command::Show(Shown::Version));
        assert_eq!(read("PAUSE"), Command::Pause(None));
        assert_eq!(read("pause Orders;"), Command::Pause(Some("Orders".into())));
        assert_eq!(read("KILL \"a \"\" b\""), Command::Kill(Some("a \" b".into())));
        assert_eq!(read("kill_client 17"), Command::KillClient(17));
        assert_eq!(read("set client_encoding = 'UTF8'"), Command::SetIgnored);
        assert_eq!(read("SET datestyle TO ISO"), Command::SetIgnored);
        assert_eq!(read("/* who */ show -- what\n help"), Command::Help);
        assert_eq!(read(" ; "), Command::Nothing);
    }

    #[test]
    fn what_is_no_command_says_so() {
        for text in ["select 1", "show", "show nothing", "pause a b", "kill_client x", "\"show\" pools", "'"]
        {
            let error = Command::read(text).unwrap_err();
            assert_eq!(error, CommandError::Unknown(text.into()), "{text}");
        }
        assert!(matches!(Command::read("show fds"), Err(CommandError::Elsewhere(_))));
        assert!(matches!(Command::read("shutdown"), Err(CommandError::Elsewhere(_))));
        assert!(matches!(Command::read("set max_client_conn = 1"), Err(CommandError::Elsewhere(_))));
    }

    #[test]
    fn semicolons_part_commands_and_those_in_quotes_do_not() {
        assert_eq!(statements("show a;show b;"), ["show a", "show b"]);
        assert_eq!(statements("pause \"a;b\"; -- ;\n"), ["pause \"a;b\""]);
        assert!(statements(" ; ;").is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_a_command_or_none(text in "[ -~\u{e9}\n]{0,60}") {
            let _ = Command::read(&text);
            let parts: usize = statements(&text).iter().map(|part| part.len()).sum();
            prop_assert!(parts <= text.len());
        }

        #[test]
        fn a_quoted_name_is_that_name(name in "[ -~]{1,40}") {
            let text = format!("disable \"{}\"", name.replace('"', "\"\""));
            prop_assert_eq!(read(&text), Command::Disable(name.into()));
        }
    }
}
