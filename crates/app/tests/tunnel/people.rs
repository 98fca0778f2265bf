//! People who reach far services from their own devices.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;
use tieline_testkit::{
    Agent, Cable, Finished, HttpProxy, PATIENCE, Postgres, Sshd, TcpServer, Tieline, UdpCable, finish,
    wait_for, wait_until,
};

use crate::site::{offer, server};
use crate::support::{assert_echoes, await_finished, await_live, connect, live, story};

/// Whom `gate` lets through to `plant-7`.
pub(crate) const ROUTES: &str = "[[listener.gate.route]]\nname = \"support\"\nservice = \"plant-7/*\"\n\
                      allow = { identity = [\"group:support\"] }\n[group.support]\n";

/// A server, an agent that offers `service` over one cable, and people who come over another.
pub(crate) struct Desk {
    pub(crate) agent: Agent,
    pub(crate) agents: Cable,
    pub(crate) people: Cable,
    pub(crate) server: Tieline,
}

impl Desk {
    pub(crate) fn start(to: SocketAddr) -> Desk {
        Desk::with(ROUTES, &offer(to))
    }

    pub(crate) fn with(routes: &str, offers: &str) -> Desk {
        let (server, agents) = server(routes);
        Desk::of(server, agents, offers)
    }

    /// The same at that server, which agents reach by that cable.
    pub(crate) fn of(server: Tieline, agents: Cable, offers: &str) -> Desk {
        let people = Cable::to(server.listener_address("gate"));
        let agent = Agent::join(&server, "plant-7", agents.address(), offers);
        await_live(&server, "identity=agent:plant-7 stage=relay", 1);
        Desk { agent, agents, people, server }
    }

    /// `tieline token create`.
    pub(crate) fn token(&self, arguments: &[&str]) -> String {
        let printed = self.server.cli([&["token", "create"], arguments].concat()).expect("token create");
        printed.split_whitespace().last().unwrap().to_owned()
    }

    pub(crate) fn ana(&self) -> String {
        self.token(&["ana", "--groups", "support"])
    }

    /// `tieline connect` with `token`.
    pub(crate) fn command(&self, token: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(Tieline::binary());
        command.arg("connect").args(arguments).args(["--server", &self.people.address().to_string()]);
        command.env("TIELINE_TOKEN", token).env_remove("HTTPS_PROXY").env_remove("NO_PROXY");
        command
    }

    pub(crate) fn connect(&self, token: &str, arguments: &[&str]) -> Connect {
        Connect::start(self.command(token, arguments))
    }

    /// What `connect` to `service` says that comes to nothing.
    pub(crate) fn refused(&self, token: &str, service: &str) -> Finished {
        finish(self.command(token, &[service]).stdin(Stdio::null()))
    }

    /// The row of the one stream that lives.
    #[track_caller]
    pub(crate) fn stream(&self) -> Value {
        await_live(&self.server, "identity=ana stage=relay parent>0", 1).remove(0)
    }
}

/// A running `tieline connect`.
pub(crate) struct Connect {
    pub(crate) process: Child,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: ChildStdout,
    pub(crate) told: Receiver<String>,
}

impl Connect {
    pub(crate) fn start(mut command: Command) -> Connect {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take().unwrap());
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Connect { process, stdin, stdout, told }
    }

    pub(crate) fn say(&mut self, text: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(text).unwrap();
    }

    /// Whether what is said comes back.
    #[track_caller]
    pub(crate) fn assert_echoes(&mut self) {
        self.say(b"ping");
        let mut heard = [0; 4];
        self.stdout.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"ping");
    }

    /// The next line on the standard error that holds `words`.
    #[track_caller]
    pub(crate) fn hears(&self, words: &str) -> String {
        loop {
            let line = self.told.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("nothing of {words:?}: {error}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// The address behind `service is at`.
    #[track_caller]
    pub(crate) fn address(&self) -> SocketAddr {
        self.hears(" is at ").rsplit_once(' ').unwrap().1.trim_start_matches("udp:").parse().unwrap()
    }

    /// How it ends, within a test's patience.
    #[track_caller]
    pub(crate) fn code(&mut self) -> i32 {
        let ended = wait_for(PATIENCE, || self.process.try_wait().unwrap());
        ended.expect("it does not end").code().unwrap()
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        let _ = (self.process.kill(), self.process.wait());
    }
}

#[test]
fn a_service_is_joined_to_the_standard_input_and_output() {
    let echo = TcpServer::echo();
    let desk = Desk::start(echo.address());
    let mut ana = desk.connect(&desk.ana(), &["plant-7/service"]);
    ana.assert_echoes();
    let stream = desk.stream();
    assert_eq!((&stream["route"], &stream["listener"]), (&"support".into(), &"gate".into()));
    assert_eq!(stream["endpoint"], "agent:plant-7/service");
    let link = await_live(&desk.server, &format!("id={}", stream["parent"]), 1).remove(0);
    assert_eq!((&link["identity"], &link["route"]), (&"ana".into(), &"links".into()));
    let told = story(&desk.server, &stream);
    assert!(told.contains("allow.identity of route \"support\""), "{told}");
    // What one side has said all of, the other may still answer.
    ana.say(b"the end");
    drop(ana.stdin.take());
    let mut rest = String::new();
    ana.stdout.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), ana.code()), ("the end", 0));
    let past = await_finished(&desk.server, "identity=ana parent>0", 1).remove(0);
    assert_eq!((&past["bytes_up"], &past["bytes_down"]), (&11.into(), &11.into()), "{past:#?}");
    await_live(&desk.server, "identity=ana", 0);
    assert!(wait_until(PATIENCE, || echo.open() == 0));
}

