//! Requests held against an OpenAPI document.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tieline_testkit::{HttpAnswer, Nginx, PATIENCE, finish, free_port, loopback, program, wait_until};

use crate::origin::Origin;
use crate::site::{HTTP, Site};
use crate::support::{OneRoute, reason_of};

/// A document of every kind of parameter and body that there is.
const ORDERS: &str = include_str!("../../../openapi/tests/orders.openapi.yaml");

const KEY: &str = "Idempotency-Key: 1f0c2a52-0f0e-4d0a-9b3e-4d9f6f1f2a3b";
const SOUND: &str = r#"{"customer":"Ana","lines":[{"sku":"ABC-1234","quantity":2}]}"#;

/// A server whose route keeps to a document, and the origin behind it.
struct Guarded {
    site: Site,
    origin: Origin,
    folder: TempDir,
    config: String,
}

impl Guarded {
    fn start(document: &str, more: &str, listener: &str) -> Guarded {
        let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::ok());
        fs::write(folder.path().join("api.yaml"), document).unwrap();
        let file = folder.path().join("api.yaml");
        let route = format!("api = {{ document = \"{}\"{more} }}", file.display());
        let config = OneRoute { route: &route, listener, ..HTTP }.to(&[origin.address()]);
        Guarded { site: Site::start(&config), origin, folder, config }
    }

    fn orders() -> Guarded {
        Guarded::start(ORDERS, "", "")
    }

    fn document(&self) -> PathBuf {
        self.folder.path().join("api.yaml")
    }

    /// The answer to `request` on a connection of its own.
    #[track_caller]
    fn ask(&self, request: &str) -> HttpAnswer {
        let mut client = self.site.connect();
        client.send(request).unwrap();
        let method = request.split(' ').next().unwrap();
        client.answer(method).unwrap()
    }

    /// Asserts that the origin saw nothing: a request that follows is the first that it sees.
    #[track_caller]
    fn saw_nothing(&self, probe: &str) {
        self.ask(probe);
        let seen = self.origin.asked();
        assert_eq!(seen.line(), probe.lines().next().unwrap(), "it saw what was refused");
        assert!(self.origin.is_unasked());
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\nX-Tenant: acme\r\n\r\n")
}

fn post(body: &str) -> String {
    let head = format!("POST /v1/orders HTTP/1.1\r\nHost: shop.test\r\nX-Tenant: acme\r\n{KEY}\r\n");
    format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn problem(answer: &HttpAnswer) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
    serde_json::from_str(&answer.text()).unwrap()
}

#[test]
fn what_keeps_to_the_document_passes_unchanged() {
    let guarded = Guarded::orders();
    assert_eq!(guarded.ask(&get("/v1/orders?limit=20&status=open")).status, 200);
    assert_eq!(guarded.origin.asked().target(), "/v1/orders?limit=20&status=open");
    assert_eq!(guarded.ask(&post(SOUND)).status, 200);
    let seen = guarded.origin.asked();
    assert_eq!((seen.line(), &*seen.body), ("POST /v1/orders HTTP/1.1", SOUND.as_bytes()));
    assert_eq!(seen.header("content-length"), Some(SOUND.len().to_string().as_str()));
}

