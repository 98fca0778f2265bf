//! What `tieline agents` says of the packets that a link loses.

use tieline_testkit::{Agent, PATIENCE, TcpServer, UdpCable, wait_until};

use crate::site::{Site, TCP, offer, server};
use crate::support::{assert_echoes, await_live, connect_relayed};

/// One datagram in so many is lost.
const ONE_IN: u64 = 5;

#[test]
fn what_a_link_loses_over_quic_is_told_and_forgotten_with_its_connection() {
    let echo = TcpServer::echo();
    let (server, cable) = server(TCP);
    let udp = UdpCable::beside(&cable);
    let lines = format!("carriers = [\"quic\"]\n{}", offer(echo.address()));
    let agent = Agent::join(&server, "plant-7", cable.address(), &lines);
    let site = Site { agent, cable, server };
    await_live(&site.server, "listener=gate carrier=quic stage=relay", 1);
    let mut client = connect_relayed(site.address(), 1).remove(0);
    let loss = || site.server.get("/api/v1/agents")[0]["links"][0]["loss_percent"].as_f64();
    let mut told_after_echoes = |expected: fn(f64) -> bool| {
        wait_until(PATIENCE, || {
            assert_echoes(&mut client);
            loss().is_some_and(expected)
        })
    };
    assert!(told_after_echoes(|percent| percent < 5.0), "{:?}", loss());
    udp.lose(ONE_IN);
    assert!(told_after_echoes(|percent| percent > 5.0), "{:?}", loss());
    let table = site.server.cli(["agents"]).expect("tieline agents");
    let line = table.lines().find(|line| line.starts_with("plant-7")).unwrap();
    assert!(table.contains("LOSS") && line.contains('%'), "{table}");
}

#[test]
fn over_tls_the_kernel_says_what_went_again() {
    let echo = TcpServer::echo();
    // Nothing is lost on this machine's own way to itself.
    let site = Site::start(TCP, echo.address());
    let mut client = connect_relayed(site.address(), 1).remove(0);
    let told = || {
        assert_echoes(&mut client);
        site.server.get("/api/v1/agents")[0]["links"][0]["loss_percent"] == 0.0
    };
    assert!(wait_until(PATIENCE, told), "{}", site.server.get("/api/v1/agents"));
}