#[test]
fn a_person_comes_through_the_proxy_that_the_environment_names() {
    let echo = TcpServer::echo();
    let desk = Desk::start(echo.address());
    let proxy = HttpProxy::asking(Some("Basic YW5hOnBhc3M="));
    let through = |login: &str| {
        let mut command = desk.command(&desk.ana(), &["plant-7/service"]);
        command.env("HTTPS_PROXY", format!("http://{login}@{}", proxy.address()));
        command
    };
    let mut ana = Connect::start(through("ana:pass"));
    ana.assert_echoes();
    // One to be proved by, one for the link.
    assert!(proxy.connected() >= 2);
    proxy.cut();
    ana.assert_echoes();
    assert!(proxy.connected() >= 3);
    let refused = finish(through("ana:wrong").stdin(Stdio::null()));
    assert!(refused.code != Some(0) && refused.stderr.contains("the proxy"), "{}", refused.stderr);
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
}

#[test]
fn who_may_not_is_told_no_and_nothing_else() {
    let echo = TcpServer::echo();
    let desk = Desk::start(echo.address());
    let (ana, bob) = (desk.ana(), desk.token(&["bob"]));
    let no = "there is no such service, or it is not for you";
    for (token, service) in
        [(&bob, "plant-7/service"), (&bob, "plant-7/none"), (&ana, "plant-7/none"), (&ana, "plant-8/service")]
    {
        let refused = desk.refused(token, service);
        assert_eq!(refused.code, Some(3), "{service}: {}", refused.stderr);
        assert!(refused.stderr.contains(no), "{service}: {}", refused.stderr);
    }
    assert_eq!(echo.accepted(), 0);
    let past = await_finished(&desk.server, "identity=bob reason=refused:policy", 1).remove(0);
    let told = story(&desk.server, &past);
    assert!(told.contains("not allowed by allow.identity of route \"support\""), "{told}");
    await_finished(&desk.server, "identity=ana reason=refused:no-route", 2);
}

#[test]
fn a_service_that_cannot_be_reached_is_told_from_one_that_is_refused() {
    let echo = TcpServer::echo();
    let mut desk = Desk::start(echo.address());
    let ana = desk.ana();
    desk.agent.process().kill();
    desk.agents.cut();
    desk.server.cli(["agent", "revoke", "plant-7"]).expect("revoke");
    await_live(&desk.server, "identity=agent:plant-7", 0);
    let absent = desk.refused(&ana, "plant-7/service");
    assert!(absent.code == Some(4) && absent.stderr.contains("is not linked up"), "{}", absent.stderr);
    // Nor the server itself.
    let nobody = Cable::to(([127, 0, 0, 1], 1).into());
    let mut command = Command::new(Tieline::binary());
    command.args(["connect", "plant-7/service", "--server", &nobody.address().to_string()]);
    let unreached = finish(command.env("TIELINE_TOKEN", &ana).stdin(Stdio::null()));
    assert!(matches!(unreached.code, Some(1 | 4)), "{}", unreached.stderr);
    assert_eq!(unreached.stderr.lines().count(), 1, "{}", unreached.stderr);
}

