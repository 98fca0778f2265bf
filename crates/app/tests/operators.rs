//! The verbs of operators, as they type them.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]

mod support;

use serde_json::Value;
use tieline_testkit::{PATIENCE, TcpServer, Tieline, loopback, wait_until};

use support::{
    OneRoute, assert_closed, assert_echoes, await_finished, connect, connect_relayed, live, name_heard,
    reason_of, refusal, row_of, start,
};

fn echo_server(listener: &str) -> (TcpServer, Tieline, std::net::SocketAddr) {
    let echo = TcpServer::echo();
    let (tieline, address) = start(&OneRoute { listener, ..OneRoute::default() }.to(&[echo.address()]));
    (echo, tieline, address)
}

#[test]
fn ls_lists_who_is_there_for_people_and_for_programs() {
    let (echo, tieline, address) = echo_server("");
    let clients = connect_relayed(address, 3);
    let table = tieline.cli(["ls", "listener=web", "stage=relay"]).expect("ls");
    assert_eq!(table.lines().count(), 1 + clients.len(), "{table}");
    for client in &clients {
        assert!(table.contains(&client.local_addr().unwrap().to_string()), "{table}");
    }
    assert!(table.contains(&echo.address().to_string()), "{table}");
    let rows: Value = serde_json::from_str(&tieline.cli(["ls", "--json"]).expect("ls --json")).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), clients.len());
    drop(clients);
    await_finished(&tieline, "", 3);
    assert_eq!(tieline.cli(["ls"]).expect("ls").lines().count(), 1);
    let finished = tieline.cli(["ls", "--finished"]).expect("ls --finished");
    assert_eq!(finished.matches("client-closed").count(), 3, "{finished}");
}

#[test]
fn show_tells_the_whole_story_and_a_wrong_id_fails_in_one_line() {
    let (echo, tieline, address) = echo_server("");
    let client = connect_relayed(address, 1).remove(0);
    let id = row_of(&tieline, &client)["id"].to_string();
    let told = tieline.cli(["show", &id]).expect("show");
    for part in ["accept", "route \"service\"", "tieline.toml:", &echo.address().to_string(), "relay"] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
    let json: Value = serde_json::from_str(&tieline.cli(["show", "--json", &id]).expect("show")).unwrap();
    assert_eq!(json["id"].to_string(), id);
    let unknown = tieline.cli(["show", "4711"]);
    assert_eq!((unknown.code, unknown.stderr.lines().count()), (Some(1), 1), "{unknown:?}");
    assert!(unknown.stdout.is_empty());
}

#[test]
fn kill_ends_what_is_named_and_nothing_unnamed() {
    let (_echo, tieline, address) = echo_server("");
    let [one, mut two]: [_; 2] = connect_relayed(address, 2).try_into().unwrap();
    let id = row_of(&tieline, &one)["id"].to_string();
    let nothing = tieline.cli(["kill"]);
    assert!(!nothing.success(), "a kill without a filter must name what it means: {nothing:?}");
    tieline.cli(["kill", &format!("id={id}"), "--reason", "enough"]).expect("kill");
    assert_closed(&one);
    assert_eq!(reason_of(&tieline, &one), "killed");
    assert!(tieline.cli(["show", &id]).expect("show").contains("killed by an operator: enough"));
    assert_echoes(&mut two);
    tieline.cli(["kill", "--all"]).expect("kill --all");
    assert_closed(&two);
}

#[test]
fn a_filter_that_is_none_is_refused_and_ends_nobody() {
    let (_echo, tieline, address) = echo_server("");
    let mut client = connect_relayed(address, 1).remove(0);
    for verb in ["ls", "kill", "drain"] {
        let refused = tieline.cli([verb, "listner=web"]);
        assert!(!refused.success() && refused.stderr.contains("listner"), "{verb}: {refused:?}");
    }
    assert_echoes(&mut client);
}

#[test]
fn drain_lets_connections_finish_until_their_time_is_over() {
    let (_echo, tieline, address) = echo_server("timeouts = { drain = \"8s\" }");
    let mut client = connect_relayed(address, 1).remove(0);
    tieline.cli(["drain", "listener=web"]).expect("drain");
    assert_echoes(&mut client);
    assert_closed(&client);
    assert_eq!(reason_of(&tieline, &client), "drained");
    assert_echoes(&mut connect(address));
}

