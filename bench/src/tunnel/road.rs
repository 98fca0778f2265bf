//! One road to far services: a server here, something that dials in from there, and what it leads to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use clap::ValueEnum;
use tempfile::TempDir;
use tieline_testkit::{
    Agent, Authority, PATIENCE, Process, Sshd, Tieline, finish, free_port, loopback, program, usage,
    wait_until,
};

use super::peers;
use crate::machine;

/// Who leads to far services.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum)]
pub(crate) enum Peer {
    Tieline,
    /// With TLS.
    Rathole,
    /// `ssh -L`: the near side dials.
    SshLocal,
    /// `ssh -R`: the far side dials, as agents do.
    SshRemote,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Tieline => "Tieline",
            Peer::Rathole => "rathole",
            Peer::SshLocal => "ssh -L",
            Peer::SshRemote => "ssh -R",
        }
    }
}

/// Where the far side is.
#[derive(Clone)]
pub(super) struct Place {
    /// What its programs run under.
    pub(super) tool: Vec<String>,
    /// The near side, as the far one sees it.
    pub(super) near: IpAddr,
}

impl Place {
    /// On this machine.
    pub(super) fn here() -> Place {
        Place { tool: Vec::new(), near: Ipv4Addr::LOCALHOST.into() }
    }
}

/// A running road.
pub(super) struct Road {
    /// Where clients connect, in the order of the services.
    pub(super) services: Vec<SocketAddr>,
    ends: Ends,
}

enum Ends {
    Tieline { server: Box<Tieline>, agent: Box<Agent> },
    Rathole { server: Process, client: Process, _folder: TempDir },
    Ssh { server: Sshd, client: Process, _folder: TempDir },
}

impl Road {
    /// Leads to `targets`, as the far side sees them; ready when each can be connected to.
    pub(super) fn start(peer: Peer, place: &Place, targets: &[SocketAddr]) -> anyhow::Result<Road> {
        let services: Vec<SocketAddr> = targets.iter().map(|_| loopback(free_port())).collect();
        let ends = match peer {
            Peer::Tieline => tieline(place, &services, targets)?,
            Peer::Rathole => rathole(place, &services, targets)?,
            Peer::SshLocal => ssh(place, "-L", &services, targets)?,
            Peer::SshRemote => ssh(place, "-R", &services, targets)?,
        };
        let road = Road { services, ends };
        let up = || road.services.iter().all(|service| TcpStream::connect(service).is_ok());
        ensure!(wait_until(PATIENCE, up), "the road of {} is not ready", peer.name());
        Ok(road)
    }

    /// The CPU time that both of its ends have used.
    pub(super) fn cpu_time(&self) -> Duration {
        self.pids().map(usage::cpu_time).sum()
    }

    fn pids(&self) -> impl Iterator<Item = u32> {
        let pids = match &self.ends {
            Ends::Tieline { server, agent } => [server.pid(), agent.pid()],
            Ends::Rathole { server, client, .. } => [server.pid(), client.pid()],
            Ends::Ssh { server, client, .. } => [server.pid(), client.pid()],
        };
        pids.into_iter()
    }
}

fn tieline(place: &Place, services: &[SocketAddr], targets: &[SocketAddr]) -> anyhow::Result<Ends> {
    let binary = machine::tieline_binary()?;
    let server = Tieline::start_from(&binary, &config(place.near, services));
    let offers: String =
        (0..).zip(targets).map(|(at, to)| format!("[offer.s{at}]\nto = \"{to}\"\n")).collect();
    let tool: Vec<&str> = place.tool.iter().map(String::as_str).collect();
    let gate = server.listener_address("gate");
    let agent = Agent::join_under(&binary, &tool, &server, "far", gate, &offers);
    let linked = || server.cli(["ls", "listener=gate", "stage=relay"]).stdout.contains("gate");
    ensure!(wait_until(PATIENCE, linked), "the agent does not link up: {}", server.log());
    Ok(Ends::Tieline { server: Box::new(server), agent: Box::new(agent) })
}

