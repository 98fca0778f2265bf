//! Files in PgBouncer's form: sections of keys, and within a database's line keys again.

use std::sync::Arc;

/// One line that sets something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Setting {
    /// In lower case, without its brackets.
    pub(super) section: String,
    /// As written, quotes taken off.
    pub(super) key: String,
    pub(super) value: String,
    /// From 1, those of files that are included counted in ([`Lines`]).
    pub(super) line: usize,
}

/// What a file says, with all that it includes.
pub(super) struct Read {
    pub(super) settings: Vec<Setting>,
    /// The lines that are none of its form, and why.
    pub(super) wrong: Vec<(usize, String)>,
    /// Where all lines are from.
    pub(super) lines: Lines,
}

/// Where lines are from: those of files that are included are counted with the others, as they are read.
#[derive(Default)]
pub(super) struct Lines(Vec<(Arc<str>, usize)>);

impl Lines {
    /// The file of a line, and its number there.
    pub(super) fn place(&self, line: usize) -> (&str, usize) {
        let place = self.0.get(line.saturating_sub(1)).or(self.0.first());
        place.map_or(("", line), |(file, line)| (file, *line))
    }
}

/// So many files may include one another, as in PgBouncer.
const DEPTH_MAX: usize = 10;

/// So many lines are read of all files together.
const LINES_MAX: usize = 1_000_000;

/// The name and the text of a file that is included, or why there is none.
type Include<'i> = &'i mut dyn FnMut(&str) -> Result<(String, String), String>;

/// What the `text` of `file` says; `include` reads others.
pub(super) fn parse(file: &str, text: &str, include: Include<'_>) -> Read {
    let read = Read { settings: Vec::new(), wrong: Vec::new(), lines: Lines::default() };
    let mut reading = Reading { read, section: String::new(), include };
    reading.file(file, text, 0);
    reading.read
}

struct Reading<'i> {
    read: Read,
    /// It goes on into a file that is included, and out of it.
    section: String,
    include: Include<'i>,
}

impl Reading<'_> {
    fn file(&mut self, file: &str, text: &str, depth: usize) {
        let file: Arc<str> = file.into();
        for (number, text) in (1..).zip(text.lines()) {
            if self.read.lines.0.len() >= LINES_MAX {
                return;
            }
            self.read.lines.0.push((file.clone(), number));
            self.line(self.read.lines.0.len(), text.trim(), depth);
        }
    }

    fn line(&mut self, line: usize, text: &str, depth: usize) {
        if text.is_empty() || text.starts_with([';', '#']) {
            return;
        }
        if let Some(name) = text.strip_prefix("%include") {
            let name = name.trim();
            let included = match depth < DEPTH_MAX {
                true => (self.include)(name),
                false => Err(format!("{DEPTH_MAX} files include one another already")),
            };
            match included {
                Ok((file, text)) => self.file(&file, &text, depth + 1),
                Err(why) => self.read.wrong.push((line, format!("%include {name}: {why}"))),
            }
        } else if let Some(name) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            self.section = name.trim().to_ascii_lowercase();
        } else if let Some((key, rest)) = key(text)
            && let Some(value) = rest.trim_start().strip_prefix('=')
        {
            let (section, value) = (self.section.clone(), value.trim().to_owned());
            self.read.settings.push(Setting { section, key, value, line });
        } else {
            self.read.wrong.push((line, format!("\"{text}\" is no setting")));
        }
    }
}

/// The key at the beginning of a line, in double quotes or without, and what follows it.
fn key(text: &str) -> Option<(String, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted_by('"', quoted);
    }
    let end = text.find(|c: char| c == '=' || c.is_whitespace())?;
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

/// What stands before the closing quote, doubled ones taken for one, and what stands behind it.
fn quoted_by(quote: char, text: &str) -> Option<(String, &str)> {
    let (mut content, mut rest) = (String::new(), text);
    loop {
        let end = rest.find(quote)?;
        content.push_str(&rest[..end]);
        rest = &rest[end + quote.len_utf8()..];
        match rest.strip_prefix(quote) {
            Some(behind) => {
                content.push(quote);
                rest = behind;
            }
            None => return Some((content, rest)),
        }
    }
}

