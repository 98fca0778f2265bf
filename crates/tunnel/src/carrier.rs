//! One carrier of a link: a pipe of bytes that both ends have proved themselves on.
//!
//! That is the seam. A carrier of whatever [`Medium`] is an [`Io`] that exports keying material, and what
//! drives a link knows nothing more of it; `ways.rs` makes them at the dialer, `server.rs` at the acceptor.
//! Owns the bytes between the link and the socket: at most one batch of frames to send, and what of a frame
//! has come. It holds nothing that could not be thrown away: whatever byte it is cut at, the link repeats.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tieline_base::{Clock, Moment};
use tieline_transport::Io;
use tieline_wire::Parsed;
use tieline_wire::tunnel::{
    Breach, Code, Datagram, Endpoints, Epoch, Frame, FrameError, GoAway, Kill, LinkError, Way, parse,
};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::alarm::Alarm;
use crate::live::{Core, LiveLink, NotOurs};
use crate::losses::COUNTED_EVERY;
use crate::offered::Offered;

/// What a carrier is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Medium {
    /// QUIC, over UDP.
    Quic,
    /// TLS, over TCP.
    Tls,
    /// TLS inside a WebSocket, over whatever carries that.
    WebSocket,
}

impl Medium {
    /// The word for it, in rows and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Medium::Quic => "quic",
            Medium::Tls => "tls",
            Medium::WebSocket => "websocket",
        }
    }
}

impl From<Way> for Medium {
    fn from(way: Way) -> Self {
        match way {
            Way::Quic6 | Way::Quic4 => Medium::Quic,
            Way::Tls => Medium::Tls,
            Way::WebSocket => Medium::WebSocket,
        }
    }
}

/// A carrier that carries.
pub(crate) struct Carrier {
    io: Io,
    link: Arc<LiveLink>,
    epoch: Epoch,
    /// What came and is not a whole frame.
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// How much of that is sent.
    sent: usize,
    /// Datagrams that go beside it.
    beside: VecDeque<Vec<u8>>,
    /// Said next, before what the link has to say.
    aside: Vec<u8>,
    /// Whether the peer ended the link: it need not be told.
    told: bool,
    /// Whether something may wait in TLS.
    unflushed: bool,
    /// Where the peer was when it last said something, if that may change.
    peer: Option<SocketAddr>,
    /// Where it has gone since that was last asked.
    elsewhere: Option<SocketAddr>,
    alarm: Alarm,
    /// When it was last counted what is lost.
    counted_at: Moment,
}

