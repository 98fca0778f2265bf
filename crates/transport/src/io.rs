//! One conversation's bytes, whatever carries them.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{AddressFamily, Shutdown, SocketType};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::stall::{self, Watch};
use crate::stream::Stream;
use crate::tls::TlsStream;

/// A connected byte stream. A closed enum, so that two plain sockets can be joined in the kernel.
#[derive(Debug)]
pub enum Io {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A unix stream socket.
    Unix(UnixStream),
    /// Either of them, encrypted.
    Tls(Box<TlsStream>),
    /// Part of another conversation.
    Stream(Box<dyn Stream>),
}

/// The socket that carries an [`Io`].
enum Socket<'i> {
    Tcp(&'i TcpStream),
    Unix(&'i UnixStream),
}

impl Io {
    /// Adopts a connected, non-blocking stream socket of `family` on the current worker.
    pub(crate) fn adopt(socket: OwnedFd, family: AddressFamily) -> io::Result<Io> {
        if family == AddressFamily::UNIX {
            return UnixStream::from_std(socket.into()).map(Io::Unix);
        }
        TcpStream::from_std(socket.into()).map(Io::Tcp)
    }

    /// Opens an unconnected, non-blocking stream socket.
    pub(crate) fn open(family: AddressFamily) -> io::Result<OwnedFd> {
        use rustix::net::{SocketFlags, socket_with};
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        Ok(socket_with(family, SocketType::STREAM, flags, None)?)
    }

    /// The local address, if it is a TCP connection: what a PROXY header names as the destination.
    pub fn local_address(&self) -> Option<std::net::SocketAddr> {
        match self.socket()? {
            Socket::Tcp(tcp) => tcp.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Whether the socket's bytes are the conversation's, so that the kernel may move them.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Io::Tcp(_) | Io::Unix(_))
    }

    fn socket(&self) -> Option<Socket<'_>> {
        match self {
            Io::Tcp(tcp) => Some(Socket::Tcp(tcp)),
            Io::Unix(unix) => Some(Socket::Unix(unix)),
            Io::Tls(tls) => tls.carrier().socket(),
            Io::Stream(_) => None,
        }
    }

    /// The socket that carries it, if that is its own.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(match self.socket()? {
            Socket::Tcp(tcp) => tcp.as_fd(),
            Socket::Unix(unix) => unix.as_fd(),
        })
    }

    /// What carries it in the end, if that is not part of another conversation.
    fn stream(&self) -> Option<&dyn Stream> {
        match self {
            Io::Tcp(_) | Io::Unix(_) => None,
            Io::Tls(tls) => tls.carrier().stream(),
            Io::Stream(stream) => Some(&**stream),
        }
    }

    /// The same connection, watched by the poller of the worker that calls; the other one forgets it.
    ///
    /// # Errors
    /// The worker's poller takes no more, or there is no descriptor left. The connection is closed then.
    pub fn moved_here(self) -> io::Result<Io> {
        match self {
            Io::Tcp(tcp) => TcpStream::from_std(tcp.into_std()?).map(Io::Tcp),
            Io::Unix(unix) => UnixStream::from_std(unix.into_std()?).map(Io::Unix),
            Io::Tls(mut tls) => {
                // The TLS state cannot be parted from its carrier, so the socket gets another descriptor.
                let moved = tls.carrier().twin()?;
                *tls.carrier_mut() = moved;
                Ok(Io::Tls(tls))
            }
            // It moves with what it is part of.
            Io::Stream(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The same socket by another descriptor, watched by the poller of the worker that calls.
    fn twin(&self) -> io::Result<Io> {
        let family = match self.socket() {
            Some(Socket::Tcp(_)) => AddressFamily::INET,
            Some(Socket::Unix(_)) => AddressFamily::UNIX,
            None => return Err(io::ErrorKind::Unsupported.into()),
        };
        let descriptor = self.descriptor().ok_or(io::ErrorKind::Unsupported)?;
        Io::adopt(descriptor.try_clone_to_owned()?, family)
    }

    /// Whether nothing waits to be read on the socket, neither bytes nor an end. Asks the kernel, not the
    /// poller, which may not have heard yet.
    pub fn is_silent(&self) -> bool {
        use rustix::net::{RecvFlags, recv};
        let Some(socket) = self.descriptor() else { return false };
        let peeked = recv(socket, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        peeked.err() == Some(rustix::io::Errno::AGAIN)
    }

    /// Makes the coming close a reset, so that the peer cannot take a broken stream for a whole one.
    pub fn abort_on_close(&self) {
        if let Some(stream) = self.stream() {
            return stream.abort_on_close();
        }
        if let Some(socket) = self.descriptor() {
            // A failure means that the socket is gone already, which is what was wanted.
            let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }

    /// Waits until the connection is reset or otherwise broken; not until it is merely half-closed, because a
    /// client may say all it has to say before it listens. May be dropped at any time.
    pub async fn broken(&self) {
        // An error of the poller itself counts as broken: nothing would ever be heard of the socket again.
        let _ = match (self.socket(), self.stream()) {
            (Some(Socket::Tcp(tcp)), _) => tcp.ready(Interest::ERROR).await.map(drop),
            (Some(Socket::Unix(unix)), _) => unix.ready(Interest::ERROR).await.map(drop),
            (None, Some(stream)) => Err(poll_fn(|cx| stream.poll_broken(cx)).await),
            (None, None) => Ok(()),
        };
    }

    /// What broke the connection, which nobody reads just now; if nothing did, asks for a wake-up within a
    /// second or so to look again. `watch` remembers between calls that it was asked for.
    pub fn poll_broken(&self, watch: &mut Watch, cx: &mut Context<'_>) -> Option<io::Error> {
        if let Some(stream) = self.stream() {
            return match stream.poll_broken(cx) {
                Poll::Ready(error) => Some(error),
                Poll::Pending => None,
            };
        }
        // Who asked a moment ago is woken anyway, and looks then.
        if stall::watch(watch, cx) { self.error(cx) } else { None }
    }

    /// What broke the connection, if the poller knows of it. Wakes nobody later.
    pub(crate) fn error(&self, cx: &mut Context<'_>) -> Option<io::Error> {
        let known = pin!(self.broken()).poll(cx);
        let error = match self.socket()? {
            _ if known.is_pending() => return None,
            Socket::Tcp(tcp) => tcp.take_error(),
            Socket::Unix(unix) => unix.take_error(),
        };
        let unnamed = || io::ErrorKind::ConnectionReset.into();
        Some(error.unwrap_or_else(Some).unwrap_or_else(unnamed))
    }

    /// Whether trying is worth it: what TLS has decrypted already needs no socket.
    pub(crate) fn poll_ready(&self, interest: Interest, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (self, interest.is_readable()) {
            (Io::Tcp(tcp), true) => tcp.poll_read_ready(cx),
            (Io::Tcp(tcp), false) => tcp.poll_write_ready(cx),
            (Io::Unix(unix), true) => unix.poll_read_ready(cx),
            (Io::Unix(unix), false) => unix.poll_write_ready(cx),
            (Io::Tls(tls), true) if tls.holds_unread() => Poll::Ready(Ok(())),
            (Io::Tls(tls), _) => tls.carrier().poll_ready(interest, cx),
            // It tells when it is tried.
            (Io::Stream(_), _) => Poll::Ready(Ok(())),
        }
    }

    /// Runs `call` on the ready socket of a plain conversation; its `WouldBlock` clears the readiness.
    pub(crate) fn try_plain<R>(
        &self,
        interest: Interest,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        match self {
            Io::Tcp(tcp) => tcp.try_io(interest, || call(tcp.as_fd())),
            Io::Unix(unix) => unix.try_io(interest, || call(unix.as_fd())),
            // What is done to the socket itself would tear what is carried by it.
            Io::Tls(_) | Io::Stream(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn shutdown_write(socket: impl AsFd) -> io::Result<()> {
    match rustix::net::shutdown(socket, Shutdown::Write) {
        // The peer reset it meanwhile: reading will say so.
        Err(rustix::io::Errno::NOTCONN) => Ok(()),
        result => Ok(result?),
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Io::Unix(unix) => Pin::new(unix).poll_read(cx, buffer),
            Io::Tls(tls) => tls.poll_read(cx, buffer),
            Io::Stream(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Io::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
            Io::Tls(tls) => tls.poll_write(cx, bytes),
            Io::Stream(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// Several pieces in one system call, or one record of TLS.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, pieces),
            Io::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, pieces),
            Io::Tls(tls) => tls.poll_write_vectored(cx, pieces),
            Io::Stream(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Io::Tcp(_) | Io::Unix(_) | Io::Tls(_) => true,
            Io::Stream(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(_) | Io::Unix(_) => Poll::Ready(Ok(())),
            Io::Tls(tls) => tls.poll_flush(cx),
            Io::Stream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Says to the peer that no more bytes will come; those on their way still arrive.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(tcp) => Poll::Ready(shutdown_write(tcp)),
            Io::Unix(unix) => Poll::Ready(shutdown_write(unix)),
            Io::Tls(tls) => tls.poll_shutdown(cx),
            Io::Stream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Io, IoSlice, TcpStream, UnixStream};
    use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

    #[tokio::test]
    async fn pieces_that_lie_apart_go_out_together() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut io = Io::Unix(near);
        let pieces = [IoSlice::new(b"head"), IoSlice::new(b"body")];
        assert!(io.is_write_vectored());
        assert_eq!(io.write_vectored(&pieces).await.unwrap(), 8);
        let mut heard = [0; 8];
        far.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"headbody");
    }

    #[test]
    fn encryption_costs_a_plain_connection_no_byte() {
        #[expect(dead_code, reason = "only its size matters")]
        enum Plain {
            Tcp(TcpStream),
            Unix(UnixStream),
        }
        assert_eq!(size_of::<Io>(), size_of::<Plain>());
    }
}
