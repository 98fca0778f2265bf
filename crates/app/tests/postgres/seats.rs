//! How many clients may be logged in as a user, and to a database.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tieline_testkit::pg::{Conversation, Message, frontend};
use tieline_testkit::{PATIENCE, Tieline, wait_until};

use crate::house::Server;

/// Two listeners before one server; `limits` and `routes` are those of the first, `users` the users' blocks.
fn config(server: &Server, limits: &str, route: &str, users: &str) -> String {
    let endpoint = server.address();
    let listener = |name: &str, limits: &str, route: &str| {
        format!(
            "[listener.{name}]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
             console = {{ stats = \"stats\" }}\n{limits}\n\
             [[listener.{name}.route]]\nupstream = \"pg\"\naccess = \"public\"\n{route}\n"
        )
    };
    format!(
        "[server]\nworkers = 2\n{}{}[upstream.pg]\nprotocol = \"postgres\"\n\
         endpoints = [\"{endpoint}\"]\npool.size = 3\n{users}\n",
        listener("db", limits, route),
        listener("other", "", ""),
    )
}

fn log_in(at: SocketAddr, user: &str, database: &str) -> Conversation {
    Conversation::log_in(at, user, database)
}

/// What is said to a client that is not let in.
fn turned_away(at: SocketAddr, user: &str, database: &str) -> Message {
    let mut client = Conversation::connect(at);
    client.send(&frontend::startup(196_608, &[("user", user), ("database", database)])).unwrap();
    let said = client.until(b'E').unwrap();
    said.last().unwrap().clone()
}

/// That a client is turned away because of `what`.
#[track_caller]
fn refused(at: SocketAddr, user: &str, database: &str, what: &str) {
    let error = turned_away(at, user, database);
    assert_eq!((error.field(b'S'), error.field(b'C')), ("FATAL".into(), "53300".into()), "{error:?}");
    assert!(error.field(b'M').contains(what), "{error:?}");
}

/// The row of `sql` whose `name` is `name`.
fn row(console: &mut Conversation, sql: &str, name: &str) -> BTreeMap<String, String> {
    let said = console.query(sql);
    let text = said.iter().find(|message| message.kind == b'T').unwrap().to_string();
    let names: Vec<_> = text.split(' ').filter_map(|part| part.split_once('(')?.0.split_once(':')).collect();
    let rows = said.iter().filter(|message| message.kind == b'D').map(|row| {
        let cells = row.columns().into_iter().map(Option::unwrap_or_default);
        names.iter().map(|(name, _)| (*name).to_owned()).zip(cells).collect::<BTreeMap<_, _>>()
    });
    rows.into_iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}: {said:?}"))
}

#[test]
fn a_user_has_so_many_clients_at_all_listeners_together() {
    let server = Server::start();
    let users = "[user.bob]\nconnections = 1\n[user.tenant]\nconnections = \"off\"";
    let tieline = Tieline::start(&config(&server, "limits = { per_user = 2 }", "", users));
    let (db, other) = (tieline.listener_address("db"), tieline.listener_address("other"));
    let _elsewhere = log_in(other, "ana", "template1");
    let here = log_in(db, "ana", "postgres");
    let what = "too many clients: user \"ana\" may have 2 at once (max_user_client_connections)";
    refused(db, "ana", "postgres", what);
    // The other listener says nothing of users who are not named.
    let _more = log_in(other, "ana", "postgres");
    let _bob = log_in(other, "bob", "postgres");
    refused(db, "bob", "postgres", "user \"bob\" may have 1 at once");
    refused(other, "bob", "template1", "user \"bob\" may have 1 at once");
    let _tenants: Vec<_> = (0..4).map(|_| log_in(db, "tenant", "postgres")).collect();
    let mut console = log_in(db, "stats", "pgbouncer");
    let ana = row(&mut console, "SHOW USERS", "ana");
    assert_eq!((&*ana["max_user_client_connections"], &*ana["current_client_connections"]), ("2", "3"));
    let bob = row(&mut console, "SHOW USERS", "bob");
    assert_eq!((&*bob["max_user_client_connections"], &*bob["current_client_connections"]), ("1", "1"));
    assert!(wait_until(PATIENCE, || tieline.log().contains("limit:per-user")), "{}", tieline.log());
    // Whoever leaves makes room; what a reload says holds from then on, and ends nobody.
    drop((here, _more));
    let mut now = None;
    assert!(wait_until(PATIENCE, || {
        let mut client = Conversation::connect(db);
        client.send(&frontend::startup(196_608, &[("user", "ana"), ("database", "postgres")])).unwrap();
        let is_in = client.until(b'Z').is_ok_and(|said| said.iter().any(|it| it.kind == b'Z'));
        now = Some(client);
        is_in
    }));
    tieline.reload(&config(&server, "limits = { per_user = 1 }", "", ""));
    refused(db, "ana", "postgres", "user \"ana\" may have 1 at once");
    refused(db, "tenant", "postgres", "user \"tenant\" may have 1 at once");
    assert_eq!(now.unwrap().value("select 1"), "1");
    assert!(log_in(other, "bob", "postgres").value("select 1") == "1");
}

#[test]
fn a_database_has_so_many_clients_whoever_they_are() {
    let server = Server::start();
    let limits = "limits = { per_database = 2 }";
    let tieline = Tieline::start(&config(&server, limits, "", ""));
    let db = tieline.listener_address("db");
    let held = [log_in(db, "ana", "postgres"), log_in(db, "bob", "postgres")];
    let what = "database \"postgres\" may have 2 at once (max_db_client_connections)";
    refused(db, "tenant", "postgres", what);
    let _elsewhere = log_in(db, "tenant", "template1");
    // The console is for whoever has to find out why.
    let mut console = log_in(db, "stats", "pgbouncer");
    let shown = row(&mut console, "SHOW DATABASES", "postgres");
    assert_eq!((&*shown["max_client_connections"], &*shown["current_client_connections"]), ("2", "2"));
    assert!(wait_until(PATIENCE, || tieline.log().contains("limit:per-database")), "{}", tieline.log());
    tieline.reload(&config(&server, limits, "connections = 3", ""));
    let third = log_in(db, "tenant", "postgres");
    refused(db, "tenant", "postgres", "database \"postgres\" may have 3 at once");
    tieline.reload(&config(&server, limits, "connections = \"off\"", ""));
    let _fourth = log_in(db, "tenant", "postgres");
    drop((held, third));
}

#[test]
fn however_many_come_at_once_no_more_are_let_in() {
    let server = Server::start();
    let tieline = Tieline::start(&config(&server, "limits = { per_user = 10, per_database = 15 }", "", ""));
    let db = tieline.listener_address("db");
    let (let_in, kept_out) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let come = |user: &str| {
        let mut client = Conversation::connect(db);
        client.send(&frontend::startup(196_608, &[("user", user), ("database", "postgres")])).unwrap();
        let said = client.until(b'Z').unwrap();
        let is_in = said.last().is_some_and(|last| last.kind == b'Z');
        (if is_in { &let_in } else { &kept_out }).fetch_add(1, Ordering::Relaxed);
        // It stays until all have come.
        is_in.then_some(client)
    };
    let stay: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = (0..40).map(|at| scope.spawn(move || come(["ana", "bob"][at % 2]))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!((let_in.into_inner(), kept_out.into_inner()), (15, 25));
    drop(stay);
}
