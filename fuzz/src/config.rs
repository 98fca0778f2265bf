//! The config file.

use tieline_config::{Config, Severity};

/// A refusal names at least one error, and every problem is one line that points at a place in the text, or
/// at none.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let problems = match Config::parse("fuzz.toml", text) {
        Ok(checked) => checked.warnings,
        Err(problems) => {
            assert!(problems.iter().any(|problem| problem.severity == Severity::Error), "{problems:?}");
            problems
        }
    };
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in problems {
        let (line, column) = (problem.line as usize, problem.column as usize);
        let inside = lines.get(line.wrapping_sub(1)).is_some_and(|line| column <= line.chars().count() + 1);
        assert!((line, column) == (0, 0) || (column > 0 && inside), "{problem:?}");
        let shown = problem.to_string();
        assert!(!problem.message.trim().is_empty() && !shown.contains(char::is_control), "{shown:?}");
    }
}
