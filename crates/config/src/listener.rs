//! `[listener.NAME]` as it is obeyed.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use tieline_base::{ByteRate, Bytes, Rate};

use crate::action::Action;
use crate::bind::BindAddress;
use crate::far;
use crate::fields::{Confined, Fields, Taken};
use crate::http_match::HttpMatch;
use crate::place::{Place, Spot};
use crate::postgres::{self, AuthQuery, Console};
use crate::problem::Problems;
use crate::protocol::{Protocol, quoted};
use crate::rate::{self, RateLimit};
use crate::route::{self, Draft, Route};
use crate::tls::{self, ClientCertificates, ListenerTls};
use crate::value::Value;
use crate::words::{Auth, Logged, ProxyProtocolIn, Tell};

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
    /// How it proves itself to clients, if TLS ends here.
    pub tls: Option<ListenerTls>,
    /// Who vouches for people beside the built-in authority, where links end.
    pub people: Option<ClientCertificates>,
    /// Whether clients of PostgreSQL that come over a network must use it, where there is one.
    pub tls_required: bool,
    /// What clients of PostgreSQL that log in are asked for.
    pub auth: Auth,
    /// Where users of PostgreSQL are looked up that the config does not name.
    pub auth_query: Option<AuthQuery>,
    /// Who may use the console.
    pub console: Option<Console>,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// Whether links of tunnels may go over QUIC, on the same ports of UDP.
    pub quic: bool,
    /// What the access log gets a line for.
    pub logged: Logged,
    /// Who must send a PROXY protocol header: `None` if nobody sends one.
    pub proxy_protocol: Option<Trusted>,
    /// Whose `Forwarded` and `X-Forwarded-For` are believed; nobody's where it is empty.
    pub trusted_forwarders: Vec<IpNet>,
    /// By which fields upstreams are told where a request comes from.
    pub forwarded: Tell,
    /// How many connections are let in.
    pub limits: Limits,
    /// How often requests may come, whatever their route.
    pub rates: Vec<RateLimit>,
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
    /// Clients of PostgreSQL at once as one user.
    pub per_user: Option<u32>,
    /// The same of one database.
    pub per_database: Option<u32>,
    /// New ones in a stretch of time.
    pub accept_rate: Option<Rate>,
    /// The first line of an HTTP request.
    pub request_line: Bytes,
    /// All of its head; not less than its first line.
    pub request_head: Bytes,
    /// The fields of its head: 1 to 128.
    pub request_fields: u32,
    /// Requests of one HTTP/2 connection at once: 1 to 10,000.
    pub streams: u32,
    /// Its body; `None`: no limit.
    pub body: Option<Bytes>,
    /// Its body, where a route's interface checks it.
    pub validated_body: Bytes,
    /// All bodies that are being checked, together.
    pub validated_bodies: Bytes,
}

/// How long things may take on the side of the clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// From accept until the client is understood.
    pub handshake: Duration,
    /// Without a byte either way; with HTTP, between two requests.
    pub idle: Duration,
    /// From the first byte of an HTTP request to the end of its head.
    pub request_head: Duration,
    /// Between two pieces of an HTTP request's body.
    pub body_gap: Duration,
    /// How slowly bodies may come and answers be taken; `None`: as slowly as clients like.
    pub min_rate: Option<ByteRate>,
    /// Without a byte either way in a tunnel that an HTTP request opened.
    pub tunnel_idle: Duration,
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

