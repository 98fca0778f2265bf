//! `unsafe` has one home.

use crate::problem::Problem;
use crate::source::Source;

const HOME: &str = "crates/transport/src/";

pub(super) fn check(source: &Source) -> Vec<Problem> {
    if source.path.starts_with(HOME) {
        return Vec::new();
    }
    let split = |letter: char| !letter.is_alphanumeric() && letter != '_';
    let named = |code: &str| code.split(split).any(|word| matches!(word, "unsafe" | "unsafe_code"));
    let found = source.numbered().filter(|(_, line)| named(&line.code));
    found.map(|(at, _)| Problem::at(&source.path, at, format!("unsafe code lives in {HOME} only"))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Source, check};

    #[test]
    fn unsafe_code_is_found_outside_its_home() {
        let found = |path: &str, text: &str| check(&Source::read(path, text)).len();
        assert_eq!(found("crates/pool/src/x.rs", "unsafe { }\n#![allow(unsafe_code)]\n"), 2);
        assert_eq!(found("crates/pool/src/x.rs", "// unsafe\nlet unsafety = \"unsafe\";\n"), 0);
        assert_eq!(found("crates/transport/src/x.rs", "unsafe { }"), 0);
    }
}
