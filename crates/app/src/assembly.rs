//! From a config to what the data plane obeys: every plug is listed here, and nowhere else.
//!
//! An [`Assembly`] holds what outlives a config: sockets, upstreams, counters. A reload compiles a new
//! snapshot from them; all that can fail comes first, so that a failure changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tieline_base::{Address, Bytes, Clock, Fault, Generation, Priority, Reason, Stage, Whose, WorkerId};
use tieline_config as config;
use tieline_conn::{
    Admission, Bandwidth, Connection, HashBy, Limits, Listener, Protocol, Route, Serving, Snapshot, Timeouts,
};
use tieline_http::{self as http, Http};
use tieline_policy::{Access, Rule};
use tieline_pool::{Endpoint, OnLeave, Secured, Upstream};
use tieline_registry::{Filter, Logged, Record, Registry, RouteRow, Verdict};
use tieline_relay::{Relay, Router};
use tieline_transport::{BindError, Bound, FarSites, Io, ListenOptions};
use tieline_tunnel::{Agents, Tunnel, Way};
use tieline_wire::proxy;

use crate::access;
use crate::databases::{self, Seats, Upstreams};
use crate::guards::Guards;
use crate::quic::{self, QuicSockets};
use crate::site::{self, Ways, hash_by};
use crate::trust::Trust;
use crate::upstreams::settings;

/// What a listener's bytes mean, and which way they go. Another protocol is another arm.
fn protocol(
    listener: &config::Listener,
    routes: Routes<'_>,
    live: &config::Live,
    trust: &Trust,
    guards: &Guards,
    seats: &mut Seats,
    upstreams: &Upstreams,
) -> Arc<dyn Protocol> {
    match listener.protocol {
        config::Protocol::Tcp => Arc::new(relay(routes)),
        config::Protocol::Http => {
            Arc::new(http(listener, site::site(listener, routes, live, trust.session_keys(), guards)))
        }
        config::Protocol::Postgres => {
            Arc::new(databases::postgres(listener, routes, live, trust, seats, upstreams))
        }
        config::Protocol::Tunnel => Arc::new(tunnel(listener, routes, live, trust)),
        // `check` refuses them, see `config::SERVED`; should one come through, nothing is let in.
        config::Protocol::Udp | config::Protocol::Mysql | config::Protocol::Wireguard => Arc::new(Unserved),
    }
}

/// Whoever shows a good certificate of ours may link up: there is one way, and nothing in the file about it.
/// What people may reach then is what routes say.
fn tunnel(listener: &config::Listener, routes: Routes<'_>, live: &config::Live, trust: &Trust) -> Tunnel {
    let place = format!("listener \"{}\"", listener.name);
    let rule = Rule::new("links", "", &place, Access::Public);
    let row = RouteRow {
        name: "links".into(),
        identity: "links".into(),
        rule: "the certificate of an agent, or of a person's token, that was not revoked".into(),
        grace: listener.timeouts.drain,
        upstream: None,
    };
    let route = Route {
        row: Arc::new(row),
        rule,
        upstream: None,
        priority: Priority::default(),
        schedule: None,
        hash_by: HashBy::Nothing,
        bandwidth: None,
        announce: None,
    };
    let services = routes.into_iter().flat_map(|Ways { written, shares, .. }| {
        let way = shares.into_iter().next().map(|(_, route)| Way {
            route,
            approval: access::approval(written, live),
            idle: written.far_timeouts.idle,
            max_age: written.far_timeouts.max_age,
        });
        written.services.iter().filter_map(move |service| Some((service.clone(), way.clone()?)))
    });
    let tls = trust.listener(&listener.name);
    Tunnel::new(trust.agents().clone(), Arc::new(route), services.collect(), tls)
}

/// The routes of a listener as the config has them, each compiled.
type Routes<'c> = Vec<Ways<'c>>;

fn relay(routes: Routes<'_>) -> Relay {
    let mut router = Router::new();
    for Ways { written, shares, .. } in routes {
        // `check` has seen to it that there is no other.
        let Some((_, route)) = shares.into_iter().next() else { continue };
        let names: Vec<String> = written.sni.iter().map(ToString::to_string).collect();
        router.add(names.iter().map(String::as_str), route);
    }
    Relay::new(router)
}

