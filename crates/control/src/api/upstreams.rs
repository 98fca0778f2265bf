//! Upstreams, their endpoints and their pools.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use tieline_base::{Clock, Moment, Stage};
use tieline_policy::AdminPermit;
use tieline_pool::{EndpointStatus, LoadCounts, UpstreamStatus};
use tieline_registry::Registry;
use utoipa::ToSchema;

use super::problem::Problem;
use super::question::{Body, Reasons};
use crate::acts::Acted;
use crate::plane::Plane;

/// An upstream as it stands.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct UpstreamView {
    /// Its name.
    name: String,
    /// How connections are spread over its endpoints.
    balance: &'static str,
    /// Live connections to all of its endpoints.
    in_flight: u32,
    /// Whether health is disregarded, because too few endpoints have it.
    panic: bool,
    /// Second attempts that the retry budget still pays for.
    retries_left: u64,
    /// How many requests may be in flight, where that is learned; else null.
    limit: Option<u32>,
    /// Whether the least important are refused just now.
    shedding: bool,
    /// What was done about load since the start.
    load: LoadView,
    /// Its endpoints in the order of the config, then those that are leaving.
    endpoints: Vec<EndpointView>,
    /// Its DNS names, and what came of resolving them.
    names: Vec<NameView>,
}

/// An endpoint as it stands.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct EndpointView {
    /// What it is called: its address, and for a DNS name the address that it stands for now; of a group of
    /// agents, the one that it is.
    label: String,
    /// Its address as configured.
    address: String,
    /// Whether it is fit for new connections: `healthy`, `unhealthy`, `ejected`, `away` (its agent is not
    /// linked up just now), `breaker-open` or `draining`.
    state: &'static str,
    /// For how long it has been so, in seconds.
    state_seconds: f64,
    /// Whether it is gone from the config or from its name's addresses.
    leaving: bool,
    /// Its share of the load, beside the others' weights.
    weight: u32,
    /// Tier 1 is used before tier 2, and so on.
    tier: u8,
    /// Connections at once at most; null is no cap.
    cap: Option<u32>,
    /// Live connections to it.
    in_flight: u32,
    /// Connections that wait, open, for the next use.
    idle: usize,
    /// Connections that carry many requests at once, as those of HTTP/2 do.
    trunks: usize,
    /// Requests that those carry now.
    streams: usize,
    /// Connections made since it is known.
    connects: u64,
    /// Failures to connect, and connections that it broke.
    failures: u64,
    /// How long its first byte takes, peaks first, in milliseconds; null if not known.
    latency_ms: Option<f64>,
    /// What its protocol finds it to be: `primary`, `replica` or `superseded` for a server of PostgreSQL;
    /// null if it was not asked.
    role: Option<&'static str>,
    /// How far a replica is behind its primary, in seconds; null if that is not known.
    lag_seconds: Option<f64>,
    /// What went wrong last, whenever that was.
    last_error: Option<String>,
}

/// What was done about the load of an upstream since the start.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct LoadView {
    /// Requests that were sent again to another endpoint, and connections that were tried there.
    retries: u64,
    /// Those that were not, as the retry budget was spent.
    retries_denied: u64,
    /// Requests that a second endpoint was asked too.
    hedges: u64,
    /// Those that it answered first.
    hedges_won: u64,
    /// Clients that were refused at once, as others were more important.
    shed: u64,
    /// How often the breaker of an endpoint opened.
    breaker_opened: u64,
}

impl LoadView {
    fn of(counts: LoadCounts) -> Self {
        let LoadCounts { retries, retries_denied, hedges, hedges_won, shed, breaker_opened } = counts;
        Self { retries, retries_denied, hedges, hedges_won, shed, breaker_opened }
    }
}

/// A DNS name of an upstream.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct NameView {
    /// The name and port, as configured.
    name: String,
    /// How many endpoints it stands for.
    endpoints: usize,
    /// Why it could not be resolved the last time; the old addresses stay in use.
    error: Option<String>,
}

/// The pool of an upstream as it stands.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct PoolView {
    /// The upstream.
    upstream: String,
    /// Connections at once at most; null is no cap.
    size: Option<u32>,
    /// Connections in use.
    in_use: u32,
    /// Connections that wait, open, for the next use.
    idle: usize,
    /// Connections that carry many requests at once, as those of HTTP/2 do.
    trunks: usize,
    /// Requests that those carry now, each of them in use.
    streams: usize,
    /// Connections that wait for a place.
    waiting: usize,
    /// The most connections that were wanted at once in the last 30 seconds: in use, waited for, and refused;
    /// null where there is no cap.
    wanted: Option<u32>,
    /// How many may wait.
    queue: usize,
    /// How long the one has been in *acquire* that has been there for longest, in seconds; null if none is.
    oldest_wait_seconds: Option<f64>,
}

