//! Streams as rows: each is listed, ended and drained by itself, and with its connection.

use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};
use tieline_testkit::{HttpConversation, PATIENCE, TcpServer, wait_until};

use crate::http2_client::{DATA, END, Ended, Frames, GOAWAY, HEADERS, PING, get};
use crate::origin::{OK, Origin, raw};
use crate::site::{HTTP, Site, config_of};
use crate::support::{OneRoute, await_finished, await_live, finished, order_with};

const NO_ERROR: u32 = 0;

/// Answers what is asked of `/now` at once, and of others when its connection says so.
struct Slow(TcpServer);

impl Slow {
    fn start() -> Slow {
        Slow(raw(|mut client| {
            while let Some(asked) = client.request()? {
                if asked.target().starts_with("/now") {
                    client.send(OK)?;
                } else {
                    // A head, so that the exchange is seen to have come so far; then only the end of it all.
                    client.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun")?;
                    return wait_for_word(&mut client);
                }
            }
            Ok(())
        }))
    }
}

/// Holds on until the test's own end, or until Tieline closes.
fn wait_for_word(client: &mut HttpConversation) -> std::io::Result<()> {
    client.rest().map(drop)
}

/// Two routes to a slow server.
fn config(slow: &Slow, listener: &str) -> String {
    let route = |name: &str| {
        let head = format!("[[listener.web.route]]\nname = \"{name}\"\npath = \"/{name}\"\n");
        head + "access = \"public\"\nupstream = \"slow\"\ngrace = \"0s\"\n"
    };
    let upstream = format!("[upstream.slow]\nendpoints = [\"{}\"]\n", slow.0.address());
    config_of(&[listener, &route("one"), &route("two"), &route("now"), &upstream].concat())
}

/// A connection with a stream open on each slow route: 1 and 3.
#[track_caller]
fn opened(site: &Site) -> Frames {
    let mut client = Frames::connect(site.address);
    for (stream, target) in [(1, "/one"), (3, "/two")] {
        client.send(HEADERS, END | 4, stream, &crate::http2_client::block(&get(target))).unwrap();
        assert_eq!(client.next_of(stream).kind, HEADERS);
    }
    client
}

fn kill(site: &Site, filter: &str) -> Value {
    order_with(&site.tieline, "/api/v1/connections/kill", &json!({ "filter": filter }))
}

fn row<'r>(rows: &'r [Value], route: &str) -> &'r Value {
    rows.iter().find(|row| row["route"] == route).unwrap_or_else(|| panic!("no {route}: {rows:#?}"))
}

#[test]
fn every_stream_is_a_row_and_no_connection() {
    let slow = Slow::start();
    let site = Site::start(&config(&slow, ""));
    let mut client = opened(&site);
    // What a client has read is counted a moment later.
    await_live(&site.tieline, "parent!=0 bytes>1B", 2);
    let rows = await_live(&site.tieline, "", 3);
    let parent = &rows[0];
    assert_eq!(
        (&parent["parent"], &parent["route"], &parent["stage"]),
        (&Value::Null, &Value::Null, &json!("relay"))
    );
    for route in ["one", "two"] {
        let row = row(&rows, route);
        assert_eq!(
            (&row["parent"], &row["client"], &row["stage"]),
            (&parent["id"], &parent["client"], &json!("relay"))
        );
        assert!(row["endpoint"].is_string() && row["bytes_down"].as_u64().unwrap() > 0, "{row}");
    }
    await_live(&site.tieline, &format!("parent={}", parent["id"]), 2);
    await_live(&site.tieline, "parent=0", 1);
    for (series, count) in [
        ("tieline_connections{listener=\"web\",stage=\"relay\"}", 1.0),
        ("tieline_connections_opened_total{listener=\"web\"}", 1.0),
        ("tieline_streams{listener=\"web\",stage=\"relay\"}", 2.0),
        ("tieline_streams_opened_total{listener=\"web\"}", 2.0),
    ] {
        assert_eq!(site.tieline.metric(series), count, "{series}");
    }
    assert_eq!(site.tieline.get("/api/v1/status")["live"], 1);
    let ids: Vec<String> = ["one", "two"].iter().map(|route| row(&rows, route)["id"].to_string()).collect();
    let listed = site.tieline.cli(["ls"]).expect("ls");
    for id in &ids {
        assert!(listed.contains(&format!("\n{id} in {} ", parent["id"])), "{listed}");
    }
    let shown = site.tieline.cli(["show", &parent["id"].to_string()]).expect("show");
    assert!(shown.lines().any(|line| line == format!("  streams   {}, {}", ids[0], ids[1])), "{shown}");
    // One that was answered is told by its connection.
    assert_eq!(client.ask(5, &get("/now")).status(), 200);
    let told = || {
        let story = site.tieline.get(&format!("/api/v1/connections/{}", parent["id"]));
        story["exchanges"][0]["asked"] == "GET a.test/now"
    };
    assert!(wait_until(PATIENCE, told));
}

