//! Words that say nothing, and notes that nobody will read again.

use crate::problem::Problem;
use crate::source::Source;

/// Notes to oneself: an issue, or the work itself, is the place.
const NOTES: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// They name no concept, so everything fits under them.
const EMPTY_NAMES: [&str; 8] = ["common", "context", "data", "handler", "helper", "manager", "util", "utils"];

pub(super) fn check(source: &Source) -> Vec<Problem> {
    let mut problems = Vec::new();
    let stem = source.path.rsplit('/').next().and_then(|file| file.strip_suffix(".rs")).unwrap_or_default();
    if let Some(word) = empty_word(stem) {
        problems.push(Problem::of(
            &source.path,
            format!("\"{word}\" names no concept; name the file for its noun"),
        ));
    }
    for (at, line) in source.numbered() {
        for note in NOTES.into_iter().filter(|note| names(&line.comment).any(|word| word == *note)) {
            problems.push(Problem::at(&source.path, at, format!("{note}: do it, or open an issue")));
        }
        problems.extend(declared(&line.code).filter_map(|(keyword, name)| {
            let message = wrong_name(keyword, name)?;
            Some(Problem::at(&source.path, at, message))
        }));
    }
    problems
}

/// What `code` declares: keyword and name.
fn declared(code: &str) -> impl Iterator<Item = (&str, &str)> {
    let words: Vec<&str> = names(code).collect();
    let pairs: Vec<_> = words.windows(2).map(|pair| (pair[0], pair[1])).collect();
    pairs
        .into_iter()
        .filter(|(keyword, _)| matches!(*keyword, "fn" | "struct" | "enum" | "trait" | "type" | "mod"))
}

fn wrong_name(keyword: &str, name: &str) -> Option<String> {
    if keyword == "fn" {
        let thing = name.strip_prefix("get_")?;
        return Some(format!("\"{name}\": what it returns is its name: \"{thing}\""));
    }
    empty_word(name).map(|word| format!("{keyword} \"{name}\": \"{word}\" names no concept"))
}

/// The empty word that `name` is, or ends with.
fn empty_word(name: &str) -> Option<&'static str> {
    let last = name.rfind(|letter: char| letter.is_ascii_uppercase()).unwrap_or(0);
    let last = name[last..].rsplit('_').next().unwrap_or_default().to_ascii_lowercase();
    EMPTY_NAMES.into_iter().find(|word| *word == last)
}

/// The names in a text, keywords among them.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Source, check};

    fn found(path: &str, text: &str) -> usize {
        check(&Source::read(path, text)).len()
    }

    #[test]
    fn notes_to_oneself_are_found_in_comments_only() {
        assert_eq!(found("src/x.rs", "// TODO: later\n/// FIXME\nlet x = 1; /* XXX */"), 3);
        assert_eq!(found("src/x.rs", "let todo = \"TODO\"; // no TODOS here"), 0);
    }

    #[test]
    fn empty_names_are_found() {
        assert_eq!(found("src/util.rs", ""), 1);
        assert_eq!(found("src/pool_manager.rs", ""), 1);
        assert_eq!(
            found("src/x.rs", "struct PoolManager;\nenum Helper {}\nmod common {\ntype Data = u8;"),
            4
        );
        assert_eq!(found("src/x.rs", "fn get_size() {}\npub fn get_() {}"), 2);
        assert_eq!(found("src/x.rs", "struct Database;\nfn getter() {}\nlet context = data.get_ref();"), 0);
    }
}
