//! What the real binary does when endpoints, clients, names, limits or the operator's config fail it.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tieline_base::Clock;
use tieline_testkit::{
    BlackHole, Dnsmasq, Finished, HttpServer, MariaDb, PATIENCE, Postgres, Redis, Refusing, TcpServer,
    Tieline, finish, wait_until,
};

use support::{
    OneRoute, assert_back_at, assert_closed, assert_echoes, await_endpoint, await_finished, await_live,
    connect, connect_from, connect_relayed, echoes, endpoint, finished, name_heard, reason_of, refusal,
    reset, row_of, start, story,
};

// Endpoints.

#[test]
fn an_endpoint_that_refuses_costs_no_client_its_connection() {
    let (refusing, echo) = (Refusing::start(), TcpServer::echo());
    let upstream = "balance = \"round-robin\"\nretry = { budget = \"100%\" }";
    let config = OneRoute { upstream, ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[refusing.address(), echo.address()]));
    let clients = connect_relayed(address, 8);
    let rows = await_live(&tieline, "stage=relay", clients.len());
    assert!(rows.iter().all(|row| row["endpoint"] == echo.address().to_string()), "{rows:#?}");
    let failed = format!("endpoint {} failed after", refusing.address());
    assert!(rows.iter().any(|row| story(&tieline, row).contains(&failed)), "none was tried there");
    assert!(endpoint(&tieline, &refusing.address().to_string()).unwrap()["failures"].as_u64() >= Some(1));
}

#[test]
fn with_every_endpoint_down_clients_are_told_at_once() {
    let (one, two) = (Refusing::start(), Refusing::start());
    let (tieline, address) = start(&OneRoute::default().to(&[one.address(), two.address()]));
    let begin = Clock::now();
    for _ in 0..10 {
        assert_eq!(refusal(&tieline, address), "unreachable");
    }
    assert!(Clock::now().since(begin) < PATIENCE, "nobody waits for what answers at once");
    let row = &finished(&tieline, "")[0];
    let told = story(&tieline, row);
    assert!(told.contains("refused"), "{told}");
}

#[test]
fn a_black_hole_costs_the_connect_budget_and_no_more() {
    let hole = BlackHole::start();
    let config = OneRoute { upstream: "timeouts = { connect = \"500ms\" }", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[hole.address()]));
    let client = connect(address);
    assert_closed(&client);
    assert_eq!(reason_of(&tieline, &client), "timeout:connect");
    let age = row_of(&tieline, &client)["age_seconds"].as_f64().unwrap();
    assert!(age >= 0.45, "{age} s for a budget of 500 ms");
}

#[test]
fn a_reset_passes_through_in_both_directions() {
    let (resetting, echo) = (TcpServer::resetting_after(4), TcpServer::echo());
    let (tieline, address) = start(&OneRoute::default().to(&[resetting.address()]));
    let mut client = connect(address);
    client.write_all(b"1234").unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(reason_of(&tieline, &client), "upstream-reset");

    tieline.reload(&OneRoute::default().to(&[echo.address()]));
    let client = connect_relayed(address, 1).remove(0);
    reset(client);
    await_finished(&tieline, "reason=client-reset", 1);
    assert!(wait_until(PATIENCE, || echo.open() == 0), "the endpoint was not told");
}

#[test]
fn a_reset_is_noticed_behind_bytes_that_nobody_reads() {
    let mute = TcpServer::mute();
    let (tieline, address) = start(&OneRoute::default().to(&[mute.address()]));
    let mut client = connect(address);
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    // More than the buffers of two sockets and a pipe hold: the last of it stays with the client.
    while client.write_all(&[0; 65_536]).is_ok() {}
    await_live(&tieline, "stage=relay", 1);
    reset(client);
    await_finished(&tieline, "reason=client-reset", 1);
}

#[test]
fn a_server_that_dies_ends_its_connections_and_is_used_again_when_it_is_back() {
    let echo = TcpServer::echo();
    let at = echo.address();
    let config = OneRoute { upstream: "outlier = { failures = 1000 }", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[at]));
    let clients = connect_relayed(address, 5);
    echo.reset_all();
    clients.iter().for_each(assert_closed);
    await_finished(&tieline, "reason=upstream-reset", 5);
    drop(echo);
    assert_eq!(refusal(&tieline, address), "unreachable");
    let _again = TcpServer::echo_at(at);
    assert_echoes(&mut connect(address));
}