#[test]
fn a_revoked_token_ends_what_lives_by_it_and_nothing_else() {
    let echo = TcpServer::echo();
    let desk = Desk::start(echo.address());
    let (token, other) = (desk.ana(), desk.token(&["bob", "--groups", "support"]));
    let (mut ana, mut bob) =
        (desk.connect(&token, &["plant-7/service"]), desk.connect(&other, &["plant-7/service"]));
    ana.assert_echoes();
    bob.assert_echoes();
    let listed: Value =
        serde_json::from_str(&desk.server.cli(["token", "list", "--json"]).expect("list")).unwrap();
    assert_eq!((&listed[0]["name"], &listed[0]["groups"][0]), (&"ana".into(), &"support".into()));
    let printed = desk.server.cli(["token", "list"]).expect("list");
    assert!(!printed.contains(&token) && printed.contains("ana") && printed.contains("bob"), "{printed}");
    desk.server.cli(["token", "revoke", listed[0]["id"].as_str().unwrap()]).expect("revoke");
    assert_eq!(ana.code(), 3);
    await_finished(&desk.server, "identity=ana parent>0 reason=revoked", 1);
    bob.assert_echoes();
    let refused = desk.refused(&token, "plant-7/service");
    assert!(refused.code == Some(3) && refused.stderr.contains("was revoked"), "{}", refused.stderr);
    let again = desk.server.cli(["token", "revoke", "ana"]);
    assert!(!again.success() && again.stderr.contains("no token is called"), "{}", again.stderr);
}

#[test]
fn a_token_that_expires_ends_what_lives_by_it_and_opens_nothing() {
    let echo = TcpServer::echo();
    let desk = Desk::start(echo.address());
    let token = desk.token(&["ana", "--groups", "support", "--expires", "12s"]);
    let mut ana = desk.connect(&token, &["plant-7/service"]);
    ana.assert_echoes();
    let code = ana.code();
    assert!([3, 6].contains(&code), "{code}");
    let past = await_finished(&desk.server, "identity=ana parent>0 reason=revoked", 1).remove(0);
    let told = story(&desk.server, &past);
    assert!(told.contains("of \"ana\" has expired"), "{told}");
    let refused = desk.refused(&token, "plant-7/service");
    assert!(refused.code == Some(3) && refused.stderr.contains("has expired"), "{}", refused.stderr);
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    assert!(wait_until(PATIENCE, || echo.open() == 0));
}

