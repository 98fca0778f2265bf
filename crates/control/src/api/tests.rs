//! The API as a client meets it, over made-up rows and without sockets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tieline_base::{Clock, Reason};
use tieline_registry::{Heard, Record, Registry};
use utoipa::openapi::path::HttpMethod;

use super::caller::Caller;
use super::routes::table;
use crate::testing::{self, Scene, TOKEN};

/// An answer: its status, its content type and its body.
type Answer = (StatusCode, String, String);

struct Asking<'s> {
    scene: &'s Scene,
    caller: Caller,
    fields: Vec<(header::HeaderName, String)>,
}

/// Asks as an operator with the token.
fn operator(scene: &Scene) -> Asking<'_> {
    let token = (header::AUTHORIZATION, format!("Bearer {TOKEN}"));
    Asking { scene, caller: Caller::Network, fields: vec![(header::HOST, "127.0.0.1:7070".into()), token] }
}

impl Asking<'_> {
    fn request(&self, method: &str, path: &str, body: &str) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(path).extension(self.caller);
        for (name, value) in &self.fields {
            request = request.header(name, value);
        }
        request.body(Body::from(body.to_owned())).unwrap()
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let router = TowerToHyperService::new(super::router(self.scene.plane.clone()));
        let response = router.call(self.request(method, path, body)).await.unwrap();
        let status = response.status();
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        if content_type == "text/event-stream" {
            return (status, content_type, String::new());
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, content_type, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, _, body) = self.ask("GET", path, "").await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let (status, _, body) = self.ask("POST", path, &body.to_string()).await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

/// Ends rows as their worker would: when their order says so, and no sooner.
fn obey(registry: &Registry, rows: &[Arc<Record>]) {
    for row in rows {
        let order = row.poll_verdict(&mut Heard::default(), &mut Context::from_waker(Waker::noop()));
        if let Some(order) = order.filter(|order| order.at <= Clock::now() && row.ended().is_none()) {
            registry.leave(row, order.reason, None, ());
        }
    }
}

fn method_word(method: &HttpMethod) -> &'static str {
    if *method == HttpMethod::Get { "GET" } else { "POST" }
}

/// A path of the table, with something in place of its parameters.
fn filled(path: &str) -> String {
    path.replace("{id}", "1").replace("{name}", "shop").replace("{address}", "10.0.0.9%3A80")
}

#[tokio::test]
async fn no_route_but_healthz_answers_without_the_token() {
    let scene = Scene::new();
    let wrong: Vec<Vec<String>> = [
        vec![],
        vec!["Bearer".into()],
        vec!["Bearer ".into()],
        vec![format!("Bearer {TOKEN}x")],
        vec![format!("Bearer {}", &TOKEN[1..])],
        vec![format!("Basic {TOKEN}")],
        vec![TOKEN.into()],
        vec![format!("Bearer {TOKEN}"), format!("Bearer {TOKEN}")],
    ]
    .into();
    for entry in table() {
        for tokens in &wrong {
            let mut asking = operator(&scene);
            asking.fields.truncate(1);
            asking.fields.extend(tokens.iter().map(|token| (header::AUTHORIZATION, token.clone())));
            let (status, kind, body) = asking.ask(method_word(&entry.method), &filled(entry.path), "{").await;
            if entry.path == "/healthz" {
                assert!(entry.open && status == StatusCode::OK);
                continue;
            }
            assert!(!entry.open, "{}", entry.path);
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{} with {tokens:?}", entry.path);
            assert_eq!(kind, "application/problem+json");
            assert!(!body.contains(TOKEN));
        }
    }
    assert_eq!(scene.stops.load(Relaxed), 0, "a stop was obeyed that nobody was allowed to order");
}

