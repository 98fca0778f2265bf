//! Agents at far sites, and their links.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tieline_base::{Clock, Moment};
use tieline_policy::AdminPermit;
use tieline_tunnel::{AgentStatus, LinkStatus, Offered};
use utoipa::ToSchema;

use crate::plane::Plane;

/// An agent as it stands.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct AgentView {
    /// Its name.
    name: String,
    /// What it is labelled with.
    labels: BTreeMap<String, String>,
    /// `linked`; `resuming`, while none of its links is carried and one waits for another connection; `away`;
    /// or `locked`, for somebody has a copy of its key, and it has to join anew.
    state: &'static str,
    /// Whether two processes took turns at its link in the last hour: its folder was copied, or
    /// it runs twice.
    copied: bool,
    /// For how long its certificate is good without being renewed, in seconds; 0: it is over.
    certificate_seconds: u64,
    /// Its release, if it has linked up since the server has been running.
    version: Option<String>,
    /// For how long it has been away, in seconds; null if it is not, or was never here since the server has
    /// been running.
    away_seconds: Option<f64>,
    /// Its links: none, one, or two.
    links: Vec<LinkView>,
}

/// A link as it stands.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct LinkView {
    /// Whether something carries it just now.
    attached: bool,
    /// The connection that carries it, or did last.
    connection: u64,
    /// What carries it: `tls`, `quic`.
    carrier: Option<&'static str>,
    /// Where that comes from.
    client: String,
    /// For how long there is this link, over whatever connections, in seconds.
    age_seconds: f64,
    /// The round trip over it, smoothed, in milliseconds; null until it was measured.
    round_trip_ms: Option<f64>,
    /// What part of the packets to the agent was lost in the last minute, in percent; null if none was sent.
    loss_percent: Option<f64>,
    /// Its streams.
    streams: usize,
    /// What the agent offers, by name; null until it has said so.
    offers: Option<Vec<OfferView>>,
}

/// A service that an agent offers.
#[derive(Serialize, ToSchema, Debug)]
pub(super) struct OfferView {
    /// What the server calls it.
    name: String,
    /// What it is at the agent: `tcp`, `unix`.
    kind: String,
}

/// `GET /api/v1/agents`
pub(super) async fn agents(permit: AdminPermit, State(plane): State<Plane>) -> Json<Vec<AgentView>> {
    let (now, wall) = (Clock::now(), Clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default());
    let all = plane.parts(&permit).agents.list();
    Json(all.into_iter().map(|status| AgentView::of(status, now, wall)).collect())
}

impl AgentView {
    fn of(status: AgentStatus, now: Moment, wall: Duration) -> AgentView {
        let state = match &*status.links {
            _ if status.locked => "locked",
            [] => "away",
            links if links.iter().any(|link| link.attached) => "linked",
            _ => "resuming",
        };
        let labels = status.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        AgentView {
            labels: labels.collect(),
            state,
            copied: status.copied,
            certificate_seconds: status.until.saturating_sub(wall.as_secs()),
            version: status.release,
            away_seconds: status.left.map(|left| now.since(left).as_secs_f64()),
            links: status.links.iter().map(|link| LinkView::of(link, now)).collect(),
            name: status.name,
        }
    }
}

impl LinkView {
    fn of(link: &LinkStatus, now: Moment) -> LinkView {
        LinkView {
            attached: link.attached,
            connection: link.record.id().0,
            carrier: link.record.carrier(),
            client: link.record.client().to_string(),
            age_seconds: now.since(link.since).as_secs_f64(),
            round_trip_ms: link.round_trip.map(|time| time.as_secs_f64() * 1_000.0),
            loss_percent: link.loss,
            streams: link.streams,
            offers: link.offers.as_deref().map(offers),
        }
    }
}

fn offers(offered: &Offered) -> Vec<OfferView> {
    offered.iter().map(|(name, kind)| OfferView { name: name.into(), kind: kind.to_string() }).collect()
}