/// A server with a listener for agents at `near`, and one for each of `services`, `s0` and so on.
pub(super) fn config(near: IpAddr, services: &[SocketAddr]) -> String {
    let services = (0..).zip(services).map(|(at, address)| {
        format!(
            "[listener.s{at}]\nbind = \"{address}\"\nprotocol = \"tcp\"\n\
             [[listener.s{at}.route]]\nupstream = \"s{at}\"\naccess = \"public\"\n\
             [upstream.s{at}]\nendpoints = [\"agent:far/s{at}\"]\n"
        )
    });
    let gate = SocketAddr::new(near, 0);
    format!(
        "[server]\naccess_log = \"off\"\nlog = \"warn\"\n\
         [listener.gate]\nbind = \"{gate}\"\nprotocol = \"tunnel\"\ntimeouts = {{ drain = \"1s\" }}\n{}",
        services.collect::<String>()
    )
}

fn rathole(place: &Place, services: &[SocketAddr], targets: &[SocketAddr]) -> anyhow::Result<Ends> {
    let (binary, folder) = (peers::rathole()?.display().to_string(), tempfile::tempdir()?);
    let gate = SocketAddr::new(place.near, free_port());
    let secret = "default_token = \"a token of both\"\n";
    let identity = identity(folder.path())?;
    let mut server = format!(
        "[server]\nbind_addr = \"{gate}\"\n{secret}[server.transport]\ntype = \"tls\"\n\
         [server.transport.tls]\npkcs12 = \"identity.pfx\"\npkcs12_password = \"{PASSWORD}\"\n"
    );
    let mut client = format!(
        "[client]\nremote_addr = \"{gate}\"\n{secret}[client.transport]\ntype = \"tls\"\n\
         [client.transport.tls]\ntrusted_root = \"{identity}\"\nhostname = \"{NAME}\"\n"
    );
    for (at, (service, target)) in services.iter().zip(targets).enumerate() {
        server += &format!("[server.services.s{at}]\nbind_addr = \"{service}\"\n");
        client += &format!("[client.services.s{at}]\nlocal_addr = \"{target}\"\n");
    }
    std::fs::write(folder.path().join("server.toml"), server)?;
    std::fs::write(folder.path().join("client.toml"), client)?;
    let words = |tool: &[String], end: &str| {
        let own = [binary.clone(), format!("--{end}"), format!("{end}.toml")];
        [tool, &own].concat()
    };
    let listens = || TcpStream::connect(gate).is_ok();
    let server = Process::run("rathole-server", &words(&[], "server"), folder.path(), listens);
    let client = Process::run("rathole-client", &words(&place.tool, "client"), folder.path(), || true);
    Ok(Ends::Rathole { server, client, _folder: folder })
}

const NAME: &str = "near.test";
const PASSWORD: &str = "of the bench";

/// The server's certificate and key in one file, as rathole wants them; answers where its root is.
fn identity(folder: &Path) -> anyhow::Result<String> {
    let authority = Authority::new();
    let pair = authority.server(&[NAME]);
    std::fs::copy(authority.ca(), folder.join("ca.crt"))?;
    let mut openssl = std::process::Command::new(program("openssl"));
    openssl.args(["pkcs12", "-export", "-passout"]).arg(format!("pass:{PASSWORD}"));
    openssl.arg("-in").arg(&pair.certificate).arg("-inkey").arg(&pair.key);
    openssl.arg("-out").arg(folder.join("identity.pfx"));
    finish(&mut openssl).expect("openssl pkcs12");
    Ok(folder.join("ca.crt").display().to_string())
}

fn ssh(place: &Place, flag: &str, services: &[SocketAddr], targets: &[SocketAddr]) -> anyhow::Result<Ends> {
    let folder = tempfile::tempdir()?;
    let server = Sshd::start_on(place.near);
    let mut words = place.tool.clone();
    words.extend([program("ssh").display().to_string(), "-N".to_owned()]);
    for (service, target) in services.iter().zip(targets) {
        words.extend([flag.to_owned(), format!("{service}:{target}")]);
    }
    words.extend(["-o".to_owned(), "ExitOnForwardFailure=yes".to_owned()]);
    words.extend(server.client_options(server.address()));
    words.push("server".to_owned());
    let client = Process::run("ssh", &words, folder.path(), || true);
    Ok(Ends::Ssh { server, client, _folder: folder })
}