#[tokio::test]
async fn every_route_answers_an_operator_by_either_door() {
    let scene = Scene::new();
    let ours = rustix::process::geteuid().as_raw();
    let row = testing::row(scene.registry(), "web", "10.0.0.1:1");
    assert_eq!(row.id().0, 1);
    for caller in [Caller::Network, Caller::Peer { uid: ours }, Caller::Peer { uid: 0 }] {
        for entry in table() {
            let mut asking = operator(&scene);
            asking.caller = caller;
            if caller != Caller::Network {
                asking.fields.clear();
            }
            let (status, _, body) = asking.ask(method_word(&entry.method), &filled(entry.path), "").await;
            // An empty filter is refused, and there is no listener "shop" and no such request: told as
            // such, so the permit was given.
            let expected: &[u16] = match entry.path {
                "/api/v1/connections/kill" | "/api/v1/connections/drain" => &[400],
                "/api/v1/listeners/{name}/drain" | "/api/v1/listeners/{name}/enable" => &[404],
                "/api/v1/approvals/{id}/approve" | "/api/v1/approvals/{id}/deny" => &[404],
                "/api/v1/stop" => &[202],
                "/readyz" => &[503],
                _ => &[200],
            };
            assert!(expected.contains(&status.as_u16()), "{} {status} {body}", entry.path);
        }
    }
    assert_eq!(scene.stops.load(Relaxed), 3);
}

