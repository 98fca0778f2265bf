//! Reading ahead of TLS.
//!
//! rustls asks for 4 KiB at a time, which for a record of 16 KiB is five system calls. Where much comes, more
//! is read at once, and handed over from memory.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Io;

/// What carries TLS.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) io: Io,
    /// Whether more is read than was asked for.
    bulk: bool,
    /// Room for what is read ahead: none while nothing comes.
    room: Box<[u8]>,
    /// What of it was read and not handed over.
    from: usize,
    upto: usize,
}

/// The most that is read at once: four records.
const ROOM: usize = 64 * 1024;

impl Ahead {
    pub(super) fn new(io: Io) -> Self {
        Self { io, bulk: false, room: Box::default(), from: 0, upto: 0 }
    }

    /// From now on more is read than was asked for.
    pub(super) fn expect_much(&mut self) {
        self.bulk = true;
    }

    /// Whether something waits here: the socket need not be ready then.
    pub(super) fn holds_unread(&self) -> bool {
        self.from < self.upto
    }

    /// Has something wait here, or an end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.room.is_empty() {
            self.room = vec![0; ROOM].into();
        }
        let mut room = ReadBuf::new(&mut self.room);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut room);
        (self.from, self.upto) = (0, room.filled().len());
        if !self.holds_unread() {
            self.room = Box::default();
        }
        read
    }
}

impl AsyncRead for Ahead {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.holds_unread() {
            if !this.bulk || buffer.remaining() >= ROOM {
                return Pin::new(&mut this.io).poll_read(cx, buffer);
            }
            ready!(this.poll_fill(cx))?;
        }
        let count = buffer.remaining().min(this.upto - this.from);
        buffer.put_slice(&this.room[this.from..this.from + count]);
        this.from += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn what_was_read_ahead_is_handed_over_from_memory_in_order() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut ahead = Ahead::new(Io::Unix(near));
        ahead.expect_much();
        let bytes: Vec<u8> = (0..20_000_u32).map(|at| (at * 31 / 7) as u8).collect();
        far.write_all(&bytes).await.unwrap();
        let mut heard = vec![0; 4096];
        ahead.read_exact(&mut heard).await.unwrap();
        assert!(ahead.holds_unread() && ahead.io.is_silent(), "the socket holds nothing any more");
        far.shutdown().await.unwrap();
        ahead.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, bytes);
        assert!(ahead.room.is_empty(), "who waits holds no room");
    }

    #[tokio::test]
    async fn no_more_is_read_than_was_asked_for_until_much_is_expected() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut ahead = Ahead::new(Io::Unix(near));
        far.write_all(b"one two").await.unwrap();
        let mut heard = [0; 3];
        ahead.read_exact(&mut heard).await.unwrap();
        assert!(!ahead.holds_unread() && !ahead.io.is_silent());
    }

    #[tokio::test]
    async fn one_that_waits_holds_no_room() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut ahead = Ahead::new(Io::Unix(near));
        ahead.expect_much();
        let mut heard = [0; 8];
        let read = Pin::new(&mut ahead)
            .poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(&mut heard));
        assert!(read.is_pending() && ahead.room.is_empty());
    }
}
