//! Wrong files, each with every line that it must be answered with: `wrong/*.txt` says how.
//!
//! A case begins with `== what it shows`, goes on with the file, and ends with the answers: `! ` and the line
//! without the file's name. `BLESS=1` writes the answers given now in place of those expected; read the
//! difference.

#![allow(clippy::unwrap_used)] // a test that cannot read its cases has failed

use std::fmt::Write;
use std::path::PathBuf;

use tieline_config::{Config, Problem};

struct Case {
    name: String,
    file: String,
    answers: Vec<String>,
}

fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case { name: name.into(), file: String::new(), answers: Vec::new() });
            continue;
        }
        let case = cases.last_mut().expect("a file of cases begins with one");
        match line.strip_prefix("! ") {
            Some(answer) => case.answers.push(answer.into()),
            None => case.file += &format!("{line}\n"),
        }
    }
    cases
}

fn answers(file: &str) -> (Vec<String>, bool) {
    let (problems, accepted) = match Config::parse("tieline.toml", file) {
        Ok(checked) => (checked.warnings, true),
        Err(problems) => (problems, false),
    };
    let answers = problems.iter().map(Problem::to_string);
    (answers.map(|line| line.trim_start_matches("tieline.toml:").to_string()).collect(), accepted)
}

fn files() -> Vec<(PathBuf, Vec<Case>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), cases(&std::fs::read_to_string(path).unwrap()))).collect()
}

#[test]
fn every_wrong_file_is_answered_with_exactly_these_lines() {
    let mut differences = String::new();
    for (path, cases) in files() {
        let mut blessed = String::new();
        for Case { name, file, answers: expected } in cases {
            let (given, accepted) = answers(&file);
            let _ = write!(blessed, "== {name}\n{file}");
            given.iter().for_each(|line| blessed += &format!("! {line}\n"));
            if given != expected {
                let _ = writeln!(
                    differences,
                    "{}: {name}\n  given {given:#?}\n  expected {expected:#?}",
                    path.display()
                );
            }
            let all_warnings = given.iter().all(|line| line.contains(": warning: "));
            assert_eq!(accepted, all_warnings, "{name}: a file is refused for errors and only for them");
            assert!(!given.is_empty(), "{name}: nothing is wrong with it");
        }
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, blessed).unwrap();
        }
    }
    assert!(differences.is_empty() || std::env::var_os("BLESS").is_some(), "{differences}");
}

#[test]
fn there_are_a_hundred_wrong_files_and_each_is_told_from_the_others() {
    let mut names: Vec<_> = files().into_iter().flat_map(|(_, cases)| cases).map(|case| case.name).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "two cases bear the same name");
    assert!(count >= 100, "{count}");
}
