//! The bytes beneath HTTP/2, looked at as they pass: counted, and frames that bring nothing paid for.
//!
//! The `h2` crate bounds what such frames can make it remember; nothing bounds how many it obeys. A PING or
//! a SETTINGS is answered, a PRIORITY read and forgotten, for as long as a client sends them. So each costs,
//! and what moves a request or an answer on earns.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tieline_base::{Clock, Moment};
use tieline_transport::Io;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffer::Buffer;

/// What carries HTTP/2: `first` was read of it already.
pub(super) struct Guard {
    io: Io,
    first: Option<Buffer>,
    /// What may still come once all is said, in bytes.
    linger: usize,
    watched: Rc<Watched>,
}

/// What was seen of a connection's frames, shared with who drives it.
pub(super) struct Watched {
    received: RefCell<Frames>,
    sent: RefCell<Frames>,
    purse: RefCell<Purse>,
    /// Bytes from the client and to it, until somebody takes them.
    bytes: Cell<(u64, u64)>,
    /// When the last byte came.
    heard: Cell<Moment>,
    /// Whether a frame passed that brings something.
    progress: Cell<bool>,
    settled: Cell<bool>,
    broke: Cell<bool>,
    /// Whether all was said, and the client's end is waited for.
    closing: Cell<bool>,
}

impl Guard {
    pub(super) fn new(io: Io, first: Buffer) -> (Self, Rc<Watched>) {
        let watched = Rc::new(Watched {
            received: RefCell::new(Frames { skip: PREFACE.len(), ..Frames::default() }),
            sent: RefCell::default(),
            purse: RefCell::new(Purse::full(Clock::coarse())),
            bytes: Cell::default(),
            heard: Cell::new(Clock::coarse()),
            progress: Cell::default(),
            settled: Cell::default(),
            broke: Cell::default(),
            closing: Cell::default(),
        });
        (Self { io, first: Some(first), linger: LINGER_BYTES, watched: watched.clone() }, watched)
    }
}

/// So much is taken of a client that goes on sending when all is said.
const LINGER_BYTES: usize = 64 * 1024;

/// RFC 9113 §3.4: what a client that speaks HTTP/2 begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Watched {
    /// The bytes that passed since the last call, from the client and to it; `None` while none of them
    /// brought anything, so that a client cannot stay by pinging.
    pub(super) fn take_moved(&self) -> Option<(u64, u64)> {
        self.progress.take().then(|| self.bytes.take())
    }

    /// All bytes that nobody took yet.
    pub(super) fn take_rest(&self) -> (u64, u64) {
        self.bytes.take()
    }

    /// When the last byte came.
    pub(super) fn heard(&self) -> Moment {
        self.heard.get()
    }

    /// Whether the client's settings came, with which its side of the handshake is over.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.get()
    }

    /// Whether it sent more frames that bring nothing than it may.
    pub(super) fn is_broke(&self) -> bool {
        self.broke.get()
    }

    /// Whether we have said all, and wait for the client's end.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    fn came(&self, bytes: &[u8]) {
        let now = Clock::coarse();
        self.heard.set(now);
        let (up, down) = self.bytes.get();
        self.bytes.set((up + bytes.len() as u64, down));
        let mut purse = self.purse.borrow_mut();
        purse.fill(now);
        self.received.borrow_mut().pass(bytes, |frame| {
            self.settled.set(self.settled.get() || frame.kind == SETTINGS);
            if frame.moves() {
                self.progress.set(true);
            }
            if !purse.pay(frame) {
                self.broke.set(true);
            }
        });
    }

    fn went(&self, bytes: &[u8]) {
        let (up, down) = self.bytes.get();
        self.bytes.set((up, down + bytes.len() as u64));
        self.sent.borrow_mut().pass(bytes, |frame| {
            if frame.moves() {
                self.progress.set(true);
                self.purse.borrow_mut().earn();
            }
        });
    }
}

/// The head of a frame (RFC 9113 §4.1), as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;

impl Frame {
    fn of(head: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, ..] = head;
        Self { length: u32::from_be_bytes([0, a, b, c]) as usize, kind, flags }
    }

    /// Whether it moves a message on: the end of one does, empty as it may be.
    fn moves(&self) -> bool {
        const END_STREAM: u8 = 1;
        const PADDED: u8 = 8;
        // RFC 9113 §6.1: one byte that says how much padding there is, and so much; behind it may be nothing.
        let padding_max = if self.flags & PADDED != 0 { 256 } else { 0 };
        let ends = self.flags & END_STREAM != 0;
        self.kind == HEADERS || self.kind == DATA && (self.length > padding_max || ends)
    }
}

const HEAD: usize = 9;

/// Finds the heads of frames in bytes that come in any pieces.
#[derive(Default)]
struct Frames {
    /// Bytes until the next head.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
}

impl Frames {
    fn pass(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                self.have = 0;
                let frame = Frame::of(self.head);
                self.skip = frame.length;
                each(frame);
            }
        }
    }
}

