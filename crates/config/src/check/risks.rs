//! What can be obeyed, and probably should not be.

use std::collections::HashMap;

use tieline_base::Address;

use crate::access::{Access, Allow};
use crate::bind::BindAddress;
use crate::config::{Config, Live};
use crate::listener::Listener;
use crate::problem::Problems;
use crate::protocol::Protocol;
use crate::upstream::Upstream;

/// Ports that databases and their like listen at by custom, all of them made for trusted networks.
const DATABASE_PORTS: [(u16, &str); 13] = [
    (1433, "SQL Server"),
    (1521, "Oracle"),
    (2379, "etcd"),
    (3306, "MySQL"),
    (5432, "PostgreSQL"),
    (5984, "CouchDB"),
    (6379, "Redis"),
    (6432, "PgBouncer"),
    (8123, "ClickHouse"),
    (9042, "Cassandra"),
    (9200, "Elasticsearch"),
    (11211, "memcached"),
    (27017, "MongoDB"),
];

/// Warns of what is open to more people than was probably meant.
pub(crate) fn risks(config: &Config, problems: &mut Problems) {
    if let Some(listen) = config.boot.admin_listen.filter(|listen| !listen.ip().is_loopback()) {
        let message = format!("the admin API at {listen} can be reached from other machines, unencrypted");
        problems.warning(config.boot.admin_place, message).hint("listen on 127.0.0.1 and reach it by ssh");
    }
    for listener in &config.live.listeners {
        unreachable_by_unix(listener, problems);
    }
    let databases = databases(&config.live);
    let public = |listener: &&Listener| listener.bind.iter().any(|bind| bind.address.is_public());
    for listener in config.live.listeners.iter().filter(public) {
        if listener.limits.connections.is_none() && listener.limits.per_ip.is_none() {
            let message = format!(
                "listener \"{}\" is public and has no limits, so one client can take it all",
                listener.name
            );
            problems
                .warning(listener.place, message)
                .hint("add limits = { connections = 10000, per_ip = 100 }");
        }
        // Where clients log in, `access` is not what keeps strangers out.
        if listener.protocol != Protocol::Postgres {
            open_databases(listener, &databases, problems);
        }
    }
}

/// Routes that ask for a client's IP address where no client has one.
fn unreachable_by_unix(listener: &Listener, problems: &mut Problems) {
    let unix_alone = listener.bind.iter().all(|bind| matches!(bind.address, BindAddress::Unix(_)));
    if !unix_alone || listener.proxy_protocol.is_some() || listener.bind.is_empty() {
        return;
    }
    for route in &listener.routes {
        if matches!(&route.access, Access::Policy(Allow { from: Some(from), .. }) if !from.is_empty()) {
            let message = "a client of a unix socket has no IP address, so `allow.from` lets nobody in";
            let warning = problems.warning(route.place, message);
            warning.hint("write access = \"public\"; `unix_mode` says who may open the socket");
        }
    }
}

/// The upstreams with an endpoint at the port of a database, and which.
fn databases(live: &Live) -> HashMap<&str, &'static str> {
    let database =
        |upstream: &Upstream| upstream.endpoints.iter().find_map(|endpoint| database_at(&endpoint.address));
    live.upstreams.iter().filter_map(|upstream| Some((upstream.name.as_str(), database(upstream)?))).collect()
}

fn database_at(address: &Address) -> Option<&'static str> {
    let port = match address {
        Address::Socket(socket) => socket.port(),
        Address::Name { port, .. } => *port,
        Address::Unix(_) | Address::Agent(_) | Address::Group(_) => return None,
    };
    DATABASE_PORTS.iter().find(|(known, _)| *known == port).map(|(_, name)| *name)
}

fn open_databases(listener: &Listener, databases: &HashMap<&str, &'static str>, problems: &mut Problems) {
    for route in &listener.routes {
        let open = match &route.access {
            Access::Public => true,
            Access::Policy(allow) => allow.is_everybody(),
        };
        let led = route.upstreams().find_map(|upstream| Some((upstream, databases.get(upstream)?)));
        let Some((upstream, database)) = led.filter(|_| open) else { continue };
        let message = format!(
            "route \"{}\" opens upstream \"{}\", by its port a {database} server, \
             to everybody who reaches listener \"{}\"",
            route.name, upstream, listener.name
        );
        problems
            .warning(route.place, message)
            .hint("name who may connect: allow = { from = [\"10.0.0.0/8\"] }");
    }
}
