//! The verbs that speak to a running server: each in its file, all by the one [`client::Client`].

mod agents;
mod approvals;
mod client;
mod drain;
mod enable;
mod kill;
mod ls;
mod orders;
mod reload;
mod show;
mod status;
mod stop;
mod target;
pub(crate) mod text;

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use clap::Subcommand;

/// What a running server can be asked for.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Live connections that match all filters, like `listener=web age>1h`
    Ls(ls::LsArgs),
    /// One connection's whole story: every stage, every decision with its config line, why it ended
    Show(show::ShowArgs),
    /// End connections now
    Kill(kill::KillArgs),
    /// End connections at their next safe point, or when their time to drain is over
    Drain(drain::DrainArgs),
    /// Take a drained listener or endpoint into use again
    Enable(enable::EnableArgs),
    /// Apply the config file as it is now
    Reload(reload::ReloadArgs),
    /// Drain and stop
    Stop(stop::StopArgs),
    /// Agents at far sites: which are linked up, by what, since when
    Agents(agents::AgentsArgs),
    /// Requests for approvals of far services: who waits, for what, why, and what was approved
    Approvals(approvals::ApprovalsArgs),
    /// Let somebody open the far service that he waits for
    Approve(approvals::ApproveArgs),
    /// Do not let him, or no longer: what was opened by it ends now
    Deny(approvals::DenyArgs),
    /// How the server stands
    Status(status::StatusArgs),
}

/// Does `verb`, on a runtime of its own.
///
/// # Errors
/// Why it did not work, and what to do, in one line.
pub(crate) fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(act(verb));
    match done {
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done,
    }
}

async fn act(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Ls(args) => ls::run(&args.target.client()?, args).await,
        Verb::Show(args) => show::run(&args.target.client()?, args).await,
        Verb::Kill(args) => kill::run(&args.target.client()?, args).await,
        Verb::Drain(args) => drain::run(&args.target.client()?, args).await,
        Verb::Enable(args) => enable::run(&args.target.client()?, args).await,
        Verb::Reload(args) => reload::run(&args.target.client()?, args).await,
        Verb::Stop(args) => stop::run(&args.target.client()?, args).await,
        Verb::Agents(args) => agents::run(&args.target.client()?, args).await,
        Verb::Approvals(args) => approvals::list(&args.target.client()?, args).await,
        Verb::Approve(args) => approvals::approve(&args.target.client()?, args).await,
        Verb::Deny(args) => approvals::deny(&args.target.client()?, args).await,
        Verb::Status(args) => status::run(&args.target.client()?, args).await,
    }
}

/// Whether whoever read our output, like `head`, has read enough: no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
