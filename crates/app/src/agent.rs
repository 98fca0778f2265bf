//! `tieline agent`: what lets agents in, and the agent itself.

use std::io::{self, BufRead, IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use tieline_base::{Address, Labels, parse_duration};
use tieline_config::{self as config, BindAddress, Carrier, Checked, Config, Protocol};
use tieline_tunnel::{Agent, Authority, Identity, Offer, Over, Revoked, Server, Store, enrol};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::args::ConfigArgs;
use crate::logging::{self, print, say};
use crate::proxy;

/// What can be done about agents.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// At the server: a token with which an agent joins, once
    Token(TokenArgs),
    /// At the server: the agents that may link up
    List(ConfigArgs),
    /// At the server: an agent may not link up any more; its live streams end
    Revoke(RevokeArgs),
    /// At the far site: redeems a token for a certificate. The key is made here and never leaves
    Join(JoinArgs),
    /// At the far site: keeps a link to the server, and serves what the config file offers
    Run(RunArgs),
}

#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    /// What the agent will be called: 1 to 63 letters, digits, dots, hyphens and underscores
    name: String,
    /// For how long the token can be redeemed, at most 24h
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = lifetime)]
    expires: Duration,
    /// What it is labelled with, like `site=berlin`; written again for more. Upstreams reach every agent that
    /// has a label by `agent:site=berlin/ssh`
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<String>,
    /// The address that agents reach this server by, if it is not what the listener binds
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeArgs {
    /// The agent
    name: String,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Args, Debug)]
pub(crate) struct JoinArgs {
    /// The server's listener of protocol "tunnel": host:port, or https://host
    server: String,
    /// What `tieline agent token` printed; left out, or `-`: read from the standard input, where neither `ps`
    /// nor the shell's history shows it
    #[arg(default_value = "-")]
    token: String,
    /// Where key and certificate are kept
    #[arg(long, value_name = "FOLDER", default_value = "tieline-agent")]
    folder: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The agent's config file
    #[arg(short, long, value_name = "FILE", default_value = "agent.toml")]
    config: PathBuf,
}

/// The longest that a token can be redeemed.
const EXPIRES_MAX: Duration = Duration::from_secs(86_400);

/// More than any token has.
const TOKEN_MAX: u64 = 1_024;

fn lifetime(text: &str) -> Result<Duration, String> {
    let parsed = parse_duration(text).map_err(|error| error.to_string())?;
    let fits = (Duration::from_secs(1)..=EXPIRES_MAX).contains(&parsed);
    if fits { Ok(parsed) } else { Err("a token lives for 1s to 24h".into()) }
}