#[test]
fn a_refusal_names_each_rule_and_keeps_the_connection() {
    let guarded = Guarded::orders();
    let mut client = guarded.site.connect();
    for (request, status, violation) in [
        (
            get("/v1/nothing"),
            404,
            json!({ "in": "path", "rule": "paths", "detail": "the interface has no such path" }),
        ),
        (
            get("/v1/orders?limit=0"),
            400,
            json!({
                "in": "query", "name": "limit", "rule": "minimum", "detail": "must be at least 1",
                "schema": "#/paths/~1orders/get/parameters/0/schema/minimum",
            }),
        ),
        (
            post(r#"{"customer":"Ana","lines":[{"sku":"ABC-1234","quantity":0}]}"#),
            422,
            json!({
                "in": "body", "pointer": "/lines/0/quantity", "rule": "minimum",
                "detail": "must be at least 1",
                "schema": "#/components/schemas/Line/properties/quantity/minimum",
            }),
        ),
    ] {
        let answer = client.ask(&request);
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(problem(&answer)["violations"], json!([violation]));
    }
    assert_eq!(client.ask(&get("/v1/orders")).status, 200);
    assert_eq!(guarded.origin.asked().line(), "GET /v1/orders HTTP/1.1");
    assert!(guarded.origin.is_unasked());
    assert_eq!(guarded.site.reason("/v1/nothing"), "refused:api");
    assert_eq!(guarded.site.reason("/v1/orders?limit=0"), "refused:api");
    let series = |kind| {
        let labels = format!("listener=\"web\",route=\"service\",kind=\"{kind}\",mode=\"enforce\"");
        guarded.site.tieline.metric(&format!("tieline_api_violations_total{{{labels}}}"))
    };
    assert_eq!((series("path"), series("query"), series("body"), series("cookie")), (1.0, 1.0, 1.0, 0.0));
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let guarded = Guarded::orders();
    let answer = guarded.ask("DELETE /v1/orders HTTP/1.1\r\nHost: a\r\nX-Tenant: acme\r\n\r\n");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, POST")));
    let page = guarded.ask("DELETE /v1/orders HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n");
    assert!(page.text().starts_with("<!doctype html>"), "{}", page.text());
}

#[test]
fn what_is_checked_is_what_is_passed_on() {
    let guarded = Guarded::orders();
    // A field that stops here is not there for those behind.
    let answer =
        guarded.ask("GET /v1/orders HTTP/1.1\r\nHost: a\r\nX-Tenant: acme\r\nConnection: X-Tenant\r\n\r\n");
    assert_eq!((answer.status, &problem(&answer)["violations"][0]["rule"]), (400, &json!("required")));
    guarded.saw_nothing(&get("/v1/orders"));
}

#[test]
fn chunked_bodies_are_held_and_keep_their_trailers() {
    let guarded = Guarded::orders();
    let head = |name| {
        format!(
            "POST /v1/orders HTTP/1.1\r\nHost: a\r\nX-Tenant: acme\r\n{KEY}\r\n\
             TE: trailers\r\nConnection: TE\r\nX-Name: {name}\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        )
    };
    let chunks = |body: &str| {
        let chunks: String = body.as_bytes().chunks(7).fold(String::new(), |text, chunk| {
            format!("{text}{:x};x=y\r\n{}\r\n", chunk.len(), str::from_utf8(chunk).unwrap())
        });
        format!("{chunks}0\r\nX-Sum: 7\r\n\r\n")
    };
    let mut client = guarded.site.connect();
    // The next request is behind the first one's body, in the same packet.
    client.send(format!("{}{}{}", head("one"), chunks(SOUND), get("/v1/orders"))).unwrap();
    assert_eq!(client.answer("POST").unwrap().status, 200);
    assert_eq!(client.answer("GET").unwrap().status, 200);
    let seen = guarded.origin.asked();
    assert_eq!((seen.header("x-name"), &*seen.body), (Some("one"), SOUND.as_bytes()));
    assert_eq!(guarded.origin.asked().line(), "GET /v1/orders HTTP/1.1");
    assert_eq!(client.ask(&format!("{}{}", head("two"), chunks("{"))).status, 400);
    assert_eq!(client.ask(&get("/v1/orders")).status, 200);
    assert_eq!(guarded.origin.asked().line(), "GET /v1/orders HTTP/1.1");
    assert!(guarded.origin.is_unasked());
}

#[test]
fn who_waits_to_be_asked_for_the_body_is_asked_by_us() {
    let guarded = Guarded::orders();
    let mut client = guarded.site.connect();
    let request = post(SOUND).replace("Host:", "Expect: 100-continue\r\nHost:");
    let (head, body) = request.split_at(request.find("\r\n\r\n").unwrap() + 4);
    client.send(head).unwrap();
    assert_eq!(client.any_answer("POST").unwrap().status, 100);
    assert!(guarded.origin.is_unasked(), "it sees the request when the body is there");
    client.send(body).unwrap();
    assert_eq!(client.any_answer("POST").unwrap().status, 200);
    assert_eq!(guarded.origin.asked().body, SOUND.as_bytes());
    // Whoever is refused for the head is not asked for a body that nobody wants.
    let refused = head.replace("application/json", "text/plain");
    client.send(refused).unwrap();
    assert_eq!(client.any_answer("POST").unwrap().status, 415);
}

#[test]
fn bodies_are_held_as_far_as_the_config_says() {
    let guarded = Guarded::start(ORDERS, "", "limits = { validated_body = \"1KiB\" }");
    let sized = |length: usize| {
        let filling = " ".repeat(length - SOUND.len());
        format!("{filling}{SOUND}")
    };
    assert_eq!(guarded.ask(&post(&sized(1024))).status, 200);
    assert_eq!(guarded.ask(&post(&sized(1025))).status, 413);
    let head = post("").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let chunked = |length| format!("{head}{length:x}\r\n{}\r\n0\r\n\r\n", sized(length));
    assert_eq!(guarded.ask(&chunked(1024)).status, 200);
    assert_eq!(guarded.ask(&chunked(1025)).status, 413);
    assert_eq!(guarded.origin.asked().body.len(), 1024);
    assert_eq!(guarded.origin.asked().body.len(), 1024);
    assert!(guarded.origin.is_unasked());
}

#[test]
fn bodies_that_are_held_have_so_much_memory_and_no_more() {
    let limits = "limits = { validated_body = \"64KiB\", validated_bodies = \"100KiB\" }";
    let guarded = Guarded::start(ORDERS, "", limits);
    // Two that are not whole, and no room for a third.
    let begun = |length: usize| {
        let mut client = guarded.site.connect();
        let whole = post(&"x".repeat(60_000));
        let end = whole.len() - 60_000 + length;
        // It may be refused before all of it is sent.
        let _ = client.send(&whole[..end]);
        client
    };
    let first = begun(59_000);
    let second = begun(30_000);
    let held = || first_bytes(&guarded.site) >= 89_000;
    assert!(wait_until(PATIENCE, held));
    let mut third = begun(59_000);
    let refused = third.answer("POST").unwrap();
    assert_eq!((refused.status, refused.header("connection")), (503, Some("close")), "{}", refused.text());
    assert_eq!(guarded.site.reason("/v1/orders"), "exhausted");
    assert_eq!(guarded.ask(&post(SOUND)).status, 200, "a small one has room");
    // Who gives up gives back.
    drop(first);
    drop(second);
    assert!(wait_until(PATIENCE, || begun(60_000).answer("POST").unwrap().status == 400));
}

/// What all clients have sent so far.
fn first_bytes(site: &Site) -> u64 {
    let rows = crate::support::live(&site.tieline, "");
    rows.iter().filter_map(|row| row["bytes_up"].as_u64()).sum()
}

#[test]
fn a_body_that_stands_still_while_it_is_held_is_a_408() {
    let guarded = Guarded::start(ORDERS, "", "timeouts = { body_gap = \"200ms\" }");
    let mut client = guarded.site.connect();
    let request = post(SOUND);
    client.send(&request[..request.len() - 3]).unwrap();
    assert_eq!(client.answer("POST").unwrap().status, 408);
    assert_eq!(reason_of(&guarded.site.tieline, client.stream()), "timeout:body-gap");
    assert!(guarded.origin.is_unasked());
}

#[test]
fn a_document_may_only_watch() {
    let guarded = Guarded::start(ORDERS, ", mode = \"report\"", "limits = { validated_body = \"1KiB\" }");
    let mut client = guarded.site.connect();
    for request in [get("/v9/nothing"), get("/v1/orders?limit=0"), post("{}"), post("{")] {
        assert_eq!(client.ask(&request).status, 200, "{request}");
        assert_eq!(guarded.origin.asked().line(), request.lines().next().unwrap());
    }
    // Too large to be looked at, in either framing.
    let large = " ".repeat(100_000) + SOUND;
    assert_eq!(client.ask(&post(&large)).status, 200);
    assert_eq!(guarded.origin.asked().body, large.as_bytes());
    let head = post("").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    assert_eq!(client.ask(&format!("{head}{:x}\r\n{large}\r\n0\r\n\r\n", large.len())).status, 200);
    assert_eq!(guarded.origin.asked().body, large.as_bytes());
    let labels = |kind| format!("listener=\"web\",route=\"service\",kind=\"{kind}\",mode=\"report\"");
    let series =
        |kind| guarded.site.tieline.metric(&format!("tieline_api_violations_total{{{}}}", labels(kind)));
    assert_eq!((series("path"), series("query"), series("body")), (1.0, 1.0, 2.0));
    let story = guarded.site.tieline.cli(["show", &guarded.site.row_id(&client)]).expect("show");
    assert!(story.contains("passed, but query: minimum at #/paths/~1orders/get"), "{story}");
    assert!(story.contains("too large to be held against the interface"), "{story}");
}

#[test]
fn nobody_who_is_not_let_in_learns_of_the_interface() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), Origin::ok());
    let file = folder.path().join("api.yaml");
    fs::write(&file, ORDERS).unwrap();
    let route =
        format!("access = \"policy\"\nallow = {{ from = [\"10.9.8.7\"] }}\napi = \"{}\"", file.display());
    let site = Site::start(&OneRoute { route: &route, ..HTTP }.to(&[origin.address()]));
    let answer = site.connect().ask(&get("/v1/orders?limit=0"));
    assert_eq!(answer.status, 404);
    assert_eq!(problem(&answer).get("violations"), None);
    assert_eq!(site.reason("/v1/orders?limit=0"), "refused:policy");
}

