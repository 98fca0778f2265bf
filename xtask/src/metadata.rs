//! What cargo knows about the packages.

use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::repository;

/// `cargo metadata` with these arguments more.
pub(crate) fn cargo_metadata(arguments: &[&str]) -> anyhow::Result<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(repository::root()).args(["metadata", "--format-version", "1", "--locked"]);
    let output = cargo.args(arguments).output().context("cargo does not start")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata prints no JSON")
}

/// The elements of `value[key]`; none where there is no such array.
pub(crate) fn list<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value[key].as_array().into_iter().flatten()
}

/// The text of `value[key]`; empty where there is none.
pub(crate) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}
