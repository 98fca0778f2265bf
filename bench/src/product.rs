//! The products compared, running.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::ValueEnum;
use tieline_testkit::{Haproxy, Nginx, PATIENCE, Tieline, free_port, loopback, usage, wait_until};

use crate::http::Trust;
use crate::{config, machine};

/// One of the proxies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, ValueEnum)]
pub(crate) enum Product {
    Tieline,
    Haproxy,
    /// With splicing forced: `splice-auto` leaves it to a heuristic, which a steady stream does not always
    /// meet.
    #[value(skip)]
    HaproxySplicing,
    Nginx,
    /// For PostgreSQL alone.
    #[value(name = "pgbouncer")]
    PgBouncer,
}

impl Product {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Product::Tieline => "Tieline",
            Product::Haproxy => "HAProxy",
            Product::HaproxySplicing => "HAProxy with splicing forced",
            Product::Nginx => "nginx",
            Product::PgBouncer => "PgBouncer",
        }
    }
}

/// What a proxy is configured for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Traffic {
    /// Bytes, relayed unread.
    Tcp,
    /// HTTP, kept alive on both sides.
    Http,
    /// The same, with an access log in a file.
    HttpLogged,
}

/// A running proxy.
pub(crate) struct Proxy {
    server: Server,
    address: SocketAddr,
}

enum Server {
    Tieline(Tieline),
    Haproxy(Haproxy),
    Nginx(Nginx),
}

impl Proxy {
    /// Starts `product` before `backends`.
    pub(crate) fn start(
        product: Product,
        traffic: Traffic,
        backends: &[SocketAddr],
    ) -> anyhow::Result<Proxy> {
        Proxy::start_under(&[], product, traffic, backends)
    }

    /// [`Proxy::start`] with Tieline's own balance instead of turns, which the others go on taking.
    pub(crate) fn start_balancing(
        product: Product,
        traffic: Traffic,
        backends: &[SocketAddr],
    ) -> anyhow::Result<Proxy> {
        let untaught = |config: String| config.replace("balance = \"round-robin\"\n", "");
        Proxy::launch(&[], product, traffic, &untaught, backends)
    }

    /// [`Proxy::start`] with TLS towards clients.
    pub(crate) fn start_secure(
        product: Product,
        traffic: Traffic,
        trust: &Trust,
        backends: &[SocketAddr],
    ) -> anyhow::Result<Proxy> {
        Proxy::launch(&[], product, traffic, &|config| config::secured(product, &config, trust), backends)
    }

    /// [`Proxy::start`] with HTTP/2 towards clients: over TLS where there is a `trust`.
    pub(crate) fn start_http2(
        product: Product,
        traffic: Traffic,
        trust: Option<&Trust>,
        backends: &[SocketAddr],
    ) -> anyhow::Result<Proxy> {
        Proxy::launch(&[], product, traffic, &|config| config::http2(product, &config, trust), backends)
    }

    /// [`Proxy::start`] under a tool, as `["valgrind", "--tool=callgrind"]`. There is none for nginx with
    /// HTTP.
    pub(crate) fn start_under(
        tool: &[&str],
        product: Product,
        traffic: Traffic,
        backends: &[SocketAddr],
    ) -> anyhow::Result<Proxy> {
        Proxy::launch(tool, product, traffic, &|config| config, backends)
    }

    fn launch(
        tool: &[&str],
        product: Product,
        traffic: Traffic,
        change: &dyn Fn(String) -> String,
        backends: &[SocketAddr],
    ) -> anyhow::Result<Proxy> {
        let address = loopback(free_port());
        let server = match product {
            Product::Tieline => {
                let (binary, config) =
                    (machine::tieline_binary()?, change(config::tieline(traffic, address, backends)));
                Server::Tieline(Tieline::start_under(&binary, tool, &config))
            }
            Product::Haproxy | Product::HaproxySplicing => {
                let splicing = product == Product::HaproxySplicing;
                let config = change(config::haproxy(traffic, splicing, address, backends));
                Server::Haproxy(Haproxy::start_under(tool, &config, address))
            }
            Product::PgBouncer => bail!("PgBouncer relays neither TCP nor HTTP"),
            Product::Nginx => {
                let config = change(config::nginx(traffic, address, backends));
                Server::Nginx(match traffic {
                    Traffic::Tcp => Nginx::stream_under(tool, &config, address),
                    _ if tool.is_empty() => Nginx::http(&config, address),
                    _ => bail!("nginx cannot be run under a tool with HTTP"),
                })
            }
        };
        let proxy = Proxy { server, address };
        // nginx's master accepts before it has a worker; who is pinned or watched must be there.
        let awaits_worker = product == Product::Nginx;
        let whole = wait_until(PATIENCE, || !awaits_worker || usage::tree(proxy.pid()).len() > 1);
        ensure!(whole, "nginx has no worker");
        Ok(proxy)
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process that everything of it descends from.
    pub(crate) fn pid(&self) -> u32 {
        match &self.server {
            Server::Tieline(tieline) => tieline.pid(),
            Server::Haproxy(haproxy) => haproxy.pid(),
            Server::Nginx(nginx) => nginx.pid(),
        }
    }

    /// The CPU time that all its processes and threads have used.
    pub(crate) fn cpu_time(&self) -> Duration {
        usage::cpu_time(self.pid())
    }

    /// Ends it; tools that watch it write their reports now.
    pub(crate) fn stop(mut self) {
        match &mut self.server {
            Server::Tieline(tieline) => tieline.stop(),
            Server::Haproxy(haproxy) => haproxy.process().stop(),
            Server::Nginx(nginx) => nginx.process().stop(),
        };
    }
}
