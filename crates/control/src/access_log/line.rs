//! One connection that ended, as one line of JSON.

use std::borrow::Cow;
use std::fmt::Display;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::ser::{CompactFormatter, Formatter};
use tieline_base::{ClientAddr, Clock, Moment, Reason, Stage};
use tieline_registry::{Exchanged, Record, RouteRow};

/// The fields of a line, in their order. What is not known is `null`, so that every line has the same fields.
#[derive(Serialize)]
struct Line<'r> {
    /// When it ended: RFC 3339, UTC, to the millisecond.
    time: String,
    id: u64,
    listener: &'r str,
    protocol: &'static str,
    /// Who spoke: whom a trusted forwarder or PROXY header named, else the socket's peer.
    client: Shown<ClientAddr>,
    /// The socket's peer.
    peer: Shown<ClientAddr>,
    /// Who was proved.
    identity: Option<&'r str>,
    sni: Option<&'r str>,
    route: Option<&'r str>,
    upstream: Option<&'r str>,
    endpoint: Option<&'r str>,
    /// The last stage before its end.
    stage: &'static str,
    reason: &'static str,
    detail: Option<&'r str>,
    /// From accept to end.
    duration_ms: f64,
    /// How long it waited for its upstream connection.
    acquire_ms: Option<f64>,
    bytes_up: u64,
    bytes_down: u64,
    generation: u32,
    worker: u16,
}

/// The fields of the line of one exchange among many, in their order.
#[derive(Serialize)]
struct ExchangeLine<'r> {
    /// When it ended: RFC 3339, UTC, to the millisecond.
    time: String,
    /// Its connection.
    id: u64,
    /// The row of its own that it had inside that connection, if it had one.
    stream: Option<u64>,
    /// Which one of its connection it was, from 1.
    exchange: u32,
    listener: &'r str,
    protocol: &'static str,
    client: Shown<ClientAddr>,
    peer: Shown<ClientAddr>,
    identity: Option<&'r str>,
    sni: Option<&'r str>,
    route: Option<&'r str>,
    upstream: Option<&'r str>,
    endpoint: Option<&'r str>,
    method: &'r str,
    host: &'r str,
    target: &'r str,
    status: Option<u16>,
    reason: &'static str,
    detail: Option<&'r str>,
    request_id: Option<Cow<'r, str>>,
    /// From its first byte to its end.
    duration_ms: f64,
    /// How long it waited for its upstream connection.
    acquire_ms: Option<f64>,
    /// How long the upstream took to begin its answer.
    first_byte_ms: Option<f64>,
    bytes_up: u64,
    bytes_down: u64,
    notes: &'r [Box<str>],
    generation: u32,
    worker: u16,
}

/// Appends the line of `record`, its line break included.
pub(super) fn append(record: &Record, lines: &mut Vec<u8>) {
    let (route, endpoint) = (record.route(), record.endpoint());
    push(&Line::of(record, route.as_deref(), endpoint.as_deref()), lines);
}

/// Appends the line of one exchange of `record`.
pub(super) fn append_exchange(record: &Record, exchanged: &Exchanged, lines: &mut Vec<u8>) {
    push(&ExchangeLine::of(record, exchanged), lines);
}

fn push(line: &impl Serialize, lines: &mut Vec<u8>) {
    let start = lines.len();
    let mut serializer = serde_json::Serializer::with_formatter(&mut *lines, Neutral);
    // Writing into memory cannot fail, and every field has a JSON form; half a line would be worse than none.
    if line.serialize(&mut serializer).is_err() {
        lines.truncate(start);
        return;
    }
    lines.push(b'\n');
}

