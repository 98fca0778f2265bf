//! What a session is made of, where no client has one: what follows it, what keeps it at its server, and what
//! is undone.

use std::net::SocketAddr;

use tieline_testkit::pg::{Conversation, Message, frontend};
use tieline_testkit::{PATIENCE, PgBouncer, Tieline, wait_until};

use crate::house::Server;
use crate::pooling::tieline;

fn log_in(at: SocketAddr) -> Conversation {
    Conversation::log_in(at, "postgres", "postgres")
}

fn one_server() -> (Server, Tieline, SocketAddr) {
    let server = Server::start();
    let (tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1 }");
    (server, tieline, address)
}

fn kinds(said: &[Message]) -> String {
    said.iter().map(|message| char::from(message.kind)).collect()
}

fn code(said: &[Message]) -> String {
    said.iter().find(|message| message.kind == b'E').map(|error| error.field(b'C')).unwrap_or_default()
}

fn prepare(client: &mut Conversation, name: &str, sql: &str) -> Vec<Message> {
    client.send(&[frontend::parse(name, sql, &[]), frontend::sync()].concat()).unwrap();
    client.until(b'Z').unwrap()
}

/// Binds, describes and runs a statement, as libpq does.
fn run(client: &mut Conversation, name: &str) -> Vec<Message> {
    let batch = [
        frontend::bind("", name, &[], 0),
        frontend::describe(b'P', ""),
        frontend::execute("", 0),
        frontend::sync(),
    ];
    client.send(&batch.concat()).unwrap();
    client.until(b'Z').unwrap()
}

#[test]
fn a_statement_whose_tables_have_changed_is_prepared_anew() {
    let (server, _tieline, address) = one_server();
    let (mut one, mut other) = (log_in(address), log_in(address));
    server.ask("create table shapes as select 1 as a");
    prepare(&mut one, "s", "select * from shapes");
    assert_eq!(kinds(&run(&mut one, "s")), "2TDCZ");
    server.ask("alter table shapes add b int default 2");
    // It asks what its rows look like, so nothing is wrong.
    let said = run(&mut one, "s");
    assert_eq!(kinds(&said), "2TDCZ", "{said:?}");
    assert_eq!(said[2].columns(), [Some("1".into()), Some("2".into())]);
    // Whoever goes by what they looked like is told, as the server itself tells it, once.
    server.ask("alter table shapes add c int default 3");
    let blind = [frontend::bind("", "s", &[], 0), frontend::execute("", 0), frontend::sync()].concat();
    one.send(&blind).unwrap();
    assert_eq!(code(&one.until(b'Z').unwrap()), "0A000");
    prepare(&mut other, "another", "select * from shapes");
    assert_eq!(run(&mut other, "another")[2].columns().len(), 3);
    one.send(&blind).unwrap();
    assert_eq!(kinds(&one.until(b'Z').unwrap()), "2DCZ");
    // Within a transaction it fails, which the client must know; behind it all is well.
    server.ask("alter table shapes add d int default 4");
    one.query("begin");
    assert_eq!(code(&run(&mut one, "s")), "0A000");
    one.query("rollback");
    assert_eq!(run(&mut one, "s")[2].columns().len(), 4);
    // In a pipeline others would be out of turn.
    server.ask("alter table shapes add e int default 5");
    let batch =
        [frontend::bind("", "s", &[], 0), frontend::describe(b'P', ""), frontend::execute("", 0)].concat();
    one.send(&[batch, frontend::sync(), frontend::query("select 7")].concat()).unwrap();
    assert_eq!(code(&one.until(b'Z').unwrap()), "0A000");
    assert_eq!(kinds(&one.until(b'Z').unwrap()), "TDCZ");
    // A table that is gone is an error like any other, and its statement no riddle.
    server.ask("drop table shapes");
    assert_eq!(code(&run(&mut one, "s")), "42P01");
    server.ask("create table shapes as select 'new' as name");
    assert_eq!(run(&mut one, "s")[2].columns(), [Some("new".into())]);
}

#[test]
fn a_statement_that_was_deallocated_from_within_is_prepared_anew() {
    let (_server, _tieline, address) = one_server();
    let mut client = log_in(address);
    prepare(&mut client, "s", "select 1");
    client.query(
        "do $$ declare it text; begin select name into it from pg_prepared_statements; \
                  execute 'deallocate ' || quote_ident(it); end $$",
    );
    // The server has forgotten what we believe it to have: that is an error once, and then it is mended.
    let said = run(&mut client, "s");
    assert_eq!(code(&said), "26000", "{said:?}");
    assert_eq!(kinds(&run(&mut client, "s")), "2TDCZ");
}

