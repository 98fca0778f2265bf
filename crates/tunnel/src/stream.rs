//! One stream of a link as a conversation, to be used like any socket.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use tieline_base::Clock;
use tieline_transport::Stream;
use tieline_wire::tunnel::{Code, StreamId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::live::{Core, Ended, LiveLink};

/// What is read and written goes through the link, whatever carries that. Dropped, it ends in order, as a
/// socket would: what was written still arrives, and its end.
pub(crate) struct LinkStream {
    link: Arc<LiveLink>,
    id: StreamId,
    aborts: AtomicBool,
}

impl LinkStream {
    pub(crate) fn new(link: Arc<LiveLink>, id: StreamId) -> Self {
        Self { link, id, aborts: AtomicBool::new(false) }
    }

    /// Where it is, for whoever must break it off from elsewhere.
    pub(crate) fn handle(&self) -> (Arc<LiveLink>, StreamId) {
        (self.link.clone(), self.id)
    }

    /// Waits until the peer has agreed to it.
    ///
    /// # Errors
    /// Why it did not, or what broke the stream meanwhile.
    pub(crate) async fn opened(&self) -> io::Result<()> {
        self.opened_telling(|_| {}).await
    }

    /// [`LinkStream::opened`], which is told what for the peer's answer waits.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn opened_telling(&self, tell: impl Fn(&str)) -> io::Result<()> {
        poll_fn(|cx| {
            let (waits, opened) = self.link.act(|core| {
                let opened = match core.ended(self.id) {
                    Some(Ended::Broken(code, text)) => Poll::Ready(Err(refused(code, text.as_deref()))),
                    _ if core.is_open(self.id) => Poll::Ready(Ok(())),
                    _ => {
                        core.on_readable(self.id, cx);
                        Poll::Pending
                    }
                };
                (core.take_wait(self.id), opened)
            });
            if let Some(waits) = waits {
                tell(&waits);
            }
            opened
        })
        .await
    }

    /// Reads what is there, or an end; `None` if neither is.
    fn take(&self, core: &mut Core, buffer: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        let before = buffer.remaining();
        while buffer.remaining() > 0 {
            let piece = core.link.readable(self.id);
            let count = piece.len().min(buffer.remaining());
            if count == 0 {
                break;
            }
            buffer.put_slice(&piece[..count]);
            core.link.drain(self.id, count, Clock::now());
        }
        if buffer.remaining() < before || before == 0 {
            return Some(Ok(()));
        }
        match core.ended(self.id) {
            Some(Ended::Broken(code, _)) => Some(Err(broken(code))),
            Some(Ended::InOrder) => Some(Ok(())),
            None => core.link.at_end(self.id).then_some(Ok(())),
        }
    }
}

/// How a stream came to nothing, inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Broken {
    code: Code,
    text: String,
    /// What the other side said of it.
    said: Option<Box<str>>,
}

/// By which code a stream of a link was refused or broken off, if that is what `error` is about.
pub(crate) fn code_in(error: &io::Error) -> Option<Code> {
    error.get_ref()?.downcast_ref::<Broken>().map(|broken| broken.code)
}

/// What the other side said when it refused a stream, if that is what `error` is about; else the error.
pub(crate) fn said_in(error: &io::Error) -> String {
    let broken = error.get_ref().and_then(|inner| inner.downcast_ref::<Broken>());
    broken.and_then(|broken| broken.said.as_deref()).map_or_else(|| error.to_string(), str::to_owned)
}

/// The refusal by `code` that the other side would give.
pub(crate) fn said(code: Code, text: String) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, Broken { code, text, said: None })
}

/// Why an opening failed, in the terms of a dial.
pub(crate) fn refused(code: Code, text: Option<&str>) -> io::Error {
    let kind = match code {
        Code::Timeout | Code::Expired => io::ErrorKind::TimedOut,
        Code::Denied => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::ConnectionRefused,
    };
    let said: Option<Box<str>> = text.filter(|text| !text.is_empty()).map(Into::into);
    let text = match &said {
        Some(said) => format!("the other side says: {said}"),
        None => format!("the stream was refused: {code}"),
    };
    io::Error::new(kind, Broken { code, text, said })
}

pub(crate) fn broken(code: Code) -> io::Error {
    let text = format!("the stream of the link was broken off: {code}");
    io::Error::new(io::ErrorKind::ConnectionReset, Broken { code, text, said: None })
}

impl AsyncRead for LinkStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Others have their turn too, however much there is to be moved here.
        let turn = std::task::ready!(tokio::task::coop::poll_proceed(cx));
        self.link.act(|core| match self.take(core, buffer) {
            Some(done) => {
                turn.made_progress();
                Poll::Ready(done)
            }
            None => {
                core.on_readable(self.id, cx);
                Poll::Pending
            }
        })
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let turn = std::task::ready!(tokio::task::coop::poll_proceed(cx));
        self.link.act(|core| {
            match core.ended(self.id) {
                Some(Ended::Broken(code, _)) => return Poll::Ready(Err(broken(code))),
                Some(Ended::InOrder) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                None => {}
            }
            let written = core.link.write(self.id, bytes, Clock::now());
            if written == 0 && !bytes.is_empty() {
                core.on_writable(self.id, cx);
                return Poll::Pending;
            }
            turn.made_progress();
            Poll::Ready(Ok(written))
        })
    }

    /// What was written is on its way by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.act(|core| core.link.finish(self.id));
        Poll::Ready(Ok(()))
    }
}

impl Stream for LinkStream {
    fn abort_on_close(&self) {
        self.aborts.store(true, Relaxed);
    }

    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.link.act(|core| match core.ended(self.id) {
            Some(Ended::Broken(code, _)) => Poll::Ready(broken(code)),
            _ => {
                core.on_broken(self.id, cx);
                Poll::Pending
            }
        })
    }

    fn roams(&self) -> bool {
        true
    }

    fn is_silent(&self) -> bool {
        self.link.act(|core| {
            let nothing = core.link.readable(self.id).is_empty() && !core.link.at_end(self.id);
            nothing && core.ended(self.id).is_none()
        })
    }
}

impl Drop for LinkStream {
    fn drop(&mut self) {
        self.link.act(|core| core.let_go(self.id, self.aborts.load(Relaxed)));
    }
}

impl fmt::Debug for LinkStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkStream").field("id", &self.id).finish_non_exhaustive()
    }
}
