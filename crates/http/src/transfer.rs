//! One direction of one exchange: a head that waits to be sent, and the body behind it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tieline_transport::{Ferry, Io, Throttle};
use tieline_wire::http1::{HttpError, LAST_CHUNK, Progress, encode_last_chunk};
use tokio::io::AsyncWrite;

use crate::buffer::{Buffer, SIZE};
use crate::guard::Held;
use crate::heads;
use crate::mirror::Tap;
use crate::patience::Wait;
use crate::source::Source;

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
    /// What the kernel moves by itself, behind all that waits here.
    ferry: Ferry,
    /// How much may be kept that was sent, to be sent again; `None`: it never is.
    hold: Option<usize>,
    /// Some of what was sent is kept no more.
    lost: bool,
    /// How many bytes of body may still come.
    left: u64,
    /// What came of the body, where somebody else wants it too.
    tap: Option<Box<Tap>>,
    /// How fast the body may go.
    throttle: Option<Box<Throttle>>,
    /// Whom it waits for.
    waits: Wait,
    /// How many bytes were taken from the sender, and how many the receiver took.
    taken: u64,
    given: u64,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        heads::keep(std::mem::take(&mut self.pending));
    }
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

/// A request's body whose first bytes are so few becomes one with the head, so that it can be sent again.
const JOINED_MAX: usize = SIZE;

/// So few bytes behind a head are copied to it: to send two pieces as one costs more.
pub(crate) const COPIED_MAX: usize = 1024;

/// After so many bytes others get their turn.
const BYTES_PER_TURN: usize = 256 * 1024;

/// What is left of a body that is worth a pipe, in bytes.
const FERRIED: u64 = 64 * 1024;

impl Transfer {
    /// `head` first, then what `source` frames, as chunks or as it comes.
    pub(crate) fn new(head: Vec<u8>, source: Source, chunked: bool, trailers: bool) -> Self {
        let done = matches!(source, Source::Nothing | Source::Length(0));
        Self {
            source,
            chunked,
            trailers,
            pending: head,
            sent: 0,
            took: false,
            done,
            ferry: Ferry::default(),
            hold: None,
            lost: false,
            left: u64::MAX,
            tap: None,
            throttle: None,
            waits: Wait::Sender,
            taken: 0,
            given: 0,
        }
    }

