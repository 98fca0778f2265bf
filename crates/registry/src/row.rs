//! Rows as people and programs read them: what `ls`, `show`, the API and the access log print.

use std::time::Duration;

use serde::Serialize;
use tieline_base::{Clock, Moment, Stage};

use crate::exchanged::Exchanged;
use crate::record::Record;
use crate::table::Registry;

/// One line of the live table.
#[derive(Clone, Serialize, Debug)]
pub struct Row {
    /// The connection's id.
    pub id: u64,
    /// The connection that carries it, if it is part of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// The listener that accepted it.
    pub listener: String,
    /// What its bytes mean.
    pub protocol: &'static str,
    /// Who speaks: whom a trusted forwarder or PROXY header names, else the socket's peer.
    pub client: String,
    /// The socket's peer, where somebody else is named as the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Who was proved.
    pub identity: Option<String>,
    /// The server name that its TLS hello asks for.
    pub sni: Option<String>,
    /// What carries it, where its listener takes more than one thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier: Option<&'static str>,
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
    /// Its latest finished exchanges, the first one first, where it carries more than one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exchanges: Vec<ExchangeRow>,
}

/// One finished exchange, as `show` tells it.
#[derive(Clone, Serialize, Debug)]
pub struct ExchangeRow {
    /// Which one of its connection it was, from 1.
    pub number: u32,
    /// The id of the row of its own that it had inside the connection, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<u64>,
    /// For whom it was asked, where a trusted forwarder named somebody else than the connection's peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// When it began, in seconds since the connection was accepted.
    pub at_seconds: f64,
    /// How long it took.
    pub duration_seconds: f64,
    /// What was asked.
    pub asked: String,
    /// The code that it was answered with.
    pub status: Option<u16>,
    /// How it ended.
    pub reason: &'static str,
    /// What lay beneath.
    pub detail: Option<String>,
    /// The route it took.
    pub route: Option<String>,
    /// The endpoint that answered, or was asked last.
    pub endpoint: Option<String>,
    /// How long it waited for its upstream connection.
    pub acquire_seconds: Option<f64>,
    /// How long the upstream took to begin its answer.
    pub first_byte_seconds: Option<f64>,
    /// Bytes from the client.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
    /// What happened on the way out of the ordinary.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl ExchangeRow {
    fn of(record: &Record, exchanged: &Exchanged) -> Self {
        let asked = &exchanged.asked;
        ExchangeRow {
            number: exchanged.number,
            stream: exchanged.stream.map(|id| id.0),
            client: (exchanged.client != record.sender()).then(|| exchanged.client.to_string()),
            at_seconds: exchanged.began.since(record.opened()).as_secs_f64(),
            duration_seconds: exchanged.ended.since(exchanged.began).as_secs_f64(),
            asked: format!("{} {}{}", asked.verb(), asked.host(), asked.target()).trim().to_owned(),
            status: exchanged.status,
            reason: exchanged.reason.as_str(),
            detail: exchanged.detail.as_deref().map(str::to_owned),
            route: exchanged.route.as_ref().map(|route| route.name.to_string()),
            endpoint: exchanged.endpoint.as_deref().map(str::to_owned),
            acquire_seconds: exchanged.acquired_after.map(|after| after.as_secs_f64()),
            first_byte_seconds: exchanged.answered_after.map(|after| after.as_secs_f64()),
            bytes_up: exchanged.bytes_up,
            bytes_down: exchanged.bytes_down,
            notes: exchanged.notes.iter().map(ToString::to_string).collect(),
        }
    }
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
            parent: record.parent().map(|parent| parent.id().0),
            listener: record.listener().name.to_string(),
            protocol: record.listener().protocol,
            client: client.to_string(),
            peer: (client != peer).then(|| peer.to_string()),
            identity: record.identity().name().map(str::to_owned),
            sni: record.sni().map(str::to_owned),
            carrier: record.carrier(),
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
    /// The story of `record` as far as it goes at `now`, with those of its exchanges that `registry`
    /// remembers: the last hundred.
    pub fn of(record: &Record, registry: &Registry, now: Moment) -> Story {
        let exchanges = registry.exchanges_of(record.id(), EXCHANGES_MAX);
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
            exchanges: exchanges.iter().map(|exchanged| ExchangeRow::of(record, exchanged)).collect(),
        }
    }
}

/// How many exchanges a story tells of.
const EXCHANGES_MAX: usize = 100;

fn detail(record: &Record, stage: Stage) -> Option<String> {
    match stage {
        Stage::Accept if let Some(parent) = record.parent() => {
            Some(format!("a stream of connection {}", parent.id().0))
        }
        Stage::Accept => Some(format!("from {} by listener \"{}\"", record.peer(), record.listener().name)),
        Stage::Settle => record.sni().map(|sni| format!("TLS hello for \"{sni}\"")),
        Stage::Identify => identified(record),
        Stage::Route => record.route().map(|route| format!("route \"{}\"", route.name)),
        // Only who was let in went further; of others the end says which rule it was.
        Stage::Authorize if record.entered(Stage::Acquire).is_some() => {
            record.route().map(|route| format!("allowed by {}", route.rule))
        }
        Stage::Relay => Some(format!("endpoint {}: {}", record.endpoint()?, record.why()?)),
        Stage::Release => record.ended().map(|ended| ended.reason.to_string()),
        Stage::Admit | Stage::Authorize | Stage::Acquire => None,
    }
}

fn identified(record: &Record) -> Option<String> {
    let proxied = (record.sender() != record.peer())
        .then(|| format!("speaks for {} by its PROXY header", record.sender()));
    let proved = record.identity().proved().map(|proved| format!("\"{}\" by {}", proved.name, proved.by));
    match (proxied, proved) {
        (Some(proxied), Some(proved)) => Some(format!("{proxied}; {proved}")),
        (proxied, proved) => proxied.or(proved),
    }
}
