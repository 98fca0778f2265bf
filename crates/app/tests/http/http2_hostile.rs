//! What HTTP/2 is abused for: requests that could be read in two ways, and floods of frames.

use std::collections::BTreeMap;

use tieline_testkit::{HttpMessage, PATIENCE, wait_until};

use crate::http2_client::{
    Answer, CONTINUATION, DATA, END, END_HEADERS, Ended, Frames, HEADERS, PING, PREFACE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, get,
};
use crate::origin::{OK, Origin};
use crate::site::{HTTP, Site};
use crate::support::OneRoute;

/// What no origin may ever be asked for.
const CANARY: &str = "/canary";
const SMUGGLED: &str = "GET /canary HTTP/1.1\r\nHost: a\r\n\r\n";

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 8;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

use Fate::{Broken, Forwarded, Refused};

/// What has to become of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// No origin hears of it.
    Refused,
    /// It is one request to everybody.
    Forwarded,
    /// Its head is in order and its body is not: an origin may have heard of it, once.
    Broken,
}

/// Frames for one connection. Fields and data are bytes: no library would send some of them.
struct Case {
    fate: Fate,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Body,
}

enum Body {
    None,
    Data(&'static [u8]),
    Trailers(Vec<(&'static str, &'static str)>),
}

/// The fields of a request for the case's own path, with `more` behind them; those of a name in `other` are
/// replaced, or left out where there is no value.
fn fields(other: &[(&str, Option<&str>)], more: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let told = |name: &str| other.iter().find(|(known, _)| *known == name);
    let own = get("{}").into_iter().filter_map(|(name, value)| match told(name) {
        Some((_, replaced)) => replaced.map(|value| (name, value)),
        None => Some((name, value)),
    });
    let bytes = |(name, value): (&str, &str)| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    own.collect::<Vec<_>>().into_iter().chain(more.iter().copied()).map(bytes).collect()
}

/// All cases.
fn cases() -> Vec<Case> {
    let mut cases = Cases(Vec::new());
    pseudo_fields(&mut cases);
    hosts_and_paths(&mut cases);
    of_one_hop(&mut cases);
    lines(&mut cases);
    lengths(&mut cases);
    trailers(&mut cases);
    credentials(&mut cases);
    about_the_client(&mut cases);
    cases.0
}

struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, fate: Fate, fields: Vec<(Vec<u8>, Vec<u8>)>, body: Body) {
        self.0.push(Case { fate, fields, body });
    }
}

/// Pseudo fields: missing, twice, unknown, behind others, with what they cannot hold.
fn pseudo_fields(cases: &mut Cases) {
    for name in [":method", ":scheme", ":path"] {
        cases.add(Refused, fields(&[(name, None)], &[]), Body::None);
        cases.add(Refused, fields(&[], &[(name, "/{}")]), Body::None);
    }
    for more in [(":status", "200"), (":protocol", "websocket"), (":unknown", "1"), (":Path", "/"), ("", "x")]
    {
        cases.add(Refused, fields(&[], &[more]), Body::None);
    }
    cases.add(Refused, fields(&[], &[("x", "1"), (":authority", "b.test")]), Body::None);
    for authority in
        ["", "a b", "u@a.test", "a.test/x", "a.test:99999", "a..test", "a.test, b.test", "[::1", "a\tb"]
    {
        cases.add(Refused, fields(&[(":authority", Some(authority))], &[]), Body::None);
    }
    cases.add(Refused, fields(&[(":authority", None)], &[]), Body::None);
}

fn hosts_and_paths(cases: &mut Cases) {
    for hosts in [&["b.test"][..], &["a.test", "b.test"], &[""]] {
        let more: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        cases.add(Refused, fields(&[], &more), Body::None);
    }
    cases.add(Forwarded, fields(&[], &[("host", "a.test")]), Body::None);
    cases.add(Forwarded, fields(&[(":authority", None)], &[("host", "a.test")]), Body::None);
    let injected = "{} HTTP/1.1\r\nHost: a\r\n\r\nGET /canary HTTP/1.1\r\n";
    for path in [
        "",
        "*",
        "?x={}",
        "x{}",
        "http://b.test{}",
        "{}/../canary",
        "{}/%2e%2e/x",
        "{}%2fcanary",
        "{}\\x",
        "{} x",
        "{}\u{7f}",
        "{}%00",
        "{};a=b",
        "//canary\u{0}",
        injected,
    ] {
        cases.add(Refused, fields(&[(":path", Some(path))], &[]), Body::None);
    }
    for method in ["GET /canary HTTP/1.1\r\nx:", "G T", "", "TRACE", "CONNECT"] {
        cases.add(Refused, fields(&[(":method", Some(method))], &[]), Body::None);
    }
}

