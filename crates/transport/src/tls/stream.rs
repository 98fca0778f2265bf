//! The bytes inside TLS.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ahead::Ahead;
use super::end_point::end_point;
use super::peer::ServerCertificate;
use crate::Io;

/// An encrypted conversation over a plain one. What is written may wait here for the socket until it is
/// flushed.
pub struct TlsStream(tokio_rustls::TlsStream<Ahead>);

impl TlsStream {
    pub(super) fn new(stream: tokio_rustls::TlsStream<Ahead>) -> TlsStream {
        TlsStream(stream)
    }

    /// What carries it.
    pub(crate) fn carrier(&self) -> &Io {
        &self.0.get_ref().0.io
    }

    /// The same, to be replaced by another way to the same peer.
    pub(crate) fn carrier_mut(&mut self) -> &mut Io {
        &mut self.0.get_mut().0.io
    }

    /// What a conversation with a server can be bound to, as [`end_point`] has it; `None` at our own.
    pub(crate) fn peer_end_point(&self) -> Option<Box<[u8]>> {
        match &self.0 {
            tokio_rustls::TlsStream::Client(stream) => {
                end_point(stream.get_ref().1.peer_certificates()?.first()?)
            }
            tokio_rustls::TlsStream::Server(_) => None,
        }
    }

    /// What the server showed; `None` at our own.
    pub(crate) fn server_certificate(&self) -> Option<ServerCertificate> {
        match &self.0 {
            tokio_rustls::TlsStream::Client(stream) => {
                ServerCertificate::read(stream.get_ref().1.peer_certificates()?.first()?)
            }
            tokio_rustls::TlsStream::Server(_) => None,
        }
    }

    /// Keeping material for `label`, without a context.
    pub(crate) fn export(&self, label: &[u8]) -> Option<[u8; 32]> {
        let exported = match &self.0 {
            tokio_rustls::TlsStream::Client(stream) => {
                stream.get_ref().1.export_keying_material([0; 32], label, None)
            }
            tokio_rustls::TlsStream::Server(stream) => {
                stream.get_ref().1.export_keying_material([0; 32], label, None)
            }
        };
        exported.ok()
    }

    /// Whether decrypted bytes, or an end, wait here: the socket need not be ready then.
    pub(crate) fn holds_unread(&self) -> bool {
        let (carrier, tls) = self.0.get_ref();
        carrier.holds_unread() || !tls.wants_read()
    }

    /// Much will come: it is read in large pieces from now on.
    pub(crate) fn expect_much(&mut self) {
        self.0.get_mut().0.expect_much();
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.0).poll_read(cx, buffer));
        Poll::Ready(read.map_err(|error| match error.kind() {
            // RFC 8446 §6.1: without a close_notify nobody knows whether this is all, or was cut.
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), TRUNCATED),
            _ => error,
        }))
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, pieces)
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    /// Says close_notify, then ends the carrier's half.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

const TRUNCATED: &str = "the TLS stream ended without a close_notify: it may have been cut short";

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsStream").field(self.carrier()).finish()
    }
}
