//! Right files, what they come to, and that no damage done to them makes the reader fall over.

#![allow(clippy::unwrap_used)] // a test that cannot read its files has failed

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tieline_base::{Bytes, Percent, Priority, Verifier};
use tieline_config::{
    Access, AccessLog, Action, Allow, Auth, Balance, Carrier, Checked, Condition, Config, Due, Edits,
    Expected, FILE_BYTES_MAX, FarTimeouts, HashBy, HealthCheck, HttpMatch, ListenerTls, Part, Password,
    PathPart, PathRewrite, Patience, PoolMode, PoolReset, Problem, Protocol, Redirect, ReplicaReads, Respond,
    RetryOn, Rewrite, Role, Route, Segment, Severity, Sni, TlsIdentity, UpstreamTls, Verify, Workers,
    restart_needed,
};

const LEAST: &str = include_str!("right/least.toml");
const EMPTY: &str = include_str!("right/empty.toml");
const DATABASE: &str = include_str!("right/database.toml");
const POSTGRES: &str = include_str!("right/postgres.toml");
const AGENT: &str = include_str!("right/agent.toml");
const TUNNEL: &str = include_str!("right/tunnel.toml");
const EVERY_KEY: &str = include_str!("right/every_key.toml");

fn config(text: &str) -> Config {
    let Checked { config, warnings } = Config::parse("tests/tieline.toml", text).unwrap();
    assert_eq!(warnings, []);
    config
}

#[test]
fn right_files_are_read_without_a_word() {
    for text in [LEAST, EMPTY, DATABASE, POSTGRES, AGENT, TUNNEL, EVERY_KEY] {
        config(text);
    }
}

#[test]
fn an_agents_file_says_whom_it_dials_and_what_it_offers() {
    let agent = config(AGENT).live.agent.unwrap();
    let servers: Vec<String> = agent.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["gate.example.com:7443", "[2001:db8::1]:443"]);
    assert_eq!(agent.folder, Path::new("tests/me"));
    assert_eq!(agent.carriers, [Carrier::Tls, Carrier::Quic]);
    let proxy = agent.proxy.unwrap();
    assert_eq!(
        (proxy.address.to_string(), proxy.user.as_deref()),
        ("proxy.plant-7.internal:80".into(), Some("plant-7"))
    );
    assert_eq!(proxy.password_file, None);
    let offers: Vec<_> = agent.offers.iter().map(|it| (it.name.as_str(), it.to.to_string())).collect();
    let expected =
        [("ssh", "127.0.0.1:22"), ("db", "db.plant-7.internal:5432"), ("dns", "udp:10.20.0.53:53")];
    assert_eq!(offers, expected.map(|(name, to)| (name, to.to_owned())));
    assert_eq!(config(EVERY_KEY).live.agent, None);
}

#[test]
fn endpoints_behind_agents_stand_beside_others() {
    let config = config(TUNNEL);
    let endpoints = &config.live.upstream("plant-7").unwrap().endpoints;
    let labels: Vec<_> = endpoints.iter().map(|it| (it.address.to_string(), it.tier)).collect();
    let group = "agent:role=edge,site=berlin/ssh".into();
    assert_eq!(labels, [("agent:plant-7/ssh".into(), 1), ("agent:plant-8/ssh".into(), 2), (group, 1)]);
}

