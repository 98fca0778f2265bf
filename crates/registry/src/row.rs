//! Rows as people and programs read them: what `ls`, `show`, the API and the access log print.

use std::time::Duration;

use serde::Serialize;
use tieline_base::{Clock, Moment, Stage};

use crate::record::Record;

/// One line of the live table.
#[derive(Clone, Serialize, Debug)]
pub struct Row {
    /// The connection's id.
    pub id: u64,
    /// The listener that accepted it.
    pub listener: String,
    /// What its bytes mean.
    pub protocol: &'static str,
    /// Who speaks: whom a trusted PROXY header names, else the socket's peer.
    pub client: String,
    /// The socket's peer, where a PROXY header names somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Who was proved; nobody in this version.
    pub identity: Option<String>,
    /// The server name that its TLS hello asks for.
    pub sni: Option<String>,
    /// Its route.
    pub route: Option<String>,
    /// Its upstream.
    pub upstream: Option<String>,
    /// Its endpoint.
    pub endpoint: Option<String>,
    /// Where it stands.
    pub stage: &'static str,
    /// How long it has stood there, in seconds.
    pub stage_seconds: f64,
    /// How long it has lived, in seconds.
    pub age_seconds: f64,
    /// How long no byte has moved, in seconds.
    pub idle_seconds: f64,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
    /// The config in force when it was accepted.
    pub generation: u32,
    /// The worker that serves it.
    pub worker: u16,
    /// Why it ended, if it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// Something out of the ordinary in a connection's life.
#[derive(Clone, PartialEq, Debug)]
pub struct Note {
    /// When, since it was accepted.
    pub at: Duration,
    /// What.
    pub text: Box<str>,
}

/// One station of a connection's story.
#[derive(Clone, Serialize, Debug)]
pub struct StageMark {
    /// The stage, or `note` for what happened inside one.
    pub stage: &'static str,
    /// When it was entered, in seconds since the connection was accepted.
    pub at_seconds: f64,
    /// What was decided there, and by which line of the config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The whole story of one connection: what `show` tells.
#[derive(Clone, Serialize, Debug)]
pub struct Story {
    /// The row, as `ls` shows it.
    #[serde(flatten)]
    pub row: Row,
    /// When it was accepted, in seconds since 1970-01-01 UTC.
    pub opened_unix_seconds: f64,
    /// The road it walked, in order of time.
    pub road: Vec<StageMark>,
    /// What lay beneath its end.
    pub detail: Option<String>,
}

impl Row {
    /// The row of `record` as it stands at `now`, or as it stood at its end.
    pub fn of(record: &Record, now: Moment) -> Row {
        let now = record.ended().map_or(now, |ended| ended.at);
        let stage = record.stage();
        let (bytes_up, bytes_down) = record.bytes();
        let (client, peer) = (record.client(), record.peer());
        let route = record.route();
        Row {
            id: record.id().0,
            listener: record.listener().name.to_string(),
            protocol: record.listener().protocol,
            client: client.to_string(),
            peer: (client != peer).then(|| peer.to_string()),
            identity: None,
            sni: record.sni().map(str::to_owned),
            route: route.as_ref().map(|route| route.name.to_string()),
            upstream: route.and_then(|route| route.upstream_name().map(str::to_owned)),
            endpoint: record.endpoint().map(|endpoint| endpoint.to_string()),
            stage: stage.as_str(),
            stage_seconds: now.since(record.entered(stage).unwrap_or(now)).as_secs_f64(),
            age_seconds: now.since(record.opened()).as_secs_f64(),
            idle_seconds: now.since(record.moved_at()).as_secs_f64(),
            bytes_up,
            bytes_down,
            generation: record.generation().0,
            worker: record.worker().0,
            reason: record.ended().map(|ended| ended.reason.as_str()),
        }
    }
}

impl Story {
    /// The story of `record` as far as it goes at `now`.
    pub fn of(record: &Record, now: Moment) -> Story {
        let seconds = |at: Moment| at.since(record.opened()).as_secs_f64();
        let stages = Stage::ALL.into_iter().filter_map(|stage| {
            let at_seconds = seconds(record.entered(stage)?);
            Some(StageMark { stage: stage.as_str(), at_seconds, detail: detail(record, stage) })
        });
        let mut road: Vec<StageMark> = stages.collect();
        let notes = record.notes.lock().map(|notes| notes.clone()).unwrap_or_default();
        road.extend(notes.into_iter().map(|note| StageMark {
            stage: "note",
            at_seconds: note.at.as_secs_f64(),
            detail: Some(note.text.into()),
        }));
        road.sort_by(|one, other| one.at_seconds.total_cmp(&other.at_seconds));
        let opened = Clock::wall_of(record.opened()).duration_since(std::time::UNIX_EPOCH);
        Story {
            row: Row::of(record, now),
            opened_unix_seconds: opened.unwrap_or_default().as_secs_f64(),
            road,
            detail: record.ended().and_then(|ended| ended.detail.as_deref()).map(str::to_owned),
        }
    }
}

fn detail(record: &Record, stage: Stage) -> Option<String> {
    match stage {
        Stage::Accept => Some(format!("from {} by listener \"{}\"", record.peer(), record.listener().name)),
        Stage::Settle => record.sni().map(|sni| format!("TLS hello for \"{sni}\"")),
        Stage::Identify if record.client() != record.peer() => {
            Some(format!("speaks for {} by its PROXY header", record.client()))
        }
        Stage::Route => record.route().map(|route| format!("route \"{}\"", route.name)),
        // Only who was let in went further; of others the end says which rule it was.
        Stage::Authorize if record.entered(Stage::Acquire).is_some() => {
            record.route().map(|route| format!("allowed by {}", route.rule))
        }
        Stage::Relay => Some(format!("endpoint {}: {}", record.endpoint()?, record.why()?)),
        Stage::Release => record.ended().map(|ended| ended.reason.to_string()),
        Stage::Admit | Stage::Identify | Stage::Authorize | Stage::Acquire => None,
    }
}
