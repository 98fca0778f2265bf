//! The products compared, configured alike: one worker, no access log, one listener, the same backends in
//! turn.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use tieline_testkit::{Haproxy, Nginx, Tieline, free_port, loopback, usage};

use crate::machine;

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
}

impl Product {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Product::Tieline => "Tieline",
            Product::Haproxy => "HAProxy",
            Product::HaproxySplicing => "HAProxy with splicing forced",
            Product::Nginx => "nginx",
        }
    }
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
    pub(crate) fn start(product: Product, backends: &[SocketAddr]) -> anyhow::Result<Proxy> {
        Proxy::start_under(&[], product, backends)
    }

    /// [`Proxy::start`] under a tool, as `["valgrind", "--tool=callgrind"]`.
    pub(crate) fn start_under(
        tool: &[&str],
        product: Product,
        backends: &[SocketAddr],
    ) -> anyhow::Result<Proxy> {
        let address = loopback(free_port());
        let server = match product {
            Product::Tieline => {
                let binary = machine::tieline_binary()?;
                Server::Tieline(Tieline::start_under(&binary, tool, &tieline_config(address, backends)))
            }
            Product::Haproxy => haproxy(tool, "splice-auto", address, backends),
            Product::HaproxySplicing => {
                haproxy(tool, "splice-request\n  option splice-response", address, backends)
            }
            Product::Nginx => {
                Server::Nginx(Nginx::stream_under(tool, &nginx_config(address, backends), address))
            }
        };
        Ok(Proxy { server, address })
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

/// The head of every Tieline config here.
pub(crate) const TIELINE_SERVER: &str = "[server]\nworkers = 1\naccess_log = \"off\"\nlog = \"warn\"\n";

fn tieline_config(address: SocketAddr, backends: &[SocketAddr]) -> String {
    let endpoints: Vec<String> = backends.iter().map(|backend| format!("\"{backend}\"")).collect();
    format!(
        "{TIELINE_SERVER}\n[listener.bench]\nbind = \"{address}\"\nprotocol = \"tcp\"\n\n\
         [[listener.bench.route]]\nupstream = \"bench\"\naccess = \"public\"\n\n\
         [upstream.bench]\nendpoints = [{}]\nbalance = \"round-robin\"\n",
        endpoints.join(", ")
    )
}

fn haproxy(tool: &[&str], option: &str, address: SocketAddr, backends: &[SocketAddr]) -> Server {
    Server::Haproxy(Haproxy::start_under(tool, &haproxy_config(option, address, backends), address))
}

fn haproxy_config(option: &str, address: SocketAddr, backends: &[SocketAddr]) -> String {
    // It does not start unless the limit of files is above two for each connection and each pipe; few pipes
    // do.
    let most = machine::connections_max();
    let mut config = format!(
        "global\n  nbthread 1\n  maxconn {most}\n  maxpipes 100\n\
         defaults\n  mode tcp\n  option {option}\n  maxconn {most}\n\
         \x20 timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen bench\n  bind {address}\n  balance roundrobin\n"
    );
    for (index, backend) in backends.iter().enumerate() {
        let _ = writeln!(config, "  server s{index} {backend}"); // a String takes everything
    }
    config
}

fn nginx_config(address: SocketAddr, backends: &[SocketAddr]) -> String {
    let servers: String = backends.iter().map(|backend| format!("server {backend}; ")).collect();
    // 511 is nginx's own backlog; the others listen with the system's largest.
    format!(
        "access_log off; upstream bench {{ {servers}}}\n\
         server {{ listen {address} backlog=4096; proxy_pass bench;\n\
         proxy_timeout 1h; proxy_connect_timeout 5s; }}"
    )
}