/// Two credentials, of which everybody may pick another.
fn credentials(cases: &mut Cases) {
    for (first, second) in [("Bearer x", "Bearer y"), ("Bearer x", "Bearer x")] {
        let twice = [("authorization", first), ("authorization", second)];
        cases.add(Refused, fields(&[], &twice), Body::None);
    }
}

/// What is of one hop, or frames a message of HTTP/1.
fn of_one_hop(cases: &mut Cases) {
    for more in [
        ("connection", "close"),
        ("connection", "x-forwarded-for"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, chunked"),
        ("expect", "something"),
    ] {
        cases.add(
            Refused,
            fields(&[], &[more]),
            Body::Data(b"0\r\n\r\nGET /canary HTTP/1.1\r\nHost: a\r\n\r\n"),
        );
    }
}

/// Names and values that would be lines of their own.
fn lines(cases: &mut Cases) {
    for more in [
        ("X-Upper", "1"),
        ("x y", "1"),
        ("x\r\ny", "1"),
        ("x:", "1"),
        ("x", "a\r\nb: c"),
        ("x", "a\nb"),
        ("x", "a\rb"),
        ("x", "a\0b"),
        ("x", "1\r\n\r\nGET /canary HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("cookie", "a\r\nb: c"),
        ("via", "1.1 x\r\n"),
    ] {
        cases.add(Refused, fields(&[], &[more]), Body::None);
    }
}

/// Lengths.
fn lengths(cases: &mut Cases) {
    for lengths in
        [&["5", "6"][..], &["5", "5"], &["+5"], &["5,5"], &["-1"], &["0x5"], &["99999999999999999999"]]
    {
        let more: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
        cases.add(Refused, fields(&[(":method", Some("POST"))], &more), Body::Data(b"12345"));
    }
    let post = |more: &[(&str, &str)]| fields(&[(":method", Some("POST"))], more);
    cases.add(Refused, post(&[("content-length", "5")]), Body::None);
    cases.add(Broken, post(&[("content-length", "3")]), Body::Data(SMUGGLED.as_bytes()));
    cases.add(Broken, post(&[("content-length", "300")]), Body::Data(SMUGGLED.as_bytes()));
    cases.add(Forwarded, post(&[]), Body::Data(SMUGGLED.as_bytes()));
    cases.add(Forwarded, post(&[]), Body::Data(b"0\r\n\r\nGET /canary HTTP/1.1\r\nHost: a\r\n\r\n"));
}

/// Trailers.
fn trailers(cases: &mut Cases) {
    let post = |more: &[(&str, &str)]| fields(&[(":method", Some("POST"))], more);
    for more in [(":path", "/canary"), ("transfer-encoding", "chunked"), ("X", "1"), ("x", "a\r\nb")] {
        cases.add(Broken, post(&[]), Body::Trailers(vec![more]));
    }
    for more in [("content-length", "5"), ("host", "b.test"), ("authorization", "x"), ("connection", "close")]
    {
        cases.add(Broken, post(&[]), Body::Trailers(vec![more]));
    }
    cases.add(Forwarded, post(&[]), Body::Trailers(vec![("x-sum", "5")]));
}

/// What an origin must not take for ours.
fn about_the_client(cases: &mut Cases) {
    for more in [
        ("x-forwarded-for", "1.2.3.4"),
        ("x_forwarded_for", "1.2.3.4"),
        ("forwarded", "for=x"),
        ("proxy", "x"),
        ("x.forwarded.for", "1.2.3.4"),
        ("true-client-ip", "1.2.3.4"),
        ("x-tieline-identity", "1.2.3.4"),
    ] {
        cases.add(Forwarded, fields(&[], &[more]), Body::None);
    }
}

fn attack(site: &Site, case: &Case, path: &str) -> Answer {
    let own = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).replace("{}", path).into_bytes();
    let fields: Vec<_> = case.fields.iter().map(|(name, value)| (name.clone(), own(value))).collect();
    let mut client = Frames::connect(site.address);
    let head = block(&fields);
    // Tieline may close while it still is being sent.
    let _ = match &case.body {
        Body::None => client.send(HEADERS, END | END_HEADERS, 1, &head),
        Body::Data(data) => {
            client.send(HEADERS, END_HEADERS, 1, &head).and_then(|()| client.send(DATA, END, 1, data))
        }
        Body::Trailers(trailers) => client
            .send(HEADERS, END_HEADERS, 1, &head)
            .and_then(|()| client.send(DATA, 0, 1, b"body"))
            .and_then(|()| client.send(HEADERS, END | END_HEADERS, 1, &block(trailers))),
    };
    client.answer(1)
}

fn check(case: &Case, path: &str, answer: &Answer, asked: &BTreeMap<String, Vec<HttpMessage>>) {
    let fields: Vec<_> = case
        .fields
        .iter()
        .map(|(name, value)| [name, value].map(|text| text.escape_ascii().to_string()))
        .collect();
    let shown = format!("{path} {:?}: {fields:?}\n{answer:?}", case.fate);
    let heard = asked.get(path).map_or(0, Vec::len);
    match case.fate {
        Fate::Refused => {
            assert_eq!(heard, 0, "{shown}");
            let told = answer.ended == Ended::Whole && (400..=505).contains(&answer.status());
            let reset = matches!(answer.ended, Ended::Reset(code) | Ended::Away(code) if code != 0);
            assert!(told || reset, "{shown}");
        }
        Fate::Forwarded => {
            assert_eq!((heard, answer.status(), answer.ended), (1, 200, Ended::Whole), "{shown}");
            let asked = &asked[path][0];
            assert!(
                !asked.head.contains("1.2.3.4") && asked.header("host") == Some("a.test"),
                "{}",
                asked.head
            );
        }
        Fate::Broken => assert!(heard <= 1, "{shown}"),
    }
}

#[test]
fn an_origin_sees_exactly_what_was_forwarded() {
    let origin = Origin::ok();
    let timeouts = "timeouts = { request_head = \"20s\", body_gap = \"20s\" }";
    let site = Site::start(&OneRoute { listener: timeouts, ..HTTP }.to(&[origin.address()]));
    let cases = cases();
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let answers: Vec<Answer> =
        cases.iter().enumerate().map(|(at, case)| attack(&site, case, &format!("/case/{at}/"))).collect();
    // Somebody else, over the same upstream connections: what is left on one would answer this.
    let mut somebody = Frames::connect(site.address);
    assert_eq!(somebody.ask(1, &get("/probe")).text(), "ok");
    let mut asked: BTreeMap<String, Vec<HttpMessage>> = BTreeMap::new();
    loop {
        let message = origin.asked();
        assert!(!message.target().contains(CANARY), "a hidden request came through: {}", message.head);
        let target = message.target().to_owned();
        if target == "/probe" {
            break;
        }
        assert!(target.starts_with("/case/"), "{}", message.head);
        asked.entry(target).or_default().push(message);
    }
    for (at, (case, answer)) in cases.iter().zip(&answers).enumerate() {
        check(case, &format!("/case/{at}/"), answer, &asked);
    }
}

/// Where floods go, and a client that must not notice them.
struct Flooded {
    site: Site,
    _origin: Origin,
    somebody: Frames,
    asked: u32,
    rss_before: u64,
}

impl Flooded {
    fn start() -> Flooded {
        let origin = Origin::start(|_| OK.into());
        let site = Site::start(
            &OneRoute { listener: "timeouts = { idle = \"60s\" }", ..HTTP }.to(&[origin.address()]),
        );
        let somebody = Frames::connect(site.address);
        let rss_before = site.tieline.rss_kib();
        Flooded { site, _origin: origin, somebody, asked: 0, rss_before }
    }

    /// Somebody else is served, and memory is where it was.
    #[track_caller]
    fn assert_unmoved(&mut self) {
        let stream = 2 * self.asked + 1;
        self.asked += 1;
        assert_eq!(self.somebody.ask(stream, &get("/")).status(), 200);
        let grown = self.site.tieline.rss_kib().saturating_sub(self.rss_before);
        assert!(grown < 64 * 1024, "{grown} KiB more");
    }

    /// Sends `frames` again and again until the connection is closed: with this code.
    #[track_caller]
    fn assert_ended(&mut self, frames: impl Fn(u32) -> Vec<u8>, code: u32) {
        let mut client = Frames::connect(self.site.address);
        client.socket().set_write_timeout(Some(PATIENCE)).unwrap();
        let sent = (0..200_000).take_while(|round| client.raw(&frames(*round)).is_ok()).count();
        assert!(sent < 200_000, "nobody minded");
        // Bytes that were on their way when it closed may have destroyed its goodbye.
        let told = client.goodbye();
        assert!(told.is_none_or(|told| told == code), "{told:?}");
        self.assert_unmoved();
    }
}

fn asking(round: u32) -> Vec<u8> {
    frame(HEADERS, END | END_HEADERS, 2 * round + 1, &block(&get("/")))
}

#[test]
fn streams_that_are_given_up_at_once_end_the_connection() {
    let mut flooded = Flooded::start();
    let reset =
        |round: u32| [asking(round), frame(RST_STREAM, 0, 2 * round + 1, &CANCEL.to_be_bytes())].concat();
    flooded.assert_ended(reset, ENHANCE_YOUR_CALM);
    // By our own hand: the window of each is opened further than there are numbers.
    let broken = |round: u32| {
        [asking(round), frame(WINDOW_UPDATE, 0, 2 * round + 1, &[0x7f, 0xff, 0xff, 0xff])].concat()
    };
    flooded.assert_ended(broken, ENHANCE_YOUR_CALM);
}

#[test]
fn frames_that_bring_nothing_end_the_connection() {
    let mut flooded = Flooded::start();
    flooded.assert_ended(|_| frame(PING, 0, 0, &[0; 8]).repeat(50), ENHANCE_YOUR_CALM);
    flooded.assert_ended(|_| frame(SETTINGS, 0, 0, &[]).repeat(50), ENHANCE_YOUR_CALM);
    flooded.assert_ended(|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]).repeat(50), ENHANCE_YOUR_CALM);
    flooded.assert_ended(|_| frame(0xee, 0, 0, &[0; 100]).repeat(50), ENHANCE_YOUR_CALM);
    let post = || {
        let mut fields = get("/");
        fields[0].1 = "POST";
        frame(HEADERS, END_HEADERS, 1, &block(&fields))
    };
    // Without a byte, and with nothing but padding.
    for (flags, payload) in [(0, &[][..]), (PADDED, &[0]), (PADDED, &[200; 201])] {
        let empty = |round| if round == 0 { post() } else { frame(DATA, flags, 1, payload).repeat(50) };
        flooded.assert_ended(empty, ENHANCE_YOUR_CALM);
    }
    let ended = "/api/v1/connections?finished=true&filter=reason%3Dprotocol-error";
    let logged = || flooded.site.tieline.get(ended);
    assert!(wait_until(PATIENCE, || logged()["total"].as_u64().unwrap() >= 4), "{}", logged());
}