fn http(listener: &config::Listener, site: http::Site) -> Http {
    let settings = http::Settings {
        limits: http::Limits {
            line: bytes(listener.limits.request_line),
            head: bytes(listener.limits.request_head),
            fields: listener.limits.request_fields as usize,
        },
        body: listener.limits.body.map(|bytes| bytes.0),
        validated_body: listener.limits.validated_body.0,
        request_head: listener.timeouts.request_head,
        body_gap: listener.timeouts.body_gap,
        min_rate: listener.timeouts.min_rate.map(|rate| http::MinRate(rate.0)),
        idle: listener.timeouts.idle,
        tunnel_idle: listener.timeouts.tunnel_idle,
        trusted: listener.trusted_forwarders.iter().copied().collect(),
        tell: match listener.forwarded {
            config::Tell::XForwarded => http::Tell::XForwarded,
            config::Tell::Forwarded => http::Tell::Forwarded,
            config::Tell::Both => http::Tell::Both,
        },
        http2: listener.http2.then_some(http::Http2Front { streams: listener.limits.streams }),
        node: node(),
    };
    Http::new(site, settings)
}

fn bytes(size: Bytes) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

/// What this process is called in `Via`: a name that no other has, so that a request that comes back is
/// known.
fn node() -> Arc<str> {
    static NODE: OnceLock<Arc<str>> = OnceLock::new();
    NODE.get_or_init(|| format!("tieline-{:08x}", fastrand::u32(..)).into()).clone()
}

/// What this version does not speak: every connection is refused.
struct Unserved;

impl Protocol for Unserved {
    fn serve(&self, _: Connection, _: Io) -> Serving {
        let fault = Fault::new(Stage::Identify, Whose::Us, Reason::Internal);
        Box::pin(std::future::ready(
            Err(fault.because("this version does not serve the listener's protocol")),
        ))
    }

    fn route_of(&self, _: &Record) -> Option<Arc<Route>> {
        None
    }
}

/// What outlives a config.
pub(crate) struct Assembly {
    file: String,
    registry: Arc<Registry>,
    generation: Generation,
    doors: HashMap<DoorKey, (Bound, WorkerId)>,
    quic: QuicSockets,
    trust: Trust,
    pub(crate) guards: Guards,
    /// Where certificates of our own making are kept.
    folder: PathBuf,
    admissions: HashMap<String, Arc<Admission>>,
    pub(crate) seats: Seats,
    upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    next_worker: u16,
}

/// What makes a socket the same one over reloads: its address; where that is "any port", its listener too.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct DoorKey {
    pub(crate) address: Address,
    listener: Option<String>,
}

impl DoorKey {
    /// Whether the kernel may choose the port.
    pub(crate) fn any_port(&self) -> bool {
        self.listener.is_some()
    }
}

/// Which upstreams came and which went with a config.
pub(crate) struct Compiled {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) new_upstreams: Vec<Arc<Upstream>>,
    pub(crate) gone_upstreams: Vec<Arc<Upstream>>,
}

impl Assembly {
    pub(crate) fn new(file: &str, folder: &Path, registry: Arc<Registry>) -> Self {
        Self {
            file: file.into(),
            generation: Generation(0),
            doors: HashMap::new(),
            quic: QuicSockets::default(),
            trust: Trust::of(Agents::new(folder)),
            guards: Guards::new(&registry),
            registry,
            folder: folder.into(),
            admissions: HashMap::new(),
            seats: Seats::default(),
            upstreams: BTreeMap::new(),
            next_worker: 0,
        }
    }

    /// A snapshot of no listeners, for workers to start with.
    pub(crate) fn empty(&self) -> Arc<Snapshot> {
        let (listeners, upstreams) = (BTreeMap::new(), BTreeMap::new());
        Arc::new(Snapshot { generation: self.generation, listeners, upstreams })
    }

    /// Compiles `live`, whose sockets are bound, as a new generation if it is `changed`. Sockets that it no
    /// longer names are closed once [`Assembly::retire`] says so.
    pub(crate) fn compile(&mut self, live: &config::Live, changed: bool) -> Compiled {
        self.generation = Generation(self.generation.0 + u32::from(changed));
        let before: Vec<Arc<str>> = self.upstreams.keys().cloned().collect();
        for upstream in &live.upstreams {
            self.apply(upstream, &live.server.dns);
        }
        let named = |name: &str| live.upstreams.iter().any(|upstream| upstream.name == name);
        let gone_upstreams =
            self.upstreams.extract_if(.., |name, _| !named(name)).map(|(_, gone)| gone).collect();
        let is_new = |name: &&Arc<str>| !before.contains(name);
        let new_upstreams =
            self.upstreams.iter().filter(|(name, _)| is_new(name)).map(|(_, new)| new.clone());
        let new_upstreams = new_upstreams.collect();
        self.seats.clusters.obey(live, &self.trust, &self.upstreams, &self.registry);
        let mut listeners = BTreeMap::new();
        for listener in &live.listeners {
            listeners.insert(listener.name.as_str().into(), Arc::new(self.listener(listener, live)));
        }
        let snapshot = Snapshot { generation: self.generation, listeners, upstreams: self.upstreams.clone() };
        Compiled { snapshot: Arc::new(snapshot), new_upstreams, gone_upstreams }
    }

