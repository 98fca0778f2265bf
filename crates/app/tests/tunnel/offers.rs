//! What an agent offers: told to its server, changed while it runs, at sockets of every kind.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::{Value, json};
use tieline_testkit::{PATIENCE, Postgres, TcpServer, Tieline, wait_until};

use crate::site::{Site, TCP, offer};
use crate::support::{
    assert_closed, assert_echoes, connect, connect_relayed, echoes, finished, refusal, story,
};

/// The offers of the agent `plant-7` as the server knows them.
fn offers(server: &Tieline) -> Value {
    server.get("/api/v1/agents")[0]["links"][0]["offers"].clone()
}

fn named(name: &str, to: SocketAddr) -> String {
    offer(to).replace("service", name)
}

/// The listener `web`, and `other` that leads to what `plant-7` offers as `other`.
fn two_ways() -> String {
    let other = TCP.replace("listener.web", "listener.other").replace("\"service\"", "\"other\"");
    format!("{TCP}{other}[upstream.other]\nendpoints = [\"agent:plant-7/other\"]\n")
}

#[test]
fn the_server_knows_what_an_agent_offers_and_refuses_the_rest_itself() {
    let echo = TcpServer::echo();
    let site = Site::start(&two_ways(), echo.address());
    assert!(wait_until(PATIENCE, || offers(&site.server) == json!([{ "name": "service", "kind": "tcp" }])));
    let table = site.server.cli(["agents"]).expect("tieline agents");
    let columns = |line: &str| line.split_whitespace().last().unwrap_or_default().to_owned();
    assert_eq!(table.lines().map(columns).collect::<Vec<_>>(), ["OFFERS", "service"], "{table}");
    let json = site.server.cli(["agents", "--json"]).expect("tieline agents --json");
    assert!(json.contains("\"offers\"") && !json.contains(&echo.address().to_string()), "{json}");
    let other = site.server.listener_address("other");
    assert_eq!(refusal(&site.server, other), "unreachable");
    let told = story(&site.server, &finished(&site.server, "listener=other")[0]);
    assert!(told.contains("agent \"plant-7\" offers no \"other\"; it offers service"), "{told}");
}

#[test]
fn a_changed_file_is_obeyed_on_sighup_and_a_broken_one_changes_nothing() {
    let (first, second) = (TcpServer::echo(), TcpServer::echo());
    let mut site = Site::start(&two_ways(), first.address());
    let (web, other) = (site.address(), site.server.listener_address("other"));
    let gone = connect_relayed(web, 1).remove(0);
    let at = site.cable.address();
    // One comes, the other stays: nobody is disturbed.
    site.agent.offer(at, &format!("{}{}", offer(first.address()), named("other", second.address())));
    site.agent.process().signal(Signal::HUP);
    assert!(wait_until(PATIENCE, || echoes(&mut connect(other))), "{}", site.agent.process().log());
    assert_eq!(first.open(), 1);
    let mut stays = connect_relayed(other, 1).remove(0);
    // A slip.
    site.agent.offer(at, "[offer.other]\nto = \"nowhere\"\n");
    site.agent.process().signal(Signal::HUP);
    let told = |site: &mut Site, words: &str| site.agent.process().log().contains(words);
    assert!(wait_until(PATIENCE, || told(&mut site, "the offers stay as they were: ")));
    assert!(told(&mut site, "\"nowhere\" has no port"), "{}", site.agent.process().log());
    assert_echoes(&mut stays);
    // One goes: what went there is broken off, and nothing else is.
    site.agent.offer(at, &named("other", second.address()));
    site.agent.process().signal(Signal::HUP);
    assert_closed(&gone);
    assert!(wait_until(PATIENCE, || first.open() == 0));
    assert_echoes(&mut stays);
    assert!(wait_until(PATIENCE, || offers(&site.server) == json!([{ "name": "other", "kind": "tcp" }])));
    assert_eq!(refusal(&site.server, web), "unreachable");
    // It is elsewhere now.
    site.agent.offer(at, &named("other", first.address()));
    site.agent.process().signal(Signal::HUP);
    assert_closed(&stays);
    assert_echoes(&mut connect(other));
    assert_eq!(first.open(), 1);
}

#[test]
fn a_database_at_a_unix_socket_is_offered_like_any_other() {
    let postgres = Postgres::start();
    let config = "protocol = \"postgres\"\ntls = \"off\"\n\
                  [listener.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
                  [[listener.web.route]]\nupstream = \"service\"\naccess = \"public\"\n";
    let mut site = Site::start(config, postgres.address());
    let socket = postgres.socket_directory().join(format!(".s.PGSQL.{}", postgres.address().port()));
    let unix = format!("[offer.service]\nto = \"unix:{}\"\n", socket.display());
    site.agent.offer(site.cable.address(), &unix);
    site.agent.process().signal(Signal::HUP);
    assert!(wait_until(PATIENCE, || offers(&site.server) == json!([{ "name": "service", "kind": "unix" }])));
    let asked = postgres.psql(site.address(), "postgres", &["-Atc", "select inet_server_addr() is null"]);
    assert_eq!(asked.expect("psql").trim(), "t", "a client of the unix socket has no address");
}