    /// Takes what was read of the body before: it goes out behind the head.
    pub(crate) fn begin_with(&mut self, held: Held) {
        let Held { data, rest, trailers } = held;
        self.left = self.left.saturating_sub(data.len() as u64);
        heads::push(&mut self.pending, &data, self.chunked);
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

    /// Lets the body go so fast at most.
    pub(crate) fn throttle(&mut self, throttle: Option<Throttle>) {
        self.throttle = throttle.map(Box::new);
    }

    /// Whom it waits for, while it is pending.
    pub(crate) fn waits(&self) -> Wait {
        self.waits
    }

    /// How many bytes of body were read of the sender's connection, framing included, since it began.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// How many bytes the receiver's connection took since it began.
    pub(crate) fn given(&self) -> u64 {
        self.given
    }

    /// The whole body that was kept, if it came to its end and is not too long.
    pub(crate) fn tapped(&self) -> Option<&[u8]> {
        self.tap.as_ref().filter(|_| self.done).and_then(|tap| tap.body())
    }

    /// Whether everything was taken from the sender and handed to the receiver.
    pub(crate) fn is_over(&self) -> bool {
        self.done && self.sent == self.pending.len() && self.ferry.is_empty()
    }

    /// Keeps what was sent, as long as it is no more than `most` bytes.
    pub(crate) fn hold(&mut self, most: usize) {
        self.hold = Some(most);
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
        let mut twin = Transfer::new(self.pending.clone(), Source::Nothing, self.chunked, self.trailers);
        twin.tap = self.tap.clone();
        Some(twin)
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
        let mut budget = BYTES_PER_TURN;
        while budget > 0 {
            let sent = match self.join(input, cx)? {
                Poll::Ready(()) => self.send(input, to, cx),
                Poll::Pending => Poll::Pending,
            };
            if sent.is_pending() {
                input.rest();
            }
            ready!(sent).map_err(Break::Receiver)?;
            if self.done {
                return Poll::Ready(Ok(()));
            }
            if !input.is_empty() {
                // It had to wait for what went before.
                continue;
            }
            self.waits = Wait::Sender;
            let count = ready!(self.receive(from, input, to, cx)).map_err(Break::Sender)?;
            if count == 0 {
                self.end()?;
                continue;
            }
            moved(count);
            self.taken += count as u64;
            budget = budget.saturating_sub(count);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Adds what is there of the body to what waits to be sent: where it is framed anew, kept, or little. The
    /// first of it goes out with the head; a request's is kept with it, so that both can be sent again.
    /// Pending while nothing else waits and the body may not go yet.
    fn join(&mut self, input: &mut Buffer, cx: &mut Context<'_>) -> Result<Poll<()>, Break> {
        if self.done || input.is_empty() {
            return Ok(Poll::Ready(()));
        }
        let framed = self.passing() == 0;
        let waiting = self.pending.len() - self.sent;
        let begins = self.sent == 0 && waiting <= SIZE && input.bytes().len() <= JOINED_MAX;
        let little = input.bytes().len() <= COPIED_MAX;
        let joins = if waiting == 0 { framed } else { begins && (framed || little || self.hold.is_some()) };
        if !joins {
            return Ok(Poll::Ready(()));
        }
        let has = input.bytes().len();
        let granted = self.grant(has, cx);
        self.take(input, granted)?;
        let left = if self.done { granted } else { has - input.bytes().len() };
        self.went(left);
        Ok(if granted == 0 && waiting == 0 { Poll::Pending } else { Poll::Ready(()) })
    }

    /// How many of `wanted` bytes of body may go now; none if that is too early.
    fn grant(&mut self, wanted: usize, cx: &mut Context<'_>) -> usize {
        let Some(throttle) = self.throttle.as_mut().filter(|_| wanted > 0) else { return wanted };
        match throttle.poll_grant(wanted, cx) {
            Poll::Ready(granted) => granted,
            Poll::Pending => {
                self.waits = Wait::Throttle;
                0
            }
        }
    }

    /// So many of them went.
    fn went(&mut self, count: usize) {
        if let Some(throttle) = &mut self.throttle {
            throttle.went(count);
        }
    }

    /// How many bytes of body go on as they come from now on, neither framed anew nor kept.
    fn passing(&self) -> u64 {
        match &self.source {
            _ if self.chunked || self.hold.is_some_and(|most| most > 0) => 0,
            Source::Length(left) => *left,
            Source::UntilClose => u64::MAX,
            Source::Nothing | Source::Chunked(_) => 0,
        }
    }

    /// Sends all that is here: what waits, and with it what `input` has of a body that goes on as it comes.
    fn send(&mut self, input: &mut Buffer, to: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let has = clamp(self.passing(), input.bytes().len());
            let granted = self.grant(has, cx);
            let (waiting, body) = (&self.pending[self.sent..], &input.bytes()[..granted]);
            let to = Pin::new(&mut *to);
            let written = match (waiting, body) {
                ([], []) if has > 0 => return Poll::Pending,
                ([], []) => break,
                (only, []) | ([], only) => to.poll_write(cx, only),
                _ => to.poll_write_vectored(cx, &[IoSlice::new(waiting), IoSlice::new(body)]),
            };
            let Poll::Ready(written) = written else {
                self.waits = Wait::Receiver;
                return Poll::Pending;
            };
            let (count, waited) = (written?, waiting.len());
            self.sent += count.min(waited);
            self.gave(count);
            if count > waited {
                keep(&mut self.tap, &body[..count - waited]);
                input.consume(count - waited);
                self.went(count - waited);
                self.passed(count - waited);
            }
        }
        while !self.ferry.is_empty() {
            let Poll::Ready(count) = self.ferry.poll_unload(to, cx) else {
                self.waits = Wait::Receiver;
                return Poll::Pending;
            };
            self.gave(count?);
        }
        if !self.done && self.pending.len() > self.hold.unwrap_or(0) {
            self.forget();
        }
        Poll::Ready(Ok(()))
    }

    /// The receiver took so many bytes.
    fn gave(&mut self, count: usize) {
        self.took = true;
        self.given += count as u64;
    }

    /// So many bytes of body have gone on as they came.
    fn passed(&mut self, count: usize) {
        self.lost = true;
        if let Source::Length(left) = &mut self.source {
            *left -= count as u64;
            self.done = *left == 0;
        }
    }

    /// Keeps nothing of what was sent, from now on.
    fn forget(&mut self) {
        self.hold = self.hold.map(|_| 0);
        (self.sent, self.lost) = (0, true);
        if self.passing() > 0 {
            // Nothing will wait here again.
            self.pending = Vec::new();
        } else {
            self.pending.clear();
        }
    }

    /// Takes more of the body, by the cheaper way: 0 at the sender's end. All that was taken before has gone.
    fn receive(
        &mut self,
        from: &mut Io,
        input: &mut Buffer,
        to: &Io,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let left = self.passing();
        let alone = self.tap.is_none() && self.throttle.is_none();
        if left >= FERRIED && alone && Ferry::joins(from, to) {
            input.rest();
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            if let Some(loaded) = ready!(self.ferry.poll_load(from, most, cx)) {
                return Poll::Ready(loaded.inspect(|count| self.passed(*count)));
            }
        }
        match self.source {
            // Who may not send it on at once needs no more room for it.
            _ if self.throttle.is_some() => {}
            Source::Length(left) => input.expect(left),
            Source::UntilClose => input.expect(u64::MAX),
            Source::Nothing | Source::Chunked(_) => {}
        }
        let polled = input.poll_fill(from, SIZE, cx);
        if polled.is_pending() && self.pending.is_empty() {
            // Whoever is at rest owns nothing.
            self.pending = Vec::new();
        }
        polled
    }

    /// Takes `most` bytes at most of what `input` has of the body into what waits to be sent, framed for the
    /// receiver.
    fn take(&mut self, input: &mut Buffer, most: usize) -> Result<(), Break> {
        let mut most = most.min(input.bytes().len());
        match &mut self.source {
            Source::Nothing => self.done = true,
            Source::Length(left) => {
                let count = clamp(*left, most);
                *left -= count as u64;
                self.done = *left == 0;
                heads::push(&mut self.pending, &input.bytes()[..count], self.chunked);
                keep(&mut self.tap, &input.bytes()[..count]);
                input.consume(count);
                if self.done {
                    self.finish();
                }
            }
            Source::UntilClose => {
                heads::push(&mut self.pending, &input.bytes()[..most], self.chunked);
                input.consume(most);
            }
            Source::Chunked(decoder) => {
                while most > 0 {
                    let bytes = &input.bytes()[..most];
                    let chunk = decoder.decode(bytes).map_err(Break::Framing)?;
                    let data = &bytes[chunk.data];
                    self.left = self.left.checked_sub(data.len() as u64).ok_or(Break::TooLarge)?;
                    heads::push(&mut self.pending, data, self.chunked);
                    keep(&mut self.tap, data);
                    input.consume(chunk.consumed);
                    most -= chunk.consumed;
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

fn clamp(left: u64, have: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(have)
}
