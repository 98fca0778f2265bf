//! Which network a link goes through, and over what: QUIC where UDP passes, TLS where it does not,
//! WebSockets where TLS does not either, and back.

use std::fs::Permissions;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tieline_base::Clock;
use tieline_testkit::{
    Agent, Authority, HttpProxy, Nginx, PATIENCE, TcpServer, Tieline, UdpCable, finish, free_port, loopback,
    wait_for, wait_until,
};

use crate::oracle::Oracle;
use crate::site::{Site, TCP, offer, server};
use crate::support::{assert_echoes, await_finished, await_live, connect, connect_relayed, echoes, live};

impl Site {
    /// Waits until the link is carried over `carrier`.
    #[track_caller]
    fn await_carrier(&mut self, carrier: &str) {
        await_carrier(&self.server, &mut self.agent, carrier);
    }

    /// Tells the agent that its network has changed.
    fn rouse(&mut self) {
        self.agent.process().signal(Signal::HUP);
    }
}

/// How long QUIC may take before the agent is told to look for it again: on a machine that is slow just now
/// TLS may have been there first.
const QUIC_MAX: Duration = Duration::from_secs(3);

/// Waits until the link of `agent` is carried over `carrier`; hands back its row.
#[track_caller]
pub(crate) fn await_carrier(server: &Tieline, agent: &mut Agent, carrier: &str) -> Value {
    let filter = format!("listener=gate carrier={carrier} stage=relay");
    let deadline = Clock::now().after(PATIENCE);
    while Clock::now() < deadline {
        if let Some(row) = wait_for(QUIC_MAX, || live(server, &filter).pop()) {
            return row;
        }
        if carrier == "quic" {
            agent.process().signal(Signal::HUP);
        }
    }
    panic!("not over {carrier}: {:#?}\n{}", live(server, ""), agent.process().log());
}

#[test]
fn a_link_goes_over_quic_where_udp_passes() {
    let echo = TcpServer::echo();
    let (server, _cable) = server(TCP);
    let gate = server.listener_address("gate");
    let mut agent = Agent::join(&server, "plant-7", gate, &offer(echo.address()));
    let works = || echoes(&mut connect(server.listener_address("web")));
    assert!(wait_until(PATIENCE, works), "{}", agent.process().log());
    let link = await_carrier(&server, &mut agent, "quic");
    assert_eq!((&link["identity"], &link["protocol"]), (&"agent:plant-7".into(), &"tunnel".into()));
    let (list, story) = (server.cli(["ls", "listener=gate"]), server.cli(["show", &link["id"].to_string()]));
    assert!(list.expect("ls").contains("over quic"));
    assert!(story.expect("show").contains("carrier   quic"));
    // What is sent and refused is as it is over TLS.
    let mut clients = connect_relayed(server.listener_address("web"), 8);
    clients.iter_mut().for_each(assert_echoes);
    drop(clients);
    assert!(wait_until(PATIENCE, || echo.open() == 0));
    server.cli(["agent", "revoke", "plant-7"]).expect("revoke");
    await_finished(&server, "listener=gate carrier=quic reason=revoked", 1);
    assert!(wait_until(PATIENCE, || agent.process().log().contains("it may not link up")));
    assert!(agent.process().is_running());
}

#[test]
fn an_agent_that_stops_says_so_over_quic_too() {
    let echo = TcpServer::echo();
    let (server, _cable) = server(TCP);
    let gate = server.listener_address("gate");
    let mut agent = Agent::join(&server, "plant-7", gate, &offer(echo.address()));
    // It knows that it is linked up when it serves.
    assert!(wait_until(PATIENCE, || echoes(&mut connect(server.listener_address("web")))));
    await_carrier(&server, &mut agent, "quic");
    assert!(wait_until(PATIENCE, || echoes(&mut connect(server.listener_address("web")))));
    agent.process().signal(Signal::TERM);
    assert!(agent.process().wait_end(PATIENCE).unwrap().success());
    // Nobody waits for it to come back.
    await_finished(&server, "listener=gate carrier=quic reason=client-closed", 1);
}

