//! Datagrams of UDP through a tunnel: by `tieline connect --listen udp:` to what an agent offers as `udp:`.

use std::net::SocketAddr;
use std::process::Command;

use tieline_testkit::{
    Agent, Dnsmasq, PATIENCE, TcpServer, Tieline, UdpCable, UdpClient, UdpEcho, free_port, loopback,
    wait_for, wait_until,
};

use crate::carriers::await_carrier;
use crate::people::{Connect, Desk, ROUTES};
use crate::site::{offer, server};
use crate::support::{await_finished, await_live, finished, live, story};

/// The offer of datagrams to `to`.
fn offer_udp(to: SocketAddr) -> String {
    format!("[offer.service]\nto = \"udp:{to}\"\n")
}

/// What a flow's row is found by.
const FLOWS: &str = "identity=ana parent>0 stage=relay";

/// `tieline connect` to the service at a local address of UDP, and that.
#[track_caller]
fn listen(desk: &Desk, token: &str) -> (Connect, SocketAddr) {
    let ana = desk.connect(token, &["plant-7/service", "--listen", "udp:127.0.0.1:0"]);
    let address = ana.address();
    (ana, address)
}

/// Waits until a datagram comes back: each may be lost, and the first is while the link is not up.
#[track_caller]
fn assert_echoes(client: &UdpClient, text: &str) {
    assert!(wait_until(PATIENCE, || client.echoes(text.as_bytes())), "nothing comes back of {text:?}");
}

#[test]
fn names_are_looked_up_at_a_far_site() {
    let dns = Dnsmasq::start(&[("db.test", "127.0.0.2")]);
    let desk = Desk::with(ROUTES, &offer_udp(dns.address()));
    let (_ana, address) = listen(&desk, &desk.ana());
    let found = || Dnsmasq::lookup_at(address, "db.test") == dns.lookup("db.test");
    assert!(wait_until(PATIENCE, found), "{:#?}", live(&desk.server, ""));
    let flow = await_live(&desk.server, FLOWS, 1).remove(0);
    assert_eq!((&flow["endpoint"], &flow["route"]), (&"agent:plant-7/service".into(), &"support".into()));
    let bytes = |way: &str| flow[way].as_u64().unwrap();
    assert!(bytes("bytes_up") > 20 && bytes("bytes_down") > bytes("bytes_up"), "{flow:#?}");
    // Whoever asks from a new port has a flow of his own; the oldest make room, and all are answered.
    for _ in 0..200 {
        assert!(wait_until(PATIENCE, found));
    }
    assert!(wait_until(PATIENCE, || live(&desk.server, FLOWS).len() <= 128));
    assert!(desk.server.cli(["kill", "identity=ana", "parent>0"]).success());
    let killed = await_finished(&desk.server, "identity=ana parent>0 reason=killed", 1);
    assert!(story(&desk.server, &killed[0]).contains("1 datagrams from the client, 1 to it, 0 dropped here"));
    assert!(wait_until(PATIENCE, found), "the next datagram begins another flow");
}

#[test]
fn datagrams_of_any_length_go_over_quic_and_over_tls() {
    let echo = UdpEcho::start();
    let (server, cable) = server(ROUTES);
    let desk = Desk::of(server, cable, &offer_udp(echo.address()));
    assert_every_length(&listen(&desk, &desk.ana()));
    // Past the cables, which lead no UDP.
    let gate = desk.server.listener_address("gate");
    let mut agent = Agent::join(&desk.server, "plant-7", gate, &offer_udp(echo.address()));
    await_carrier(&desk.server, &mut agent, "quic");
    let token = desk.ana();
    let over_quic = || {
        let ana = listen_at(gate, &token);
        let rows = live(&desk.server, "identity=ana carrier=quic stage=relay");
        (!rows.is_empty()).then_some(ana)
    };
    // On a machine that is slow just now TLS may be there first.
    assert_every_length(&wait_for(PATIENCE, over_quic).expect("QUIC is open"));
}

/// `tieline connect` to the server at `gate`, once its link is up.
fn listen_at(gate: SocketAddr, token: &str) -> (Connect, SocketAddr) {
    let mut command = Command::new(Tieline::binary());
    command.args(["connect", "plant-7/service", "--listen", "udp:127.0.0.1:0", "--server"]);
    command.arg(gate.to_string()).env("TIELINE_TOKEN", token);
    let ana = Connect::start(command);
    let address = ana.address();
    assert_echoes(&UdpClient::to(address), "up");
    (ana, address)
}

#[track_caller]
fn assert_every_length((_, address): &(Connect, SocketAddr)) {
    let client = UdpClient::to(*address);
    assert_echoes(&client, "up");
    for length in [0, 1, 1_000, 1_162, 1_200, 1_400, 1_452, 9_000, 40_000, 65_507] {
        let datagram: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
        assert!(wait_until(PATIENCE, || client.echoes(&datagram)), "nothing comes back of {length} bytes");
    }
}

