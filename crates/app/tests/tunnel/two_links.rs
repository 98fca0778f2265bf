//! Agents with two links: one may be down, and what is new goes over the other.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use tieline_testkit::{Agent, Cable, PATIENCE, TcpServer, Tieline, wait_until};

use crate::site::{TCP, offer, server};
use crate::support::{
    assert_closed, assert_echoes, await_finished, await_live, connect, connect_relayed, echoes, live,
};

/// A server, and an agent that reaches it by two cables.
struct Two {
    agent: Agent,
    cables: [Cable; 2],
    server: Tieline,
}

impl Two {
    /// With an agent that offers `to`, and both of its links are up.
    fn start(to: SocketAddr) -> Two {
        let soon = "protocol = \"tcp\"\ntimeouts = { drain = \"1s\" }";
        let (server, first) = server(&TCP.replace("protocol = \"tcp\"", soon));
        let second = Cable::to(first.leads_to());
        let mut agent = Agent::join(&server, "plant-7", first.address(), &offer(to));
        agent.process().kill();
        let text = format!(
            "[agent]\nserver = [\"{}\", \"{}\"]\nfolder = \"me\"\n{}",
            first.address(),
            second.address(),
            offer(to)
        );
        std::fs::write(agent.directory().join("agent.toml"), text).unwrap();
        agent.start();
        let two = Two { agent, cables: [first, second], server };
        two.await_links(2);
        two
    }

    #[track_caller]
    fn await_links(&self, count: usize) {
        let up = || self.links().iter().filter(|link| link["attached"] == true).count() == count;
        assert!(wait_until(PATIENCE, up), "{:#?}", live(&self.server, ""));
    }

    /// As the list of agents has them, in the order of the cables.
    fn links(&self) -> Vec<Value> {
        let listed = self.server.get("/api/v1/agents");
        listed[0]["links"].as_array().cloned().unwrap_or_default()
    }

    fn streams(&self) -> Vec<u64> {
        self.links().iter().map(|link| link["streams"].as_u64().unwrap()).collect()
    }

    fn address(&self) -> SocketAddr {
        self.server.listener_address("web")
    }
}

#[test]
fn two_links_of_one_agent_share_its_streams_and_are_both_shown() {
    let echo = TcpServer::echo();
    let mut two = Two::start(echo.address());
    let _clients = connect_relayed(two.address(), 6);
    assert_eq!(two.streams(), [3, 3]);
    let table = two.server.cli(["agents"]).expect("tieline agents");
    assert_eq!(table.matches("plant-7  linked").count(), 2, "{table}");
    let listed = two.server.get("/api/v1/agents");
    assert_eq!((&listed[0]["state"], &listed[0]["copied"]), (&"linked".into(), &false.into()));
    await_live(&two.server, "listener=gate identity=agent:plant-7 stage=relay", 2);
    let log = two.server.log();
    assert!(!log.contains("take turns"), "one process is no copy of itself: {log}");
    assert!(two.agent.process().is_running());
}

#[test]
fn a_stream_opened_while_one_link_is_down_goes_over_the_other_at_once() {
    let echo = TcpServer::echo();
    let two = Two::start(echo.address());
    let mut clients = connect_relayed(two.address(), 2);
    assert_eq!(two.streams(), [1, 1]);
    // Nobody can be reached by the first cable, and whoever is linked up by it waits.
    two.cables[0].refuse(true);
    two.cables[0].cut();
    two.await_links(1);
    let mut more = connect_relayed(two.address(), 4);
    assert_eq!(two.streams(), [1, 5]);
    let waits = two.links()[0].clone();
    assert_eq!(waits["attached"], false);
    // Each stream stays with its link.
    two.cables[0].refuse(false);
    two.await_links(2);
    clients.iter_mut().chain(&mut more).for_each(assert_echoes);
    assert_eq!(echo.accepted(), 6, "the streams are the same");
    assert_eq!(two.streams(), [1, 5]);
}

#[test]
fn what_is_new_gets_round_a_link_that_swallows_everything() {
    let echo = TcpServer::echo();
    let two = Two::start(echo.address());
    let mut clients = connect_relayed(two.address(), 2);
    assert_eq!(two.streams(), [1, 1]);
    two.cables[0].refuse(true);
    two.cables[0].block();
    // One of them is of the link that goes nowhere.
    let pass = || clients.iter_mut().map(echoes_soon).filter(|passes| *passes).count() == 1;
    assert!(wait_until(PATIENCE, pass), "{:#?}", live(&two.server, ""));
    let all_pass = || (0..4).all(|_| echoes_soon(&mut connect(two.address())));
    assert!(wait_until(PATIENCE, all_pass));
}

/// [`echoes`] within a second.
fn echoes_soon(client: &mut TcpStream) -> bool {
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let there = echoes(client);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    there
}

#[test]
fn an_agent_that_comes_back_takes_both_of_its_places() {
    let echo = TcpServer::echo();
    let mut two = Two::start(echo.address());
    let clients = connect_relayed(two.address(), 2);
    // It tells nobody.
    two.agent.process().kill();
    two.agent.start();
    clients.iter().for_each(assert_closed);
    assert!(wait_until(PATIENCE, || echoes(&mut connect(two.address()))));
    two.await_links(2);
    assert_eq!(two.links().len(), 2);
    two.server.cli(["agent", "revoke", "plant-7"]).expect("revoke");
    await_finished(&two.server, "listener=gate reason=revoked", 2);
}
