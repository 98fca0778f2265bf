//! The one conversation of a connection of QUIC.

#![allow(clippy::disallowed_types)] // who waits for a break may be on another thread

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::{
    Connection, ConnectionError, Endpoint, RecvStream, SendDatagramError, SendStream, StoppedError, VarInt,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Reach;
use crate::packets::Packets;
use crate::stream::Stream;

type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// It closes its connection when it is dropped: what was written and not confirmed is lost then, unless
/// [`AsyncWrite::poll_shutdown`] was waited for.
pub(super) struct QuicStream {
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    /// Bytes since the window was last fitted to the path.
    unfitted: usize,
    /// Packets lost by then, and for how many times more that counts.
    lost: u64,
    gaps: u8,
    /// The dialer's: its socket closes with the conversation.
    _endpoint: Option<Endpoint>,
    /// A datagram that waits for room.
    sending: Option<Waiting<Result<(), SendDatagramError>>>,
    /// The next datagram that comes.
    receiving: Option<Waiting<Result<Bytes, ConnectionError>>>,
    finishing: Option<Waiting<Result<Option<VarInt>, StoppedError>>>,
    breaking: Mutex<Option<Waiting<ConnectionError>>>,
    aborts: AtomicBool,
}

/// How often the window is fitted to the path, in bytes written.
const FITTED_EVERY: usize = 64 << 10;

/// Where a packet was lost others soon will be: so many times the window is fitted to that.
const GAPS: u8 = 16;

/// The least and the most that may be written ahead of what is acknowledged.
const WINDOW_MIN: u64 = 128 << 10;
const WINDOW_MAX: u64 = 8 << 20;

/// The most on one machine: what waits there waits for a process to have its turn, not for a path.
const WINDOW_MAX_HERE: u64 = 384 << 10;

/// The conversation ended as it should, or was broken off.
const IN_ORDER: VarInt = VarInt::from_u32(0);
const BROKEN_OFF: VarInt = VarInt::from_u32(1);

impl QuicStream {
    pub(super) fn new(
        connection: Connection,
        send: SendStream,
        receive: RecvStream,
        endpoint: Option<Endpoint>,
    ) -> Self {
        Self {
            connection,
            send,
            receive,
            unfitted: 0,
            lost: 0,
            gaps: 0,
            _endpoint: endpoint,
            sending: None,
            receiving: None,
            finishing: None,
            breaking: Mutex::new(None),
            aborts: AtomicBool::new(false),
        }
    }

    /// Lets as much be written as the path takes at once and half as much again. What is written further
    /// ahead cannot be overtaken by what is more urgent, and gets nowhere sooner. Behind a packet that is
    /// lost all counts as written ahead until that has come again, which takes two round trips.
    fn fit(&mut self, written: usize) {
        self.unfitted += written;
        if self.unfitted < FITTED_EVERY {
            return;
        }
        self.unfitted = 0;
        let path = self.connection.stats().path;
        let loses = path.lost_packets > self.lost;
        self.lost = path.lost_packets;
        self.gaps = if loses { GAPS } else { self.gaps.saturating_sub(1) };
        let ahead = if self.gaps > 0 { 3 * path.cwnd } else { path.cwnd + path.cwnd / 2 };
        let most = match Reach::of(self.connection.remote_address().ip()) {
            Reach::Here => WINDOW_MAX_HERE,
            Reach::Far => WINDOW_MAX,
        };
        self.connection.set_send_window(ahead.clamp(WINDOW_MIN, most));
    }
}

impl AsyncRead for QuicStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.receive).poll_read(cx, buffer)
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes))?;
        self.fit(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It is sent as soon as the path takes it.
        Poll::Ready(Ok(()))
    }

    /// Ready when the peer has confirmed all that was written.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.finishing.is_none() {
            // It fails only where it was finished, or stopped by the peer: both say what follows.
            let _ = self.send.finish();
            self.finishing = Some(Box::pin(self.send.stopped()));
        }
        let Some(finishing) = &mut self.finishing else { return Poll::Ready(Ok(())) };
        let finished = ready!(finishing.as_mut().poll(cx));
        Poll::Ready(finished.map(drop).map_err(|error| io::Error::other(error.to_string())))
    }
}

impl Stream for QuicStream {
    fn abort_on_close(&self) {
        self.aborts.store(true, Relaxed);
    }

    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut breaking = self.breaking.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = self.connection.clone();
        let waiting = breaking.get_or_insert_with(|| Box::pin(async move { connection.closed().await }));
        waiting.as_mut().poll(cx).map(io::Error::from)
    }

    fn roams(&self) -> bool {
        true
    }

    fn packets(&self) -> Option<Packets> {
        let path = self.connection.stats().path;
        Some(Packets { sent: path.sent_packets, lost: path.lost_packets })
    }

    fn datagram_max(&self) -> Option<usize> {
        self.connection.max_datagram_size()
    }

    fn poll_datagram_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let sent = ready!(sending.as_mut().poll(cx));
        self.sending = None;
        Poll::Ready(match sent {
            Err(SendDatagramError::ConnectionLost(error)) => Err(error.into()),
            // The path has become narrower meanwhile, and datagrams may be lost.
            _ => Ok(()),
        })
    }

    fn send_datagram(&mut self, datagram: Bytes) {
        if datagram.len() <= self.connection.datagram_send_buffer_space() {
            // It fails where the path has become narrower, or the connection broke, which others tell.
            let _ = self.connection.send_datagram(datagram);
        } else {
            let connection = self.connection.clone();
            self.sending = Some(Box::pin(async move { connection.send_datagram_wait(datagram).await }));
        }
    }

    fn poll_datagram(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let connection = &self.connection;
        let receiving = self.receiving.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.read_datagram().await })
        });
        let came = ready!(receiving.as_mut().poll(cx));
        self.receiving = None;
        Poll::Ready(came.map_err(io::Error::from))
    }

    fn export(&self, label: &[u8]) -> Option<[u8; 32]> {
        let mut material = [0; 32];
        self.connection.export_keying_material(&mut material, label, b"").ok()?;
        Some(material)
    }

    fn peer(&self) -> Option<SocketAddr> {
        Some(self.connection.remote_address())
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        let code = if *self.aborts.get_mut() { BROKEN_OFF } else { IN_ORDER };
        self.connection.close(code, b"");
    }
}

impl fmt::Debug for QuicStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicStream").field("peer", &self.connection.remote_address()).finish_non_exhaustive()
    }
}