#[test]
fn a_listener_may_do_without_quic() {
    let echo = TcpServer::echo();
    let (server, _cable) = server(TCP);
    let gate = server.listener_address("gate");
    assert!(UdpSocket::bind(gate).is_err(), "the port is taken for UDP, too");
    let mut agent = Agent::join(&server, "plant-7", gate, &offer(echo.address()));
    await_carrier(&server, &mut agent, "quic");
    let mut client = connect_relayed(server.listener_address("web"), 1).remove(0);
    // New links go over TLS; the streams of the one that lives are not concerned.
    let file = std::fs::read_to_string(server.config_file()).unwrap();
    server.reload(&file.replace("protocol = \"tunnel\"", "protocol = \"tunnel\"\nquic = false"));
    assert_echoes(&mut client);
    agent.process().kill();
    agent.start();
    await_live(&server, "listener=gate carrier=tls stage=relay", 1);
}

#[test]
fn where_udp_is_swallowed_a_link_goes_over_tls() {
    let echo = TcpServer::echo();
    let (server, cable) = server(TCP);
    let udp = UdpCable::beside(&cable);
    udp.block(true);
    let agent = Agent::join(&server, "plant-7", cable.address(), &offer(echo.address()));
    let mut site = Site { agent, cable, server };
    site.await_carrier("tls");
    assert_echoes(&mut connect_relayed(site.address(), 1)[0]);
    // Once it passes again, the link moves as soon as somebody says so.
    udp.block(false);
    let mut client = connect_relayed(site.address(), 1).remove(0);
    site.rouse();
    site.await_carrier("quic");
    assert_echoes(&mut client);
    assert_eq!(echo.accepted(), 2, "the stream is the same");
    // Once for each time that it was told, which takes seconds each.
    let looked = site.agent.process().log().matches("the network may have changed").count();
    assert!(looked < 20, "it looked {looked} times");
}

#[test]
fn another_address_of_the_same_agent_costs_no_resume() {
    let echo = TcpServer::echo();
    let (server, cable) = server(TCP);
    let udp = UdpCable::beside(&cable);
    let agent = Agent::join(&server, "plant-7", cable.address(), &offer(echo.address()));
    let mut site = Site { agent, cable, server };
    site.await_carrier("quic");
    let mut client = connect_relayed(site.address(), 1).remove(0);
    let before = site.await_link()["id"].clone();
    for _ in 0..3 {
        udp.rebind();
        assert_echoes(&mut client);
    }
    assert_eq!(site.await_link()["id"], before);
}

/// Down and up again, so often.
const ROUNDS: usize = 3;

/// What must come through in each direction on each carrier.
const STEP: u64 = 256 << 10;

#[test]
fn a_stream_loses_no_byte_while_its_link_falls_to_tls_and_heals_to_quic() {
    let oracle = Oracle::start();
    // Nothing listens for UDP yet.
    let mut site = Site::start(TCP, oracle.address());
    site.await_carrier("tls");
    let client = connect(site.address());
    oracle.during(&client, || {
        oracle.moves(STEP, "over TLS");
        for _ in 0..ROUNDS {
            let udp = UdpCable::beside(&site.cable);
            site.rouse();
            site.await_carrier("quic");
            oracle.moves(STEP, "over QUIC");
            // From now on every packet is lost, and nobody is told.
            udp.block(true);
            site.await_carrier("tls");
            oracle.moves(STEP, "over TLS again");
        }
    });
    await_finished(&site.server, "listener=gate reason=moved carrier=tls", ROUNDS);
    await_finished(&site.server, "listener=gate reason=moved carrier=quic", ROUNDS);
}

#[test]
fn nonsense_at_the_port_of_udp_disturbs_nobody() {
    let echo = TcpServer::echo();
    let (server, _cable) = server(TCP);
    let gate = server.listener_address("gate");
    let mut agent = Agent::join(&server, "plant-7", gate, &offer(echo.address()));
    await_carrier(&server, &mut agent, "quic");
    let mut client = connect_relayed(server.listener_address("web"), 1).remove(0);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in 0..1_400 {
        let mut datagram = vec![0xc3; length];
        // Some look like the first packet of version 1, with ids of all lengths.
        if length > 30 {
            datagram[1..5].copy_from_slice(&[0, 0, 0, u8::from(length % 2 == 0)]);
            datagram[5] = (length % 25) as u8;
        }
        stranger.send_to(&datagram, gate).unwrap();
    }
    assert_echoes(&mut client);
    await_carrier(&server, &mut agent, "quic");
}

