//! Groups of agents: endpoints and services that stand for every agent of a label.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use tieline_testkit::{Agent, Cable, Finished, PATIENCE, Postgres, TcpServer, Tieline, finish, wait_until};

use crate::site::{offer, server};
use crate::support::{await_live, connect, connect_relayed, echoes, finished, name_heard, refusal, story};

/// The listener `web` of `protocol` before the agents of Berlin.
fn berlin(protocol: &str, upstream: &str) -> String {
    format!(
        "[listener.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\n\
         {}[[listener.web.route]]\nupstream = \"berlin\"\naccess = \"public\"\n\
         [upstream.berlin]\nendpoints = [\"agent:site=berlin/service\"]\n{upstream}",
        if protocol == "postgres" { "auth = \"trust\"\n" } else { "" }
    )
}

/// An agent of Berlin, linked up.
fn agent(server: &Tieline, name: &str, labels: &[&str], cable: &Cable, offers: &str) -> Agent {
    let agent = Agent::join_labelled(server, name, labels, cable.address(), offers);
    await_live(server, &format!("identity=agent:{name} stage=relay"), 1);
    agent
}

/// The names of the endpoints of the upstream `berlin`, each with its standing.
fn members(server: &Tieline) -> Vec<(String, String)> {
    let upstreams = server.get("/api/v1/upstreams");
    let all = upstreams.as_array().unwrap();
    let berlin = all.iter().find(|upstream| upstream["name"] == "berlin").unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let told = |it: &serde_json::Value| (text(&it["label"]), text(&it["state"]));
    let mut members: Vec<_> = berlin["endpoints"].as_array().unwrap().iter().map(told).collect();
    members.sort();
    members
}

#[track_caller]
fn await_members(server: &Tieline, expected: &[(&str, &str)]) {
    let expected: Vec<(String, String)> = expected
        .iter()
        .map(|(name, standing)| (format!("agent:{name}/service"), (*standing).into()))
        .collect();
    assert!(wait_until(PATIENCE, || members(server) == expected), "{:?}, not {expected:?}", members(server));
}

#[test]
fn a_group_is_whoever_of_its_labels_is_linked_up_and_offers_the_service() {
    let (server, cable) = server(&berlin("tcp", "balance = \"round-robin\"\n"));
    let web = server.listener_address("web");
    assert_eq!(refusal(&server, web), "unreachable");
    let told = story(&server, &finished(&server, "listener=web")[0]);
    assert!(told.contains("no agent of its groups is linked up"), "{told}");
    let (one, two, other) = (TcpServer::named("1"), TcpServer::named("2"), TcpServer::named("3"));
    let site = ["site=berlin", "role=edge"];
    let _one = agent(&server, "plant-1", &site, &cable, &offer(one.address()));
    let two_agent = agent(&server, "plant-2", &site[..1], &cable, &offer(two.address()));
    // Neither is one of them: elsewhere, and without the service.
    let _other = agent(&server, "plant-3", &["site=bern"], &cable, &offer(other.address()));
    let idle = agent(&server, "plant-4", &site, &cable, "");
    await_members(&server, &[("plant-1", "healthy"), ("plant-2", "healthy")]);
    let heard: BTreeSet<Option<u8>> = (0..8).map(|_| name_heard(web)).collect();
    assert_eq!(heard, BTreeSet::from([Some(b'1'), Some(b'2')]));
    // One begins to offer it, one is revoked.
    let mut idle = idle;
    idle.offer(cable.address(), &offer(other.address()));
    idle.process().signal(rustix::process::Signal::HUP);
    await_members(&server, &[("plant-1", "healthy"), ("plant-2", "healthy"), ("plant-4", "healthy")]);
    server.cli(["agent", "revoke", "plant-2"]).expect("revoke");
    await_members(&server, &[("plant-1", "healthy"), ("plant-4", "healthy")]);
    let heard: BTreeSet<Option<u8>> = (0..8).map(|_| name_heard(web)).collect();
    assert_eq!(heard, BTreeSet::from([Some(b'1'), Some(b'3')]));
    drop(two_agent);
}

#[test]
fn requests_go_on_over_the_other_agent_when_one_is_killed() {
    let far = TcpServer::scripted(|mut stream| {
        use std::io::{Read, Write};
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            heard.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
    });
    let (server, cable) = server(&berlin("http", "balance = \"round-robin\"\n"));
    let offers = offer(far.address());
    let mut first = agent(&server, "plant-1", &["site=berlin"], &cable, &offers);
    let _second = agent(&server, "plant-2", &["site=berlin"], &cable, &offers);
    await_members(&server, &[("plant-1", "healthy"), ("plant-2", "healthy")]);
    let url = format!("http://{}/", server.listener_address("web"));
    let ask = || {
        let mut curl = Command::new(tieline_testkit::program("curl"));
        finish(curl.args(["-sSf", "-m", "20", &url])).expect("curl")
    };
    (0..6).for_each(|_| assert_eq!(ask(), "hello"));
    first.process().kill();
    // Its link waits for it; nothing new is sent there meanwhile.
    await_members(&server, &[("plant-1", "away"), ("plant-2", "healthy")]);
    (0..6).for_each(|_| assert_eq!(ask(), "hello"));
    first.start();
    await_members(&server, &[("plant-1", "healthy"), ("plant-2", "healthy")]);
    (0..6).for_each(|_| assert_eq!(ask(), "hello"));
}

