//! Listeners and routes: what is let in, and where it goes.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use tieline_base::Clock;
use tieline_config::{Access, Share, Who};
use tieline_conn::{Listener, Phase, Snapshot};
use tieline_policy::AdminPermit;
use tieline_registry::Registry;
use utoipa::ToSchema;

use super::problem::Problem;
use super::question::{Body, Reasons};
use crate::acts::Acted;
use crate::plane::Plane;

/// A listener as it stands.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct ListenerStatus {
    /// Its name.
    name: String,
    /// What its bytes mean.
    protocol: &'static str,
    /// The addresses where it accepts; where the config says port 0, the port that it got.
    bound: Vec<String>,
    /// Whether it lets connections in.
    accepting: bool,
    /// Connections that live now.
    live: u64,
    /// Connections accepted since the start, those refused included.
    opened: u64,
    /// How many it lets in.
    limits: LimitsStatus,
    /// How long things may take.
    timeouts: TimeoutsStatus,
    /// The names of its routes.
    routes: Vec<String>,
}

/// How many a listener lets in; null is no limit.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct LimitsStatus {
    /// At once.
    connections: Option<u32>,
    /// At once from one IPv4 address or IPv6 /64.
    per_ip: Option<u32>,
    /// In time, like `5000/s`.
    accept_rate: Option<String>,
}

/// How long things may take at a listener, in seconds; null is for ever.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct TimeoutsStatus {
    /// The PROXY header and the first bytes together.
    handshake_seconds: f64,
    /// Without a byte either way.
    idle_seconds: Option<f64>,
    /// From accept to end, give or take 10 %.
    max_age_seconds: Option<f64>,
    /// What a drained connection may still take.
    drain_seconds: f64,
}

/// A route as it stands.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct RouteStatus {
    /// Its name, unique within its listener.
    name: String,
    /// Its listener.
    listener: String,
    /// The line of the config file where it stands.
    line: u32,
    /// The TLS server names that it takes; none: whatever no other route takes.
    sni: Vec<String>,
    /// Where it leads, or the first of several; empty if it answers itself.
    upstream: String,
    /// Everything it leads to: several share its requests by weight.
    shares: Vec<ShareStatus>,
    /// Who decides about its connections: `public` or `policy`.
    access: &'static str,
    /// The networks from which the policy lets in; none if it asks for none.
    allow_from: Vec<String>,
    /// Whom the policy lets in, groups by their names; none if it asks for nobody.
    allow_identity: Vec<String>,
    /// When it is open; null is always.
    schedule: Option<String>,
    /// Whether it is open now.
    open: bool,
    /// What live connections may still take when it closes or is removed, in seconds.
    grace_seconds: f64,
    /// Connections that live on it now.
    live: u64,
}

/// An upstream, and its part of a route's requests.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct ShareStatus {
    /// The upstream.
    upstream: String,
    /// Its part of the sum of all weights.
    weight: u32,
}

impl ShareStatus {
    fn of(share: &Share) -> Self {
        Self { upstream: share.upstream.clone(), weight: share.weight }
    }
}

/// `GET /api/v1/listeners`
pub(super) async fn listeners(permit: AdminPermit, State(plane): State<Plane>) -> Json<Vec<ListenerStatus>> {
    let server = plane.server(&permit);
    let (snapshot, config) = (server.snapshot(), plane.config(&permit));
    let ready = server.phase() == Phase::Ready;
    let status = |listener: &Listener| {
        let described = config.listener(&listener.row.name);
        let routes = described.iter().flat_map(|listener| &listener.routes);
        ListenerStatus {
            accepting: ready && !listener.admission.is_closed(),
            routes: routes.map(|route| route.name.clone()).collect(),
            ..ListenerStatus::of(listener)
        }
    };
    Json(snapshot.listeners.values().map(|listener| status(listener)).collect())
}

