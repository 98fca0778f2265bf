//! Requests to cancel that take their time, come in masses, or can reach nobody.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tieline_testkit::pg::{Conversation, Message, frontend};
use tieline_testkit::{PATIENCE, Postgres, TcpServer, Tieline, wait_until};

use crate::proxied::wait_for_waiting;

/// The way to a server on which requests to cancel are held up.
struct Wire {
    server: TcpServer,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Requests that came, and those that are held up now.
    came: AtomicUsize,
    held: AtomicUsize,
    held_most: AtomicUsize,
    released: AtomicBool,
}

impl Wire {
    /// Holds each up for so long, or until all are released.
    fn to(postgres: &Postgres, delay: Duration) -> Wire {
        let (to, counts) = (postgres.address(), Arc::new(Counts::default()));
        let counted = counts.clone();
        let server = TcpServer::scripted(move |client| pass(client, to, delay, &counted));
        Wire { server, counts }
    }

    fn came(&self) -> usize {
        self.counts.came.load(Ordering::SeqCst)
    }
}

fn pass(mut client: &TcpStream, to: SocketAddr, delay: Duration, counts: &Counts) -> io::Result<()> {
    let mut first = [0; 8];
    client.read_exact(&mut first)?;
    let cancels = first == frontend::cancel(&[0; 8])[..8];
    if cancels {
        counts.came.fetch_add(1, Ordering::SeqCst);
        let held = counts.held.fetch_add(1, Ordering::SeqCst) + 1;
        counts.held_most.fetch_max(held, Ordering::SeqCst);
        let _ = wait_until(delay, || counts.released.load(Ordering::SeqCst));
    }
    let mut far = TcpStream::connect(to)?;
    far.write_all(&first)?;
    let (mut back, mut near) = (far.try_clone()?, client.try_clone()?);
    let answering = thread::spawn(move || {
        let _ = io::copy(&mut back, &mut near);
        near.shutdown(Shutdown::Both)
    });
    let _ = io::copy(&mut client, &mut far);
    let _ = (far.shutdown(Shutdown::Write), answering.join());
    if cancels {
        counts.held.fetch_sub(1, Ordering::SeqCst);
    }
    Ok(())
}

fn before(server: SocketAddr, upstream: &str) -> (Tieline, SocketAddr) {
    let tieline = Tieline::start(&format!(
        "[listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
         [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n\
         [upstream.pg]\nprotocol = \"postgres\"\nuser = \"postgres\"\n\
         endpoints = [\"{server}\"]\n{upstream}\n"
    ));
    let address = tieline.listener_address("db");
    (tieline, address)
}

fn log_in(address: SocketAddr) -> Conversation {
    Conversation::log_in(address, "postgres", "postgres")
}

fn request(address: SocketAddr, key: &[u8]) -> Conversation {
    let mut request = Conversation::connect(address);
    request.send(&frontend::cancel(key)).unwrap();
    request
}

fn error(said: &[Message]) -> Option<String> {
    said.iter().find(|message| message.kind == b'E').map(|error| error.field(b'C'))
}

#[test]
fn a_cancel_that_is_on_its_way_for_seconds_hits_no_other_query_under_load() {
    let postgres = Postgres::start();
    let wire = Wire::to(&postgres, Duration::from_secs(2));
    let (_tieline, address) = before(wire.server.address(), "pool.size = 3");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let neighbours: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let (mut client, mut served) = (log_in(address), 0);
                    while !over.load(Ordering::SeqCst) {
                        let said = client.query("select pg_sleep(0.02)");
                        assert_eq!(error(&said), None, "{said:?}");
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        let victims: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = log_in(address);
                    for _ in 0..3 {
                        // It ends long before its request arrives.
                        client.send(&frontend::query("select pg_sleep(0.5)")).unwrap();
                        client.is_silent_for(Duration::from_millis(100));
                        let _request = request(address, client.key_data());
                        client.until(b'Z').unwrap();
                        // What it asks next is another query than the one that was to be cancelled.
                        let said = client.query("select pg_sleep(0.02)");
                        assert_eq!(error(&said), None, "{said:?}");
                    }
                })
            })
            .collect();
        for victim in victims {
            victim.join().unwrap();
        }
        assert!(wait_until(PATIENCE, || wire.counts.held.load(Ordering::SeqCst) == 0));
        over.store(true, Ordering::SeqCst);
        let served: usize = neighbours.into_iter().map(|neighbour| neighbour.join().unwrap()).sum();
        assert!(served > 0);
    });
    assert!(wire.came() > 0, "no request was ever on its way");
}

