//! Connections for replication: real programs that copy and follow a server through us, each over a server of
//! its own.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use tieline_base::Clock;
use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{Cluster, PATIENCE, Postgres, Tieline, finish, wait_until};

use crate::login::psql;

/// A server that can be replicated every way, and Tieline before it.
struct House {
    postgres: Postgres,
    tieline: Tieline,
    address: SocketAddr,
    config: String,
}

impl House {
    /// `listener`, `route` and `upstream` say more.
    fn open(listener: &str, route: &str, upstream: &str) -> House {
        // What is committed is in the WAL's file too, so that "up to here" holds all of it.
        let settings = [("wal_level", "logical"), ("max_wal_senders", "8"), ("synchronous_commit", "on")];
        let sql = ["create table t (n int primary key)"];
        let postgres = Cluster { settings: &settings, sql: &sql, ..Cluster::default() }.start();
        let config = format!(
            "[listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n{listener}\n\
             [[listener.db.route]]\nname = \"all\"\nupstream = \"pg\"\naccess = \"public\"\n{route}\n\
             [upstream.pg]\nprotocol = \"postgres\"\nuser = \"postgres\"\nendpoints = [\"{}\"]\n{upstream}\n",
            postgres.address()
        );
        let tieline = Tieline::start(&config);
        let address = tieline.listener_address("db");
        House { postgres, tieline, address, config }
    }

    fn replicating() -> House {
        House::open("", "replication = true", "")
    }

    fn log_in(&self, replication: &str) -> Conversation {
        let parameters = [("user", "postgres"), ("database", "postgres"), ("replication", replication)];
        Conversation::log_in_with(self.address, &parameters)
    }

    /// A physical stream that has begun.
    fn stream(&self) -> Conversation {
        let mut stream = self.log_in("true");
        let from = self.postgres.query("select pg_current_wal_flush_lsn()");
        stream.send(&frontend::query(&format!("START_REPLICATION PHYSICAL {from}"))).unwrap();
        let began = stream.until(b'W').unwrap();
        assert_eq!(began.last().map(|last| last.kind), Some(b'W'), "{began:?}");
        stream
    }

    /// How many walsenders the server has.
    fn senders(&self) -> String {
        self.postgres.query("select count(*) from pg_stat_replication where state = 'streaming'")
    }

    /// How many connections ended so.
    fn ended(&self, reason: &str) -> f64 {
        let series = format!("tieline_connections_closed_total{{listener=\"db\",reason=\"{reason}\"}}");
        self.tieline.metric(&series)
    }
}

/// Reads what is sent in `stream` until it is said that the connection is over, or it is.
fn until_end(stream: &mut Conversation) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Ok(Some(message)) = stream.message() {
        kinds.push(message.kind);
    }
    kinds
}

#[test]
fn a_standby_is_copied_and_follows_through_us() {
    let house = House::replicating();
    house.postgres.query("insert into t select generate_series(1, 1000)");
    let standby = Postgres::replica_of(house.address, &[("cluster_name", "second")]);
    assert_eq!(standby.query("select count(*) from t"), "1000");
    house.postgres.query("insert into t select generate_series(1001, 3000)");
    assert!(wait_until(PATIENCE, || standby.query("select count(*) from t") == "3000"));
    // It is known by the name that it gave itself, and reports how far it is.
    let known = "select count(*) from pg_stat_replication where application_name = 'second' \
                 and replay_lsn is not null";
    assert!(wait_until(PATIENCE, || house.postgres.query(known) == "1"));
    let shown = house.tieline.cli(["ls", "stage=relay", "--json"]).stdout;
    assert_eq!(shown.matches("\"id\"").count(), 1, "{shown}");
    // One that is killed comes back by itself.
    assert!(house.tieline.cli(["kill", "stage=relay"]).success());
    assert!(wait_until(PATIENCE, || house.ended("killed") == 1.0), "{}", house.tieline.metrics());
    house.postgres.query("insert into t values (0)");
    assert!(wait_until(PATIENCE, || standby.query("select count(*) from t") == "3001"));
}

#[test]
fn wal_is_received_up_to_a_place() {
    let house = House::replicating();
    let folder = tempfile::tempdir().unwrap();
    house.postgres.query("insert into t select generate_series(1, 50000)");
    let end = house.postgres.query("select pg_current_wal_flush_lsn()");
    let mut receive = Postgres::tool("pg_receivewal", house.address);
    receive.args(["--no-loop", "--no-sync", "-E", &end, "-D"]).arg(folder.path());
    finish(&mut receive).expect("pg_receivewal");
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(files > 0, "nothing was received");
}

#[test]
fn changes_are_decoded_up_to_a_place() {
    let house = House::replicating();
    let receive = |arguments: &[&str]| {
        let mut command = Postgres::tool("pg_recvlogical", house.address);
        finish(command.args(["-d", "postgres", "-S", "changes"]).args(arguments)).expect("pg_recvlogical")
    };
    receive(&["--create-slot", "-P", "test_decoding"]);
    house.postgres.query("insert into t values (4711)");
    let end = house.postgres.query("select pg_current_wal_flush_lsn()");
    let changes = receive(&["--start", "--no-loop", "-E", &end, "-f", "-"]);
    assert!(changes.contains("n[integer]:4711"), "{changes}");
    receive(&["--drop-slot"]);
}

