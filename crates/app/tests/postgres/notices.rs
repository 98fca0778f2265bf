//! What a client that waits for a server is told meanwhile.

use std::time::Duration;

use tieline_testkit::pg::{Conversation, Message, frontend};
use tieline_testkit::{PATIENCE, TcpServer, Tieline, wait_until};

use crate::house::Server;
use crate::proxied::wait_for_waiting;

/// Tieline before `server`, as `upstream` and `route` say, with a console for "admin".
fn before(server: &Server, route: &str, upstream: &str) -> (Tieline, std::net::SocketAddr) {
    before_any(server.address(), route, upstream)
}

/// The same before whatever listens at `endpoint`.
fn before_any(
    endpoint: std::net::SocketAddr,
    route: &str,
    upstream: &str,
) -> (Tieline, std::net::SocketAddr) {
    let tieline = Tieline::start(&format!(
        "[listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
         console = {{ admin = \"admin\" }}\n\
         [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n{route}\n\
         [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{endpoint}\"]\n{upstream}\n"
    ));
    let address = tieline.listener_address("db");
    (tieline, address)
}

/// The next notice, which comes before anything else.
#[track_caller]
fn notice(client: &mut Conversation) -> String {
    let first = client.message().unwrap().expect("a notice");
    assert_eq!(first.kind, b'N', "{first:?}");
    assert_eq!((first.field(b'S'), first.field(b'C')), ("NOTICE".into(), "00000".into()));
    first.field(b'M')
}

/// Which messages `said` are.
fn kinds(said: &[Message]) -> String {
    said.iter().map(|message| char::from(message.kind)).collect()
}

#[test]
fn whoever_waits_long_is_told_once_behind_whom() {
    let server = Server::start();
    // By the way of those who stand in line, and of those for whom roles are looked at.
    for (route, upstream) in [("", ""), ("role = \"primary\"", "user = \"postgres\"")] {
        let upstream = format!("pool = {{ size = 1, notice = \"100ms\" }}\n{upstream}");
        let (tieline, address) = before(&server, route, &upstream);
        let mut holds = Conversation::log_in(address, "ana", "postgres");
        let mut waits = Conversation::log_in(address, "bob", "postgres");
        for _ in 0..2 {
            holds.query("begin");
            // A batch of the extended protocol, and one behind it.
            let batch = [
                frontend::parse("", "select 7", &[]),
                frontend::bind("", "", &[], 0),
                frontend::execute("", 0),
                frontend::sync(),
                frontend::query("select 8"),
            ];
            waits.send(&batch.concat()).unwrap();
            wait_for_waiting(&tieline, "pg", 1);
            let text = notice(&mut waits);
            let expected = "and the query waits: 0 are ahead in line, 1 servers are busy, \
                            and \"ana\" has most of them, 1";
            assert!(text.ends_with(expected), "{text}");
            assert!(waits.is_silent_for(Duration::from_millis(300)), "it is told once");
            holds.query("commit");
            assert_eq!(kinds(&waits.until(b'Z').unwrap()), "12DCZ");
            assert_eq!(kinds(&waits.until(b'Z').unwrap()), "TDCZ");
        }
    }
}

#[test]
fn whoever_waits_for_a_database_that_is_paused_or_gone_is_told_so() {
    let mut server = Server::start();
    let (_tieline, address) = before(&server, "", "pool = { size = 2, notice = \"100ms\" }");
    let mut client = Conversation::log_in(address, "ana", "postgres");
    let mut console = Conversation::log_in(address, "admin", "pgbouncer");
    console.query("PAUSE postgres");
    client.send(&frontend::query("select 1")).unwrap();
    assert!(notice(&mut client).ends_with("the query waits: the database is paused"));
    assert!(client.is_silent_for(Duration::from_millis(200)), "it is told once");
    console.query("RESUME postgres");
    assert_eq!(kinds(&client.until(b'Z').unwrap()), "TDCZ");
    server.postgres.process().kill_all();
    let mut said = String::new();
    assert!(wait_until(PATIENCE, || {
        // What is asked at the moment of the kill may be lost with it.
        client.send(&frontend::query("select 1")).unwrap();
        let first = client.message().unwrap().expect("an answer");
        if first.kind == b'N' {
            said = first.field(b'M');
            return true;
        }
        client.until(b'Z').unwrap();
        false
    }));
    assert!(said.contains("the query waits: "), "{said}");
    server.postgres.start_again();
    assert_eq!(kinds(&client.until(b'Z').unwrap()), "TDCZ");
}

#[test]
fn whoever_waits_where_load_is_shed_is_told_so() {
    let server = Server::start();
    let upstream = "pool = { size = 1, notice = \"100ms\", shed = \"1h\" }";
    let (_tieline, address) = before(&server, "", upstream);
    let mut holds = Conversation::log_in(address, "ana", "postgres");
    let mut waits = Conversation::log_in(address, "bob", "postgres");
    holds.query("begin");
    waits.send(&frontend::query("select 7")).unwrap();
    assert!(notice(&mut waits).contains("the query waits: none is free"));
    holds.query("commit");
    assert_eq!(kinds(&waits.until(b'Z').unwrap()), "TDCZ");
}

#[test]
fn whoever_waits_for_a_server_to_let_us_in_is_told_so_at_its_log_in_too() {
    let silent = TcpServer::mute();
    let upstream =
        "pool = { size = 1, notice = \"100ms\" }\ntimeouts = { acquire = \"2s\", connect = \"20s\" }";
    let (_tieline, address) = before_any(silent.address(), "", upstream);
    let mut client = Conversation::connect(address);
    let wants = [("user", "ana"), ("database", "postgres")];
    client.send(&frontend::startup(frontend::V3_0, &wants)).unwrap();
    let said = client.until(b'E').unwrap();
    assert_eq!(kinds(&said), "RNE");
    assert!(said[1].field(b'M').ends_with("the query waits: a log-in to a server is under way"), "{said:?}");
}

#[test]
fn nobody_is_told_where_it_is_switched_off_and_a_full_line_is_told_at_once() {
    let server = Server::start();
    let upstream = "pool = { size = 1, queue = 1, notice = \"off\" }\ntimeouts = { acquire = \"20s\" }";
    let (tieline, address) = before(&server, "", upstream);
    let mut clients: Vec<_> = (0..3).map(|_| Conversation::log_in(address, "ana", "postgres")).collect();
    let [holds, waits, refused] = &mut clients[..] else { panic!("three") };
    holds.query("begin");
    waits.send(&frontend::query("select 1")).unwrap();
    wait_for_waiting(&tieline, "pg", 1);
    let answer = refused.query("select 1");
    let error = answer.iter().find(|message| message.kind == b'E').unwrap();
    // Not the code of those who waited in vain.
    assert_eq!(error.field(b'C'), "53400");
    assert!(error.field(b'M').contains("too many clients wait for a server"), "{error:?}");
    assert!(waits.is_silent_for(Duration::from_millis(300)));
    holds.query("commit");
    assert_eq!(kinds(&waits.until(b'Z').unwrap()), "TDCZ");
    assert_eq!(refused.value("select 2"), "2", "it may ask again");
}