#[test]
fn a_reload_reads_the_document_again_and_refuses_a_wrong_one() {
    let guarded = Guarded::orders();
    let mut client = guarded.site.connect();
    assert_eq!(client.ask(&get("/v1/orders?limit=50")).status, 200);
    fs::write(guarded.document(), ORDERS.replace("maximum: 100", "maximum: 49")).unwrap();
    guarded.site.tieline.reload(&guarded.config);
    assert_eq!(client.ask(&get("/v1/orders?limit=50")).status, 400, "an open connection obeys it too");
    fs::write(guarded.document(), ORDERS.replace("maximum: 100", "maximum: many")).unwrap();
    let refused = guarded.site.tieline.try_reload(&guarded.config);
    let line = format!("{}:17:48: `maximum` is not what a schema has", guarded.document().display());
    assert!(refused.code != Some(0) && refused.stderr.contains(&line), "{refused:?}");
    assert_eq!(client.ask(&get("/v1/orders?limit=49")).status, 200, "the old one stays");
    let checked =
        guarded.site.tieline.cli(["check", "-c", guarded.site.tieline.config_file().to_str().unwrap()]);
    assert!(checked.code != Some(0) && checked.stderr.contains(&line), "{checked:?}");
}

#[test]
fn curl_uploads_through_it_to_nginx() {
    let (folder, address) = (tempfile::tempdir().unwrap(), loopback(free_port()));
    let file = folder.path().join("api.yaml");
    fs::write(&file, ORDERS).unwrap();
    fs::create_dir(folder.path().join("v1")).unwrap();
    let root = folder.path().display();
    let takes = "location / { dav_methods PUT; create_full_put_path on; client_max_body_size 0; }";
    let server = format!("listen {address}; root {root}; {takes}");
    let _nginx = Nginx::http(&format!("server {{ {server} }}"), address);
    let route = format!("api = \"{}\"", file.display());
    let site = Site::start(&OneRoute { route: &route, ..HTTP }.to(&[address]));
    let upload = folder.path().join("upload.pdf");
    let noise: Vec<u8> = (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&upload, &noise).unwrap();
    let curl = |arguments: &[&str], target: &str| {
        let url = format!("http://{}{target}", site.address);
        finish(
            Command::new(program("curl"))
                .args(["-sS", "-o", "-", "-w", "%{http_code}"])
                .args(arguments)
                .arg(url),
        )
        .expect("curl")
    };
    let upload = upload.to_str().unwrap();
    let pdf = ["-H", "Content-Type: application/pdf", "-T", upload];
    // What is not looked into is not held: three times the most that is.
    assert_eq!(curl(&pdf, "/v1/orders/7/attachments/scan.pdf"), "201");
    assert_eq!(fs::read(folder.path().join("v1/orders/7/attachments/scan.pdf")).unwrap(), noise);
    assert!(curl(&pdf, "/v1/orders/7/attachments/scan.exe").ends_with("400"));
    assert!(!folder.path().join("v1/orders/7/attachments/scan.exe").exists());
}

