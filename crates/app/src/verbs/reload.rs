//! `tieline reload`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;

use super::client::{Client, Refused};
use super::orders::Reasons;
use super::target::Target;
use super::text::connections;

/// Which server's config to apply.
#[derive(Args, Debug)]
pub(crate) struct ReloadArgs {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Deserialize)]
struct Report {
    generation: u32,
    changed: bool,
    warnings: Vec<String>,
    restart_needed: Vec<String>,
    seen: u64,
    revoked: u64,
    leaving: u64,
}

/// Applies the config file, and says what that did. What is wrong with the file goes to the standard error, a
/// line each.
///
/// # Errors
/// When the server does not answer.
pub(crate) async fn run(client: &Client, args: ReloadArgs) -> anyhow::Result<ExitCode> {
    let answer = match client.post("/api/v1/reload", &Reasons { reason: None }).await {
        Ok(answer) => answer,
        Err(error) => return told(error),
    };
    let mut out = io::stdout().lock();
    if args.json {
        out.write_all(&answer)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let report: Report = serde_json::from_slice(&answer)?;
    for warning in &report.warnings {
        writeln!(io::stderr(), "{warning}")?;
    }
    for key in &report.restart_needed {
        writeln!(io::stderr(), "{key} has changed, but is obeyed only after a restart")?;
    }
    if !report.changed {
        writeln!(out, "nothing has changed: generation {} stays in force", report.generation)?;
        return Ok(ExitCode::SUCCESS);
    }
    let untouched = report.seen.saturating_sub(report.revoked + report.leaving);
    writeln!(out, "generation {} is in force; {} untouched", report.generation, connections(untouched))?;
    if report.revoked > 0 {
        writeln!(out, "{} no longer allowed: ended", connections(report.revoked))?;
    }
    if report.leaving > 0 {
        writeln!(out, "{} lost the way: ended when the grace is over", connections(report.leaving))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn told(error: anyhow::Error) -> anyhow::Result<ExitCode> {
    let refused: Refused = error.downcast()?;
    if refused.errors.is_empty() {
        return Err(refused.into());
    }
    for line in &refused.errors {
        writeln!(io::stderr(), "{line}")?;
    }
    writeln!(io::stderr(), "nothing has changed")?;
    Ok(ExitCode::FAILURE)
}
