//! Servers that many clients share: what each sees is what it would see alone.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{PATIENCE, Tieline, wait_until};

use crate::house::Server;
use crate::proxied::wait_for_waiting;

/// Tieline before `server`, with this `pool`.
pub(crate) fn tieline(server: &Server, pool: &str) -> (Tieline, SocketAddr) {
    let endpoint = server.address();
    let tieline = Tieline::start(&format!(
        "[server]\nworkers = 2\n\
         [listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
         [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n\
         [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{endpoint}\"]\npool = {pool}\n"
    ));
    let address = tieline.listener_address("db");
    (tieline, address)
}

fn backend(client: &mut Conversation) -> String {
    client.value("select pg_backend_pid()")
}

fn log_in(at: SocketAddr) -> Conversation {
    Conversation::log_in(at, "postgres", "postgres")
}

#[test]
fn one_server_serves_many_clients_in_turn_and_never_more_are_open() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    let mut clients: Vec<_> = (0..20).map(|_| log_in(address)).collect();
    let backends: Vec<_> = clients.iter_mut().map(backend).collect();
    assert!(backends.iter().all(|backend| *backend == backends[0]), "{backends:?}");
    let count = "select count(*) from pg_stat_activity where backend_type = 'client backend'";
    // The tests' own connection beside it; those that laid the tables may be on their way out.
    assert!(wait_until(PATIENCE, || server.ask(count) == "2"));
}

#[test]
fn settings_follow_their_client_and_reach_nobody_else() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    let (mut one, mut other) = (log_in(address), log_in(address));
    one.query(
        "set search_path to other, public; set app.tenant to 'one''s \\ own'; set statement_timeout to 5000",
    );
    other.query("begin; set work_mem to '9MB'; rollback; set local app.tenant to 'nobody'");
    assert_eq!(other.value("select current_setting('search_path')"), "\"$user\", public");
    assert_eq!(other.value("select coalesce(current_setting('app.tenant', true), '')"), "");
    assert_eq!(other.value("show statement_timeout"), "0");
    assert_eq!(one.value("show search_path"), "other, public");
    assert_eq!(one.value("show app.tenant"), "one's \\ own");
    assert_eq!(one.value("show statement_timeout"), "5s");
    one.query("reset all");
    assert_eq!(one.value("show statement_timeout"), "0");
    assert_eq!(one.value("select coalesce(current_setting('app.tenant', true), '')"), "");
}

#[test]
fn a_role_is_nobody_elses() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    let (mut one, mut other) = (log_in(address), log_in(address));
    one.query("set role tenant");
    assert_eq!(other.value("select current_user"), "postgres");
    assert_eq!(one.value("select current_user"), "tenant");
    drop(one);
    assert_eq!(other.value("select current_user"), "postgres");
}

#[test]
fn what_cannot_move_keeps_its_server_and_says_why() {
    let server = Server::start();
    let (tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 2 }");
    let mut one = log_in(address);
    one.query("create temp table own (a int); insert into own values (7)");
    let kept = backend(&mut one);
    let mut other = log_in(address);
    assert_ne!(backend(&mut other), kept);
    assert_eq!(one.value("select a from own"), "7");
    let why = || tieline.cli(["show", "1"]).stdout + &tieline.cli(["show", "2"]).stdout;
    assert!(wait_until(PATIENCE, || why().contains("keeps its server for temporary tables")), "{}", why());
    one.query("drop table own; select pg_advisory_lock(1)");
    assert_ne!(backend(&mut other), kept);
    one.query("select pg_advisory_unlock(1)");
    assert_eq!(backend(&mut one), kept);
    assert!(wait_until(PATIENCE, || why().contains("keeps its server no longer")), "{}", why());
}

#[test]
fn a_client_that_vanishes_in_a_transaction_leaves_a_clean_server() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    let mut one = log_in(address);
    one.query("begin; insert into dest values (1, 'x'); create temp table own (a int)");
    one.send(&frontend::query("select pg_sleep(60)")).unwrap();
    one.reset();
    let mut other = log_in(address);
    assert_eq!(other.value("select count(*) from dest"), "0");
    assert_eq!(other.value("select count(*) from pg_class where relname = 'own'"), "0");
}

#[test]
fn a_batch_that_nobody_ended_is_not_done_and_is_nobody_elses() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    let mut one = log_in(address);
    let batch = [
        frontend::parse("", "insert into dest values (1, 'x')", &[]),
        frontend::bind("", "", &[], 0),
        frontend::execute("", 0),
        frontend::flush(),
    ];
    one.send(&batch.concat()).unwrap();
    one.until(b'C').unwrap();
    let mut other = log_in(address);
    other.send(&frontend::query("select count(*) from dest")).unwrap();
    assert!(other.is_silent_for(Duration::from_millis(200)), "the only server is in the middle of a batch");
    one.reset();
    let answer = other.until(b'Z').unwrap();
    assert_eq!(answer[1].columns()[0].as_deref(), Some("0"));
}

