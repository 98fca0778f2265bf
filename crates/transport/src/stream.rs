//! Conversations without a socket of their own.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::packets::Packets;

/// A byte stream that another conversation carries, such as one stream of HTTP/2.
///
/// What is written may wait until it is flushed. A shutdown says that no more bytes will come; dropped
/// without one, it may be taken by its peer for whole or for broken, as its carrier has it.
pub trait Stream: AsyncRead + AsyncWrite + Debug + Send + Unpin {
    /// Makes the coming close one that the peer cannot take for a whole end.
    fn abort_on_close(&self);

    /// What broke it, while nobody reads it; pending, and `cx` woken, until something does. One that is
    /// merely half-closed is not broken.
    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error>;

    /// Whether any worker can have it, whoever carries it.
    fn roams(&self) -> bool {
        false
    }

    /// Keeping material that both ends can make and nobody else, the same for the same label (RFC 8446 §7.5);
    /// `None` where nothing of the kind was agreed on.
    fn export(&self, _label: &[u8]) -> Option<[u8; 32]> {
        None
    }

    /// What it has sent and lost; `None` where nobody counts.
    fn packets(&self) -> Option<Packets> {
        None
    }

    /// Where the peer is now, if that may change while it lives.
    fn peer(&self) -> Option<SocketAddr> {
        None
    }

    /// The longest datagram that can go beside the bytes now; `None` where none can.
    fn datagram_max(&self) -> Option<usize> {
        None
    }

    /// Ready when [`Stream::send_datagram`] may be given one more.
    ///
    /// # Errors
    /// What broke the conversation.
    fn poll_datagram_room(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Sends a datagram beside the bytes: it may overtake them, and may be lost. One that is too long is.
    fn send_datagram(&mut self, _datagram: Bytes) {}

    /// The next datagram that came beside the bytes.
    ///
    /// # Errors
    /// What broke the conversation.
    fn poll_datagram(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        Poll::Pending
    }

    /// Whether nothing waits to be read, neither bytes nor an end; false where that is not known.
    fn is_silent(&self) -> bool {
        false
    }
}