#[test]
fn limits_of_connections_count_connections() {
    let slow = Slow::start();
    let site = Site::start(&config(&slow, "limits = { connections = 1, per_ip = 1 }\n"));
    let mut client = opened(&site);
    assert_eq!(client.ask(5, &get("/now")).status(), 200);
}

#[test]
fn ending_one_stream_leaves_the_others_alone() {
    let slow = Slow::start();
    let site = Site::start(&config(&slow, ""));
    let mut client = opened(&site);
    let killed = kill(&site, "route=one");
    assert_eq!(killed["matched"], 1);
    assert!(matches!(client.answer(1).ended, Ended::Reset(code) if code != NO_ERROR));
    let rows = await_live(&site.tieline, "", 2);
    assert_eq!(row(&rows, "two")["stage"], "relay");
    assert_eq!(client.ask(5, &get("/now")).status(), 200);
    // It has a story of its own, because it did not end as it should.
    let finished = await_finished(&site.tieline, "route=one", 1);
    assert_eq!(finished[0]["reason"], "killed");
}

#[test]
fn ending_a_connection_ends_its_streams() {
    let slow = Slow::start();
    let site = Site::start(&config(&slow, ""));
    let mut client = opened(&site);
    let rows = await_live(&site.tieline, "", 3);
    let killed = kill(&site, &format!("id={}", rows[0]["id"]));
    assert_eq!(killed["matched"], 1);
    assert!(matches!(client.answer(1).ended, Ended::Gone | Ended::Away(NO_ERROR) | Ended::Reset(_)));
    await_live(&site.tieline, "", 0);
    let finished = await_finished(&site.tieline, "parent!=0", 2);
    assert!(
        finished.iter().all(|row| row["reason"] == "killed" || row["reason"] == "client-reset"),
        "{finished:#?}"
    );
    assert!(wait_until(PATIENCE, || slow.0.open() == 0));
}

#[test]
fn a_connection_that_is_drained_says_so_and_lets_its_streams_end() {
    let origin = Origin::ok();
    let site = Site::to(&[origin.address()]);
    let mut client = Frames::connect(site.address);
    let mut fields = get("/post");
    fields[0].1 = "POST";
    client.begin(1, &fields);
    await_live(&site.tieline, "stage=relay parent!=0", 1);
    order_with(&site.tieline, "/api/v1/connections/drain", &json!({ "filter": "parent=0" }));
    let away = loop {
        let frame = client.next().unwrap();
        if frame.kind == GOAWAY {
            break frame;
        }
    };
    // RFC 9113 §6.8: the first of two names every stream.
    assert_eq!((away.code(), &away.payload[..4]), (NO_ERROR, &[0x7f, 0xff, 0xff, 0xff][..]));
    client.send(DATA, END, 1, b"the rest").unwrap();
    let answer = client.answer(1);
    assert_eq!((answer.status(), answer.ended), (200, Ended::Whole));
    assert_eq!(client.goodbye().unwrap_or(NO_ERROR), NO_ERROR);
    assert_eq!(await_finished(&site.tieline, "parent=0", 1)[0]["reason"], "drained");
    assert_eq!(origin.asked().body, b"the rest");
}

#[test]
fn a_stop_waits_for_streams_and_not_for_connections_at_rest() {
    let slow = Slow::start();
    let mut site = Site::start(&config(&slow, ""));
    let mut client = Frames::connect(site.address);
    assert_eq!(client.ask(1, &get("/now")).status(), 200);
    site.tieline.signal(Signal::TERM);
    assert_eq!(client.goodbye(), Some(NO_ERROR));
    assert!(site.tieline.wait_end(PATIENCE).is_some_and(|status| status.success()));
}

