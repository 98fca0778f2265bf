//! Servers that say what a real one says seldom, at the worst of moments: played by hand.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use tieline_testkit::pg::{Conversation, frontend};
use tieline_testkit::{PATIENCE, TcpServer, Tieline, wait_until};

/// Tieline before `server`, and a client.
fn tieline(server: &TcpServer) -> (Tieline, Conversation) {
    let tieline = Tieline::start(&format!(
        "[listener.db]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\nauth = \"trust\"\n\
         [[listener.db.route]]\nupstream = \"pg\"\naccess = \"public\"\n\
         [upstream.pg]\nprotocol = \"postgres\"\nendpoints = [\"{}\"]\npool = {{ size = 3 }}\n",
        server.address()
    ));
    let client = Conversation::log_in(tieline.listener_address("db"), "postgres", "postgres");
    (tieline, client)
}

/// The next message of the client: its kind, and its body.
fn message(mut stream: &TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4];
    stream.read_exact(&mut body)?;
    Ok((head[0], body))
}

/// Hears a StartupMessage, and lets it in.
fn let_in(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    stream.read_exact(&mut vec![0; u32::from_be_bytes(length) as usize - 4])?;
    Ok([frontend::message(b'R', &[0; 4]), frontend::message(b'K', &[1; 8]), ready(b'I')].concat())
}

fn ready(status: u8) -> Vec<u8> {
    frontend::message(b'Z', &[status])
}

fn done() -> Vec<u8> {
    frontend::message(b'C', b"DONE\0")
}

/// A NoticeResponse of some length.
fn notice() -> Vec<u8> {
    frontend::message(b'N', format!("SNOTICE\0VNOTICE\0C00000\0M{}\0\0", "so ".repeat(1000)).as_bytes())
}

#[test]
fn an_answer_of_ours_does_not_land_within_what_the_server_is_saying() {
    let server = TcpServer::scripted(|mut stream| {
        stream.write_all(&let_in(stream)?)?;
        let (mut status, mut rest) = (b'I', Vec::new());
        loop {
            let (kind, body) = message(stream)?;
            let said = match kind {
                b'Q' if body.starts_with(b"half") => {
                    let mut said = [done(), ready(status), notice()].concat();
                    rest = said.split_off(said.len() - 100);
                    said
                }
                b'Q' => {
                    status = if body.starts_with(b"begin") { b'T' } else { b'I' };
                    [done(), ready(status)].concat()
                }
                b'P' => frontend::message(b'1', b""),
                b'S' => ready(status),
                b'H' => std::mem::take(&mut rest),
                _ => return Ok(()),
            };
            stream.write_all(&said)?;
        }
    });
    let (_tieline, mut client) = tieline(&server);
    client.query("begin");
    client.send(&[frontend::parse("one", "select 1", &[]), frontend::sync()].concat()).unwrap();
    client.until(b'Z').unwrap();
    client.send(&frontend::query("half")).unwrap();
    client.until(b'Z').unwrap();
    // Of the notice all has come by now but its end. The text is known, so we answer, and the server that is
    // told to hurry ends its notice.
    client.send(&[frontend::parse("two", "select 1", &[]), frontend::flush()].concat()).unwrap();
    let said = client.message().unwrap().unwrap();
    assert_eq!([vec![said.kind], said.body].concat(), [&notice()[..1], &notice()[5..]].concat());
    assert_eq!(client.message().unwrap().unwrap().kind, b'1');
    client.send(&frontend::sync()).unwrap();
    assert_eq!(client.until(b'Z').unwrap().len(), 1);
}

#[test]
fn a_server_that_goes_on_behind_its_answer_is_not_taken_for_one_that_is_silent() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let server = TcpServer::scripted(move |mut stream| {
        let mut greeting = let_in(stream)?;
        let mut rest = Vec::new();
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            greeting.extend(notice());
            rest = greeting.split_off(greeting.len() - 100);
        }
        stream.write_all(&greeting)?;
        loop {
            let (kind, _) = message(stream)?;
            if kind != b'Q' {
                return Ok(());
            }
            stream.write_all(&[std::mem::take(&mut rest), done(), ready(b'I')].concat())?;
        }
    });
    let (_tieline, mut client) = tieline(&server);
    let said = client.query("select 1");
    assert_eq!(said.iter().map(|message| message.kind).collect::<Vec<_>>(), b"CZ", "{said:?}");
    assert_eq!(count.load(Ordering::SeqCst), 2, "the first one was closed");
}