/// `GET /api/v1/upstreams`
pub(super) async fn upstreams(permit: AdminPermit, State(plane): State<Plane>) -> Json<Vec<UpstreamView>> {
    let now = Clock::now();
    Json(statuses(&plane, &permit).into_iter().map(|status| UpstreamView::of(status, now)).collect())
}

/// `GET /api/v1/pools`
pub(super) async fn pools(permit: AdminPermit, State(plane): State<Plane>) -> Json<Vec<PoolView>> {
    let waits = oldest_waits(plane.server(&permit).registry());
    let view = |status: UpstreamStatus| PoolView {
        size: status.size.map(Into::into),
        in_use: status.in_flight,
        idle: status.endpoints.iter().map(|endpoint| endpoint.idle).sum(),
        trunks: status.endpoints.iter().map(|endpoint| endpoint.trunks.open).sum(),
        streams: status.endpoints.iter().map(|endpoint| endpoint.trunks.carried).sum(),
        waiting: status.waiting,
        wanted: status.wanted,
        queue: status.queue,
        oldest_wait_seconds: waits.get(&*status.name).map(Duration::as_secs_f64),
        upstream: status.name,
    };
    Json(statuses(&plane, &permit).into_iter().map(view).collect())
}

/// `POST /api/v1/upstreams/{name}/endpoints/{address}/drain`
pub(super) async fn drain(
    permit: AdminPermit,
    State(plane): State<Plane>,
    Path((name, address)): Path<(String, String)>,
    Body(reasons): Body<Reasons>,
) -> Result<Json<Acted>, Problem> {
    Ok(Json(plane.drain_endpoint(&permit, &name, &address, &reasons.read()?)?))
}

/// `POST /api/v1/upstreams/{name}/endpoints/{address}/enable`
pub(super) async fn enable(
    permit: AdminPermit,
    State(plane): State<Plane>,
    Path((name, address)): Path<(String, String)>,
) -> Result<Json<UpstreamView>, Problem> {
    plane.enable_endpoint(&permit, &name, &address)?;
    let snapshot = plane.server(&permit).snapshot();
    let gone = || Problem::not_found(format!("upstream \"{name}\" was removed by a reload just now"));
    let upstream = snapshot.upstreams.get(&*name).ok_or_else(gone)?;
    Ok(Json(UpstreamView::of(upstream.status(), Clock::now())))
}

fn statuses(plane: &Plane, permit: &AdminPermit) -> Vec<UpstreamStatus> {
    plane.server(permit).snapshot().upstreams.values().map(|upstream| upstream.status()).collect()
}

impl UpstreamView {
    fn of(status: UpstreamStatus, now: Moment) -> Self {
        let names = status.names.into_iter();
        Self {
            name: status.name,
            balance: status.balance.as_str(),
            in_flight: status.in_flight,
            panic: status.panic,
            retries_left: status.retries_left,
            limit: status.limit,
            shedding: status.shedding,
            load: LoadView::of(status.counts),
            endpoints: status.endpoints.into_iter().map(|endpoint| EndpointView::of(endpoint, now)).collect(),
            names: names
                .map(|name| NameView { name: name.name, endpoints: name.endpoints, error: name.error })
                .collect(),
        }
    }
}

impl EndpointView {
    fn of(status: EndpointStatus, now: Moment) -> Self {
        Self {
            label: status.label,
            address: status.configured,
            state: status.standing.as_str(),
            state_seconds: now.since(status.since).as_secs_f64(),
            leaving: status.leaving,
            weight: status.weight,
            tier: status.tier,
            cap: status.cap.map(Into::into),
            in_flight: status.in_flight,
            trunks: status.trunks.open,
            streams: status.trunks.carried,
            idle: status.idle,
            connects: status.connects,
            failures: status.failures,
            latency_ms: status.latency.map(|latency| latency.as_secs_f64() * 1e3),
            role: status.said.role,
            lag_seconds: status.said.lag.map(|lag| lag.as_secs_f64()),
            last_error: status.last_error,
        }
    }
}

/// By upstream, the longest time that a connection has been in *acquire*.
fn oldest_waits(registry: &Registry) -> HashMap<String, Duration> {
    let now = Clock::now();
    let mut waits: HashMap<String, Duration> = HashMap::new();
    registry.each_live(|record| {
        let (Stage::Acquire, Some(route)) = (record.stage(), record.route()) else { return };
        let Some(upstream) = route.upstream_name() else { return };
        let waited = now.since(record.entered(Stage::Acquire).unwrap_or(now));
        let oldest = waits.entry(upstream.to_owned()).or_default();
        *oldest = waited.max(*oldest);
    });
    waits
}
