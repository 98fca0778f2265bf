//! One connection or exchange that ended, as one line of JSON: its fields, in their order.

use std::cell::RefCell;
use std::time::Duration;

use jiff::Timestamp;
use tieline_base::{ClientAddr, Clock, Moment, Reason, Stage};
use tieline_registry::{Exchanged, Record, RouteRow};

use super::json::Object;

/// Appends the line of `record`, its line break included. What is not known is `null`, so that every line has
/// the same fields.
pub(super) fn append(record: &Record, lines: &mut Vec<u8>) {
    let (route, endpoint) = (record.route(), record.endpoint());
    let (at, reason, detail) = match record.ended() {
        Some(ended) => (ended.at, ended.reason, ended.detail.as_deref()),
        None => (Clock::now(), Reason::Internal, Some("logged before its end")),
    };
    let (bytes_up, bytes_down) = record.bytes();
    let mut line = Object::begin(lines);
    // When it ended: RFC 3339, UTC, to the millisecond.
    time(&mut line, at);
    line.number("id", record.id().0);
    origin(&mut line, record, record.client());
    way(&mut line, route.as_deref(), endpoint.as_deref());
    // The last stage before its end.
    line.word("stage", last_stage(record).as_str());
    line.word("reason", reason.as_str());
    line.text_or_null("detail", detail);
    // From accept to end.
    line.milliseconds("duration_ms", Some(at.since(record.opened())));
    // How long it waited for its upstream connection.
    line.milliseconds("acquire_ms", acquired_after(record, at));
    line.number("bytes_up", bytes_up);
    line.number("bytes_down", bytes_down);
    line.number("generation", record.generation().0.into());
    line.number("worker", record.worker().0.into());
    line.end();
}

/// Appends the line of one exchange of `record`, which carries many.
pub(super) fn append_exchange(record: &Record, exchanged: &Exchanged, lines: &mut Vec<u8>) {
    let mut line = Object::begin(lines);
    time(&mut line, exchanged.ended);
    // Its connection; the row of its own that it had inside that, if it had one; and which one of the
    // connection it was, from 1.
    line.number("id", exchanged.connection.0);
    line.number_or_null("stream", exchanged.stream.map(|id| id.0));
    line.number("exchange", exchanged.number.into());
    origin(&mut line, record, exchanged.client);
    way(&mut line, exchanged.route.as_deref(), exchanged.endpoint.as_deref());
    line.text("method", exchanged.asked.verb());
    line.text("host", exchanged.asked.host());
    line.text("target", exchanged.asked.target());
    line.number_or_null("status", exchanged.status.map(Into::into));
    line.word("reason", exchanged.reason.as_str());
    line.text_or_null("detail", exchanged.detail.as_deref());
    request_id(&mut line, exchanged);
    // From its first byte to its end; how long it waited for its upstream connection; how long the upstream
    // took to begin its answer.
    line.milliseconds("duration_ms", Some(exchanged.ended.since(exchanged.began)));
    line.milliseconds("acquire_ms", exchanged.acquired_after);
    line.milliseconds("first_byte_ms", exchanged.answered_after);
    line.number("bytes_up", exchanged.bytes_up);
    line.number("bytes_down", exchanged.bytes_down);
    line.texts("notes", &exchanged.notes);
    line.number("generation", record.generation().0.into());
    line.number("worker", record.worker().0.into());
    line.end();
}

/// Who spoke: whom a trusted forwarder or PROXY header named, else the socket's peer; and who was proved.
fn origin(line: &mut Object<'_>, record: &Record, client: ClientAddr) {
    line.text("listener", &record.listener().name);
    line.word("protocol", record.listener().protocol);
    line.address("client", client);
    line.address("peer", record.peer());
    line.text_or_null("identity", record.identity().name());
    line.text_or_null("sni", record.sni());
    if let Some(carrier) = record.carrier() {
        line.word("carrier", carrier);
    }
}

fn way(line: &mut Object<'_>, route: Option<&RouteRow>, endpoint: Option<&str>) {
    line.text_or_null("route", route.map(|route| &*route.name));
    line.text_or_null("upstream", route.and_then(RouteRow::upstream_name));
    line.text_or_null("endpoint", endpoint);
}

/// What the exchange is called on both sides.
fn request_id(line: &mut Object<'_>, exchanged: &Exchanged) {
    match (exchanged.called.as_deref(), exchanged.tag) {
        (Some(called), _) => line.text("request_id", called),
        (None, 0) => line.text_or_null("request_id", None),
        (None, tag) => line.hexadecimal("request_id", tag),
    }
}

thread_local! {
    /// The second that was written last, since 1970, and how: formatting it takes longer than all the rest.
    static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
}

fn time(line: &mut Object<'_>, at: Moment) {
    let wall = Clock::wall_of(at).duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != wall.as_secs() {
            let whole = i64::try_from(wall.as_secs()).ok().and_then(|s| Timestamp::from_second(s).ok());
            *text = format!("{:.0}", whole.unwrap_or(Timestamp::UNIX_EPOCH)).replace('Z', ".");
            *second = wall.as_secs();
        }
        line.time("time", text, wall.subsec_millis());
    });
}

fn last_stage(record: &Record) -> Stage {
    let entered = |stage: &Stage| *stage != Stage::Release && record.entered(*stage).is_some();
    Stage::ALL.into_iter().rfind(entered).unwrap_or(Stage::Accept)
}

fn acquired_after(record: &Record, ended: Moment) -> Option<Duration> {
    let asked = record.entered(Stage::Acquire)?;
    Some(record.entered(Stage::Relay).unwrap_or(ended).since(asked))
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
        registry.leave(&record, Reason::UpstreamReset, Some("connection reset by peer".into()), ());
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
        registry.leave(&record, Reason::RefusedNoRoute, None, ());
        let (text, line) = line(&record);
        assert_eq!(line["sni"], hostile);
        let body = text.strip_suffix('\n').unwrap();
        assert!(!body.chars().any(|c| c.is_control() || tieline_base::text::is_hostile(c)), "{body:?}");
        assert!(body.contains('é'));
    }

    #[test]
    fn a_connection_refused_early_has_the_same_fields() {
        let registry = testing::registry();
        let (early, late) =
            (testing::row(&registry, "web", "[::1]:1"), testing::row(&registry, "web", "[::1]:2"));
        testing::route(&registry, &late, "shop", "10.0.0.9:80");
        registry.leave(&early, Reason::LimitPerIp, None, ());
        registry.leave(&late, Reason::Idle, None, ());
        let keys = |value: serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(line(&early).1), keys(line(&late).1));
    }
}
