//! Every package obeys the lints of the workspace.

use crate::problem::Problem;
use crate::repository::TextFile;

pub(super) fn check(manifests: &[TextFile]) -> Vec<Problem> {
    manifests.iter().filter_map(check_manifest).collect()
}

fn check_manifest(manifest: &TextFile) -> Option<Problem> {
    let parsed: toml::Table = match manifest.text.parse() {
        Ok(parsed) => parsed,
        Err(error) => return Some(Problem::of(&manifest.path, error.to_string())),
    };
    let obeys =
        parsed.get("lints").and_then(|lints| lints.get("workspace")) == Some(&toml::Value::Boolean(true));
    let missing = parsed.contains_key("package") && !obeys;
    missing.then(|| Problem::of(&manifest.path, "lacks \"[lints] workspace = true\""))
}

#[cfg(test)]
mod tests {
    use super::{TextFile, check_manifest};

    #[test]
    fn a_package_without_the_lints_is_found() {
        let found =
            |text: &str| check_manifest(&TextFile { path: "Cargo.toml".into(), text: text.into() }).is_some();
        assert!(found("[package]\nname = \"x\""));
        assert!(found("[package]\nname = \"x\"\n[lints]\nworkspace = false"));
        assert!(!found("[package]\nname = \"x\"\n[lints]\nworkspace = true"));
        assert!(!found("[workspace]"));
    }
}
