//! The frames of a link: a type, a length, and a body of at most [`BODY_MAX`] bytes.
//!
//! Owns their one form on the wire. Refuses to know what a link does with them, and in which order they may
//! come. Types with bit 0 set are critical: a peer that does not know one must end the link; others it skips,
//! so that later versions can add what an older one need not understand.

mod fields;
mod greeting;
mod notices;
mod offers;
mod resume;

pub use fields::Endpoints;
pub use greeting::{Hello, Limits, Party, Refusal, Refused, TTLS_MAX, Ttl, Ttls, Welcome};
pub use notices::{Counter, GoAway, Kill, Open, STATS_MAX, Stats};
pub use offers::{OFFERS_MAX, OfferKind, Offered, Offers};
pub use resume::{Dead, Entry, Mac, Resume, Resumed, Table, TableWriter};

use fields::{byte_string, code, plain, stream_id, text};
use offers::OFFERS_BODY_MAX;

use super::ids::{Code, StreamId};
use super::stream::DATAGRAM_MAX;
use super::varint::{self, Count, Number, Put, VARINT_BYTES};
use crate::Parsed;
use crate::cursor::Cursor;

/// The longest body of any frame, in bytes.
pub const BODY_MAX: usize = 64 * 1024;

/// The most stream bytes in one [`Frame::Data`]: what another stream has to wait for at most.
pub const DATA_MAX: usize = 16 * 1024;

/// The longest text in a frame, in bytes.
pub const TEXT_MAX: usize = 255;

/// The most addresses in one list of endpoints.
pub const ENDPOINTS_MAX: usize = 8;

/// The longest body of a frame that comes before anybody has proved who they are. RESUME and RESUMED may be
/// longer: they are as long as the table of the link.
const GREETING_MAX: usize = 4096;

/// Type and length, at most: a type above what one byte holds is a stranger's, and may take two.
const HEADER_MAX: usize = 2 + VARINT_BYTES;

/// DATA's stream and offset, before its bytes.
const DATA_HEAD_MAX: usize = 2 * VARINT_BYTES;

