//! Users that only a database knows.

use std::net::SocketAddr;

use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{Cluster, PATIENCE, Postgres, Tieline, wait_until};

use crate::login::psql;

/// A server with users of its own, and Tieline, which looks them up there.
struct House {
    tieline: Tieline,
    address: SocketAddr,
    postgres: Postgres,
}

/// Who may look up, and what; how often that is done is counted.
const SQL: &[&str] = &[
    "create role ana login password 'pencil'",
    "create role gone login password 'pencil' valid until '2001-01-01'",
    "create role staff password 'pencil'",
    "create role mute login",
    "set password_encryption = md5; create role old login password 'pencil'",
    "create role asker login",
    "create schema pooler",
    "create sequence pooler.asked",
    "create function pooler.find(who text) returns table (name text, password text) \
     language plpgsql security definer as $$ begin perform nextval('pooler.asked'); \
     return query select rolname::text, rolpassword from pg_catalog.pg_authid where rolname = who; end $$",
    "grant usage on schema pooler to asker",
    "grant execute on function pooler.find(text) to asker",
    // What somebody who may write there would put into the way.
    "grant create on schema public to public",
    "create table public.pg_authid \
     (rolname name, rolpassword text, rolcanlogin bool, rolvaliduntil timestamptz)",
    "insert into public.pg_authid values ('mute', 'md50123456789abcdef0123456789abcdef', true)",
];

impl House {
    fn open(auth: &str, lookup: &str, asker: &str, users: &str) -> House {
        House::open_with(auth, lookup, asker, users, "{ size = 2 }")
    }

    /// The same with a pool for looking up.
    fn open_with(auth: &str, lookup: &str, asker: &str, users: &str, pool: &str) -> House {
        let postgres = Cluster { sql: SQL, ..Cluster::default() }.start();
        let endpoint = postgres.address();
        let tieline = Tieline::start(&format!(
            "[server]\nworkers = 2\n\
             [listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"{auth}\"\n\
             auth_query = {{ upstream = \"lookup\"{lookup} }}\n\
             timeouts = {{ handshake = \"50s\" }}\n\
             console = {{ admin = \"ana\" }}\n\
             [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n\
             [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{endpoint}\"]\n\
             [upstream.lookup]\nprotocol = \"postgres\"\nendpoints = [\"{endpoint}\"]\n\
             database = \"postgres\"\nuser = \"{asker}\"\npool = {pool}\n{users}"
        ));
        let address = tieline.listener_address("db");
        House { tieline, address, postgres }
    }

    /// As whom the server sees a user who logs in with this password; or what is said against it.
    fn log_in(&self, user: &str, password: &str) -> Result<String, String> {
        let done = psql(self.address, user, "select current_user", &[("PGPASSWORD", password)]);
        if done.success() { Ok(done.stdout.trim().to_owned()) } else { Err(done.stderr) }
    }

    fn asked(&self) -> u64 {
        self.postgres
            .query("select case when is_called then last_value else 0 end from pooler.asked")
            .parse()
            .unwrap()
    }
}

/// The lookup by the function that counts.
const COUNTED: &str = ", query = \"select * from pooler.find($1)\"";

#[track_caller]
fn assert_refused(result: Result<String, String>, user: &str) {
    let error = result.unwrap_err();
    assert!(error.contains(&format!("password authentication failed for user \"{user}\"")), "{error}");
}

#[test]
fn users_of_the_database_log_in_and_nobody_else() {
    let mut house = House::open("scram", "", "postgres", "");
    assert_eq!(house.log_in("ana", "pencil"), Ok("ana".into()));
    for (user, password) in [
        ("ana", "pencils"),
        // No longer, not at all, without a password, by another proof than is asked for.
        ("gone", "pencil"),
        ("staff", "pencil"),
        ("mute", "pencil"),
        ("old", "pencil"),
        ("nobody", "pencil"),
        // Never as who looks up.
        ("nobody' or 'a' = 'a", "pencil"),
        ("", ""),
    ] {
        if !user.is_empty() {
            assert_refused(house.log_in(user, password), user);
        }
    }
    house.tieline.stop();
    let log = house.tieline.log();
    assert!(!log.contains("SCRAM-SHA-256$") && !log.contains("pencil"), "{log}");
}

#[test]
fn md5_is_looked_up_where_it_is_asked_for() {
    let house = House::open("md5", "", "postgres", "");
    assert_eq!(house.log_in("old", "pencil"), Ok("old".into()));
    assert_eq!(house.log_in("ana", "pencil"), Ok("ana".into()));
    assert_refused(house.log_in("old", "pencils"), "old");
}

