//! `tieline enable`.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::client::Client;
use super::orders::{Named, Reasons};
use super::target::Target;

/// What to take into use again.
#[derive(Args, Debug)]
pub(crate) struct EnableArgs {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    pub(super) target: Target,
}

/// Takes what was drained into use again.
///
/// # Errors
/// When the server refuses, or nothing is named.
pub(crate) async fn run(client: &Client, args: EnableArgs) -> anyhow::Result<ExitCode> {
    let Some(path) = args.named.path()? else {
        bail!("what? Write --listener NAME or --endpoint UPSTREAM/ADDRESS");
    };
    client.post(&format!("{path}/enable"), &Reasons { reason: None }).await?;
    writeln!(io::stdout(), "enabled")?;
    Ok(ExitCode::SUCCESS)
}
