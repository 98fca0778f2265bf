//! The cable is cut, and blocked: the applications at both ends see a pause, and no byte is lost.

use tieline_testkit::{PATIENCE, TcpServer, usage, wait_until};

use crate::oracle::Oracle;
use crate::site::{Site, TCP};
use crate::support::{assert_echoes, await_finished, connect, connect_relayed, story};

const CUTS: usize = 20;

/// What either process may take in memory for one stream and its windows, in KiB.
const GROWTH_KIB_MAX: u64 = 48 << 10;

#[test]
fn twenty_cuts_cost_no_byte_in_either_direction() {
    let oracle = Oracle::start();
    let mut site = Site::start(TCP, oracle.address());
    let client = connect(site.address());
    let before = (site.server.rss_kib(), usage::rss_kib(site.agent.process().pid()));
    oracle.during(&client, || {
        for cut in 0..CUTS {
            let carriers = site.cable.accepted();
            oracle.moves(128 << 10, &format!("before cut {cut}"));
            site.cable.cut();
            // What is buffered moves on without a link; the next cut must have one to cut.
            let resumed = || site.cable.accepted() > carriers && site.links().len() == 1;
            assert!(wait_until(PATIENCE, resumed), "no link after cut {cut}");
        }
    });
    let moved = await_finished(&site.server, "listener=gate reason=moved", CUTS);
    let told = story(&site.server, &moved[0]);
    assert!(
        told.contains("the link of agent \"plant-7\" goes on here") && told.contains("bytes again"),
        "{told}"
    );
    let after = (site.server.rss_kib(), usage::rss_kib(site.agent.process().pid()));
    let grown = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    assert!(grown.0 < GROWTH_KIB_MAX && grown.1 < GROWTH_KIB_MAX, "grown by {grown:?} KiB");
    assert!(wait_until(PATIENCE, || oracle.open() == 0));
}

#[test]
fn a_cable_that_swallows_everything_is_noticed_and_got_round() {
    let echo = TcpServer::echo();
    let site = Site::start(TCP, echo.address());
    let mut clients = connect_relayed(site.address(), 3);
    site.cable.block();
    let before = site.cable.accepted();
    clients.iter_mut().for_each(assert_echoes);
    assert!(site.cable.accepted() > before, "nothing passes over the old connection");
    assert_eq!(echo.accepted(), 3, "the streams are the same");
}

#[test]
fn idle_streams_outlive_the_cable_and_wait_for_their_link() {
    let echo = TcpServer::echo();
    let site = Site::start(TCP, echo.address());
    let mut clients = connect_relayed(site.address(), 20);
    for _ in 0..3 {
        site.cable.cut();
        clients.iter_mut().for_each(assert_echoes);
    }
    assert_eq!(echo.accepted(), 20);
}