#[test]
fn a_flow_goes_on_after_cuts_on_either_side() {
    let echo = UdpEcho::start();
    let desk = Desk::with(ROUTES, &offer_udp(echo.address()));
    let (_ana, address) = listen(&desk, &desk.ana());
    let client = UdpClient::to(address);
    assert_echoes(&client, "before");
    let flow = await_live(&desk.server, FLOWS, 1).remove(0);
    for (number, cable) in [&desk.people, &desk.agents, &desk.people].into_iter().enumerate() {
        cable.cut();
        assert_echoes(&client, &format!("after cut {number}"));
    }
    let same = await_live(&desk.server, FLOWS, 1).remove(0);
    assert_eq!(flow["id"], same["id"]);
    let told = story(&desk.server, &same);
    assert!(told.contains("goes on over connection") && told.contains("goes on here"), "{told}");
}

#[test]
fn a_port_that_refuses_ends_the_flow_and_is_told() {
    let desk = Desk::with(ROUTES, &offer_udp(loopback(free_port())));
    let (ana, address) = listen(&desk, &desk.ana());
    let client = UdpClient::to(address);
    let refused = || {
        client.send(b"anybody?");
        !finished(&desk.server, "identity=ana parent>0 reason=unreachable").is_empty()
    };
    assert!(wait_until(PATIENCE, refused), "{:#?}", live(&desk.server, ""));
    ana.hears("unreachable");
}

#[test]
fn a_service_is_asked_for_as_what_it_is() {
    let (echo, stream) = (UdpEcho::start(), TcpServer::echo());
    let offers = offer_udp(echo.address()) + &offer(stream.address()).replace("service", "stream");
    let desk = Desk::with(ROUTES, &offers);
    let token = desk.ana();
    let refused = desk.refused(&token, "plant-7/service");
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    assert!(refused.stderr.contains("it takes datagrams alone: tieline connect"), "{}", refused.stderr);
    let ana = desk.connect(&token, &["plant-7/stream", "--listen", "udp:127.0.0.1:0"]);
    let client = UdpClient::to(ana.address());
    // The first was the one before.
    let refused = || {
        client.send(b"anybody?");
        finished(&desk.server, "identity=ana parent>0 reason=unreachable").len() > 1
    };
    assert!(wait_until(PATIENCE, refused), "{:#?}", live(&desk.server, ""));
    ana.hears("it takes no datagrams");
}

#[test]
fn a_flow_is_allowed_and_ended_as_a_stream_is() {
    let echo = UdpEcho::start();
    let desk = Desk::with(ROUTES, &offer_udp(echo.address()));
    let (eve, address) = listen(&desk, &desk.token(&["eve"]));
    let client = UdpClient::to(address);
    let refused = || {
        client.send(b"let me in");
        !finished(&desk.server, "identity=eve parent>0 reason=refused:policy").is_empty()
    };
    assert!(wait_until(PATIENCE, refused), "{:#?}", live(&desk.server, ""));
    eve.hears("there is no such service, or it is not for you");
    assert_eq!(client.hear(), None);
    let (mut ana, address) = listen(&desk, &desk.ana());
    let client = UdpClient::to(address);
    assert_echoes(&client, "allowed");
    await_live(&desk.server, FLOWS, 1);
    desk.server.cli(["token", "revoke", "ana"]).expect("revoke");
    assert_eq!(ana.code(), 3);
    await_finished(&desk.server, "identity=ana parent>0 reason=revoked", 1);
}

#[test]
fn one_person_has_so_many_flows_and_no_more() {
    let echo = UdpEcho::start();
    let desk = Desk::with(ROUTES, &offer_udp(echo.address()));
    let service = "plant-7/service=udp:127.0.0.1:0";
    let ana = desk.connect(&desk.ana(), &[service, service, service]);
    let addresses: [SocketAddr; 3] = std::array::from_fn(|_| ana.address());
    let clients: Vec<UdpClient> =
        addresses.iter().flat_map(|address| (0..100).map(|_| UdpClient::to(*address))).collect();
    assert_echoes(&clients[0], "up");
    clients.iter().for_each(|client| client.send(b"one of many"));
    ana.hears("too many flows at once");
    assert!(live(&desk.server, FLOWS).len() <= 256);
    // Those who have one keep it.
    assert_echoes(&clients[0], "still here");
}

#[test]
fn a_flow_goes_on_over_tls_where_udp_is_swallowed() {
    let echo = UdpEcho::start();
    let mut desk = Desk::with(ROUTES, &offer_udp(echo.address()));
    let paths = [&desk.people, &desk.agents].map(UdpCable::beside);
    await_carrier(&desk.server, &mut desk.agent, "quic");
    let (_ana, address) = listen(&desk, &desk.ana());
    let client = UdpClient::to(address);
    assert_echoes(&client, "before");
    let flow = await_live(&desk.server, FLOWS, 1).remove(0);
    paths.iter().for_each(|path| path.block(true));
    assert_echoes(&client, "after");
    await_live(&desk.server, "identity=agent:plant-7 carrier=tls stage=relay", 1);
    assert_eq!(await_live(&desk.server, FLOWS, 1)[0]["id"], flow["id"]);
}