#[test]
fn a_route_to_far_services_says_who_has_to_agree_and_for_how_long() {
    let config = config(TUNNEL);
    let [asked, by_operators] = &config.live.listener("gate").unwrap().routes[..] else { panic!() };
    let approval = asked.approval.as_ref().unwrap();
    let by: Vec<String> = approval.by.iter().map(ToString::to_string).collect();
    let minutes = |count: u64| Duration::from_secs(60 * count);
    assert_eq!(by, ["lead", "group:leads"]);
    assert_eq!((approval.holds, approval.wait), (minutes(30), minutes(15)));
    assert_eq!(asked.far_timeouts, FarTimeouts { idle: Some(minutes(15)), max_age: Some(minutes(480)) });
    let approval = by_operators.approval.as_ref().unwrap();
    assert_eq!((approval.by.len(), approval.holds), (0, minutes(120)));
    assert_eq!(by_operators.far_timeouts, FarTimeouts::default());
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = config(LEAST);
    assert_eq!(config.boot.data, Path::new("tests/tieline-data"));
    assert_eq!(config.boot.workers, Workers::Auto);
    assert_eq!(config.boot.admin_listen, Some("127.0.0.1:7070".parse().unwrap()));
    assert_eq!(config.live.server.access_log, AccessLog::Stdout);
    assert_eq!(config.live.server.history, Duration::from_secs(600));
    let listener = config.live.listener("echo").unwrap();
    assert_eq!(listener.proxy_protocol, None);
    assert_eq!(listener.limits.connections, None);
    assert_eq!(listener.timeouts.idle, Duration::from_secs(3_600));
    assert_eq!(listener.keepalive, Some(Duration::from_secs(60)));
    assert_eq!(listener.unix_mode, 0o660);
    assert_eq!(listener.routes[0].name, "echo");
    assert_eq!(listener.routes[0].access, Access::Public);
    let upstream = config.live.upstream("echo").unwrap();
    assert_eq!(upstream.balance, Balance::PeakEwma);
    assert_eq!(upstream.health, None);
    assert_eq!(upstream.retry.budget, Percent(20));
    assert_eq!((upstream.endpoints[0].weight, upstream.endpoints[0].tier), (1, 1));
}

