//! The bytes inside: ends, cuts, and relaying.

use std::cell::Cell;
use std::io::ErrorKind;

use rustix::net::Shutdown;
use tieline_transport::{Closed, Duplex, Io, Meter, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pki::Authority;
use crate::{met, pair};

#[derive(Default)]
struct Counts {
    up: Cell<usize>,
    down: Cell<usize>,
}

impl Meter for Counts {
    fn moved(&self, from: Side, bytes: usize) {
        let count = if from == Side::Client { &self.up } else { &self.down };
        count.set(count.get() + bytes);
    }
}

async fn relay(client: Io, upstream: Io, counts: &Counts) -> Closed {
    let mut duplex = Duplex::new(client, upstream, Vec::new());
    std::future::poll_fn(|cx| duplex.poll(counts, cx)).await
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 / 7) as u8).collect()
}

/// Sends `length` bytes, ends its half, and reads what the other sends, both at once.
async fn talk(io: Io, length: usize) -> std::io::Result<Vec<u8>> {
    let (mut reader, mut writer) = tokio::io::split(io);
    let write = async {
        writer.write_all(&pattern(length)).await?;
        writer.shutdown().await
    };
    let mut read = Vec::new();
    tokio::try_join!(reader.read_to_end(&mut read), write)?;
    Ok(read)
}

#[tokio::test]
async fn an_end_is_told_and_the_other_half_stays_open() {
    let authority = Authority::new();
    let (server, client) = authority.both();
    let (mut near, mut far, _) = met(&server, &client, "a.test").await;
    far.write_all(b"question").await.unwrap();
    far.shutdown().await.unwrap();
    let mut question = Vec::new();
    near.read_to_end(&mut question).await.unwrap();
    near.write_all(b"late answer").await.unwrap();
    near.shutdown().await.unwrap();
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await.unwrap();
    assert_eq!((&*question, &*answer), (&b"question"[..], &b"late answer"[..]));
}

#[tokio::test]
async fn a_cut_is_an_error_and_no_end() {
    let authority = Authority::new();
    let (server, client) = authority.both();
    let (mut near, mut far, _) = met(&server, &client, "a.test").await;
    far.write_all(b"half a").await.unwrap();
    far.flush().await.unwrap();
    rustix::net::shutdown(far.descriptor().unwrap(), Shutdown::Write).unwrap();
    let mut read = Vec::new();
    let error = near.read_to_end(&mut read).await.unwrap_err();
    assert_eq!((error.kind(), &*read), (ErrorKind::UnexpectedEof, &b"half a"[..]));
    assert!(error.to_string().contains("close_notify"), "{error}");
}

const LENGTH: usize = 10 << 20;

/// Both ends of a relay send [`LENGTH`] bytes at once; `tls` says which sides are encrypted.
async fn bulk(tls: (bool, bool)) {
    let authority = Authority::new();
    let (server, client) = authority.both();
    let (near, client_far) = if tls.0 {
        let (near, far, _) = met(&server, &client, "a.test").await;
        (near, far)
    } else {
        pair().await
    };
    let (upstream_far, upstream) = if tls.1 {
        let (near, far, _) = met(&server, &client, "a.test").await;
        (near, far)
    } else {
        pair().await
    };
    let counts = Counts::default();
    let (closed, down, up) =
        tokio::join!(relay(near, upstream, &counts), talk(client_far, LENGTH), talk(upstream_far, LENGTH));
    assert!(closed.error.is_none(), "{closed:?}");
    assert!(down.unwrap() == pattern(LENGTH) && up.unwrap() == pattern(LENGTH));
    assert_eq!((counts.up.get(), counts.down.get()), (LENGTH, LENGTH));
}

#[tokio::test]
async fn a_relay_with_an_encrypted_client_moves_all() {
    bulk((true, false)).await;
}

#[tokio::test]
async fn a_relay_with_an_encrypted_upstream_moves_all() {
    bulk((false, true)).await;
}

#[tokio::test]
async fn a_relay_with_two_encrypted_sides_moves_all() {
    bulk((true, true)).await;
}

#[tokio::test]
async fn a_relay_sends_all_that_it_encrypted_before_it_waits_for_more() {
    const MESSAGE: usize = 40_000;
    let authority = Authority::new();
    let (server, client) = authority.both();
    let (near, mut far, _) = met(&server, &client, "a.test").await;
    // Far less than a message fits into the sockets.
    socket2::SockRef::from(&near.descriptor().unwrap()).set_send_buffer_size(4_096).unwrap();
    socket2::SockRef::from(&far.descriptor().unwrap()).set_recv_buffer_size(4_096).unwrap();
    let (mut upstream_far, upstream) = pair().await;
    let ask = async {
        let mut message = vec![0; MESSAGE];
        for _ in 0..3 {
            upstream_far.write_all(&pattern(MESSAGE)).await.unwrap();
            far.read_exact(&mut message).await.unwrap();
            assert!(message == pattern(MESSAGE));
            far.write_all(b"k").await.unwrap();
            far.flush().await.unwrap();
            upstream_far.read_u8().await.unwrap();
        }
    };
    let counts = Counts::default();
    let asked = async {
        tokio::select! {
            closed = relay(near, upstream, &counts) => panic!("{closed:?}"),
            () = ask => {}
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), asked).await.unwrap();
}

#[tokio::test]
async fn a_relay_passes_half_an_end_on_and_waits_for_the_other() {
    let authority = Authority::new();
    let (server, client) = authority.both();
    let (near, mut far, _) = met(&server, &client, "a.test").await;
    let (mut upstream_far, upstream) = pair().await;
    let talk = async {
        far.write_all(b"question").await.unwrap();
        far.shutdown().await.unwrap();
        let (mut question, mut answer) = (Vec::new(), Vec::new());
        upstream_far.read_to_end(&mut question).await.unwrap();
        upstream_far.write_all(b"late answer").await.unwrap();
        drop(upstream_far);
        far.read_to_end(&mut answer).await.unwrap();
        (question, answer)
    };
    let counts = Counts::default();
    let (closed, (question, answer)) = tokio::join!(relay(near, upstream, &counts), talk);
    assert_eq!((&*question, &*answer), (&b"question"[..], &b"late answer"[..]));
    assert!(closed.error.is_none() && closed.first == Side::Client, "{closed:?}");
}

#[tokio::test]
async fn a_relay_turns_a_cut_into_a_reset() {
    let authority = Authority::new();
    let (server, client) = authority.both();
    let (near, mut far, _) = met(&server, &client, "a.test").await;
    let (mut upstream_far, upstream) = pair().await;
    far.write_all(b"half a").await.unwrap();
    far.flush().await.unwrap();
    rustix::net::shutdown(far.descriptor().unwrap(), Shutdown::Write).unwrap();
    let closed = relay(near, upstream, &Counts::default()).await;
    assert_eq!(closed.error.unwrap().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(closed.first, Side::Client);
    let error = upstream_far.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
