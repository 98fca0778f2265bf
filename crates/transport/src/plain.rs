//! Reading and writing plain sockets. What the poller says is looked at first, and the call made if it is
//! worth it; the task is put down to be woken only where it is not. Each call is the kernel's own: what the C
//! library puts around it, for threads that are cancelled, costs as much as all of this.
//!
//! A socket is polled only by the thread whose poller watches it ([`Io::moved_here`](crate::Io::moved_here)
//! changes that): then nothing is heard between a call that took less than it could and the note that it did.

use std::io;
use std::io::ErrorKind::WouldBlock;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop::poll_proceed;

/// A socket that the poller watches.
pub(crate) trait Watched: AsFd {
    /// Makes `call` if the poller has heard that it is worth it; its `WouldBlock` is remembered.
    fn try_call<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R>;

    /// Ready if it is worth it; else the task is woken when it becomes so.
    fn poll_worth(&self, interest: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Watched for TcpStream {
    fn try_call<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.try_io(interest, call)
    }

    fn poll_worth(&self, interest: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if interest.is_readable() { self.poll_read_ready(cx) } else { self.poll_write_ready(cx) }
    }
}

impl Watched for UnixStream {
    fn try_call<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.try_io(interest, call)
    }

    fn poll_worth(&self, interest: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if interest.is_readable() { self.poll_read_ready(cx) } else { self.poll_write_ready(cx) }
    }
}

/// Reads once.
pub(crate) fn poll_read(
    socket: &impl Watched,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let space = buffer.initialize_unfilled();
    let read = poll_call(socket, Interest::READABLE, space.len(), cx, || {
        Ok(recv(socket, &mut *space, RecvFlags::empty())?.0)
    });
    read.map_ok(|count| buffer.advance(count))
}

/// Writes once.
pub(crate) fn poll_write(
    socket: &impl Watched,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    poll_call(socket, Interest::WRITABLE, bytes.len(), cx, || Ok(send(socket, bytes, SendFlags::NOSIGNAL)?))
}

/// Makes `call`, which moves so many bytes at most.
fn poll_call(
    socket: &impl Watched,
    interest: Interest,
    most: usize,
    cx: &mut Context<'_>,
    mut call: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    // Others have their turn too, however much there is to be moved here.
    let mut turn = Some(ready!(poll_proceed(cx)));
    loop {
        match socket.try_call(interest, &mut call) {
            Err(error) if error.kind() == WouldBlock => {
                // Given back: the poller takes a turn of its own, and puts nobody down where there is none.
                turn = None;
                ready!(socket.poll_worth(interest, cx))?;
            }
            done => {
                if let Some(turn) = &turn {
                    turn.made_progress();
                }
                // Less than was asked for is all that there is: the poller tells of more when it comes, and
                // another call would be in vain.
                if matches!(done, Ok(count) if 0 < count && count < most) {
                    let _ = socket.try_call(interest, || io::Result::<()>::Err(WouldBlock.into()));
                }
                return Poll::Ready(done);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn read(socket: &UnixStream, most: usize) -> io::Result<Vec<u8>> {
        let mut room = vec![0; most];
        let mut buffer = ReadBuf::new(&mut room);
        poll_fn(|cx| poll_read(socket, cx, &mut buffer)).await?;
        Ok(buffer.filled().to_vec())
    }

    #[tokio::test]
    async fn bytes_arrive_in_pieces_of_any_size_until_the_end() {
        let (near, far) = UnixStream::pair().unwrap();
        let sent: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
        let write_all = async {
            let mut left = sent.as_slice();
            while !left.is_empty() {
                let count = poll_fn(|cx| poll_write(&near, cx, left)).await.unwrap();
                left = &left[count..];
            }
            drop(near);
        };
        let read_all = async {
            let mut heard = Vec::new();
            for most in (1..).map(|round| round * 37 % 5_000 + 1) {
                let piece = read(&far, most).await.unwrap();
                if piece.is_empty() {
                    return heard;
                }
                heard.extend_from_slice(&piece);
            }
            heard
        };
        assert_eq!(tokio::join!(write_all, read_all).1, sent);
    }

    #[tokio::test]
    async fn who_reads_waits_for_what_comes_later() {
        let (near, far) = UnixStream::pair().unwrap();
        for round in 0..100_u8 {
            let (heard, _) = tokio::join!(read(&far, 64), async {
                tokio::task::yield_now().await;
                poll_fn(|cx| poll_write(&near, cx, &[round; 3])).await.unwrap()
            });
            assert_eq!(heard.unwrap(), [round; 3]);
        }
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error_and_no_signal() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let error = poll_fn(|cx| poll_write(&near, cx, b"x")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(read(&near, 1).await.unwrap(), b"");
    }
}