/// What a client has left for frames that bring nothing. Time fills it, and so does what moves.
#[derive(Debug)]
struct Purse {
    frames: u32,
    resets: u32,
    filled: Moment,
}

/// So many at once; a browser that leaves a page of pictures resets a hundred streams.
const FRAMES_MAX: u32 = 2_000;
const RESETS_MAX: u32 = 500;
/// So many for each second.
const FRAMES_PER_SECOND: u64 = 50;
const RESETS_PER_SECOND: u64 = 50;
/// So many for each frame of ours or of theirs that moves a message: two windows may be opened for one, and a
/// ping may measure its way.
const EARNED: u32 = 4;

impl Purse {
    fn full(now: Moment) -> Self {
        Self { frames: FRAMES_MAX, resets: RESETS_MAX, filled: now }
    }

    fn fill(&mut self, now: Moment) {
        let seconds = now.since(self.filled).as_secs();
        if seconds > 0 {
            let sum = |have: u32, rate: u64, most: u32| {
                let sum = u64::from(have).saturating_add(rate.saturating_mul(seconds));
                u32::try_from(sum).unwrap_or(most).min(most)
            };
            self.frames = sum(self.frames, FRAMES_PER_SECOND, FRAMES_MAX);
            self.resets = sum(self.resets, RESETS_PER_SECOND, RESETS_MAX);
            self.filled = now;
        }
    }

    fn earn(&mut self) {
        self.frames = (self.frames + EARNED).min(FRAMES_MAX);
    }

    /// Takes what `frame` costs; says whether there was enough.
    fn pay(&mut self, frame: Frame) -> bool {
        if frame.moves() {
            self.earn();
            return true;
        }
        // A stream that is opened and given up again costs more than the frame that says so.
        let from = if frame.kind == RST_STREAM { &mut self.resets } else { &mut self.frames };
        match from.checked_sub(1) {
            Some(left) => {
                *from = left;
                true
            }
            None => false,
        }
    }
}

impl AsyncRead for Guard {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.watched.is_broke() {
            // Who drives the connection looks next, and ends it; until then nothing more is obeyed.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        match &mut this.first {
            Some(first) if !first.is_empty() => {
                let count = first.bytes().len().min(buffer.remaining());
                buffer.put_slice(&first.bytes()[..count]);
                first.consume(count);
            }
            _ => {
                this.first = None;
                ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
            }
        }
        this.watched.came(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, bytes))?;
        this.watched.went(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Whoever is gone already needs no goodbye.
        let _ = ready!(Pin::new(&mut this.io).poll_shutdown(cx));
        this.watched.closing.set(true);
        // A close while bytes are unread would be a reset, which destroys what is on its way to the client.
        // Who drives the connection knows how long that may take; how much, we do.
        loop {
            let mut unread = [MaybeUninit::uninit(); 4 * 1024];
            let mut buffer = ReadBuf::uninit(&mut unread);
            match ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer)) {
                Ok(()) if (1..this.linger).contains(&buffer.filled().len()) => {
                    this.linger -= buffer.filled().len();
                }
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        bytes.resize(HEAD + length, 0xff);
        bytes
    }

    proptest! {
        #[test]
        fn frames_are_found_however_their_bytes_are_cut(
            frames in prop::collection::vec((0u8..12, any::<u8>(), 0usize..40), 0..30),
            cuts in prop::collection::vec(1usize..25, 1..200),
        ) {
            let bytes: Vec<u8> =
                frames.iter().flat_map(|(kind, flags, length)| frame(*kind, *flags, *length)).collect();
            let (mut found, mut finder, mut rest) = (Vec::new(), Frames::default(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                finder.pass(piece, |frame| found.push((frame.kind, frame.flags, frame.length)));
                rest = behind;
            }
            prop_assert_eq!(found, frames);
        }
    }

    #[test]
    fn what_brings_nothing_is_paid_for_and_what_moves_earns() {
        let of = |kind, length| Frame { length, kind, flags: 0 };
        let mut purse = Purse::full(Moment(0));
        assert!((0..FRAMES_MAX).all(|_| purse.pay(of(6, 8))));
        assert!(!purse.pay(of(SETTINGS, 0)));
        assert!(!purse.pay(of(DATA, 0)));
        assert!(!purse.pay(Frame { length: 256, kind: DATA, flags: 8 }));
        // A request, an answer: both earn.
        assert!(purse.pay(of(HEADERS, 30)));
        assert!((0..EARNED).all(|_| purse.pay(of(8, 4))));
        assert!(!purse.pay(of(8, 4)));
        // But no request pays for giving requests up.
        assert!((0..RESETS_MAX).all(|_| purse.pay(of(HEADERS, 30)) && purse.pay(of(RST_STREAM, 4))));
        assert!(!purse.pay(of(RST_STREAM, 4)));
        purse.fill(Moment(0).after(Duration::from_secs(1)));
        assert!((0..RESETS_PER_SECOND).all(|_| purse.pay(of(RST_STREAM, 4))));
        assert!(!purse.pay(of(RST_STREAM, 4)));
    }
}
