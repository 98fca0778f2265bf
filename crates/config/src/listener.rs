//! `[listener.NAME]` as it is obeyed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ipnet::IpNet;
use tieline_base::Rate;

use crate::bind::BindAddress;
use crate::fields::Fields;
use crate::place::{Place, Spot};
use crate::problem::Problems;
use crate::protocol::Protocol;
use crate::route::{self, Draft, Route};
use crate::value::Value;
use crate::words::ProxyProtocolIn;

/// Where connections are accepted, by which protocol and under which limits.
#[derive(Clone, PartialEq, Debug)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// Where it accepts; one address at least.
    pub bind: Vec<Bind>,
    /// What clients speak.
    pub protocol: Protocol,
    /// Who must send a PROXY protocol header: `None` if nobody sends one.
    pub proxy_protocol: Option<Trusted>,
    /// How many connections are let in.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// After how much silence the kernel asks whether the peer lives; `None`: never.
    pub keepalive: Option<Duration>,
    /// The permissions of its unix sockets, at most 0o777.
    pub unix_mode: u32,
    /// Where connections go; one route at least, all of different names.
    pub routes: Vec<Route>,
}

/// One address that a listener accepts at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bind {
    /// The address.
    pub address: BindAddress,
    /// Where it stands.
    pub place: Place,
}

/// The sources whose PROXY protocol headers are believed; every connection from elsewhere is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trusted(pub Vec<IpNet>);

/// How many connections a listener lets in; `None` is no limit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// At once.
    pub connections: Option<u32>,
    /// At once for one client IP address.
    pub per_ip: Option<u32>,
    /// New ones in a stretch of time.
    pub accept_rate: Option<Rate>,
}

/// How long things may take on the side of the clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// From accept until the client is understood.
    pub handshake: Duration,
    /// Without a byte either way.
    pub idle: Duration,
    /// From accept to the end; `None`: for ever. Users add their jitter.
    pub max_age: Option<Duration>,
    /// From the begin of a drain to its end.
    pub drain: Duration,
}

/// A listener as it stands in the file: its routes have not met the upstreams.
pub(crate) struct ListenerDraft {
    /// Everything but its routes.
    pub(crate) listener: Listener,
    pub(crate) routes: Vec<Draft>,
}

/// Reads one listener.
pub(crate) fn read(name: Spot<String>, mut fields: Fields, problems: &mut Problems) -> ListenerDraft {
    let place = name.place;
    let bind = bind(&mut fields);
    let protocol = fields.value("protocol");
    let proxy_protocol = proxy_protocol(&mut fields, problems);
    let limits = limits(fields.table("limits"), problems);
    let timeouts = timeouts(fields.table("timeouts"), problems);
    let keepalive = match fields.maybe::<Value>("keepalive") {
        Some(Value::Duration(idle)) => Some(idle),
        _ => None,
    };
    let unix_mode = unix_mode(&mut fields, &bind, problems);
    let routes = routes(&mut fields, problems);
    fields.done();
    let listener = Listener {
        name: name.value,
        place,
        bind,
        protocol,
        proxy_protocol,
        limits,
        timeouts,
        keepalive,
        unix_mode,
        routes: Vec::new(),
    };
    ListenerDraft { listener, routes }
}

fn bind(fields: &mut Fields) -> Vec<Bind> {
    let addresses = fields.list("bind").into_iter();
    addresses.map(|Spot { value, place }| Bind { address: value, place }).collect()
}

fn proxy_protocol(fields: &mut Fields, problems: &mut Problems) -> Option<Trusted> {
    let place = fields.place_of("proxy_protocol");
    let required =
        fields.word("proxy_protocol", ProxyProtocolIn::from_word) == Some(ProxyProtocolIn::Required);
    let trusted_written = fields.has("trusted");
    let trusted_place = fields.place_of("trusted");
    let trusted_sound = fields.is_sound_at("trusted");
    let trusted: Vec<Spot<IpNet>> = fields.list("trusted");
    if !required {
        if trusted_written {
            let error = problems
                .error(trusted_place, "`trusted` means nothing without proxy_protocol = \"required\"");
            error.hint("write both or neither");
        }
        return None;
    }
    if trusted.is_empty() && trusted_sound {
        let message =
            "proxy_protocol = \"required\" needs `trusted`: nobody may send a header, so nobody can connect";
        problems
            .error(place, message)
            .hint("write trusted = [\"10.0.0.0/24\"] with the addresses of your load balancers");
    }
    for net in trusted.iter().filter(|net| net.value.prefix_len() == 0) {
        let message = format!("`trusted` = {} lets every client claim any address", net.value);
        problems.warning(net.place, message).hint("name the addresses of your load balancers alone");
    }
    Some(Trusted(trusted.into_iter().map(|net| net.value).collect()))
}