impl ListenerStatus {
    fn of(listener: &Listener) -> Self {
        let meter = listener.row.meter.read();
        let closed: u64 = meter.closed.iter().sum();
        let limits = &listener.limits;
        let timeouts = &listener.timeouts;
        Self {
            name: listener.row.name.to_string(),
            protocol: listener.row.protocol,
            bound: listener.doors.iter().map(|(bound, _)| bound.address().to_string()).collect(),
            accepting: !listener.admission.is_closed(),
            live: meter.opened.saturating_sub(closed),
            opened: meter.opened,
            limits: LimitsStatus {
                connections: limits.connections,
                per_ip: limits.per_ip,
                accept_rate: limits.accept_rate.map(|rate| rate.to_string()),
            },
            timeouts: TimeoutsStatus {
                handshake_seconds: timeouts.handshake.as_secs_f64(),
                idle_seconds: timeouts.idle.map(|idle| idle.as_secs_f64()),
                max_age_seconds: timeouts.max_age.map(|age| age.as_secs_f64()),
                drain_seconds: timeouts.drain.as_secs_f64(),
            },
            routes: Vec::new(),
        }
    }
}

/// `GET /api/v1/routes`
pub(super) async fn routes(permit: AdminPermit, State(plane): State<Plane>) -> Json<Vec<RouteStatus>> {
    let config = plane.config(&permit);
    let live = live_by_route(plane.server(&permit).registry());
    let now = jiff::Timestamp::try_from(Clock::wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let routes = config.listeners.iter().flat_map(|listener| {
        let live = live.get(&*listener.name);
        listener.routes.iter().map(move |route| RouteStatus {
            name: route.name.clone(),
            listener: listener.name.clone(),
            line: route.place.line,
            sni: route.sni.iter().map(ToString::to_string).collect(),
            upstream: route.shares().first().map_or_else(String::new, |share| share.upstream.clone()),
            shares: route.shares().iter().map(ShareStatus::of).collect(),
            access: if route.access == Access::Public { "public" } else { "policy" },
            allow_from: allow_from(&route.access),
            allow_identity: allow_identity(&route.access),
            schedule: route.schedule.as_ref().map(ToString::to_string),
            open: route.schedule.as_ref().is_none_or(|schedule| schedule.is_open(now)),
            grace_seconds: route.grace.as_secs_f64(),
            live: live.and_then(|routes| routes.get(&*route.name)).copied().unwrap_or(0),
        })
    });
    Json(routes.collect())
}

fn allow_from(access: &Access) -> Vec<String> {
    match access {
        Access::Public => Vec::new(),
        Access::Policy(allow) => allow.from.iter().flatten().map(ToString::to_string).collect(),
    }
}

fn allow_identity(access: &Access) -> Vec<String> {
    let Access::Policy(allow) = access else { return Vec::new() };
    let written = |who: &Who| if who.group { format!("group:{}", who.name) } else { who.name.clone() };
    allow.identity.iter().flatten().map(written).collect()
}

/// How many live on each route: by the listener's name, then by the route's.
fn live_by_route(registry: &Registry) -> HashMap<Box<str>, HashMap<Box<str>, u64>> {
    let mut live: HashMap<Box<str>, HashMap<Box<str>, u64>> = HashMap::new();
    registry.each_live(|record| {
        let Some(route) = record.route() else { return };
        let listener = &record.listener().name;
        // Names are copied for the first row of each, not for each row.
        match live.get_mut(listener).and_then(|routes| routes.get_mut(&route.name)) {
            Some(count) => *count += 1,
            None => *live.entry(listener.clone()).or_default().entry(route.name.clone()).or_default() += 1,
        }
    });
    live
}

/// `POST /api/v1/listeners/{name}/drain`
pub(super) async fn drain(
    permit: AdminPermit,
    State(plane): State<Plane>,
    Path(name): Path<String>,
    Body(reasons): Body<Reasons>,
) -> Result<Json<Acted>, Problem> {
    Ok(Json(plane.drain_listener(&permit, &name, &reasons.read()?)?))
}

/// `POST /api/v1/listeners/{name}/enable`
pub(super) async fn enable(
    permit: AdminPermit,
    State(plane): State<Plane>,
    Path(name): Path<String>,
) -> Result<Json<ListenerStatus>, Problem> {
    plane.enable_listener(&permit, &name)?;
    let snapshot = plane.server(&permit).snapshot();
    status_of(&snapshot, &name).map(Json)
}

fn status_of(snapshot: &Snapshot, name: &str) -> Result<ListenerStatus, Problem> {
    let gone = || Problem::not_found(format!("listener \"{name}\" was removed by a reload just now"));
    snapshot.listeners.get(name).map(|listener| ListenerStatus::of(listener)).ok_or_else(gone)
}