#[test]
fn queries_go_on_over_the_other_agent_when_one_is_killed() {
    let postgres = Postgres::start();
    let pool = "protocol = \"postgres\"\ntls = \"off\"\npool = { mode = \"transaction\", size = 4 }\n";
    let (server, cable) = server(&berlin("postgres", pool));
    let offers = offer(postgres.address());
    let mut first = agent(&server, "plant-1", &["site=berlin"], &cable, &offers);
    let mut second = agent(&server, "plant-2", &["site=berlin"], &cable, &offers);
    await_members(&server, &[("plant-1", "healthy"), ("plant-2", "healthy")]);
    let web = server.listener_address("web");
    let ask = || postgres.psql(web, "postgres", &["-Atc", "select 6 * 7"]).expect("psql").trim().to_owned();
    for (kill, name) in [(&mut first, "plant-1"), (&mut second, "plant-2")] {
        assert_eq!(ask(), "42");
        kill.process().kill();
        let away = || members(&server).contains(&(format!("agent:{name}/service"), "away".into()));
        assert!(wait_until(PATIENCE, away), "{:?}", members(&server));
        (0..4).for_each(|_| assert_eq!(ask(), "42"));
        kill.start();
        await_members(&server, &[("plant-1", "healthy"), ("plant-2", "healthy")]);
    }
}

#[test]
fn a_cut_of_a_members_cable_breaks_no_stream_of_the_group() {
    let echo = TcpServer::echo();
    let (server, cable) = server(&berlin("tcp", ""));
    let _one = agent(&server, "plant-1", &["site=berlin"], &cable, &offer(echo.address()));
    await_members(&server, &[("plant-1", "healthy")]);
    let mut clients = connect_relayed(server.listener_address("web"), 4);
    cable.cut();
    assert!(clients.iter_mut().all(echoes));
    assert!(wait_until(PATIENCE, || echoes(&mut connect(server.listener_address("web")))));
    await_live(&server, "listener=web endpoint=agent:plant-1/service", 4);
    drop(clients);
}

#[test]
fn a_person_reaches_of_a_group_what_he_could_reach_by_name_and_nothing_else() {
    let routes = "[[listener.gate.route]]\nname = \"support\"\nservice = \"plant-7/*\"\n\
                  allow = { identity = [\"group:support\"] }\n\
                  [[listener.gate.route]]\nname = \"lead\"\nservice = \"plant-8/service\"\n\
                  allow = { identity = [\"lena\"] }\n[group.support]\n";
    let (server, cable) = server(routes);
    let (seven, eight) = (TcpServer::named("7"), TcpServer::named("8"));
    let mut near = agent(&server, "plant-7", &["site=berlin"], &cable, &offer(seven.address()));
    let _far = agent(&server, "plant-8", &["site=berlin"], &cable, &offer(eight.address()));
    let token = |arguments: &[&str]| {
        let printed = server.cli([&["token", "create"], arguments].concat()).expect("token create");
        printed.split_whitespace().last().unwrap().to_owned()
    };
    let (ana, lena, bob) = (token(&["ana", "--groups", "support"]), token(&["lena"]), token(&["bob"]));
    let gate = server.listener_address("gate").to_string();
    let ask = |token: &str, service: &str| -> Finished {
        let mut command = Command::new(Tieline::binary());
        command.args(["connect", service, "--server", &gate]).env("TIELINE_TOKEN", token);
        command.env_remove("HTTPS_PROXY").env_remove("NO_PROXY");
        finish(command.stdin(Stdio::null()))
    };
    for _ in 0..4 {
        assert_eq!(ask(&ana, "site=berlin/service").stdout.as_bytes()[0], b'7');
        assert_eq!(ask(&lena, "site=berlin/service").stdout.as_bytes()[0], b'8');
    }
    let chosen = &finished(&server, "identity=ana endpoint=agent:plant-7/service")[0];
    assert_eq!(chosen["route"], "support", "{chosen:#?}");
    let no = "there is no such service, or it is not for you";
    for (token, service) in
        [(&bob, "site=berlin/service"), (&ana, "site=bern/service"), (&lena, "site=berlin/other")]
    {
        let refused = ask(token, service);
        assert_eq!(refused.code, Some(3), "{service}: {}", refused.stderr);
        assert!(refused.stderr.contains(no), "{service}: {}", refused.stderr);
    }
    // That the other is there is none of her business.
    near.process().signal(rustix::process::Signal::TERM);
    await_live(&server, "identity=agent:plant-7", 0);
    let absent = ask(&ana, "site=berlin/service");
    assert!(absent.code == Some(4) && absent.stderr.contains("plant-7"), "{}", absent.stderr);
}