/// Reads one listener. `folder` is the config file's.
pub(crate) fn read(
    name: Spot<String>,
    mut fields: Fields,
    folder: &Path,
    problems: &mut Problems,
) -> ListenerDraft {
    let place = name.place;
    let bind = bind(&mut fields);
    let confined = fields.confined();
    let protocol = fields.maybe("protocol");
    if let Some(protocol) = protocol {
        tell_of_others(&confined, protocol, problems);
    }
    let tls = tls::of_listener(&mut fields, folder, problems);
    let people = tls::of_people(&mut fields, folder, problems);
    let tls_required = tls_required(&mut fields, tls.is_some(), problems);
    let tls_here = tls.as_ref().map(|tls| &tls.value);
    let auth = postgres::auth(&mut fields, protocol, &bind, tls_here, problems);
    let auth_query = postgres::auth_query(&mut fields, auth, problems);
    let console = postgres::console(&mut fields, auth, problems);
    let http2 = fields.value("http2");
    let quic = fields.value("quic");
    let logged = fields.word("access_log", Logged::from_word).unwrap_or(match protocol {
        Some(Protocol::Postgres) => Logged::Connections,
        _ => Logged::Exchanges,
    });
    let proxy_protocol = proxy_protocol(&mut fields, problems);
    let limits = limits(fields.table("limits"), problems);
    let rates = rate::read(&mut fields);
    let timeouts = timeouts(fields.table("timeouts"), protocol, problems);
    let trusted_forwarders = trusted_forwarders(&mut fields, problems);
    let forwarded = fields.word("forwarded", Tell::from_word).unwrap_or(Tell::XForwarded);
    let keepalive = match fields.maybe::<Value>("keepalive") {
        Some(Value::Duration(idle)) => Some(idle),
        _ => None,
    };
    let unix_mode = unix_mode(&mut fields, &bind, problems);
    let routes = routes(&mut fields, protocol, folder, problems);
    fields.done();
    if let Some(tls) = &tls {
        tell_of_pass_through(tls.place, &routes, problems);
    }
    let listener = Listener {
        name: name.value,
        place,
        bind,
        // Where it was refused the file is refused with it, and nobody obeys what stands in for it.
        protocol: protocol.unwrap_or(Protocol::Tcp),
        tls: tls.map(|tls| tls.value),
        people,
        tls_required,
        auth,
        auth_query,
        console,
        http2,
        quic,
        logged,
        proxy_protocol,
        trusted_forwarders,
        forwarded,
        limits,
        rates,
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

fn tls_required(fields: &mut Fields, tls: bool, problems: &mut Problems) -> bool {
    let Taken { value, place, written } = match fields.take("tls_required") {
        Some(taken) => taken,
        None => return true,
    };
    if written && !tls {
        problems.error(place, "`tls_required` means nothing without `tls`");
    }
    value
}

/// Keys of other protocols than the one that the listener speaks.
fn tell_of_others(confined: &[Confined], protocol: Protocol, problems: &mut Problems) {
    for key in confined.iter().filter(|key| !key.protocols.contains(&protocol)) {
        let protocols = quoted(key.protocols);
        let message = format!("`{}` is for protocol {protocols}, and this listener speaks", key.name);
        problems.error(key.place, format!("{message} \"{protocol}\""));
    }
}

fn trusted_forwarders(fields: &mut Fields, problems: &mut Problems) -> Vec<IpNet> {
    let trusted: Vec<Spot<IpNet>> = fields.list("trusted_forwarders");
    for net in trusted.iter().filter(|net| net.value.prefix_len() == 0) {
        let message = format!("`trusted_forwarders` = {} lets every client claim any address", net.value);
        problems.warning(net.place, message).hint("name the addresses of your load balancers alone");
    }
    trusted.into_iter().map(|net| net.value).collect()
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
    let (user_place, database_place) = (fields.place_of("per_user"), fields.place_of("per_database"));
    let written = ["request_line", "request_head"].into_iter().find(|key| fields.has(key));
    let line_place = written.map_or(fields.place(), |key| fields.place_of(key));
    let written = ["validated_body", "validated_bodies"].into_iter().find(|key| fields.has(key));
    let body_place = written.map_or(fields.place(), |key| fields.place_of(key));
    let limits = Limits {
        connections: fields.whole("connections"),
        per_ip: fields.whole("per_ip"),
        per_user: fields.whole("per_user"),
        per_database: fields.whole("per_database"),
        accept_rate: fields.maybe("accept_rate"),
        request_line: fields.value("request_line"),
        request_head: fields.value("request_head"),
        request_fields: fields.whole("request_fields").unwrap_or(1),
        streams: fields.whole("streams").unwrap_or(1),
        body: fields.maybe("body"),
        validated_body: fields.value("validated_body"),
        validated_bodies: fields.value("validated_bodies"),
    };
    fields.done();
    // A size of zero stands in for one that was refused.
    if limits.request_line > limits.request_head && limits.request_head.0 > 0 {
        let message = format!(
            "`request_line` = {} is more than all of `request_head` = {}",
            limits.request_line, limits.request_head
        );
        problems.error(line_place, message);
    }
    if limits.validated_body > limits.validated_bodies && limits.validated_bodies.0 > 0 {
        let message = format!(
            "`validated_body` = {} is more than all `validated_bodies` = {}",
            limits.validated_body, limits.validated_bodies
        );
        problems.error(body_place, message);
    }
    for (key, place, count) in [
        ("per_ip", place, limits.per_ip),
        ("per_user", user_place, limits.per_user),
        ("per_database", database_place, limits.per_database),
    ] {
        if let (Some(connections), Some(count)) = (limits.connections, count)
            && count > connections
        {
            let message = format!("`{key}` = {count} is more than all `connections` = {connections}");
            problems.error(place, message);
        }
    }
    limits
}

fn timeouts(mut fields: Fields, protocol: Option<Protocol>, problems: &mut Problems) -> Timeouts {
    let idle_written = fields.has("idle");
    let idle_place = fields.place_of("idle");
    let timeouts = Timeouts {
        handshake: fields.value("handshake"),
        idle: fields.maybe("idle").unwrap_or(idle_of(protocol)),
        request_head: fields.value("request_head"),
        body_gap: fields.value("body_gap"),
        min_rate: match fields.maybe::<Value>("min_rate") {
            Some(Value::ByteRate(rate)) => Some(rate),
            _ => None,
        },
        tunnel_idle: fields.value("tunnel_idle"),
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

/// A browser keeps connections that it may not need again; a database session is kept because it will be.
fn idle_of(protocol: Option<Protocol>) -> Duration {
    match protocol {
        Some(Protocol::Http) => Duration::from_secs(75),
        Some(Protocol::Postgres) => postgres::CLIENT_IDLE,
        _ => Duration::from_secs(3_600),
    }
}

fn unix_mode(fields: &mut Fields, bind: &[Bind], problems: &mut Problems) -> u32 {
    let (place, written) = (fields.place_of("unix_mode"), fields.has("unix_mode"));
    let any_unix = bind.iter().any(|bind| matches!(bind.address, BindAddress::Unix(_)));
    if written && !any_unix && !bind.is_empty() {
        problems.error(place, "`unix_mode` means nothing without a unix:/path in `bind`");
    }
    fields.maybe("unix_mode").unwrap_or(0o660)
}

fn routes(
    fields: &mut Fields,
    protocol: Option<Protocol>,
    folder: &Path,
    problems: &mut Problems,
) -> Vec<Draft> {
    let missing = fields.lacks("route");
    let (place, sound) = (fields.place_of("route"), fields.is_sound_at("route"));
    let written = fields.has("route");
    let tables: Vec<Spot<Value>> = fields.maybe("route").unwrap_or_default();
    // Agents need none: routes say what people may reach.
    let needed = protocol != Some(Protocol::Tunnel);
    if needed && (missing || written && sound && tables.is_empty()) {
        let what = if missing { "missing" } else { "empty" };
        let error = problems.error(place, format!("`route` is {what}"));
        error.hint("write route = [{ upstream = \"db\", access = \"public\" }]");
    }
    let table = |item: Spot<Value>| if let Value::Table(fields) = item.value { Some(fields) } else { None };
    let tables = tables.into_iter().filter_map(table);
    let mut drafts: Vec<_> =
        tables.filter_map(|fields| route::read(fields, protocol, folder, problems)).collect();
    match protocol {
        Some(Protocol::Http) => tell_of_equals(&drafts, problems),
        Some(Protocol::Postgres) => postgres::tell_of_equals(&drafts, problems),
        Some(Protocol::Tunnel) => far::tell_of_equals(&drafts, problems),
        Some(_) => tell_of_doubles(&drafts, problems),
        None => {}
    }
    name(&mut drafts, problems);
    drafts
}

/// Routes by `sni` pass TLS through to the endpoints, so it cannot end here as well.
fn tell_of_pass_through(place: Place, routes: &[Draft], problems: &mut Problems) {
    if let Some(sni) = routes.iter().find_map(|route| route.sni.first()) {
        let message = format!(
            "`tls` ends TLS here, and the route by `sni` in line {} passes it through untouched",
            sni.place.line
        );
        problems.error(place, message).hint("take one of them away, or write another listener for it");
    }
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

/// Two routes that take the same requests: the second would never get one.
fn tell_of_equals(drafts: &[Draft], problems: &mut Problems) {
    let mut takers: HashMap<HttpMatch, Place> = HashMap::new();
    for draft in drafts.iter().filter(|draft| draft.match_sound) {
        let matches = draft.route.matches.unnamed();
        let what = if matches == HttpMatch::default() { "every request" } else { "the same requests" };
        match takers.entry(matches) {
            Entry::Vacant(free) => drop(free.insert(draft.route.place)),
            Entry::Occupied(first) => {
                let message = format!("the route in line {} takes {what} already", first.get().line);
                let error = problems.error(draft.route.place, message);
                error.hint("tell them apart by `host`, `path`, `method`, `headers` or `query`");
            }
        }
    }
}

/// What a route is called where nobody named it.
fn usual_name(action: &Action) -> &str {
    match action {
        Action::Upstream(shares) => shares.first().map_or("", |share| &share.upstream),
        Action::Redirect(_) => "redirect",
        Action::Respond(_) => "respond",
        Action::Asked => "services",
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
        draft.route.named = true;
    }
    let mut counts: HashMap<String, usize> = HashMap::new();
    for draft in drafts.iter_mut().filter(|draft| draft.name.is_none()) {
        let usual = usual_name(&draft.route.action).to_string();
        let count = counts.entry(usual.clone()).or_default();
        loop {
            *count += 1;
            let number = if *count == 1 { String::new() } else { format!("-{count}") };
            draft.route.name = format!("{usual}{number}");
            if taken.insert(draft.route.name.clone()) {
                break;
            }
        }
    }
}