impl<'r> ExchangeLine<'r> {
    fn of(record: &'r Record, exchanged: &'r Exchanged) -> Self {
        let route = exchanged.route.as_deref();
        ExchangeLine {
            time: rfc3339(exchanged.ended),
            id: exchanged.connection.0,
            stream: exchanged.stream.map(|id| id.0),
            exchange: exchanged.number,
            listener: &record.listener().name,
            protocol: record.listener().protocol,
            client: Shown(exchanged.client),
            peer: Shown(record.peer()),
            identity: record.identity().name(),
            sni: record.sni(),
            route: route.map(|route| &*route.name),
            upstream: route.and_then(RouteRow::upstream_name),
            endpoint: exchanged.endpoint.as_deref(),
            method: exchanged.asked.verb(),
            host: exchanged.asked.host(),
            target: exchanged.asked.target(),
            status: exchanged.status,
            reason: exchanged.reason.as_str(),
            detail: exchanged.detail.as_deref(),
            request_id: request_id(exchanged),
            duration_ms: ms(exchanged.ended.since(exchanged.began)),
            acquire_ms: exchanged.acquired_after.map(ms),
            first_byte_ms: exchanged.answered_after.map(ms),
            bytes_up: exchanged.bytes_up,
            bytes_down: exchanged.bytes_down,
            notes: &exchanged.notes,
            generation: record.generation().0,
            worker: record.worker().0,
        }
    }
}

/// What the exchange is called on both sides.
fn request_id(exchanged: &Exchanged) -> Option<Cow<'_, str>> {
    let ours = || (exchanged.tag != 0).then(|| format!("{:016x}", exchanged.tag).into());
    exchanged.called.as_deref().map(Cow::Borrowed).or_else(ours)
}

impl<'r> Line<'r> {
    fn of(record: &'r Record, route: Option<&'r RouteRow>, endpoint: Option<&'r str>) -> Self {
        let (at, reason, detail) = match record.ended() {
            Some(ended) => (ended.at, ended.reason, ended.detail.as_deref()),
            None => (Clock::now(), Reason::Internal, Some("logged before its end")),
        };
        let (bytes_up, bytes_down) = record.bytes();
        Line {
            time: rfc3339(at),
            id: record.id().0,
            listener: &record.listener().name,
            protocol: record.listener().protocol,
            client: Shown(record.client()),
            peer: Shown(record.peer()),
            identity: record.identity().name(),
            sni: record.sni(),
            route: route.map(|route| &*route.name),
            upstream: route.and_then(RouteRow::upstream_name),
            endpoint,
            stage: last_stage(record).as_str(),
            reason: reason.as_str(),
            detail,
            duration_ms: ms(at.since(record.opened())),
            acquire_ms: acquired_after(record, at).map(ms),
            bytes_up,
            bytes_down,
            generation: record.generation().0,
            worker: record.worker().0,
        }
    }
}

fn rfc3339(at: Moment) -> String {
    let wall = Timestamp::try_from(Clock::wall_of(at)).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{wall:.3}")
}

fn last_stage(record: &Record) -> Stage {
    let entered = |stage: &Stage| *stage != Stage::Release && record.entered(*stage).is_some();
    Stage::ALL.into_iter().rfind(entered).unwrap_or(Stage::Accept)
}

fn acquired_after(record: &Record, ended: Moment) -> Option<Duration> {
    let asked = record.entered(Stage::Acquire)?;
    Some(record.entered(Stage::Relay).unwrap_or(ended).since(asked))
}

