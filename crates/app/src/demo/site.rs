//! A far site: an agent that dials in, and a service that nobody reaches but through its link.

use std::future::pending;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tieline_base::Address;
use tieline_config::Service;
use tieline_tunnel::{Agent, Authority, Identity, Offer, Server, Store, enrol};
use tokio::sync::watch;

use super::{FOLDER, free_or_any, listener, shown, tried};
use crate::house::House;
use crate::logging::say;

/// The service at the site.
pub(super) struct Site {
    meter: SocketAddr,
}

/// The site, and a group of people who may reach what it offers.
const AGENT: &str = "plant-7";
const GROUP: &str = "support";

/// The agent comes when the server has been there for a moment.
const JOINS_WITHIN: Duration = Duration::from_secs(60);

impl Site {
    pub(super) fn start() -> anyhow::Result<Site> {
        Ok(Site { meter: serve().context("cannot start the meter of the far site")? })
    }

    pub(super) fn config(&self) -> String {
        let (gate, site) = (free_or_any("127.0.0.1:7443"), free_or_any("127.0.0.1:7001"));
        format!(
            r#"
# Agents of far sites dial in here, and so do people, for what the route lets them reach.
[listener.gate]
bind = "{gate}"
protocol = "tunnel"

[[listener.gate.route]]
name = "{GROUP}"
service = "{AGENT}/*"
allow = {{ identity = ["group:{GROUP}"] }}

[group.{GROUP}]

# What the site offers is an endpoint like any other.
[listener.site]
bind = "{site}"
protocol = "tcp"
timeouts = {{ drain = "1s" }}

[[listener.site.route]]
name = "{AGENT}"
upstream = "{AGENT}"
allow = {{ from = ["127.0.0.0/8"] }}

[upstream.{AGENT}]
endpoints = ["agent:{AGENT}/meter"]
"#
        )
    }

    pub(super) fn what_there_is(&self, house: &House) -> String {
        format!(
            "  far site   {} before a meter at {AGENT}, whose agent has dialed in at {}\n",
            shown(house, "site"),
            shown(house, "gate")
        )
    }

    pub(super) fn what_to_try(&self, house: &House) -> String {
        let gate = shown(house, "gate");
        let created =
            format!("tieline token create bob --groups {GROUP} --server {gate} -c {FOLDER}/demo.toml");
        [
            tried("tieline agents", "the far sites: over what, since when, how far away"),
            tried(&format!("export TIELINE_TOKEN=$({created})"), ""),
            tried(&format!("tieline connect {AGENT}/meter"), "reach it as support staff do, from anywhere"),
            tried("tieline kill listener=gate", "cut them all off; the site is back before you have looked"),
        ]
        .concat()
    }

    /// Has the agent dial in, for as long as the demo lasts.
    pub(super) fn link_up(&self, house: &House) {
        let (Some(gate), meter) = (listener(house, "gate"), self.meter) else { return };
        std::thread::spawn(move || {
            if let Err(error) = run_agent(gate, meter) {
                say(&format!("the far site is left out: {error:#}"));
            }
        });
    }

    /// Somebody who reads the meter, and comes again when he was cut off.
    pub(super) fn traffic(&self, house: &House) {
        let Some(Address::Socket(address)) = listener(house, "site") else { return };
        std::thread::spawn(move || {
            loop {
                if let Ok(stream) = TcpStream::connect(address) {
                    BufReader::new(stream).lines().map_while(Result::ok).for_each(drop);
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        });
    }
}

/// What `tieline agent token`, `join` and `run` do, one after the other.
fn run_agent(server: Address, meter: SocketAddr) -> anyhow::Result<()> {
    let (data, folder) = (Path::new(FOLDER), Path::new(FOLDER).join(AGENT));
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        // Each demo joins anew.
        _ => {}
    }
    let (store, identity) = (Store::of(data), Identity::of(&folder));
    let authority = Authority::open(&store)?.fingerprint();
    let token = store.issue_token(AGENT, "site=berlin".parse()?, JOINS_WITHIN, authority)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        enrol(&server, None, token.text().reveal(), &identity).await?;
        let offer = Offer { name: "meter".into(), to: Service::Stream(Address::Socket(meter)) };
        let (_rouse, roused) = watch::channel(());
        let server = Server { address: server, proxy: None };
        Ok(Agent::new([server], identity, [offer]).run(roused, pending()).await?)
    })
}

/// A meter on a free port: a reading each second, for whoever listens.
fn serve() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || read_out(client));
        }
    });
    Ok(address)
}

fn read_out(mut client: TcpStream) {
    for second in 0_u32.. {
        let degrees = 21.0 + f64::from(second % 60).mul_add(0.1, -3.0).abs();
        if writeln!(client, "{AGENT}: {degrees:.1} °C").is_err() {
            return;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}
