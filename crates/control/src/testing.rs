//! A plane over made-up rows, for the tests of this crate.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tieline_base::{ClientAddr, Clock, Generation, Reason, Secret, Stage, WorkerId};
use tieline_config::{Config, Live};
use tieline_conn::{
    Connection, Limits, Listener, Outcome, Protocol, Route, Server, Serving, Snapshot, Timeouts,
};
use tieline_policy::{AdminPermit, AdminSubject, Networks};
use tieline_pool::{EndpointSettings, Settings, Upstream};
use tieline_registry::{Asked, Chosen, Exchanged, Limits as History, Opening, Record, Registry, RouteRow};
use tieline_transport::Io;

use crate::access_log::{AccessLog, AccessLogTarget};
use crate::events::Events;
use crate::plane::{Parts, Plane, Reloaded};

/// The admin token of [`plane`].
pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A registry of one worker.
pub(crate) fn registry() -> Registry {
    registry_told(|_| {})
}

fn registry_told(finished: impl Fn(&Arc<Record>) + Send + Sync + 'static) -> Registry {
    Registry::new(1, History { age: Duration::from_secs(600), rows: 10_000 }, Box::new(finished))
}

/// A new row at the listener `name`.
pub(crate) fn row(registry: &Registry, name: &str, client: &str) -> Arc<Record> {
    registry.enter(Opening {
        client: ClientAddr::from_socket(client.parse().unwrap()),
        listener: registry.listener(name, "tcp"),
        worker: WorkerId(0),
        generation: Generation(1),
        parent: None,
    })
}

/// A new row inside the connection `parent`.
pub(crate) fn stream(registry: &Registry, parent: &Arc<Record>) -> Arc<Record> {
    registry.enter(Opening {
        client: parent.peer(),
        listener: parent.listener().clone(),
        worker: WorkerId(0),
        generation: Generation(1),
        parent: Some(parent.clone()),
    })
}

/// Leads a row to `endpoint` of the upstream `name`, by the route of the same name.
pub(crate) fn route(registry: &Registry, record: &Record, name: &str, endpoint: &str) {
    let upstream = registry.upstream(name);
    let (rule, grace) = ("access = \"public\"".into(), Duration::from_secs(5));
    record.enter(Stage::Route, Clock::now());
    record.set_route(&Arc::new(RouteRow {
        name: name.into(),
        identity: name.into(),
        rule,
        grace,
        upstream: Some(upstream),
    }));
    record.set_chosen(Chosen { endpoint: endpoint.into(), why: Box::new("the only one") });
}

/// A finished exchange of `record`, with a note.
pub(crate) fn exchange(record: &Record) -> Exchanged {
    Exchanged {
        connection: record.id(),
        stream: None,
        number: 0,
        client: ClientAddr::from_socket(([192, 0, 2, 7], 0).into()),
        began: record.opened(),
        ended: Clock::now(),
        acquired_after: Some(Duration::from_millis(1)),
        answered_after: Some(Duration::from_millis(2)),
        route: record.route(),
        endpoint: record.endpoint(),
        asked: Asked::new("GET", "shop.example", "/cart?a=1"),
        tag: 0x2a,
        called: None,
        status: Some(200),
        bytes_up: 17,
        bytes_down: 4_711,
        reason: Reason::Answered,
        detail: None,
        notes: vec!["asked once more".into()],
    }
}

/// Waits until `holds` does.
pub(crate) fn eventually(holds: impl Fn() -> bool) {
    let deadline = Clock::now().after(Duration::from_secs(30));
    while !holds() {
        assert!(Clock::now() < deadline, "it never came to hold");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A permit, as the server's own user has it.
pub(crate) fn permit() -> AdminPermit {
    AdminPermit::decide(AdminSubject::Bearer { proved: true }).unwrap()
}

/// A plane over a server with the listener `web`, and the upstream `shop` of two endpoints.
pub(crate) struct Scene {
    pub(crate) plane: Plane,
    pub(crate) server: Arc<Server>,
    pub(crate) stops: Arc<AtomicUsize>,
    /// What the next reloads do.
    pub(crate) reload: Arc<OnceLock<Result<Reloaded, Vec<String>>>>,
}

const CONFIG: &str = r#"
[listener.web]
bind = "127.0.0.1:0"
protocol = "tcp"

[[listener.web.route]]
name = "shop"
upstream = "shop"
access = "public"

[upstream.shop]
endpoints = ["10.0.0.9:80", "10.0.0.10:80"]
"#;

struct Silent;

impl Protocol for Silent {
    fn serve(&self, connection: Connection, _: Io) -> Serving {
        drop(connection);
        Box::pin(async { Outcome::Ok(Reason::ClientClosed) })
    }

    fn route_of(&self, _: &Record) -> Option<Arc<Route>> {
        None
    }
}

impl Scene {
    pub(crate) fn new() -> Self {
        let events = Events::default();
        let told = events.clone();
        let registry = Arc::new(registry_told(move |record| told.ended(record)));
        let server = Arc::new(Server::start(registry.clone(), Arc::new(snapshot(&registry))).unwrap());
        let (stops, reload) = (Arc::new(AtomicUsize::new(0)), Arc::new(OnceLock::new()));
        let (stopped, reloads) = (stops.clone(), reload.clone());
        let live: Arc<Live> = Arc::new(Config::parse("tieline.toml", CONFIG).unwrap().config.live);
        let plane = Plane::new(Parts {
            server: server.clone(),
            version: "1.2.3",
            data: PathBuf::from("data"),
            agents: tieline_tunnel::Agents::new(std::path::Path::new("data")),
            config_file: PathBuf::from("tieline.toml"),
            config: Box::new(move || live.clone()),
            token: Secret::new(TOKEN.into()),
            events,
            access_log: AccessLog::open(AccessLogTarget::Off).unwrap(),
            reload: Box::new(move || {
                let done: Option<&Result<Reloaded, Vec<String>>> = reloads.get();
                let done = done.cloned().unwrap_or_else(|| Ok(reloaded()));
                Box::pin(async move { done })
            }),
            stop: Box::new(move || {
                stopped.fetch_add(1, Relaxed);
            }),
        });
        Self { plane, server, stops, reload }
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.server.registry()
    }
}

/// A reload that found something new.
pub(crate) fn reloaded() -> Reloaded {
    Reloaded {
        generation: 2,
        changed: true,
        warnings: Vec::new(),
        restart_needed: Vec::new(),
        seen: 3,
        revoked: 1,
        leaving: 1,
    }
}

fn snapshot(registry: &Registry) -> Snapshot {
    let endpoint = |text: &str| EndpointSettings::new(text.parse().unwrap());
    let endpoints = vec![endpoint("10.0.0.9:80"), endpoint("10.0.0.10:80")];
    let shop = Upstream::new(Settings::new("shop", endpoints), Arc::new(|_| {}));
    let web = Listener {
        row: registry.listener("web", "tcp"),
        doors: Vec::new(),
        admission: Arc::default(),
        limits: Limits { connections: Some(10), per_ip: None, accept_rate: None },
        proxy: false,
        trusted: Networks::default(),
        tls: None,
        quic: None,
        timeouts: Timeouts {
            handshake: Duration::from_secs(10),
            idle: Some(Duration::from_secs(60)),
            max_age: None,
            drain: Duration::from_secs(30),
        },
        protocol: Arc::new(Silent),
    };
    Snapshot {
        generation: Generation(1),
        listeners: BTreeMap::from([("web".into(), Arc::new(web))]),
        upstreams: BTreeMap::from([("shop".into(), shop)]),
    }
}