#[test]
fn drain_by_several_words_touches_only_what_all_of_them_name() {
    let (_echo, tieline, address) = echo_server("timeouts = { drain = \"100ms\" }");
    let mut clients = connect_relayed(address, 2);
    let id = row_of(&tieline, &clients[0])["id"].to_string();
    tieline.cli(["drain", "listener=web", &format!("id={id}")]).expect("drain");
    assert_closed(&clients[0]);
    assert_eq!(reason_of(&tieline, &clients[0]), "drained");
    assert_echoes(&mut clients[1]);
}

#[test]
fn listeners_and_endpoints_are_drained_and_enabled_by_name() {
    let (a, b) = (TcpServer::named("a"), TcpServer::named("b"));
    let config = OneRoute { upstream: "balance = \"round-robin\"", ..OneRoute::default() };
    let (tieline, address) = start(&config.to(&[a.address(), b.address()]));
    let endpoint = format!("service/{}", a.address());
    tieline.cli(["drain", "--endpoint", &endpoint]).expect("drain --endpoint");
    assert!((0..4).all(|_| name_heard(address) == Some(b'b')));
    tieline.cli(["enable", "--endpoint", &endpoint]).expect("enable --endpoint");
    assert!(wait_until(PATIENCE, || name_heard(address) == Some(b'a')));
    tieline.cli(["drain", "--listener", "web"]).expect("drain --listener");
    assert_eq!(refusal(&tieline, address), "refused:draining");
    tieline.cli(["enable", "--listener", "web"]).expect("enable --listener");
    assert!(name_heard(address).is_some());
    let unknown = tieline.cli(["drain", "--listener", "wep"]);
    assert_eq!((unknown.code, unknown.stderr.lines().count()), (Some(1), 1), "{unknown:?}");
}

#[test]
fn stop_drains_waits_and_now_means_at_once() {
    let (_echo, mut tieline, address) = echo_server("timeouts = { drain = \"10m\" }");
    let clients = connect_relayed(address, 2);
    tieline.cli(["stop", "--no-wait"]).expect("stop --no-wait");
    assert!(wait_until(PATIENCE, || tieline.log().contains("draining")));
    assert_eq!(live(&tieline, "").len(), 2);
    tieline.cli(["stop", "--now"]).expect("stop --now");
    clients.iter().for_each(assert_closed);
    assert!(tieline.wait_end(PATIENCE).is_some_and(|status| status.success()), "{}", tieline.log());
    assert!(!tieline.admin_socket().exists(), "the socket is left behind");
    let nobody = tieline.cli(["ls"]);
    assert_eq!((nobody.code, nobody.stderr.lines().count()), (Some(1), 1), "{nobody:?}");
    assert!(nobody.stderr.contains("tieline run"), "it does not say what to do: {nobody:?}");
}

#[test]
fn verbs_reach_a_server_over_the_network_with_its_token() {
    let (echo, admin) = (TcpServer::echo(), loopback(tieline_testkit::free_port()));
    let config = OneRoute::default().to(&[echo.address()]);
    let (tieline, address) = start(&format!("{config}[admin]\nlisten = \"{admin}\"\n"));
    let _client = connect_relayed(address, 1);
    let (url, token) = (format!("http://{admin}"), tieline.data().join("admin.token"));
    let remote = ["ls", "--json", "--admin", &url, "--token-file"];
    let listed = tieline.cli(remote.iter().copied().chain([token.to_str().unwrap()])).expect("ls --admin");
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap().as_array().unwrap().len(), 1);
    let wrong = tieline.directory().join("wrong.token");
    std::fs::write(&wrong, "wrong").unwrap();
    let refused = tieline.cli(remote.iter().copied().chain([wrong.to_str().unwrap()]));
    assert_eq!(refused.code, Some(1), "{refused:?}");
}

#[test]
fn wrong_usage_ends_with_code_two() {
    let (_echo, mut tieline, _) = echo_server("");
    for arguments in [&["frobnicate"][..], &["ls", "--frobnicate"], &["show"], &[]] {
        assert_eq!(tieline.cli(arguments).code, Some(2), "{arguments:?}");
    }
    assert!(tieline.stop().success());
}
