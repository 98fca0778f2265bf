//! One direction of one exchange: a head that waits to be sent, and the body behind it.

use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tieline_transport::Io;
use tieline_wire::http1::{
    CHUNK_END, ChunkedDecoder, HttpError, LAST_CHUNK, Progress, encode_chunk_head, encode_last_chunk,
};
use tokio::io::AsyncWrite;

use crate::buffer::{Buffer, SIZE};
use crate::guard::Held;
use crate::mirror::Tap;

/// How the sender frames the body.
#[derive(Debug)]
pub(crate) enum Source {
    Nothing,
    Length(u64),
    Chunked(Box<ChunkedDecoder>),
    UntilClose,
}

/// A body on its way, behind the bytes that go before it.
#[derive(Debug)]
pub(crate) struct Transfer {
    source: Source,
    /// Whether the receiver gets chunks.
    chunked: bool,
    /// Whether the receiver is told of trailers.
    trailers: bool,
    pending: Vec<u8>,
    sent: usize,
    /// Whether the receiver took something that the sender was not heard for.
    took: bool,
    done: bool,
    /// How much may be kept that was sent, to be sent again.
    hold: usize,
    /// Some of what was sent is kept no more.
    lost: bool,
    /// How many bytes of body may still come.
    left: u64,
    /// What came of the body, where somebody else wants it too.
    tap: Option<Box<Tap>>,
}

/// Which end broke it.
#[derive(Debug)]
pub(crate) enum Break {
    /// The sender: its socket, or an end before the end.
    Sender(io::Error),
    /// The sender's framing.
    Framing(HttpError),
    /// The body is larger than allowed.
    TooLarge,
    /// The receiver.
    Receiver(io::Error),
}

/// A body's first bytes that are so few go out with the head, in one system call.
const JOINED_MAX: usize = SIZE;

/// So many steps before others get their turn.
const STEPS_PER_TURN: u32 = 16;

impl Transfer {
    /// `head` first, then what `source` frames, as chunks or as it comes.
    pub(crate) fn new(head: Vec<u8>, source: Source, chunked: bool, trailers: bool) -> Self {
        let done = matches!(source, Source::Nothing | Source::Length(0));
        let (took, hold, lost, left, tap) = (false, 0, false, u64::MAX, None);
        Self { source, chunked, trailers, pending: head, sent: 0, took, done, hold, lost, left, tap }
    }

    /// Takes what was read of the body before: it goes out behind the head.
    pub(crate) fn begin_with(&mut self, held: Held) {
        let Held { data, rest, trailers } = held;
        self.left = self.left.saturating_sub(data.len() as u64);
        push(&mut self.pending, &data, self.chunked);
        keep(&mut self.tap, &data);
        self.done = matches!(rest, Source::Nothing);
        if self.done && self.chunked {
            encode_last_chunk(&trailers, &mut self.pending);
        }
        self.source = rest;
    }

    /// Lets the body be so large at most.
    pub(crate) fn limit(&mut self, most: Option<u64>) {
        self.left = most.unwrap_or(u64::MAX);
    }

    /// Keeps what comes of the body.
    pub(crate) fn tap(&mut self) {
        self.tap = Some(Box::default());
    }

    /// The whole body that was kept, if it came to its end and is not too long.
    pub(crate) fn tapped(&self) -> Option<&[u8]> {
        self.tap.as_ref().filter(|_| self.done).and_then(|tap| tap.body())
    }

    /// Whether everything was taken from the sender and handed to the receiver.
    pub(crate) fn is_over(&self) -> bool {
        self.done && self.sent == self.pending.len()
    }

    /// Keeps what was sent, as long as it is no more than `most` bytes.
    pub(crate) fn hold(&mut self, most: usize) {
        self.hold = most;
    }

    /// Begins anew, for another receiver; false if some of what was sent is lost.
    pub(crate) fn rewind(&mut self) -> bool {
        self.sent = 0;
        !self.lost
    }

    /// Whether no byte of it was taken by a receiver.
    pub(crate) fn is_unsent(&self) -> bool {
        self.sent == 0 && !self.lost
    }

    /// Whether all of it is here: it can be sent without its sender.
    pub(crate) fn is_whole(&self) -> bool {
        self.done && !self.lost
    }

    /// The same for a second receiver, if all of it is here.
    pub(crate) fn twin(&self) -> Option<Transfer> {
        if !self.is_whole() {
            return None;
        }
        let twin = Transfer::new(self.pending.clone(), Source::Nothing, self.chunked, self.trailers);
        Some(Transfer { tap: self.tap.clone(), ..twin })
    }

    /// Whether none of what was sent is lost: it can be sent again.
    pub(crate) fn keeps_all(&self) -> bool {
        !self.lost
    }

    /// Puts `line` at the end of the head, instead of the one of `marked` bytes that stands there; without
    /// that the head is `head` bytes long. Before anything is sent, or sent again.
    pub(crate) fn remark(&mut self, head: usize, marked: usize, line: &[u8]) {
        debug_assert!(self.is_unsent() && head >= 2, "the head goes first, and ends with an empty line");
        self.pending.splice(head - 2..head - 2 + marked, line.iter().copied());
    }

    /// The body's end was where the sender's socket ended.
    pub(crate) fn ended_by_close(&self) -> bool {
        matches!(self.source, Source::UntilClose)
    }

