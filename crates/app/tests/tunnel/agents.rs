//! Agents come, go, come back, and are sent away.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use rustix::process::Signal;
use tieline_base::Clock;
use tieline_testkit::{Agent, PATIENCE, TcpServer, wait_until};

use crate::site::{Site, TCP, offer, server};
use crate::support::{
    assert_closed, assert_echoes, await_finished, await_live, connect, connect_relayed, echoes, finished,
    order_with, refusal, row_of, story,
};

#[test]
fn an_endpoint_behind_an_agent_is_an_endpoint_like_any_other() {
    let echo = TcpServer::echo();
    let site = Site::start(TCP, echo.address());
    let link = site.await_link();
    assert_eq!(link["identity"], "agent:plant-7");
    assert_eq!((&link["listener"], &link["route"]), (&"gate".into(), &"links".into()));
    let clients = connect_relayed(site.address(), 8);
    let rows = await_live(&site.server, "listener=web stage=relay", 8);
    assert!(rows.iter().all(|row| row["endpoint"] == "agent:plant-7/service"), "{rows:#?}");
    drop(clients);
    await_live(&site.server, "listener=web", 0);
    assert!(wait_until(PATIENCE, || echo.open() == 0), "what nobody uses is closed at the far side, too");
}

#[test]
fn ends_and_breaks_pass_through_as_what_they_are() {
    let echo = TcpServer::echo();
    let site = Site::start(TCP, echo.address());
    // What one side has said all of, the other may still answer.
    let mut client = connect(site.address());
    client.write_all(b"all there is").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "all there is");
    // A service that breaks off does not look like one that is done.
    let mut client = connect_relayed(site.address(), 1).remove(0);
    echo.reset_all();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_absent_agent_is_an_unreachable_endpoint_that_says_so_and_comes_back() {
    let echo = TcpServer::echo();
    let (server, cable) = server(TCP);
    let address = server.listener_address("web");
    assert_eq!(refusal(&server, address), "unreachable");
    let told = story(&server, &finished(&server, "listener=web")[0]);
    assert!(told.contains("agent \"plant-7\" is not linked up"), "{told}");

    let mut agent = Agent::join(&server, "plant-7", cable.address(), &offer(echo.address()));
    let works = || echoes(&mut connect(address));
    assert!(wait_until(PATIENCE, works), "{}", agent.process().log());

    // Killed, it tells nobody; the one that comes back takes its place, and its streams are gone.
    let mut old = connect_relayed(address, 1).remove(0);
    agent.process().kill();
    agent.start();
    assert_eq!(old.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(wait_until(PATIENCE, works), "{}", agent.process().log());
    await_live(&server, "listener=gate", 1);

    // Stopped in order, it says so: nobody waits for it.
    let mut old = connect_relayed(address, 1).remove(0);
    agent.process().signal(Signal::TERM);
    assert_eq!(old.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(agent.process().wait_end(PATIENCE).unwrap().success());
    await_live(&server, "", 0);
    assert_eq!(refusal(&server, address), "unreachable");
}

#[test]
fn every_agent_that_joined_is_listed_with_its_link_or_without() {
    let echo = TcpServer::echo();
    let (server, cable) = server(TCP);
    assert_eq!(server.get("/api/v1/agents"), serde_json::json!([]));
    let labels = ["site=berlin", "tier=edge"];
    let offers = offer(echo.address());
    let mut agent = Agent::join_labelled(&server, "plant-7", &labels, cable.address(), &offers);
    let one = || server.get("/api/v1/agents")[0].clone();
    assert!(wait_until(PATIENCE, || one()["state"] == "linked"), "{}", one());
    let _clients = connect_relayed(server.listener_address("web"), 2);
    let link = await_live(&server, "listener=gate", 1).remove(0);
    let listed = one();
    assert_eq!(listed["labels"], serde_json::json!({ "site": "berlin", "tier": "edge" }));
    assert_eq!((&listed["name"], &listed["copied"]), (&"plant-7".into(), &false.into()));
    assert_eq!(listed["version"], env!("CARGO_PKG_VERSION"));
    assert!(listed["certificate_seconds"].as_u64().unwrap() > 80_000, "{listed}");
    let shown = &listed["links"][0];
    assert_eq!((&shown["connection"], &shown["client"]), (&link["id"], &link["client"]));
    assert_eq!((&shown["carrier"], &shown["streams"]), (&link["carrier"], &2.into()));
    let table = server.cli(["agents"]).expect("tieline agents");
    assert!(table.contains("site=berlin,tier=edge") && table.contains("linked"), "{table}");
    agent.process().signal(Signal::TERM);
    assert!(wait_until(PATIENCE, || one()["state"] == "away"), "{}", one());
    assert!(one()["away_seconds"].is_number() && one()["links"] == serde_json::json!([]), "{}", one());
}

#[test]
fn what_is_not_offered_cannot_be_reached() {
    let echo = TcpServer::echo();
    let config =
        TCP.replace("service", "other") + "[upstream.other]\nendpoints = [\"agent:plant-7/admin\"]\n";
    let site = Site::start(&config, echo.address());
    assert_eq!(refusal(&site.server, site.address()), "unreachable");
    let told = story(&site.server, &finished(&site.server, "listener=web")[0]);
    assert!(told.contains("offers no"), "{told}");
    assert_eq!(echo.accepted(), 0);
}

#[test]
fn a_service_that_is_down_is_told_apart_from_an_agent_that_is() {
    let echo = TcpServer::echo();
    let address = echo.address();
    let site = Site::start(TCP, address);
    drop(echo);
    assert_eq!(refusal(&site.server, site.address()), "unreachable");
    let told = story(&site.server, &finished(&site.server, "listener=web")[0]);
    assert!(told.contains("the service does not answer: connection refused"), "{told}");
    let _back = TcpServer::echo_at(address);
    assert!(wait_until(PATIENCE, || echoes(&mut connect(site.address()))));
}

#[test]
fn a_revoked_agent_loses_its_streams_within_a_second_and_links_up_no_more() {
    let echo = TcpServer::echo();
    let mut site = Site::start(TCP, echo.address());
    let clients = connect_relayed(site.address(), 4);
    site.server.cli(["agent", "revoke", "plant-7"]).expect("tieline agent revoke");
    let begin = Clock::now();
    clients.iter().for_each(assert_closed);
    // It is looked for four times a second; the rest is what a loaded machine adds.
    assert!(Clock::now().since(begin) < Duration::from_secs(10));
    await_finished(&site.server, "listener=gate reason=revoked", 1);
    await_finished(&site.server, "listener=gate reason=refused:certificate", 1);
    assert_eq!(refusal(&site.server, site.address()), "unreachable");
    let log = site.agent.process().log();
    assert!(log.contains("it may not link up"), "{log}");
    assert!(site.agent.process().is_running(), "it asks again later, and never falls over");
}

#[test]
fn a_certificate_is_renewed_and_the_link_goes_on_by_the_new_one_with_all_its_streams() {
    let echo = TcpServer::echo();
    let mut site = Site::start(TCP, echo.address());
    let known = || site.server.known_agent("plant-7")["good"].as_array().unwrap().clone();
    let mut client = connect_relayed(site.address(), 1).remove(0);
    // More than half of its life is over.
    site.agent.age(&site.server, "plant-7", Duration::from_secs(20 * 3600));
    let before = known();
    // As after a sleep of the machine.
    site.agent.process().signal(Signal::HUP);
    await_finished(&site.server, "listener=gate reason=moved", 1);
    assert_echoes(&mut client);
    // The old one is good until the new one is used.
    assert!(wait_until(PATIENCE, || known().len() == 1 && known() != before), "{before:?} {:?}", known());
    let log = site.agent.process().log();
    assert!(log.contains("the certificate was renewed"), "{log}");
}

#[test]
fn whoever_kills_a_links_row_kills_its_streams_and_the_agent_begins_anew() {
    let echo = TcpServer::echo();
    let site = Site::start(TCP, echo.address());
    let client = connect_relayed(site.address(), 1).remove(0);
    let filter = serde_json::json!({ "filter": format!("id={}", site.await_link()["id"]) });
    order_with(&site.server, "/api/v1/connections/kill", &filter);
    assert_closed(&client);
    await_finished(&site.server, "listener=gate reason=killed", 1);
    let works = || echoes(&mut connect(site.address()));
    assert!(wait_until(PATIENCE, works));
}

#[test]
fn a_killed_client_leaves_the_others_of_the_link_alone() {
    let echo = TcpServer::echo();
    let site = Site::start(TCP, echo.address());
    let mut clients = connect_relayed(site.address(), 2);
    let filter = serde_json::json!({ "filter": format!("id={}", row_of(&site.server, &clients[0])["id"]) });
    order_with(&site.server, "/api/v1/connections/kill", &filter);
    assert_closed(&clients[0]);
    assert_echoes(&mut clients[1]);
    assert!(wait_until(PATIENCE, || echo.open() == 1), "{} are open", echo.open());
}

#[test]
fn a_reload_ends_links_only_where_their_listener_is_gone() {
    let echo = TcpServer::echo();
    let site = Site::start(TCP, echo.address());
    let mut client = connect_relayed(site.address(), 1).remove(0);
    let file = std::fs::read_to_string(site.server.config_file()).unwrap();
    site.server.reload(&format!("{file}\n[group.nobody]\nmembers = [\"x\"]\n"));
    assert_echoes(&mut client);
    // One to join by, one for the link; one more where the machine stood still for seconds.
    assert!(site.cable.accepted() <= 3, "{}", site.cable.accepted());
    site.server.reload(&format!("{TCP}[upstream.service]\nendpoints = [\"{}\"]\n", echo.address()));
    await_finished(&site.server, "listener=gate reason=revoked", 1);
    assert!(wait_until(PATIENCE, || echoes(&mut connect(site.address()))));
}
