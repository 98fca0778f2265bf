//! Markdown tables, ready to be pasted into the documentation.

use std::fmt;

/// Whether a bar was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Pass,
    Fail,
    /// There is no bar, or not both sides of it were measured.
    None,
}

impl Verdict {
    /// Whether `measured` stays within `bar`.
    pub(crate) fn at_most(measured: f64, bar: f64) -> Verdict {
        Verdict::holds(measured <= bar)
    }

    /// Whether something that must be so is so.
    pub(crate) fn holds(is_so: bool) -> Verdict {
        if is_so { Verdict::Pass } else { Verdict::Fail }
    }

    /// Passes only if both do.
    pub(crate) fn and(self, other: Verdict) -> Verdict {
        if self == Verdict::Pass { other } else { self }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::None => "",
        })
    }
}

/// A table with a title, a line of columns and rows.
pub(crate) struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Table {
        Table {
            title: title.into(),
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with a cell for each column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a row of what was measured, its bar and the verdict.
    pub(crate) fn judge(&mut self, what: &str, measured: String, bar: &str, verdict: Verdict) {
        self.row([what.to_owned(), measured, bar.to_owned(), verdict.to_string()]);
    }
}

/// The columns of [`Table::judge`].
pub(crate) const JUDGED: [&str; 4] = ["What", "Measured", "Bar", "Verdict"];

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        let lines = [&self.columns].into_iter().chain(&self.rows);
        let width = |column: usize| {
            lines.clone().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut write_line = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!(" {cell:<width$} |"));
            writeln!(f, "|{}", padded.collect::<String>())
        };
        write_line(&self.columns)?;
        write_line(&widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>())?;
        self.rows.iter().try_for_each(|row| write_line(row))
    }
}

#[cfg(test)]
mod tests {
    use super::{JUDGED, Table, Verdict};

    #[test]
    fn cells_line_up_and_verdicts_are_words() {
        let mut table = Table::new("kill", &JUDGED);
        table.judge("5,000 ended", "0.4 s".into(), "< 1 s", Verdict::at_most(0.4, 1.0));
        table.judge("dropped", "3".into(), "0", Verdict::at_most(3.0, 0.0));
        let lines = [
            "### kill\n",
            "| What        | Measured | Bar   | Verdict |",
            "| ----------- | -------- | ----- | ------- |",
            "| 5,000 ended | 0.4 s    | < 1 s | pass    |",
            "| dropped     | 3        | 0     | FAIL    |",
        ];
        assert_eq!(table.to_string(), lines.join("\n") + "\n");
    }
}
