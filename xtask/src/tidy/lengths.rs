//! Lines, functions and files stay short; what is longer today may only become shorter.

use std::fs;

use anyhow::Context;

use crate::problem::Problem;
use crate::repository;
use crate::source::{Source, closing_line};

const COLUMNS_MAX: usize = 110;
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of product code; a test module below it does not count.
const FILE_LINES_MAX: usize = 500;
const TEST_FILE_LINES_MAX: usize = 800;

const RATCHET: &str = "xtask/ratchet.txt";

/// Something longer than allowed: what, and how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Long {
    path: String,
    /// `file`, or `fn name`.
    what: String,
    lines: usize,
    /// Where it starts.
    at: usize,
}

/// The checked-in list of what may be long: one `path lines what` a line.
pub(super) fn read_ratchet() -> anyhow::Result<Vec<Long>> {
    let text = fs::read_to_string(repository::root().join(RATCHET)).context(RATCHET)?;
    let entries =
        (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    entries.map(|(at, line)| ratchet_entry(at, line).with_context(|| format!("{RATCHET}:{at}"))).collect()
}

fn ratchet_entry(at: usize, line: &str) -> anyhow::Result<Long> {
    let mut parts = line.splitn(3, ' ');
    let (Some(path), Some(lines), Some(what)) = (parts.next(), parts.next(), parts.next()) else {
        anyhow::bail!("write: path lines what, like \"crates/base/src/units.rs 83 fn parse\"");
    };
    Ok(Long { path: path.into(), what: what.into(), lines: lines.parse()?, at })
}

pub(super) fn check(sources: &[Source], ratchet: &[Long]) -> Vec<Problem> {
    let columns = sources.iter().flat_map(columns);
    let long: Vec<Long> =
        sources.iter().flat_map(|source| functions(source).into_iter().chain(file(source))).collect();
    let new = long.iter().filter_map(|long| beyond(long, ratchet));
    let stale = ratchet.iter().filter_map(|entry| stale(entry, &long));
    columns.chain(new).chain(stale).collect()
}

fn columns(source: &Source) -> Vec<Problem> {
    let wide = source.numbered().filter(|(_, line)| line.whole.chars().count() > COLUMNS_MAX);
    wide.map(|(at, _)| Problem::at(&source.path, at, format!("is wider than {COLUMNS_MAX} columns")))
        .collect()
}

/// The functions that are too long, from the line with `fn` to the one with the closing brace.
fn functions(source: &Source) -> Vec<Long> {
    let named = source.numbered().filter_map(|(at, line)| Some((at, function_name(&line.code)?)));
    let measured = named.filter_map(|(at, name)| {
        let end = closing_line(&source.lines, at - 1)? + 1;
        let what = format!("fn {name}");
        Some(Long { path: source.path.clone(), what, lines: end - at + 1, at })
    });
    measured.filter(|long| long.lines > FUNCTION_LINES_MAX).collect()
}

/// The name of the function that `code` begins.
fn function_name(code: &str) -> Option<&str> {
    let starts = |at: usize| !code[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    let (at, _) = code.match_indices("fn ").find(|(at, _)| starts(*at))?;
    let name = code[at + 3..].split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()?;
    (!name.is_empty()).then_some(name)
}

fn file(source: &Source) -> Option<Long> {
    let (limit, lines) = if source.is_test() {
        (TEST_FILE_LINES_MAX, source.lines.len())
    } else {
        (FILE_LINES_MAX, source.lines.iter().filter(|line| !line.test).count())
    };
    (lines > limit).then(|| Long { path: source.path.clone(), what: "file".into(), lines, at: 0 })
}

/// A problem, unless the ratchet allows it.
fn beyond(long: &Long, ratchet: &[Long]) -> Option<Problem> {
    let allowed = ratchet.iter().find(|entry| entry.path == long.path && entry.what == long.what);
    let limit = match (allowed, &*long.what) {
        (Some(entry), _) => entry.lines,
        (None, "file") => FILE_LINES_MAX,
        (None, _) => FUNCTION_LINES_MAX,
    };
    let message = format!("{} has {} lines, more than {limit}", long.what, long.lines);
    (long.lines > limit).then(|| Problem::at(&long.path, long.at, message))
}

/// A problem, if the ratchet allows more than is there.
fn stale(entry: &Long, long: &[Long]) -> Option<Problem> {
    let now = long.iter().find(|long| entry.path == long.path && entry.what == long.what);
    match now {
        Some(now) if now.lines >= entry.lines => None,
        Some(now) => Some(Problem::at(RATCHET, entry.at, format!("is {} lines now: write that", now.lines))),
        None => Some(Problem::at(RATCHET, entry.at, "is short enough now: take it out")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str, ratchet: &[Long]) -> Vec<String> {
        let problems = check(&[Source::read(path, text)], ratchet);
        problems.iter().map(ToString::to_string).collect()
    }

    fn function(name: &str, lines: usize) -> String {
        format!("pub(crate) fn {name}(\n    x: [u8; 2],\n) {{\n{}}}\n", "    // \"}\" }\n".repeat(lines - 4))
    }

    fn entry(what: &str, lines: usize) -> Long {
        Long { path: "src/x.rs".into(), what: what.into(), lines, at: 3 }
    }

    #[test]
    fn a_long_function_is_found_where_it_starts() {
        let text =
            format!("trait T {{\n    fn short(&self);\n}}\n{}{}", function("fits", 70), function("long", 71));
        assert_eq!(found("src/x.rs", &text, &[]), ["src/x.rs:74: fn long has 71 lines, more than 70"]);
    }

    #[test]
    fn the_ratchet_may_only_shrink() {
        let text = function("long", 80);
        assert_eq!(found("src/x.rs", &text, &[entry("fn long", 80)]), [""; 0]);
        assert_eq!(
            found("src/x.rs", &text, &[entry("fn long", 79)]),
            ["src/x.rs:1: fn long has 80 lines, more than 79"]
        );
        assert_eq!(
            found("src/x.rs", &text, &[entry("fn long", 90)]),
            ["xtask/ratchet.txt:3: is 80 lines now: write that"]
        );
        assert_eq!(
            found("src/x.rs", "", &[entry("fn long", 80)]),
            ["xtask/ratchet.txt:3: is short enough now: take it out"]
        );
    }

    #[test]
    fn a_test_module_does_not_make_a_file_long() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // x\n".repeat(400));
        assert_eq!(found("src/x.rs", &("// x\n".repeat(500) + &tests), &[]), [""; 0]);
        assert_eq!(
            found("src/x.rs", &("// x\n".repeat(501) + &tests), &[]),
            ["src/x.rs: file has 501 lines, more than 500"]
        );
    }

    #[test]
    fn a_wide_line_is_found() {
        assert_eq!(found("src/x.rs", &"\u{e4}".repeat(110), &[]), [""; 0]);
        assert_eq!(found("src/x.rs", &"x".repeat(111), &[]), ["src/x.rs:1: is wider than 110 columns"]);
    }

    #[test]
    fn a_ratchet_entry_is_path_lines_what() {
        let long = ratchet_entry(3, "src/x.rs 80 fn long").unwrap();
        assert_eq!(long, entry("fn long", 80));
        assert!(ratchet_entry(1, "src/x.rs fn long").is_err());
    }
}
