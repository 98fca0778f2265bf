//! `tieline doctor`: what lets a link through and what does not, and what is said of it.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tieline_testkit::{
    Agent, Authority, Cable, Finished, HttpProxy, Nginx, PATIENCE, TcpServer, Tieline, UdpCable, finish,
    free_port, loopback, wait_until,
};

use crate::site::{Site, TCP, offer, server};
use crate::support::{await_finished, await_live, finished};

/// `tieline doctor`, in an environment that names no proxy.
fn doctor(arguments: &[&str]) -> Command {
    let mut command = Command::new(Tieline::binary());
    command.arg("doctor").args(arguments);
    for name in ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    command
}

/// What it says, whatever its exit code.
struct Said {
    report: Value,
    code: Option<i32>,
}

impl Said {
    fn of(command: &mut Command) -> Said {
        let Finished { code, stdout, stderr } = finish(command.arg("--json"));
        let report =
            serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
        Said { report, code }
    }

    /// Of `address`, with nothing else said.
    fn at(address: SocketAddr) -> Said {
        Said::of(&mut doctor(&[&address.to_string()]))
    }

    /// The state and the text of a check.
    #[track_caller]
    fn check(&self, name: &str) -> (&str, &str) {
        let checks = self.report["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["check"] == name);
        let found = found.unwrap_or_else(|| panic!("no {name}: {:#}", self.report));
        (found["state"].as_str().unwrap(), found["text"].as_str().unwrap())
    }

    #[track_caller]
    fn assert(&self, name: &str, state: &str, words: &str) {
        let (found, text) = self.check(name);
        assert!(
            found == state && text.contains(words),
            "{name}: {found} {text}; not {state} {words}\n{:#}",
            self.report
        );
    }

    /// Whether that passes at all; on a busy machine it may be slow.
    #[track_caller]
    fn assert_passes(&self, name: &str) {
        let (state, text) = self.check(name);
        assert!(["ok", "slow"].contains(&state), "{name}: {state} {text}\n{:#}", self.report);
    }

    #[track_caller]
    fn assert_verdict(&self, carriers: &[&str], code: i32) {
        assert_eq!(
            (&self.report["carriers"], self.code),
            (&carriers.into(), Some(code)),
            "{:#}",
            self.report
        );
    }
}

#[test]
fn an_open_network_is_told_way_by_way_and_the_server_is_not_alarmed() {
    let (server, _cable) = server(TCP);
    let gate = server.listener_address("gate");
    let said = Said::at(gate);
    for check in ["TCP over v4", "UDP over v4", "QUIC over v4", "TLS", "WebSocket"] {
        said.assert_passes(check);
    }
    said.assert("name", "ok", "127.0.0.1");
    said.assert("MTU", "ok", "1452 bytes pass");
    said.assert("QUIC over v6", "none", "no address of this family");
    said.assert("TLS on the way", "ok", "nobody looks into it");
    said.assert("clock", "ok", "from the server's");
    said.assert("proxy", "none", "");
    said.assert_verdict(&["quic", "tls", "websocket"], 0);
    let verdict = "a link will go over QUIC; behind it TLS, WebSocket";
    assert_eq!(said.report["verdict"], verdict);
    // The same for people, a line for each check.
    let text = finish(&mut doctor(&[&gate.to_string()])).expect("tieline doctor");
    assert!(text.trim_end().ends_with(&format!("\n{gate}: {verdict}")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("ok       MTU ")), "{text}");
    // What is left of it at the server: rows that say what they were, and no warning.
    await_finished(&server, "listener=gate reason=answered", 6);
    assert_eq!(finished(&server, "listener=gate reason=refused:certificate").len(), 0);
    let log = server.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[test]
fn where_udp_is_swallowed_the_doctor_says_so_and_that_tls_will_do() {
    let (_server, cable) = server(TCP);
    let udp = UdpCable::beside(&cable);
    udp.block(true);
    let said = Said::at(cable.address());
    let port = format!("let UDP port {} out", cable.address().port());
    said.assert("UDP over v4", "blocked", &port);
    said.assert("QUIC over v4", "blocked", &port);
    said.assert_passes("TLS");
    said.assert_verdict(&["tls", "websocket"], 0);
    assert_eq!(said.report["verdict"], "a link will go over TLS; behind it WebSocket");
    udp.block(false);
    Said::at(cable.address()).assert_verdict(&["quic", "tls", "websocket"], 0);
}

#[test]
fn what_is_refused_is_told_from_what_is_swallowed() {
    let (_server, cable) = server(TCP);
    // Nobody is at the port of UDP beside the cable.
    let said = Said::at(cable.address());
    said.assert("UDP over v4", "blocked", "refused: nothing listens at UDP port");
    said.assert("QUIC over v4", "blocked", "refused: nothing listens at UDP port");
    said.assert_verdict(&["tls", "websocket"], 0);
    let nobody = loopback(free_port());
    let said = Said::at(nobody);
    said.assert("TCP over v4", "blocked", "refused: nothing listens at TCP port");
    said.assert("TLS", "blocked", "refused");
    said.assert_verdict(&[], 1);
    assert_eq!(said.report["verdict"], "no link will come up: no way is open");
}

#[test]
fn who_takes_connections_and_says_nothing_is_found_out() {
    // The kernel completes connections that nobody accepts.
    let silent = TcpListener::bind(loopback(0)).unwrap();
    let said = Said::at(silent.local_addr().unwrap());
    said.assert_passes("TCP over v4");
    said.assert("TLS", "blocked", "connected, then silence in the handshake");
    said.assert("WebSocket", "blocked", "connected, then silence");
    said.assert_verdict(&[], 1);
}

/// nginx with a certificate of its own, which answers by `location`.
fn front(authority: &Authority, location: &str) -> (Nginx, SocketAddr) {
    let (pair, front) = (authority.server(&["gate.test"]), loopback(free_port()));
    let (chain, key) = (pair.certificate.display(), pair.key.display());
    let body = format!(
        "server {{ listen {front} ssl; ssl_certificate {chain}; ssl_certificate_key {key}; \
         location / {{ {location} }} }}"
    );
    (Nginx::http(&body, front), front)
}

#[test]
fn whoever_looks_into_tls_is_named_and_a_websocket_gets_past_him() {
    let (server, _cable) = server(TCP);
    let gate = server.listener_address("gate");
    let passing = format!(
        "proxy_pass https://{gate}; proxy_ssl_protocols TLSv1.3; proxy_http_version 1.1; \
         proxy_set_header Host $host; proxy_set_header Upgrade $http_upgrade; \
         proxy_set_header Connection upgrade;"
    );
    let authority = Authority::new();
    let (_nginx, front) = front(&authority, &passing);
    let said = Said::at(front);
    said.assert("TLS", "blocked", "somebody on the way ends TLS");
    said.assert("TLS on the way", "ok", "CN=gate.test, by CN=Test Authority");
    said.assert_passes("WebSocket");
    said.assert_verdict(&["websocket"], 0);
    assert_eq!(said.report["verdict"], "a link will go over WebSocket; there is nothing behind it");
}

#[test]
fn a_server_of_https_that_is_no_listener_of_tunnels_is_told() {
    let authority = Authority::new();
    let (_nginx, front) = front(&authority, "return 200 hello;");
    let said = Said::at(front);
    said.assert("TLS", "wrong", "whoever answers is no tunnel listener");
    said.assert("WebSocket", "wrong", "it shows CN=gate.test");
    said.assert_verdict(&[], 1);
    assert_eq!(
        said.report["verdict"],
        "no link will come up: something answers there, and it is no tunnel listener"
    );
}

#[test]
fn a_proxy_is_gone_through_where_it_is_named_and_believes_us() {
    let (server, _cable) = server(TCP);
    let gate = server.listener_address("gate").to_string();
    // plant-7:s3cret%
    let proxy = HttpProxy::asking(Some("Basic cGxhbnQtNzpzM2NyZXQl"));
    let at = proxy.address();
    let said = Said::of(doctor(&[&gate]).env("HTTPS_PROXY", format!("http://plant-7:s3cret%25@{at}")));
    said.assert("proxy", "ok", &format!("go through {at}, by name and password"));
    said.assert_passes("TLS");
    said.assert_verdict(&["quic", "tls", "websocket"], 0);
    assert!(proxy.connected() >= 2 && proxy.refused() == 0);
    assert!(!said.report.to_string().contains("s3cret"));
    // Without a password it leads nowhere, and the way past it is QUIC's alone.
    let said = Said::of(&mut doctor(&[&gate, "--proxy", &format!("http://{at}")]));
    said.assert("TLS", "blocked", "wants to know who asks");
    said.assert_verdict(&["quic"], 0);
    // One on the command line could be read by everybody.
    let asked = finish(&mut doctor(&[&gate, "--proxy", &format!("http://a:b@{at}")]));
    assert!(asked.code == Some(2) && asked.stderr.contains("put it into HTTPS_PROXY"), "{asked:?}");
    // The environment says that the server is reached past it.
    let before = proxy.connected() + proxy.refused();
    let said =
        Said::of(doctor(&[&gate]).env("HTTPS_PROXY", format!("http://{at}")).env("NO_PROXY", "127.0.0.0/8"));
    said.assert("proxy", "ok", "NO_PROXY says");
    said.assert_verdict(&["quic", "tls", "websocket"], 0);
    assert_eq!(proxy.connected() + proxy.refused(), before);
}

#[test]
fn an_agents_folder_proves_the_server_and_says_how_the_agent_stands() {
    let echo = TcpServer::echo();
    let mut site = Site::start(TCP, echo.address());
    let file = site.agent.directory().join("agent.toml");
    let ask = |file: &std::path::Path| {
        let mut command = doctor(&["-c", &file.display().to_string()]);
        Said::of(command.current_dir(file.parent().unwrap()))
    };
    let said = ask(&file);
    said.assert("certificate", "ok", "\"plant-7\" may link up");
    said.assert_verdict(&["tls", "websocket"], 0);
    // The file narrows what a link may go over.
    site.agent.offer(site.cable.address(), &format!("carriers = [\"websocket\"]\n{}", offer(echo.address())));
    let said = ask(&file);
    said.assert("TLS", said.check("TLS").0, "leaves it out");
    said.assert_verdict(&["websocket"], 0);
    // It is off for some days: the certificate is over, and can be renewed.
    site.agent.process().kill();
    site.agent.age(&site.server, "plant-7", Duration::from_secs(3 * 86_400));
    ask(&file).assert("certificate", "ok", "will be renewed first");
    site.server.cli(["agent", "revoke", "plant-7"]).expect("revoke");
    let revoked = || ask(&file).report["carriers"].as_array().unwrap().is_empty();
    assert!(wait_until(PATIENCE, revoked));
    let said = ask(&file);
    said.assert("certificate", "wrong", "revoked; let it join anew");
    said.assert_verdict(&[], 1);
    assert_eq!(said.report["verdict"], "the ways are open, and the server wants no link of this agent");
}

#[test]
fn an_agent_believes_no_other_server_than_its_own() {
    let echo = TcpServer::echo();
    let (mine, cable) = server(TCP);
    let agent = Agent::join(&mine, "plant-7", cable.address(), &offer(echo.address()));
    let (other, _cable) = server(TCP);
    let folder = agent.directory().join("me").display().to_string();
    let gate = other.listener_address("gate").to_string();
    let said = Said::of(&mut doctor(&[&gate, "--folder", &folder]));
    said.assert("TLS", "wrong", "not the server that this agent joined");
    said.assert_verdict(&[], 1);
    assert_eq!(said.report["verdict"], "no link will come up: whoever answers is another server");
}

#[test]
fn a_doctor_with_an_old_copy_of_a_folder_locks_nobody_out() {
    let echo = TcpServer::echo();
    let mut site = Site::start(TCP, echo.address());
    let copy = site.agent.copy();
    // The agent goes on by another certificate, and has for some time.
    site.agent.age(&site.server, "plant-7", Duration::from_secs(20 * 3600));
    site.agent.process().signal(rustix::process::Signal::HUP);
    await_finished(&site.server, "listener=gate reason=moved", 1);
    let renewed =
        || site.server.known_agent("plant-7")["past"].as_array().is_some_and(|past| !past.is_empty());
    assert!(wait_until(PATIENCE, renewed));
    let mut known = site.server.known_agent("plant-7");
    for past in known["past"].as_array_mut().unwrap() {
        past["since"] = 0.into();
    }
    site.server.set_known_agent("plant-7", &known);
    let folder = copy.directory().join("me").display().to_string();
    let gate = site.server.listener_address("gate").to_string();
    let stands = || {
        let said = Said::of(&mut doctor(&[&gate, "--folder", &folder]));
        said.check("certificate").1.contains("whoever links up by it locks the agent out")
    };
    assert!(wait_until(PATIENCE, stands));
    assert!(stands(), "and it stays so");
    assert!(site.server.known_agent("plant-7")["locked"].is_null());
    await_live(&site.server, "listener=gate stage=relay", 1);
}

#[test]
fn what_cannot_be_looked_at_is_said_in_one_line() {
    let nowhere = Cable::to(loopback(free_port())).address().to_string();
    for (arguments, words) in [
        (&["agent:a/b"][..], "an agent is no server"),
        (&[&nowhere, "--folder", "/nonexistent"], "holds no agent's certificate"),
        (&["-c", "/nonexistent/agent.toml"], "/nonexistent/agent.toml"),
        (&[&nowhere, "--proxy", "https://proxy.test"], "is no proxy of plain HTTP"),
    ] {
        let said = finish(&mut doctor(arguments));
        assert_eq!(said.code, Some(2), "{arguments:?}: {said:?}");
        assert!(said.stderr.contains(words) && said.stderr.lines().count() == 1, "{arguments:?}: {said:?}");
    }
}