#[test]
fn what_is_written_is_what_is_obeyed() {
    let config = config(EVERY_KEY);
    assert_eq!(config.boot.workers, Workers::Count(4));
    assert_eq!(config.live.server.admin_hosts, ["tieline.internal.example.com"]);
    assert_eq!(config.live.server.access_log, AccessLog::Syslog(Some("tests/run/log".into())));
    assert_eq!(
        config.live.server.dns.servers,
        ["10.0.0.2:53", "[2001:db8::2]:5353"].map(|it| it.parse().unwrap())
    );
    let listener = config.live.listener("tls").unwrap();
    assert_eq!(listener.proxy_protocol.as_ref().unwrap().0.len(), 2);
    assert_eq!(listener.keepalive, None);
    assert_eq!(listener.unix_mode, 0o600);
    assert_eq!(listener.limits.accept_rate.unwrap().to_string(), "600/m");
    let names: Vec<_> = listener.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["shop", "shop-2", "shop-3"]);
    let shop = &listener.routes[0];
    assert_eq!(shop.sni, [Sni::Exact("shop.example.com".into()), Sni::Below("shop.example.com".into())]);
    let from = Some(vec!["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(shop.access, Access::Policy(Allow { from, identity: None }));
    assert_eq!(shop.place.to_string(), "35:1");
    let schedule = shop.schedule.as_ref().unwrap().to_string();
    assert_eq!(schedule, "Mon,Tue,Wed,Thu,Fri 07:00-19:00 Europe/Berlin; 22:00-06:00 UTC");
    let upstream = config.live.upstream("shop").unwrap();
    assert_eq!(upstream.balance, Balance::Hash(HashBy::Sni));
    assert_eq!(upstream.health.as_ref().unwrap().check, HealthCheck::Http("/healthz".into()));
    assert_eq!((upstream.endpoints[0].weight, upstream.endpoints[0].connections), (2, Some(50)));
    assert_eq!(upstream.endpoints[1].address.to_string(), "unix:/run/shop.sock");
    assert_eq!((shop.priority, listener.routes[1].priority), (Priority::High, Priority::Normal));
}

#[test]
fn logins_are_what_their_keys_say() {
    let config = config(POSTGRES);
    let db = config.live.listener("db").unwrap();
    assert_eq!((db.auth, db.tls_required, db.timeouts.idle.as_secs()), (Auth::Md5, false, 86_400));
    let reports = &db.routes[0].logins;
    assert_eq!(
        (&*reports.databases, &*reports.users),
        (&["orders".into(), "stock".into()][..], &["reporting".into()][..])
    );
    assert!(db.routes[2].logins.is_any());
    assert_eq!((db.routes[0].replication, db.routes[2].replication), (false, true));
    assert_eq!((db.routes[0].replica_reads, db.routes[0].read_your_writes), (ReplicaReads::Off, true));
    assert_eq!(
        (db.routes[3].replica_reads, db.routes[3].read_your_writes),
        (ReplicaReads::Statements, false)
    );
    let identities: HashSet<_> = db.routes.iter().map(Route::identity).collect();
    assert_eq!(identities.len(), 4);
    let user = |name| config.live.users.iter().find(|user| user.name == name)?.password.as_ref();
    assert!(
        matches!(user("ana"), Some(Password::Verifier(Verifier::Scram(scram))) if scram.iterations == 4096)
    );
    assert!(matches!(user("old"), Some(Password::Verifier(Verifier::Md5(_)))));
    assert_eq!(user("reporting"), Some(&Password::File("tests/tls/web.key".into())));
}

#[test]
fn servers_of_postgres_are_what_their_keys_say() {
    let config = config(POSTGRES);
    let notice = |name| config.live.upstream(name).unwrap().postgres.as_ref().unwrap().notice;
    let seconds = |count| Some(Duration::from_secs(count));
    assert_eq!(["orders", "reports", "shared"].map(notice), [seconds(1), None, seconds(5)]);
    let orders = config.live.upstream("orders").unwrap();
    let servers = orders.postgres.as_ref().unwrap();
    assert_eq!((servers.mode, servers.database.as_deref()), (PoolMode::Session, Some("orders_v2")));
    assert_eq!(servers.user.as_deref(), Some("app"));
    let shared = config.live.upstream("shared").unwrap().postgres.as_ref().unwrap();
    let due = |users: &[&str], weight, floor, cap| Due {
        users: users.iter().map(|user| (*user).to_owned()).collect(),
        weight,
        floor,
        cap,
    };
    assert_eq!(
        shared.dues,
        [due(&["web", "api"], 3, 4, None), due(&["batch"], 1, 0, Some(5)), due(&[], 1, 0, Some(10))]
    );
    assert_eq!((shared.asker(), shared.replicas.max_lag_bytes), (Some("watcher"), Some(Bytes(16 << 20))));
    assert_eq!(servers.password_file.as_deref(), Some(Path::new("tests/tls/web.key")));
    assert_eq!(orders.endpoints.iter().map(|it| it.role).collect::<Vec<_>>(), [Role::Primary, Role::Replica]);
    assert_eq!((orders.pool.size, orders.pool.idle.as_secs()), (Some(50), 300));
    assert_eq!(orders.acquire_timeout.as_secs(), 10);
    let Patience { query, transaction, idle_in_transaction, pinned } = servers.patience;
    let seconds = [query, transaction, idle_in_transaction, pinned].map(|it| it.unwrap().as_secs());
    assert_eq!(seconds, [30, 300, 60, 600]);
}

#[test]
fn a_server_of_postgres_elsewhere_must_prove_who_it_is() {
    let config = config(POSTGRES);
    let [reports, here] = ["reports", "anything"].map(|name| config.live.upstream(name).unwrap());
    let verified =
        UpstreamTls { verify: Verify::Full, ca: None, server_name: None, identity: None, direct: false };
    assert_eq!((&reports.tls, &here.tls), (&Some(verified), &None));
    assert_eq!(
        (here.pool.size, here.pool.idle.as_secs(), here.acquire_timeout.as_secs()),
        (Some(20), 600, 120)
    );
    let direct = |name| config.live.upstream(name).unwrap().tls.as_ref().map(|tls| tls.direct);
    assert_eq!(["orders", "reports", "anything"].map(direct), [Some(true), Some(false), None]);
    let reports = reports.postgres.as_ref().unwrap();
    assert_eq!((reports.mode, reports.reset), (PoolMode::Statement, PoolReset::Always));
    assert_eq!(here.postgres.as_ref().unwrap().reset, PoolReset::Needed);
    assert_eq!(here.postgres.as_ref().unwrap().mode, PoolMode::Transaction);
}

#[test]
fn load_is_controlled_as_the_keys_say() {
    let config = config(EVERY_KEY);
    let (shop, web) = (config.live.upstream("shop").unwrap(), config.live.upstream("web").unwrap());
    let breaker = shop.breaker.as_ref().unwrap();
    assert_eq!((breaker.requests, breaker.failures.0, breaker.longest.as_secs()), (50, 30, 300));
    assert_eq!((shop.pool.shed, shop.adaptive), (Some(Duration::from_millis(20)), false));
    assert_eq!(shop.retry.on, [RetryOn::Connect, RetryOn::Reset], "the default");
    assert_eq!((shop.retry.per_try, &shop.hedge), (None, &None));
    assert_eq!(web.retry.on, [RetryOn::Connect, RetryOn::Unavailable]);
    assert_eq!(web.retry.per_try, Some(Duration::from_secs(2)));
    let hedge = web.hedge.as_ref().unwrap();
    assert_eq!((hedge.percentile, hedge.budget.0, web.adaptive), (99, 2, true));
    assert_eq!((web.pool.shed, &web.breaker), (None, &None));
}

#[test]
fn an_http_route_is_what_its_keys_say() {
    let config = config(EVERY_KEY);
    let web = config.live.listener("web").unwrap();
    let names: Vec<_> = web.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["web", "respond", "redirect", "redirect-2", "web-2"]);
    let matches = &web.routes[0].matches;
    let hosts: Vec<_> = matches.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["10.0.0.5", "shop.example.com", "*.shop.example.com"]);
    let path = matches.path.as_ref().unwrap();
    assert_eq!(path.to_string(), "/users/{id}");
    assert_eq!(path.segments, [Segment::Literal("users".into()), Segment::Any("id".into())]);
    assert_eq!(matches.methods, ["GET", "PUT"]);
    let condition = |name: &str, value| Condition { name: name.into(), value };
    let version = Expected::Exactly("2".into());
    assert_eq!(matches.headers, [condition("accept", Expected::Present), condition("x-version", version)]);
    let query = Expected::Exactly("a b".into());
    assert_eq!(matches.query, [condition("preview", Expected::Present), condition("q", query)]);
    assert!(web.routes[1].matches.path.as_ref().unwrap().exact);
    assert_eq!(web.routes[2].matches, HttpMatch::default());
    assert_eq!(config.live.listener("tls").unwrap().routes[0].matches, HttpMatch::default());
}