#[test]
fn names_of_statements_are_found_behind_comments() {
    let (_server, _tieline, address) = one_server();
    let (mut one, mut other) = (log_in(address), log_in(address));
    prepare(&mut one, "s", "select 'one'");
    prepare(&mut other, "s", "select 'other'");
    assert_eq!(one.value("/* traced */ -- by the driver\n execute/* it */s"), "one");
    assert_eq!(other.value("execute s -- at once"), "other");
    assert_eq!(kinds(&one.query("/* done */ deallocate s")), "CZ");
    assert_eq!(code(&run(&mut one, "s")), "26000");
    assert_eq!(kinds(&run(&mut other, "s")), "2TDCZ");
}

#[test]
fn rollbacks_take_settings_back_wherever_the_client_is_served_next() {
    let (_server, _tieline, address) = one_server();
    let (mut one, mut other) = (log_in(address), log_in(address));
    one.query("set work_mem = '5MB'; set app.tenant = 'one'");
    for (steps, work_mem, tenant) in [
        (&["begin", "set work_mem = '6MB'", "rollback"][..], "5MB", "one"),
        (&["begin", "savepoint s", "set work_mem = '7MB'", "rollback to s", "commit"], "5MB", "one"),
        (
            &[
                "begin",
                "set work_mem = '8MB'",
                "savepoint s",
                "set work_mem = '9MB'",
                "rollback to s",
                "commit",
            ],
            "8MB",
            "one",
        ),
        (&["begin", "savepoint s", "set app.tenant = 'two'", "release s", "commit"], "8MB", "two"),
        (&["begin", "set work_mem = '10MB'", "select 1/0", "commit"], "8MB", "two"),
        (
            &["begin", "savepoint s", "set app.tenant = 'no'", "select 1/0", "rollback to s", "commit"],
            "8MB",
            "two",
        ),
        (&["begin; set work_mem = '11MB'; rollback"], "8MB", "two"),
    ] {
        for step in steps {
            one.query(step);
        }
        assert_eq!(other.value("show work_mem"), "4MB", "{steps:?}");
        assert_eq!(other.value("select coalesce(current_setting('app.tenant', true), '')"), "");
        assert_eq!(one.value("show work_mem"), work_mem, "{steps:?}");
        assert_eq!(one.value("show app.tenant"), tenant, "{steps:?}");
    }
}

#[test]
fn more_settings_than_are_followed_keep_their_client_at_its_server() {
    let server = Server::start();
    let (tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 2 }");
    let mut client = log_in(address);
    let many: String = (0..70).map(|at| format!("set app.s{at} = 'one';")).collect();
    client.query(&many);
    let kept = client.value("select pg_backend_pid()");
    let mut other = log_in(address);
    assert_ne!(other.value("select pg_backend_pid()"), kept);
    assert_eq!(client.value("show app.s69"), "one");
    let story = || tieline.cli(["show", "1"]).stdout;
    assert!(wait_until(PATIENCE, || story().contains("keeps its server for something that nothing undoes")));
    client.send(&frontend::terminate()).unwrap();
    let gone = format!("select count(*) from pg_stat_activity where pid = {kept}");
    assert!(wait_until(PATIENCE, || server.ask(&gone) == "0"), "the server is of no use to others");
}

#[test]
fn what_functions_change_from_within_is_undone_where_everything_is() {
    let server = Server::start();
    server.ask(
        "create function sly() returns void language sql as $$ select set_config('app.sly', 'told', false); \
         select set_config('work_mem', '77MB', false); select pg_advisory_lock(7) $$",
    );
    let (_tieline, address) = tieline(&server, "{ mode = \"transaction\", size = 1, reset = \"always\" }");
    let (mut one, mut other) = (log_in(address), log_in(address));
    one.query("set app.tenant = 'one'; set role tenant");
    assert_eq!(other.value("select current_user = session_user"), "t");
    one.query("reset role; select sly()");
    // A lock is seen too, and keeps its client where it is; without it the server is everybody's.
    one.query("select pg_advisory_unlock(7)");
    assert_eq!(other.value("show work_mem"), "4MB");
    assert_eq!(other.value("select coalesce(current_setting('app.sly', true), '')"), "");
    assert_eq!(other.value("select coalesce(current_setting('app.tenant', true), '')"), "");
    // What its own session has of that follows it; what servers do not list is lost.
    assert_eq!(one.value("show work_mem"), "77MB");
    assert_eq!(one.value("show app.tenant"), "one");
    prepare(&mut one, "s", "select 'prepared'");
    other.query("select 1");
    assert_eq!(run(&mut one, "s")[2].columns(), [Some("prepared".into())]);
}

