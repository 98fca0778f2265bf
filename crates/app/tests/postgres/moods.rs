//! What servers say while nobody asks them anything, and what they say to those who come too early.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tieline_base::Clock;
use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{PATIENCE, TcpServer, Tieline, wait_until};

use crate::house::Server;
use crate::proxied::{Mode, before};
use crate::replicas::Pair;

fn log_in(address: SocketAddr) -> Conversation {
    Conversation::log_in(address, "postgres", "postgres")
}

fn before_scripted(server: &TcpServer, upstream: &str) -> (Tieline, SocketAddr) {
    let tieline = Tieline::start(&format!(
        "[listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
         [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n\
         [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{}\"]\n{upstream}\n",
        server.address()
    ));
    let address = tieline.listener_address("db");
    (tieline, address)
}

#[test]
fn idle_servers_that_are_ended_are_missed_by_nobody() {
    let server = Server::start();
    let (_tieline, address) = before(&server, Mode::Transaction, 4);
    let mut clients: Vec<_> = (0..8).map(|_| log_in(address)).collect();
    let others = "backend_type = 'client backend' and pid <> pg_backend_pid()";
    for round in 0..5 {
        // As many at once as there may be.
        clients.iter_mut().take(4).for_each(|client| drop(client.query("begin; select 1")));
        clients.iter_mut().take(4).for_each(|client| drop(client.query("commit")));
        server.ask(&format!("select pg_terminate_backend(pid) from pg_stat_activity where {others}"));
        let gone = format!("select count(*) from pg_stat_activity where {others}");
        assert!(wait_until(PATIENCE, || server.ask(&gone) == "0"));
        for client in &mut clients {
            assert_eq!(client.value("select 7"), "7", "round {round}");
        }
    }
}

/// Hears a message of a client, or its StartupMessage: the query, if it is one.
fn hear(mut stream: &TcpStream, is_first: bool) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 5];
    let head = &mut head[usize::from(is_first)..];
    stream.read_exact(head)?;
    let (length, kind) = (head.last_chunk::<4>().copied().unwrap_or_default(), head[0]);
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body)?;
    Ok((!is_first && kind == b'Q').then_some(body))
}

fn ready() -> Vec<u8> {
    frontend::message(b'Z', b"I")
}

fn greeting() -> Vec<u8> {
    [frontend::message(b'R', &[0; 4]), frontend::message(b'K', &[1; 8]), ready()].concat()
}

#[test]
fn what_a_server_says_at_rest_reaches_nobody_as_an_error_or_as_an_answer() {
    let at_rest = [
        frontend::message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mby the way\0\0"),
        frontend::message(b'S', b"TimeZone\0Mars/Olympus\0"),
        frontend::message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mgoing\0\0"),
        frontend::message(b'E', b"SFATAL\0VFATAL\0C57P05\0Mtoo long\0\0"),
    ];
    for said_at_rest in at_rest {
        let (said, spoke) = (said_at_rest.clone(), Arc::new(AtomicUsize::new(0)));
        let speaking = spoke.clone();
        let server = TcpServer::scripted(move |mut stream| {
            hear(stream, true)?;
            stream.write_all(&greeting())?;
            while let Some(query) = hear(stream, false)? {
                stream.write_all(&[frontend::message(b'C', b"DONE\0"), ready()].concat())?;
                if !query.starts_with(b"select 1") {
                    continue;
                }
                std::thread::sleep(Duration::from_millis(20)); // the answer goes alone
                stream.write_all(&said)?;
                speaking.fetch_add(1, Ordering::SeqCst);
                if said[0] == b'E' {
                    return Ok(());
                }
            }
            Ok(())
        });
        let (_tieline, address) = before_scripted(&server, "pool.size = 1");
        let mut client = log_in(address);
        for _ in 0..5 {
            let before = spoke.load(Ordering::SeqCst);
            let answer = client.query("select 1");
            let kinds: Vec<u8> = answer.iter().map(|message| message.kind).collect();
            // What it is told beside the answer may be told to whoever is next.
            assert!(kinds.ends_with(b"CZ"), "{said_at_rest:?}: {answer:?}");
            assert!(kinds[..kinds.len() - 2].iter().all(|kind| b"NS".contains(kind)), "{answer:?}");
            assert!(wait_until(PATIENCE, || spoke.load(Ordering::SeqCst) > before));
        }
    }
}