    /// Closes the sockets that `live` does not name. Called when no worker accepts at them any more.
    pub(crate) fn retire(&mut self, live: &config::Live) {
        let named: Vec<DoorKey> = live.listeners.iter().flat_map(door_keys).collect();
        self.doors.retain(|key, _| named.contains(key));
        self.quic.retire(live);
    }

    /// Listens where `live` says and we did not yet: all of a new config that the kernel may refuse.
    ///
    /// # Errors
    /// Every address that cannot be listened on; nothing has changed then.
    pub(crate) fn bind(&mut self, live: &config::Live) -> Result<(), Vec<BindError>> {
        let (mut new, mut new_quic, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for listener in &live.listeners {
            let options = ListenOptions { keepalive: listener.keepalive, unix_mode: listener.unix_mode };
            for key in door_keys(listener) {
                if let Some((bound, worker)) = self.doors.get(&key) {
                    bound.set_options(&options);
                    match if self.quic.has(&key) { Ok(None) } else { quic::beside(bound, listener) } {
                        Ok(socket) => new_quic.extend(socket.map(|socket| (key, socket, *worker))),
                        Err(error) => errors.push(error),
                    }
                    continue;
                }
                match quic::bind(&key, listener, &options) {
                    Ok((bound, socket)) => new.push((key, bound, socket)),
                    Err(error) => errors.push(error),
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        new_quic.into_iter().for_each(|(key, socket, worker)| self.quic.insert(key, socket, worker));
        for (key, bound, socket) in new {
            let worker = WorkerId(self.next_worker);
            self.next_worker = (self.next_worker + 1) % u16::try_from(self.registry.workers()).unwrap_or(1);
            if let Some(socket) = socket {
                self.quic.insert(key.clone(), socket, worker);
            }
            self.doors.insert(key, (bound, worker));
        }
        Ok(())
    }

    /// Reads the certificates and keys that `live` names; [`Assembly::compile`] uses what comes back once
    /// it is given to [`Assembly::trust_in`].
    ///
    /// # Errors
    /// Every file that is of no use; nothing has changed then.
    pub(crate) fn load_trust(&self, live: &config::Live) -> Result<Trust, Vec<String>> {
        Trust::load(live, &self.folder, &self.trust)
    }

    /// Uses these certificates and keys from the next [`Assembly::compile`] on.
    pub(crate) fn trust_in(&mut self, trust: Trust) {
        self.trust = trust;
    }

    /// The agents at far sites.
    pub(crate) fn agents(&self) -> Arc<Agents> {
        self.trust.agents().clone()
    }

    /// Ends the links of agents that were revoked.
    pub(crate) fn judge_agents(&self) {
        self.trust.agents().judge_again();
    }

    /// Whether a certificate or key file no longer holds what was read from it.
    pub(crate) fn trust_changed(&self) -> bool {
        self.trust.changed()
    }

    fn apply(&mut self, upstream: &config::Upstream, dns: &config::Dns) {
        let mut settings = settings(upstream, dns);
        settings.dial.far = Some(FarSites(self.trust.agents().clone()));
        // Servers of PostgreSQL are asked for TLS in their own protocol.
        if upstream.postgres.is_none() {
            settings.tls = self.trust.upstream(&upstream.name).map(Secured);
        }
        match self.upstreams.get(upstream.name.as_str()) {
            Some(standing) => drop(standing.apply(settings)),
            None => {
                let on_leave = drain_leaving(&self.registry, &upstream.name);
                let new = Upstream::new(settings, on_leave);
                self.upstreams.insert(upstream.name.as_str().into(), new);
            }
        }
    }

    fn listener(&mut self, listener: &config::Listener, live: &config::Live) -> Listener {
        let trusted = listener.proxy_protocol.as_ref().map(|trusted| trusted.0.iter().copied().collect());
        // `check` has seen to it that the upstreams exist.
        let routes: Routes<'_> =
            listener.routes.iter().map(|route| self.ways(listener, route, live)).collect();
        let row = self.registry.listener(&listener.name, listener.protocol.as_str());
        row.log(match listener.logged {
            config::Logged::Exchanges => Logged::Exchanges,
            config::Logged::Connections => Logged::Connections,
            config::Logged::Nothing => Logged::Nothing,
        });
        let tls = self.trust.listener(&listener.name);
        Listener {
            row,
            doors: door_keys(listener).filter_map(|key| self.doors.get(&key).cloned()).collect(),
            admission: self.admissions.entry(listener.name.clone()).or_default().clone(),
            limits: Limits {
                connections: listener.limits.connections,
                per_ip: listener.limits.per_ip,
                accept_rate: listener.limits.accept_rate,
            },
            proxy: trusted.is_some(),
            trusted: trusted.unwrap_or_default(),
            quic: tls.as_deref().and_then(|tls| self.quic.of(listener, tls)),
            tls,
            timeouts: Timeouts {
                handshake: listener.timeouts.handshake,
                // A link finds out by itself whether its agent is there.
                idle: (listener.protocol != config::Protocol::Tunnel).then_some(listener.timeouts.idle),
                max_age: listener.timeouts.max_age,
                drain: listener.timeouts.drain,
            },
            protocol: protocol(
                listener,
                routes,
                live,
                &self.trust,
                &self.guards,
                &mut self.seats,
                &self.upstreams,
            ),
        }
    }

    fn ways<'c>(
        &self,
        listener: &config::Listener,
        route: &'c config::Route,
        live: &config::Live,
    ) -> Ways<'c> {
        let bandwidth = self.guards.bandwidth(listener, route);
        let mirror = route.mirror.as_ref().and_then(|mirror| live.upstream(&mirror.upstream));
        let mirror = mirror.map(|upstream| Arc::new(self.route(route, Some(upstream), None, live)));
        Ways { written: route, shares: self.shares(route, bandwidth.as_ref(), live), mirror }
    }

    /// A route once for every upstream that it leads to, or once if it answers itself.
    fn shares(
        &self,
        route: &config::Route,
        bandwidth: Option<&Arc<Bandwidth>>,
        live: &config::Live,
    ) -> Vec<(u32, Arc<Route>)> {
        if route.shares().is_empty() {
            return vec![(1, Arc::new(self.route(route, None, bandwidth, live)))];
        }
        let share = |share: &config::Share| {
            let upstream = live.upstream(&share.upstream)?;
            Some((share.weight, Arc::new(self.route(route, Some(upstream), bandwidth, live))))
        };
        route.shares().iter().filter_map(share).collect()
    }

    fn route(
        &self,
        route: &config::Route,
        described: Option<&config::Upstream>,
        bandwidth: Option<&Arc<Bandwidth>>,
        live: &config::Live,
    ) -> Route {
        let name = described.map_or("", |described| &described.name);
        let upstream = self.upstreams.get(name).cloned();
        let place = format!("{}:{}", self.file, route.place.line);
        let rule = Rule::new(&route.name, name, &place, access::of(route, live));
        Route {
            row: Arc::new(RouteRow {
                name: route.name.as_str().into(),
                identity: route.identity().into(),
                rule: rule.to_string().into(),
                grace: route.grace,
                upstream: described.map(|described| self.registry.upstream(&described.name)),
            }),
            rule,
            upstream,
            priority: route.priority,
            schedule: route.schedule.clone(),
            hash_by: match described.map(|described| &described.balance) {
                Some(config::Balance::Hash(by)) => hash_by(by),
                _ => HashBy::Nothing,
            },
            bandwidth: bandwidth.cloned(),
            announce: match described.map(|described| described.proxy_protocol) {
                None | Some(config::ProxyProtocolOut::Off) => None,
                Some(config::ProxyProtocolOut::V1) => Some(proxy::Version::V1),
                Some(config::ProxyProtocolOut::V2) => Some(proxy::Version::V2),
            },
        }
    }
}

pub(crate) fn door_keys(listener: &config::Listener) -> impl Iterator<Item = DoorKey> {
    listener.bind.iter().map(|bind| {
        let (address, any_port) = match &bind.address {
            config::BindAddress::Socket(socket) => (Address::Socket(*socket), socket.port() == 0),
            config::BindAddress::Unix(path) => (Address::Unix(path.clone()), false),
        };
        DoorKey { address, listener: any_port.then(|| listener.name.clone()) }
    })
}

/// What happens to the connections of an endpoint that left the config or its name's addresses: they are
/// drained.
fn drain_leaving(registry: &Arc<Registry>, upstream: &str) -> OnLeave {
    let (registry, upstream) = (Arc::downgrade(registry), upstream.to_owned());
    Arc::new(move |endpoint: &Endpoint| {
        let Some(registry) = registry.upgrade() else { return };
        let wanted = format!("upstream={upstream} endpoint={}", endpoint.label());
        let Ok(filter) = wanted.parse::<Filter>() else { return };
        for record in registry.live(&filter) {
            let grace = record.route().map_or(Duration::ZERO, |route| route.grace);
            record.note(format!("endpoint {} has left upstream \"{upstream}\"", endpoint.label()));
            record.end(Verdict { at: Clock::now().after(grace), reason: Reason::Drained });
        }
    })
}