#[test]
fn an_http_route_changes_what_its_keys_say() {
    let config = config(EVERY_KEY);
    let [first, .., stripped] = &config.live.listener("web").unwrap().routes[..] else { panic!() };
    let Rewrite { path, host, request, response } = first.rewrite.clone();
    let parts = vec![PathPart::Text("v2".into()), PathPart::Segment(1), PathPart::Rest];
    assert_eq!(path, Some(PathRewrite { matched: 2, parts }));
    assert_eq!(host.as_deref(), Some("web.internal:8080"));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let (set, add) = (vec![pair("X-Tenant", "shop")], vec![pair("x-seen-by", "edge")]);
    assert_eq!(request, Edits { set, add, remove: vec!["x-debug".into()] });
    assert_eq!((response.set, response.remove), (vec![pair("x-a", "1")], vec!["server".to_owned()]));
    let strip = Some(PathRewrite { matched: 1, parts: vec![PathPart::Rest] });
    assert_eq!((&stripped.rewrite.path, &stripped.session), (&strip, &None));
    let session = first.session.as_ref().unwrap();
    assert_eq!((session.cookie.as_str(), session.ttl), ("sid", Some(Duration::from_secs(3_600))));
    let mirror = first.mirror.as_ref().unwrap();
    assert_eq!((mirror.upstream.as_str(), mirror.percent.0), ("shadow", 10));
}