#[test]
fn a_storm_of_requests_is_one_request_and_keeps_nobody_from_a_server() {
    const REQUESTS: usize = 150;
    let postgres = Postgres::start();
    let wire = Wire::to(&postgres, PATIENCE);
    let (tieline, address) = before(wire.server.address(), "pool.size = 2");
    let (mut runs, mut other) = (log_in(address), log_in(address));
    runs.send(&frontend::query("select pg_sleep(600)")).unwrap();
    let sleeps = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    assert!(wait_until(PATIENCE, || postgres.query(sleeps) == "1"));
    let key = runs.key_data().to_vec();
    let wrong: Vec<u8> =
        key.iter().enumerate().map(|(at, byte)| if at < 4 { *byte } else { !byte }).collect();
    let mut requests: Vec<_> = (0..REQUESTS).map(|_| request(address, &key)).collect();
    for _ in 0..REQUESTS {
        assert!(request(address, &wrong).message().unwrap().is_none());
    }
    // All but the one that is on its way are done with: two clients are left beside it.
    let live = || tieline.get("/api/v1/connections?limit=1000")["connections"].as_array().map(Vec::len);
    assert!(wait_until(PATIENCE, || live() == Some(3)), "{:?}", live());
    for _ in 0..20 {
        assert_eq!(other.value("select 7"), "7");
    }
    assert_eq!((wire.came(), postgres.query(sleeps).as_str()), (1, "1"));
    wire.counts.released.store(true, Ordering::SeqCst);
    assert_eq!(error(&runs.until(b'Z').unwrap()).as_deref(), Some("57014"));
    for request in &mut requests {
        assert!(request.message().unwrap().is_none());
    }
    assert_eq!(runs.value("select 7"), "7");
    assert_eq!((wire.came(), wire.counts.held_most.load(Ordering::SeqCst)), (1, 1));
}

/// A server that says `key` where others say how they are cancelled, and answers what it is asked.
fn keyless(key: Vec<u8>) -> TcpServer {
    TcpServer::scripted(move |mut stream| {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize - 4])?;
        let ready = |status: u8| frontend::message(b'Z', &[status]);
        stream.write_all(&[frontend::message(b'R', &[0; 4]), key.clone(), ready(b'I')].concat())?;
        loop {
            let mut head = [0; 5];
            stream.read_exact(&mut head)?;
            let mut body = vec![0; u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4];
            stream.read_exact(&mut body)?;
            if head[0] != b'Q' {
                return Ok(());
            }
            let status = if body.starts_with(b"begin") { b'T' } else { b'I' };
            stream.write_all(&[frontend::message(b'C', b"DONE\0"), ready(status)].concat())?;
        }
    })
}

#[test]
fn clients_have_keys_where_servers_give_none_and_may_be_cancelled_while_they_wait() {
    for key in [Vec::new(), frontend::message(b'K', &[0, 0, 0, 7])] {
        let server = keyless(key);
        let (tieline, address) = before(server.address(), "pool.size = 1");
        let (mut holds, mut waits) = (log_in(address), log_in(address));
        assert!(holds.key_data().len() == 8 && holds.key_data() != waits.key_data());
        holds.query("begin");
        waits.send(&frontend::query("select 1")).unwrap();
        wait_for_waiting(&tieline, "pg", 1);
        // Nobody can tell the server.
        assert!(request(address, holds.key_data()).message().unwrap().is_none());
        assert!(request(address, waits.key_data()).message().unwrap().is_none());
        assert_eq!(error(&waits.until(b'Z').unwrap()).as_deref(), Some("57014"));
        for sql in ["select 1", "commit", "select 2"] {
            assert_eq!(error(&holds.query(sql)), None);
        }
        assert_eq!(error(&waits.query("select 1")), None);
    }
}
