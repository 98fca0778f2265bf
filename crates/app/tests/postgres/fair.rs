//! Servers that are scarce, and users who want them.

use std::net::SocketAddr;
use std::time::Duration;

use tieline_testkit::Tieline;
use tieline_testkit::pg::{Conversation, frontend};

use crate::house::Server;
use crate::pooling::tieline;
use crate::proxied::wait_for_waiting;

fn log_in(at: SocketAddr, user: &str) -> Conversation {
    Conversation::log_in(at, user, "postgres")
}

#[test]
fn whoever_floods_does_not_keep_others_waiting() {
    let server = Server::start();
    let (tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 2 }");
    let mut loud: Vec<_> = (0..6).map(|_| log_in(address, "ana")).collect();
    let mut quiet = log_in(address, "bob");
    server.ask("create table arrivals (at serial, who text)");
    let (hold, wait) = loud.split_at_mut(2);
    hold.iter_mut().for_each(|holds| drop(holds.query("begin")));
    let mut line: Vec<_> = wait.iter_mut().map(|waits| (waits, "ana")).chain([(&mut quiet, "bob")]).collect();
    for (at, (waits, who)) in line.iter_mut().enumerate() {
        let arrives = format!("insert into arrivals (who) values ('{who}')");
        waits.send(&frontend::query(&arrives)).unwrap();
        wait_for_waiting(&tieline, "pg", at + 1);
    }
    // One server serves them all, in turn: the other one is still held.
    hold[0].query("commit");
    line.iter_mut().for_each(|(waits, _)| drop(waits.until(b'Z').unwrap()));
    assert_eq!(
        server.ask("select array_agg(who order by at) from arrivals"),
        "{bob,ana,ana,ana,ana}",
        "who holds none is served before those who hold one already"
    );
}

#[test]
fn whoever_waits_in_vain_is_told_for_how_long_and_behind_whom() {
    let server = Server::start();
    let pool = "{ mode = \"transaction\", size = 1 }\ntimeouts = { acquire = \"6s\" }";
    let (_tieline, address) = tieline(&server, pool);
    let (mut holds, mut waits) = (log_in(address, "ana"), log_in(address, "bob"));
    holds.query("begin");
    let answer = waits.query("select 1");
    let error = answer.iter().find(|message| message.kind == b'E').unwrap();
    assert_eq!(error.field(b'C'), "53300");
    let text = error.field(b'M');
    assert!(
        text.contains("0 are ahead in line, 1 servers are busy, and \"ana\" has most of them, 1"),
        "{text}"
    );
    holds.query("commit");
    assert_eq!(waits.value("select 1"), "1", "it may ask again");
    assert!(holds.is_silent_for(Duration::from_millis(10)));
}

#[test]
fn whoever_has_all_that_it_may_have_waits_and_keeps_nobody_waiting() {
    let server = Server::start();
    let upstream = "{ mode = \"transaction\", size = 3 }\ntimeouts = { acquire = \"4s\" }\n\
                    share = [{ user = \"ana\", cap = 1 }]";
    let (_tieline, address) = tieline(&server, upstream);
    let mut holds = log_in(address, "ana");
    holds.query("begin");
    let answer = log_in(address, "ana").query("select 1");
    let error = answer.iter().find(|message| message.kind == b'E').unwrap();
    assert_eq!(error.field(b'C'), "53300");
    assert!(error.field(b'M').contains("1 servers at once are all that this user may have"), "{error:?}");
    let mut others: Vec<_> = (0..2).map(|_| log_in(address, "bob")).collect();
    others.iter_mut().for_each(|other| assert!(other.query("begin").iter().all(|it| it.kind != b'E')));
}

/// Asks, and returns when so many are waiting for a server.
fn wait_in_line(tieline: &Tieline, client: &mut Conversation, waiting: usize) {
    client.send(&frontend::query("select pg_backend_pid()")).unwrap();
    wait_for_waiting(tieline, "pg", waiting);
}

#[test]
fn what_is_kept_for_a_user_nobody_else_takes() {
    let server = Server::start();
    let upstream = "{ mode = \"transaction\", size = 3 }\nshare = [{ user = \"bob\", floor = 1 }]";
    let (tieline, address) = tieline(&server, upstream);
    let mut loud: Vec<_> = (0..4).map(|_| log_in(address, "ana")).collect();
    loud[..2].iter_mut().for_each(|holds| drop(holds.query("begin")));
    wait_in_line(&tieline, &mut loud[2], 1);
    let mut quiet = log_in(address, "bob");
    assert_eq!(quiet.value("select 1"), "1");
    quiet.query("begin");
    wait_in_line(&tieline, &mut loud[3], 2);
    quiet.query("commit");
    assert_eq!(log_in(address, "bob").value("select 2"), "2");
    loud[..2].iter_mut().for_each(|holds| drop(holds.query("commit")));
    loud[2..].iter_mut().for_each(|next| drop(next.until(b'Z').unwrap()));
}

#[test]
fn what_was_wanted_at_once_shows_for_a_while() {
    let server = Server::start();
    let (tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 2, queue = 2 }");
    let mut clients: Vec<_> = (0..5).map(|_| log_in(address, "ana")).collect();
    let (hold, wait) = clients.split_at_mut(2);
    hold.iter_mut().for_each(|holds| drop(holds.query("begin")));
    let (wait, refused) = wait.split_at_mut(2);
    wait_in_line(&tieline, &mut wait[0], 1);
    wait_in_line(&tieline, &mut wait[1], 2);
    let wanted = || tieline.metric("tieline_pool_wanted{upstream=\"pg\"}");
    assert_eq!(wanted(), 4.0, "two have a server, and two wait for one");
    let answer = refused[0].query("select 1");
    assert!(answer.iter().any(|message| message.kind == b'E'), "{answer:?}");
    assert_eq!(
        wanted(),
        5.0,
        "whoever found no place in line wanted one too, and that is not forgotten at once"
    );
    assert_eq!(tieline.get("/api/v1/pools")[0]["wanted"], 5);
    hold.iter_mut().for_each(|holds| drop(holds.query("commit")));
    wait.iter_mut().for_each(|next| drop(next.until(b'Z').unwrap()));
}
