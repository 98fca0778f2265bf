//! `cargo xtask deny`: what `cargo deny check bans licenses` would say of deny.toml, without a network, a
//! database or another tool; and how many crates the server takes.
//!
//! Not here: advisories. A database that is not fresh proves nothing, so known ones stand in deny.toml as
//! versions.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::process::Command;

use anyhow::{Context, bail};
use toml::Table;

use crate::licence;
use crate::problem::Problem;
use crate::repository;

const RULES: &str = "deny.toml";

/// So many crates the default build of the server may take, its own among them.
const CRATES_MAX: usize = 400;

pub(crate) fn problems() -> anyhow::Result<Vec<Problem>> {
    let file = fs::read_to_string(repository::root().join(RULES)).context(RULES)?;
    let rules = Rules::read(&file).context(RULES)?;
    let platforms: Vec<&str> = rules.platforms.iter().flat_map(|platform| ["--target", platform]).collect();
    let everything = crates(&[&["--workspace", "--all-features"], &platforms[..]].concat())?;
    let mut problems: Vec<Problem> = everything.iter().flat_map(|one| rules.check(one)).collect();
    let shipped = crates(&["--package", "tieline", "--edges", "normal,build"])?;
    if shipped.len() > CRATES_MAX {
        let message = format!("the server takes {} crates, more than {CRATES_MAX}", shipped.len());
        problems.push(Problem::of("Cargo.lock", message));
    }
    Ok(problems)
}

/// A crate that is built.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Crate {
    name: String,
    version: String,
    /// An SPDX expression; empty where it states none.
    licence: String,
}

/// What `cargo tree` lists. It knows which optional dependencies are really built; `cargo metadata` does not.
fn crates(arguments: &[&str]) -> anyhow::Result<BTreeSet<Crate>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(repository::root())
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p}|{l}"]);
    let output = cargo.args(arguments).output().context("cargo does not start")?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let lines = String::from_utf8_lossy(&output.stdout);
    let lines = lines.lines().filter(|line| !line.is_empty());
    lines.map(|line| Crate::read(line).with_context(|| format!("cargo tree: {line}"))).collect()
}

impl Crate {
    /// Reads `name v1.2.3 (proc-macro)|MIT (*)`; the star marks a repeated line.
    fn read(line: &str) -> Option<Crate> {
        let (package, licence) = line.trim_end_matches(" (*)").rsplit_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some(Crate { name: name.into(), version: version.into(), licence: licence.into() })
    }
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

    fn check(&self, one: &Crate) -> Vec<Problem> {
        let Crate { name, version, licence } = one;
        let at = format!("{name} {version}");
        let mut problems = Vec::new();
        for ban in self.bans.iter().filter(|ban| ban.covers(one)) {
            problems.push(Problem::of(&at, format!("is banned: {}", ban.reason)));
        }
        let exceptions = self.exceptions.get(name);
        let allowed = |licence: &str| {
            let mut all = self.licences.iter().chain(exceptions.into_iter().flatten());
            all.any(|allowed| allowed == licence)
        };
        if !licence::satisfied(licence, allowed) {
            problems.push(Problem::of(
                &at,
                format!("has the licence \"{licence}\", which {RULES} does not allow"),
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

    fn covers(&self, one: &Crate) -> bool {
        // A version that cannot be read is not known to be high enough.
        let old = |below| parse_version(&one.version).is_none_or(|version| version < below);
        self.name == one.name && self.below.is_none_or(old)
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

#[cfg(test)]
mod tests {
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
        let one = Crate { name: name.into(), version: version.into(), licence: licence.into() };
        Rules::read(FILE).unwrap().check(&one).len()
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
    fn a_line_of_cargo_tree_is_read() {
        let one = |name: &str, version: &str, licence: &str| {
            Some(Crate { name: name.into(), version: version.into(), licence: licence.into() })
        };
        assert_eq!(
            Crate::read("serde v1.0.229|MIT OR Apache-2.0 (*)"),
            one("serde", "1.0.229", "MIT OR Apache-2.0")
        );
        assert_eq!(Crate::read("syn v3.0.1-rc.1 (proc-macro)|"), one("syn", "3.0.1-rc.1", ""));
        assert_eq!(Crate::read("tieline v0.1.0 (/a|b)|MIT"), one("tieline", "0.1.0", "MIT"));
        assert_eq!(Crate::read("nonsense"), None);
    }
}