fn label(text: &str) -> Result<String, String> {
    match text.parse::<Labels>() {
        Ok(labels) if labels.iter().count() == 1 => Ok(text.to_owned()),
        Ok(_) => Err("write one label, key=value; and --label again for the next".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Does `verb`.
///
/// # Errors
/// Why it did not work, and what to do, in one line.
pub(crate) fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Token(args) => token(&args),
        Verb::List(args) => list(&args),
        Verb::Revoke(args) => revoke(&args),
        Verb::Join(args) => join(&args),
        Verb::Run(args) => serve(&args),
    }
}

pub(crate) fn server_config(args: &ConfigArgs) -> anyhow::Result<Config> {
    let file = args.config.display();
    let checked = Config::load(&args.config);
    let Checked { config, .. } = checked.map_err(|problems| anyhow::anyhow!("{}", problems[0]))?;
    if !config.live.listeners.iter().any(|listener| listener.protocol == Protocol::Tunnel) {
        bail!("{file} has no listener of protocol \"tunnel\", where agents could link up");
    }
    Ok(config)
}

/// The server's store, for its own user: what another makes there, the server cannot read.
fn own_store(config: &Config) -> anyhow::Result<Store> {
    let data = &config.boot.data;
    if let Ok(found) = std::fs::metadata(data) {
        let (owner, own) = (found.uid(), rustix::process::geteuid().as_raw());
        if owner != own {
            let data = data.display();
            bail!(
                "{data} belongs to the user {owner}, who runs the server: do this as that user, not as {own}"
            );
        }
    }
    Ok(Store::of(data))
}

fn token(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    let config = server_config(&args.config)?;
    let store = own_store(&config)?;
    let authority = Authority::open(&store)?;
    let labels: Labels = args.labels.join(",").parse()?;
    let token = store.issue_token(&args.name, labels, args.expires, authority.fingerprint())?;
    let server = args.server.clone().or_else(|| bound(&config));
    let server = server.as_deref().unwrap_or("HOST:PORT");
    say(&format!(
        "for agent \"{}\", once, within {:?}; at the far site, `tieline agent join {server}` asks for it:",
        args.name, args.expires
    ));
    print(&format!("{}\n", token.text().reveal()));
    Ok(ExitCode::SUCCESS)
}

fn list(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let config = server_config(args)?;
    let store = Store::of(&config.boot.data);
    let mut lines = String::new();
    for (name, _) in store.names() {
        let Some(known) = store.read(&name)? else { continue };
        let labels = Some(known.labels.to_string()).filter(|labels| !labels.is_empty());
        let locked = known.is_locked().then(|| "locked out: somebody has a copy of its key".to_owned());
        let words: Vec<String> = [Some(name), labels, locked].into_iter().flatten().collect();
        lines += &format!("{}\n", words.join("  "));
    }
    print(&lines);
    Ok(ExitCode::SUCCESS)
}

/// Where agents link up, if the config says it so that it can be dialed.
pub(crate) fn bound(config: &Config) -> Option<String> {
    let tunnels = config.live.listeners.iter().filter(|listener| listener.protocol == Protocol::Tunnel);
    tunnels.flat_map(|listener| &listener.bind).find_map(|bind| match &bind.address {
        BindAddress::Socket(socket) if !socket.ip().is_unspecified() && socket.port() != 0 => {
            Some(socket.to_string())
        }
        _ => None,
    })
}

fn revoke(args: &RevokeArgs) -> anyhow::Result<ExitCode> {
    let config = server_config(&args.config)?;
    let revoked = own_store(&config)?.revoke(&args.name)?;
    let name = args.name.escape_debug();
    match revoked {
        Revoked { agent: true, .. } => {
            say(&format!("agent \"{name}\" may not link up any more; a running server ends its streams now"));
        }
        Revoked { agent: false, tokens: 0 } => {
            bail!("no agent \"{name}\" may link up; `tieline agent list` names those that may");
        }
        Revoked { agent: false, tokens } => {
            say(&format!("agent \"{name}\" has not joined yet, and cannot: {tokens} token(s) taken back"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `host:port`, or `https://host` with or without a port.
pub(crate) fn server_address(text: &str) -> anyhow::Result<Address> {
    let bare = text.strip_prefix("https://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let whole = match bare {
        Some(host) if host.rsplit_once(':').is_none_or(|(_, port)| port.contains(']')) => {
            format!("{host}:443")
        }
        Some(host) => host.to_owned(),
        None => text.to_owned(),
    };
    let address: Address =
        whole.parse().with_context(|| format!("the server \"{}\"", text.escape_debug()))?;
    if matches!(address, Address::Agent(_) | Address::Group(_)) {
        bail!("an agent is no server");
    }
    Ok(address)
}

fn join(args: &JoinArgs) -> anyhow::Result<ExitCode> {
    let server = server_address(&args.server)?;
    let token = if args.token == "-" { from_stdin()? } else { args.token.clone() };
    let identity = Identity::of(&args.folder);
    let proxy = proxy::from_environment(&server)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let name = runtime.block_on(enrol(&server, proxy.as_ref(), &token, &identity))?;
    let folder = args.folder.display();
    say(&format!(
        "joined as \"{name}\"; key and certificate are in {folder}. For `tieline agent run`, agent.toml:"
    ));
    print(&format!(
        "[agent]\nserver = \"{server}\"\nfolder = \"{folder}\"\n\n[offer.ssh]\nto = \"127.0.0.1:22\"\n"
    ));
    Ok(ExitCode::SUCCESS)
}

fn from_stdin() -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        say("the token, as `tieline agent token` printed it at the server:");
    }
    let mut line = String::new();
    io::stdin().lock().take(TOKEN_MAX).read_line(&mut line).context("the standard input")?;
    Ok(line)
}

fn over(carrier: &Carrier) -> Over {
    match carrier {
        Carrier::Quic => Over::Quic,
        Carrier::Tls => Over::Tls,
        Carrier::WebSocket => Over::WebSocket,
    }
}

fn serve(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let file = args.config.display();
    let checked = match Config::load(&args.config) {
        Ok(checked) => checked,
        Err(problems) => {
            problems.iter().for_each(|problem| say(&problem.to_string()));
            return Ok(ExitCode::FAILURE);
        }
    };
    let Some(agent) = checked.config.live.agent else {
        bail!("{file} has no [agent]; `tieline agent join` prints one");
    };
    let server = &checked.config.live.server;
    logging::start(server.log, checked.config.boot.log_format);
    checked.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let carriers: Vec<Over> = agent.carriers.iter().map(over).collect();
    let reached = |address: &Address| {
        let proxy = proxy::of(agent.proxy.as_ref(), address)?;
        anyhow::Ok(Server { address: address.clone(), proxy })
    };
    let servers: Vec<Server> = agent.servers.iter().map(reached).collect::<anyhow::Result<_>>()?;
    let running = Agent::new(servers, Identity::of(&agent.folder), offered(&agent)).over(&carriers);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut hang_up = signal(SignalKind::hangup())?;
        let (rouse, roused) = watch::channel(());
        let rousing = async {
            while hang_up.recv().await.is_some() {
                read_again(&args.config, &agent, &running);
                rouse.send_replace(());
            }
            std::future::pending().await
        };
        let stop = async {
            // Both arms may be dropped: what was sent is remembered.
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = rousing => {}
            }
        };
        let servers: Vec<String> = agent.servers.iter().map(ToString::to_string).collect();
        say(&format!("agent of {}; offers: {}", servers.join(" and "), told(&agent)));
        running.run(roused, stop).await.with_context(|| file.to_string())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn offered(agent: &config::Agent) -> impl Iterator<Item = Offer> {
    agent.offers.iter().map(|offer| Offer { name: offer.name.clone(), to: offer.to.clone() })
}

fn told(agent: &config::Agent) -> String {
    let offers: Vec<_> = agent.offers.iter().map(|offer| format!("{} ({})", offer.name, offer.to)).collect();
    offers.join(", ")
}

/// Has `running` offer what the file says now. A file that cannot be obeyed changes nothing.
fn read_again(file: &Path, started: &config::Agent, running: &Agent) {
    let name = file.display();
    let read = Config::load(file).map_err(|problems| problems[0].to_string());
    let agent = read.and_then(|checked| checked.config.live.agent.ok_or(format!("{name} has no [agent]")));
    match agent {
        Err(problem) => tracing::error!("the offers stay as they were: {problem}"),
        Ok(agent) => {
            tracing::info!("{name} was read again; offers: {}", told(&agent));
            running.offer(offered(&agent));
            let alike = config::Agent { offers: started.offers.clone(), place: started.place, ..agent };
            if alike != *started {
                tracing::warn!("{name}: what has changed in [agent] is obeyed after a restart");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::server_address;

    #[test]
    fn a_server_is_an_address_or_a_url() {
        for (text, expected) in [
            ("https://gate.test", "gate.test:443"),
            ("https://gate.test/", "gate.test:443"),
            ("https://[::1]:7443", "[::1]:7443"),
            ("https://[::1]", "[::1]:443"),
            ("10.0.0.1:7443", "10.0.0.1:7443"),
        ] {
            assert_eq!(server_address(text).unwrap().to_string(), expected, "{text}");
        }
        for text in ["gate.test", "https://", "agent:a/b", "http://a:1"] {
            assert!(server_address(text).is_err(), "{text}");
        }
    }
}