#[test]
fn a_transaction_that_was_prepared_may_be_finished_anywhere() {
    let settings = [("max_prepared_transactions", "5")];
    let postgres = tieline_testkit::Cluster { settings: &settings, ..Default::default() }.start();
    let tieline = Tieline::start(&format!(
        "[listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
         [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n\
         [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{}\"]\n\
         pool = {{ mode = \"transaction\", size = 2 }}\n",
        postgres.address()
    ));
    let address = tieline.listener_address("db");
    let (mut one, mut other) = (log_in(address), log_in(address));
    one.query("create table t (n int)");
    for step in ["begin", "insert into t values (1)", "prepare transaction 'two phases'"] {
        assert_eq!(code(&one.query(step)), "", "{step}");
    }
    assert_eq!(one.value("select count(*) from t"), "0");
    assert_eq!(kinds(&other.query("commit prepared 'two phases'")), "CZ");
    assert_eq!(one.value("select count(*) from t"), "1");
}

#[test]
fn large_objects_are_read_by_descriptors_of_one_transaction() {
    let (_server, _tieline, address) = one_server();
    let (mut one, mut other) = (log_in(address), log_in(address));
    assert_eq!(one.value("select lo_from_bytea(4711, 'large')"), "4711");
    one.query("begin");
    assert_eq!(one.value("select lo_open(4711, 262144)"), "0");
    assert_eq!(one.value("select convert_from(loread(0, 5), 'utf8')"), "large");
    one.query("commit");
    assert_eq!(code(&other.query("select loread(0, 5)")), "42704");
}

fn refused(address: SocketAddr, statement: &str) -> (String, bool) {
    let mut client = log_in(address);
    client.send(&frontend::query(statement)).unwrap();
    let mut refused = String::new();
    while let Ok(Some(message)) = client.message() {
        match message.kind {
            b'E' => refused = message.field(b'V') + " " + &message.field(b'M'),
            b'Z' => return (refused, false),
            _ => {}
        }
    }
    (refused, true)
}

#[test]
fn in_statement_mode_every_statement_is_a_transaction_of_its_own_as_with_pgbouncer() {
    let server = Server::start();
    let (_tieline, address) = tieline(&server, "{ mode = \"statement\", size = 2 }");
    let database = format!("* = host=127.0.0.1 port={}", server.address().port());
    let bouncer = PgBouncer::start(&[&database], &[("pool_mode", "statement")], &["\"postgres\" \"\""]);
    for (statement, is_refused) in [
        ("begin", true),
        ("start transaction", true),
        ("begin; select 1; commit", false),
        ("select 1; select 2", false),
    ] {
        let (ours, ended) = refused(address, statement);
        let (theirs, ends) = refused(bouncer.address(), statement);
        assert_eq!((ended, ends), (is_refused, is_refused), "{statement}: {ours} / {theirs}");
        assert_eq!(ours.contains("not allowed"), is_refused, "{statement}: {ours}");
        assert_eq!(theirs.contains("not allowed"), is_refused, "{statement}: {theirs}");
    }
    // A pipeline of statements is none of several, and each goes wherever there is a server.
    let (mut client, mut other) = (log_in(address), log_in(address));
    let statements = ["insert into dest values (1, 'x')", "select pg_backend_pid()", "select 2"];
    client.send(&statements.map(frontend::query).concat()).unwrap();
    let said: Vec<_> = (0..3).flat_map(|_| client.until(b'Z').unwrap()).collect();
    assert_eq!(kinds(&said), "CZTDCZTDCZ");
    let first = client.value("select pg_backend_pid()");
    server.ask(&format!("select pg_terminate_backend({first})"));
    let left = format!("select count(*) from pg_stat_activity where pid = {first}");
    assert!(wait_until(PATIENCE, || server.ask(&left) == "0"));
    assert_ne!(client.value("select pg_backend_pid()"), first);
    // What it sets follows it all the same, and what it listens to.
    client.query("set work_mem = '5MB'; listen news");
    assert_eq!((client.value("show work_mem"), other.value("show work_mem")), ("5MB".into(), "4MB".into()));
    server.ask("notify news, 'said'");
    assert_eq!(client.message().unwrap().unwrap().kind, b'A');
}
