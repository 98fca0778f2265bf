//! Reads that go to replicas although their route leads to the primary: what surely reads does, whatever may
//! write never does, and who has written reads that.

use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{Cluster, PATIENCE, Tieline, wait_until};

use crate::replicas::Pair;

/// `place` says which server was asked, in a way that surely only reads.
const SQL: &[&str] = &[
    "create table t (n int)",
    "create sequence s",
    "create unlogged table fleeting as select 'fleeting' as word",
    "create view place as select case when pg_is_in_recovery() then 'replica' else 'primary' end as role",
    "create view counter as select nextval('s') as next",
    "create function writes() returns int language sql as 'insert into t values (7) returning n'",
    "create procedure p() language sql as 'insert into t values (8)'",
];

const PLACE: &str = "select role from place";

const STATEMENTS: &str = "replica_reads = \"statements\"";

fn pair(route: &str, more: &str) -> Pair {
    Pair::of(SQL, route, &format!("user = \"postgres\"\n{more}"))
}

/// What answers a batch of the extended protocol up to ReadyForQuery, by its rows and its errors.
fn rows(client: &mut Conversation, bytes: &[u8]) -> Vec<String> {
    client.send(bytes).unwrap();
    said(client)
}

fn said(client: &mut Conversation) -> Vec<String> {
    let told = client.until(b'Z').unwrap();
    let word = |message: &tieline_testkit::pg::Message| match message.kind {
        b'D' => message.columns().into_iter().next().flatten(),
        b'E' => Some(message.field(b'C')),
        _ => None,
    };
    told.iter().filter_map(word).collect()
}

fn extended(name: &str, sql: &str) -> Vec<u8> {
    let parts = [
        frontend::parse(name, sql, &[]),
        frontend::bind("", name, &[], 0),
        frontend::describe(b'P', ""),
        frontend::execute("", 0),
        frontend::sync(),
    ];
    parts.concat()
}

#[test]
fn single_statements_that_surely_read_go_to_a_replica_by_either_protocol() {
    let pair = pair(STATEMENTS, "");
    let mut client = pair.log_in("app");
    for _ in 0..4 {
        assert_eq!(client.value(PLACE), "replica");
        assert_eq!(rows(&mut client, &extended("", PLACE)), ["replica"]);
    }
    assert_eq!(rows(&mut client, &extended("named", PLACE)), ["replica"]);
    let again = [frontend::bind("", "named", &[], 0), frontend::execute("", 0), frontend::sync()];
    assert_eq!(rows(&mut client, &again.concat()), ["replica"]);
    // In pieces it is the same, and nobody waits for what does not come.
    client.send_in_pieces(&extended("", PLACE), 1).unwrap();
    assert_eq!(said(&mut client), ["replica"]);
    let flushed = [frontend::parse("", PLACE, &[]), frontend::flush()].concat();
    client.send(&flushed).unwrap();
    assert!(client.until(b'1').unwrap().iter().all(|message| message.kind != b'E'));
    assert_eq!(
        rows(
            &mut client,
            &[frontend::bind("", "", &[], 0), frontend::execute("", 0), frontend::sync()].concat()
        ),
        ["primary"]
    );
}

#[test]
fn transactions_that_are_said_to_read_go_to_a_replica_and_nothing_else_does() {
    let pair = pair("replica_reads = \"transactions\"", "");
    let mut client = pair.log_in("app");
    assert_eq!(client.value(PLACE), "primary");
    for begin in ["begin read only", "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"] {
        client.query(begin);
        assert_eq!(client.value("select pg_is_in_recovery()"), "t", "{begin}");
        assert_eq!(client.value(PLACE), "replica");
        client.query("commit");
    }
    rows(&mut client, &extended("", "begin transaction read only"));
    assert_eq!(client.value(PLACE), "replica");
    client.query("rollback");
    client.query("begin; set transaction read only");
    assert_eq!(client.value(PLACE), "replica");
    client.query("end");
    for begin in ["begin", "begin read write", "begin isolation level serializable read only"] {
        client.query(begin);
        assert_eq!(client.value(PLACE), "primary", "{begin}");
        client.query("commit");
    }
    client.query("set default_transaction_read_only = on");
    assert_eq!(client.value(PLACE), "primary");
}

