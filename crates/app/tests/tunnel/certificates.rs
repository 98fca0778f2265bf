//! People who prove themselves by certificates of their own company's authority.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use tieline_testkit::{
    Agent, Authority, Cable, Finished, Nginx, PATIENCE, Pair, TcpServer, Tieline, Wanted, finish, free_port,
    loopback, wait_until,
};

use crate::site::offer;
use crate::support::{await_finished, await_live, live, story};

/// A gate that believes the people of `company`, an agent behind it that offers an echo, and whoever dials.
struct Gate {
    company: Authority,
    _agent: Agent,
    _echo: TcpServer,
    server: Tieline,
}

/// The gate, where `people` says who vouches for people.
fn config(people: &str) -> String {
    format!(
        "[server]\nworkers = 2\n[listener.gate]\nbind = \"127.0.0.1:0\"\nprotocol = \"tunnel\"\n{people}\n\
         [[listener.gate.route]]\nservice = \"plant-7/*\"\n\
         allow = {{ identity = [\"ana\", \"group:support\"] }}\n\
         [group.support]\nmembers = [\"bob@company.test\"]\n"
    )
}

/// `client_ca` of `company`, and its list of revocations.
fn by(company: &Authority) -> String {
    let list = company.revoke(&[]);
    format!("client_ca = \"{}\"\nclient_crl = \"{}\"", company.ca().display(), list.display())
}

impl Gate {
    fn start() -> Gate {
        let (company, echo) = (Authority::new(), TcpServer::echo());
        let server = Tieline::start(&config(&by(&company)));
        let agent = Agent::join(&server, "plant-7", server.listener_address("gate"), &offer(echo.address()));
        await_live(&server, "identity=agent:plant-7 stage=relay", 1);
        Gate { company, _agent: agent, _echo: echo, server }
    }

    fn address(&self) -> SocketAddr {
        self.server.listener_address("gate")
    }

    /// A certificate of the company's by whose common name somebody goes.
    fn person(&self, name: &str, serial: u64) -> Pair {
        self.company.issue(name, Wanted { common_name: name, serial, ..Wanted::default() })
    }

    /// `tieline connect` to the service by `pair`, at `at`.
    fn command(&self, pair: &Pair, at: SocketAddr) -> Command {
        let mut command = Command::new(Tieline::binary());
        command.args(["connect", "plant-7/service", "--server", &at.to_string()]);
        command.arg("--certificate").arg(&pair.certificate).arg("--key").arg(&pair.key);
        command.arg("--ca").arg(self.server.data().join("agents/ca.crt"));
        for name in ["HTTPS_PROXY", "https_proxy", "TIELINE_TOKEN", "TIELINE_CERTIFICATE", "TIELINE_SERVER"] {
            command.env_remove(name);
        }
        command
    }

    fn connect(&self, pair: &Pair) -> Connect {
        Connect::start(self.command(pair, self.address()))
    }

    fn refused(&self, pair: &Pair) -> Finished {
        finish(self.command(pair, self.address()).stdin(Stdio::null()))
    }
}

/// A running `tieline connect`.
struct Connect {
    process: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    told: Receiver<String>,
}

impl Connect {
    fn start(mut command: Command) -> Connect {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (stdin, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let (tell, told) = channel();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)))
        });
        Connect { process, stdin, stdout, told }
    }

    #[track_caller]
    fn assert_echoes(&mut self) {
        let mut heard = [0; 4];
        let echoed = self.stdin.write_all(b"ping").and_then(|()| self.stdout.read_exact(&mut heard));
        let told = || self.told.try_iter().collect::<Vec<_>>();
        assert!(echoed.is_ok() && &heard == b"ping", "{echoed:?} {:?}", told());
    }

    /// Its exit code, when it has ended by itself.
    #[track_caller]
    fn code(mut self) -> Option<i32> {
        let mut code = None;
        let ended = wait_until(PATIENCE, || {
            code = self.process.try_wait().unwrap();
            code.is_some()
        });
        assert!(ended, "it goes on: {:?}", self.told.try_iter().collect::<Vec<_>>());
        code.and_then(|status| status.code())
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        let _ = (self.process.kill(), self.process.wait());
    }
}

#[test]
fn a_certificate_of_the_company_opens_what_policy_lets_its_holder_have() {
    let gate = Gate::start();
    let mut ana = gate.connect(&gate.person("ana", 1));
    ana.assert_echoes();
    let link = await_live(&gate.server, "listener=gate identity=ana stage=relay parent=0", 1).remove(0);
    let told = story(&gate.server, &link);
    assert!(told.contains("ana"), "{told}");
    // A group of the file counts for him whom the certificate names by his address.
    let names = ["email:bob@company.test"];
    let bob = gate
        .company
        .issue("bob", Wanted { common_name: "Bob", names: &names, serial: 2, ..Wanted::default() });
    gate.connect(&bob).assert_echoes();
    // Whom no route names is told the same as if there were no such service.
    let eve = gate.refused(&gate.person("eve", 3));
    assert_eq!(eve.code, Some(3), "{eve:?}");
}