#[test]
fn a_slow_endpoint_is_waited_for_but_gets_less() {
    let (slow, fast) = (TcpServer::slow(Duration::from_millis(600)), TcpServer::echo());
    let (tieline, address) = start(&OneRoute::default().to(&[slow.address(), fast.address()]));
    // What held up the fast one once is soon forgotten.
    let prefers = wait_until(PATIENCE, || {
        assert_echoes(&mut connect(address));
        fast.accepted() > 16.max(2 * slow.accepted())
    });
    assert!(prefers, "fast {}, slow {}", fast.accepted(), slow.accepted());
    tieline.reload(&OneRoute::default().to(&[slow.address()]));
    assert_echoes(&mut connect(address));
    assert!(slow.accepted() > 0);
}

// Health.

#[test]
fn a_check_takes_a_server_that_hangs_out_of_use_and_back() {
    let (mut one, two) = (Redis::start(), Redis::start());
    let upstream = "balance = \"round-robin\"\n\
                    health = { redis = true, every = \"100ms\", timeout = \"2s\", rise = 2, fall = 2 }";
    let config = OneRoute { upstream, ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[one.address(), two.address()]));
    let label = one.address().to_string();
    one.process().signal(Signal::STOP);
    await_endpoint(&tieline, &label, "unhealthy");
    let told = endpoint(&tieline, &label).unwrap()["last_error"].clone();
    assert!(told.is_string(), "it does not say what is wrong");
    for _ in 0..6 {
        assert_eq!(two.cli(address, &["ping"]).expect("ping"), "PONG");
    }
    let connects = || endpoint(&tieline, &label).unwrap()["connects"].as_u64().unwrap();
    let before = connects();
    one.process().signal(Signal::CONT);
    await_endpoint(&tieline, &label, "healthy");
    assert!(wait_until(PATIENCE, || {
        two.cli(address, &["ping"]).expect("ping");
        connects() > before
    }));
}

#[test]
fn each_check_knows_its_own_server_from_another() {
    let (postgres, mariadb, redis) = (Postgres::start(), MariaDb::start(), Redis::start());
    let http = HttpServer::start();
    http.write("ok", b"well");
    let upstream = |name: &str, endpoint: SocketAddr, check: &str| {
        format!(
            "[upstream.{name}]\nendpoints = [\"{endpoint}\"]\n\
             health = {{ {check}, every = \"100ms\", timeout = \"2s\", rise = 1, fall = 2 }}\n"
        )
    };
    let right = [
        upstream("postgres", postgres.address(), "postgres = true"),
        upstream("mysql", mariadb.address(), "mysql = true"),
        upstream("redis", redis.address(), "redis = true"),
        upstream("http", http.address(), "http = \"/ok\""),
    ];
    let wrong = [
        upstream("not-postgres", redis.address(), "postgres = true"),
        upstream("not-mysql", redis.address(), "mysql = true"),
        upstream("not-redis", http.address(), "redis = true"),
        upstream("not-found", http.address(), "http = \"/missing\""),
    ];
    let tieline = Tieline::start(&format!("{}{}", right.concat(), wrong.concat()));
    let states = || -> Vec<(String, String)> {
        let upstreams = tieline.get("/api/v1/upstreams");
        let state = |upstream: &serde_json::Value| {
            let words = [&upstream["name"], &upstream["endpoints"][0]["state"]];
            words.map(|word| word.as_str().unwrap_or_default().to_owned()).into()
        };
        upstreams.as_array().unwrap().iter().map(state).collect()
    };
    let told_apart = || states().iter().all(|(name, state)| (state == "healthy") != name.starts_with("not-"));
    assert!(wait_until(PATIENCE, told_apart), "{:?}", states());
    // It stays so: two rounds later nothing has changed its mind.
    assert!(!wait_until(Duration::from_millis(400), || !told_apart()), "{:?}", states());
}

// Clients.

