//! Who may link up, and who may not.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use tieline_testkit::{Agent, Finished, PATIENCE, TcpServer, Tieline, finish, wait_until};

use crate::site::{TCP, offer, server};
use crate::support::{assert_closed, await_finished, await_live, connect, echoes};

/// `tieline agent join` at `at` with `token`.
fn join(at: &str, token: &str) -> (tempfile::TempDir, Finished) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(Tieline::binary());
    let joined = finish(command.args(["agent", "join", at, token]).current_dir(folder.path()));
    (folder, joined)
}

fn token(server: &Tieline, name: &str) -> String {
    let printed = server.cli(["agent", "token", name]).expect("tieline agent token");
    printed.split_whitespace().last().unwrap().to_owned()
}

#[test]
fn a_token_lets_one_agent_in_and_no_second() {
    let (server, cable) = server(TCP);
    let (at, token) = (cable.address().to_string(), token(&server, "plant-7"));
    let (folder, joined) = join(&at, &token);
    joined.expect("join");
    let key = fs::metadata(folder.path().join("tieline-agent/agent.pem")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&key) & 0o777, 0o600);
    let (_, again) = join(&at, &token);
    assert!(!again.success() && again.stderr.contains("was used before"), "{}", again.stderr);
    await_finished(&server, "listener=gate reason=refused:certificate", 1);
    assert_eq!(server.cli(["agent", "list"]).expect("list").trim(), "plant-7");
}

#[test]
fn a_token_is_taken_from_the_standard_input_and_taken_back_before_it_is_used() {
    let (server, cable) = server(TCP);
    let at = cable.address().to_string();
    let printed = token(&server, "plant-7");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), format!("{printed}\n")).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" agent join \"$1\" < token"]).arg(Tieline::binary());
    finish(command.arg(&at).current_dir(folder.path())).expect("join");
    let waiting = token(&server, "plant-8");
    let revoked = server.cli(["agent", "revoke", "plant-8"]);
    assert!(revoked.success() && revoked.stderr.contains("1 token(s) taken back"), "{}", revoked.stderr);
    let (_, joined) = join(&at, &waiting);
    assert!(!joined.success() && joined.stderr.contains("the token is unknown"), "{}", joined.stderr);
}

#[test]
fn a_token_is_of_no_use_to_another_server() {
    let ((one, _one_cable), (_other, other_cable)) = (server(TCP), server(TCP));
    let (_, joined) = join(&other_cable.address().to_string(), &token(&one, "plant-7"));
    assert!(
        !joined.success() && joined.stderr.contains("not the server that was meant"),
        "{}",
        joined.stderr
    );
}

#[test]
fn nonsense_is_refused_in_one_line() {
    let (server, cable) = server(TCP);
    let at = cable.address().to_string();
    let (_, joined) = join(&at, "tla1_nonsense");
    assert!(joined.stderr.contains("this is no token"), "{}", joined.stderr);
    for name in ["a/b", "", "..", "a b"] {
        let refused = server.cli(["agent", "token", name]);
        assert!(!refused.success() && refused.stderr.lines().count() == 1, "{name}: {}", refused.stderr);
    }
    let nonsense = ["agent", "token", "a", "--label", "site"];
    assert!(server.cli(nonsense).stderr.contains("\"site\" is no label"));
    let refused = server.cli(["agent", "revoke", "nobody"]);
    assert!(!refused.success() && refused.stderr.contains("no agent \"nobody\""), "{}", refused.stderr);
}

#[test]
fn strangers_at_the_gate_are_turned_away_and_disturb_nobody() {
    let echo = TcpServer::echo();
    let (server, cable) = server(TCP);
    let gate = server.listener_address("gate");
    let mut agent = Agent::join(&server, "plant-7", cable.address(), &offer(echo.address()));
    let address = server.listener_address("web");
    assert!(wait_until(PATIENCE, || echoes(&mut connect(address))), "{}", agent.process().log());
    // Plain text where TLS is spoken; silence; an end.
    let mut plain = connect(gate);
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_closed(&plain);
    drop(connect(gate));
    let silent: Vec<_> = (0..50).map(|_| connect(gate)).collect();
    assert!(echoes(&mut connect(address)), "nobody waits for those who say nothing");
    drop(silent);
    // TLS without a certificate, for no protocol of ours.
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &gate.to_string(), "-quiet"]).stdin(std::process::Stdio::null());
    let _ = finish(&mut openssl);
    await_live(&server, "listener=gate", 1);
    assert!(echoes(&mut connect(address)));
    let reasons = ["protocol-error", "client-closed"];
    reasons
        .iter()
        .for_each(|reason| drop(await_finished(&server, &format!("listener=gate reason={reason}"), 1)));
}

#[test]
fn an_agents_file_is_told_from_a_servers() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tieline.toml"), "[agent]\nserver = \"127.0.0.1:1\"\nfolder = \"x\"\n")
        .unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(Tieline::binary());
        finish(command.args(arguments).current_dir(folder.path()))
    };
    let served = run(&["run"]);
    assert!(
        !served.success() && served.stderr.contains("tieline agent run -c tieline.toml"),
        "{}",
        served.stderr
    );
    let ran = run(&["agent", "run", "-c", "tieline.toml"]);
    assert!(!ran.success() && ran.stderr.contains("`tieline agent join` makes one"), "{}", ran.stderr);
    let mut text = String::new();
    fs::File::open(folder.path().join("tieline.toml")).unwrap().read_to_string(&mut text).unwrap();
    assert!(text.starts_with("[agent]"));
}