/// What an agent's file says behind its server and folder, and its offer.
fn told(lines: &str, to: SocketAddr) -> String {
    format!("{lines}\n{}", offer(to))
}

#[test]
fn a_link_goes_inside_a_websocket_and_resumes_like_any_other() {
    let echo = TcpServer::echo();
    let (server, cable) = server(TCP);
    let lines = told("carriers = [\"websocket\"]", echo.address());
    let agent = Agent::join(&server, "plant-7", cable.address(), &lines);
    let mut site = Site { agent, cable, server };
    site.await_carrier("websocket");
    let link = site.await_link();
    assert_eq!(link["identity"], "agent:plant-7");
    let mut clients = connect_relayed(site.address(), 4);
    for _ in 0..3 {
        site.cable.cut();
        clients.iter_mut().for_each(assert_echoes);
    }
    site.cable.block();
    clients.iter_mut().for_each(assert_echoes);
    assert_eq!(echo.accepted(), 4, "the streams are the same");
    await_finished(&site.server, "listener=gate carrier=websocket reason=moved", 1);
}

#[test]
fn a_long_transfer_inside_a_websocket_is_whole() {
    let oracle = Oracle::start();
    let (server, cable) = server(TCP);
    let lines = told("carriers = [\"websocket\"]", oracle.address());
    let agent = Agent::join(&server, "plant-7", cable.address(), &lines);
    let mut site = Site { agent, cable, server };
    site.await_carrier("websocket");
    let client = connect(site.address());
    oracle.during(&client, || oracle.moves(16 * STEP, "inside a WebSocket"));
}

#[test]
fn where_somebody_looks_into_tls_an_agent_joins_and_links_up_inside_a_websocket() {
    let echo = TcpServer::echo();
    let (server, _cable) = server(TCP);
    let gate = server.listener_address("gate");
    // It shows a certificate of its own, and passes on what is HTTP.
    let authority = Authority::new();
    let (pair, front) = (authority.server(&["gate.test"]), loopback(free_port()));
    let (chain, key) = (pair.certificate.display(), pair.key.display());
    let body = format!(
        "server {{ listen {front} ssl; ssl_certificate {chain}; ssl_certificate_key {key}; \
         location / {{ proxy_pass https://{gate}; proxy_ssl_protocols TLSv1.3; proxy_http_version 1.1; \
         proxy_set_header Host $host; \
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}"
    );
    let _nginx = Nginx::http(&body, front);
    let mut agent = Agent::join(&server, "plant-7", front, &offer(echo.address()));
    await_live(&server, "listener=gate carrier=websocket stage=relay", 1);
    let works = || echoes(&mut connect(server.listener_address("web")));
    assert!(wait_until(PATIENCE, works), "{}", agent.process().log());
    let link = await_live(&server, "listener=gate stage=relay", 1).remove(0);
    assert_eq!(link["identity"], "agent:plant-7");
}

