//! Servers that hold the same data: each is found to be what it is, and gets what is meant for it.

use std::net::SocketAddr;
use std::thread;

use serde_json::Value;
use tieline_testkit::pg::Conversation;
use tieline_testkit::{Cluster, PATIENCE, Postgres, Tieline, usage, wait_until};

/// A primary with a table, its replica, and Tieline before both.
pub(crate) struct Pair {
    pub(crate) primary: Postgres,
    pub(crate) replica: Postgres,
    pub(crate) tieline: Tieline,
    pub(crate) address: SocketAddr,
}

impl Pair {
    /// `more` stands in the upstream; the user "reporting" is led to replicas.
    fn open(more: &str) -> Pair {
        Pair::of(&["create table t (n int)"], "", &format!("user = \"postgres\"\n{more}"))
    }

    /// The primary begins with `sql`; `route` stands in the route of everybody else, `more` in the upstream.
    pub(crate) fn of(sql: &[&str], route: &str, more: &str) -> Pair {
        let settings = [("max_wal_senders", "4"), ("max_connections", "100")];
        let primary = Cluster { settings: &settings, sql, ..Cluster::default() }.start();
        let replica = primary.replica(&[("log_statement", "all")]);
        // The replica first: the order says nothing.
        let tieline = Tieline::start(&format!(
            "[server]\nworkers = 2\n\
             [listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
             [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n{route}\n\
             [[listener.db.route]]\nuser = \"reporting\"\nupstream = \"pg\"\nrole = \"replica\"\n\
             access = \"public\"\n\
             [upstream.pg]\nprotocol = \"postgres\"\n\
             endpoints = [{{ address = \"{}\", connections = {REPLICA_CONNECTIONS} }}, \"{}\"]\n{more}\n",
            replica.address(),
            primary.address()
        ));
        let address = tieline.listener_address("db");
        let pair = Pair { primary, replica, tieline, address };
        pair.until(pair.primary.address(), "primary");
        pair.until(pair.replica.address(), "replica");
        // One that has not come yet to where the primary was is a replica too.
        let mut asks = pair.log_in("reporting");
        assert!(wait_until(PATIENCE, || asks.value(RECOVERS) == "t"), "{}", pair.tieline.log());
        pair
    }

    /// Waits until `server` is found to be `role`.
    #[track_caller]
    fn until(&self, server: SocketAddr, role: &str) {
        let is = || self.endpoint(server)["role"] == role;
        assert!(wait_until(PATIENCE, is), "{server} is no {role}: {}", self.tieline.get("/api/v1/upstreams"));
    }

    pub(crate) fn endpoint(&self, server: SocketAddr) -> Value {
        let upstreams = self.tieline.get("/api/v1/upstreams");
        let all = upstreams.as_array().cloned().or_else(|| upstreams["upstreams"].as_array().cloned());
        let endpoints =
            all.unwrap_or_default().into_iter().flat_map(|it| it["endpoints"].as_array().cloned());
        let found = endpoints.flatten().find(|endpoint| endpoint["label"] == server.to_string());
        found.unwrap_or(Value::Null)
    }

    pub(crate) fn log_in(&self, user: &str) -> Conversation {
        Conversation::log_in(self.address, user, "postgres")
    }
}

/// So many servers may be used at the replica at once.
const REPLICA_CONNECTIONS: usize = 4;

const RECOVERS: &str = "select pg_is_in_recovery()";

#[test]
fn writes_go_to_the_primary_and_what_is_meant_for_replicas_to_one() {
    let pair = Pair::open("");
    let (mut writer, mut reader) = (pair.log_in("app"), pair.log_in("reporting"));
    for _ in 0..8 {
        assert_eq!(writer.value(RECOVERS), "f");
        assert_eq!(reader.value(RECOVERS), "t");
    }
    let lag = format!(
        "tieline_endpoint_role{{upstream=\"pg\",endpoint=\"{}\",role=\"replica\"}}",
        pair.replica.address()
    );
    assert_eq!(pair.tieline.metric(&lag), 1.0, "{}", pair.tieline.metrics());
}

#[test]
fn a_replica_that_is_behind_serves_no_reads_until_it_has_caught_up() {
    let pair = Pair::open("replicas = { every = \"100ms\", max_lag = \"500ms\" }");
    let (mut writer, mut reader) = (pair.log_in("app"), pair.log_in("reporting"));
    // A machine that stops for half a second makes it late, too.
    assert!(wait_until(PATIENCE, || reader.value(RECOVERS) == "t"));
    pair.replica.query("select pg_wal_replay_pause()");
    writer.query("insert into t values (1)");
    assert!(wait_until(PATIENCE, || reader.value(RECOVERS) == "f"), "the primary stands in");
    assert!(pair.endpoint(pair.replica.address())["lag_seconds"].as_f64() > Some(0.5));
    pair.replica.query("select pg_wal_replay_resume()");
    assert!(wait_until(PATIENCE, || reader.value(RECOVERS) == "t"));
    assert_eq!(reader.value("select count(*) from t"), "1");
}

#[test]
fn reads_that_may_wait_do_not_burden_the_primary() {
    let more = "replicas = { every = \"100ms\", fallback = \"wait\" }\ntimeouts = { acquire = \"5s\" }";
    let mut pair = Pair::open(more);
    let (mut writer, mut reader) = (pair.log_in("app"), pair.log_in("reporting"));
    assert_eq!(reader.value(RECOVERS), "t");
    let family = usage::tree(pair.replica.process().pid());
    pair.replica.process().kill();
    assert!(wait_until(PATIENCE, || !family.iter().any(usage::Member::is_alive)));
    let (said, label) = (|| pair.tieline.log(), pair.replica.address().to_string());
    let is_unfit = || said().lines().any(|line| line.contains(&label) && line.contains("reads=false"));
    assert!(wait_until(PATIENCE, is_unfit), "{}", said());
    let answer = reader.query(RECOVERS);
    assert_eq!(answer[0].field(b'C'), "08006", "{answer:?}");
    assert_eq!(writer.value(RECOVERS), "f");
}

#[test]
fn who_stands_in_line_for_a_replica_that_falls_behind_goes_to_the_primary() {
    let pair = Pair::open("replicas = { every = \"100ms\", max_lag = \"500ms\" }");
    let mut busy: Vec<_> = (0..REPLICA_CONNECTIONS).map(|_| pair.log_in("reporting")).collect();
    for client in &mut busy {
        assert!(wait_until(PATIENCE, || {
            client.query("rollback");
            client.query("begin");
            client.value(RECOVERS) == "t"
        }));
    }
    let mut waits = pair.log_in("reporting");
    let waiting = thread::spawn(move || waits.value(RECOVERS));
    let in_line = || pair.tieline.metric("tieline_pool_waiting{upstream=\"pg\"}") == 1.0;
    assert!(wait_until(PATIENCE, in_line));
    pair.replica.query("select pg_wal_replay_pause()");
    pair.log_in("app").query("insert into t values (1)");
    assert_eq!(waiting.join().unwrap(), "f");
    pair.replica.query("select pg_wal_replay_resume()");
}

#[test]
fn who_waits_for_a_primary_sees_a_delay_and_no_error() {
    let mut pair = Pair::open("pool = { size = 10 }");
    let mut resting: Vec<_> = (0..12).map(|_| pair.log_in("app")).collect();
    for client in &mut resting {
        assert_eq!(client.value("insert into t values (1) returning n"), "1");
    }
    let mut busy = pair.log_in("app");
    busy.query("begin");
    busy.query("insert into t values (2)");
    assert!(wait_until(PATIENCE, || pair.replica.query("select count(*) from t") == "12"));
    let family = usage::tree(pair.primary.process().pid());
    pair.primary.process().kill();
    assert!(wait_until(PATIENCE, || !family.iter().any(usage::Member::is_alive)));
    let lost = busy.until(b'E').unwrap();
    let code = lost.last().map(|last| last.field(b'C')).unwrap_or_default();
    assert!(["08006", "57P01", "57P02"].contains(&&*code), "{lost:?}");
    let waiting: Vec<_> = resting
        .into_iter()
        .map(|mut client| thread::spawn(move || client.value("insert into t values (3) returning n")))
        .collect();
    // All of them wait for whoever comes next.
    let acquiring =
        || pair.tieline.cli(["ls", "stage=acquire", "--json"]).stdout.matches("\"acquire\"").count();
    assert!(wait_until(PATIENCE, || acquiring() >= 12), "{}", pair.tieline.cli(["ls"]).stdout);
    pair.replica.promote();
    for client in waiting {
        assert_eq!(client.join().unwrap(), "3");
    }
    assert_eq!(pair.replica.query("select count(*) from t where n = 3"), "12");
    assert_eq!(pair.replica.query("select count(*) from t where n = 2"), "0");
    pair.until(pair.replica.address(), "primary");
}

#[test]
fn a_primary_that_was_superseded_is_asked_nothing() {
    let pair = Pair::open("replicas = { every = \"100ms\" }");
    let (mut writer, mut busy) = (pair.log_in("app"), pair.log_in("app"));
    assert_eq!(writer.value("select inet_server_port()"), pair.primary.address().port().to_string());
    busy.query("begin");
    busy.query("insert into t values (1)");
    pair.replica.promote();
    pair.until(pair.replica.address(), "primary");
    pair.until(pair.primary.address(), "superseded");
    assert_eq!(writer.value("select inet_server_port()"), pair.replica.address().port().to_string());
    let told = || pair.tieline.log().contains("another was promoted in its place");
    assert!(wait_until(PATIENCE, told), "{}", pair.tieline.log());
    // Who is in the middle of a transaction there ends it, or is cut off.
    busy.query("rollback");
    let live = || pair.tieline.cli(["ls", "--json"]).stdout.matches("\"id\"").count();
    assert!(wait_until(PATIENCE, || live() == 1));
}

#[test]
fn pools_of_two_routes_to_one_server_do_not_stand_in_each_others_way() {
    let postgres = Postgres::start();
    let end = postgres.address();
    let tieline = Tieline::start(&format!(
        "[server]\nworkers = 2\n\
         [listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
         [[listener.db.route]]\nupstream = \"oltp\"\naccess = \"public\"\npriority = \"high\"\n\
         [[listener.db.route]]\nuser = \"reporting\"\nupstream = \"reports\"\naccess = \"public\"\n\
         priority = \"low\"\n\
         [upstream.oltp]\nprotocol = \"postgres\"\nuser = \"postgres\"\nendpoints = [\"{end}\"]\n\
         pool.size = 1\n[upstream.reports]\n\
         protocol = \"postgres\"\nuser = \"postgres\"\nendpoints = [\"{end}\"]\n\
         pool.size = 1\n"
    ));
    let address = tieline.listener_address("db");
    let log_in = |user| Conversation::log_in(address, user, "postgres");
    let (mut report, mut other, mut app) = (log_in("reporting"), log_in("reporting"), log_in("app"));
    report.query("begin");
    report.query("select 1");
    let waiting = thread::spawn(move || other.value("select 2"));
    assert!(wait_until(PATIENCE, || tieline.metric("tieline_pool_waiting{upstream=\"reports\"}") == 1.0));
    for _ in 0..20 {
        assert_eq!(app.value("select 3"), "3");
    }
    report.query("commit");
    assert_eq!(waiting.join().unwrap(), "2");
}
