//! What is wrong with a file: one line each, all of them at once.

use std::fmt;

use crate::place::Place;

/// How bad a problem is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// The file cannot be obeyed.
    Error,
    /// The file can be obeyed, and probably should not be.
    Warning,
}

/// One thing that is wrong with a file.
///
/// `Display` is one line, whatever the file holds:
/// ``tieline.toml:14:12: upstream "shopp" does not exist; did you mean "shop"?``
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as the caller named it.
    pub file: String,
    /// The line, from 1; 0 where the problem is the whole file's.
    pub line: u32,
    /// The column in characters, from 1; 0 where the problem is the whole file's.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of the file as a whole: it cannot be read, it is too large.
    pub(crate) fn of_file(file: &str, message: impl Into<String>) -> Self {
        let (file, message) = (file.into(), message.into());
        Self { severity: Severity::Error, file, line: 0, column: 0, message, hint: None }
    }

    /// Whether the file can be obeyed in spite of it.
    pub fn is_warning(&self) -> bool {
        self.severity == Severity::Warning
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.file.clone();
        if self.line > 0 {
            line += &format!(":{}:{}", self.line, self.column);
        }
        line += if self.is_warning() { ": warning: " } else { ": " };
        line += &self.message;
        if let Some(hint) = &self.hint {
            line += &format!("; {hint}");
        }
        f.write_str(&printable(&line))
    }
}

/// `text` with every control character and line separator spelled out, so that it stays one line and a
/// terminal obeys none of it.
fn printable(text: &str) -> String {
    let hostile = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}');
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if hostile(c) {
            line.extend(c.escape_default())
        } else {
            line.push(c)
        }
        line
    })
}

/// The problems found so far.
#[derive(Debug)]
pub(crate) struct Problems {
    file: String,
    found: Vec<Problem>,
}

/// Past this many problems nobody reads hints any more, and finding the nearest name costs time.
const HINTED_MAX: usize = 200;

impl Problems {
    pub(crate) fn of(file: &str) -> Self {
        Self { file: file.into(), found: Vec::new() }
    }

    /// Adds an error; the answer takes its hint.
    pub(crate) fn error(&mut self, place: Place, message: impl Into<String>) -> Hint<'_> {
        self.add(Severity::Error, place, message.into())
    }

    /// Adds a warning; the answer takes its hint.
    pub(crate) fn warning(&mut self, place: Place, message: impl Into<String>) -> Hint<'_> {
        self.add(Severity::Warning, place, message.into())
    }

    fn add(&mut self, severity: Severity, place: Place, message: String) -> Hint<'_> {
        let Place { line, column } = place;
        self.found.push(Problem { severity, file: self.file.clone(), line, column, message, hint: None });
        let wanted = self.found.len() <= HINTED_MAX;
        Hint(self.found.last_mut().filter(|_| wanted))
    }

    /// How many have been found.
    pub(crate) fn count(&self) -> usize {
        self.found.len()
    }

    /// Whether any of them is an error.
    pub(crate) fn any_error(&self) -> bool {
        self.found.iter().any(|problem| !problem.is_warning())
    }

    /// The problems in the order of the file.
    pub(crate) fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| (problem.line, problem.column, problem.severity));
        self.found
    }
}

/// Takes the hint of the problem just found.
pub(crate) struct Hint<'a>(Option<&'a mut Problem>);

impl Hint<'_> {
    pub(crate) fn hint(self, hint: impl Into<String>) {
        self.maybe(|| Some(hint.into()));
    }

    /// The hint that `find` finds, if it finds one.
    pub(crate) fn maybe(self, find: impl FnOnce() -> Option<String>) {
        if let Some(problem) = self.0 {
            problem.hint = find();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_whatever_it_quotes() {
        let mut problems = Problems::of("a\nb.toml");
        problems.error(Place { line: 3, column: 7 }, "\"x\u{1b}[2J\r\n\" is wrong").hint("leave\tit");
        let line = problems.into_sorted()[0].to_string();
        assert_eq!(line, r#"a\nb.toml:3:7: "x\u{1b}[2J\r\n" is wrong; leave\tit"#);
    }

    #[test]
    fn warnings_say_so_and_problems_come_in_the_order_of_the_file() {
        let mut problems = Problems::of("t");
        problems.warning(Place { line: 2, column: 1 }, "w");
        problems.error(Place { line: 1, column: 1 }, "e");
        let lines: Vec<_> = problems.into_sorted().iter().map(Problem::to_string).collect();
        assert_eq!(lines, ["t:1:1: e", "t:2:1: warning: w"]);
    }
}