#[test]
fn a_head_without_an_end_ends_the_connection() {
    let mut flooded = Flooded::start();
    let start = |round| match round {
        0 => frame(HEADERS, END, 1, &block(&get("/"))),
        _ => frame(CONTINUATION, 0, 1, &block(&[("x", "y".repeat(1_000))])),
    };
    flooded.assert_ended(start, ENHANCE_YOUR_CALM);
    let empty = |round| if round == 0 { start(0) } else { frame(CONTINUATION, 0, 1, &[]).repeat(50) };
    flooded.assert_ended(empty, ENHANCE_YOUR_CALM);
    // One of HPACK's: a few bytes that stand for many.
    let mut client = Frames::connect(flooded.site.address);
    let mut bomb = vec![0x40, 1, b'x', 0x7f, 0x81, 0x1f];
    bomb.extend([b'y'; 4_096]);
    bomb.extend([0xbe; 12_000]);
    let mut fields = block(&get("/"));
    fields.extend(bomb);
    let _ = client.send(HEADERS, END | END_HEADERS, 1, &fields);
    assert_ne!(client.answer(1).status(), 200);
    flooded.assert_unmoved();
}

#[test]
fn windows_that_never_open_hold_little() {
    let large: &'static [u8] = vec![b'x'; 1 << 20].leak();
    let origin = Origin::start(move |_| {
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", large.len()).as_bytes(), large].concat()
    });
    let upstream = "timeouts = { gap = \"1s\" }";
    let site = Site::start(&OneRoute { upstream, ..HTTP }.to(&[origin.address()]));
    let before = site.tieline.rss_kib();
    let mut clients: Vec<Frames> = (0..4).map(|_| Frames::with_settings(site.address, &[(4, 0)])).collect();
    for client in &mut clients {
        for round in 0..100 {
            client.raw(&asking(round)).unwrap();
        }
    }
    let stalled = || site.tieline.metric("tieline_streams_opened_total{listener=\"web\"}") == 400.0;
    assert!(wait_until(PATIENCE, stalled));
    let grown = site.tieline.rss_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more");
    // Each ends by its own time, and with it what it held upstream.
    for client in &mut clients {
        assert!(matches!(client.answer(1).ended, Ended::Reset(_)));
    }
    assert!(wait_until(PATIENCE, || origin.open() == 0));
}

#[test]
fn what_begins_no_connection_ends_in_time() {
    let origin = Origin::ok();
    let timeouts = "timeouts = { request_head = \"300ms\", idle = \"300ms\" }";
    let site = Site::start(&OneRoute { listener: timeouts, ..HTTP }.to(&[origin.address()]));
    for begun in [&PREFACE[..20], PREFACE] {
        let mut client = Frames::silent(site.address);
        client.raw(begun).unwrap();
        while client.read().is_some() {}
    }
    // A frame that only a server sends, and one that is larger than was agreed: not for their idleness.
    let site = Site::start(&HTTP.to(&[origin.address()]));
    for wrong in [frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), frame(DATA, 0, 1, &[0; 20_000])] {
        let mut client = Frames::connect(site.address);
        let _ = client.raw(&wrong);
        assert!(client.goodbye().is_none_or(|code| code != 0));
    }
    assert!(origin.is_unasked());
}