fn limits(mut fields: Fields, problems: &mut Problems) -> Limits {
    let place = fields.place_of("per_ip");
    let limits = Limits {
        connections: fields.whole("connections"),
        per_ip: fields.whole("per_ip"),
        accept_rate: fields.maybe("accept_rate"),
    };
    fields.done();
    if let (Some(connections), Some(per_ip)) = (limits.connections, limits.per_ip)
        && per_ip > connections
    {
        problems.error(place, format!("`per_ip` = {per_ip} is more than all `connections` = {connections}"));
    }
    limits
}

fn timeouts(mut fields: Fields, problems: &mut Problems) -> Timeouts {
    let idle_written = fields.has("idle");
    let idle_place = fields.place_of("idle");
    let timeouts = Timeouts {
        handshake: fields.value("handshake"),
        idle: fields.value("idle"),
        max_age: fields.maybe("max_age"),
        drain: fields.value("drain"),
    };
    fields.done();
    if idle_written && timeouts.max_age.is_some_and(|max_age| timeouts.idle > max_age) {
        problems
            .error(idle_place, "`idle` is longer than `max_age`, so it never comes")
            .hint("leave it out or lower it");
    }
    timeouts
}

fn unix_mode(fields: &mut Fields, bind: &[Bind], problems: &mut Problems) -> u32 {
    let (place, written) = (fields.place_of("unix_mode"), fields.has("unix_mode"));
    let any_unix = bind.iter().any(|bind| matches!(bind.address, BindAddress::Unix(_)));
    if written && !any_unix && !bind.is_empty() {
        problems.error(place, "`unix_mode` means nothing without a unix:/path in `bind`");
    }
    fields.maybe("unix_mode").unwrap_or(0o660)
}

fn routes(fields: &mut Fields, problems: &mut Problems) -> Vec<Draft> {
    let tables: Vec<Spot<Value>> = fields.value("route");
    let table = |item: Spot<Value>| if let Value::Table(fields) = item.value { Some(fields) } else { None };
    let mut drafts: Vec<_> =
        tables.into_iter().filter_map(table).filter_map(|fields| route::read(fields, problems)).collect();
    tell_of_doubles(&drafts, problems);
    name(&mut drafts, problems);
    drafts
}

/// Two routes that take the same connections: the second would never get one.
fn tell_of_doubles(drafts: &[Draft], problems: &mut Problems) {
    let mut takers = HashMap::new();
    let mut takes_all: Option<Place> = None;
    for draft in drafts {
        for sni in &draft.sni {
            if let Some(first) = takers.insert(&sni.value, sni.place) {
                problems.error(
                    sni.place,
                    format!("`sni` \"{}\" has a route already, in line {}", sni.value, first.line),
                );
            }
        }
        if draft.takes_all {
            if let Some(first) = takes_all {
                let message = format!("the route in line {} takes every connection already", first.line);
                problems.error(draft.route.place, message).hint("tell them apart by `sni`");
            }
            takes_all = takes_all.or(Some(draft.route.place));
        }
    }
}

/// Gives every route its name: the one written, else that of its upstream, numbered where it is taken.
fn name(drafts: &mut [Draft], problems: &mut Problems) {
    let mut taken = HashSet::new();
    for draft in drafts.iter_mut() {
        let Some(name) = &draft.name else { continue };
        if !taken.insert(name.value.clone()) {
            problems
                .error(name.place, format!("another route of this listener is called \"{}\"", name.value));
        }
        draft.route.name = name.value.clone();
    }
    let mut counts: HashMap<String, usize> = HashMap::new();
    for draft in drafts.iter_mut().filter(|draft| draft.name.is_none()) {
        let count = counts.entry(draft.upstream.value.clone()).or_default();
        loop {
            *count += 1;
            let number = if *count == 1 { String::new() } else { format!("-{count}") };
            draft.route.name = format!("{}{number}", draft.upstream.value);
            if taken.insert(draft.route.name.clone()) {
                break;
            }
        }
    }
}
