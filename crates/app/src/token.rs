//! `tieline token`: what people prove themselves by who reach far services from their own devices.

use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::bail;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use tieline_base::parse_duration;
use tieline_config::Config;
use tieline_tunnel::{Agents, People, PersonEntry};

use crate::agent::{bound, server_config};
use crate::args::ConfigArgs;
use crate::logging::{print, say};

/// What can be done about people's tokens.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// A token by which somebody proves who he is, until it expires or is revoked. It is shown once
    Create(CreateArgs),
    /// The tokens that are good, without their secrets
    List(ListArgs),
    /// A token, or all of somebody's, are good no longer; what lives by them ends
    Revoke(RevokeArgs),
}

#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Who it is, as `allow.identity` names him
    name: String,
    /// The groups that he belongs to, as `allow.identity` names them behind "group:"
    #[arg(long, value_name = "GROUP,…", value_delimiter = ',')]
    groups: Vec<String>,
    /// For how long it is good, at most 366d
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = lifetime)]
    expires: Duration,
    /// The address that people reach this server by, if it is not what the listener binds
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeArgs {
    /// A token's id, as `tieline token list` shows it, or the name of somebody
    which: String,
    #[command(flatten)]
    config: ConfigArgs,
}

/// The longest that a token is good.
const EXPIRES_MAX: Duration = Duration::from_secs(366 * 86_400);

fn lifetime(text: &str) -> Result<Duration, String> {
    let parsed = parse_duration(text).map_err(|error| error.to_string())?;
    let fits = (Duration::from_secs(1)..=EXPIRES_MAX).contains(&parsed);
    if fits { Ok(parsed) } else { Err("a token is good for 1s to 366d".into()) }
}

/// Does `verb`.
///
/// # Errors
/// Why it did not work, and what to do, in one line.
pub(crate) fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Create(args) => create(&args)?,
        Verb::List(args) => list(&args)?,
        Verb::Revoke(args) => revoke(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let config = server_config(&args.config)?;
    for group in &args.groups {
        must_exist(group, &config, args)?;
    }
    let authority = Agents::new(&config.boot.data).authority()?.fingerprint();
    let people = People::of(&config.boot.data);
    let (made, token) = people.create(&args.name, &args.groups, args.expires, authority)?;
    let server = args.server.clone().or_else(|| bound(&config));
    say(&format!(
        "token {} of \"{}\", good until {}; shown this once. It goes into a file that nobody else can \
         read, for `tieline connect --token-file`:",
        made.id,
        made.name,
        moment(made.expires)
    ));
    print(&format!("{} {}\n", server.as_deref().unwrap_or("HOST:PORT"), token.text().reveal()));
    Ok(())
}

/// A group that no route could mean is a slip of the pen.
fn must_exist(group: &str, config: &Config, args: &CreateArgs) -> anyhow::Result<()> {
    if config.live.group(group).is_some() {
        return Ok(());
    }
    let group = group.escape_debug();
    bail!("{}: group \"{group}\" does not exist; write [group.{group}]", args.config.config.display())
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let config = server_config(&args.config)?;
    let all = People::of(&config.boot.data).list();
    if args.json {
        let row = |entry: &PersonEntry| {
            serde_json::json!({
                "id": entry.id, "name": entry.name, "groups": entry.groups,
                "created": moment(entry.created), "expires": moment(entry.expires),
            })
        };
        let rows: Vec<_> = all.iter().map(row).collect();
        print(&format!("{}\n", serde_json::to_string_pretty(&rows)?));
        return Ok(());
    }
    let width = all.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    let row = |entry: &PersonEntry| {
        let groups = if entry.groups.is_empty() { "-".into() } else { entry.groups.join(",") };
        format!("{}  {:width$}  {}  {groups}\n", entry.id, entry.name, moment(entry.expires))
    };
    print(&all.iter().map(row).collect::<String>());
    Ok(())
}

fn revoke(args: &RevokeArgs) -> anyhow::Result<()> {
    let config = server_config(&args.config)?;
    let gone = People::of(&config.boot.data).revoke(&args.which)?;
    if gone.is_empty() {
        bail!(
            "no token is called \"{}\", nor its owner; `tieline token list` names them",
            args.which.escape_debug()
        );
    }
    for entry in gone {
        say(&format!(
            "token {} of \"{}\" is good no longer; a running server ends what lives by it now",
            entry.id, entry.name
        ));
    }
    Ok(())
}

/// Seconds since 1970, as people read them.
fn moment(seconds: u64) -> String {
    let at = Timestamp::try_from(UNIX_EPOCH + Duration::from_secs(seconds));
    at.map_or_else(|_| seconds.to_string(), |at| at.to_string())
}