    /// Moves on until it is over. `moved` is told of every byte taken from the sender, and of none when the
    /// receiver alone took some: neither of them stands still then.
    pub(crate) fn poll(
        &mut self,
        from: &mut Io,
        input: &mut Buffer,
        to: &mut Io,
        mut moved: impl FnMut(usize),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Break>> {
        let polled = self.advance(from, input, to, &mut moved, cx);
        if std::mem::take(&mut self.took) && polled.is_pending() {
            moved(0);
        }
        polled
    }

    fn advance(
        &mut self,
        from: &mut Io,
        input: &mut Buffer,
        to: &mut Io,
        moved: &mut impl FnMut(usize),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Break>> {
        for _ in 0..STEPS_PER_TURN {
            self.join(input)?;
            ready!(self.flush(to, cx)).map_err(Break::Receiver)?;
            if self.done {
                return Poll::Ready(Ok(()));
            }
            if input.is_empty() {
                match self.source {
                    Source::Length(left) => input.expect(left),
                    Source::UntilClose => input.expect(u64::MAX),
                    Source::Nothing | Source::Chunked(_) => {}
                }
                let count = ready!(input.poll_fill(from, SIZE, cx)).map_err(Break::Sender)?;
                if count == 0 {
                    self.end()?;
                    continue;
                }
                moved(count);
            }
            ready!(self.pass(input, to, cx))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Adds what is there of the body to what waits to be sent, where that saves a system call.
    fn join(&mut self, input: &mut Buffer) -> Result<(), Break> {
        let waits = self.sent == 0 && !self.pending.is_empty();
        if !waits || self.done || input.is_empty() || input.bytes().len() > JOINED_MAX {
            return Ok(());
        }
        if self.pending.len() > SIZE {
            return Ok(());
        }
        match &mut self.source {
            Source::Length(left) if !self.chunked => {
                let count = clamp(*left, input.bytes().len());
                self.pending.extend_from_slice(&input.bytes()[..count]);
                keep(&mut self.tap, &input.bytes()[..count]);
                input.consume(count);
                *left -= count as u64;
                self.done = *left == 0;
                Ok(())
            }
            _ => self.take(input),
        }
    }

    fn flush(&mut self, to: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.pending.len() {
            self.sent += ready!(Pin::new(&mut *to).poll_write(cx, &self.pending[self.sent..]))?;
            self.took = true;
        }
        if !self.done && self.pending.len() > self.hold {
            self.pending.clear();
            (self.sent, self.hold, self.lost) = (0, 0, true);
        }
        Poll::Ready(Ok(()))
    }

    /// Hands on what `input` has of the body: as it is, without a copy, or framed anew.
    fn pass(&mut self, input: &mut Buffer, to: &mut Io, cx: &mut Context<'_>) -> Poll<Result<(), Break>> {
        let left = match &self.source {
            Source::Length(left) if !self.chunked => *left,
            Source::UntilClose if !self.chunked => u64::MAX,
            _ => return Poll::Ready(self.take(input)),
        };
        if self.hold > 0 {
            // What does not fit is sent all the same, and lost with the next flush.
            return Poll::Ready(self.take(input));
        }
        let bytes = &input.bytes()[..clamp(left, input.bytes().len())];
        let count = ready!(Pin::new(to).poll_write(cx, bytes)).map_err(Break::Receiver)?;
        keep(&mut self.tap, &bytes[..count]);
        input.consume(count);
        self.took = true;
        if let Source::Length(left) = &mut self.source {
            *left -= count as u64;
            self.done = *left == 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what `input` has of the body into what waits to be sent, framed for the receiver.
    fn take(&mut self, input: &mut Buffer) -> Result<(), Break> {
        match &mut self.source {
            Source::Nothing => self.done = true,
            Source::Length(left) => {
                let count = clamp(*left, input.bytes().len());
                *left -= count as u64;
                self.done = *left == 0;
                push(&mut self.pending, &input.bytes()[..count], self.chunked);
                keep(&mut self.tap, &input.bytes()[..count]);
                input.consume(count);
                if self.done {
                    self.finish();
                }
            }
            Source::UntilClose => {
                push(&mut self.pending, input.bytes(), self.chunked);
                input.consume(usize::MAX);
            }
            Source::Chunked(decoder) => {
                while !input.is_empty() {
                    let chunk = decoder.decode(input.bytes()).map_err(Break::Framing)?;
                    let length = chunk.data.len() as u64;
                    self.left = self.left.checked_sub(length).ok_or(Break::TooLarge)?;
                    push(&mut self.pending, &input.bytes()[chunk.data.clone()], self.chunked);
                    keep(&mut self.tap, &input.bytes()[chunk.data.clone()]);
                    input.consume(chunk.consumed);
                    if chunk.progress == Progress::Done {
                        self.done = true;
                        self.finish();
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// The sender closed.
    fn end(&mut self) -> Result<(), Break> {
        if !self.ended_by_close() {
            return Err(Break::Sender(io::ErrorKind::UnexpectedEof.into()));
        }
        self.done = true;
        self.finish();
        Ok(())
    }

    /// Says to the receiver that this was all.
    fn finish(&mut self) {
        if !self.chunked {
            return;
        }
        match (&self.source, self.trailers) {
            (Source::Chunked(decoder), true) => encode_last_chunk(decoder.trailers(), &mut self.pending),
            _ => self.pending.extend_from_slice(LAST_CHUNK),
        }
    }
}

fn keep(tap: &mut Option<Box<Tap>>, piece: &[u8]) {
    if let Some(tap) = tap {
        tap.take(piece);
    }
}

fn push(pending: &mut Vec<u8>, data: &[u8], chunked: bool) {
    let Some(length) = NonZeroUsize::new(data.len()) else { return };
    if chunked {
        encode_chunk_head(length, pending);
    }
    pending.extend_from_slice(data);
    if chunked {
        pending.extend_from_slice(CHUNK_END);
    }
}

fn clamp(left: u64, have: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(have)
}
