//! One stream: takes the text of a request, gives the text of its answer.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::StatusCode;
use tieline_wire::http1::{CHUNK_END, HeadScan};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer::{self, Framing};
use super::body::{Body, Refused};
use super::broken::Broken;
use super::request::{self, Asked};
use super::trunk::Slot;

/// A stream as a byte stream. Dropped before both its ends have ended, it is reset.
pub(super) struct Stream {
    up: RefCell<Up>,
    down: Down,
    /// Text that waits to be read, of which so much was.
    text: Vec<u8>,
    read: usize,
    /// Bytes of the body that wait to be read behind the text.
    data: Bytes,
    /// Whether a chunk is open, which must be closed behind `data`.
    chunk: bool,
    /// What was asked, as far as the answer depends on it.
    head: bool,
    accept: Option<String>,
    secure: bool,
    id: Option<u32>,
    slot: Slot,
}

/// The request.
enum Up {
    /// Its head is not whole.
    Head(SendRequest<Bytes>, Vec<u8>),
    Body(SendStream<Bytes>, Body),
    /// Sent whole.
    Over,
    Broken(Broken),
}

/// The answer.
enum Down {
    /// Nothing is asked yet; whoever waits already.
    Unasked(Option<Waker>),
    Waiting(ResponseFuture),
    Body(RecvStream, Framing),
    /// All that is to be read is there, and is held back until the stream has ended: to let go of it a moment
    /// before is to reset it.
    Ending(RecvStream, Vec<u8>, Bytes),
    Over,
    Broken(Broken),
}

impl Stream {
    pub(super) fn new(send: SendRequest<Bytes>, slot: Slot, secure: bool) -> Stream {
        Stream {
            up: RefCell::new(Up::Head(send, Vec::new())),
            down: Down::Unasked(None),
            text: Vec::new(),
            read: 0,
            data: Bytes::new(),
            chunk: false,
            head: false,
            accept: None,
            secure,
            id: None,
            slot,
        }
    }

    fn broken(&self, error: &h2::Error) -> Broken {
        Broken::of(error, self.id.is_some_and(|id| self.slot.0.spares(id)))
    }