/// One frame. It borrows from the bytes that it was read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// The dialer asks for a new link. First frame of a carrier only.
    Hello(Hello<'a>),
    /// The acceptor has judged the dialer and made a link.
    Welcome(Welcome<'a>),
    /// The dialer brings a new carrier for a link. First frame of a carrier only.
    Resume(Resume<'a>),
    /// The acceptor goes on with the link over this carrier.
    Resumed(Resumed<'a>),
    /// The one answer to a HELLO or RESUME that is not granted.
    Refused(Refused<'a>),
    /// Asks for a stream to a service. Idempotent by its id.
    Open(Open<'a>),
    /// The stream reaches its service.
    Opened(StreamId),
    /// The stream was refused. Answered by an [`Frame::Ack`] of [`ACK_OF_RESET`](super::ACK_OF_RESET).
    OpenRefused {
        /// Which.
        stream: StreamId,
        /// Why.
        code: Code,
        /// Why, for people; at most [`TEXT_MAX`] bytes without control characters.
        text: &'a str,
    },
    /// A stream that was asked for is not opened yet, and not refused either: somebody has to agree first.
    Waits {
        /// Which.
        stream: StreamId,
        /// For what, for people; at most [`TEXT_MAX`] bytes without control characters.
        text: &'a str,
    },
    /// Bytes of a stream; only on carriers that are one pipe of bytes (TLS, WebSocket).
    Data {
        /// Whose.
        stream: StreamId,
        /// Where in its direction the first of them stands.
        offset: u64,
        /// At least one, at most [`DATA_MAX`].
        bytes: &'a [u8],
    },
    /// All below `upto` is held by the sender of this. The end of a direction counts as one more byte.
    Ack {
        /// Whose.
        stream: StreamId,
        /// Absolute; never less than in an earlier one.
        upto: u64,
    },
    /// Bytes up to `upto` may be sent.
    Credit {
        /// Whose.
        stream: StreamId,
        /// Absolute; never less than in an earlier one.
        upto: u64,
    },
    /// The direction ends in order at `end`.
    Fin {
        /// Whose.
        stream: StreamId,
        /// How many bytes it had.
        end: u64,
    },
    /// The stream is broken off, both ways. Answered by an [`Frame::Ack`] of
    /// [`ACK_OF_RESET`](super::ACK_OF_RESET).
    Reset {
        /// Which.
        stream: StreamId,
        /// Why.
        code: Code,
    },
    /// Asks for a [`Frame::Pong`] with the same number.
    Ping(u64),
    /// Answers a [`Frame::Ping`].
    Pong(u64),
    /// Asks the peer to move elsewhere.
    GoAway(GoAway<'a>),
    /// Ends a stream or the link at once.
    Kill(Kill<'a>),
    /// A datagram of a flow. May be dropped.
    Udp {
        /// Which flow.
        flow: StreamId,
        /// The datagram, at most [`DATAGRAM_MAX`] bytes.
        bytes: &'a [u8],
    },
    /// Counters. May be dropped.
    Stats(Stats<'a>),
    /// What the sender offers, all of it.
    Offers(Offers<'a>),
    /// Of a later version, and not critical: to be skipped.
    Skipped(u64),
}

/// Why bytes are no frame. Each ends the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// A critical frame of a type that this version does not know.
    #[error("frame of the unknown critical type {0}")]
    UnknownType(u64),
    /// The stated length exceeds what a frame of its type may have.
    #[error("frame of type {kind} has {length} bytes, more than the {most} of its type")]
    TooLong {
        /// Its type.
        kind: u64,
        /// As stated.
        length: u64,
        /// As allowed.
        most: usize,
    },
    /// A number written longer than it needs, where the type or length stands.
    #[error("frame has a number that is not in its shortest form")]
    LongNumber,
    /// The body is not what frames of its type have.
    #[error("frame of type {0} has a malformed body")]
    Body(u64),
}

// Bit 0 set: critical.
const HELLO: u64 = 0x01;
const WELCOME: u64 = 0x03;
const RESUME: u64 = 0x05;
const RESUMED: u64 = 0x07;
const REFUSED: u64 = 0x09;
const OPEN: u64 = 0x0b;
const OPENED: u64 = 0x0d;
const OPEN_REFUSED: u64 = 0x0f;
const DATA: u64 = 0x11;
const ACK: u64 = 0x13;
const CREDIT: u64 = 0x15;
const FIN: u64 = 0x17;
const RESET: u64 = 0x19;
const PING: u64 = 0x1b;
const PONG: u64 = 0x1d;
const GO_AWAY: u64 = 0x1f;
const KILL: u64 = 0x21;
const UDP: u64 = 0x20;
const STATS: u64 = 0x22;
const OPEN_FLOW: u64 = 0x23;
const WAITS: u64 = 0x28;
const OFFERS: u64 = 0x24;

/// Reads the frame at the start of `bytes`. Allocates nothing.
///
/// # Errors
/// [`FrameError`] as soon as the bytes cannot become a frame any more.
pub fn parse(bytes: &[u8]) -> Result<Parsed<Frame<'_>>, FrameError> {
    let Some((kind, kind_bytes)) = header_number(bytes)? else { return Ok(waits_for(HEADER_MAX + BODY_MAX)) };
    let most = body_max(kind).ok_or(FrameError::UnknownType(kind))?;
    let Some((length, length_bytes)) = header_number(&bytes[kind_bytes..])? else {
        return Ok(waits_for(kind_bytes + VARINT_BYTES + most));
    };
    let too_long = FrameError::TooLong { kind, length, most };
    let length_checked = usize::try_from(length).ok().filter(|length| *length <= most).ok_or(too_long)?;
    let start = kind_bytes + length_bytes;
    let Some(body) = bytes[start..].get(..length_checked) else {
        return Ok(waits_for(start + length_checked));
    };
    let mut cursor = Cursor::new(body);
    let value = read_body(kind, &mut cursor).filter(|_| cursor.is_empty()).ok_or(FrameError::Body(kind))?;
    Ok(Parsed::Done { value, consumed: start + length_checked })
}

fn waits_for<'a>(at_most: usize) -> Parsed<Frame<'a>> {
    Parsed::Incomplete { at_most }
}

fn header_number(bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    match varint::read(bytes) {
        Number::Cut => Ok(None),
        Number::Long => Err(FrameError::LongNumber),
        Number::Is(value, taken) => Ok(Some((value, taken))),
    }
}

/// The longest body of a frame of type `kind`; `None` for a critical stranger.
fn body_max(kind: u64) -> Option<usize> {
    Some(match kind {
        HELLO | WELCOME | REFUSED => GREETING_MAX,
        RESUME | RESUMED => BODY_MAX,
        UDP => VARINT_BYTES + DATAGRAM_MAX,
        OPEN | OPEN_FLOW | OPEN_REFUSED | WAITS | GO_AWAY | KILL | STATS => GREETING_MAX,
        OFFERS => OFFERS_BODY_MAX,
        DATA => DATA_HEAD_MAX + DATA_MAX,
        OPENED | PING | PONG => VARINT_BYTES,
        ACK | CREDIT | FIN | RESET => 2 * VARINT_BYTES,
        stranger if stranger % 2 == 0 => BODY_MAX,
        _ => return None,
    })
}

/// The meaning of a whole body; what the cursor has left over makes it malformed.
fn read_body<'a>(kind: u64, cursor: &mut Cursor<'a>) -> Option<Frame<'a>> {
    Some(match kind {
        HELLO => Frame::Hello(Hello::read(cursor)?),
        WELCOME => Frame::Welcome(Welcome::read(cursor)?),
        RESUME => Frame::Resume(Resume::read(cursor)?),
        RESUMED => Frame::Resumed(Resumed::read(cursor)?),
        REFUSED => Frame::Refused(Refused::read(cursor)?),
        OPEN => Frame::Open(Open::read(cursor, false)?),
        OPEN_FLOW => Frame::Open(Open::read(cursor, true)?),
        OPENED => Frame::Opened(stream_id(cursor)?),
        OPEN_REFUSED => {
            Frame::OpenRefused { stream: stream_id(cursor)?, code: code(cursor)?, text: text(cursor)? }
        }
        WAITS => Frame::Waits { stream: stream_id(cursor)?, text: text(cursor)? },
        DATA => Frame::Data {
            stream: stream_id(cursor)?,
            offset: varint::take(cursor)?,
            bytes: byte_string(cursor, 1, DATA_MAX)?,
        },
        ACK => Frame::Ack { stream: stream_id(cursor)?, upto: varint::take(cursor)? },
        CREDIT => Frame::Credit { stream: stream_id(cursor)?, upto: varint::take(cursor)? },
        FIN => Frame::Fin { stream: stream_id(cursor)?, end: varint::take(cursor)? },
        RESET => Frame::Reset { stream: stream_id(cursor)?, code: code(cursor)? },
        PING => Frame::Ping(varint::take(cursor)?),
        PONG => Frame::Pong(varint::take(cursor)?),
        GO_AWAY => Frame::GoAway(GoAway::read(cursor)?),
        KILL => Frame::Kill(Kill::read(cursor)?),
        UDP => Frame::Udp { flow: stream_id(cursor)?, bytes: byte_string(cursor, 0, DATAGRAM_MAX)? },
        STATS => Frame::Stats(Stats::read(cursor)?),
        OFFERS => Frame::Offers(Offers::read(cursor)?),
        stranger => {
            cursor.take(cursor.remaining())?;
            Frame::Skipped(stranger)
        }
    })
}

impl Frame<'_> {
    /// Writes the frame behind what `out` holds; allocates only if `out` has no room. Lengths and numbers
    /// within the frame must keep to their limits, or the peer will refuse it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut count = Count::default();
        self.put_body(&mut count);
        out.varint(self.kind());
        out.varint(count.0 as u64);
        self.put_body(out);
    }

    fn kind(&self) -> u64 {
        match self {
            Frame::Hello(_) => HELLO,
            Frame::Welcome(_) => WELCOME,
            Frame::Resume(_) => RESUME,
            Frame::Resumed(_) => RESUMED,
            Frame::Refused(_) => REFUSED,
            Frame::Open(open) if open.flow => OPEN_FLOW,
            Frame::Open(_) => OPEN,
            Frame::Opened(_) => OPENED,
            Frame::OpenRefused { .. } => OPEN_REFUSED,
            Frame::Waits { .. } => WAITS,
            Frame::Data { .. } => DATA,
            Frame::Ack { .. } => ACK,
            Frame::Credit { .. } => CREDIT,
            Frame::Fin { .. } => FIN,
            Frame::Reset { .. } => RESET,
            Frame::Ping(_) => PING,
            Frame::Pong(_) => PONG,
            Frame::GoAway(_) => GO_AWAY,
            Frame::Kill(_) => KILL,
            Frame::Udp { .. } => UDP,
            Frame::Stats(_) => STATS,
            Frame::Offers(_) => OFFERS,
            Frame::Skipped(kind) => *kind,
        }
    }

    fn put_body(&self, out: &mut impl Put) {
        match self {
            Frame::Hello(hello) => hello.put(out),
            Frame::Welcome(welcome) => welcome.put(out),
            Frame::Resume(resume) => resume.put(out),
            Frame::Resumed(resumed) => resumed.put(out),
            Frame::Refused(refused) => refused.put(out),
            Frame::Open(open) => open.put(out),
            Frame::Opened(stream) => out.varint(stream.0),
            Frame::OpenRefused { stream, code, text } => {
                out.varint(stream.0);
                out.varint(code.number());
                out.counted(plain(text).as_bytes());
            }
            Frame::Waits { stream, text } => {
                out.varint(stream.0);
                out.counted(plain(text).as_bytes());
            }
            Frame::Data { stream, offset, bytes } => {
                out.varint(stream.0);
                out.varint(*offset);
                out.bytes(bytes);
            }
            Frame::Ack { stream, upto: number }
            | Frame::Credit { stream, upto: number }
            | Frame::Fin { stream, end: number } => {
                out.varint(stream.0);
                out.varint(*number);
            }
            Frame::Reset { stream, code } => {
                out.varint(stream.0);
                out.varint(code.number());
            }
            Frame::Ping(number) | Frame::Pong(number) => out.varint(*number),
            Frame::GoAway(away) => away.put(out),
            Frame::Kill(kill) => kill.put(out),
            Frame::Udp { flow, bytes } => {
                out.varint(flow.0);
                out.bytes(bytes);
            }
            Frame::Stats(stats) => stats.put(out),
            Frame::Offers(offers) => offers.put(out),
            Frame::Skipped(_) => {}
        }
    }
}