/// The `key=value` pairs of a connect string, values in single quotes or without. `None` if it is none.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let (mut pairs, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let (key, behind) = rest.split_once('=')?;
        let behind = behind.trim_start();
        let (value, behind) = match behind.strip_prefix('\'') {
            Some(quoted) => quoted_by('\'', quoted)?,
            None => {
                let end = behind.find(char::is_whitespace).unwrap_or(behind.len());
                (behind[..end].to_owned(), &behind[end..])
            }
        };
        pairs.push((key.trim().to_ascii_lowercase(), value));
        rest = behind.trim_start();
    }
    Some(pairs)
}

/// The users of a file.
#[derive(Default)]
pub(super) struct Userlist {
    pub(super) file: String,
    pub(super) users: Vec<Entry>,
}

/// A user's name, what is kept of the password, and the line.
pub(super) type Entry = (String, String, usize);

/// The users of a userlist, and the lines that are no users.
pub(super) fn userlist(text: &str) -> (Vec<Entry>, Vec<usize>) {
    let (mut users, mut wrong) = (Vec::new(), Vec::new());
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with([';', '#']) {
            continue;
        }
        let both = text.strip_prefix('"').and_then(|rest| quoted_by('"', rest)).and_then(|(name, rest)| {
            let (password, _) = quoted_by('"', rest.trim_start().strip_prefix('"')?)?;
            Some((name, password, line))
        });
        match both {
            Some(user) => users.push(user),
            None => wrong.push(line),
        }
    }
    (users, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stand_in_sections() {
        let text = "; top\n[databases]\norders = host=a port=1\n\"a \"\"b\"\"\"=dbname=x\n* = host=h\n\
                    [PgBouncer]\n  listen_port=6432 \n# end\nnonsense\n%include other.ini\n";
        let Read { settings, wrong, .. } = parse("a.ini", text, &mut |_| Err("there is none".into()));
        let all: Vec<_> = settings
            .iter()
            .map(|it| (it.section.as_str(), it.key.as_str(), it.value.as_str(), it.line))
            .collect();
        assert_eq!(
            all,
            [
                ("databases", "orders", "host=a port=1", 3),
                ("databases", "a \"b\"", "dbname=x", 4),
                ("databases", "*", "host=h", 5),
                ("pgbouncer", "listen_port", "6432", 7),
            ]
        );
        assert_eq!(wrong.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [9, 10]);
    }

    #[test]
    fn files_are_included_where_it_is_said_and_lines_keep_their_places() {
        let mut include = |name: &str| match name {
            "b.ini" => Ok(("b.ini".into(), "one = 1\n[databases]\nx\n%include none.ini\n".into())),
            "loop.ini" => Ok(("loop.ini".into(), "%include loop.ini\n".into())),
            _ => Err("there is none".into()),
        };
        let text = "[pgbouncer]\n%include b.ini\ntwo = 2\n%include loop.ini\nthree = 3\n";
        let Read { settings, wrong, lines } = parse("a.ini", text, &mut include);
        let all: Vec<_> =
            settings.iter().map(|it| (it.section.as_str(), it.key.as_str(), lines.place(it.line))).collect();
        assert_eq!(
            all,
            [
                ("pgbouncer", "one", ("b.ini", 1)),
                ("databases", "two", ("a.ini", 3)),
                ("databases", "three", ("a.ini", 5)),
            ]
        );
        let wrong: Vec<_> = wrong.iter().map(|(line, _)| lines.place(*line)).collect();
        assert_eq!(wrong, [("b.ini", 3), ("b.ini", 4), ("loop.ini", 1)]);
    }

    #[test]
    fn connect_strings_are_pairs() {
        let read = pairs("host=/run dbname = 'o''rders'  Port=5433 password=''").unwrap();
        let expected = [("host", "/run"), ("dbname", "o'rders"), ("port", "5433"), ("password", "")];
        assert_eq!(read, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(pairs("host"), None);
        assert_eq!(pairs("host='a"), None);
        assert_eq!(pairs(""), Some(Vec::new()));
    }

    #[test]
    fn a_userlist_is_names_and_passwords() {
        let text =
            "\"ana\" \"SCRAM-SHA-256$4096:x\"\n; no\n\"o\"\"neil\" \"a\"\"b\" extra\nbob secret\n\"x\"\n";
        let (users, wrong) = userlist(text);
        let expected = [("ana", "SCRAM-SHA-256$4096:x", 1), ("o\"neil", "a\"b", 3)];
        assert_eq!(users, expected.map(|(name, kept, line)| (name.to_owned(), kept.to_owned(), line)));
        assert_eq!(wrong, [4, 5]);
    }
}
