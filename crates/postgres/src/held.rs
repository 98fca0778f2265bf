//! What a peer does not take yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tieline_transport::Io;
use tokio::io::AsyncWrite;

/// Bytes on their way out. While there are none it owns nothing.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: Vec<u8>,
    sent: usize,
}

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes are kept, those that went out with them included until all have.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where to append what goes out next.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Sends what is held.
    pub(crate) fn poll_flush(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match ready!(Pin::new(&mut *io).poll_write(cx, &self.bytes[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        if !self.bytes.is_empty() {
            *self = Self::default();
        }
        // TLS may hold what it has encrypted; a plain socket holds nothing.
        Pin::new(io).poll_flush(cx)
    }

    /// Sends `bytes` behind what is held, and holds what is not taken.
    pub(crate) fn send(&mut self, io: &mut Io, bytes: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        let mut sent = 0;
        if self.bytes.is_empty()
            && !bytes.is_empty()
            && let Poll::Ready(written) = Pin::new(&mut *io).poll_write(cx, bytes)
        {
            sent = written?;
        }
        if sent < bytes.len() {
            self.bytes.extend_from_slice(&bytes[sent..]);
        }
        match self.poll_flush(io, cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }
}
