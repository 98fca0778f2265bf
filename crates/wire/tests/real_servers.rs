//! The probes against the servers they are for.
#![allow(clippy::unwrap_used, reason = "a helper of tests may fail as a test may")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tieline_testkit::{HttpServer, MariaDb, PATIENCE, Postgres, Redis};
use tieline_wire::greeting::{Probe, Step};

/// Holds the conversation on a new connection: `Err` is why the server is unhealthy.
fn probe(probe: &Probe, address: SocketAddr) -> Result<(), String> {
    converse(probe, TcpStream::connect(address).unwrap())
}

fn converse(probe: &Probe, mut stream: TcpStream) -> Result<(), String> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let Some(mut conversation) = probe.start() else { return Ok(()) };
    stream.write_all(conversation.first()).unwrap();
    let mut buffer = [0; 1024];
    loop {
        let length = stream.read(&mut buffer).unwrap();
        if length == 0 {
            return Err(conversation.on_close());
        }
        match conversation.on_bytes(&buffer[..length]) {
            Step::NeedMore => {}
            Step::Send(bytes) => stream.write_all(&bytes).unwrap(),
            Step::Unhealthy(why) => return Err(why),
            Step::Healthy => {
                stream.write_all(conversation.farewell()).unwrap();
                return Ok(());
            }
        }
    }
}

#[track_caller]
fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(tieline_testkit::wait_until(PATIENCE, condition), "never: {what}");
}

fn http(path: &str) -> Probe {
    Probe::Http { path: path.into(), host: "localhost".into() }
}

#[test]
fn nginx_is_healthy_where_it_serves_the_path() {
    let server = HttpServer::start();
    server.write("healthz", b"ok");
    assert_eq!(probe(&http("/healthz"), server.address()), Ok(()));
    let missing = probe(&http("/missing"), server.address());
    assert_eq!(missing, Err("answered \"HTTP/1.1 404 Not Found\"".into()));
}

#[test]
fn redis_is_healthy_with_and_without_a_password() {
    assert_eq!(probe(&Probe::Redis, Redis::start().address()), Ok(()));
    let closed = Redis::start_with(&[("requirepass", "secret")]);
    assert_eq!(probe(&Probe::Redis, closed.address()), Ok(()));
}

#[test]
fn redis_without_its_master_is_unhealthy() {
    let lonely = Redis::start_with(&[("replicaof", "127.0.0.1 1"), ("replica-serve-stale-data", "no")]);
    let why = probe(&Probe::Redis, lonely.address()).unwrap_err();
    assert!(why.starts_with("-MASTERDOWN"), "{why}");
}

#[test]
fn postgres_is_healthy_until_its_connections_are_used_up() {
    let server = Postgres::start_with(&[
        ("max_connections", "1"),
        ("superuser_reserved_connections", "0"),
        ("max_wal_senders", "0"),
    ]);
    until("the slot is free", || probe(&Probe::Postgres, server.address()).is_ok());

    let mut held = TcpStream::connect(server.address()).unwrap();
    let full = || probe(&Probe::Postgres, server.address()).err();
    until("the slot is taken", || {
        held = TcpStream::connect(server.address()).unwrap();
        held.write_all(b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0").unwrap();
        full().as_deref() == Some("sorry, too many clients already (53300)")
    });
    drop(held);
    until("the slot is free again", || probe(&Probe::Postgres, server.address()).is_ok());
}

#[test]
fn mariadb_is_healthy_until_its_connections_are_used_up() {
    let server = MariaDb::start_with(&[("max-connections", "10"), ("extra-max-connections", "1")]);
    assert_eq!(probe(&Probe::MySql, server.address()), Ok(()));
    let mut held = Vec::new();
    until("the connections are used up", || {
        held.push(TcpStream::connect(server.address()).unwrap());
        probe(&Probe::MySql, server.address()) == Err("Too many connections (1040)".into())
    });
}

#[test]
fn mariadb_never_blocks_the_host_that_probes_it() {
    // Loopback itself is never blocked, its other addresses are.
    let from_elsewhere = |address: SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.2:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.connect(&address.into()).unwrap();
        TcpStream::from(socket)
    };
    let server = MariaDb::start_with(&[("skip-name-resolve", "0"), ("max-connect-errors", "5")]);
    for _ in 0..20 {
        assert_eq!(converse(&Probe::MySql, from_elsewhere(server.address())), Ok(()));
    }
    // Those who hang up on the greeting are: the promise above is worth something.
    until("the host is blocked", || {
        drop(from_elsewhere(server.address()));
        let verdict = converse(&Probe::MySql, from_elsewhere(server.address()));
        verdict.is_err_and(|why| why.contains("is blocked") && why.ends_with("(1129)"))
    });
}

#[test]
fn a_server_of_another_kind_is_unhealthy() {
    let redis = Redis::start();
    let why = probe(&http("/"), redis.address()).unwrap_err();
    assert_eq!(why, "closed the connection without an answer");
    let nginx = HttpServer::start();
    let why = probe(&Probe::Postgres, nginx.address()).unwrap_err();
    assert_eq!(why, "no PostgreSQL answer: it starts with byte 0x48");
}
