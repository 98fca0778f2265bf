//! `tieline status`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use tieline_base::Bytes;

use super::client::Client;
use super::target::Target;
use super::text::Span;

/// Which server, and how to print.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Deserialize)]
struct Status {
    version: String,
    pid: u32,
    uptime_seconds: f64,
    phase: String,
    config: String,
    data: String,
    generation: u32,
    reloads: Reloads,
    workers: u64,
    live: u64,
    live_by_generation: BTreeMap<u32, u64>,
    files: Files,
    resident_bytes: u64,
    access_log_dropped: u64,
}

#[derive(Deserialize)]
struct Reloads {
    succeeded: u64,
    failed: u64,
}

#[derive(Deserialize)]
struct Files {
    open: u64,
    max: u64,
}

/// Prints how the server stands.
///
/// # Errors
/// When the server does not answer.
pub(crate) async fn run(client: &Client, args: StatusArgs) -> anyhow::Result<ExitCode> {
    let answer = client.get("/api/v1/status").await?;
    let mut out = io::stdout().lock();
    if args.json {
        out.write_all(&answer)?;
        writeln!(out)?;
    } else {
        print(&mut out, &serde_json::from_slice(&answer)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut impl Write, status: &Status) -> io::Result<()> {
    let Status { version, pid, phase, generation, live, .. } = status;
    writeln!(out, "tieline {version} is {phase}: process {pid}, up for {}", Span(status.uptime_seconds))?;
    let Reloads { succeeded, failed } = status.reloads;
    writeln!(out, "config       {}: generation {generation} in force", status.config)?;
    writeln!(out, "reloads      {succeeded} obeyed, {failed} refused")?;
    writeln!(out, "data         {}", status.data)?;
    writeln!(out, "connections  {live} live on {} workers", status.workers)?;
    for (old, count) in status.live_by_generation.iter().filter(|(old, _)| *old != generation) {
        writeln!(out, "             {count} of them accepted under generation {old}")?;
    }
    let Files { open, max } = status.files;
    writeln!(out, "files        {open} open of {max}")?;
    writeln!(out, "memory       {} resident", Bytes(status.resident_bytes))?;
    if status.access_log_dropped > 0 {
        writeln!(out, "access log   {} lines lost", status.access_log_dropped)?;
    }
    Ok(())
}
