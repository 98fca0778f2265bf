//! `cargo xtask bench NAME`.

use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::repository;

/// Runs the bench with `arguments`, its name first, in release mode: no other build says anything about
/// speed.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> anyhow::Result<ExitCode> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(repository::root()).args(["run", "--release", "--package", "tieline-bench", "--"]);
    let status = cargo.args(arguments).status().context("cargo does not start")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
