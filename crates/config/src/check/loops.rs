//! Endpoints that are Tieline itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use tieline_base::Address;

use crate::bind::{BindAddress, every_address_of};
use crate::config::Config;
use crate::problem::Problems;
use crate::route::Route;
use crate::upstream::Endpoint;

/// Tells of endpoints that lead back to the listener they serve, straight or by way of others, and of those
/// that are the admin API.
pub(crate) fn loops(config: &Config, problems: &mut Problems) {
    let doors = Doors::of(config);
    let endpoints = config.live.upstreams.iter().flat_map(|upstream| &upstream.endpoints);
    for endpoint in endpoints.filter(|endpoint| doors.behind(&endpoint.address) == Some(Door::Admin)) {
        let message =
            format!("endpoint \"{}\" is the admin API, which no listener may lead to", endpoint.address);
        problems.error(endpoint.place, message);
    }
    let steps = steps(config, &doors);
    for step in steps.iter().filter(|step| step.from == step.to) {
        let message = format!(
            "endpoint \"{}\" leads back to listener \"{}\", which leads to it",
            step.endpoint.address, step.to
        );
        problems.error(step.endpoint.place, message);
    }
    for step in round_trips(steps) {
        let message = format!(
            "endpoint \"{}\" leads from listener \"{}\" to listener \"{}\", which leads back",
            step.endpoint.address, step.from, step.to
        );
        problems
            .warning(step.endpoint.place, message)
            .hint("take it out, unless `sni` or `host` tells their connections apart");
    }
}

/// What of ours is behind an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Door<'a> {
    Admin,
    Listener(&'a str),
}

/// Every address of ours.
struct Doors<'a> {
    sockets: HashMap<SocketAddr, Door<'a>>,
    paths: HashMap<PathBuf, Door<'a>>,
}

impl<'a> Doors<'a> {
    fn of(config: &'a Config) -> Self {
        let mut sockets = HashMap::new();
        let mut paths = HashMap::from([(config.boot.data.join("admin.sock"), Door::Admin)]);
        sockets.extend(config.boot.admin_listen.map(|listen| (listen, Door::Admin)));
        for listener in &config.live.listeners {
            for bind in &listener.bind {
                let door = Door::Listener(&listener.name);
                match &bind.address {
                    BindAddress::Socket(socket) => drop(sockets.insert(*socket, door)),
                    BindAddress::Unix(path) => drop(paths.insert(path.clone(), door)),
                }
            }
        }
        Self { sockets, paths }
    }

    /// What of ours takes what is sent to `address`, as far as that can be told without asking the machine:
    /// other addresses than loopback may be this machine's, and names may lead anywhere.
    fn behind(&self, address: &Address) -> Option<Door<'a>> {
        match address {
            Address::Socket(socket) => self.at(*socket),
            // RFC 6761 §6.3: localhost and the names below it are loopback addresses.
            Address::Name { host, port } if host == "localhost" || host.ends_with(".localhost") => {
                let loopback = [(Ipv4Addr::LOCALHOST, *port).into(), (Ipv6Addr::LOCALHOST, *port).into()];
                loopback.into_iter().find_map(|socket| self.at(socket))
            }
            Address::Name { .. } | Address::Agent(_) | Address::Group(_) => None,
            Address::Unix(path) => self.paths.get(path).copied(),
        }
    }

    fn at(&self, socket: SocketAddr) -> Option<Door<'a>> {
        let everywhere = SocketAddr::new(every_address_of(socket.ip()), socket.port());
        let by_wildcard = || self.sockets.get(&everywhere).filter(|_| socket.ip().is_loopback());
        self.sockets.get(&socket).or_else(by_wildcard).copied()
    }
}

/// One listener that leads to another, or to itself, by an endpoint.
#[derive(Clone, Copy)]
struct Step<'a> {
    from: &'a str,
    to: &'a str,
    endpoint: &'a Endpoint,
}

fn steps<'a>(config: &'a Config, doors: &Doors<'a>) -> Vec<Step<'a>> {
    let mut ours: HashMap<&str, Vec<(&str, &Endpoint)>> = HashMap::new();
    for upstream in &config.live.upstreams {
        for endpoint in &upstream.endpoints {
            if let Some(Door::Listener(to)) = doors.behind(&endpoint.address) {
                ours.entry(&upstream.name).or_default().push((to, endpoint));
            }
        }
    }
    let mut steps = Vec::new();
    for listener in &config.live.listeners {
        let upstreams: BTreeSet<_> = listener.routes.iter().flat_map(Route::upstreams).collect();
        let led_to = upstreams.into_iter().filter_map(|upstream| ours.get(upstream)).flatten();
        steps.extend(led_to.map(|(to, endpoint)| Step { from: &listener.name, to, endpoint }));
    }
    steps
}

/// The steps that are part of a way round through two listeners or more: those left when every listener that
/// leads nowhere, or to which nothing leads, is taken away again and again.
fn round_trips(steps: Vec<Step<'_>>) -> Vec<Step<'_>> {
    let steps: Vec<_> = steps.into_iter().filter(|step| step.from != step.to).collect();
    let forth = without_dead_ends(steps, |step| (step.from, step.to));
    without_dead_ends(forth, |step| (step.to, step.from))
}

/// `steps` without those to a listener that leads nowhere, `ends` saying which way each one goes.
fn without_dead_ends<'a>(steps: Vec<Step<'a>>, ends: fn(&Step<'a>) -> (&'a str, &'a str)) -> Vec<Step<'a>> {
    let mut ways: BTreeMap<&str, usize> = BTreeMap::new();
    let mut into: HashMap<&str, Vec<&str>> = HashMap::new();
    for (from, to) in steps.iter().map(ends) {
        *ways.entry(from).or_default() += 1;
        ways.entry(to).or_default();
        into.entry(to).or_default().push(from);
    }
    let mut dead: Vec<_> = ways.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    while let Some(end) = dead.pop() {
        for from in into.remove(end).unwrap_or_default() {
            let left = ways.entry(from).or_default();
            *left -= 1;
            if *left == 0 {
                dead.push(from);
            }
        }
    }
    steps.into_iter().filter(|step| ways.get(ends(step).1).is_some_and(|count| *count > 0)).collect()
}