#[test]
fn an_operator_ends_one_stream_or_the_whole_link() {
    let echo = TcpServer::echo();
    let desk = Desk::start(echo.address());
    let token = desk.ana();
    let kept = desk.connect(&token, &["plant-7/service", "--listen", "127.0.0.1:0"]);
    let at = kept.address();
    let mut one = connect(at);
    assert_echoes(&mut one);
    let first = desk.stream();
    let mut other = connect(at);
    assert_echoes(&mut other);
    desk.server.cli(["kill", &format!("id={}", first["id"])]).expect("kill");
    assert_eq!(one.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    kept.hears("ended by an operator");
    assert_echoes(&mut other);
    assert!(wait_until(PATIENCE, || echo.open() == 1));
    // By the standard input it is the command that ends.
    let mut alone = desk.connect(&token, &["plant-7/service"]);
    alone.assert_echoes();
    let streams = await_live(&desk.server, "identity=ana stage=relay parent>0", 2);
    let link = streams.iter().map(|row| row["parent"].clone()).find(|parent| *parent != first["parent"]);
    desk.server.cli(["kill", &format!("id={}", link.unwrap())]).expect("kill");
    assert_eq!(alone.code(), 5);
    assert_echoes(&mut other);
}

#[test]
fn a_reload_that_forbids_a_stream_ends_it() {
    let echo = TcpServer::echo();
    let desk = Desk::start(echo.address());
    let mut ana = desk.connect(&desk.ana(), &["plant-7/service"]);
    ana.assert_echoes();
    let gate = "[listener.gate]\nbind = \"127.0.0.1:0\"\nprotocol = \"tunnel\"\n\
                timeouts = { drain = \"1s\" }\n\
                [upstream.service]\nendpoints = [\"agent:plant-7/service\"]\n";
    desk.server.reload(&format!("{gate}{ROUTES}[server]\nlog = \"debug\"\n"));
    ana.assert_echoes();
    let closed = ROUTES.replace("group:support", "carl");
    desk.server.reload(&format!("{gate}{closed}"));
    assert_eq!(ana.code(), 3);
    await_finished(&desk.server, "identity=ana parent>0 reason=revoked", 1);
}

#[test]
fn streams_outlive_cuts_on_both_sides_and_their_story_tells_of_them() {
    let echo = TcpServer::echo();
    let desk = Desk::start(echo.address());
    let mut ana = desk.connect(&desk.ana(), &["plant-7/service"]);
    ana.assert_echoes();
    let stream = desk.stream();
    for cable in [&desk.people, &desk.agents, &desk.people] {
        let carriers = cable.accepted();
        cable.cut();
        ana.assert_echoes();
        assert!(wait_until(PATIENCE, || cable.accepted() > carriers));
    }
    assert_eq!((echo.accepted(), desk.stream()["id"].clone()), (1, stream["id"].clone()));
    let tells = |words: &str| story(&desk.server, &stream).contains(words);
    for words in ["the person's link goes on over connection", "the link of agent \"plant-7\" goes on"] {
        assert!(wait_until(PATIENCE, || tells(words)), "{words}: {}", story(&desk.server, &stream));
    }
    // In order, and at once: nobody waits for somebody who has left.
    ana.process.kill().unwrap();
    let waits = || live(&desk.server, "identity=ana stage=acquire").len() == 1;
    assert!(wait_until(PATIENCE, waits), "{:#?}", live(&desk.server, ""));
    desk.server.cli(["kill", &format!("id={}", stream["parent"])]).expect("kill");
    await_live(&desk.server, "identity=ana", 0);
    let mut polite = desk.connect(&desk.ana(), &["plant-7/service"]);
    polite.assert_echoes();
    let id = rustix::process::Pid::from_child(&polite.process);
    rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
    assert_eq!(polite.code(), 130);
    await_live(&desk.server, "identity=ana", 0);
}

#[test]
fn a_person_whose_new_address_policy_does_not_allow_loses_the_stream_without_a_resume() {
    let echo = TcpServer::echo();
    let routes = ROUTES.replace("allow = {", "allow = { from = [\"127.0.0.1/32\"],");
    let desk = Desk::with(&routes, &offer(echo.address()));
    let udp = UdpCable::beside(&desk.people);
    let token = desk.ana();
    // On a machine that is slow just now TLS may be there first.
    let over_quic = wait_for(PATIENCE, || {
        let mut ana = desk.connect(&token, &["plant-7/service"]);
        ana.assert_echoes();
        let streams = live(&desk.server, "identity=ana stage=relay parent>0");
        let newest = streams.into_iter().max_by_key(|row| row["id"].as_u64())?;
        (newest["carrier"] == "quic").then_some((ana, newest))
    });
    let (mut ana, stream) = over_quic.unwrap();
    // Another port is nothing to policy.
    udp.rebind();
    ana.assert_echoes();
    let told = || story(&desk.server, &stream).contains("the person's link goes on");
    assert!(wait_until(PATIENCE, told), "{}", story(&desk.server, &stream));
    udp.rebind_to([127, 0, 0, 9].into());
    ana.say(b"ping");
    assert_eq!(ana.code(), 3);
    let ended = await_finished(&desk.server, "identity=ana parent>0 reason=revoked", 1);
    assert_eq!(ended[0]["id"], stream["id"]);
    let told = story(&desk.server, &stream);
    assert!(told.contains("not from 127.0.0.9"), "{told}");
    assert!(desk.server.log().contains("to=127.0.0.9"), "{}", desk.server.log());
}

#[test]
fn somebody_has_so_many_links_and_no_more() {
    let echo = TcpServer::echo();
    let desk = Desk::start(echo.address());
    let token = desk.ana();
    let mut all: Vec<Connect> = (0..32).map(|_| desk.connect(&token, &["plant-7/service"])).collect();
    all.iter_mut().for_each(Connect::assert_echoes);
    let _one_more = desk.connect(&token, &["plant-7/service"]);
    let told = await_finished(&desk.server, "identity=ana reason=limit:per-user", 1);
    assert!(story(&desk.server, &told[0]).contains("has 32 links already"));
    all.iter_mut().for_each(Connect::assert_echoes);
    // It is told to come again, and is let in when there is room.
    drop(all.pop());
    all.iter_mut().for_each(Connect::assert_echoes);
}

#[test]
fn the_state_of_the_link_is_told_and_ctrl_c_works_without_it() {
    let echo = TcpServer::echo();
    let mut desk = Desk::start(echo.address());
    let mut ana = desk.connect(&desk.ana(), &["plant-7/service"]);
    ana.assert_echoes();
    desk.server.process().kill();
    ana.hears("link down, resuming");
    let id = rustix::process::Pid::from_child(&ana.process);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(ana.code(), 130);
}

#[test]
fn ssh_and_scp_go_through_it_as_their_proxy_command() {
    let sshd = Sshd::start();
    let desk = Desk::start(sshd.address());
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let content: Vec<u8> =
        (0..8_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(&from, &content).unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{} {}\n", desk.people.address(), desk.ana())).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let proxy = format!(
        "ProxyCommand={} connect plant-7/service --token-file {}",
        Tieline::binary().display(),
        file.display()
    );
    let mut scp = Command::new(tieline_testkit::program("scp"));
    scp.args(["-q", "-o", &proxy]).args(sshd.client_options(sshd.address()));
    scp.arg(&from).arg(format!("server:{}", to.display()));
    std::thread::scope(|scope| {
        let copied = scope.spawn(move || finish(&mut scp).expect("scp"));
        for cable in [&desk.people, &desk.agents, &desk.people] {
            let before = cable.carried();
            let moves = || cable.carried() > before + 500_000 || copied.is_finished();
            assert!(wait_until(PATIENCE, moves), "stuck");
            cable.cut();
        }
        copied.join().unwrap();
    });
    assert!(std::fs::read(&to).unwrap() == content, "the copy differs");
    let mut ssh = Command::new(tieline_testkit::program("ssh"));
    ssh.args(["-o", &proxy]).args(sshd.client_options(sshd.address())).args(["server", "echo hello"]);
    assert_eq!(finish(&mut ssh).expect("ssh").trim(), "hello");
    await_live(&desk.server, "identity=ana stage=relay", 0);
}

#[test]
fn several_services_are_at_local_addresses_of_nobody_else() {
    let (postgres, echo) = (Postgres::start(), TcpServer::echo());
    let offers = format!("{}[offer.db]\nto = \"{}\"\n", offer(echo.address()), postgres.address());
    let desk = Desk::with(ROUTES, &offers);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("echo.sock");
    let unix = format!("plant-7/service=unix:{}", socket.display());
    let mut ana = desk.connect(&desk.ana(), &["plant-7/db=0", &unix]);
    let at = ana.address();
    assert!(at.ip().is_loopback());
    assert!(wait_until(PATIENCE, || socket.exists()));
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut local = UnixStream::connect(&socket).unwrap();
    local.set_read_timeout(Some(PATIENCE)).unwrap();
    local.write_all(b"ping").unwrap();
    local.read_exact(&mut [0; 4]).unwrap();
    let ask = |sql: &str| postgres.psql(at, "postgres", &["-Atc", sql]).expect("psql");
    assert_eq!(ask("select 1").trim(), "1");
    let transaction = "begin; select pg_sleep(0.2); select count(*) from generate_series(1, 100000); commit";
    std::thread::scope(|scope| {
        let counted = scope.spawn(|| ask(transaction));
        let runs = || !live(&desk.server, "endpoint=agent:plant-7/db stage=relay").is_empty();
        assert!(wait_until(PATIENCE, || runs() || counted.is_finished()));
        desk.people.cut();
        assert!(counted.join().unwrap().contains("100000"));
    });
    desk.server.cli(["token", "revoke", "ana"]).expect("revoke");
    assert_eq!(ana.code(), 3);
    assert!(TcpStream::connect(at).is_err());
    await_finished(&desk.server, "identity=ana parent>0 reason=revoked", 1);
}

#[test]
fn what_is_no_token_or_another_servers_is_told_in_one_line() {
    let echo = TcpServer::echo();
    let desk = Desk::start(echo.address());
    let (other, _cable) = server(ROUTES);
    let strange = other.cli(["token", "create", "ana", "--groups", "support"]).expect("token create");
    for (token, words) in [
        (strange.split_whitespace().last().unwrap(), "not the server that was meant"),
        ("tlu1_nonsense", "this is no person's token"),
        ("tla1_AAAA", "this is no person's token"),
    ] {
        let refused = desk.refused(token, "plant-7/service");
        assert!(!refused.success() && refused.stderr.contains(words), "{}", refused.stderr);
        assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    }
    let slip = desk.server.cli(["token", "create", "ana", "--groups", "suport"]);
    assert!(!slip.success() && slip.stderr.contains("group \"suport\" does not exist"), "{}", slip.stderr);
}