#[test]
fn an_http_route_has_one_action() {
    let config = config(EVERY_KEY);
    let [first, healthz, all, old, _] = &config.live.listener("web").unwrap().routes[..] else { panic!() };
    let shares = |route: &Route| {
        let shares = route.shares().iter().map(|share| (share.upstream.clone(), share.weight));
        shares.collect::<Vec<_>>()
    };
    assert_eq!(shares(first), [("web".to_owned(), 95), ("web-next".to_owned(), 5)]);
    assert_eq!(first.split_by, Some(HashBy::Cookie("sid".into())));
    let well = Respond { status: 200, body: "well".into(), media_type: "text/html".into() };
    assert_eq!(healthz.action, Action::Respond(well));
    assert!(shares(healthz).is_empty());
    let redirect = |route: &Route| match &route.action {
        Action::Redirect(Redirect { to, status }) => (to.parts.clone(), *status),
        other => panic!("{other:?}"),
    };
    let text = |text: &str| Part::Text(text.into());
    let parts = vec![text("https://"), Part::Host, text(":8443"), Part::Path, Part::Query];
    assert_eq!(redirect(all), (parts, 301));
    assert_eq!(redirect(old), (vec![text("/new"), Part::Path], 308));
}

#[test]
fn timeouts_and_limits_of_http_have_their_defaults() {
    let text = LEAST.replace("\"tcp\"", "\"http\"");
    let config = config(&text);
    let listener = config.live.listener("echo").unwrap();
    assert_eq!(listener.protocol, Protocol::Http);
    let seconds = [
        (listener.timeouts.idle, 75),
        (listener.timeouts.request_head, 10),
        (listener.timeouts.body_gap, 60),
        (listener.timeouts.tunnel_idle, 3_600),
    ];
    assert!(seconds.iter().all(|(timeout, seconds)| timeout.as_secs() == *seconds), "{seconds:?}");
    let limits = &listener.limits;
    assert_eq!((limits.request_line, limits.request_head), (Bytes(8_192), Bytes(32_768)));
    assert_eq!((limits.request_fields, limits.body), (100, None));
    assert_eq!((listener.http2, limits.streams), (true, 128));
    assert_eq!((&listener.tls, &listener.trusted_forwarders[..]), (&None, &[][..]));
    let upstream = config.live.upstream("echo").unwrap();
    assert_eq!((upstream.first_byte_timeout.as_secs(), upstream.gap_timeout.as_secs()), (60, 60));
    assert_eq!((upstream.pool.idle.as_secs(), upstream.pool.max_age.as_secs()), (60, 3_600));
    assert_eq!(upstream.tls, None);
}

#[test]
fn tls_names_its_files_from_the_folder_of_the_config() {
    let config = config(EVERY_KEY);
    let file = |name: &str| Path::new("tests/tls").join(name);
    let Some(ListenerTls::Certificates(certificates)) = &config.live.listener("web").unwrap().tls else {
        panic!()
    };
    assert_eq!((&certificates[0].certificate, &certificates[0].key), (&file("web.crt"), &file("web.key")));
    let client = certificates[0].client.as_ref().unwrap();
    assert_eq!(
        (&client.ca, client.crl.as_ref(), client.required),
        (&file("ca.pem"), Some(&file("ca.crl")), false)
    );
    let tls = UpstreamTls {
        verify: Verify::Full,
        ca: Some(file("ca.pem")),
        server_name: Some("web.internal".into()),
        identity: Some(TlsIdentity { certificate: file("web.crt"), key: file("web.key") }),
        direct: false,
    };
    assert_eq!(config.live.upstream("web").unwrap().tls, Some(tls));
}

#[test]
fn identities_are_names_and_groups() {
    let config = config(EVERY_KEY);
    let group = config.live.group("support").unwrap();
    assert_eq!(group.members, ["ana", "bob@example.com"]);
    let Access::Policy(allow) = &config.live.listener("web").unwrap().routes[0].access else { panic!() };
    assert_eq!(allow.from, None);
    let who = allow.identity.as_ref().unwrap().iter().map(|who| (who.name.as_str(), who.group));
    assert_eq!(who.collect::<Vec<_>>(), [("spiffe://example.com/shop", false), ("support", true)]);
}