/// Why a carrier carries no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Parting {
    /// It ended or broke: the link waits for another.
    #[error("the connection ended: {0}")]
    Lost(io::Error),
    /// The link goes on over another.
    #[error("the link goes on over another connection")]
    Replaced,
    /// The link is over.
    #[error("the link is over: {0}")]
    Over(Code),
    /// The peer ended it, and says why. That is its word, and no more.
    #[error("the other side ended the link: {0}")]
    Told(Code),
    /// The peer broke the protocol.
    #[error("{0}")]
    Breach(#[from] LinkError),
    /// Nor are these frames.
    #[error("{0}")]
    Frame(#[from] FrameError),
}

/// Is told of what passes.
pub(crate) trait Passing {
    /// `bytes` passed: `up` from the peer.
    fn passed(&self, up: bool, bytes: usize);
}

/// How much is said in one batch: what is in the batch cannot be overtaken.
const BATCH: usize = 64 * 1024;

/// The most that is read at once.
const READ: usize = 64 * 1024;

/// The most datagrams that are taken at once.
const DATAGRAMS: usize = 64;

/// What a frame adds to a datagram, at most.
const FRAMING_MAX: usize = 16;

/// Batches and reads before others have their turn. Streams have theirs in between: who says little on one
/// waits no longer for bulk than it takes to move 256 KiB.
const TURNS: usize = 4;

/// What the kernel cannot deliver for so long is given up: another carrier is tried long before.
const UNDELIVERED_MAX: Duration = Duration::from_secs(10);

/// How much may wait in the kernel unsent: what is there cannot be overtaken.
const UNSENT_MAX: u32 = 128 * 1024;

impl Carrier {
    /// Carries `link` over `io` as its carrier of `epoch`; `inbox` was read of it already, and `outbox` goes
    /// first.
    pub(crate) fn new(
        mut io: Io,
        link: Arc<LiveLink>,
        epoch: Epoch,
        inbox: Vec<u8>,
        outbox: Vec<u8>,
    ) -> Self {
        io.give_up_after(UNDELIVERED_MAX);
        io.haul(UNSENT_MAX);
        let peer = io.peer();
        Self {
            io,
            link,
            epoch,
            peer,
            elsewhere: None,
            inbox,
            outbox,
            sent: 0,
            beside: VecDeque::new(),
            aside: Vec::new(),
            told: false,
            unflushed: false,
            alarm: Alarm::default(),
            counted_at: Moment(0),
        }
    }

    pub(crate) fn link(&self) -> &Arc<LiveLink> {
        &self.link
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where the peer has gone without a resume, if it has; told once. To be asked whenever it was polled.
    pub(crate) fn take_elsewhere(&mut self) -> Option<SocketAddr> {
        self.elsewhere.take()
    }

    /// Carries until it can no more.
    pub(crate) fn poll(&mut self, passing: &impl Passing, cx: &mut Context<'_>) -> Poll<Parting> {
        match ready!(self.poll_parting(passing, cx)) {
            Err(parting) => Poll::Ready(parting),
            Ok(never) => match never {},
        }
    }

    /// Asks the peer to go on over another connection: this one ends within `deadline`.
    pub(crate) fn go_away(&mut self, deadline: Duration, spread: Duration) {
        let next = Endpoints::default();
        Frame::GoAway(GoAway { deadline, spread, next }).encode(&mut self.aside);
    }

    /// Ends the link at the peer, behind what was begun. Without a deadline: the caller has one.
    pub(crate) async fn kill(&mut self, code: Code) -> io::Result<()> {
        self.told = true;
        Frame::Kill(Kill { stream: None, code, actor: "" }).encode(&mut self.outbox);
        self.io.write_all(&self.outbox[self.sent..]).await?;
        self.io.flush().await?;
        // Where closing would take back what is under way, its end is waited for.
        self.io.shutdown().await
    }

    fn poll_parting(
        &mut self,
        passing: &impl Passing,
        cx: &mut Context<'_>,
    ) -> Poll<Result<std::convert::Infallible, Parting>> {
        // What came with the greeting, and whether the link is still ours.
        if !self.inbox.is_empty() {
            self.take_frames(cx)?;
        }
        self.count_losses(cx)?;
        for _ in 0..TURNS {
            let wrote = self.poll_send(passing, cx)?;
            let read = self.poll_receive(passing, cx)?;
            if wrote.is_pending() && read.is_pending() {
                if self.alarm.poll(self.deadline(cx)?, cx).is_pending() {
                    return Poll::Pending;
                }
                self.on_time(cx)?;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Counts what was lost, if it is time for that: the link tells those who ask.
    fn count_losses(&mut self, cx: &Context<'_>) -> Result<(), Parting> {
        let now = Clock::now();
        if now.since(self.counted_at) < COUNTED_EVERY {
            return Ok(());
        }
        self.counted_at = now;
        let Some(packets) = self.io.packets() else { return Ok(()) };
        self.with(cx, |core| core.losses.count(packets, now))
    }

    /// Asks the link, if it is still this carrier's.
    fn with<T>(&self, cx: &Context<'_>, act: impl FnOnce(&mut Core) -> T) -> Result<T, Parting> {
        self.link.drive(self.epoch, cx, act).map_err(|other| match other {
            NotOurs::Over(code) => Parting::Over(code),
            NotOurs::Elsewhere => Parting::Replaced,
        })
    }

    fn deadline(&self, cx: &Context<'_>) -> Result<Moment, Parting> {
        self.with(cx, |core| core.link.deadline())
    }

    fn on_time(&self, cx: &Context<'_>) -> Result<(), Parting> {
        self.with(cx, |core| core.link.on_time(Clock::now()))
    }

    /// Sends a batch; pending if there is nothing to send, or no room.
    fn poll_send(&mut self, passing: &impl Passing, cx: &mut Context<'_>) -> Result<Poll<()>, Parting> {
        let mut sent = self.poll_beside(passing, cx)?;
        if self.sent == self.outbox.len() && self.beside.is_empty() {
            self.outbox.clear();
            self.sent = 0;
            let mut outbox = std::mem::take(&mut self.outbox);
            outbox.append(&mut self.aside);
            let mut beside = std::mem::take(&mut self.beside);
            let most = self.io.datagram_max().unwrap_or(0);
            self.with(cx, |core| {
                let aside = &mut |datagram| aside(datagram, most, &mut beside);
                core.link.fill_beside(&mut outbox, BATCH, Clock::now(), aside);
            })?;
            (self.outbox, self.beside) = (outbox, beside);
            sent |= self.poll_beside(passing, cx)?;
        }
        while self.sent < self.outbox.len() {
            match Pin::new(&mut self.io).poll_write(cx, &self.outbox[self.sent..]) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Ok(0)) => return Err(Parting::Lost(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    passing.passed(false, count);
                    self.sent += count;
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => return Err(Parting::Lost(error)),
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(flushed) => flushed.map_err(Parting::Lost)?,
            }
            self.unflushed = false;
            return Ok(Poll::Ready(()));
        }
        // While nothing is said no room is held for it.
        self.outbox = Vec::new();
        self.sent = 0;
        Ok(if sent { Poll::Ready(()) } else { Poll::Pending })
    }

    /// Sends the datagrams that go beside the bytes, as far as there is room; says whether there were any.
    fn poll_beside(&mut self, passing: &impl Passing, cx: &mut Context<'_>) -> Result<bool, Parting> {
        let before = self.beside.len();
        while !self.beside.is_empty() {
            match self.io.poll_datagram_room(cx) {
                Poll::Pending => break,
                Poll::Ready(room) => room.map_err(Parting::Lost)?,
            }
            if let Some(datagram) = self.beside.pop_front() {
                passing.passed(false, datagram.len());
                self.io.send_datagram(datagram.into());
            }
        }
        Ok(self.beside.len() < before)
    }

    /// Takes the datagrams that came beside the bytes; says whether there were any.
    fn poll_datagrams(&mut self, passing: &impl Passing, cx: &mut Context<'_>) -> Result<bool, Parting> {
        let mut came = Vec::new();
        while came.len() < DATAGRAMS {
            match self.io.poll_datagram(cx) {
                Poll::Pending => break,
                Poll::Ready(datagram) => came.push(datagram.map_err(Parting::Lost)?),
            }
        }
        if came.is_empty() {
            return Ok(false);
        }
        came.iter().for_each(|datagram| passing.passed(true, datagram.len()));
        let (epoch, now) = (self.epoch, Clock::now());
        self.receive(cx, |core| {
            came.iter().try_for_each(|datagram| take_datagram(core, epoch, datagram, now))
        })?;
        Ok(true)
    }

    /// Reads once; pending if nothing came.
    fn poll_receive(&mut self, passing: &impl Passing, cx: &mut Context<'_>) -> Result<Poll<()>, Parting> {
        let came = self.poll_datagrams(passing, cx)?;
        self.inbox.reserve(READ);
        // Asked once: it holds nothing between two polls.
        match pin!(self.io.read_buf(&mut self.inbox)).poll(cx) {
            Poll::Pending => {
                if self.inbox.is_empty() {
                    self.inbox = Vec::new();
                }
                return Ok(if came { Poll::Ready(()) } else { Poll::Pending });
            }
            Poll::Ready(Err(error)) => return Err(Parting::Lost(error)),
            Poll::Ready(Ok(0)) => {
                return Err(Parting::Lost(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the peer closed it",
                )));
            }
            Poll::Ready(Ok(count)) => passing.passed(true, count),
        }
        // RFC 9000 §9: a connection of QUIC follows its client to another address.
        let peer = self.io.peer();
        if peer != self.peer {
            (self.peer, self.elsewhere) = (peer, peer);
        }
        self.take_frames(cx)?;
        Ok(Poll::Ready(()))
    }

    /// Gives all whole frames to the link.
    fn take_frames(&mut self, cx: &Context<'_>) -> Result<(), Parting> {
        let inbox = std::mem::take(&mut self.inbox);
        let (epoch, now) = (self.epoch, Clock::now());
        let taken = self.receive(cx, |core| take_all(core, epoch, &inbox, now))?;
        self.inbox = inbox;
        self.inbox.drain(..taken);
        Ok(())
    }

    /// Gives the link what came. A peer that breaks the protocol has ended it by that.
    fn receive<T>(
        &mut self,
        cx: &Context<'_>,
        take: impl FnOnce(&mut Core) -> Result<T, Parting>,
    ) -> Result<T, Parting> {
        let taken = self.with(cx, |core| {
            let taken = take(core);
            if let Err(Parting::Breach(LinkError::Breach(_)) | Parting::Frame(_)) = &taken {
                core.end(Code::Protocol);
            }
            taken
        })?;
        self.told = matches!(taken, Err(Parting::Told(_)));
        taken
    }
}

/// Puts a datagram beside the bytes if it fits there, and does not overtake what asks for its flow.
fn aside(datagram: Datagram, most: usize, beside: &mut VecDeque<Vec<u8>>) -> Option<Datagram> {
    if !datagram.known || datagram.bytes.len() >= most {
        return Some(datagram);
    }
    let mut frame = Vec::with_capacity(datagram.bytes.len() + FRAMING_MAX);
    datagram.encode(&mut frame);
    if frame.len() > most {
        return Some(datagram);
    }
    beside.push_back(frame);
    None
}

/// A frame that came beside the bytes, which can only be a datagram.
fn take_datagram(
    core: &mut Core,
    epoch: Epoch,
    bytes: &[u8],
    now: tieline_base::Moment,
) -> Result<(), Parting> {
    match parse(bytes)? {
        Parsed::Done { value: value @ Frame::Udp { .. }, consumed } if consumed == bytes.len() => {
            core.link.receive(epoch, value, now)?;
            Ok(())
        }
        _ => Err(LinkError::Breach(Breach::Misplaced).into()),
    }
}

/// How many of `bytes` were whole frames, which the link has now.
fn take_all(
    core: &mut Core,
    epoch: Epoch,
    bytes: &[u8],
    now: tieline_base::Moment,
) -> Result<usize, Parting> {
    let mut at = 0;
    while let Parsed::Done { value, consumed } = parse(&bytes[at..])? {
        at += consumed;
        match core.link.receive(epoch, value, now)? {
            Some(Frame::Kill(Kill { code, .. })) => {
                core.end(code);
                return Err(Parting::Told(code));
            }
            Some(Frame::GoAway(GoAway { spread, .. })) => core.is_asked_to_move(spread),
            Some(Frame::Offers(offers)) => core.heard.take(Offered::of(&offers)),
            // The rest may be skipped.
            _ => {}
        }
    }
    Ok(at)
}

impl Drop for Carrier {
    /// Whoever drops it, the link is without it from here on. If we ended the link the peer is told, as far
    /// as there is room for that: otherwise it would look for the link in vain.
    fn drop(&mut self) {
        let epoch = self.epoch;
        let over = self.link.act(|core| {
            core.link.detach(epoch, Clock::now());
            core.over().filter(|_| core.link.epoch() == epoch)
        });
        if let Some(code) = over.filter(|_| !self.told) {
            Frame::Kill(Kill { stream: None, code, actor: "" }).encode(&mut self.outbox);
            let cx = &mut Context::from_waker(Waker::noop());
            while let Poll::Ready(Ok(count @ 1..)) =
                Pin::new(&mut self.io).poll_write(cx, &self.outbox[self.sent..])
            {
                self.sent += count;
            }
            let _ = Pin::new(&mut self.io).poll_flush(cx); // who does not hear it finds out by its next dial
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tieline_wire::tunnel::StreamId;

    #[test]
    fn only_what_fits_and_overtakes_nothing_goes_beside_the_bytes() {
        let datagram = |length, known| Datagram { flow: StreamId(2), bytes: vec![7; length].into(), known };
        let mut beside = VecDeque::new();
        for (length, known, goes) in [
            (0, true, true),
            (1_196, true, true),
            (1_197, true, false),
            (9_000, true, false),
            (10, false, false),
        ] {
            let before = beside.len();
            let back = aside(datagram(length, known), 1_200, &mut beside);
            assert_eq!((back.is_none(), beside.len() > before), (goes, goes), "{length} bytes");
        }
        assert!(beside.iter().all(|frame| frame.len() <= 1_200));
        assert!(aside(datagram(0, true), 0, &mut beside).is_some(), "where nothing goes beside them");
    }
}