#[test]
fn a_user_is_asked_for_once_and_again_when_that_is_old() {
    let house = House::open("scram", &format!("{COUNTED}, ttl = \"10m\""), "asker", "");
    for _ in 0..3 {
        assert_eq!(house.log_in("ana", "pencil"), Ok("ana".into()));
    }
    assert_eq!(house.asked(), 1);
    // Many at once, of whom nobody has been heard of.
    let mut clients: Vec<Conversation> = (0..20).map(|_| Conversation::connect(house.address)).collect();
    let startup = frontend::startup(196_608, &[("user", "nobody"), ("database", "postgres")]);
    for client in &mut clients {
        client.send(&startup).unwrap();
    }
    for client in &mut clients {
        // Each is asked for a proof as a user is.
        assert!(client.until(b'R').unwrap()[0].body.starts_with(&[0, 0, 0, 10]));
    }
    // They are so whether or not it is known already who they are.
    assert!(wait_until(PATIENCE, || house.asked() == 2), "{}", house.asked());
    let mut console = Conversation::log_in(house.postgres.address(), "postgres", "postgres");
    let asking = "select count(*) from pg_stat_activity where usename = 'asker'";
    // Each worker may have one at rest, up to the size of the pool.
    assert!(["1", "2"].contains(&&*console.value(asking)));
}

#[test]
fn a_changed_password_is_taken_when_the_old_one_is_forgotten() {
    let house = House::open("scram", &format!("{COUNTED}, ttl = \"1ms\""), "asker", "");
    assert_eq!(house.log_in("ana", "pencil"), Ok("ana".into()));
    house.postgres.query("alter role ana password 'quill'");
    assert!(wait_until(PATIENCE, || house.log_in("ana", "quill").is_ok()));
    assert_refused(house.log_in("ana", "pencil"), "ana");
    // Who was not there a moment ago is, too.
    assert_refused(house.log_in("late", "pencil"), "late");
    house.postgres.query("create role late login password 'pencil'");
    assert!(wait_until(PATIENCE, || house.log_in("late", "pencil") == Ok("late".into())));
}

#[test]
fn users_of_the_config_come_first_and_need_no_database() {
    let users = "[user.ana]\nverifier = \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                 WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                 wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"\n";
    let house = House::open("scram", COUNTED, "asker", users);
    house.log_in("ana", "pencil").unwrap();
    assert_eq!(house.asked(), 0);
}

#[test]
fn who_cannot_be_looked_up_is_told_so_at_the_end_and_may_come_again() {
    let house = House::open("scram", ", query = \"select * from pooler.gone($1)\"", "asker", "");
    // The question is the same as for everybody.
    let mut client = Conversation::connect(house.address);
    client.send(&frontend::startup(196_608, &[("user", "ana"), ("database", "postgres")])).unwrap();
    assert!(client.until(b'R').unwrap()[0].body.starts_with(&[0, 0, 0, 10]));
    let error = house.log_in("ana", "pencil").unwrap_err();
    assert!(error.contains("users cannot be looked up just now") && !error.contains("pooler"), "{error}");
    let told = || house.tieline.log().contains("pooler.gone");
    assert!(wait_until(PATIENCE, told), "{}", house.tieline.log());
    house.postgres.query(
        "create function pooler.gone(who text) returns table (name text, password text) language sql \
                          security definer as $$ select * from pooler.find(who) $$",
    );
    house.postgres.query("grant execute on function pooler.gone(text) to asker");
    assert_eq!(house.log_in("ana", "pencil"), Ok("ana".into()));
}

#[test]
fn what_was_found_outlives_a_reload_that_changes_something_else() {
    let house = House::open("scram", &format!("{COUNTED}, ttl = \"10m\""), "asker", "");
    assert_eq!(house.log_in("ana", "pencil"), Ok("ana".into()));
    let config = std::fs::read_to_string(house.tieline.config_file()).unwrap();
    house.tieline.reload(&config.replace("size = 2", "size = 3"));
    assert_eq!(house.log_in("ana", "pencil"), Ok("ana".into()));
    assert_eq!(house.asked(), 1);
    house.tieline.reload(&config.replace("ttl = \"10m\"", "ttl = \"9m\""));
    assert_eq!(house.log_in("ana", "pencil"), Ok("ana".into()));
    assert_eq!(house.asked(), 2);
}

#[test]
fn whoever_makes_up_names_keeps_nobody_else_from_being_looked_up() {
    let query = ", query = \"select * from pooler.slow($1)\"";
    let house = House::open_with("scram", query, "asker", "", "{ size = 20 }");
    house.postgres.query(
        "create function pooler.slow(who text) returns table (name text, password text) \
         language plpgsql security definer as $$ begin if who like 'stranger%' then \
         perform pg_advisory_lock_shared(77); end if; return query select * from pooler.find(who); end $$",
    );
    house.postgres.query("grant execute on function pooler.slow(text) to asker");
    let mut own = Conversation::log_in(house.postgres.address(), "postgres", "postgres");
    own.query("select pg_advisory_lock(77)");
    let elsewhere = std::net::Ipv4Addr::new(127, 0, 0, 2).into();
    let strangers: Vec<_> = (0..20)
        .map(|number| {
            let mut stranger = Conversation::connect_from(elsewhere, house.address);
            let user = format!("stranger{number}");
            stranger.send(&frontend::startup(196_608, &[("user", &user), ("database", "postgres")])).unwrap();
            stranger
        })
        .collect();
    let asks = "select count(*) from pg_stat_activity where wait_event = 'advisory'";
    assert!(wait_until(PATIENCE, || own.value(asks) == "4"), "{}", own.value(asks));
    assert_eq!(house.log_in("ana", "pencil"), Ok("ana".into()));
    assert_eq!(own.value(asks), "4");
    drop(strangers);
}
