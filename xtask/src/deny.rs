//! `cargo xtask deny`: what `cargo deny check bans licenses` would say of deny.toml, without a network, a database or
//! another tool; and how many crates the server takes.
//!
//! Not here: advisories. A database that is not fresh proves nothing, so known ones stand in deny.toml as versions.

use std::collections::{HashMap, HashSet};
use std::fs;

use anyhow::{Context, bail};
use serde_json::Value;
use toml::Table;

use crate::licence;
use crate::metadata::{cargo_metadata, list, text};
use crate::problem::Problem;
use crate::repository;

const RULES: &str = "deny.toml";

/// So many crates the default build of the server may take, its own among them.
const CRATES_MAX: usize = 400;

pub(crate) fn problems() -> anyhow::Result<Vec<Problem>> {
    let file = fs::read_to_string(repository::root().join(RULES)).context(RULES)?;
    let rules = Rules::read(&file).context(RULES)?;
    let platforms = rules.platforms.iter().flat_map(|platform| ["--filter-platform", platform]);
    let metadata = cargo_metadata(&platforms.collect::<Vec<_>>())?;
    // Every package of the resolved graph, features that are off by default not among them.
    let used: HashSet<&str> = list(&metadata["resolve"], "nodes").map(|node| text(node, "id")).collect();
    let packages = list(&metadata, "packages").filter(|package| used.contains(text(package, "id")));
    let mut problems: Vec<Problem> = packages.flat_map(|package| rules.check(package)).collect();
    let count = shipped(&metadata).len();
    if count > CRATES_MAX {
        let message = format!("the server takes {count} crates, more than {CRATES_MAX}");
        problems.push(Problem::of("Cargo.lock", message));
    }
    Ok(problems)
}

/// The part of deny.toml that is checked here.
struct Rules {
    platforms: Vec<String>,
    licences: Vec<String>,
    /// Crate → licences that this one may have in addition.
    exceptions: HashMap<String, Vec<String>>,
    bans: Vec<Ban>,
}

/// `name`, or `name@<version`.
struct Ban {
    name: String,
    below: Option<Version>,
    reason: String,
}

type Version = [u64; 3];

impl Rules {
    fn read(file: &str) -> anyhow::Result<Rules> {
        let file: Table = file.parse()?;
        let bans = file["bans"].get("deny").and_then(toml::Value::as_array).context("bans.deny")?;
        let exceptions = file["licenses"].get("exceptions").and_then(toml::Value::as_array);
        let exception = |entry: &toml::Value| Ok((word(entry, "crate")?, words(entry, "allow")?));
        Ok(Rules {
            platforms: words(&file["graph"], "targets")?,
            licences: words(&file["licenses"], "allow")?,
            exceptions: exceptions.into_iter().flatten().map(exception).collect::<anyhow::Result<_>>()?,
            bans: bans.iter().map(Ban::read).collect::<anyhow::Result<_>>()?,
        })
    }

    fn check(&self, package: &Value) -> Vec<Problem> {
        let (name, version) = (text(package, "name"), text(package, "version"));
        let at = format!("{name} {version}");
        let mut problems = Vec::new();
        for ban in self.bans.iter().filter(|ban| ban.covers(name, version)) {
            problems.push(Problem::of(&at, format!("is banned: {}", ban.reason)));
        }
        let exceptions = self.exceptions.get(name);
        let allowed = |licence: &str| {
            let mut all = self.licences.iter().chain(exceptions.into_iter().flatten());
            all.any(|allowed| allowed == licence)
        };
        let expression = text(package, "license");
        if !licence::satisfied(expression, allowed) {
            problems.push(Problem::of(
                &at,
                format!("has the licence \"{expression}\", which {RULES} does not allow"),
            ));
        }
        problems
    }
}

impl Ban {
    fn read(entry: &toml::Value) -> anyhow::Result<Ban> {
        let (spec, reason) = (word(entry, "crate")?, word(entry, "reason")?);
        let (name, requirement) = spec.split_once('@').unwrap_or((&spec, ""));
        let below = match requirement.strip_prefix('<') {
            Some(version) => Some(parse_version(version).with_context(|| spec.clone())?),
            None if requirement.is_empty() => None,
            None => bail!("{spec}: write name or name@<version"),
        };
        Ok(Ban { name: name.into(), below, reason })
    }

    fn covers(&self, name: &str, version: &str) -> bool {
        // A version that cannot be read is not known to be high enough.
        let old = |below| parse_version(version).is_none_or(|version| version < below);
        self.name == name && self.below.is_none_or(old)
    }
}

