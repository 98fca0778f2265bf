//! Servers that say no for good, and servers that are away for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tieline_base::Clock;
use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{Cluster, PATIENCE, Postgres, TcpServer, Tieline, wait_until};

/// A listener for any database of `postgres`.
fn before(postgres: &Postgres, upstream: &str) -> (Tieline, std::net::SocketAddr) {
    before_any(postgres.address(), upstream)
}

/// The same before whatever listens at `endpoint`.
fn before_any(endpoint: std::net::SocketAddr, upstream: &str) -> (Tieline, std::net::SocketAddr) {
    let tieline = Tieline::start(&format!(
        "[server]\nworkers = 2\n\
         [listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
         [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n\
         [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{endpoint}\"]\n{upstream}\n"
    ));
    let address = tieline.listener_address("db");
    (tieline, address)
}

/// A client that has asked for `database`, and has not heard yet.
fn asking(address: std::net::SocketAddr, database: &str) -> Conversation {
    let mut client = Conversation::connect(address);
    let wants = [("user", "postgres"), ("database", database)];
    client.send(&frontend::startup(frontend::V3_0, &wants)).unwrap();
    client
}

/// The code and the text with which it is sent away; `None` if it is let in.
fn refused(client: &mut Conversation) -> Option<(String, String)> {
    let said = client.until(b'Z').unwrap();
    said.iter().find(|message| message.kind == b'E').map(|error| (error.field(b'C'), error.field(b'M')))
}

#[test]
fn who_waits_for_a_database_that_is_not_there_hears_so_with_all_the_others() {
    const CLIENTS: usize = 150;
    let mut postgres = Cluster { settings: &[("max_connections", "20")], ..Cluster::default() }.start();
    let (_tieline, address) = before(&postgres, "pool = { size = 10 }");
    let began = Clock::now();
    let mut clients: Vec<Conversation> = (0..CLIENTS).map(|_| asking(address, "nowhere")).collect();
    let expected = ("3D000".to_owned(), "database \"nowhere\" does not exist".to_owned());
    for client in &mut clients {
        assert_eq!(refused(client).as_ref(), Some(&expected));
    }
    let took = Clock::now().since(began);
    let tries = postgres.process().log().matches("\"nowhere\" does not exist").count();
    // A few at once at first, then one in a quarter of a second and who was on the way, however many ask.
    let most = 2 * (5 + took.as_millis() as usize / 250);
    assert!(tries <= most, "{tries} log-ins for {CLIENTS} clients in {took:?}");
    // Whoever makes it finds it.
    postgres.query("create database nowhere");
    assert_eq!(refused(&mut asking(address, "nowhere")), None);
}

#[test]
fn whom_a_server_refuses_keeps_nobody_else_waiting() {
    let access = &["host all eve 127.0.0.1/32 reject", "host all ana 127.0.0.1/32 trust"][..];
    let sql = &["create role ana login", "create role eve login"][..];
    let postgres = Cluster { access, sql, ..Cluster::default() }.start();
    let (_tieline, address) = before(&postgres, "pool = { size = 1 }");
    for _ in 0..3 {
        let mut eve = Conversation::connect(address);
        eve.send(&frontend::startup(frontend::V3_0, &[("user", "eve"), ("database", "postgres")])).unwrap();
        assert_eq!(refused(&mut eve).unwrap().0, "28000");
        assert_eq!(Conversation::log_in(address, "ana", "postgres").value("select 1"), "1");
    }
}

#[test]
fn a_server_that_is_away_for_a_second_costs_its_clients_that_second_and_no_error() {
    const CLIENTS: usize = 40;
    let mut postgres = Postgres::start();
    let (tieline, address) = before(&postgres, "pool = { size = 4 }");
    let mut clients: Vec<Conversation> =
        (0..CLIENTS).map(|_| Conversation::log_in(address, "postgres", "postgres")).collect();
    for client in &mut clients {
        assert_eq!(client.value("select 1"), "1");
    }
    postgres.process().stop();
    for client in &mut clients {
        client.send(&frontend::query("select 'served'")).unwrap();
    }
    // They all wait before it comes back, and have for a second.
    let waiting = || tieline.cli(["ls", "stage=acquire"]).expect("ls").lines().count() > CLIENTS;
    assert!(wait_until(PATIENCE, waiting), "{}", tieline.cli(["ls"]).stdout);
    std::thread::sleep(Duration::from_secs(1));
    postgres.start_again();
    let back = Clock::now();
    for client in &mut clients {
        let answer = client.until(b'Z').unwrap();
        let row = answer.iter().find(|message| message.kind == b'D').map(|row| row.columns());
        assert_eq!(row, Some(vec![Some("served".to_owned())]), "{answer:?}");
    }
    // At rest it is a few tenths of a second: no pause is longer than three quarters of one.
    let late = Clock::now().since(back);
    assert!(late < Duration::from_secs(15), "{late:?} after it was back");
}

#[test]
fn a_server_that_has_no_room_just_now_is_waited_for() {
    // Four are for those who are no superusers, and two of these are taken.
    let settings = &[("max_connections", "6"), ("superuser_reserved_connections", "2")];
    let cluster = Cluster { settings, sql: &["create role app login"], ..Cluster::default() };
    let mut postgres = cluster.start();
    let mut others: Vec<Conversation> =
        (0..2).map(|_| Conversation::log_in(postgres.address(), "app", "postgres")).collect();
    let (_tieline, address) = before(&postgres, "user = \"app\"\npool = { size = 20 }");
    let asks = || {
        std::thread::spawn(move || {
            let mut client = Conversation::log_in(address, "app", "postgres");
            (0..5).map(|_| client.value("select pg_sleep(0.05) is not null")).collect::<Vec<_>>()
        })
    };
    let clients: Vec<_> = (0..12).map(|_| asks()).collect();
    // The server says no to some, with 53300: they wait on.
    let refuses = ["remaining connection slots", "too many clients"];
    let said_no = || refuses.iter().any(|why| postgres.process().log().contains(why));
    assert!(wait_until(PATIENCE, said_no));
    others.clear();
    for client in clients {
        assert_eq!(client.join().unwrap(), ["t"; 5]);
    }
}

#[test]
fn a_server_has_four_connections_to_greet_at_a_time_however_many_clients_want_one() {
    const CLIENTS: usize = 40;
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let lets_go = Arc::new(AtomicBool::new(false));
    let server = TcpServer::scripted({
        let (open, most, lets_go) = (open.clone(), most.clone(), lets_go.clone());
        move |_| {
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // It has not a word for anybody.
            assert!(wait_until(PATIENCE, || lets_go.load(Ordering::SeqCst)));
            open.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let upstream =
        format!("pool = {{ size = {CLIENTS} }}\ntimeouts = {{ connect = \"50s\", acquire = \"50s\" }}");
    let (tieline, address) = before_any(server.address(), &upstream);
    let clients: Vec<Conversation> = (0..CLIENTS).map(|_| asking(address, "postgres")).collect();
    let waiting = || tieline.cli(["ls", "stage=acquire"]).expect("ls").lines().count() > CLIENTS;
    assert!(wait_until(PATIENCE, waiting), "{}", tieline.cli(["ls"]).stdout);
    assert!(wait_until(PATIENCE, || open.load(Ordering::SeqCst) == 4));
    lets_go.store(true, Ordering::SeqCst);
    // Whoever was sent away leaves its turn to the next.
    assert!(wait_until(PATIENCE, || server.accepted() >= 2 * CLIENTS));
    assert_eq!(most.load(Ordering::SeqCst), 4);
    drop(clients);
}