#[test]
fn clients_that_vanish_at_any_stage_leave_nothing_behind() {
    let (echo, hole) = (TcpServer::echo(), BlackHole::start());
    let listener = |name: &str, more: &str| {
        format!(
            "[listener.{name}]\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n{more}\n\
             route = [{{ upstream = \"{name}\", access = \"public\" }}]\n"
        )
    };
    let upstream = |name: &str, endpoint: SocketAddr, more: &str| {
        format!("[upstream.{name}]\nendpoints = [\"{endpoint}\"]\n{more}\n")
    };
    let config = [
        "[server]\nworkers = 2\n".into(),
        listener("settle", "proxy_protocol = \"required\"\ntrusted = [\"127.0.0.1\"]"),
        upstream("settle", echo.address(), ""),
        listener("queue", ""),
        upstream("queue", echo.address(), "pool = { size = 1 }\ntimeouts = { acquire = \"10m\" }"),
        listener("dial", ""),
        upstream("dial", hole.address(), "timeouts = { connect = \"10m\" }"),
        listener("relay", ""),
        upstream("relay", echo.address(), ""),
    ];
    let tieline = Tieline::start(&config.concat());
    let at = |name: &str| tieline.listener_address(name);
    let holder = connect_relayed(at("queue"), 1).remove(0);
    await_live(&tieline, "stage=relay", 1);
    let baseline = tieline.fd_count();
    for round in 0..3 {
        let mut clients = Vec::new();
        for (name, stage) in [("settle", "settle"), ("queue", "acquire"), ("dial", "acquire")] {
            clients.extend((0..15).map(|_| {
                let mut client = connect(at(name));
                client.write_all(b"PROXY TCP4 192.0").unwrap();
                client
            }));
            await_live(&tieline, &format!("listener={name} stage={stage}"), 15);
        }
        clients.extend(connect_relayed(at("relay"), 15));
        assert!(tieline.fd_count() >= baseline + 60, "the clients of round {round} cost nothing?");
        clients.into_iter().for_each(reset);
        await_live(&tieline, "", 1);
        assert!(wait_until(PATIENCE, || tieline.fd_count() <= baseline + 2), "{}", tieline.fd_count());
    }
    for (listener, count) in [("settle", 45), ("queue", 45), ("dial", 45), ("relay", 45)] {
        let rows = await_finished(&tieline, &format!("listener={listener}"), count);
        assert_eq!(rows.len(), count);
        assert!(rows.iter().all(|row| row["reason"] == "client-reset"), "{rows:#?}");
    }
    drop(holder);
    assert_back_at(&tieline, baseline);
    assert!(wait_until(PATIENCE, || echo.open() == 0));
}

/// Whether the process stays below `seconds` of CPU time for one second.
fn idles(tieline: &Tieline, seconds: f64) -> bool {
    let begin = tieline.cpu_seconds();
    !wait_until(Duration::from_secs(1), || tieline.cpu_seconds() > begin + seconds)
}

/// Room for the sockets of both sides in this process.
fn raise_file_limit() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
}