#[test]
fn a_route_that_goes_takes_its_streams_and_no_others() {
    let slow = Slow::start();
    let site = Site::start(&config(&slow, ""));
    let mut client = opened(&site);
    let renamed = [("path = \"/one\"", "path = \"/uno\""), ("name = \"one\"", "name = \"uno\"")];
    let without = renamed.iter().fold(config(&slow, ""), |text, (from, to)| text.replacen(from, to, 1));
    site.tieline.reload(&without);
    let rows = await_live(&site.tieline, "", 2);
    assert_eq!(row(&rows, "two")["stage"], "relay");
    assert_eq!(client.ask(5, &get("/now")).status(), 200);
}

#[test]
fn a_connection_without_streams_ends_when_it_is_idle_however_it_pings() {
    let slow = Slow::start();
    let site = Site::start(&config(&slow, "timeouts = { idle = \"6s\" }\n"));
    let mut client = Frames::connect(site.address);
    assert_eq!(client.ask(1, &get("/now")).status(), 200);
    let mut code = None;
    while let Some(frame) = client.next() {
        if frame.kind == GOAWAY {
            code = Some(frame.code());
        }
        let _ = client.send(PING, 0, 0, b"stay! :)");
    }
    assert_eq!(code, Some(NO_ERROR));
    assert_eq!(await_finished(&site.tieline, "parent=0", 1)[0]["reason"], "idle");
}

#[test]
fn a_client_that_has_vanished_is_asked_and_then_forgotten() {
    let slow = Slow::start();
    let site = Site::start(&config(&slow, "timeouts = { idle = \"6s\" }\n"));
    // The one answers pings and may stay; the other does nothing any more.
    let mut there = opened(&site);
    let me = |client: &Frames| client.socket().local_addr().unwrap().to_string();
    let other = me(&there);
    let answering = thread::spawn(move || while there.next().is_some() {});
    let mut vanished = opened(&site);
    let asked = loop {
        let frame = vanished.read().expect("it is asked first");
        if frame.kind == PING {
            break frame;
        }
    };
    assert_eq!(asked.flags, 0);
    let mine = me(&vanished);
    let gone = || {
        let rows = finished(&site.tieline, "parent=0");
        rows.iter().any(|row| row["client"] == mine && row["reason"] == "timeout:gap")
    };
    assert!(wait_until(PATIENCE, gone));
    assert_eq!(await_live(&site.tieline, "parent=0", 1)[0]["client"], other);
    kill(&site, "parent=0");
    answering.join().unwrap();
}

#[test]
fn a_connection_that_has_lived_its_time_leaves_in_order() {
    let slow = Slow::start();
    let site = Site::start(&config(&slow, "timeouts = { max_age = \"5s\", drain = \"30s\" }\n"));
    let mut client = opened(&site);
    let away = loop {
        let frame = client.next().unwrap();
        if frame.kind == GOAWAY {
            break frame;
        }
    };
    assert_eq!(away.code(), NO_ERROR);
    // Its streams go on.
    await_live(&site.tieline, "parent!=0", 2);
    let me = client.socket().local_addr().unwrap().to_string();
    kill(&site, "parent!=0");
    assert_eq!(client.goodbye().unwrap_or(NO_ERROR), NO_ERROR);
    let finished = await_finished(&site.tieline, "parent=0", 1);
    assert_eq!((&finished[0]["client"], &finished[0]["reason"]), (&json!(me), &json!("max-age")));
}

#[test]
fn no_more_streams_are_open_than_are_allowed() {
    let slow = Slow::start();
    let listener = OneRoute { listener: "limits = { streams = 2 }", ..HTTP };
    let site = Site::start(&listener.to(&[slow.0.address()]));
    let mut client = opened(&site);
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(client.ask(5, &get("/now")).ended, Ended::Reset(REFUSED_STREAM));
    await_live(&site.tieline, "parent!=0", 2);
    kill(&site, "parent!=0");
    assert!(matches!(client.answer(3).ended, Ended::Reset(_)));
    await_live(&site.tieline, "parent!=0", 0);
    assert_eq!(client.ask(7, &get("/now")).status(), 200);
}
