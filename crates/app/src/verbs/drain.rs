//! `tieline drain`.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::client::Client;
use super::orders::{self, Acted, Filters, Named, Reasons};
use super::target::Target;
use super::text::connections;

/// What to drain.
#[derive(Args, Debug)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    named: Named,
    /// Why; goes into the connections' stories
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    pub(super) target: Target,
}

/// Drains what is named or what matches, without waiting for the end of it.
///
/// # Errors
/// When the server refuses.
pub(crate) async fn run(client: &Client, args: DrainArgs) -> anyhow::Result<ExitCode> {
    let reason = args.reason.as_deref();
    let acted: Acted = match args.named.path()? {
        None => orders::order(client, "drain", &args.filters, reason).await?,
        Some(_) if !args.filters.is_empty() => {
            bail!("a listener or an endpoint is drained as a whole: no filters")
        }
        Some(path) => {
            let answer = client.post(&format!("{path}/drain"), &Reasons { reason }).await?;
            serde_json::from_slice(&answer)?
        }
    };
    let (matched, ended) = (connections(acted.matched), acted.ended);
    writeln!(
        io::stdout(),
        "draining {matched}, {ended} ended already; each has its listener's timeouts.drain"
    )?;
    Ok(ExitCode::SUCCESS)
}