    /// Takes bytes of the head, and what is joined to its end.
    fn take_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Up::Head(send, head) = self.up.get_mut() else { return Ok(0) };
        head.extend_from_slice(bytes);
        let found = match HeadScan::default().find(head, &request::LIMITS) {
            Ok(None) => return Ok(bytes.len()),
            Ok(Some(length)) => {
                let extended = send.is_extended_connect_protocol_enabled();
                request::read(&head[..length], self.secure, extended).map(|asked| (length, asked))
            }
            Err(error) => Err(Broken::ours(io::ErrorKind::InvalidInput, error)),
        };
        match found.and_then(|(length, asked)| self.ask(length, asked)) {
            Ok(()) => Ok(bytes.len()),
            Err(broken) => Err(self.fail(broken)),
        }
    }

    /// Opens the stream; what lies behind the head, which is little, is sent whatever its window says.
    fn ask(&mut self, length: usize, asked: Asked) -> Result<(), Broken> {
        let Up::Head(send, head) = self.up.get_mut() else { return Ok(()) };
        let (response, mut stream) =
            send.send_request(asked.request, asked.body.is_none()).map_err(Broken::unsent)?;
        let id = stream.stream_id().as_u32();
        let mut rest = &head[length..];
        let mut next = match asked.body {
            None => Up::Over,
            Some(mut body) => {
                let mut ended = false;
                while !rest.is_empty() && !ended {
                    let put = body.put(&mut stream, rest).map_err(|refused| self.slot.broken(refused, id))?;
                    ended = put.ended;
                    rest = &rest[put.taken..];
                }
                if ended { Up::Over } else { Up::Body(stream, body) }
            }
        };
        if !rest.is_empty() {
            next = Up::Broken(Broken::ours(io::ErrorKind::InvalidInput, BEHIND));
        }
        self.up = RefCell::new(next);
        (self.id, self.head, self.accept) = (Some(id), asked.head, asked.accept);
        if let Down::Unasked(Some(waiting)) = std::mem::replace(&mut self.down, Down::Waiting(response)) {
            waiting.wake();
        }
        Ok(())
    }

    /// Nothing more goes either way.
    fn fail(&mut self, broken: Broken) -> io::Error {
        let error = broken.error();
        self.up = RefCell::new(Up::Broken(broken.clone()));
        if let Down::Unasked(Some(waiting)) = std::mem::replace(&mut self.down, Down::Broken(broken)) {
            waiting.wake();
        }
        error
    }

    /// Takes what has come; ready when there is something to be read, or nothing more will be.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.read == self.text.len() && self.data.is_empty() {
            self.text.clear();
            self.read = 0;
            if self.chunk {
                self.chunk = false;
                self.text.extend_from_slice(CHUNK_END);
            }
            let step = match &mut self.down {
                Down::Over => return Poll::Ready(Ok(())),
                Down::Broken(broken) => return Poll::Ready(Err(broken.error())),
                Down::Unasked(waiting) => {
                    *waiting = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Down::Waiting(_) => self.poll_head(cx),
                Down::Body(..) => self.poll_body(cx),
                Down::Ending(..) => self.poll_end(cx),
            };
            match step {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(self.fail(broken))),
                // The end of a chunk is worth reading by itself.
                Poll::Pending if !self.text.is_empty() => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Down::Waiting(response) = &mut self.down else { return Poll::Ready(Ok(())) };
        if let Some(interim) = ready!(response.poll_informational(cx)) {
            let interim = interim.map_err(|error| self.broken(&error))?;
            if interim.status() == StatusCode::SWITCHING_PROTOCOLS {
                // RFC 9113 §8.6: there is no such answer.
                return Poll::Ready(Err(Broken::ours(
                    io::ErrorKind::InvalidData,
                    "HTTP/2 has no status 101",
                )));
            }
            answer::interim(&interim, &mut self.text);
            return Poll::Ready(Ok(()));
        }
        let response = ready!(Pin::new(response).poll(cx)).map_err(|error| self.broken(&error))?;
        let ended = response.body().is_end_stream();
        let framing = match &self.accept {
            Some(accept) if response.status().is_success() => {
                answer::switched(&response, accept, &mut self.text);
                Framing::Raw
            }
            _ => answer::last(&response, self.head, ended, &mut self.text),
        };
        let body = response.into_body();
        self.down = match framing {
            _ if ended && framing != Framing::Raw => Down::Over,
            Framing::None | Framing::Length(0) => {
                Down::Ending(body, std::mem::take(&mut self.text), Bytes::new())
            }
            _ => Down::Body(body, framing),
        };
        Poll::Ready(Ok(()))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Down::Body(body, framing) = &mut self.down else { return Poll::Ready(Ok(())) };
        let data = match ready!(body.poll_data(cx)) {
            Some(Ok(data)) => data,
            Some(Err(error)) => return Poll::Ready(Err(self.broken(&error))),
            None => return self.poll_trailers(cx),
        };
        let Some(length) = NonZeroUsize::new(data.len()) else { return Poll::Ready(Ok(())) };
        match framing {
            Framing::Chunked => {
                answer::chunk_head(length, &mut self.text);
                self.chunk = true;
            }
            Framing::Length(left) => {
                *left = left.saturating_sub(data.len() as u64);
                if *left == 0 && !body.is_end_stream() {
                    let Down::Body(body, _) = std::mem::replace(&mut self.down, Down::Over) else {
                        return Poll::Ready(Ok(()));
                    };
                    self.down = Down::Ending(body, Vec::new(), data);
                    return Poll::Ready(Ok(()));
                }
            }
            Framing::None | Framing::Raw => {}
        }
        self.data = data;
        Poll::Ready(Ok(()))
    }

    /// All data has come.
    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Down::Body(body, framing) = &mut self.down else { return Poll::Ready(Ok(())) };
        if *framing == Framing::Chunked {
            let trailers = ready!(body.poll_trailers(cx)).map_err(|error| self.broken(&error))?;
            answer::end(trailers.as_ref(), &mut self.text);
        }
        self.down = Down::Over;
        Poll::Ready(Ok(()))
    }

    /// Lets go of what is held back, once the stream has ended.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Down::Ending(body, ..) = &mut self.down else { return Poll::Ready(Ok(())) };
        match ready!(body.poll_data(cx)) {
            // RFC 9110 §6.4.1: to a HEAD there is none, whatever comes.
            Some(Ok(_)) => return Poll::Ready(Ok(())),
            // RFC 9113 §8.1: the answer was complete, and the rest of the request is not wanted.
            Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) && error.is_reset() => {}
            Some(Err(error)) => return Poll::Ready(Err(self.broken(&error))),
            None => {}
        }
        if let Down::Ending(_, text, data) = std::mem::replace(&mut self.down, Down::Over) {
            (self.text, self.read, self.data) = (text, 0, data);
        }
        Poll::Ready(Ok(()))
    }

    /// Hands out what there is.
    fn hand_out(&mut self, space: &mut ReadBuf<'_>) {
        let text = &self.text[self.read..];
        let count = text.len().min(space.remaining());
        space.put_slice(&text[..count]);
        self.read += count;
        let count = if self.read == self.text.len() { self.data.len().min(space.remaining()) } else { 0 };
        space.put_slice(&self.data[..count]);
        self.data.advance(count);
        if let (Down::Body(body, _), 1..) = (&mut self.down, count) {
            // As the reader takes it, and no sooner: this is what holds the endpoint back. That the
            // connection broke is told by the next read.
            let _ = body.flow_control().release_capacity(count);
        }
    }
}