/// A server that starts for so many log-ins, or until it is told that it has.
fn starting(started: Arc<AtomicBool>, tries: Arc<AtomicUsize>) -> TcpServer {
    TcpServer::scripted(move |mut stream| {
        hear(stream, true)?;
        tries.fetch_add(1, Ordering::SeqCst);
        if !started.load(Ordering::SeqCst) {
            let early = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
            return stream.write_all(&frontend::message(b'E', early));
        }
        stream.write_all(&greeting())?;
        while hear(stream, false)?.is_some() {
            stream.write_all(&[frontend::message(b'C', b"DONE\0"), ready()].concat())?;
        }
        Ok(())
    })
}

#[test]
fn who_comes_while_a_server_starts_waits_for_it() {
    let (started, tries) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let server = starting(started.clone(), tries.clone());
    let (_tieline, address) = before_scripted(&server, "pool.size = 2\ntimeouts.acquire = \"2m\"");
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            std::thread::spawn(move || {
                let answer = log_in(address).query("select 1");
                answer.iter().map(|message| message.kind).collect::<Vec<u8>>()
            })
        })
        .collect();
    assert!(wait_until(PATIENCE, || tries.load(Ordering::SeqCst) >= 4), "it is tried again");
    started.store(true, Ordering::SeqCst);
    for client in waiting {
        assert_eq!(client.join().unwrap(), b"CZ");
    }
}

#[test]
fn who_waits_for_a_server_that_never_starts_is_told_so_in_time() {
    let (started, tries) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let server = starting(started, tries.clone());
    let (_tieline, address) = before_scripted(&server, "timeouts.acquire = \"1s\"");
    let mut client = Conversation::connect(address);
    let began = Clock::now();
    let wants = [("user", "postgres"), ("database", "postgres")];
    client.send(&frontend::startup(frontend::V3_0, &wants)).unwrap();
    let said = client.until(b'E').unwrap();
    let last = said.last().unwrap();
    assert_eq!((last.field(b'C'), last.field(b'S')), ("57P03".into(), "FATAL".into()), "{said:?}");
    assert!(Clock::now().since(began) >= Duration::from_secs(1), "it was waited for");
    assert!(tries.load(Ordering::SeqCst) > 1);
}

#[test]
fn a_transaction_that_becomes_read_only_says_so_itself_and_its_server_is_no_replica_for_that() {
    let pair =
        Pair::of(&["create table t (n int)"], "replica_reads = \"transactions\"", "user = \"postgres\"");
    let mut client = pair.log_in("app");
    client.query("begin");
    client.query("set transaction read only");
    assert_eq!(client.value("select pg_is_in_recovery()"), "f", "it began where it may write");
    let refused = client.query("insert into t values (1)");
    assert_eq!(refused[0].field(b'C'), "25006", "{refused:?}");
    client.query("rollback");
    for number in 0..5 {
        assert_eq!(client.value(&format!("insert into t values ({number}) returning n")), number.to_string());
    }
    assert_eq!(pair.endpoint(pair.primary.address())["role"], "primary");
}

#[test]
fn who_listens_hears_the_replica_that_was_promoted() {
    let mut pair = Pair::of(&["create table t (n int)"], "", "user = \"postgres\"");
    let mut listens = pair.log_in("app");
    listens.query("listen news");
    pair.primary.query("notify news, 'before'");
    let heard = listens.message().unwrap().unwrap();
    assert!(heard.kind == b'A' && heard.body.ends_with(b"before\0"), "{heard:?}");
    pair.primary.process().kill_all();
    pair.replica.promote();
    let told = listens.message().unwrap().unwrap();
    assert_eq!((told.kind, told.field(b'C')), (b'N', "01000".into()), "{told:?}");
    pair.replica.query("notify news, 'behind'");
    let heard = listens.message().unwrap().unwrap();
    assert!(heard.kind == b'A' && heard.body.ends_with(b"behind\0"), "{heard:?}");
    assert_eq!(listens.value("insert into t values (7) returning n"), "7");
}