/// What may write, lock, or be answered otherwise by every server.
const UNSURE: &[&str] = &[
    "insert into t values (1)",
    "update t set n = n + 1",
    "delete from t where n = 99",
    "with gone as (delete from t where n = 99 returning n) select n from gone",
    "merge into t using (select 5 as m) as m on n = m when not matched then insert values (m)",
    "select n from t for update",
    "select n from t for share",
    "select n into unlogged other from t",
    "create table another as select 1 as n",
    "select nextval('s')",
    "select setval('s', 50)",
    "select last_value from s",
    "select lastval()",
    "select writes()",
    "call p()",
    "do $$ begin insert into t values (9); end $$",
    "select set_config('application_name', 'me', false)",
    "set application_name = 'you'",
    "select pg_advisory_xact_lock(1)",
    "select pg_try_advisory_lock(1)",
    "select pg_advisory_unlock(1)",
    "select pg_notify('a', 'b')",
    "notify a, 'b'",
    "lock table t",
    "truncate another",
    "copy t to stdout",
    "explain analyze insert into t values (3)",
    "explain select 1",
    "select pg_is_in_recovery()",
    "select pg_backend_pid()",
    "select count(*) from pg_stat_activity",
    "select count(*) from \"pg_locks\"",
    "select lo_create(0)",
    "select pg_current_xact_id()",
    "select pg_sleep(0)",
    "prepare p as insert into t values (4)",
    "execute p",
    "deallocate p",
    "show transaction_read_only",
    "show all",
    "vacuum t",
    "analyze t",
    "reindex table t",
    "comment on table t is 'x'",
    "create index on t (n)",
    "alter table t add column m int",
    "grant select on t to public",
    "drop table another",
    "select 1; insert into t values (6)",
    "begin; insert into t values (6); commit",
    "select 'a\\', writes() --'",
    "select U&'\\0061', 1",
];

#[test]
fn whatever_may_write_is_never_led_to_a_replica() {
    let mut pair = pair(STATEMENTS, "");
    let marked = |sql: &str, number: usize| format!("/* unsure {number} */ {sql}");
    for (number, sql) in UNSURE.iter().enumerate() {
        // Each by somebody who is free to go anywhere: some of it keeps its client at its server.
        let simple = pair.log_in("app").query(&marked(sql, number));
        let refused = simple.iter().find(|message| message.field(b'C') == "25006");
        assert!(refused.is_none(), "{sql}: {simple:?}");
        let told = rows(&mut pair.log_in("app"), &extended("", &marked(sql, number)));
        assert!(!told.contains(&"25006".to_owned()), "{sql}: {told:?}");
    }
    assert_eq!(pair.log_in("app").value(PLACE), "replica");
    let log = pair.replica.process().log();
    assert!(log.contains(PLACE), "it logs what it is asked: {log}");
    let line = log.lines().find(|line| line.contains("unsure"));
    assert_eq!(line, None, "a replica was asked what may write");
}

#[test]
fn sessions_that_are_serializable_by_default_read_from_the_primary() {
    let pair = pair(&format!("{STATEMENTS}\nread_your_writes = false"), "");
    let mut client = pair.log_in("app");
    client.query("set session characteristics as transaction isolation level serializable");
    client.query("begin read only");
    assert_eq!(client.value(PLACE), "primary");
    client.query("commit");
    assert_eq!(client.value(PLACE), "primary");
    client.query("reset default_transaction_isolation");
    client.query("begin read only");
    assert_eq!(client.value(PLACE), "replica");
    client.query("commit");
}

#[test]
fn what_a_replica_cannot_do_the_primary_does() {
    let pair = pair(STATEMENTS, "");
    let mut client = pair.log_in("app");
    for _ in 0..3 {
        assert_eq!(client.value("select word from fleeting"), "fleeting");
        assert_eq!(rows(&mut client, &extended("", "select word from fleeting")), ["fleeting"]);
        assert_eq!(client.value(PLACE), "replica");
    }
    assert_eq!(client.value("select next from counter"), "1");
    assert_eq!(rows(&mut client, &extended("", "select next from counter")), ["2"]);
    // What nobody can do is told once, by the primary.
    let mut told = client.query("select nothing from nowhere");
    // Each server says whether it is in recovery.
    told.retain(|message| message.kind != b'S');
    let kinds: String = told.iter().map(|message| char::from(message.kind)).collect();
    assert_eq!((&*kinds, &*told[0].field(b'C')), ("EZ", "42P01"), "{told:?}");
    let told = client.query("select 1/0");
    assert!(told.iter().any(|message| message.field(b'C') == "22012"), "{told:?}");
    assert_eq!(client.value(PLACE), "replica");
}

#[test]
fn what_is_sent_together_goes_where_each_belongs_and_is_answered_in_order() {
    let pair = pair(STATEMENTS, "");
    let mut client = pair.log_in("app");
    let texts = [
        PLACE,
        "insert into t values (1) returning n",
        "begin read only",
        "select pg_is_in_recovery()::text",
        "commit",
        "insert into t values (2) returning n",
        "select word from fleeting",
        "begin",
        "insert into t values (3) returning n",
        "commit",
    ];
    let all: Vec<u8> = texts.iter().flat_map(|sql| frontend::query(sql)).collect();
    client.send(&all).unwrap();
    let told: Vec<_> = texts.iter().map(|_| said(&mut client)).collect();
    let words: Vec<&str> = told.iter().flatten().map(String::as_str).collect();
    // A transaction behind a write of its own goes to the primary, until that is known to be elsewhere.
    assert_eq!([words[0], words[1]], ["replica", "1"]);
    assert!(["true", "false"].contains(&words[2]), "{words:?}");
    assert_eq!(words[3..], ["2", "fleeting", "3"]);
    let all: Vec<u8> = texts.iter().flat_map(|sql| extended("", sql)).collect();
    client.send(&all).unwrap();
    let told: Vec<_> = texts.iter().flat_map(|_| said(&mut client)).collect();
    assert_eq!(
        (told[1].as_str(), told[3..].to_vec()),
        ("1", vec!["2".into(), "fleeting".into(), "3".into()])
    );
    assert_eq!(pair.primary.query("select count(*) from t"), "6");
}