#[test]
fn who_waits_for_a_log_in_that_is_not_answered_may_be_cancelled_and_may_go() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let server = TcpServer::scripted(move |mut stream| {
        let greeting = let_in(stream)?;
        if counted.fetch_add(1, Ordering::SeqCst) > 0 {
            // It says nothing until the other side has had enough.
            return stream.read(&mut [0]).map(drop);
        }
        stream.write_all(&greeting)?;
        while let (b'Q', body) = message(stream)? {
            let status = if body.starts_with(b"begin") { b'T' } else { b'I' };
            stream.write_all(&[done(), ready(status)].concat())?;
        }
        Ok(())
    });
    let (tieline, mut holds) = tieline(&server);
    holds.query("begin");
    let ask = |asked: usize| {
        let mut client = Conversation::log_in(tieline.listener_address("db"), "postgres", "postgres");
        client.send(&frontend::query("select 1")).unwrap();
        assert!(wait_until(PATIENCE, || count.load(Ordering::SeqCst) >= asked));
        client
    };
    let (mut waits, goes) = (ask(2), ask(3));
    let mut request = Conversation::connect(tieline.listener_address("db"));
    request.send(&frontend::cancel(waits.key_data())).unwrap();
    let said = waits.until(b'Z').unwrap();
    assert_eq!(said[0].field(b'C'), "57014", "{said:?}");
    goes.reset();
    assert!(wait_until(PATIENCE, || server.open() == 1), "it logs in for one who is gone");
}

#[test]
fn what_is_asked_again_goes_before_what_its_client_asks_next() {
    let (refused, is_refused) = channel();
    let goes_on = Arc::new(AtomicBool::new(false));
    let is_asked_more = goes_on.clone();
    let server = TcpServer::scripted(move |mut stream| {
        stream.write_all(&let_in(stream)?)?;
        let mut binds = 0;
        loop {
            let (kind, body) = message(stream)?;
            let said = match kind {
                b'P' => frontend::message(b'1', b""),
                b'C' => frontend::message(b'3', b""),
                b'B' => {
                    binds += 1;
                    // Of the first batch it says no more until the client has asked for something else.
                    if binds == 1 { stale() } else { frontend::message(b'2', b"") }
                }
                b'D' | b'E' if binds == 1 => continue,
                b'D' => frontend::message(b'n', b""),
                b'E' => done(),
                b'S' if binds == 1 => {
                    let _ = refused.send(()); // the test may have seen enough
                    assert!(wait_until(PATIENCE, || is_asked_more.load(Ordering::SeqCst)));
                    ready(b'I')
                }
                b'S' => ready(b'I'),
                b'Q' if body == b"next\0" => [frontend::message(b'C', b"NEXT\0"), ready(b'I')].concat(),
                b'Q' => [done(), ready(b'I')].concat(),
                _ => return Ok(()),
            };
            stream.write_all(&said)?;
        }
    });
    let (_tieline, mut client) = tieline(&server);
    client.send(&[frontend::parse("one", "select 1", &[]), frontend::sync()].concat()).unwrap();
    client.until(b'Z').unwrap();
    let (bind, describe) = (frontend::bind("", "one", &[], 0), frontend::describe(b'P', ""));
    let batch = [bind, describe, frontend::execute("", 0), frontend::sync()].concat();
    client.send(&batch).unwrap();
    is_refused.recv_timeout(PATIENCE).unwrap();
    client.send(&frontend::query("next")).unwrap();
    // It lies there before the server says another word.
    goes_on.store(true, Ordering::SeqCst);
    let said = client.until(b'Z').unwrap();
    let kinds: Vec<u8> = said.iter().map(|said| said.kind).collect();
    assert_eq!(kinds, b"2nCZ", "nothing is told of its being asked twice: {said:?}");
    let next = client.until(b'Z').unwrap();
    assert!(next[0].body.starts_with(b"NEXT"), "{next:?}");
}

#[test]
fn a_notification_that_is_longer_than_any_ends_its_connection_and_tears_nothing() {
    let server = TcpServer::scripted(move |mut stream| {
        stream.write_all(&let_in(stream)?)?;
        loop {
            let (kind, body) = message(stream)?;
            let said = match kind {
                b'Q' if body == b"listens\0" => frontend::lying(b'A', 2 << 20, b"\0\0\0\x01told"),
                b'Q' => [done(), ready(b'I')].concat(),
                _ => return Ok(()),
            };
            stream.write_all(&said)?;
        }
    });
    let (tieline, mut client) = tieline(&server);
    client.query("select 1");
    client.send(&frontend::query("listens")).unwrap();
    let said = client.until(b'E').unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!((said[0].field(b'S'), said[0].field(b'C')), ("FATAL".into(), "08P01".into()), "{said:?}");
    assert!(client.message().unwrap().is_none());
    drop(tieline);
}

/// What a server says of a statement whose tables have changed.
fn stale() -> Vec<u8> {
    frontend::message(b'E', b"SERROR\0VERROR\0C0A000\0Mcached plan\0RRevalidateCachedQuery\0\0")
}
