//! One conversation's bytes, whatever carries them.

use std::future::{Future, poll_fn};
use std::io::ErrorKind::WouldBlock;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use rustix::net::{AddressFamily, Shutdown, SocketType};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::packets::{self, Packets};
use crate::plain;
use crate::stall::{self, Watch};
use crate::stream::Stream;
use crate::tls::{ServerCertificate, TlsStream};

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

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Io::Tls(_))
    }

    /// Whether it is a unix socket: both ends are on this machine.
    pub fn is_local(&self) -> bool {
        matches!(self.socket(), Some(Socket::Unix(_)))
    }

    /// What a conversation with a server inside TLS can be bound to: the hash of its certificate (RFC 5929
    /// §4). `None` without TLS, and where no hash is agreed on.
    pub fn peer_end_point(&self) -> Option<Box<[u8]>> {
        if let Io::Tls(tls) = self { tls.peer_end_point() } else { None }
    }

    /// What the server showed whose TLS it ends in; `None` without TLS over TCP, and where we are the server.
    pub fn server_certificate(&self) -> Option<ServerCertificate> {
        if let Io::Tls(tls) = self { tls.server_certificate() } else { None }
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
            Io::Stream(stream) if stream.roams() => Ok(Io::Stream(stream)),
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
        if let Io::Stream(stream) = self {
            return stream.is_silent();
        }
        let Some(socket) = self.descriptor() else { return false };
        let peeked = recv(socket, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        peeked.err() == Some(rustix::io::Errno::AGAIN)
    }

    /// How many bytes its peer has not acknowledged, of those that were written; `None` where nobody knows.
    /// Under TLS they are those of its records.
    pub fn unacknowledged(&self) -> Option<u64> {
        unacknowledged(self.descriptor()?)
    }

    /// Whether reading is not worth it, as far as the poller has heard; of what is not plain that is not
    /// known without trying. Whoever asked to be woken still is.
    pub fn has_heard_nothing(&self) -> bool {
        let heard = self.try_plain(Interest::READABLE, |_| Ok(()));
        matches!(heard, Err(error) if error.kind() == WouldBlock)
    }

    /// Whether nothing has come, neither bytes nor an end, as far as the poller has heard: costs a system
    /// call only if it has heard of something. Wakes nobody later.
    pub fn is_quiet(&mut self) -> bool {
        use rustix::net::{RecvFlags, recv};
        if !self.is_plain() {
            return self.is_quiet_asking_nobody();
        }
        let peek = |socket: BorrowedFd<'_>| {
            Ok(recv(socket, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT).map(drop)?)
        };
        matches!(self.try_plain(Interest::READABLE, peek), Err(error) if error.kind() == WouldBlock)
    }

    /// The same; whoever waited to be woken by what comes is forgotten.
    pub fn is_quiet_asking_nobody(&mut self) -> bool {
        let (mut byte, mut cx) = ([0], Context::from_waker(Waker::noop()));
        Pin::new(self).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Keeping material of the TLS that it ends in (RFC 8446 §7.5), the same at both ends and at no other
    /// connection; `None` where it is neither TLS nor QUIC.
    pub fn export(&self, label: &[u8]) -> Option<[u8; 32]> {
        match self {
            Io::Tls(tls) => tls.export(label),
            Io::Stream(stream) => stream.export(label),
            Io::Tcp(_) | Io::Unix(_) => None,
        }
    }

    /// What was sent and lost on the connection that carries it; `None` where nobody counts.
    pub fn packets(&self) -> Option<Packets> {
        match (self.socket(), self.stream()) {
            (Some(Socket::Tcp(tcp)), _) => packets::of_tcp(tcp.as_fd()),
            (_, Some(stream)) => stream.packets(),
            _ => None,
        }
    }

    /// Where the peer is now, if that may change while it lives: a connection of QUIC follows its client.
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Io::Stream(stream) => stream.peer(),
            _ => None,
        }
    }

    /// The longest datagram that can go beside the bytes now; `None` where none can.
    pub fn datagram_max(&self) -> Option<usize> {
        if let Io::Stream(stream) = self { stream.datagram_max() } else { None }
    }

    /// Ready when [`Io::send_datagram`] may be given one more.
    ///
    /// # Errors
    /// What broke the connection.
    pub fn poll_datagram_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Io::Stream(stream) = self { stream.poll_datagram_room(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Sends a datagram beside the bytes, which may be lost; one that is longer than [`Io::datagram_max`] is.
    pub fn send_datagram(&mut self, datagram: Bytes) {
        if let Io::Stream(stream) = self {
            stream.send_datagram(datagram);
        }
    }

    /// The next datagram that came beside the bytes.
    ///
    /// # Errors
    /// What broke the connection.
    pub fn poll_datagram(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if let Io::Stream(stream) = self { stream.poll_datagram(cx) } else { Poll::Pending }
    }

    /// Has the kernel give the connection up when what was written is unconfirmed for so long.
    pub fn give_up_after(&self, silence: Duration) {
        if let Some(Socket::Tcp(tcp)) = self.socket() {
            let milliseconds = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
            // Without it the end comes later.
            let _ = rustix::net::sockopt::set_tcp_user_timeout(tcp, milliseconds);
        }
    }

    /// Fits a connection for carrying others over a long way. One of TLS is read in large pieces. Of one of
    /// TCP at most `unsent` bytes wait in the kernel, where nothing overtakes them, and a lost packet alone
    /// is no reason to slow down, where the kernel can tell (BBR). Both are left as they are where they
    /// cannot be had.
    pub fn haul(&mut self, unsent: u32) {
        if let Io::Tls(tls) = self {
            tls.expect_much();
        }
        if let Some(Socket::Tcp(tcp)) = self.socket() {
            let _ = socket2::SockRef::from(tcp).set_tcp_notsent_lowat(unsent);
            let near = tcp.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
            // It paces what it sends, which on one machine costs time and gains nothing.
            if !near {
                let _ = rustix::net::sockopt::set_tcp_congestion(tcp, "bbr");
            }
        }
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

    /// Whether reading is worth it; else the task is woken when it becomes so. For those who would rather
    /// take their room when there is something to be put there.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let heard = self.try_plain(Interest::READABLE, |_| Ok(()));
        match heard {
            Err(error) if error.kind() == WouldBlock => {
                // What went wrong with the poller, reading says.
                self.poll_ready(Interest::READABLE, cx).map(drop)
            }
            // Of what is not plain it is not known without trying.
            _ => Poll::Ready(()),
        }
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

/// What is left in the queue that a socket sends from (`SIOCOUTQ`).
#[allow(unsafe_code)]
fn unacknowledged(socket: BorrowedFd<'_>) -> Option<u64> {
    use rustix::ioctl::{Getter, Opcode, ioctl};
    const SIOCOUTQ: Opcode = libc::TIOCOUTQ as Opcode;
    // SAFETY: the kernel writes one `int` for this opcode, which is what the getter has room for, and it is
    // asked of a socket that is open as long as it is borrowed.
    let count = unsafe { ioctl(socket, Getter::<SIOCOUTQ, std::ffi::c_int>::new()) };
    count.ok().and_then(|count| u64::try_from(count).ok())
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
            Io::Tcp(tcp) => plain::poll_read(tcp, cx, buffer),
            Io::Unix(unix) => plain::poll_read(unix, cx, buffer),
            Io::Tls(tls) => tls.poll_read(cx, buffer),
            Io::Stream(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Tcp(tcp) => plain::poll_write(tcp, cx, bytes),
            Io::Unix(unix) => plain::poll_write(unix, cx, bytes),
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

    #[tokio::test]
    async fn what_the_peer_has_not_taken_is_known() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let _far = listener.accept().unwrap();
        // More than the receiver's window, which nobody opens any more.
        let written = near.write(&vec![7; 1 << 20]).await.unwrap() as u64;
        let io = Io::Tcp(near);
        let left = io.unacknowledged().unwrap();
        assert!(left > 0 && left <= written, "{left} of {written}");
    }

    #[tokio::test]
    async fn what_is_sent_is_counted_and_on_this_machine_nothing_is_lost() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut io = Io::Tcp(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let before = io.packets().unwrap();
        io.write_all(b"something").await.unwrap();
        let after = io.packets().unwrap();
        assert!(after.sent > before.sent && after.lost == 0, "{after:?}");
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
