//! The command line.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand};

use crate::{agent, connect, doctor, import, token, user, verbs};

/// Sets up, secures, shares, watches and ends every connection between users, services, databases and far
/// sites.
#[derive(Parser, Debug)]
#[command(name = "tieline", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Everything embedded, nothing to configure: starts, explains itself, prints what to try
    Demo(DemoArgs),
    /// The server
    Run(ConfigArgs),
    /// Every problem of the config at once: file:line:column, what is wrong, how to mend it; warns of risks
    Check(ConfigArgs),
    /// What a config key means, its unit, default and an example, like `explain listener.bind`
    Explain {
        /// The key; left out: every key
        key: Option<String>,
    },
    /// JSON Schema of the config, for editors
    Schema,
    /// Users of the config
    #[command(subcommand)]
    User(user::Verb),
    /// Agents at far sites: what lets them in, and the far side itself
    #[command(subcommand)]
    Agent(agent::Verb),
    /// Reaches services of far sites from here: by the standard input and output, or at local addresses
    Connect(connect::ConnectArgs),
    /// Which ways lead from here to a server's tunnel listener, and what is in the others
    Doctor(doctor::DoctorArgs),
    /// People's tokens, by which they reach far services
    #[command(subcommand)]
    Token(token::Verb),
    /// A config from what other tools are told
    #[command(subcommand)]
    Import(import::Verb),
    #[command(flatten)]
    Steer(verbs::Verb),
}

#[derive(Arguments, Debug)]
pub(crate) struct ConfigArgs {
    /// The config file
    #[arg(short, long, value_name = "FILE", default_value = "tieline.toml")]
    pub(crate) config: PathBuf,
}

#[derive(Arguments, Debug)]
pub(crate) struct DemoArgs {
    /// Make no traffic of its own
    #[arg(long)]
    pub(crate) quiet: bool,
}
