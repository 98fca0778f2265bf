//! What the pages show is what the server accepts.

#![allow(clippy::unwrap_used)] // a test that cannot read its files has failed

use std::path::{Path, PathBuf};

use tieline_config::{Config, Problem};

#[test]
fn every_example_of_the_pages_is_a_config_without_errors_or_warnings() {
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let examples = examples(&text);
        assert!(!examples.is_empty(), "{}: no example found", page.display());
        for (line, example) in examples {
            let folder = with_files_of(&example);
            let file = folder.path().join("tieline.toml");
            let said = match Config::parse(&file.display().to_string(), &example) {
                Ok(checked) => checked.warnings,
                Err(problems) => problems,
            };
            let said: Vec<String> = said.iter().map(Problem::to_string).collect();
            assert!(said.is_empty(), "{}:{line}: {}", page.display(), said.join("\n"));
        }
    }
}

#[test]
fn an_example_is_what_stands_between_its_fences() {
    let page = "# x\n```toml\na = 1\n```\n```sh\nls\n```\n\n```toml\nb = 2\n\nc = 3\n```\n";
    assert_eq!(examples(page), [(2, "a = 1\n".into()), (9, "b = 2\n\nc = 3\n".into())]);
}

/// A folder that has the certificates, keys and documents which `example` names.
fn with_files_of(example: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let quoted = example.split('"').skip(1).step_by(2);
    let ends = [".crl", ".crt", ".key", ".pem", ".pw", ".yaml"];
    for name in quoted.filter(|name| ends.iter().any(|end| name.ends_with(end))) {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    folder
}

/// The pages that people copy from.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let guides = std::fs::read_dir(root.join("docs/guides")).unwrap();
    let guides = guides.map(|entry| entry.unwrap().path()).filter(|path| path.extension().unwrap() == "md");
    std::iter::once(root.join("README.md")).chain(guides).collect()
}

/// The ```` ```toml ```` blocks of `page`, each with the number of its fence's line.
fn examples(page: &str) -> Vec<(usize, String)> {
    let mut examples: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for (at, line) in (1..).zip(page.lines()) {
        match (inside, line) {
            (false, "```toml") => {
                inside = true;
                examples.push((at, String::new()));
            }
            (true, "```") => inside = false,
            (true, _) => {
                if let Some((_, example)) = examples.last_mut() {
                    *example += line;
                    *example += "\n";
                }
            }
            (false, _) => {}
        }
    }
    examples
}
