//! A server that stops, and links that are asked to leave: what goes through them has its time.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use tieline_base::Clock;
use tieline_testkit::{PATIENCE, TcpServer, wait_until};

use crate::site::{Site, TCP, server_draining};
use crate::support::{
    assert_closed, assert_echoes, await_finished, connect, connect_relayed, echoes, order_with,
};

#[test]
fn a_stop_does_not_wait_for_links_that_carry_nothing() {
    let echo = TcpServer::echo();
    let mut site = Site::of(server_draining("10m", TCP), echo.address());
    site.server.signal(Signal::TERM);
    assert!(site.server.wait_end(PATIENCE).expect("it does not wait for ten minutes").success());
    let told = || site.agent.process().log().contains("the other side ended the link: draining");
    assert!(wait_until(PATIENCE, told), "{}", site.agent.process().log());
}

#[test]
fn a_stop_gives_streams_the_time_of_their_own_listener() {
    let echo = TcpServer::echo();
    let web = TCP.replace("protocol = \"tcp\"", "protocol = \"tcp\"\ntimeouts = { drain = \"10m\" }");
    let mut site = Site::of(server_draining("100ms", &web), echo.address());
    let mut client = connect_relayed(site.address(), 1).remove(0);
    let address = site.address();
    site.server.signal(Signal::TERM);
    let draining = || TcpStream::connect(address).is_err();
    assert!(wait_until(PATIENCE, draining));
    let begin = Clock::now();
    while Clock::now().since(begin) < Duration::from_secs(1) {
        assert_echoes(&mut client);
    }
    drop(client);
    assert!(site.server.wait_end(PATIENCE).expect("its last stream has ended").success());
}

#[test]
fn a_link_that_is_drained_goes_on_over_another_connection_with_all_its_streams() {
    let echo = TcpServer::echo();
    let site = Site::of(server_draining("20s", TCP), echo.address());
    let mut clients = connect_relayed(site.address(), 3);
    let row = site.await_link();
    let filter = serde_json::json!({ "filter": format!("id={}", row["id"]) });
    order_with(&site.server, "/api/v1/connections/drain", &filter);
    await_finished(&site.server, "listener=gate reason=moved", 1);
    clients.iter_mut().for_each(assert_echoes);
    assert_ne!(site.await_link()["id"], row["id"]);
    assert_eq!(echo.accepted(), 3, "the streams are the same");
}

#[test]
fn an_agent_is_told_that_its_link_is_ended_and_its_services_see_a_reset() {
    let echo = TcpServer::echo();
    let mut site = Site::start(TCP, echo.address());
    let mut client = connect_relayed(site.address(), 1).remove(0);
    client.write_all(b"ping").unwrap();
    let filter = serde_json::json!({ "filter": format!("id={}", site.await_link()["id"]) });
    order_with(&site.server, "/api/v1/connections/kill", &filter);
    assert_closed(&client);
    let told = || site.agent.process().log().contains("the other side ended the link: killed");
    assert!(wait_until(PATIENCE, told), "{}", site.agent.process().log());
    assert!(wait_until(PATIENCE, || echo.open() == 0));
    assert!(wait_until(PATIENCE, || echoes(&mut connect(site.address()))));
}