fn ms(duration: Duration) -> f64 {
    // Three digits are microseconds: what is measured, and short enough to read.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Serialized as it is displayed, without a text in between.
struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// JSON whose texts hold nothing that a terminal or a log viewer obeys. JSON itself escapes only what is
/// below a space; names come from strangers and may hold DEL, C1 controls, line separators and direction
/// changes.
struct Neutral;

impl Formatter for Neutral {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some((at, hostile)) = rest.char_indices().find(|(_, c)| is_hostile(*c)) {
            CompactFormatter.write_string_fragment(writer, &rest[..at])?;
            // All of them are within the first plane: one escape is enough.
            write!(writer, "\\u{:04x}", u32::from(hostile))?;
            rest = &rest[at + hostile.len_utf8()..];
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

fn is_hostile(c: char) -> bool {
    matches!(
        c,
        '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn line(record: &Record) -> (String, serde_json::Value) {
        let mut lines = Vec::new();
        append(record, &mut lines);
        let text = String::from_utf8(lines).unwrap();
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    }

    #[test]
    fn a_line_tells_the_whole_of_an_exchange() {
        let registry = testing::registry();
        let record = testing::row(&registry, "web", "10.1.2.3:99");
        testing::route(&registry, &record, "shop", "10.0.0.9:80");
        let mut lines = Vec::new();
        append_exchange(&record, &testing::exchange(&record), &mut lines);
        let line: serde_json::Value = serde_json::from_slice(&lines).unwrap();
        for (field, value) in [
            ("method", "GET"),
            ("host", "shop.example"),
            ("target", "/cart?a=1"),
            ("reason", "answered"),
            ("route", "shop"),
            ("endpoint", "10.0.0.9:80"),
            ("request_id", "000000000000002a"),
        ] {
            assert_eq!(line[field], value, "{field}");
        }
        assert_eq!((&line["status"], &line["acquire_ms"]), (&200.into(), &1.0.into()));
    }

    #[test]
    fn a_line_tells_the_whole_of_a_connection() {
        let registry = testing::registry();
        let record = testing::row(&registry, "web", "10.1.2.3:99");
        testing::route(&registry, &record, "shop", "10.0.0.9:80");
        record.enter(Stage::Acquire, Clock::now());
        record.enter(Stage::Relay, Clock::now());
        record.moved(true, 17);
        record.moved(false, 4_711);
        registry.leave(&record, Reason::UpstreamReset, Some("connection reset by peer".into()));
        let (text, line) = line(&record);
        assert!(text.ends_with("}\n") && text.matches('\n').count() == 1);
        let time: Timestamp = line["time"].as_str().unwrap().parse().unwrap();
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
        assert!(time.duration_since(Timestamp::try_from(Clock::wall()).unwrap()).abs().as_secs() < 60);
        for (key, value) in [
            ("listener", "web"),
            ("protocol", "tcp"),
            ("client", "10.1.2.3:99"),
            ("peer", "10.1.2.3:99"),
            ("route", "shop"),
            ("upstream", "shop"),
            ("endpoint", "10.0.0.9:80"),
            ("stage", "relay"),
            ("reason", "upstream-reset"),
            ("detail", "connection reset by peer"),
        ] {
            assert_eq!(line[key], value, "{key}");
        }
        assert_eq!((&line["bytes_up"], &line["bytes_down"]), (&17.into(), &4_711.into()));
        assert!(line["duration_ms"].as_f64().unwrap() >= line["acquire_ms"].as_f64().unwrap());
        assert!(line["sni"].is_null());
    }

    #[test]
    fn a_hostile_name_cannot_leave_its_line_or_steer_a_terminal() {
        let registry = testing::registry();
        let record = testing::row(&registry, "web", "10.1.2.3:99");
        let hostile = "a\"\r\n\u{1b}[2J\u{7f}\u{9b}31m\u{2028}\u{202e}\u{0}</script>é";
        record.set_settled(tieline_registry::Settled { sni: Some(hostile.into()), ..Default::default() });
        registry.leave(&record, Reason::RefusedNoRoute, None);
        let (text, line) = line(&record);
        assert_eq!(line["sni"], hostile);
        let body = text.strip_suffix('\n').unwrap();
        assert!(!body.chars().any(|c| c.is_control() || is_hostile(c)), "{body:?}");
        assert!(body.contains('é'));
    }

    #[test]
    fn a_connection_refused_early_has_the_same_fields() {
        let registry = testing::registry();
        let (early, late) =
            (testing::row(&registry, "web", "[::1]:1"), testing::row(&registry, "web", "[::1]:2"));
        testing::route(&registry, &late, "shop", "10.0.0.9:80");
        registry.leave(&early, Reason::LimitPerIp, None);
        registry.leave(&late, Reason::Idle, None);
        let keys = |value: serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(line(&early).1), keys(line(&late).1));
    }
}
