//! Files that are written by the code they describe.

use std::fs;

use anyhow::Context;

use crate::problem::Problem;
use crate::repository;
use crate::tidy::links;

/// Path and content of each.
fn all() -> anyhow::Result<[(&'static str, String); 3]> {
    let schema = serde_json::to_string_pretty(&tieline_config::schema())? + "\n";
    Ok([
        ("docs/config.md", tieline_config::reference()),
        ("docs/tieline.schema.json", schema),
        ("docs/openapi.json", tieline_control::openapi()),
    ])
}

/// Writes them, and the line numbers of links to code.
pub(crate) fn write() -> anyhow::Result<()> {
    for (path, content) in all()? {
        fs::write(repository::root().join(path), content).context(path)?;
    }
    for page in repository::files(&[".md"])? {
        let renewed = links::renewed(&page);
        if renewed != page.text {
            fs::write(repository::root().join(&page.path), renewed).context(page.path)?;
        }
    }
    Ok(())
}

/// Those that are not as the code would write them.
pub(crate) fn check() -> anyhow::Result<Vec<Problem>> {
    let stale = all()?.into_iter().filter(|(path, content)| {
        fs::read_to_string(repository::root().join(path)).ok().as_ref() != Some(content)
    });
    Ok(stale.map(|(path, _)| Problem::of(path, "is out of date: run \"cargo xtask generate\"")).collect())
}
