//! `tieline stop`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::client::{Client, Refused};
use super::orders::Reasons;
use super::target::Target;
use super::text::connections;

/// Which server to stop, and how.
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    /// End what still lives at once, instead of giving it its time to drain
    #[arg(long)]
    now: bool,
    /// Do not wait until the server is gone
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Deserialize)]
struct Stopping {
    live: u64,
}

#[derive(Deserialize)]
struct Standing {
    pid: u32,
}

/// How often a server that drains is asked whether it is still there.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// Stops the server, and waits until it is gone.
///
/// # Errors
/// When the server does not answer at the start.
pub(crate) async fn run(client: &Client, args: StopArgs) -> anyhow::Result<ExitCode> {
    let pid = pid(client).await?;
    let stopping: Stopping = serde_json::from_slice(&ask(client).await?)?;
    if args.now {
        // Asked twice, the server hurries. It may go before or within the second word: only a plain no
        // counts.
        if let Err(error) = ask(client).await
            && error.is::<Refused>()
        {
            return Err(error);
        }
    }
    let live = connections(stopping.live);
    if args.no_wait {
        writeln!(io::stdout(), "draining {live}")?;
        return Ok(ExitCode::SUCCESS);
    }
    // Another process id is another server, started in its place.
    while self::pid(client).await.is_ok_and(|now| now == pid) {
        tokio::time::sleep(ASKED_EVERY).await;
    }
    writeln!(io::stdout(), "stopped; {live} lived when it began")?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(client: &Client) -> anyhow::Result<hyper::body::Bytes> {
    client.post("/api/v1/stop", &Reasons { reason: None }).await
}

async fn pid(client: &Client) -> anyhow::Result<u32> {
    let standing: Standing = serde_json::from_slice(&client.get("/api/v1/status").await?)?;
    Ok(standing.pid)
}
