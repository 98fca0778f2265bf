//! Random bytes both ways at once: each is the one that it should be, and none is missing at the end.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};

use tieline_testkit::{PATIENCE, TcpServer, wait_until};

/// A far service that talks and listens at once, for one client that does the same.
pub(crate) struct Oracle {
    enough: Arc<AtomicBool>,
    up: Arc<Progress>,
    down: Arc<Progress>,
    far: TcpServer,
    far_done: Receiver<()>,
}

impl Oracle {
    pub(crate) fn start() -> Oracle {
        let enough = Arc::new(AtomicBool::new(false));
        let (up, down) = (Arc::new(Progress::default()), Arc::new(Progress::default()));
        let (done, far_done) = channel();
        let far = {
            let (enough, up, down) = (enough.clone(), up.clone(), down.clone());
            TcpServer::scripted(move |stream| {
                converse(stream, 2, 1, &enough, &down, &up);
                let _ = done.send(());
                Ok(())
            })
        };
        Oracle { enough, up, down, far, far_done }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.far.address()
    }

    /// How many connections the far service has.
    pub(crate) fn open(&self) -> usize {
        self.far.open()
    }

    /// Both sides talk over `client` until `meanwhile` is done; then each must have heard all that the other
    /// has said.
    #[track_caller]
    pub(crate) fn during(&self, client: &TcpStream, meanwhile: impl FnOnce()) {
        let Oracle { enough, up, down, .. } = self;
        std::thread::scope(|scope| {
            let near = scope.spawn(|| converse(client, 1, 2, enough, up, down));
            let ending = Ending { enough, client };
            meanwhile();
            drop(ending);
            near.join().unwrap();
        });
        self.far_done.recv_timeout(PATIENCE).unwrap();
        for direction in [up, down] {
            assert_eq!(direction.heard.load(Ordering::SeqCst), direction.sent.load(Ordering::SeqCst));
        }
    }

    /// Waits until `bytes` more have come through in each direction.
    #[track_caller]
    pub(crate) fn moves(&self, bytes: u64, when: &str) {
        let heard = || [&self.up, &self.down].map(|direction| direction.heard.load(Ordering::SeqCst));
        let before = heard();
        let moved = || heard().iter().zip(before).all(|(now, before)| *now >= before + bytes);
        assert!(wait_until(PATIENCE, moved), "stuck {when}: {before:?} {:?}", heard());
    }
}

/// Ends the talk; also of a test that fails, which would wait for it for ever.
struct Ending<'a> {
    enough: &'a AtomicBool,
    client: &'a TcpStream,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::SeqCst);
        if std::thread::panicking() {
            let _ = self.client.shutdown(Shutdown::Both);
        }
    }
}

/// Bytes that nobody can guess and both ends can make.
struct Random(u64);

impl Random {
    fn fill(&mut self, piece: &mut [u8]) {
        for part in piece.chunks_mut(8) {
            // Marsaglia's xorshift64.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            part.copy_from_slice(&self.0.to_le_bytes()[..part.len()]);
        }
    }
}

/// The one direction of a conversation, as far as it has come.
#[derive(Default)]
struct Progress {
    heard: AtomicU64,
    sent: AtomicU64,
}

const PIECE: usize = 16 << 10;

/// Sends random bytes until there are `enough`, in whole pieces, then ends its half.
fn talk(mut to: &TcpStream, seed: u64, enough: &AtomicBool, progress: &Progress) {
    let (mut random, mut piece) = (Random(seed), vec![0; PIECE]);
    while !enough.load(Ordering::SeqCst) {
        random.fill(&mut piece);
        to.write_all(&piece).unwrap();
        progress.sent.fetch_add(PIECE as u64, Ordering::SeqCst);
    }
    to.shutdown(Shutdown::Write).unwrap();
}

/// Hears random bytes to their end: each is the one that it should be, and none is missing at the end.
fn listen(mut from: &TcpStream, seed: u64, progress: &Progress) {
    let (mut random, mut expected, mut piece) = (Random(seed), vec![0; PIECE], vec![0; PIECE]);
    let mut ahead = 0;
    loop {
        let length = from.read(&mut piece[..PIECE - ahead]).unwrap();
        if length == 0 {
            break;
        }
        if ahead == 0 {
            random.fill(&mut expected);
        }
        assert!(piece[..length] == expected[ahead..ahead + length], "behind byte {:?}", progress.heard);
        ahead = (ahead + length) % PIECE;
        progress.heard.fetch_add(length as u64, Ordering::SeqCst);
    }
    assert_eq!(ahead, 0, "a piece is cut");
}

/// Both halves at once.
fn converse(
    stream: &TcpStream,
    ours: u64,
    theirs: u64,
    enough: &AtomicBool,
    sent: &Progress,
    heard: &Progress,
) {
    std::thread::scope(|scope| {
        scope.spawn(|| talk(stream, ours, enough, sent));
        listen(stream, theirs, heard);
    });
}