/// The three numbers; missing ones are 0, what stands behind `-` or `+` is left out.
fn parse_version(text: &str) -> Option<Version> {
    let numbers = text.split(['-', '+']).next()?.split('.');
    let mut version = [0; 3];
    for (place, number) in numbers.enumerate() {
        *version.get_mut(place)? = number.parse().ok()?;
    }
    Some(version)
}

fn word(entry: &toml::Value, key: &str) -> anyhow::Result<String> {
    entry
        .get(key)
        .and_then(toml::Value::as_str)
        .map(str::to_owned)
        .with_context(|| format!("{key} is no text"))
}

fn words(entry: &toml::Value, key: &str) -> anyhow::Result<Vec<String>> {
    let list = entry.get(key).and_then(toml::Value::as_array).with_context(|| format!("{key} is no list"))?;
    list.iter()
        .map(|word| word.as_str().map(str::to_owned).with_context(|| format!("{key} holds no text")))
        .collect()
}

/// The ids of all packages that the server is built from: its dependencies and theirs, those for tests left out.
fn shipped(metadata: &Value) -> HashSet<&str> {
    let nodes: HashMap<&str, &Value> =
        list(&metadata["resolve"], "nodes").map(|node| (text(node, "id"), node)).collect();
    let server = list(metadata, "packages").find(|package| text(package, "name") == "tieline");
    let mut found = HashSet::new();
    let mut open: Vec<&str> = server.map(|package| text(package, "id")).into_iter().collect();
    while let Some(id) = open.pop() {
        if !found.insert(id) {
            continue;
        }
        let Some(node) = nodes.get(id) else { continue };
        let built =
            list(node, "deps").filter(|edge| list(edge, "dep_kinds").any(|kind| kind["kind"] != "dev"));
        open.extend(built.map(|edge| text(edge, "pkg")));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FILE: &str = r#"
        [graph]
        targets = ["x86_64-unknown-linux-gnu"]
        [licenses]
        allow = ["MIT"]
        exceptions = [{ crate = "fuzzer", allow = ["NCSA"] }]
        [bans]
        deny = [{ crate = "ring", reason = "old" }, { crate = "h2@<0.4.16", reason = "floods" }]
    "#;

    fn found(name: &str, version: &str, licence: &str) -> usize {
        let package = json!({ "name": name, "version": version, "license": licence });
        Rules::read(FILE).unwrap().check(&package).len()
    }

    #[test]
    fn banned_crates_and_old_versions_are_found() {
        assert_eq!(found("ring", "0.17.14", "MIT"), 1);
        assert_eq!(found("h2", "0.4.15", "MIT"), 1);
        assert_eq!(found("h2", "0.3.99", "MIT"), 1);
        assert_eq!(found("h2", "0.4.16", "MIT"), 0);
        assert_eq!(found("h2", "0.4.20+build", "MIT"), 0);
        assert_eq!(found("h2", "unreadable", "MIT"), 1);
        assert_eq!(found("strings", "1.0.0", "MIT"), 0);
    }

    #[test]
    fn a_foreign_licence_is_found_unless_excepted() {
        assert_eq!(found("a", "1.0.0", "MIT OR GPL-3.0"), 0);
        assert_eq!(found("a", "1.0.0", "GPL-3.0"), 1);
        assert_eq!(found("a", "1.0.0", ""), 1);
        assert_eq!(found("fuzzer", "1.0.0", "MIT AND NCSA"), 0);
        assert_eq!(found("other", "1.0.0", "MIT AND NCSA"), 1);
    }

    #[test]
    fn a_requirement_that_is_not_understood_is_an_error() {
        let file = FILE.replace("h2@<0.4.16", "h2@^0.4");
        assert!(Rules::read(&file).is_err());
    }

    #[test]
    fn only_what_the_server_is_built_from_counts() {
        let edge = |id: &str, kind: Value| json!({ "pkg": id, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [{ "name": "tieline", "id": "server" }],
            "resolve": { "nodes": [
                { "id": "server", "deps": [edge("a", json!(null)), edge("b", json!("build")), edge("c", json!("dev"))] },
                { "id": "a", "deps": [edge("b", json!(null)), edge("server", json!(null))] },
                { "id": "b", "deps": [] },
                { "id": "c", "deps": [edge("d", json!(null))] },
            ] },
        });
        assert_eq!(shipped(&metadata), HashSet::from(["server", "a", "b"]));
    }
}
