//! `tieline kill`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::client::Client;
use super::orders::{self, Filters};
use super::target::Target;
use super::text::connections;

/// What to kill.
#[derive(Args, Debug)]
pub(crate) struct KillArgs {
    #[command(flatten)]
    filters: Filters,
    /// Why; goes into the connections' stories
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    pub(super) target: Target,
}

/// Ends what matches, and says how many.
///
/// # Errors
/// When the server refuses, or when something did not end in time.
pub(crate) async fn run(client: &Client, args: KillArgs) -> anyhow::Result<ExitCode> {
    let acted = orders::order(client, "kill", &args.filters, args.reason.as_deref()).await?;
    if acted.ended < acted.matched {
        let left = connections(acted.matched - acted.ended);
        anyhow::bail!(
            "{left} of {} did not end within 2 s; `tieline ls` shows where they are",
            acted.matched
        );
    }
    writeln!(io::stdout(), "killed {}", connections(acted.ended))?;
    Ok(ExitCode::SUCCESS)
}
