//! Agents that come late, and keys that two have.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tieline_testkit::{Agent, PATIENCE, TcpServer, Tieline, finish, wait_until};

use crate::site::{Site, TCP, offer};
use crate::support::{assert_closed, await_finished, connect, connect_relayed, echoes};

const HOUR: Duration = Duration::from_secs(3600);

fn stop(agent: &mut Agent) {
    agent.process().signal(Signal::TERM);
    assert!(agent.process().wait_end(PATIENCE).unwrap().success());
}

fn works(site: &Site) -> bool {
    wait_until(PATIENCE, || echoes(&mut connect(site.address())))
}

#[test]
fn who_was_away_past_the_end_of_its_certificate_renews_it_and_links_up() {
    let echo = TcpServer::echo();
    let mut site = Site::start(TCP, echo.address());
    stop(&mut site.agent);
    site.agent.age(&site.server, "plant-7", 5 * 24 * HOUR);
    site.agent.start();
    assert!(works(&site), "{}", site.agent.process().log());
    let log = site.agent.process().log();
    assert!(log.contains("the certificate was renewed"), "{log}");
}

#[test]
fn who_was_away_for_more_than_a_week_does_not_link_up_and_says_why() {
    let echo = TcpServer::echo();
    let mut site = Site::start(TCP, echo.address());
    stop(&mut site.agent);
    site.agent.age(&site.server, "plant-7", 9 * 24 * HOUR);
    site.agent.start();
    let told = || site.agent.process().log().contains("cannot be renewed");
    assert!(wait_until(PATIENCE, told), "it says so");
    assert!(!echoes(&mut connect(site.address())));
    assert!(site.agent.process().is_running(), "it never falls over");
}

#[test]
fn a_key_that_two_have_locks_both_out_until_the_agent_joins_anew() {
    let echo = TcpServer::echo();
    let mut site = Site::start(TCP, echo.address());
    stop(&mut site.agent);
    site.agent.age(&site.server, "plant-7", 20 * HOUR);
    let mut copy = site.agent.copy();
    site.agent.start();
    assert!(works(&site), "{}", site.agent.process().log());
    // The one that renews first has the place ...
    let past = || site.server.known_agent("plant-7")["past"].as_array().unwrap().len();
    assert!(wait_until(PATIENCE, || past() == 1));
    let client = connect_relayed(site.address(), 1).remove(0);
    // ... and when the other shows what was good before, later than it could have been under way:
    let mut known = site.server.known_agent("plant-7");
    let since = known["past"][0]["since"].as_u64().unwrap();
    known["past"][0]["since"] = (since - 300).into();
    site.server.set_known_agent("plant-7", &known);
    copy.start();
    assert_closed(&client);
    await_finished(&site.server, "listener=gate reason=revoked", 1);
    let log = site.server.log();
    assert!(log.contains("somebody has a copy of this agent's key"), "{log}");
    assert_eq!(site.server.get("/api/v1/agents")[0]["state"], "locked");
    let listed = site.server.cli(["agent", "list"]).expect("list");
    assert!(listed.contains("plant-7  locked out"), "{listed}");
    assert!(!echoes(&mut connect(site.address())));
    copy.process().kill();
    site.agent.process().kill();
    let _anew = Agent::join(&site.server, "plant-7", site.cable.address(), &offer(echo.address()));
    assert!(works(&site));
    assert_eq!(site.server.cli(["agent", "list"]).expect("list").trim(), "plant-7");
}

#[test]
fn two_that_take_turns_at_one_link_are_told() {
    let echo = TcpServer::echo();
    let site = Site::start(TCP, echo.address());
    let mut copy = site.agent.copy();
    copy.start();
    let told = || site.server.log().contains("two processes take turns at its link");
    assert!(wait_until(PATIENCE, told), "{}", site.server.log());
    assert_eq!(site.server.get("/api/v1/agents")[0]["copied"], true);
}

#[test]
fn an_agent_runs_once_on_one_machine() {
    let echo = TcpServer::echo();
    let site = Site::start(TCP, echo.address());
    let mut again = Command::new(Tieline::binary());
    let again = finish(again.args(["agent", "run"]).current_dir(site.agent.directory()));
    assert!(!again.success() && again.stderr.contains("an agent runs once"), "{}", again.stderr);
}