#[test]
fn tls_of_a_listener_is_one_table_several_or_a_word() {
    let tls = |value: &str| {
        let text = LEAST.replace("protocol =", &format!("tls = {value}\nprotocol ="));
        config(&text).live.listener("echo").unwrap().tls.clone().unwrap()
    };
    assert_eq!(tls("\"self-signed\""), ListenerTls::SelfSigned);
    let one = "{ certificate = \"tls/web.crt\", key = \"tls/web.key\" }";
    let ListenerTls::Certificates(single) = tls(one) else { panic!() };
    let ListenerTls::Certificates(several) = tls(&format!("[{one}, {one}]")) else { panic!() };
    assert_eq!((&single[0], several.len()), (&several[1], 2));
    assert_eq!(single[0].client, None);
    let required = format!("{}, client_ca = \"tls/ca.pem\" }}", one.trim_end_matches(" }"));
    let ListenerTls::Certificates(strict) = tls(&required) else { panic!() };
    assert!(strict[0].client.as_ref().unwrap().required);
}

#[test]
fn a_listener_of_tunnels_names_who_vouches_for_people() {
    let people = |keys: &str| {
        let text = format!("[listener.gate]\nbind = \"127.0.0.1:7001\"\nprotocol = \"tunnel\"\n{keys}\n");
        config(&text).live.listener("gate").unwrap().people.clone()
    };
    assert_eq!(people(""), None);
    let named = people("client_ca = \"tls/ca.pem\"\nclient_crl = \"tls/ca.pem\"").unwrap();
    assert!(named.ca.ends_with("tls/ca.pem") && named.crl == Some(named.ca.clone()) && !named.required);
}

#[test]
fn an_upstream_of_both_protocols_may_have_the_keys_of_either() {
    let http = LEAST.replace("echo", "web").replace("7000", "7002").replace("\"tcp\"", "\"http\"");
    let (listener, _) = http.split_once("[upstream").unwrap();
    let listener = listener.replace("upstream = \"web\"", "upstream = \"echo\"");
    let config = config(&format!("{LEAST}timeouts.gap = \"5s\"\n{listener}"));
    assert_eq!(config.live.upstream("echo").unwrap().gap_timeout.as_secs(), 5);
}

#[test]
fn where_things_stand_does_not_change_a_config() {
    let moved = format!("# one line more\n\n{EVERY_KEY}");
    assert_eq!(config(&moved), config(EVERY_KEY));
    assert_ne!(config(&EVERY_KEY.replace("weight = 2", "weight = 3")), config(EVERY_KEY));
}

#[test]
fn only_what_a_reload_cannot_change_needs_a_restart() {
    let old = config(EVERY_KEY);
    assert!(restart_needed(&old, &old).is_empty());
    let live =
        EVERY_KEY.replace("idle = \"15m\"", "idle = \"20m\"").replace("log = \"debug\"", "log = \"warn\"");
    assert!(restart_needed(&old, &config(&live)).is_empty());
    let boot = EVERY_KEY
        .replace("data = \"state\"", "data = \"elsewhere\"")
        .replace("workers = 4", "workers = 5")
        .replace("log_format = \"json\"", "log_format = \"text\"")
        .replace("[::1]:7070", "[::1]:7071");
    let changed = ["server.data", "server.workers", "server.log_format", "admin.listen"];
    assert_eq!(restart_needed(&old, &config(&boot)), changed);
}

#[test]
fn a_file_is_loaded_from_disk_and_paths_start_at_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tieline.toml");
    std::fs::write(&path, LEAST).unwrap();
    let Checked { config, .. } = Config::load(&path).unwrap();
    assert_eq!(config.boot.data, folder.path().join("tieline-data"));
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tieline.toml");
    let load = || Config::load(&path).unwrap_err().iter().map(Problem::to_string).collect::<Vec<_>>();
    let name = path.display();
    assert_eq!(load(), [format!("{name}: cannot be read: No such file or directory (os error 2)")]);
    std::fs::write(&path, b"# fine\n# \xc3\xa4 \xff\n").unwrap();
    assert_eq!(load(), [format!("{name}:2:5: is not UTF-8 from here on")]);
    std::fs::write(&path, vec![b'#'; FILE_BYTES_MAX + 1]).unwrap();
    assert_eq!(load(), [format!("{name}: is larger than 1 MiB, the most that is read")]);
}

