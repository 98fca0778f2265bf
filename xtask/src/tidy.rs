//! `cargo xtask tidy`: the house rules of CONTRIBUTING.md, one file a rule.

mod floors;
mod keys;
mod lengths;
pub(crate) mod links;
mod manifests;
mod protocols;
mod unsafety;
mod words;

use crate::generated;
use crate::metadata::cargo_metadata;
use crate::problem::Problem;
use crate::repository::files;
use crate::source::Source;

/// Everything that breaks a rule.
pub(crate) fn problems() -> anyhow::Result<Vec<Problem>> {
    let rust: Vec<Source> =
        files(&[".rs"])?.iter().map(|file| Source::read(&file.path, &file.text)).collect();
    let markdown = files(&[".md"])?;
    let mut problems = Vec::new();
    problems.extend(floors::check(&cargo_metadata(&["--no-deps"])?));
    problems.extend(manifests::check(&files(&["Cargo.toml"])?));
    problems.extend(lengths::check(&rust, &lengths::read_ratchet()?));
    for source in &rust {
        problems.extend(words::check(source));
        problems.extend(protocols::check(source));
        problems.extend(unsafety::check(source));
    }
    for page in &markdown {
        problems.extend(links::check(page));
        problems.extend(keys::check(page));
    }
    problems.extend(generated::check()?);
    Ok(problems)
}
