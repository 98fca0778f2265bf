//! One stream of HTTP/2 as a conversation in HTTP/1.1: what an exchange reads is the request, what it writes
//! becomes the answer.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::RecvStream;
use tieline_transport::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head::{Body, Head, chunk_head, last_chunk};
use super::reply::{Reply, broken};

/// A stream that carries one request and its answer.
pub(super) struct H2Stream {
    /// What of the request waits to be read: its head, and later what frames its body.
    text: Vec<u8>,
    read: usize,
    body: RecvStream,
    framing: Body,
    /// Data that waits behind `text`. It holds the client's window until it is read.
    data: Bytes,
    /// Whether a chunk was begun before.
    begun: bool,
    ended: bool,
    // Both are asked of by `&self`.
    reply: RefCell<Reply>,
    aborted: Cell<bool>,
}

impl H2Stream {
    /// A stream whose request's head was translated, with `reply` as its way back.
    pub(super) fn new(head: Head, body: RecvStream, reply: Reply) -> Self {
        Self {
            text: head.text,
            read: 0,
            body,
            ended: head.body == Body::None,
            framing: head.body,
            data: Bytes::new(),
            begun: false,
            reply: RefCell::new(reply),
            aborted: Cell::new(false),
        }
    }

    /// Waits for more of the body.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.body.poll_data(cx)) {
            Some(Ok(data)) => {
                if self.framing == Body::Chunked && !data.is_empty() {
                    self.frame(|begun, text| chunk_head(data.len(), !begun, text));
                    self.begun = true;
                }
                self.data = data;
            }
            Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            None => {
                if self.framing == Body::Chunked {
                    let trailers = ready!(self.body.poll_trailers(cx)).map_err(broken)?;
                    self.frame(|begun, text| last_chunk(trailers.as_ref(), !begun, text));
                }
                self.ended = true;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn frame(&mut self, write: impl FnOnce(bool, &mut Vec<u8>)) {
        self.text.clear();
        self.read = 0;
        write(self.begun, &mut self.text);
    }
}

impl AsyncRead for H2Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        loop {
            let text = &this.text[this.read..];
            let count = text.len().min(buffer.remaining());
            buffer.put_slice(&text[..count]);
            this.read += count;
            let count = this.data.len().min(buffer.remaining());
            if count > 0 {
                buffer.put_slice(&this.data[..count]);
                this.data.advance(count);
                // The client may send as much again: what waits here is never more than its window.
                this.body.flow_control().release_capacity(count).map_err(broken)?;
            }
            if this.ended || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            // What is there goes out with the head, in one piece; nobody waits for what is not.
            match this.poll_more(cx)? {
                Poll::Ready(()) => {}
                Poll::Pending if buffer.filled().len() > before => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl AsyncWrite for H2Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().reply.get_mut().poll_write(bytes, cx)
    }

    /// Whoever drives the connection sends it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A WebSocket's other half goes on. Of a request nobody reads the rest; the client is told so.
        this.ended |= this.framing != Body::Opaque;
        Poll::Ready(this.reply.get_mut().finish())
    }
}

impl Stream for H2Stream {
    fn abort_on_close(&self) {
        self.aborted.set(true);
    }

    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.reply.borrow_mut().poll_reset(cx)
    }
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        let reply = self.reply.get_mut();
        // What was cut short must not look whole. What was never begun is cancelled by itself.
        if self.aborted.get() || reply.is_partial() {
            reply.abort();
        }
    }
}

impl fmt::Debug for H2Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2Stream").field("id", &self.body.stream_id()).finish_non_exhaustive()
    }
}