#[test]
fn an_endless_pipeline_lets_others_have_a_turn_but_not_within_its_transaction() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    let hog = log_in(address);
    let (mut says, mut hears) = (hog.stream().try_clone().unwrap(), hog.stream().try_clone().unwrap());
    let saying = std::thread::spawn(move || {
        // Never without the next one on its way; ends when the test closes it.
        let many = frontend::query("select 1").repeat(100);
        while says.write_all(&many).is_ok() {}
    });
    let hearing = std::thread::spawn(move || std::io::copy(&mut hears, &mut std::io::sink()));
    let mut other = log_in(address);
    (0..10).for_each(|_| assert_eq!(other.value("select 2"), "2"));
    let mut long = log_in(address);
    long.send(&[frontend::query("begin"), frontend::query("select 3").repeat(100)].concat()).unwrap();
    (0..101).for_each(|_| drop(long.until(b'Z').unwrap()));
    long.query("commit");
    assert!(!saying.is_finished(), "it says on and on");
    hog.stream().shutdown(Shutdown::Both).unwrap();
    saying.join().unwrap();
    let _ = hearing.join().unwrap();
}

#[test]
fn a_query_is_cancelled_by_its_key_and_nobody_elses_is() {
    let server = Server::start();
    let (tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    let (mut one, mut other) = (log_in(address), log_in(address));
    one.send(&frontend::query("select pg_sleep(60)")).unwrap();
    let runs = "select count(*) from pg_stat_activity where query like '%pg_sleep(60)%' and state = 'active' \
                and pid <> pg_backend_pid()";
    assert!(wait_until(PATIENCE, || server.ask(runs) == "1"));
    // It waits for the only server: its own key takes it out of the line, and lets the other be.
    other.send(&frontend::query("select 1")).unwrap();
    wait_for_waiting(&tieline, "pg", 1);
    let mut requests = Conversation::connect(address);
    requests.send(&frontend::cancel(other.key_data())).unwrap();
    let answer = other.until(b'Z').unwrap();
    assert_eq!(answer[0].field(b'C'), "57014");
    assert_eq!(server.ask(runs), "1");
    let mut requests = Conversation::connect(address);
    requests.send(&frontend::cancel(one.key_data())).unwrap();
    let answer = one.until(b'Z').unwrap();
    assert!(answer.iter().any(|message| message.kind == b'E' && message.field(b'C') == "57014"));
    assert_eq!(other.value("select 1"), "1");
}

#[test]
fn a_cancel_that_comes_late_hits_nobody_else_whatever_came_before() {
    for mode in ["statement", "transaction"] {
        let server = Server::start();
        let (_tieline, address) = tieline(&server, &format!("{{ mode = \"{mode}\", size = 1 }}"));
        let (mut one, mut other) = (log_in(address), log_in(address));
        for before in ["set work_mem = '5MB'", "deallocate all", "select 1"] {
            one.query(before);
            other.send(&frontend::query(&format!("select pg_sleep(2), $$behind {before}$$"))).unwrap();
            let runs = format!(
                "select count(*) from pg_stat_activity where query like '%$behind {}%' and \
                                (wait_event = 'PgSleep' or state <> 'active')",
                before.replace('\'', "''")
            );
            assert!(wait_until(PATIENCE, || server.ask(&runs) == "1"));
            let mut request = Conversation::connect(address);
            request.send(&frontend::cancel(one.key_data())).unwrap();
            assert!(request.message().unwrap().is_none());
            let answer = other.until(b'Z').unwrap();
            assert!(answer.iter().all(|message| message.kind != b'E'), "{mode}, {before}: {answer:?}");
        }
    }
}

#[test]
fn names_of_statements_are_each_clients_own_wherever_it_is_served() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    let (mut one, mut other) = (log_in(address), log_in(address));
    let prepare = |client: &mut Conversation, sql: &str| {
        let batch = [frontend::parse("s", sql, &[]), frontend::sync()].concat();
        client.send(&batch).unwrap();
        let answer = client.until(b'Z').unwrap();
        assert_eq!(answer[0].kind, b'1');
    };
    let run = |client: &mut Conversation, name: &str| {
        let batch = [frontend::bind("", name, &[], 0), frontend::execute("", 0), frontend::sync()].concat();
        client.send(&batch).unwrap();
        let answer = client.until(b'Z').unwrap();
        let row = answer.iter().find(|message| message.kind == b'D');
        row.and_then(|row| row.columns()[0].clone()).unwrap_or_else(|| answer[0].field(b'C'))
    };
    prepare(&mut one, "select 'one'");
    prepare(&mut other, "select 'other'");
    prepare_unnamed(&mut one, "select 'unnamed'");
    assert_eq!((run(&mut one, "s"), run(&mut other, "s")), ("one".into(), "other".into()));
    assert_eq!(run(&mut other, ""), "26000");
    assert_eq!(run(&mut one, ""), "unnamed");
    one.query("select 1");
    assert_eq!(run(&mut one, ""), "26000");
    other.query("deallocate all");
    assert_eq!(run(&mut other, "s"), "26000");
    assert_eq!(run(&mut one, "s"), "one");
}

fn prepare_unnamed(client: &mut Conversation, sql: &str) {
    client.send(&[frontend::parse("", sql, &[]), frontend::sync()].concat()).unwrap();
    assert_eq!(client.until(b'Z').unwrap()[0].kind, b'1');
}

#[test]
fn a_server_that_restarts_is_waited_for() {
    let mut server = Server::start();
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 2 }");
    let mut client = log_in(address);
    assert_eq!(client.value("select 1"), "1");
    server.postgres.process().kill_all();
    client.send(&frontend::query("select 2")).unwrap();
    assert!(client.is_silent_for(Duration::from_millis(200)), "it waits, and is not refused");
    server.postgres.start_again();
    let answer = client.until(b'Z').unwrap();
    assert_eq!(answer[1].columns(), [Some("2".into())], "{answer:?}");
}