#[tokio::test]
async fn another_user_at_the_socket_is_refused_even_with_the_token() {
    let scene = Scene::new();
    let mut asking = operator(&scene);
    asking.caller = Caller::Peer { uid: rustix::process::geteuid().as_raw() + 1 };
    assert_eq!(asking.ask("GET", "/api/v1/status", "").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_stranger_s_host_name_is_misdirected_but_health_is_for_everybody() {
    let scene = Scene::new();
    let mut asking = operator(&scene);
    asking.fields[0].1 = "evil.example:7070".into();
    assert_eq!(asking.ask("GET", "/api/v1/status", "").await.0, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(
        asking.ask("GET", "/healthz", "").await,
        (StatusCode::OK, "text/plain; charset=utf-8".into(), "ok\n".into())
    );
    asking.fields.remove(0);
    assert_eq!(asking.ask("GET", "/api/v1/status", "").await.0, StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn the_router_and_the_document_have_the_same_routes() {
    let document: Value = serde_json::from_str(&super::openapi()).unwrap();
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            documented.insert((method.to_uppercase(), path.clone()));
        }
    }
    let routed =
        table().into_iter().map(|entry| (method_word(&entry.method).to_owned(), entry.path.to_owned()));
    assert_eq!(documented, routed.collect());
    // The table is what the router is made of; a path that it lacks is unknown, and a wrong method is told.
    let scene = Scene::new();
    let asking = operator(&scene);
    let (status, kind, _) = asking.ask("GET", "/api/v1/nothing", "").await;
    assert_eq!((status, kind.as_str()), (StatusCode::NOT_FOUND, "application/problem+json"));
    let (status, kind, _) = asking.ask("DELETE", "/api/v1/connections", "").await;
    assert_eq!((status, kind.as_str()), (StatusCode::METHOD_NOT_ALLOWED, "application/problem+json"));
}

#[test]
fn the_document_in_docs_is_the_one_that_is_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == super::openapi(), "docs/openapi.json is not what `tieline_control::openapi()` gives");
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere_and_operations_differ() {
    let text = super::openapi();
    let document: Value = serde_json::from_str(&text).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in text.split("\"$ref\": \"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
    let ids: Vec<&str> =
        text.split("\"operationId\": \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), table().len(), "{ids:?}");
    assert_eq!(document["paths"]["/healthz"]["get"]["security"], json!([]));
}

/// The property names that the document gives `schema`, what it is composed of included.
fn documented(document: &Value, schema: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut open = vec![document["components"]["schemas"][schema].clone()];
    while let Some(part) = open.pop() {
        names.extend(part["properties"].as_object().into_iter().flatten().map(|(name, _)| name.clone()));
        open.extend(part["allOf"].as_array().into_iter().flatten().cloned());
        if let Some(reference) = part["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap();
            open.push(document["components"]["schemas"][name].clone());
        }
    }
    names
}

fn sent(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn rows_and_stories_are_as_documented() {
    let scene = Scene::new();
    let carrier = testing::row(scene.registry(), "web", "10.0.0.1:1");
    let proxied = Some(tieline_base::ClientAddr::Unix);
    carrier.set_settled(tieline_registry::Settled { proxied, ..Default::default() });
    carrier.set_carrier("tls");
    let row = testing::stream(scene.registry(), &carrier);
    testing::route(scene.registry(), &row, "shop", "10.0.0.9:80");
    row.note("something");
    scene.registry().exchanged(&row, testing::exchange(&row));
    scene.registry().leave(&row, Reason::Idle, Some("why".into()), ());
    let document: Value = serde_json::from_str(&super::openapi()).unwrap();
    let asking = operator(&scene);
    let page = asking.get("/api/v1/connections?finished=true").await;
    assert_eq!(sent(&page), documented(&document, "ConnectionsPage"));
    assert_eq!(sent(&page["connections"][0]), documented(&document, "Row"));
    let story = asking.get("/api/v1/connections/2").await;
    assert_eq!((&story["parent"], &story["exchanges"][0]["stream"]), (&1.into(), &2.into()));
    assert_eq!(sent(&story), documented(&document, "Story"));
    let note = story["road"].as_array().unwrap().iter().find(|mark| mark["stage"] == "note").unwrap();
    assert_eq!(sent(note), documented(&document, "StageMark"));
    assert_eq!(sent(&story["exchanges"][0]), documented(&document, "Exchange"));
    assert_eq!(asking.ask("GET", "/api/v1/connections/99", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(asking.ask("GET", "/api/v1/connections/x", "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_kill_ends_what_matches_and_tells_when_it_has() {
    let scene = Scene::new();
    let mine: Vec<_> = (0..50).map(|_| testing::row(scene.registry(), "web", "10.0.0.1:1")).collect();
    let others: Vec<_> = (0..5).map(|_| testing::row(scene.registry(), "web", "10.0.0.2:1")).collect();
    let asking = operator(&scene);
    let order = json!({ "filter": "remote=10.0.0.1", "reason": "spring cleaning" });
    let killing = asking.post("/api/v1/connections/kill", order);
    let mut killing = std::pin::pin!(killing);
    let (status, answer) = loop {
        tokio::select! {
            answer = &mut killing => break answer,
            () = tokio::task::yield_now() => obey(scene.registry(), &mine),
        }
    };
    // All of them do in the end; how many within the two seconds of an answer is the machine's affair.
    assert_eq!((status, &answer["matched"]), (StatusCode::OK, &json!(50)));
    obey(scene.registry(), &mine);
    assert!(mine.iter().all(|row| row.ended().is_some_and(|ended| ended.reason == Reason::Killed)));
    obey(scene.registry(), &others);
    assert!(others.iter().all(|row| row.ended().is_none()));
    let story = asking.get(&format!("/api/v1/connections/{}", mine[0].id())).await;
    assert!(story.to_string().contains("killed by an operator: spring cleaning"), "{story}");
}

#[tokio::test]
async fn a_kill_that_is_not_obeyed_answers_all_the_same() {
    let scene = Scene::new();
    let _deaf = testing::row(scene.registry(), "web", "10.0.0.1:1");
    let answer = operator(&scene).post("/api/v1/connections/kill", json!({ "filter": "listener=web" })).await;
    assert_eq!(answer, (StatusCode::OK, json!({ "matched": 1, "ended": 0 })));
}

#[tokio::test]
async fn nobody_kills_everything_by_a_slip() {
    let scene = Scene::new();
    let row = testing::row(scene.registry(), "web", "10.0.0.1:1");
    let asking = operator(&scene);
    for path in ["/api/v1/connections/kill", "/api/v1/connections/drain"] {
        for body in [
            json!({}),
            json!({ "filter": "" }),
            json!({ "filter": "  ", "all": false }),
            json!({ "fliter": "listener=web" }),
            json!({ "filter": "listner=web" }),
            json!({ "filter": ["listener=web"] }),
            json!({ "filter": "listener=web", "reason": "x".repeat(201) }),
        ] {
            assert_eq!(asking.post(path, body.clone()).await.0, StatusCode::BAD_REQUEST, "{path} {body}");
        }
        let (status, _, _) = asking.ask("POST", path, &"x".repeat(70_000)).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    }
    assert_eq!(row.poll_verdict(&mut Heard::default(), &mut Context::from_waker(Waker::noop())), None);
    let (status, answer) = asking.post("/api/v1/connections/drain", json!({ "all": true })).await;
    assert_eq!((status, answer), (StatusCode::OK, json!({ "matched": 1, "ended": 0 })));
}

#[tokio::test]
async fn a_drain_gives_the_listener_s_time() {
    let scene = Scene::new();
    let row = testing::row(scene.registry(), "web", "10.0.0.1:1");
    let before = Clock::now();
    operator(&scene).post("/api/v1/connections/drain", json!({ "filter": "listener=web" })).await;
    let order = row.poll_verdict(&mut Heard::default(), &mut Context::from_waker(Waker::noop())).unwrap();
    assert_eq!(order.reason, Reason::Drained);
    let given = order.at.since(before);
    assert!(given > Duration::from_secs(29) && given < Duration::from_secs(40), "{given:?}");
}

#[tokio::test]
async fn a_drained_listener_lets_nobody_in_until_it_is_enabled() {
    let scene = Scene::new();
    let row = testing::row(scene.registry(), "web", "10.0.0.1:1");
    let asking = operator(&scene);
    let (status, acted) = asking.post("/api/v1/listeners/web/drain", json!({ "reason": "upgrade" })).await;
    assert_eq!((status, acted), (StatusCode::OK, json!({ "matched": 1, "ended": 0 })));
    let admission = scene.server.snapshot().listeners["web"].admission.clone();
    assert!(admission.is_closed());
    assert!(row.poll_verdict(&mut Heard::default(), &mut Context::from_waker(Waker::noop())).is_some());
    assert_eq!(asking.get("/api/v1/listeners").await[0]["accepting"], false);
    let (status, listener) = asking.post("/api/v1/listeners/web/enable", json!({})).await;
    assert_eq!((status, &listener["name"]), (StatusCode::OK, &json!("web")));
    assert!(!admission.is_closed());
    let (status, problem) = asking.post("/api/v1/listeners/wbe/drain", json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(problem["detail"], "there is no listener \"wbe\"; there are: web");
}

#[tokio::test]
async fn a_drained_endpoint_is_out_of_use_and_its_connections_leave() {
    let scene = Scene::new();
    let [nine, ten] = ["10.0.0.9:80", "10.0.0.10:80"].map(|endpoint| {
        let row = testing::row(scene.registry(), "web", "10.0.0.1:1");
        testing::route(scene.registry(), &row, "shop", endpoint);
        row
    });
    let asking = operator(&scene);
    let path = "/api/v1/upstreams/shop/endpoints/10.0.0.9%3A80";
    let (status, acted) = asking.post(&format!("{path}/drain"), json!({})).await;
    assert_eq!((status, acted), (StatusCode::OK, json!({ "matched": 1, "ended": 0 })));
    let ordered = |row: &Record| {
        row.poll_verdict(&mut Heard::default(), &mut Context::from_waker(Waker::noop())).is_some()
    };
    assert!(ordered(&nine) && !ordered(&ten));
    let states = |upstream: &Value| -> Vec<Value> {
        upstream["endpoints"].as_array().unwrap().iter().map(|endpoint| endpoint["state"].clone()).collect()
    };
    assert_eq!(states(&asking.get("/api/v1/upstreams").await[0]), ["draining", "healthy"]);
    let (status, upstream) = asking.post(&format!("{path}/enable"), json!({})).await;
    assert_eq!((status, states(&upstream)), (StatusCode::OK, vec![json!("healthy"), json!("healthy")]));
    for wrong in
        ["/api/v1/upstreams/shpo/endpoints/10.0.0.9%3A80/drain", "/api/v1/upstreams/shop/endpoints/x/drain"]
    {
        assert_eq!(asking.post(wrong, json!({})).await.0, StatusCode::NOT_FOUND, "{wrong}");
    }
}

#[tokio::test]
async fn a_reload_tells_what_it_did_or_every_reason_why_not() {
    let scene = Scene::new();
    let (status, report) = operator(&scene).post("/api/v1/reload", json!({})).await;
    assert_eq!((status, &report["generation"], &report["revoked"]), (StatusCode::OK, &json!(2), &json!(1)));
    let errors = vec!["tieline.toml:1:1: one".to_owned(), "tieline.toml:2:1: two".to_owned()];
    scene.reload.set(Err(errors.clone())).unwrap();
    let (status, problem) = operator(&scene).post("/api/v1/reload", json!({})).await;
    assert_eq!((status, &problem["errors"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!(errors)));
    let reloads = operator(&scene).get("/api/v1/status").await["reloads"].clone();
    assert_eq!(reloads, json!({ "succeeded": 1, "failed": 1 }));
}

#[tokio::test]
async fn the_lists_tell_how_things_stand() {
    let scene = Scene::new();
    let row = testing::row(scene.registry(), "web", "10.0.0.1:1");
    testing::route(scene.registry(), &row, "shop", "10.0.0.9:80");
    row.enter(tieline_base::Stage::Acquire, tieline_base::Clock::now());
    let asking = operator(&scene);
    let listener = &asking.get("/api/v1/listeners").await[0];
    assert_eq!((&listener["live"], &listener["limits"]["connections"]), (&json!(1), &json!(10)));
    assert_eq!(
        (&listener["routes"], &listener["timeouts"]["drain_seconds"]),
        (&json!(["shop"]), &json!(30.0))
    );
    let route = &asking.get("/api/v1/routes").await[0];
    assert_eq!((&route["live"], &route["access"], &route["line"]), (&json!(1), &json!("public"), &json!(6)));
    let pool = &asking.get("/api/v1/pools").await[0];
    assert!(pool["oldest_wait_seconds"].as_f64().unwrap() >= 0.0);
    let status = asking.get("/api/v1/status").await;
    assert_eq!((&status["live"], &status["live_by_generation"]), (&json!(1), &json!({ "1": 1 })));
    assert_eq!((&status["phase"], &status["version"]), (&json!("starting"), &json!("1.2.3")));
}

#[tokio::test]
async fn readiness_follows_the_phase() {
    let scene = Scene::new();
    let asking = operator(&scene);
    assert_eq!(asking.ask("GET", "/readyz", "").await.0, StatusCode::SERVICE_UNAVAILABLE);
    scene.server.deliver(scene.server.snapshot()).await;
    assert_eq!(asking.ask("GET", "/readyz", "").await.0, StatusCode::OK);
    scene.server.stop(std::future::pending()).await;
    let (status, _, body) = asking.ask("GET", "/readyz", "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("the server is stopped"), "{body}");
}

/// Events as they are read, one by one.
struct Followed(Body, String);

impl Followed {
    async fn begin(scene: &Scene) -> Followed {
        let router = TowerToHyperService::new(super::router(scene.plane.clone()));
        let response = router.call(operator(scene).request("GET", "/api/v1/events", "")).await.unwrap();
        Followed(response.into_body(), String::new())
    }

    /// The next event and its content; none at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        while !self.1.contains("\n\n") {
            let frame = self.0.frame().await?.unwrap();
            self.1 += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        }
        let (event, rest) = self.1.split_once("\n\n").unwrap();
        let (name, content) = event.split_once('\n').unwrap();
        let name = name.strip_prefix("event: ").unwrap().to_owned();
        let content = serde_json::from_str(content.strip_prefix("data: ").unwrap()).unwrap();
        self.1 = rest.to_owned();
        Some((name, content))
    }
}

#[tokio::test]
async fn events_tell_what_happens_and_end_with_the_server() {
    let scene = Scene::new();
    let mut events = Followed::begin(&scene).await;
    assert_eq!(events.next().await, Some(("phase".into(), json!({ "phase": "starting" }))));
    let row = testing::row(scene.registry(), "web", "10.0.0.1:1");
    scene.registry().leave(&row, Reason::Idle, None, ());
    let (name, ended) = events.next().await.unwrap();
    assert_eq!(
        (name.as_str(), &ended["id"], &ended["reason"]),
        ("ended", &json!(row.id().0), &json!("idle"))
    );
    operator(&scene).post("/api/v1/reload", json!({})).await;
    assert_eq!(events.next().await.unwrap().0, "reload");
    scene.server.stop(std::future::pending()).await;
    let mut last = events.next().await;
    while let Some(next) = events.next().await {
        last = Some(next);
    }
    assert_eq!(last, Some(("phase".into(), json!({ "phase": "stopped" }))));
}

#[tokio::test]
async fn a_slow_reader_of_events_loses_some_and_is_told_how_many() {
    let scene = Scene::new();
    let mut events = Followed::begin(&scene).await;
    assert_eq!(events.next().await.unwrap().0, "phase");
    let more = 100;
    for _ in 0..crate::events::EVENTS_MAX + more {
        let row = testing::row(scene.registry(), "web", "10.0.0.1:1");
        scene.registry().leave(&row, Reason::Idle, None, ());
    }
    assert_eq!(events.next().await, Some(("lost".into(), json!({ "events": more }))));
    assert_eq!(events.next().await.unwrap().1["id"], more as u64 + 1);
}
