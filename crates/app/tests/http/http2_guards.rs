//! What stands between routes and upstreams, over HTTP/2: the same as without it.

use std::fs;

use tieline_testkit::{PATIENCE, wait_until};

use crate::http2_client::{Answer, DATA, END, Ended, Frames, RST_STREAM, get};
use crate::origin::{OK, Origin};
use crate::site::{HTTP, Site};
use crate::support::{OneRoute, await_live};

const CANCEL: u32 = 8;

fn site(route: &str, listener: &str, origin: &Origin) -> Site {
    Site::start(&OneRoute { route, listener, ..HTTP }.to(&[origin.address()]))
}

/// A request of this method, with `more` fields.
fn fields<'f>(method: &'f str, target: &'f str, more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let mut fields = get(target);
    fields[0].1 = method;
    fields.extend(more);
    fields
}

/// A request with a body, which is sent even where the answer comes before it.
fn post(client: &mut Frames, stream: u32, target: &str, more: &[(&str, &str)], body: &[u8]) -> Answer {
    client.begin(stream, &fields("POST", target, more));
    client.send(DATA, END, stream, body).unwrap();
    client.answer(stream)
}

#[test]
fn rates_count_streams_as_they_count_requests() {
    let origin = Origin::ok();
    let rates = "rate = [{ per = \"header:X-Api-Key\", rate = \"2/h\" }, { per = \"ip\", rate = \"5/h\" }]";
    let site = site(rates, "", &origin);
    let mut client = Frames::connect(site.address);
    let mut streams = (1_u32..).step_by(2);
    let mut ask = |key: &str| {
        let answer = client.ask(streams.next().unwrap(), &fields("GET", "/", &[("x-api-key", key)]));
        assert_eq!(answer.ended, Ended::Whole);
        answer.status()
    };
    assert_eq!((ask("a"), ask("a"), ask("a")), (200, 200, 429));
    assert_eq!((ask("b"), ask("c"), ask("d"), ask("e")), (200, 200, 200, 429));
    let mut other = Frames::connect(site.address);
    assert_eq!(other.ask(1, &get("/late")).status(), 429, "another connection of the same client");
    assert_eq!(site.reason("/late"), "limit:rate");
    // An opening of a WebSocket is a request as any other.
    let opening = fields("CONNECT", "/chat", &[(":protocol", "websocket"), ("sec-websocket-version", "13")]);
    assert_eq!(other.ask(3, &opening).status(), 429);
    (0..5).for_each(|_| drop(origin.asked()));
    assert!(origin.is_unasked());
}

#[test]
fn rates_go_by_the_client_that_a_trusted_forwarder_names() {
    let origin = Origin::ok();
    let site = site("rate = { rate = \"2/h\" }", "trusted_forwarders = [\"127.0.0.1/32\"]", &origin);
    let mut client = Frames::connect(site.address);
    let mut streams = (1_u32..).step_by(2);
    let mut over_2 = |ip: &str| {
        client.ask(streams.next().unwrap(), &fields("GET", "/", &[("x-forwarded-for", ip)])).status()
    };
    let over_1 = |ip: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 6.6.6.6, {ip}\r\n\r\n");
        site.connect().ask(&request).status
    };
    assert_eq!((over_2("198.51.100.7"), over_1("198.51.100.7")), (200, 200));
    assert_eq!((over_2("198.51.100.7"), over_1("198.51.100.7")), (429, 429));
    assert_eq!((over_2("198.51.100.8"), over_1("198.51.100.9")), (200, 200), "others behind the same proxy");
    // Addresses of one site's IPv6 network are one client.
    assert_eq!((over_2("2001:db8::1"), over_1("2001:db8::2"), over_2("2001:db8::3")), (200, 200, 429));
    assert_eq!(over_1("2001:db8:0:1::1"), 200);
}

#[test]
fn streams_under_way_are_limited_and_one_that_is_given_up_gives_its_place_back() {
    let origin = Origin::start(|asked| if asked.target() == "/" { OK.into() } else { Vec::new() });
    let site = site("concurrent = 2", "", &origin);
    let mut client = Frames::connect(site.address);
    client.begin(1, &get("/busy"));
    client.send(DATA, END, 1, b"").unwrap();
    client.begin(3, &get("/busy"));
    client.send(DATA, END, 3, b"").unwrap();
    // Their connection is a row too.
    await_live(&site.tieline, "stage=relay", 3);
    assert_eq!(client.ask(5, &get("/third")).status(), 503);
    assert_eq!(site.reason("/third"), "limit:concurrent");
    client.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()).unwrap();
    let mut stream = 7;
    assert!(wait_until(PATIENCE, || {
        stream += 2;
        client.ask(stream, &get("/")).status() == 200
    }));
}

const DOCUMENT: &str = r#"openapi: 3.1.0
info: { title: notes, version: "1" }
paths:
  /notes:
    post:
      requestBody:
        required: true
        content:
          application/json:
            schema: { type: object, required: [text], properties: { text: { type: string } } }
      responses: { "200": { description: ok } }
"#;

#[test]
fn an_interface_holds_over_streams_and_refuses_each_by_itself() {
    let (origin, folder) = (Origin::ok(), tempfile::tempdir().unwrap());
    let file = folder.path().join("api.yaml");
    fs::write(&file, DOCUMENT).unwrap();
    let api = format!("api = {{ document = \"{}\" }}", file.display());
    let site = site(&api, "limits = { validated_body = \"64B\" }", &origin);
    let mut client = Frames::connect(site.address);
    let json = [("content-type", "application/json")];
    for (stream, target, body, status) in [
        (1, "/notes", &br#"{"text":"a"}"#[..], 200),
        (3, "/notes", br#"{"text":1}"#, 422),
        (5, "/notes", br#"{"text":"a","text":1}"#, 400),
        (7, "/nowhere", b"{}", 404),
        (
            9,
            "/notes",
            br#"{"text":"more than sixty-four bytes of it, which nobody holds for a stranger"}"#,
            413,
        ),
        (11, "/notes", br#"{"text":"b"}"#, 200),
    ] {
        let answer = post(&mut client, stream, target, &json, body);
        assert_eq!((answer.status(), answer.ended), (status, Ended::Whole), "{}", answer.text());
    }
    assert_eq!(
        (&*origin.asked().body, &*origin.asked().body),
        (&br#"{"text":"a"}"#[..], &br#"{"text":"b"}"#[..])
    );
    assert!(origin.is_unasked());
}

#[test]
fn a_body_may_be_as_long_as_over_http1_however_it_is_told() {
    let origin = Origin::ok();
    let site = site("", "limits = { body = \"1KiB\" }", &origin);
    let mut client = Frames::connect(site.address);
    let (fits, long) = ([b'x'; 1_024], [b'x'; 1_025]);
    assert_eq!(post(&mut client, 1, "/", &[], &fits).status(), 200);
    assert_eq!(post(&mut client, 3, "/", &[("content-length", "1024")], &fits).status(), 200);
    assert_eq!(post(&mut client, 5, "/told", &[("content-length", "1025")], &long).status(), 413);
    assert_eq!(post(&mut client, 7, "/untold", &[], &long).status(), 413);
    assert_eq!((site.reason("/told"), site.reason("/untold")), ("limit:body".into(), "limit:body".into()));
}