#[test]
fn who_has_written_reads_that_although_replicas_lack_it() {
    let pair = pair(STATEMENTS, "replicas = { every = \"100ms\", max_lag = \"1h\" }");
    let (mut writer, mut reader) = (pair.log_in("app"), pair.log_in("app"));
    pair.replica.query("select pg_wal_replay_pause()");
    for number in 1..=30 {
        writer.query("insert into t values (0)");
        assert_eq!(writer.value("select count(*) from t"), number.to_string());
        assert_eq!(rows(&mut writer, &extended("", PLACE)), ["primary"]);
        writer.query("begin read only");
        assert_eq!(writer.value("select count(*) from t"), number.to_string());
        writer.query("commit");
        // Who has not is told what was.
        assert_eq!(reader.value("select count(*) from t"), "0");
    }
    pair.replica.query("select pg_wal_replay_resume()");
    assert!(wait_until(PATIENCE, || writer.value(PLACE) == "replica"));
    assert_eq!(writer.value("select count(*) from t"), "30");
    assert_eq!(writer.value(PLACE), "replica");
}

#[test]
fn who_does_not_ask_for_that_reads_from_replicas_at_once() {
    let route = format!("{STATEMENTS}\nread_your_writes = false");
    let pair = pair(&route, "replicas = { every = \"100ms\", max_lag = \"1h\" }");
    let mut client = pair.log_in("app");
    pair.replica.query("select pg_wal_replay_pause()");
    client.query("insert into t values (0)");
    assert_eq!(client.value("select count(*) from t"), "0");
    pair.replica.query("select pg_wal_replay_resume()");
}

#[test]
fn a_replica_that_dies_costs_no_read_an_error() {
    let mut pair = pair(STATEMENTS, "replicas = { every = \"100ms\" }");
    let mut clients: Vec<_> = (0..8).map(|_| pair.log_in("app")).collect();
    assert!(clients.iter_mut().all(|client| client.value(PLACE) == "replica"));
    let reading: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                let mut places = Vec::new();
                while places.last().is_none_or(|place| place == "replica") {
                    places.push(client.value(PLACE));
                }
                places
            })
        })
        .collect();
    pair.replica.process().kill();
    for client in reading {
        let places = client.join().unwrap();
        assert_eq!(places.last().map(String::as_str), Some("primary"), "{}", pair.tieline.log());
    }
}

#[test]
fn a_replica_that_lacks_too_much_of_the_log_serves_no_reads() {
    let more = "replicas = { every = \"100ms\", max_lag = \"1h\", max_lag_bytes = \"256KiB\" }";
    let pair = pair("", more);
    let (mut writer, mut reader) = (pair.log_in("app"), pair.log_in("reporting"));
    pair.replica.query("select pg_wal_replay_pause()");
    writer.query("insert into t values (1)");
    for _ in 0..5 {
        assert_eq!(reader.value(PLACE), "replica");
    }
    writer.query("insert into t select generate_series(1, 20000)");
    assert!(wait_until(PATIENCE, || reader.value(PLACE) == "primary"));
    pair.replica.query("select pg_wal_replay_resume()");
    assert!(wait_until(PATIENCE, || reader.value(PLACE) == "replica"));
}

#[test]
fn servers_are_asked_by_a_user_for_that_where_clients_log_in_as_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("watcher.pw");
    std::fs::write(&file, "pencil").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let sql = ["create role watcher login password 'pencil'", "create role app login", SQL[3]];
    let sql = [&sql[..], &["grant select on place to public"]].concat();
    let access = ["host all watcher 127.0.0.1/32 scram-sha-256", "host all app 127.0.0.1/32 trust"];
    let settings = [("max_wal_senders", "4")];
    let primary = Cluster { settings: &settings, access: &access, sql: &sql, ..Cluster::default() }.start();
    let replica = primary.replica(&[]);
    let tieline = Tieline::start(&format!(
        "[listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
         [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n{STATEMENTS}\n\
         [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{}\", \"{}\"]\n\
         replicas = {{ user = \"watcher\", password_file = \"{}\" }}\n",
        primary.address(),
        replica.address(),
        file.display()
    ));
    let mut client = Conversation::log_in(tieline.listener_address("db"), "app", "postgres");
    assert!(wait_until(PATIENCE, || client.value(PLACE) == "replica"), "{}", tieline.log());
    assert_eq!(client.value("select session_user from pg_is_in_recovery()"), "app");
}
