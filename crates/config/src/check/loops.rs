//! Endpoints that are Tieline itself.

use std::net::SocketAddr;
use std::path::Path;

use tieline_base::Address;

use crate::bind::{BindAddress, takes};
use crate::config::Config;
use crate::listener::Listener;
use crate::problem::Problems;
use crate::upstream::Endpoint;

/// Tells of endpoints that lead back to the listener they serve, and of those that are the admin API.
pub(crate) fn loops(config: &Config, problems: &mut Problems) {
    let admin_socket = config.boot.data.join("admin.sock");
    for endpoint in config.live.upstreams.iter().flat_map(|upstream| &upstream.endpoints) {
        if is_admin(endpoint, config.boot.admin_listen, &admin_socket) {
            let message =
                format!("endpoint \"{}\" is the admin API, which no listener may lead to", endpoint.address);
            problems.error(endpoint.place, message);
        }
    }
    for listener in &config.live.listeners {
        let mut upstreams: Vec<_> = listener.routes.iter().map(|route| route.upstream.as_str()).collect();
        upstreams.sort_unstable();
        upstreams.dedup();
        let upstreams = upstreams.into_iter().filter_map(|name| config.live.upstream(name));
        for endpoint in
            upstreams.flat_map(|upstream| &upstream.endpoints).filter(|it| leads_back(listener, it))
        {
            let message = format!(
                "endpoint \"{}\" leads back to listener \"{}\", which leads to it",
                endpoint.address, listener.name
            );
            problems.error(endpoint.place, message);
        }
    }
}

fn is_admin(endpoint: &Endpoint, listen: Option<SocketAddr>, socket: &Path) -> bool {
    match &endpoint.address {
        Address::Socket(dialed) => listen.is_some_and(|listen| takes(listen, *dialed)),
        Address::Name { host, port } => listen.is_some_and(|listen| is_local(host, *port, listen)),
        Address::Unix(path) => path == socket,
    }
}

fn leads_back(listener: &Listener, endpoint: &Endpoint) -> bool {
    listener.bind.iter().any(|bind| match (&bind.address, &endpoint.address) {
        (BindAddress::Socket(bound), Address::Socket(dialed)) => takes(*bound, *dialed),
        (BindAddress::Socket(bound), Address::Name { host, port }) => is_local(host, *port, *bound),
        (BindAddress::Unix(bound), Address::Unix(dialed)) => bound == dialed,
        _ => false,
    })
}

/// Whether the name `host` is sure to be this machine, at an address that `bound` takes.
fn is_local(host: &str, port: u16, bound: SocketAddr) -> bool {
    // RFC 6761 §6.3: localhost and the names below it are loopback addresses.
    let local = host == "localhost" || host.ends_with(".localhost");
    let families =
        [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))];
    local && families.into_iter().any(|loopback| takes(bound, loopback))
}
