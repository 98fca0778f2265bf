//! Conversations without a socket of their own.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

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

    /// Whether nothing waits to be read, neither bytes nor an end; false where that is not known.
    fn is_silent(&self) -> bool {
        false
    }
}
