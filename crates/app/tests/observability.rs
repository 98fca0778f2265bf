//! What the real binary tells: metrics, access log, stories, and to whom.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use tieline_testkit::{
    HttpAnswer, HttpConversation, PATIENCE, TcpServer, Tieline, free_port, http_over_tcp, loopback, wait_for,
    wait_until,
};

use support::{
    OneRoute, assert_closed, assert_echoes, await_finished, await_live, connect, connect_relayed, live,
    reason_of, refusal, reset, row_of, start, story,
};

// Metrics.

/// The samples of an exposition in the text format of OpenMetrics 1.0, by their series.
///
/// # Panics
/// If it has another form, or tells a series twice.
fn samples(exposition: &str) -> BTreeMap<&str, f64> {
    assert!(exposition.ends_with("# EOF\n"), "it is not whole");
    let (mut kinds, mut samples) = (BTreeMap::new(), BTreeMap::new());
    for line in exposition.lines().filter(|line| *line != "# EOF") {
        if let Some(comment) = line.strip_prefix("# ") {
            let [word, family, text] = comment.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
            assert!(matches!(word, "HELP" | "TYPE" | "UNIT"), "{line:?}");
            if word == "TYPE" {
                assert_eq!(kinds.insert(family, text), None, "{family} comes twice");
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        assert!(name.starts_with("tieline_") || name.starts_with("process_"), "{line:?}");
        let suffixes = ["", "_total", "_bucket", "_sum", "_count"];
        let family = suffixes.iter().find_map(|suffix| kinds.get(name.strip_suffix(suffix)?));
        let kind = family.unwrap_or_else(|| panic!("{name} has no TYPE"));
        assert_eq!(*kind == "counter", name.ends_with("_total"), "{line:?} is a {kind}");
        assert_eq!(samples.insert(series, value.parse().unwrap()), None, "{series} comes twice");
    }
    samples
}

/// The sum of all series that start so.
fn sum(samples: &BTreeMap<&str, f64>, start: &str) -> f64 {
    samples.iter().filter(|(series, _)| series.starts_with(start)).map(|(_, value)| value).sum()
}

#[test]
fn metrics_parse_and_their_counts_match_what_happened() {
    let echo = TcpServer::echo();
    let config = OneRoute { listener: "limits = { connections = 6 }", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    drop(connect_relayed(address, 3));
    await_finished(&tieline, "reason=client-closed", 3);
    connect_relayed(address, 2).into_iter().for_each(reset);
    await_finished(&tieline, "reason=client-reset", 2);
    let _live = connect_relayed(address, 6);
    assert_eq!(refusal(&tieline, address), "limit:connections");

    // An echo may be back before its bytes are counted.
    let bytes = || sum(&samples(&tieline.metrics()), "tieline_bytes_total");
    assert!(wait_until(PATIENCE, || bytes() == 88.0), "{}", bytes());
    let text = tieline.metrics();
    let samples = samples(&text);
    for (reason, count) in [("client-closed", 3.0), ("client-reset", 2.0), ("limit:connections", 1.0)] {
        let series = format!("tieline_connections_closed_total{{listener=\"web\",reason=\"{reason}\"}}");
        assert_eq!(samples[&*series], count, "{reason}");
    }
    assert_eq!(sum(&samples, "tieline_connections_closed_total"), 6.0);
    assert_eq!(samples["tieline_connections_opened_total{listener=\"web\"}"], 12.0);
    assert_eq!(sum(&samples, "tieline_connections{"), 6.0);
    assert_eq!(samples["tieline_connections{listener=\"web\",stage=\"relay\"}"], 6.0);
    assert_eq!(samples["tieline_connection_duration_seconds_count{listener=\"web\"}"], 6.0);
    for direction in ["up", "down"] {
        let bytes = format!("tieline_bytes_total{{listener=\"web\",direction=\"{direction}\"}}");
        assert_eq!(samples[&*bytes], 44.0, "11 times 4 bytes {direction}");
    }
    for histogram in ["tieline_acquire_duration_seconds", "tieline_connect_duration_seconds"] {
        assert_eq!(samples[&*format!("{histogram}_count{{upstream=\"service\"}}")], 11.0);
        let all = format!("{histogram}_bucket{{le=\"+Inf\",upstream=\"service\"}}");
        let other = format!("{histogram}_bucket{{upstream=\"service\",le=\"+Inf\"}}");
        assert_eq!(samples.get(&*all).or(samples.get(&*other)), Some(&11.0), "{text}");
    }
    let labels = format!("{{upstream=\"service\",endpoint=\"{}\"}}", echo.address());
    assert_eq!(samples[&*format!("tieline_endpoint_in_flight{labels}")], 6.0);
    assert_eq!(samples[&*format!("tieline_endpoint_connects_total{labels}")], 11.0);
    assert_eq!(samples[&*format!("tieline_endpoint_up{labels}")], 1.0);
    assert_eq!(samples["tieline_access_log_dropped_total"], 0.0);
}

#[test]
fn a_failing_endpoint_shows_in_the_metrics() {
    let echo = TcpServer::echo();
    let at = echo.address();
    let upstream = "health = { tcp = true, every = \"100ms\", rise = 1, fall = 1 }";
    let (tieline, address) = start(&OneRoute { upstream, ..OneRoute::default() }.to(&[at]));
    assert_echoes(&mut connect(address));
    let up = format!("tieline_endpoint_up{{upstream=\"service\",endpoint=\"{at}\"}}");
    assert_eq!(tieline.metric(&up), 1.0);
    drop(echo);
    let is_down = || tieline.metrics().contains(&format!("{up} 0\n"));
    assert!(wait_until(PATIENCE, is_down), "{}", tieline.metrics());
    assert_eq!(refusal(&tieline, address), "unreachable");
    let failures =
        format!("tieline_endpoint_connect_failures_total{{upstream=\"service\",endpoint=\"{at}\"}}");
    assert!(tieline.metric(&failures) >= 1.0, "{}", tieline.metrics());
}

// The access log.

/// Every line of an access log, which must be JSON.
fn log_lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    // A line still being written has no end yet.
    let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line:?}"))).collect()
}

/// Waits until an access log has `count` lines.
fn await_log(file: &Path, count: usize) -> Vec<Value> {
    let lines = wait_for(PATIENCE, || Some(log_lines(file)).filter(|lines| lines.len() == count));
    lines.unwrap_or_else(|| panic!("not {count} lines: {:#?}", log_lines(file)))
}

#[test]
fn the_access_log_has_a_line_of_json_for_each_connection() {
    let echo = TcpServer::echo();
    let config = OneRoute {
        server: "access_log = \"file:access.log\"",
        listener: "limits = { connections = 1 }",
        ..OneRoute::default()
    };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    let file = tieline.directory().join("access.log");
    let client = connect_relayed(address, 1).remove(0);
    let me = client.local_addr().unwrap();
    let row = row_of(&tieline, &client);
    let refused = connect(address);
    assert_closed(&refused);
    await_log(&file, 1);
    drop(client);
    let [first, second] = await_log(&file, 2).try_into().unwrap();
    let fields: BTreeSet<&str> = second.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "acquire_ms bytes_down bytes_up client detail duration_ms endpoint generation id \
                    identity listener peer protocol reason route sni stage time upstream worker";
    assert_eq!(fields, expected.split_whitespace().collect());
    assert_eq!(first.as_object().unwrap().len(), fields.len(), "every line has the same fields");
    assert_eq!((&first["reason"], &first["stage"]), (&"limit:connections".into(), &"admit".into()));
    assert_eq!(second["id"], row["id"]);
    assert_eq!((&second["client"], &second["peer"]), (&me.to_string().into(), &me.to_string().into()));
    assert_eq!((&second["listener"], &second["protocol"]), (&"web".into(), &"tcp".into()));
    assert_eq!((&second["route"], &second["upstream"]), (&"service".into(), &"service".into()));
    assert_eq!(second["endpoint"], echo.address().to_string());
    assert_eq!((&second["reason"], &second["stage"]), (&"client-closed".into(), &"relay".into()));
    assert_eq!((&second["bytes_up"], &second["bytes_down"]), (&4.into(), &4.into()));
    assert!(second["time"].as_str().unwrap().ends_with('Z') && second["duration_ms"].as_f64() > Some(0.0));
}

#[test]
fn a_hang_up_opens_the_access_log_anew_and_loses_no_line() {
    let echo = TcpServer::echo();
    let config = OneRoute { server: "access_log = \"file:access.log\"", ..OneRoute::default() };
    let (mut tieline, address) = start(&config.to(&[echo.address()]));
    let [file, moved] = ["access.log", "access.log.1"].map(|name| tieline.directory().join(name));
    let mut stays = connect_relayed(address, 1).remove(0);
    drop(connect_relayed(address, 3));
    await_log(&file, 3);
    fs::rename(&file, &moved).unwrap();
    drop(connect_relayed(address, 2));
    await_log(&moved, 5);
    tieline.signal(Signal::HUP);
    // It is made a moment before lines go there.
    let comes = || {
        drop(connect_relayed(address, 1));
        !log_lines(&file).is_empty()
    };
    assert!(wait_until(PATIENCE, || file.exists() && comes()), "{}", tieline.log());
    let is_whole = || {
        await_live(&tieline, "", 1);
        let ended = support::finished(&tieline, "").len();
        wait_until(PATIENCE, || log_lines(&moved).len() + log_lines(&file).len() == ended)
    };
    assert!(is_whole(), "a line is lost");
    let in_the_old_one = log_lines(&moved).len();
    drop(connect_relayed(address, 4));
    assert!(is_whole(), "a line is lost");
    assert_eq!(log_lines(&moved).len(), in_the_old_one);
    assert_echoes(&mut stays);
}

// Stories.

#[test]
fn a_story_tells_every_stage_in_order_with_the_config_line_and_why_this_endpoint() {
    let echo = TcpServer::echo();
    let config = OneRoute::default().to(&[echo.address()]);
    let (tieline, address) = start(&config);
    let client = connect_relayed(address, 1).remove(0);
    let row = row_of(&tieline, &client);
    let me = client.local_addr().unwrap();
    drop(client);
    await_finished(&tieline, "", 1);
    let told = tieline.get(&format!("/api/v1/connections/{}", row["id"]));
    let road: Vec<&Value> = told["road"].as_array().unwrap().iter().collect();
    let stages: Vec<&str> = road.iter().map(|mark| mark["stage"].as_str().unwrap()).collect();
    let expected =
        ["accept", "admit", "settle", "identify", "route", "authorize", "acquire", "relay", "release"];
    assert_eq!(stages, expected);
    let times: Vec<f64> = road.iter().map(|mark| mark["at_seconds"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let line = 1 + config.lines().position(|line| line == "[[listener.web.route]]").unwrap();
    let text = story(&tieline, &row);
    for detail in [
        format!("accept: from {me} by listener \"web\""),
        "route: route \"service\"".into(),
        format!("authorize: allowed by access = \"public\" of route \"service\" (tieline.toml:{line})"),
        format!("relay: endpoint {}: the only one with room", echo.address()),
        "release: client-closed".into(),
    ] {
        assert!(text.contains(&detail), "{detail:?} is not in\n{text}");
    }
    assert_eq!((&told["bytes_up"], &told["reason"]), (&4.into(), &"client-closed".into()));
}

#[test]
fn finished_connections_are_remembered_as_long_as_the_config_says() {
    let echo = TcpServer::echo();
    let config = OneRoute { server: "workers = 1\nhistory_rows = 3", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    let mut ids = Vec::new();
    for _ in 0..5 {
        let client = connect_relayed(address, 1).remove(0);
        ids.push(row_of(&tieline, &client)["id"].clone());
        drop(client);
        assert!(wait_until(PATIENCE, || live(&tieline, "").is_empty()));
    }
    let kept: Vec<Value> = support::finished(&tieline, "").iter().map(|row| row["id"].clone()).collect();
    assert_eq!(kept, [ids[4].clone(), ids[3].clone(), ids[2].clone()]);
    let (status, problem) = tieline.api("GET", &format!("/api/v1/connections/{}", ids[0]), &Value::Null);
    assert_eq!(status, 404, "{problem}");
}

#[test]
fn the_table_shows_who_waits_where() {
    let echo = TcpServer::echo();
    let upstream = "pool = { size = 1 }\ntimeouts = { acquire = \"10m\" }";
    let (tieline, address) = start(&OneRoute { upstream, ..OneRoute::default() }.to(&[echo.address()]));
    let _holder = connect_relayed(address, 1);
    let waiting: Vec<_> = (0..3).map(|_| connect(address)).collect();
    let rows = await_live(&tieline, "stage=acquire upstream=service", waiting.len());
    assert!(rows.iter().all(|row| row["endpoint"].is_null() && row["stage_seconds"].as_f64() >= Some(0.0)));
    // Who waits is in that stage a moment before it stands in line.
    assert!(wait_until(PATIENCE, || tieline.get("/api/v1/pools")[0]["waiting"] == waiting.len()));
    let pools = tieline.get("/api/v1/pools");
    let figures = ["size", "in_use", "waiting"].map(|key| pools[0][key].as_u64());
    assert_eq!(figures, [Some(1), Some(1), Some(3)], "{pools}");
    assert!(pools[0]["oldest_wait_seconds"].as_f64() > Some(0.0), "{pools}");
    assert_eq!(tieline.metric("tieline_pool_waiting{upstream=\"service\"}"), 3.0);
}

// Who may ask.

fn ask(tieline: &Tieline, at: u16, target: &str, with_token: Option<&str>) -> HttpAnswer {
    let header = with_token.map(|token| format!("Authorization: Bearer {token}"));
    let headers: Vec<&str> = header.as_deref().into_iter().collect();
    http_over_tcp(loopback(at), "GET", target, &headers, b"")
        .unwrap_or_else(|error| panic!("{target}: {error}\n{}", tieline.log()))
}

#[test]
fn over_the_network_only_the_health_check_answers_without_the_token() {
    let (echo, admin) = (TcpServer::echo(), free_port());
    let config = OneRoute::default().to(&[echo.address()]);
    let (tieline, _) = start(&format!("{config}[admin]\nlisten = \"{}\"\n", loopback(admin)));
    let file = tieline.data().join("admin.token");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(tieline.data()).unwrap().permissions().mode() & 0o777, 0o700);
    let token = fs::read_to_string(&file).unwrap();
    assert_eq!(ask(&tieline, admin, "/healthz", None).status, 200);
    for target in ["/metrics", "/readyz", "/api/v1/connections", "/api/v1/openapi.json"] {
        assert_eq!(ask(&tieline, admin, target, None).status, 401, "{target} without a token");
        assert_eq!(ask(&tieline, admin, target, Some("wrong")).status, 401, "{target} with a wrong one");
        assert_eq!(ask(&tieline, admin, target, Some(token.trim())).status, 200, "{target} with the token");
    }
    let kill = http_over_tcp(loopback(admin), "POST", "/api/v1/connections/kill", &[], b"{\"all\": true}");
    assert_eq!(kill.unwrap().status, 401);
    let socket = fs::metadata(tieline.admin_socket()).unwrap();
    assert_eq!(socket.permissions().mode() & 0o077, 0, "nobody else may reach the socket");
}

#[test]
fn the_api_is_asked_by_address_or_by_a_name_that_the_config_lists() {
    let admin = free_port();
    let config = |hosts: &str| {
        let one = OneRoute::default().to(&[loopback(free_port())]);
        format!("{one}\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n{hosts}\n")
    };
    let (tieline, _) = start(&config(""));
    let token = fs::read_to_string(tieline.data().join("admin.token")).unwrap();
    let status = |host: &str| {
        let mut client = HttpConversation::connect(loopback(admin));
        let token = format!("Authorization: Bearer {}", token.trim());
        client.ask(&format!("GET /readyz HTTP/1.1\r\nHost: {host}\r\n{token}\r\n\r\n")).status
    };
    assert_eq!((status("127.0.0.1"), status("localhost:7070"), status("tieline.test")), (200, 200, 421));
    tieline.reload(&config("hosts = [\"Tieline.test\"]"));
    assert_eq!((status("tieline.test:7070"), status("TIELINE.TEST"), status("evil.test")), (200, 200, 421));
}

#[test]
fn the_access_log_goes_to_a_log_daemon_and_survives_its_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let daemon = UnixDatagram::bind(&path).unwrap();
    let echo = TcpServer::echo();
    let server = format!("access_log = \"syslog:{}\"", path.display());
    let (_tieline, address) =
        start(&OneRoute { server: &server, ..OneRoute::default() }.to(&[echo.address()]));
    let heard = |daemon: &UnixDatagram| {
        daemon.set_read_timeout(Some(PATIENCE)).unwrap();
        drop(connect_relayed(address, 1));
        let mut datagram = vec![0; 64 * 1024];
        let length = daemon.recv(&mut datagram).expect("a line");
        String::from_utf8(datagram[..length].to_vec()).unwrap()
    };
    let assert_told = |daemon: UnixDatagram| {
        let line = heard(&daemon);
        // RFC 5424 §6: priority, version, time, and who says it; facility local0, informational.
        assert!(line.starts_with("<134>1 2"), "{line}");
        let json = &line[line.find('{').expect("an object")..];
        let line: Value = serde_json::from_str(json).unwrap();
        assert_eq!((&line["listener"], &line["reason"]), (&"web".into(), &"client-closed".into()));
    };
    assert_told(daemon);
    // One that is started anew has another socket at the same place.
    fs::remove_file(&path).unwrap();
    assert_told(UnixDatagram::bind(&path).unwrap());
}

#[test]
fn readiness_ends_with_the_drain_while_health_goes_on() {
    let echo = TcpServer::echo();
    let config = OneRoute { listener: "timeouts = { drain = \"10m\" }", ..OneRoute::default() };
    let (mut tieline, address) = start(&config.to(&[echo.address()]));
    let client = connect_relayed(address, 1).remove(0);
    assert_eq!(tieline.http("GET", "/readyz", b"").status, 200);
    tieline.signal(Signal::TERM);
    assert!(wait_until(PATIENCE, || tieline.http("GET", "/readyz", b"").status == 503));
    assert_eq!(tieline.http("GET", "/healthz", b"").status, 200);
    assert_eq!(live(&tieline, "").len(), 1, "the table is open to the last");
    drop(client);
    assert!(tieline.wait_end(PATIENCE).is_some_and(|status| status.success()));
}

#[test]
fn a_reason_is_the_same_word_in_the_row_the_log_and_the_metric() {
    let echo = TcpServer::echo();
    let config = OneRoute {
        server: "access_log = \"file:access.log\"",
        listener: "timeouts = { idle = \"2s\" }",
        ..OneRoute::default()
    };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    let client = connect_relayed(address, 1).remove(0);
    assert_closed(&client);
    let reason = reason_of(&tieline, &client);
    let line = &await_log(&tieline.directory().join("access.log"), 1)[0];
    assert_eq!(line["reason"], reason);
    let series = format!("tieline_connections_closed_total{{listener=\"web\",reason=\"{reason}\"}}");
    assert_eq!((reason.as_str(), tieline.metric(&series)), ("idle", 1.0));
}
