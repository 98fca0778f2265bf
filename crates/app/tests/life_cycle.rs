//! How connections of the real binary are let in, kept, drained and ended.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::json;
use tieline_base::Clock;
use tieline_testkit::{PATIENCE, TcpServer, Tieline, wait_until};

use support::{
    OneRoute, another_day, assert_closed, assert_echoes, await_finished, await_live, connect, connect_from,
    connect_relayed, echoes, finished, live, name_heard, order, reason_of, refusal, row_of, start, story,
};

// Timeouts.

#[test]
fn an_idle_connection_ends_and_one_that_moves_does_not() {
    let echo = TcpServer::echo();
    let config = OneRoute { listener: "timeouts = { idle = \"6s\" }", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    let [still, mut busy]: [TcpStream; 2] = connect_relayed(address, 2).try_into().unwrap();
    let is_over = wait_until(PATIENCE, || {
        assert_echoes(&mut busy);
        !finished(&tieline, "").is_empty()
    });
    assert!(is_over, "the still one goes on");
    assert_eq!(reason_of(&tieline, &still), "idle");
    assert_echoes(&mut busy);
    assert_eq!(reason_of(&tieline, &busy), "idle");
    assert!(row_of(&tieline, &busy)["age_seconds"].as_f64().unwrap() > 11.9);
}

#[test]
fn a_connection_ends_at_its_greatest_age_however_busy_it_is() {
    let echo = TcpServer::echo();
    let config = OneRoute { listener: "timeouts = { max_age = \"400ms\" }", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    let mut client = connect(address);
    assert!(wait_until(PATIENCE, || !echoes(&mut client)));
    assert_eq!(reason_of(&tieline, &client), "max-age");
    let age = row_of(&tieline, &client)["age_seconds"].as_f64().unwrap();
    assert!(age >= 0.36, "{age}: a tenth less than 400 ms at the least");
}

// The end of the server.

#[test]
fn a_stop_drains_and_cuts_what_still_lives_when_its_time_is_over() {
    let echo = TcpServer::echo();
    let config = OneRoute { listener: "timeouts = { drain = \"8s\" }", ..OneRoute::default() };
    let (mut tieline, address) = start(&config.to(&[echo.address()]));
    let mut client = connect_relayed(address, 1).remove(0);
    let begin = Clock::now();
    tieline.signal(Signal::TERM);
    assert!(wait_until(PATIENCE, || TcpStream::connect(address).is_err()), "it still accepts");
    assert_echoes(&mut client);
    assert_closed(&client);
    let lasted = Clock::now().since(begin);
    assert!(lasted >= Duration::from_millis(7_900), "cut after {lasted:?}");
    assert!(tieline.wait_end(PATIENCE).is_some_and(|status| status.success()), "{}", tieline.log());
    let log = tieline.log();
    assert!(log.contains("\"reason\":\"drained\""), "{log}");
    assert!(log.contains(" finished by themselves, 1 were ended"), "{log}");
}

#[test]
fn a_stop_ends_the_moment_the_last_connection_does() {
    let echo = TcpServer::echo();
    let config = OneRoute { listener: "timeouts = { drain = \"10m\" }", ..OneRoute::default() };
    let (mut tieline, address) = start(&config.to(&[echo.address()]));
    let client = connect_relayed(address, 1).remove(0);
    tieline.signal(Signal::TERM);
    assert!(wait_until(PATIENCE, || TcpStream::connect(address).is_err()), "it still accepts");
    drop(client);
    assert!(tieline.wait_end(PATIENCE).is_some_and(|status| status.success()), "{}", tieline.log());
    assert!(tieline.log().contains("\"reason\":\"client-closed\""), "{}", tieline.log());
}

#[test]
fn a_second_signal_ends_everything_at_once() {
    let echo = TcpServer::echo();
    let config = OneRoute { listener: "timeouts = { drain = \"10m\" }", ..OneRoute::default() };
    let (mut tieline, address) = start(&config.to(&[echo.address()]));
    let mut clients = connect_relayed(address, 3);
    tieline.signal(Signal::TERM);
    assert!(wait_until(PATIENCE, || tieline.log().contains("draining")));
    clients.iter_mut().for_each(assert_echoes);
    tieline.signal(Signal::INT);
    clients.iter().for_each(assert_closed);
    assert!(tieline.wait_end(PATIENCE).is_some_and(|status| status.success()), "{}", tieline.log());
    assert_eq!(tieline.log().matches("\"reason\":\"drained\"").count(), 3, "{}", tieline.log());
}

// Workers and limits.

#[test]
fn workers_share_long_lived_connections_to_within_one() {
    let echo = TcpServer::echo();
    let config = OneRoute { server: "workers = 4", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    let clients = connect_relayed(address, 64);
    let mut by_worker: BTreeMap<u64, usize> = BTreeMap::new();
    for row in await_live(&tieline, "stage=relay", clients.len()) {
        *by_worker.entry(row["worker"].as_u64().unwrap()).or_default() += 1;
    }
    assert_eq!(by_worker.len(), 4, "{by_worker:?}");
    assert!(by_worker.values().all(|count| (15..=17).contains(count)), "{by_worker:?}");
    assert!(by_worker.values().max().unwrap() - by_worker.values().min().unwrap() <= 1, "{by_worker:?}");
}

#[test]
fn one_address_gets_its_share_and_no_more_while_others_are_let_in() {
    let echo = TcpServer::echo();
    let config = OneRoute { listener: "limits = { per_ip = 2 }", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    let mut mine = connect_relayed(address, 2);
    assert_eq!(refusal(&tieline, address), "limit:per-ip");
    assert_echoes(&mut connect_from([127, 0, 0, 2], address));
    mine.iter_mut().for_each(assert_echoes);
    drop(mine.pop());
    await_live(&tieline, "remote=127.0.0.1", 1);
    assert_echoes(&mut connect(address));
}

#[test]
fn an_ipv6_client_is_counted_by_its_network() {
    let echo = TcpServer::echo();
    let config = OneRoute { listener: "bind = \"[::1]:0\"\nlimits = { per_ip = 1 }", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    let mut mine = connect_relayed(address, 1);
    assert_eq!(refusal(&tieline, address), "limit:per-ip");
    mine.iter_mut().for_each(assert_echoes);
    drop(mine);
    await_live(&tieline, "", 0);
    assert_echoes(&mut connect(address));
}

#[test]
fn a_full_listener_refuses_and_has_room_again_when_one_leaves() {
    let echo = TcpServer::echo();
    let config = OneRoute { listener: "limits = { connections = 3 }", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    let mut inside = connect_relayed(address, 3);
    for _ in 0..5 {
        assert_eq!(refusal(&tieline, address), "limit:connections");
    }
    drop(inside.pop());
    await_live(&tieline, "", 2);
    assert_echoes(&mut connect(address));
    assert_eq!(echo.accepted(), 4, "no refused one got as far as the endpoint");
}

#[test]
fn connections_beyond_the_accept_rate_are_refused() {
    let echo = TcpServer::echo();
    let config = OneRoute { listener: "limits = { accept_rate = \"5/h\" }", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    connect_relayed(address, 5);
    for _ in 0..3 {
        assert_eq!(refusal(&tieline, address), "limit:accept-rate");
    }
    let series = "tieline_connections_closed_total{listener=\"web\",reason=\"limit:accept-rate\"}";
    assert_eq!(tieline.metric(series), 3.0, "{}", tieline.metrics());
}

// The queue.

#[test]
fn who_waits_for_room_is_served_in_order_and_a_full_queue_refuses() {
    let echo = TcpServer::echo();
    let upstream = "pool = { size = 1, queue = 2 }\ntimeouts = { acquire = \"1m\" }";
    let (tieline, address) = start(&OneRoute { upstream, ..OneRoute::default() }.to(&[echo.address()]));
    let first = connect_relayed(address, 1).remove(0);
    let mut second = connect(address);
    await_live(&tieline, "stage=acquire", 1);
    let mut third = connect(address);
    await_live(&tieline, "stage=acquire", 2);
    assert_eq!(refusal(&tieline, address), "limit:queue");
    drop(first);
    assert_echoes(&mut second);
    let waiting = live(&tieline, "stage=acquire");
    assert_eq!(waiting[0]["client"], third.local_addr().unwrap().to_string());
    let told = story(&tieline, &row_of(&tieline, &third));
    assert!(told.contains("waits for a place, 1 ahead"), "{told}");
    drop(second);
    assert_echoes(&mut third);
    assert_eq!(echo.accepted(), 3);
}

#[test]
fn who_waits_too_long_for_room_is_told_so() {
    let echo = TcpServer::echo();
    let upstream = "pool = { size = 1 }\ntimeouts = { acquire = \"300ms\" }";
    let (tieline, address) = start(&OneRoute { upstream, ..OneRoute::default() }.to(&[echo.address()]));
    let mut holder = connect_relayed(address, 1).remove(0);
    assert_eq!(refusal(&tieline, address), "timeout:acquire");
    assert_echoes(&mut holder);
}

// Schedules and access.

#[test]
fn a_closed_schedule_refuses_and_ends_what_lives_after_the_grace() {
    let echo = TcpServer::echo();
    let closed = format!("schedule = \"{} 00:00-24:00\"\ngrace = \"8s\"", another_day());
    let closed = OneRoute { route: &closed, ..OneRoute::default() }.to(&[echo.address()]);
    let open = OneRoute { route: "schedule = \"Mon-Sun 00:00-24:00\"", ..OneRoute::default() };
    let (tieline, address) = start(&closed);
    assert_eq!(refusal(&tieline, address), "refused:schedule");
    tieline.reload(&open.to(&[echo.address()]));
    let mut client = connect_relayed(address, 1).remove(0);
    let begin = Clock::now();
    tieline.reload(&closed);
    assert_eq!(refusal(&tieline, address), "refused:schedule");
    assert_echoes(&mut client);
    assert_closed(&client);
    assert!(Clock::now().since(begin) >= Duration::from_secs(8));
    assert_eq!(reason_of(&tieline, &client), "schedule");
}

/// The window of today that closes with the next minute that is at least `room` away, in UTC; and how long
/// that is.
fn closing_soon(room: Duration) -> (String, Duration) {
    let now = Clock::wall().duration_since(UNIX_EPOCH).unwrap();
    let closes = (now + room).as_secs().div_ceil(60) * 60;
    let (hour, minute) = (closes / 3_600 % 24, closes / 60 % 60);
    // A window may end at 24:00, and begins at 00:00 then; one that ends past midnight begins before it.
    let begin = if (hour, minute) == (0, 0) { "12:00" } else { "00:00" };
    (format!("Mon-Sun {begin}-{hour:02}:{minute:02} UTC"), Duration::from_secs(closes) - now)
}

#[test]
fn a_schedule_that_closes_by_itself_ends_what_lives() {
    let echo = TcpServer::echo();
    let (window, open_for) = closing_soon(Duration::from_secs(20));
    let route = format!("schedule = \"{window}\"\ngrace = \"0s\"");
    let begin = Clock::now();
    let (tieline, address) = start(&OneRoute { route: &route, ..OneRoute::default() }.to(&[echo.address()]));
    let mut client = connect_relayed(address, 1).remove(0);
    std::thread::sleep(open_for.saturating_sub(Clock::now().since(begin) + Duration::from_secs(10)));
    assert_echoes(&mut client);
    assert!(wait_until(open_for + PATIENCE, || !echoes(&mut client)));
    // To the second, as its wall clock and ours may differ.
    let lived = Clock::now().since(begin);
    assert!(lived + Duration::from_secs(1) >= open_for, "closed after {lived:?} instead of {open_for:?}");
    assert_eq!(reason_of(&tieline, &client), "schedule");
    assert_eq!(refusal(&tieline, address), "refused:schedule");
}

#[test]
fn policy_refuses_whom_it_does_not_name_and_the_story_tells_its_line() {
    let echo = TcpServer::echo();
    let route = "access = \"policy\"\nallow = { from = [\"127.0.0.2\"] }";
    let config = OneRoute { route, ..OneRoute::default() }.to(&[echo.address()]);
    let (tieline, address) = start(&config);
    let stranger = connect(address);
    assert_closed(&stranger);
    assert_eq!(reason_of(&tieline, &stranger), "refused:policy");
    let told = story(&tieline, &row_of(&tieline, &stranger));
    assert!(told.contains(&format!("not allowed by {}", rule(&config))), "{told}");
    let mut known = connect_from([127, 0, 0, 2], address);
    assert_echoes(&mut known);
    let told = story(&tieline, &row_of(&tieline, &known));
    assert!(told.contains(&format!("allowed by {}", rule(&config))), "{told}");
    assert_eq!(echo.accepted(), 1);
}

/// How stories name the policy of the one route of `config`.
fn rule(config: &str) -> String {
    let line = 1 + config.lines().position(|line| line == "[[listener.web.route]]").unwrap();
    format!("allow.from of route \"service\" (tieline.toml:{line})")
}

// Reload.

/// Two listeners, each with an upstream of its own; `more` is added.
fn two_listeners(one: SocketAddr, two: SocketAddr, more: &str) -> String {
    let block = |name: &str, endpoint: SocketAddr| {
        format!(
            "[listener.{name}]\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
             route = [{{ upstream = \"{name}\", access = \"public\", grace = \"8s\" }}]\n\
             [upstream.{name}]\nendpoints = [\"{endpoint}\"]\n"
        )
    };
    format!("[server]\nworkers = 2\n{}{}{more}", block("web", one), block("other", two))
}

/// Sends `bytes` and reads them back, while `meanwhile` runs.
fn assert_survives(stream: TcpStream, bytes: Vec<u8>, meanwhile: impl FnOnce()) -> TcpStream {
    let mut reader = stream.try_clone().unwrap();
    let length = bytes.len();
    let expected = bytes.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || (&stream).write_all(&bytes).unwrap());
        let received = scope.spawn(move || {
            let mut received = vec![0; length];
            reader.read_exact(&mut received).unwrap();
            assert!(received == expected, "bytes were lost or changed");
            reader
        });
        meanwhile();
        received.join().unwrap()
    })
}

#[test]
fn a_reload_leaves_unrelated_connections_alone() {
    let (one, two) = (TcpServer::echo(), TcpServer::echo());
    let (tieline, address) = start(&two_listeners(one.address(), two.address(), ""));
    let mut still = connect_relayed(address, 20);
    let ids = |tieline: &Tieline| -> Vec<u64> {
        live(tieline, "listener=web").iter().map(|row| row["id"].as_u64().unwrap()).collect()
    };
    let before = ids(&tieline);
    let bytes: Vec<u8> = (0..24u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let stream = still.pop().unwrap();
    let stream = assert_survives(stream, bytes, || {
        for size in 1..=10 {
            let more = format!("pool = {{ size = {size} }}\n");
            tieline.reload(&two_listeners(one.address(), two.address(), &more));
        }
        let third = format!("[upstream.third]\nendpoints = [\"{}\"]\n", one.address());
        tieline.reload(&two_listeners(one.address(), two.address(), &third));
    });
    still.push(stream);
    still.iter_mut().for_each(assert_echoes);
    assert_eq!(ids(&tieline), before, "the same connections, none made anew");
    assert_eq!((one.accepted(), tieline.metric("tieline_config_generation")), (20, 12.0));
    assert_eq!(tieline.listener_address("web"), address);
}

#[test]
fn a_removed_listener_ends_its_connections_in_the_grace_and_no_others() {
    let (one, two) = (TcpServer::echo(), TcpServer::echo());
    let both = two_listeners(one.address(), two.address(), "");
    let (tieline, address) = start(&both);
    let removed = tieline.listener_address("other");
    let (mut stays, mut leaves) = (connect_relayed(address, 5), connect_relayed(removed, 5));
    let begin = Clock::now();
    tieline.reload(&both[..both.find("[listener.other]").unwrap()]);
    leaves.iter_mut().for_each(assert_echoes);
    leaves.iter().for_each(assert_closed);
    assert!(Clock::now().since(begin) >= Duration::from_secs(8), "the grace was cut short");
    for client in &leaves {
        assert_eq!(reason_of(&tieline, client), "revoked");
    }
    let told = story(&tieline, &row_of(&tieline, &leaves[0]));
    assert!(told.contains("listener \"other\" is gone"), "{told}");
    assert!(TcpStream::connect(removed).is_err(), "it still accepts");
    stays.iter_mut().for_each(assert_echoes);
}

/// A TLS hello that asks for `name` and offers nothing a server would take (RFC 8446 §4.1.2, RFC 6066 §3).
fn hello(name: &str) -> Vec<u8> {
    let sized = |bytes: Vec<u8>| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat();
    let names = sized([&[0][..], &sized(name.as_bytes().to_vec())].concat());
    let extensions = sized([&[0, 0][..], &sized(names)].concat());
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &extensions].concat();
    let message = [&[1, 0][..], &sized(body)].concat();
    [&[22, 3, 1][..], &sized(message)].concat()
}

#[test]
fn a_removed_route_ends_its_connections_in_the_grace_and_spares_its_neighbours() {
    let echo = TcpServer::echo();
    let with = |routes: &[&str]| {
        let routes = routes.iter().map(|name| {
            let matched = format!("name = \"{name}\", sni = \"{name}.test\"");
            format!("{{ {matched}, upstream = \"echo\", access = \"public\", grace = \"300ms\" }}")
        });
        let routes: Vec<String> = routes.collect();
        format!(
            "[listener.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\nroute = [{}]\n\
             [upstream.echo]\nendpoints = [\"{}\"]\n",
            routes.join(", "),
            echo.address()
        )
    };
    let (tieline, address) = start(&with(&["shop", "mail"]));
    let [mut shop, mail] = ["shop.test", "mail.test"].map(|name| {
        let (mut client, hello) = (connect(address), hello(name));
        client.write_all(&hello).unwrap();
        let mut heard = vec![0; hello.len()];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(heard, hello, "the hello arrives as it was sent");
        client
    });
    tieline.reload(&with(&["shop"]));
    assert_closed(&mail);
    assert_eq!(reason_of(&tieline, &mail), "revoked");
    let told = story(&tieline, &row_of(&tieline, &mail));
    assert!(told.contains("route \"mail\" is gone"), "{told}");
    assert_echoes(&mut shop);
}

#[test]
fn a_change_of_policy_ends_what_it_forbids_at_once_and_the_story_names_the_rule() {
    let echo = TcpServer::echo();
    let config = |from: &str| {
        let route = format!("access = \"policy\"\ngrace = \"10m\"\nallow = {{ from = [{from}] }}");
        OneRoute { route: &route, ..OneRoute::default() }.to(&[echo.address()])
    };
    let (tieline, address) = start(&config("\"127.0.0.1\", \"127.0.0.2\""));
    let mut allowed = connect_from([127, 0, 0, 2], address);
    assert_echoes(&mut allowed);
    let forbidden = connect_relayed(address, 3);
    let stricter = config("\"127.0.0.2\"");
    tieline.reload(&stricter);
    for client in &forbidden {
        assert_closed(client);
        assert_eq!(reason_of(&tieline, client), "revoked");
    }
    let told = story(&tieline, &row_of(&tieline, &forbidden[0]));
    assert!(told.contains(&format!("reload: not allowed by {}", rule(&stricter))), "{told}");
    assert_echoes(&mut allowed);
}

#[test]
fn a_refused_reload_changes_nothing_and_names_the_line() {
    let echo = TcpServer::echo();
    let config = OneRoute::default().to(&[echo.address()]);
    let (tieline, address) = start(&config);
    let mut client = connect_relayed(address, 1).remove(0);
    let wrong = config.replace("upstream = \"service\"", "upstream = \"servise\"");
    let line = 1 + wrong.lines().position(|line| line.contains("servise")).unwrap();
    let refused = tieline.try_reload(&wrong);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let place = format!("tieline.toml:{line}:");
    assert!(refused.stderr.contains(&place) && refused.stderr.contains("servise"), "{refused:?}");
    assert_echoes(&mut client);
    assert_echoes(&mut connect(address));
    assert_eq!(tieline.metric("tieline_config_generation"), 1.0);
    assert_eq!(tieline.metric("tieline_config_reloads_total{result=\"failure\"}"), 1.0);
}

#[test]
fn a_reload_that_cannot_listen_changes_nothing() {
    let (echo, taken) = (TcpServer::echo(), TcpServer::echo());
    let config = OneRoute::default().to(&[echo.address()]);
    let (tieline, address) = start(&config);
    let more = format!(
        "[listener.more]\nbind = \"{}\"\nprotocol = \"tcp\"\nroute = [{{ upstream = \"service\" }}]\n",
        taken.address()
    );
    let refused = tieline.try_reload(&format!("{config}{more}"));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains(&taken.address().to_string()), "{refused:?}");
    assert_echoes(&mut connect(address));
    assert_eq!(tieline.get("/api/v1/listeners").as_array().unwrap().len(), 1);
}

// Operators.

#[test]
fn a_drained_endpoint_gets_nothing_new_loses_what_it_has_and_comes_back() {
    let (a, b) = (TcpServer::named("a"), TcpServer::named("b"));
    let config = OneRoute {
        listener: "timeouts = { drain = \"300ms\" }",
        upstream: "balance = \"round-robin\"",
        ..OneRoute::default()
    };
    let (tieline, address) = start(&config.to(&[a.address(), b.address()]));
    let mut clients: BTreeMap<u8, TcpStream> = BTreeMap::new();
    for _ in 0..2 {
        let mut client = connect(address);
        let mut name = [0];
        client.read_exact(&mut name).unwrap();
        clients.insert(name[0], client);
    }
    let path = format!("/api/v1/upstreams/service/endpoints/{}", a.address());
    assert_eq!(order(&tieline, &format!("{path}/drain"))["matched"], 1);
    assert_closed(&clients[&b'a']);
    assert_eq!(reason_of(&tieline, &clients[&b'a']), "drained");
    assert!((0..6).all(|_| name_heard(address) == Some(b'b')));
    assert_echoes(clients.get_mut(&b'b').unwrap());
    order(&tieline, &format!("{path}/enable"));
    assert!(wait_until(PATIENCE, || name_heard(address) == Some(b'a')));
}

#[test]
fn a_drained_listener_refuses_until_it_is_enabled() {
    let echo = TcpServer::echo();
    let config = OneRoute { listener: "timeouts = { drain = \"300ms\" }", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[echo.address()]));
    let client = connect_relayed(address, 1).remove(0);
    assert_eq!(order(&tieline, "/api/v1/listeners/web/drain")["matched"], 1);
    assert_eq!(refusal(&tieline, address), "refused:draining");
    assert_closed(&client);
    assert_eq!(reason_of(&tieline, &client), "drained");
    order(&tieline, "/api/v1/listeners/web/enable");
    assert_echoes(&mut connect(address));
}

#[test]
fn a_kill_ends_what_its_filter_names_with_the_operators_words() {
    let echo = TcpServer::echo();
    let (tieline, address) = start(&OneRoute::default().to(&[echo.address()]));
    let mut spared = connect_from([127, 0, 0, 2], address);
    assert_echoes(&mut spared);
    let victims = connect_relayed(address, 4);
    let body = json!({ "filter": "remote=127.0.0.1", "reason": "no more of it" });
    let answer = tieline.api("POST", "/api/v1/connections/kill", &body);
    // How many have ended when it is answered depends on how busy the machine is.
    assert_eq!((answer.0, &answer.1["matched"]), (200, &json!(4)));
    victims.iter().for_each(assert_closed);
    let rows = await_finished(&tieline, "reason=killed", 4);
    assert!(story(&tieline, &rows[0]).contains("killed by an operator: no more of it"));
    assert_echoes(&mut spared);
    spared.shutdown(Shutdown::Both).unwrap();
    await_finished(&tieline, "reason!=killed", 1);
}
