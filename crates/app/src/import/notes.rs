//! What has no equivalent, line by line.

use super::ini::Lines;

/// The notes of one import.
pub(super) struct Notes {
    lines: Lines,
    notes: Vec<(String, usize, String)>,
}

impl Notes {
    pub(super) fn of(lines: Lines) -> Self {
        Self { lines, notes: Vec::new() }
    }

    /// Notes `what` of a line of the file, or of one that it includes.
    pub(super) fn tell(&mut self, line: usize, what: String) {
        let (file, line) = self.lines.place(line);
        self.notes.push((file.to_owned(), line, what));
    }

    /// Notes `what` of a line of another file.
    pub(super) fn tell_of(&mut self, file: &str, line: usize, what: String) {
        self.notes.push((file.to_owned(), line, what));
    }

    /// In the order of the files.
    pub(super) fn lines(mut self) -> Vec<String> {
        self.notes.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
        let line = |(file, line, what): &(String, usize, String)| format!("{file}:{line}: {what}");
        self.notes.iter().map(line).collect()
    }
}