#[test]
fn every_carrier_proves_the_certificate_anew() {
    let gate = Gate::start();
    let ana = gate.person("ana", 1);
    let carried = |carrier: &str| {
        let filter = format!("listener=gate identity=ana stage=relay carrier={carrier}");
        wait_until(PATIENCE, || !live(&gate.server, &filter).is_empty())
    };
    // Past a cable of TCP there is no way for QUIC.
    let cable = Cable::to(gate.address());
    let mut over_tls = Connect::start(gate.command(&ana, cable.address()));
    over_tls.assert_echoes();
    assert!(carried("tls"));
    cable.cut();
    over_tls.assert_echoes();
    // Whoever ends TLS on the way sees no certificate of hers.
    let (outside, front, at) = (Authority::new(), loopback(free_port()), gate.address());
    let pair = outside.server(&["gate.test"]);
    let (chain, key) = (pair.certificate.display(), pair.key.display());
    let body = format!(
        "server {{ listen {front} ssl; ssl_certificate {chain}; ssl_certificate_key {key}; location / {{ \
         proxy_pass https://{at}; proxy_ssl_protocols TLSv1.3; proxy_http_version 1.1; proxy_set_header Host \
         $host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}"
    );
    let _nginx = Nginx::http(&body, front);
    let mut inside = Connect::start(gate.command(&ana, front));
    inside.assert_echoes();
    assert!(carried("websocket"));
    drop((over_tls, inside));
    let mut direct = gate.connect(&ana);
    direct.assert_echoes();
    assert!(carried("quic") || carried("tls"));
}

#[test]
fn strangers_and_impostors_are_refused_in_one_line() {
    let gate = Gate::start();
    let elsewhere = Authority::new();
    let stranger = elsewhere.issue("ana", Wanted { common_name: "ana", serial: 1, ..Wanted::default() });
    let old = Wanted { common_name: "ana", serial: 2, expired: true, ..Wanted::default() };
    let expired = gate.company.issue("old", old);
    let names = ["URI:agent:plant-7"];
    let posing = Wanted { common_name: "x", names: &names, serial: 3, ..Wanted::default() };
    let agent = gate.company.issue("agent", posing);
    for (who, pair) in [("stranger", &stranger), ("expired", &expired), ("posing as an agent", &agent)] {
        let said = gate.refused(pair);
        assert_eq!((said.code, said.stderr.lines().count()), (Some(3), 1), "{who}: {said:?}");
        assert!(said.stderr.contains("the server says no"), "{who}: {said:?}");
    }
    // Nobody took the agent's place.
    assert_eq!(live(&gate.server, "identity=agent:plant-7").len(), 1);
    // The company vouches for its people to the gate, and not for the gate to its people.
    let ana = gate.person("ana", 4);
    let mut command = Command::new(Tieline::binary());
    command.args(["connect", "plant-7/service", "--server", &gate.address().to_string()]);
    command.arg("--certificate").arg(&ana.certificate).arg("--key").arg(&ana.key);
    let said = finish(command.arg("--ca").arg(gate.company.ca()).stdin(Stdio::null()));
    assert!(said.code == Some(1) && said.stderr.contains("is not the server that was meant"), "{said:?}");
}

#[test]
fn who_is_revoked_by_the_company_loses_what_lives_by_it() {
    let gate = Gate::start();
    let mut ana = gate.connect(&gate.person("ana", 1));
    let bobs = Wanted { common_name: "bob@company.test", serial: 2, ..Wanted::default() };
    let mut bob = gate.connect(&gate.company.issue("bob", bobs));
    ana.assert_echoes();
    bob.assert_echoes();
    gate.company.revoke(&[1]);
    assert_eq!(ana.code(), Some(3));
    await_finished(&gate.server, "listener=gate identity=ana reason=revoked parent=0", 1);
    bob.assert_echoes();
    // The listener believes another company from now on.
    let other = Authority::new();
    gate.server.reload(&config(&by(&other)));
    assert_eq!(bob.code(), Some(3));
    assert_eq!(live(&gate.server, "identity=agent:plant-7").len(), 1, "agents are not concerned");
}

#[test]
fn a_certificate_that_runs_out_ends_what_lives_by_it() {
    let gate = Gate::start();
    let wanted = Wanted { common_name: "ana", serial: 1, seconds: Some(SHORT), ..Wanted::default() };
    let mut ana = gate.connect(&gate.company.issue("ana", wanted));
    ana.assert_echoes();
    assert_eq!(ana.code(), Some(6));
    await_finished(&gate.server, "listener=gate identity=ana reason=revoked parent=0", 1);
}

/// Enough to link up by on a busy machine, in seconds.
const SHORT: u64 = 12;

#[test]
fn what_does_not_go_together_is_told_before_anything_is_dialed() {
    let gate = Gate::start();
    let ana = gate.person("ana", 1);
    let certificate = ana.certificate.to_str().unwrap();
    for (arguments, words) in [
        (&["--certificate", certificate][..], "--ca FILE"),
        (&["--ca", "x"], "mean nothing without --certificate"),
        (&["--certificate", "/nonexistent", "--ca", "x", "--server", "a:1"], "/nonexistent"),
    ] {
        let mut command = Command::new(Tieline::binary());
        command.args(["connect", "plant-7/service"]).args(arguments).env_remove("TIELINE_TOKEN");
        let said = finish(command.stdin(Stdio::null()));
        assert!(said.code == Some(1) && said.stderr.contains(words), "{arguments:?}: {said:?}");
    }
}
