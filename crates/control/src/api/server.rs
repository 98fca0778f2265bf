//! The server as a whole: how it stands, reload, stop, health and metrics.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use tieline_base::{Clock, Moment};
use tieline_conn::Phase;
use tieline_policy::AdminPermit;
use tieline_registry::Registry;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::metrics::{self, ProcessReading};
use crate::plane::{Plane, Reloaded};

/// How the server stands.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct ServerStatus {
    /// Its version.
    version: &'static str,
    /// Its process id.
    pid: u32,
    /// For how long it has been running, in seconds.
    uptime_seconds: f64,
    /// `starting`, `ready`, `draining`, `closing` or `stopped`.
    phase: &'static str,
    /// The config file, as it was named at the start.
    config: String,
    /// The data folder.
    data: String,
    /// Which config is in force, counted from 1.
    generation: u32,
    /// Reloads since the start.
    reloads: ReloadCounts,
    /// Data-plane threads.
    workers: usize,
    /// Connections that live now.
    live: usize,
    /// How many of them were accepted under which config.
    live_by_generation: BTreeMap<String, usize>,
    /// File descriptors.
    files: FileCounts,
    /// Memory in RAM, in bytes.
    resident_bytes: u64,
    /// Lines that the access log lost.
    access_log_dropped: u64,
}

/// Reloads since the start.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct ReloadCounts {
    /// Those that were obeyed.
    succeeded: u64,
    /// Those that changed nothing, because the file had errors.
    failed: u64,
}

/// File descriptors of the process.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct FileCounts {
    /// Open now.
    open: u64,
    /// The most that may be open.
    max: u64,
}

/// What a stop began with.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct Stopping {
    /// Connections that lived when it was asked for.
    live: usize,
}

/// `GET /api/v1/status`
pub(super) async fn status(permit: AdminPermit, State(plane): State<Plane>) -> Json<ServerStatus> {
    let (server, parts) = (plane.server(&permit), plane.parts(&permit));
    let (process, reloads) = (ProcessReading::take(), plane.reloads(&permit));
    let live_by_generation = live_by_generation(server.registry());
    Json(ServerStatus {
        version: parts.version,
        pid: std::process::id(),
        uptime_seconds: Clock::now().since(Moment::default()).as_secs_f64(),
        phase: server.phase().as_str(),
        config: parts.config_file.display().to_string(),
        data: parts.data.display().to_string(),
        generation: server.snapshot().generation.0,
        reloads: ReloadCounts {
            succeeded: reloads.succeeded.load(Relaxed),
            failed: reloads.failed.load(Relaxed),
        },
        workers: server.registry().workers(),
        live: live_by_generation.values().sum(),
        live_by_generation,
        files: FileCounts { open: process.open_fds, max: process.max_fds },
        resident_bytes: process.resident_bytes,
        access_log_dropped: parts.access_log.dropped(),
    })
}

fn live_by_generation(registry: &Registry) -> BTreeMap<String, usize> {
    let mut live: BTreeMap<u32, usize> = BTreeMap::new();
    registry.each_live(|record| {
        if record.parent().is_none() {
            *live.entry(record.generation().0).or_default() += 1;
        }
    });
    live.into_iter().map(|(generation, count)| (generation.to_string(), count)).collect()
}

/// `POST /api/v1/reload`
pub(super) async fn reload(
    permit: AdminPermit,
    State(plane): State<Plane>,
) -> Result<Json<Reloaded>, Problem> {
    let refused = |errors: Vec<String>| {
        let detail = "the config was not obeyed, and nothing has changed; `errors` has every reason why";
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with_errors(errors)
    };
    plane.reload(&permit).await.map(Json).map_err(refused)
}

/// `POST /api/v1/stop`
pub(super) async fn stop(permit: AdminPermit, State(plane): State<Plane>) -> (StatusCode, Json<Stopping>) {
    let live = live_by_generation(plane.server(&permit).registry()).values().sum();
    plane.stop(&permit);
    (StatusCode::ACCEPTED, Json(Stopping { live }))
}

/// `GET /healthz`: an answer at all is the answer. The one route that tells strangers anything.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// `GET /readyz`
pub(super) async fn ready(permit: AdminPermit, State(plane): State<Plane>) -> Result<&'static str, Problem> {
    match plane.server(&permit).phase() {
        Phase::Ready => Ok("ready\n"),
        phase => {
            let detail = format!("the server is {}: it takes no new connections", phase.as_str());
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}

/// `GET /metrics`
pub(super) async fn metrics(
    permit: AdminPermit,
    State(plane): State<Plane>,
) -> Result<impl IntoResponse, Problem> {
    let failed =
        |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written: a defect");
    let text = plane.exposition(&permit).text().map_err(failed)?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

/// `GET /api/v1/openapi.json`
pub(super) async fn openapi(_permit: AdminPermit) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], super::openapi())
}