const BEHIND: &str = "bytes behind the end of a request";

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = space.filled().len();
        while space.remaining() > 0 {
            match this.poll_answer(cx) {
                Poll::Ready(Ok(())) => {}
                // What was handed out comes first; the error stays.
                _ if space.filled().len() > before => break,
                not_ok => return not_ok,
            }
            let had = space.filled().len();
            this.hand_out(space);
            if space.filled().len() == had {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let put = match this.up.get_mut() {
            Up::Head(..) => return Poll::Ready(this.take_head(bytes)),
            Up::Over => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, BEHIND))),
            Up::Broken(broken) => return Poll::Ready(Err(broken.error())),
            Up::Body(stream, body) => ready!(body.poll_put(stream, bytes, cx)),
        };
        match put {
            Ok(put) => {
                if put.ended {
                    this.up = RefCell::new(Up::Over);
                }
                Poll::Ready(Ok(put.taken))
            }
            // The answer may have come all the same: reading tells.
            Err(refused) => {
                let broken = this.slot.broken(refused, this.id.unwrap_or_default());
                let error = broken.error();
                this.up = RefCell::new(Up::Broken(broken));
                Poll::Ready(Err(error))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends what has no end of its own; of a request that was cut short the stream is reset.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.up.get_mut() {
            Up::Body(stream, Body::Raw) => {
                // A stream that broke meanwhile is told by the next read.
                let _ = stream.send_data(Bytes::new(), true);
                this.up = RefCell::new(Up::Over);
            }
            Up::Body(stream, _) => stream.send_reset(Reason::CANCEL),
            Up::Head(..) | Up::Over | Up::Broken(_) => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl tieline_transport::Stream for Stream {
    /// It is reset anyway, unless both ends have ended.
    fn abort_on_close(&self) {}

    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Down::Broken(broken) = &self.down {
            return Poll::Ready(broken.error());
        }
        match &mut *self.up.borrow_mut() {
            Up::Broken(broken) => Poll::Ready(broken.error()),
            Up::Body(stream, _) => match ready!(stream.poll_reset(cx)) {
                Ok(reason) => Poll::Ready(io::Error::new(io::ErrorKind::ConnectionReset, reason.to_string())),
                Err(error) => Poll::Ready(self.broken(&error).error()),
            },
            Up::Head(..) | Up::Over => Poll::Pending,
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Slot {
    fn broken(&self, refused: Refused, id: u32) -> Broken {
        match refused {
            Refused::Closed => {
                Broken::ours(io::ErrorKind::BrokenPipe, "the endpoint takes no more of the request")
            }
            Refused::Broken(error) => Broken::of(&error, self.0.spares(id)),
            Refused::Framing(error) => Broken::ours(io::ErrorKind::InvalidInput, error),
        }
    }
}
