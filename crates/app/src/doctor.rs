//! `tieline doctor`: which ways lead from here to a server, and what is in the others.
//!
//! Looks and changes nothing; it needs no token. What is found are facts (`Findings`); `checks.rs` says
//! what they mean and what to do.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use tieline_base::{Address, Clock};
use tieline_config::{Carrier, Config};
use tieline_transport::raise_file_limit;
use tieline_tunnel::{Examination, Identity, Proxy};

use crate::agent::server_address;
use crate::logging::print;
use crate::proxy::{self, Out};

mod checks;
mod report;
mod ways;

use checks::Surroundings;
use report::Report;

/// Which server, and as whom.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// The server's listener of protocol "tunnel": host, host:port or https://host. Left out: the first of
    /// `--config`
    #[arg(required_unless_present = "config")]
    server: Option<String>,
    /// An agent's folder, as `tieline agent join` made it: whoever answers must be the server that it joined,
    /// and its certificate is looked at
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// An agent's config file, which says server, folder, proxy and carriers
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A proxy of HTTP that leads out, like `http://proxy.internal:3128`; one with a password stands in
    /// HTTPS_PROXY, where `ps` does not show it [default: what HTTPS_PROXY and NO_PROXY say]
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a link may go over where no file says otherwise.
const ALL: [Carrier; 3] = [Carrier::Quic, Carrier::Tls, Carrier::WebSocket];

/// What was asked for makes no sense, or something that it names cannot be read.
const UNASKED: u8 = 2;

/// Looks at the ways to a server.
///
/// # Errors
/// None: why it could not look is said in one line.
pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    match examined(args) {
        Ok(report) => {
            print(&if args.json { report.json() } else { report.text() });
            Ok(if report.links() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => {
            crate::logging::say(&format!("tieline: {error:#}"));
            Ok(ExitCode::from(UNASKED))
        }
    }
}

/// What is to be looked at.
struct Case {
    server: Address,
    out: Out,
    identity: Option<Identity>,
    carriers: Vec<Carrier>,
}

fn examined(args: &DoctorArgs) -> anyhow::Result<Report> {
    let Case { server, out, identity, carriers } = case(args)?;
    let mut examination = Examination::of(server.clone(), out.proxy().cloned())?;
    let mut term = None;
    if let Some(identity) = &identity {
        examination = examination.by(identity)?;
        term = identity.term();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(examination.run());
    // A thread may still wait for a name.
    runtime.shutdown_background();
    let files = raise_file_limit().now;
    let around =
        Surroundings { server: &server, out: &out, carriers: &carriers, now: Clock::wall(), term, files };
    Ok(checks::report(&findings, &around))
}

fn case(args: &DoctorArgs) -> anyhow::Result<Case> {
    let agent = args.config.as_ref().map(|path| {
        let loaded = Config::load(path).map_err(|problems| anyhow::anyhow!("{}", problems[0]))?;
        let agent = loaded.config.live.agent;
        agent.with_context(|| format!("{} has no [agent]", path.display()))
    });
    let agent = agent.transpose()?;
    let server = match (&args.server, &agent) {
        (Some(text), _) => address(text)?,
        (None, Some(agent)) if !agent.servers.is_empty() => agent.servers[0].clone(),
        (None, _) => bail!("which server? write HOST:PORT"),
    };
    let written = agent.as_ref().and_then(|agent| agent.proxy.as_ref());
    let out = match &args.proxy {
        Some(text) => Out::Through(proxy::without_password(text)?),
        None => proxy::out(written, &server)?,
    };
    let folder = args.folder.as_ref().or(agent.as_ref().map(|agent| &agent.folder));
    let carriers = agent.as_ref().map_or_else(|| ALL.to_vec(), |agent| agent.carriers.clone());
    Ok(Case { server, out, identity: folder.map(|folder| Identity::of(folder)), carriers })
}

/// As elsewhere; and a host alone is one at the port of HTTPS.
fn address(text: &str) -> anyhow::Result<Address> {
    let alone = !text.contains("://") && text.rsplit_once(':').is_none_or(|(_, port)| port.contains(']'));
    server_address(&if alone { format!("https://{text}") } else { text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn a_host_alone_is_one_at_the_port_of_https() {
        for (text, expected) in [
            ("gate.test", "gate.test:443"),
            ("gate.test:7443", "gate.test:7443"),
            ("[2001:db8::1]", "[2001:db8::1]:443"),
            ("[2001:db8::1]:7443", "[2001:db8::1]:7443"),
            ("https://gate.test", "gate.test:443"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), expected, "{text}");
        }
        assert!(address("").is_err() && address("agent:a/b").is_err());
    }
}