#[test]
fn a_crowd_beyond_the_limit_is_refused_counted_and_forgotten() {
    const LIMIT: usize = 2_000;
    const WAVES: u8 = 48;
    const WAVE: usize = 1_000;
    let crowd = LIMIT + usize::from(WAVES) * WAVE;
    raise_file_limit();
    let echo = TcpServer::echo();
    let listener = format!("limits = {{ connections = {LIMIT} }}");
    let config = OneRoute { listener: &listener, ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    assert_echoes(&mut connect(address));
    await_finished(&tieline, "", 1);
    let baseline = tieline.fd_count();
    let mut inside = connect_relayed(address, LIMIT);
    for wave in 0..WAVES {
        // Each wave comes from an address of its own: one alone would run out of ports.
        let outside: Vec<_> = (0..WAVE).map(|_| connect_from([127, 0, 1, wave], address)).collect();
        outside.iter().for_each(assert_closed);
    }
    inside.iter_mut().for_each(assert_echoes);
    let refused = "tieline_connections_closed_total{listener=\"web\",reason=\"limit:connections\"}";
    assert!(wait_until(PATIENCE, || tieline.metric(refused) == (crowd - LIMIT) as f64));
    let opened = tieline.metric("tieline_connections_opened_total{listener=\"web\"}");
    assert_eq!(opened, (crowd + 1) as f64);
    drop(inside);
    assert_back_at(&tieline, baseline);
    let rows = finished(&tieline, "");
    assert_eq!(rows.len(), 10_000, "as many as are remembered");
    assert!(rows.iter().all(|row| row["reason"].is_string()));
    assert!(wait_until(PATIENCE, || idles(&tieline, 0.1)), "it spins");
}

#[test]
fn out_of_descriptors_it_survives_without_spinning_and_serves_again() {
    raise_file_limit();
    let echo = TcpServer::echo();
    let tieline = Tieline::start_under(
        &Tieline::binary(),
        &["prlimit", "--nofile=64:64"],
        &OneRoute::default().to(&[echo.address()]),
    );
    let address = tieline.listener_address("web");
    let crowd: Vec<TcpStream> = (0..200).map(|_| connect(address)).collect();
    assert!(wait_until(PATIENCE, || tieline.log().contains("cannot accept")), "{}", tieline.log());
    assert!(wait_until(PATIENCE, || idles(&tieline, 0.3)), "it spins");
    drop(crowd);
    assert!(wait_until(PATIENCE, || TcpStream::connect(address).is_ok_and(|mut client| echoes(&mut client))));
    assert!(wait_until(PATIENCE, || support::live(&tieline, "").is_empty()));
    let rows = await_finished(&tieline, "", 201);
    assert!(rows.iter().all(|row| row["reason"].is_string()), "{rows:?}");
}

// Names.

#[test]
fn a_name_that_moves_takes_its_connections_along() {
    let old = TcpServer::echo_at(SocketAddr::from(([127, 0, 0, 2], 0)));
    let new = TcpServer::echo_at(SocketAddr::from(([127, 0, 0, 3], old.address().port())));
    let mut dns = Dnsmasq::start(&[("service.test", "127.0.0.2")]);
    let config = OneRoute {
        server: &format!("dns = {{ servers = [\"{}\"] }}", dns.address()),
        route: "grace = \"300ms\"",
        ..OneRoute::default()
    };
    let endpoints = [format!("\"service.test:{}\"", old.address().port())];
    let (tieline, address) = start(&config.to_endpoints(&endpoints));
    assert!(wait_until(PATIENCE, || TcpStream::connect(address).is_ok_and(|mut client| echoes(&mut client))));
    let client = connect_relayed(address, 1).remove(0);
    dns.replace(&[("service.test", "127.0.0.3")]);
    assert_closed(&client);
    assert_eq!(reason_of(&tieline, &client), "drained");
    let told = story(&tieline, &row_of(&tieline, &client));
    assert!(told.contains("has left upstream \"service\""), "{told}");
    assert_echoes(&mut connect(address));
    assert_eq!(new.accepted(), 1);

    // A name server that is gone takes nothing with it: the last answer stays in use.
    let mut stays = connect_relayed(address, 1).remove(0);
    drop(dns);
    let failed = || tieline.get("/api/v1/upstreams")[0]["names"][0]["error"].is_string();
    assert!(wait_until(PATIENCE, failed), "{}", tieline.get("/api/v1/upstreams"));
    assert_echoes(&mut stays);
    assert_echoes(&mut connect(address));
}

// Configs.

/// Runs the binary with `config` until it gives up.
fn run_with(config: &str, directory: &Path) -> Finished {
    fs::write(directory.join("tieline.toml"), config).unwrap();
    finish(Command::new(Tieline::binary()).arg("run").current_dir(directory))
}

#[test]
fn a_wrong_config_ends_the_start_with_one_clear_line() {
    let taken = TcpServer::echo();
    let admin = "[admin]\nlisten = \"off\"\n";
    let listener = |bind: &str, upstream: &str| {
        format!(
            "{admin}[listener.web]\nbind = \"{bind}\"\nprotocol = \"tcp\"\n\
             route = [{{ upstream = \"{upstream}\", access = \"public\" }}]\n\
             [upstream.shop]\nendpoints = [\"127.0.0.1:9\"]\n"
        )
    };
    let in_use = taken.address().to_string();
    let cases = [
        ("[server\n".to_owned(), "tieline.toml:1:"),
        ("[sever]\n".to_owned(), "did you mean \"server\""),
        (listener("127.0.0.1:0", "shopp"), "did you mean \"shop\""),
        (listener("127.0.0.1:0", "shop").replace("\"tcp\"", "\"mysql\""), "tieline.toml:5:"),
        (listener(&in_use, "shop"), "cannot listen on"),
    ];
    for (config, told) in cases {
        let directory = tempfile::tempdir().unwrap();
        let ended = run_with(&config, directory.path());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{config}\n{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{config}\n{ended:?}");
        assert!(ended.stderr.contains(told), "{config}\n{ended:?}");
    }
    let nowhere = tempfile::tempdir().unwrap();
    let ended = finish(Command::new(Tieline::binary()).arg("run").current_dir(nowhere.path()));
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(1), 1), "{ended:?}");
    assert!(ended.stderr.contains("tieline.toml"), "{ended:?}");
}

#[test]
fn a_second_server_in_the_same_folder_does_not_start_and_harms_nothing() {
    let echo = TcpServer::echo();
    let (tieline, address) = start(&OneRoute::default().to(&[echo.address()]));
    let second = tieline.cli(["run"]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert_eq!(second.stderr.lines().count(), 1, "{second:?}");
    assert_echoes(&mut connect(address));
    assert_eq!(tieline.get("/api/v1/listeners")[0]["accepting"], true);
}

#[test]
fn tiers_are_used_in_their_order() {
    let (first, spare) = (TcpServer::named("a"), TcpServer::named("b"));
    let at = first.address();
    let endpoints = [format!("\"{at}\""), format!("{{ address = \"{}\", tier = 2 }}", spare.address())];
    let upstream = "health = { tcp = true, every = \"100ms\", rise = 1, fall = 1 }";
    let (tieline, address) = start(&OneRoute { upstream, ..OneRoute::default() }.to_endpoints(&endpoints));
    assert!((0..5).all(|_| name_heard(address) == Some(b'a')));
    drop(first);
    await_endpoint(&tieline, &at.to_string(), "unhealthy");
    assert!((0..5).all(|_| name_heard(address) == Some(b'b')));
    let _again = TcpServer::echo_at(at);
    await_endpoint(&tieline, &at.to_string(), "healthy");
    assert_echoes(&mut connect(address));
}