#[test]
fn a_proxy_is_passed_by_who_says_who_he_is() {
    let echo = TcpServer::echo();
    let (server, _cable) = server(TCP);
    let gate = server.listener_address("gate");
    // plant-7:s3cret%
    let proxy = HttpProxy::asking(Some("Basic cGxhbnQtNzpzM2NyZXQl"));
    let lines = |file: &str| {
        let keys = format!(
            "carriers = [\"tls\", \"websocket\"]\nproxy = \"http://{}\"\nproxy_user = \"plant-7\"\n\
             proxy_password_file = \"{file}\"",
            proxy.address()
        );
        told(&keys, echo.address())
    };
    let secrets = tempfile::tempdir().unwrap();
    let written = |name: &str, text: &str| {
        let path = secrets.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let environment = format!("HTTPS_PROXY=http://plant-7:s3cret%25@{}", proxy.address());
    let tool = ["env", &environment];
    let wrong = lines(&written("wrong", "guessed\n"));
    let mut agent = Agent::join_under(&Tieline::binary(), &tool, &server, "plant-7", gate, &wrong);
    assert_eq!(proxy.connected(), 1, "it joined through the proxy");
    let asked = || agent.process().log().contains("wants to know who asks");
    assert!(wait_until(PATIENCE, asked), "the file is heard before the environment");
    agent.process().kill();
    let right =
        format!("[agent]\nserver = \"{gate}\"\nfolder = \"me\"\n{}", lines(&written("right", "s3cret%\n")));
    std::fs::write(agent.directory().join("agent.toml"), right).unwrap();
    agent.start();
    await_live(&server, "listener=gate carrier=tls stage=relay", 1);
    assert!(!agent.process().log().contains("s3cret"));
    let works = || echoes(&mut connect(server.listener_address("web")));
    assert!(wait_until(PATIENCE, works), "{}", agent.process().log());
    let mut client = connect_relayed(server.listener_address("web"), 1).remove(0);
    let before = proxy.connected();
    proxy.cut();
    assert_echoes(&mut client);
    assert!(proxy.connected() > before, "it came back through the proxy");
}

#[test]
fn the_environment_names_a_proxy_and_what_is_reached_past_it() {
    let echo = TcpServer::echo();
    let (server, cable) = server(TCP);
    let proxy = HttpProxy::start();
    let lines = told("carriers = [\"websocket\"]", echo.address());
    let named = format!("HTTPS_PROXY=http://{}", proxy.address());
    let at = cable.address();
    let _past = Agent::join_under(
        &Tieline::binary(),
        &["env", &named, "NO_PROXY=example.com,127.0.0.0/8"],
        &server,
        "plant-8",
        at,
        &lines,
    );
    await_live(&server, "listener=gate identity=agent:plant-8 stage=relay", 1);
    assert_eq!(proxy.connected(), 0);
    let _through = Agent::join_under(&Tieline::binary(), &["env", &named], &server, "plant-7", at, &lines);
    await_live(&server, "listener=gate carrier=websocket identity=agent:plant-7 stage=relay", 1);
    assert!(proxy.connected() >= 2);
}

#[test]
fn who_asks_the_gate_for_a_page_is_told_that_it_has_none() {
    let (server, _cable) = server(TCP);
    let gate = server.listener_address("gate");
    let mut curl = Command::new("curl");
    let got =
        finish(curl.args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", &format!("https://{gate}/")]));
    assert_eq!(got.stdout, "426");
    await_finished(&server, "listener=gate reason=protocol-error", 1);
}

#[test]
fn the_limits_of_a_listener_are_for_clients_of_quic_too() {
    let echo = TcpServer::echo();
    let (server, _cable) = server(TCP);
    let gate = server.listener_address("gate");
    let lines = told("carriers = [\"quic\"]", echo.address());
    let mut first = Agent::join(&server, "plant-7", gate, &lines);
    let mut second = Agent::join(&server, "plant-8", gate, &lines);
    let linked = |agent: &str| format!("listener=gate carrier=quic stage=relay identity=agent:{agent}");
    await_live(&server, &linked("plant-8"), 1);
    // It knows of its link when it is asked to leave, and says so.
    assert!(wait_until(PATIENCE, || second.process().log().contains("linked up")));
    second.process().signal(Signal::TERM);
    assert!(second.process().wait_end(PATIENCE).unwrap().success());
    await_live(&server, &linked("plant-7"), 1);
    await_live(&server, "listener=gate", 1);
    let file = std::fs::read_to_string(server.config_file()).unwrap();
    let full = "protocol = \"tunnel\"\nlimits = { connections = 1 }";
    server.reload(&file.replace("protocol = \"tunnel\"", full));
    second.start();
    await_finished(&server, "listener=gate reason=limit:connections", 1);
    assert!(wait_until(PATIENCE, || second.process().log().contains("cannot link up: QUIC")));
    server.reload(&file);
    await_live(&server, &linked("plant-8"), 1);
    assert!(first.process().is_running());
}