/// A small generator of pseudo-random numbers: the same ones in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

/// Breaks one rule of the document in a request that keeps to all of them.
fn broken(random: &mut Random) -> String {
    let tag = random.below(1 << 30);
    let body = |json: Value| post(&json.to_string());
    let mut order: Value = serde_json::from_str(SOUND).unwrap();
    match random.below(16) {
        0 => {
            get(&format!("/v1/orders?limit={}", random.of(&["0", "101", "-1", "x", "1.5", "", "1e9", "0x1"])))
        }
        1 => get(&format!("/v1/orders?status={}", random.of(&["Open", "", "open,paid", "%20open", "null"]))),
        2 => get(&format!("/v1/orders?unknown{tag}=1")),
        3 => get(&format!(
            "/v1/orders?created[from]={}",
            random.of(&["yesterday", "2026-13-01", "", "20260101"])
        )),
        4 => get(&format!(
            "/v1/{}{tag}",
            random.of(&["Orders", "order/", "orders//", "orders/7/x", ".orders"])
        )),
        5 => get("/v1/orders")
            .replace("X-Tenant: acme", random.of(&["X-Tenant: ACME", "X-Other: acme", "X-Tenant:"])),
        6 => {
            let method = random.of(&["PUT", "PATCH", "DELETE", "PURGE", "OPTIONS"]);
            get("/v1/orders").replacen("GET", method, 1)
        }
        7 => {
            order["lines"][0]["quantity"] =
                random.of(&[json!(0), json!(1001), json!("2"), json!(1.5), json!(null)]);
            body(order)
        }
        8 => {
            order["lines"][0]["sku"] =
                random.of(&[json!("abc-1234"), json!("ABC-12345"), json!(7), json!([])]);
            body(order)
        }
        9 => {
            order[format!("extra{tag}")] = json!(1);
            body(order)
        }
        10 => {
            order.as_object_mut().unwrap().remove(random.of(&["customer", "lines"]));
            body(order)
        }
        11 => {
            let cut = random.below(SOUND.len() - 1) + 1;
            post(&SOUND[..cut])
        }
        12 => {
            order["payment"] = random.of(&[
                json!({}),
                json!({ "card": "1" }),
                json!({ "card": "123456789012", "account": "a" }),
            ]);
            body(order)
        }
        13 => post(SOUND)
            .replace("application/json", random.of(&["text/plain", "application/xml", "json", "*/*"])),
        14 => post(SOUND).replace(KEY, random.of(&["Idempotency-Key: 7", "X: y", "Idempotency-Key:"])),
        _ => post(&SOUND.replace(
            "\"quantity\":2",
            random.of(&["\"quantity\":2,\"quantity\":3", "\"quantity\":02", "\"quantity\":2,"]),
        )),
    }
}

#[test]
fn three_hundred_broken_requests_never_reach_the_origin() {
    let guarded = Guarded::orders();
    let mut random = Random(0x7161_1e11);
    let mut client = guarded.site.connect();
    let (mut statuses, mut seen) = (std::collections::BTreeMap::new(), std::collections::BTreeSet::new());
    for _ in 0..300 {
        let request = broken(&mut random);
        seen.insert(request.clone());
        client.send(&request).unwrap();
        let answer = client.answer(request.split(' ').next().unwrap()).unwrap();
        assert!((400..=422).contains(&answer.status), "{} for {request}", answer.status);
        if answer.header("connection") == Some("close") {
            client = guarded.site.connect();
        }
        *statuses.entry(answer.status).or_insert(0) += 1;
        assert!(guarded.origin.is_unasked(), "it saw {request}");
    }
    assert!(seen.len() >= 100, "{} different ones", seen.len());
    let kinds: Vec<u16> = statuses.keys().copied().collect();
    assert_eq!(kinds, [400, 404, 405, 415, 422], "{statuses:?}");
    guarded.saw_nothing(&get("/v1/orders"));
}