#[test]
fn a_subscription_follows_through_us() {
    let house = House::replicating();
    house.postgres.query("create publication p for table t");
    house.postgres.query("insert into t select generate_series(1, 100)");
    let subscriber = Cluster { sql: &["create table t (n int primary key)"], ..Cluster::default() }.start();
    let (host, port) = (house.address.ip(), house.address.port());
    subscriber.query(&format!(
        "create subscription s connection 'host={host} port={port} user=postgres dbname=postgres' \
         publication p"
    ));
    let count = || subscriber.query("select count(*) from t");
    assert!(wait_until(PATIENCE, || count() == "100"), "{}", house.tieline.log());
    house.postgres.query("insert into t values (101); delete from t where n = 1; insert into t values (102)");
    assert!(wait_until(PATIENCE, || count() == "101"));
    subscriber.query("drop subscription s");
    assert_eq!(house.postgres.query("select count(*) from pg_replication_slots"), "0");
}

#[test]
fn who_would_replicate_is_refused_unless_the_route_says_otherwise() {
    let house = House::open("", "", "");
    for replication in ["true", "database"] {
        let mut client = Conversation::connect(house.address);
        let parameters = [("user", "postgres"), ("database", "postgres"), ("replication", replication)];
        client.send(&frontend::startup(frontend::V3_0, &parameters)).unwrap();
        let said = client.until(b'E').unwrap();
        let error = said.last().unwrap();
        assert_eq!(error.field(b'C'), "28000", "{said:?}");
        assert!(error.field(b'M').contains("replication = true"), "{said:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut copy = Postgres::tool("pg_basebackup", house.address);
    let refused = finish(copy.arg("-D").arg(folder.path().join("copy")));
    assert!(refused.stderr.contains("route \"all\" takes no connections for replication"), "{refused:?}");
    assert!(wait_until(PATIENCE, || house.ended("refused:policy") == 3.0));
    // What it would replicate is nonsense: as a server says it.
    let mut client = Conversation::connect(house.address);
    let parameters = [("user", "postgres"), ("replication", "maybe")];
    client.send(&frontend::startup(frontend::V3_0, &parameters)).unwrap();
    assert_eq!(client.until(b'E').unwrap()[0].field(b'C'), "22023");
}

#[test]
fn a_whole_server_is_no_database_and_its_route_names_none() {
    let house = House::open("", "database = \"postgres\"\nreplication = true", "");
    let (mut logical, mut physical) = (house.log_in("database"), Conversation::connect(house.address));
    assert_eq!(logical.value("select current_database()"), "postgres");
    let parameters = [("user", "postgres"), ("database", "postgres"), ("replication", "true")];
    physical.send(&frontend::startup(frontend::V3_0, &parameters)).unwrap();
    assert_eq!(physical.until(b'E').unwrap().last().unwrap().field(b'C'), "3D000");
    assert!(wait_until(PATIENCE, || house.ended("refused:no-route") == 1.0));
}

#[test]
fn each_has_a_server_of_its_own_that_nobody_gets_before_or_after() {
    let house = House::open("console = { admin = \"postgres\" }", "replication = true", "pool.size = 2");
    let mut usual = Conversation::log_in(house.address, "postgres", "postgres");
    let pooled = usual.value("select pg_backend_pid()");
    let mut logical = house.log_in("database");
    let own = logical.value("select pg_backend_pid()");
    assert_ne!(pooled, own);
    logical.query("set search_path = nowhere");
    assert_eq!(usual.value("show search_path"), "\"$user\", public");
    // Both places are taken now: the third waits until the one that replicates is gone.
    usual.query("begin");
    usual.query("select 1");
    let address = house.address;
    let third = std::thread::spawn(move || {
        let mut third = Conversation::log_in(address, "postgres", "postgres");
        (third.value("select pg_backend_pid()"), third.value("show search_path"))
    });
    let waits = || house.tieline.metric("tieline_pool_waiting{upstream=\"pg\"}") == 1.0;
    assert!(wait_until(PATIENCE, waits));
    let console = |show: &str| house.postgres.psql(address, "tieline", &["-c", show]).expect(show);
    let clients = console("show clients");
    assert!(clients.lines().any(|line| line.starts_with("C|postgres|postgres|logical|active|")), "{clients}");
    let servers = console("show servers");
    assert!(servers.lines().any(|line| line.starts_with("S|postgres|postgres|logical|active|")), "{servers}");
    drop(logical);
    let (pid, path) = third.join().unwrap();
    assert!(pid != own && path == "\"$user\", public", "{pid} {path}");
}

#[test]
fn what_it_does_is_cancelled_by_its_key() {
    let house = House::replicating();
    let mut logical = house.log_in("database");
    logical.send(&frontend::query("select pg_sleep(600)")).unwrap();
    let sleeps = "select count(*) from pg_stat_activity where query = 'select pg_sleep(600)' \
                  and state = 'active' and backend_type = 'walsender'";
    assert!(wait_until(PATIENCE, || house.postgres.query(sleeps) == "1"));
    let mut cancel = Conversation::connect(house.address);
    cancel.send(&frontend::cancel(logical.key_data())).unwrap();
    let said = logical.until(b'Z').unwrap();
    assert!(said.iter().any(|message| message.kind == b'E' && message.field(b'C') == "57014"), "{said:?}");
    assert_eq!(logical.value("select 7"), "7");
}

#[test]
fn a_stream_may_be_silent_and_a_connection_that_rests_may_not() {
    let house = House::open("timeouts.idle = \"2s\"", "replication = true", "");
    house.postgres.query("alter system set wal_sender_timeout = 0");
    house.postgres.query("select pg_reload_conf()");
    let (mut stream, mut rests) = (house.stream(), house.log_in("database"));
    let mut busy = house.log_in("database");
    busy.send(&frontend::query("select pg_sleep(600)")).unwrap();
    let spent = house.tieline.cpu_seconds();
    let said = rests.until(b'E').unwrap();
    assert_eq!(said.last().unwrap().field(b'C'), "57P05", "{said:?}");
    let spent = house.tieline.cpu_seconds() - spent;
    assert!(spent < 0.5, "{spent} s of work while nothing was to be done");
    assert!(wait_until(PATIENCE, || house.ended("idle") == 1.0));
    // Both are older than the one that rested.
    let walsenders = "select count(*) from pg_stat_activity where backend_type = 'walsender'";
    assert!(wait_until(PATIENCE, || house.postgres.query(walsenders) == "2"));
    house.postgres.query("insert into t values (1)");
    let sent = stream.until(b'd').unwrap();
    assert_eq!(sent.last().map(|last| last.kind), Some(b'd'), "{sent:?}");
}

#[test]
fn a_drain_ends_who_rests_at_once_and_streams_when_the_grace_is_over() {
    const GRACE: Duration = Duration::from_secs(3);
    let house = House::open("timeouts.drain = \"3s\"", "replication = true", "");
    let (mut stream, mut rests) = (house.stream(), house.log_in("database"));
    let asked = Clock::now();
    assert!(house.tieline.cli(["drain", "stage=relay"]).success());
    let said = rests.until(b'E').unwrap();
    assert_eq!(said.last().unwrap().field(b'C'), "57P01", "{said:?}");
    until_end(&mut stream);
    let lasted = Clock::now().since(asked);
    assert!(lasted >= GRACE, "{lasted:?}");
    assert!(wait_until(PATIENCE, || house.ended("drained") == 2.0), "{}", house.tieline.metrics());
    assert!(wait_until(PATIENCE, || house.senders() == "0"));
}

#[test]
fn a_reload_that_forbids_replication_ends_it_and_nothing_else() {
    let house = House::replicating();
    let (mut stream, mut usual) =
        (house.stream(), Conversation::log_in(house.address, "postgres", "postgres"));
    house.tieline.reload(&house.config.replace("replication = true", ""));
    until_end(&mut stream);
    assert!(wait_until(PATIENCE, || house.ended("revoked") == 1.0), "{}", house.tieline.metrics());
    assert_eq!(usual.value("select 7"), "7");
}

#[test]
fn a_server_that_goes_says_so_itself() {
    let house = House::replicating();
    let mut stream = house.stream();
    house.postgres.query("select pg_terminate_backend(pid) from pg_stat_replication");
    let said = stream.until(b'E').unwrap();
    assert_eq!(said.last().unwrap().field(b'C'), "57P01", "{said:?}");
    assert!(until_end(&mut stream).is_empty());
}

#[test]
fn a_client_replicates_as_itself_where_the_upstream_names_no_user() {
    let sql =
        ["set password_encryption = 'scram-sha-256'; create role rep login replication password 'pencil'; \
                create role app login password 'pencil'"];
    let access =
        ["host replication rep 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256"];
    let postgres = Cluster { sql: &sql, access: &access, ..Cluster::default() }.start();
    let kept = |role: &str| {
        let verifier = format!("select rolpassword from pg_authid where rolname = '{role}'");
        format!("[user.{role}]\nverifier = \"{}\"\n", postgres.query(&verifier))
    };
    let tieline = Tieline::start(&format!(
        "[listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\n\
         [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\nreplication = true\n\
         [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{}\"]\n{}{}",
        postgres.address(),
        kept("rep"),
        kept("app")
    ));
    let address = tieline.listener_address("db");
    let copy = |user: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut copy: Command = Postgres::tool("pg_basebackup", address);
        copy.args(["-U", user, "-c", "fast", "-D"]).arg(folder.path().join("copy"));
        finish(copy.env("PGPASSWORD", "pencil").stdin(Stdio::null()))
    };
    copy("rep").expect("pg_basebackup");
    // What the server has against it is told in its words, and its usual log-ins are not concerned.
    let refused = copy("app");
    assert!(refused.stderr.contains("no pg_hba.conf entry for replication connection"), "{refused:?}");
    assert_eq!(psql(address, "app", "select 7", &[("PGPASSWORD", "pencil")]).expect("app"), "7");
}