#[test]
fn large_wrong_files_are_answered_in_full() {
    // Work that grows with the square of the file would take minutes here.
    const LARGE: usize = FILE_BYTES_MAX / 4;
    let repeat = |line: &dyn Fn(usize) -> String| {
        let lines = (0..).map(line);
        let mut text = String::new();
        for line in lines {
            if text.len() + line.len() > LARGE {
                return text;
            }
            text += &line;
        }
        text
    };
    let routes = "[listener.a]\nbind = \"127.0.0.1:1\"\nprotocol = \"tcp\"\n";
    for (text, problems_min) in [
        (repeat(&|at| format!("k{at} = 1\n")), 10_000),
        (repeat(&|at| format!("[upstream.u{at}]\nendpoints = [\"a:1\"]\n")), 5_000),
        (
            repeat(&|at| {
                if at == 0 { routes.into() } else { format!("[[listener.a.route]]\nupstream = \"x{at}\"\n") }
            }),
            10_000,
        ),
        (format!("x = [{}]", "1, ".repeat(50_000)), 1),
        ("=\n".repeat(LARGE / 2), 1),
        ("a.".repeat(LARGE / 2), 1),
        ("[".repeat(LARGE), 1),
        ("\u{1f600}".repeat(LARGE / 4), 1),
    ] {
        let problems = Config::parse("t", &text).map_or_else(|problems| problems, |checked| checked.warnings);
        assert!(problems.len() >= problems_min, "{}: {}", &text[..20], problems.len());
    }
}

/// What holds of every answer, whatever was asked.
fn is_sound(text: &str) -> Result<(), TestCaseError> {
    let problems = match Config::parse("t", text) {
        Ok(checked) => {
            prop_assert!(checked.warnings.iter().all(Problem::is_warning));
            checked.warnings
        }
        Err(problems) => {
            prop_assert!(problems.iter().any(|problem| problem.severity == Severity::Error));
            problems
        }
    };
    for problem in problems {
        let line = problem.to_string();
        prop_assert!(!line.contains('\n') && problem.line >= 1 && problem.column >= 1, "{line}");
        let lines = text.split('\n').count() as u32;
        prop_assert!(problem.line <= lines, "{line}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_truncation_makes_the_reader_fall_over(cut in 0..EVERY_KEY.len()) {
        is_sound(&EVERY_KEY[..cut])?;
    }

    #[test]
    fn no_flipped_bytes_make_the_reader_fall_over(
        flips in prop::collection::vec((0..EVERY_KEY.len(), any::<u8>()), 1..8),
    ) {
        let mut bytes = EVERY_KEY.as_bytes().to_vec();
        for (at, byte) in flips {
            bytes[at] = byte;
        }
        is_sound(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn no_line_left_out_doubled_or_moved_makes_the_reader_fall_over(
        edits in prop::collection::vec((0usize..200, 0usize..200, 0u8..3), 1..6),
    ) {
        let mut lines: Vec<_> = EVERY_KEY.lines().collect();
        for (from, to, edit) in edits {
            let (from, to) = (from % lines.len(), to % lines.len());
            match edit {
                0 => { lines.remove(from); }
                1 => lines.insert(to, lines[from]),
                _ => lines.swap(from, to),
            }
        }
        is_sound(&lines.join("\n"))?;
    }

    #[test]
    fn no_value_in_place_of_another_makes_the_reader_fall_over(
        at in 0usize..200,
        value in prop::sample::select(vec![
            "1", "-1", "\"\"", "\"x\"", "true", "[]", "{}", "[[]]", "[{}]", "[1, \"x\"]", "{ a = 1 }", "1.5",
            "2026-01-01",
            "nan", "\"0s\"", "\"unix:/\"", "\"*\"", "\"0/s\"", "\"::/0\"", "\"off\"", "9223372036854775807",
        ]),
    ) {
        let mut lines: Vec<String> = EVERY_KEY.lines().map(str::to_string).collect();
        let count = lines.len();
        let line = &mut lines[at % count];
        if let Some((key, _)) = line.clone().split_once(" = ") {
            *line = format!("{key} = {value}");
        }
        is_sound(&lines.join("\n"))?;
    }
}
