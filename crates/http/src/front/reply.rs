//! An answer in the words of HTTP/1.1, taken apart into frames as it is written.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tieline_wire::http1::{
    ChunkedDecoder, FIELDS_MAX, HeadScan, Limits, Progress, RequestKind, ResponseBody, Room, parse_response,
};

use super::websocket::Key;

/// Where an answer goes.
pub(super) struct Reply {
    stage: Stage,
    kind: RequestKind,
    key: Option<Key>,
    /// A head that has no end yet.
    held: Vec<u8>,
}

enum Stage {
    /// A head comes: of the answer, or of an interim one.
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>, Framing),
    Whole,
    Broken,
}

/// How the body is told apart from what is behind it.
enum Framing {
    Length(u64),
    Chunked(Box<ChunkedDecoder>),
    /// As it is, until it is said to be all.
    UntilShutdown,
}

/// Heads of our own making: no larger than an upstream's, and what we add.
const LIMITS: Limits = Limits { line: 16 * 1024, head: 128 * 1024, fields: FIELDS_MAX };

/// What the upstream answered cannot be said in HTTP/2; the client was told 502 instead.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Unsayable(io::Error);

/// So much is asked to be sent at once, in bytes.
const PIECE_MAX: usize = 64 * 1024;

impl Reply {
    pub(super) fn new(to: SendResponse<Bytes>, bodyless: bool, key: Option<Key>) -> Self {
        let kind = RequestKind { head: bodyless, upgrade: key.is_some() };
        Self { stage: Stage::Head(to), kind, key, held: Vec::new() }
    }

    /// Whether the answer has begun and is not whole.
    pub(super) fn is_partial(&self) -> bool {
        matches!(self.stage, Stage::Body(..))
    }

    /// Takes some of `bytes`: at least one, if there is one.
    pub(super) fn poll_write(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            let count = match &mut self.stage {
                Stage::Head(_) => self.take_head(rest)?,
                Stage::Body(stream, framing) => {
                    let Poll::Ready(sent) = framing.poll_send(stream, rest, cx)? else {
                        return if taken > 0 { Poll::Ready(Ok(taken)) } else { Poll::Pending };
                    };
                    if sent.whole {
                        self.stage = Stage::Whole;
                    }
                    sent.count
                }
                Stage::Whole => return Poll::Ready(Err(wrong("bytes behind the end of an answer"))),
                Stage::Broken => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            };
            taken += count;
        }
        Poll::Ready(Ok(taken))
    }

    /// Says that this was all, where nothing else says so.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if let Stage::Body(stream, Framing::UntilShutdown) = &mut self.stage {
            stream.send_data(Bytes::new(), true).map_err(broken)?;
            self.stage = Stage::Whole;
        }
        Ok(())
    }

    /// Makes clear that the answer is not whole.
    pub(super) fn abort(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Broken) {
            Stage::Head(mut to) => to.send_reset(Reason::INTERNAL_ERROR),
            Stage::Body(mut stream, _) => stream.send_reset(Reason::INTERNAL_ERROR),
            whole => self.stage = whole,
        }
    }

    /// Whether the client gave the stream up; wakes `cx` when it does.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let reset = match &mut self.stage {
            Stage::Head(to) => ready!(to.poll_reset(cx)),
            Stage::Body(stream, _) => ready!(stream.poll_reset(cx)),
            // Nothing more is wanted of it.
            Stage::Whole => return Poll::Pending,
            Stage::Broken => return Poll::Ready(io::ErrorKind::BrokenPipe.into()),
        };
        Poll::Ready(match reset {
            Ok(reason) => io::Error::new(io::ErrorKind::ConnectionReset, h2::Error::from(reason)),
            Err(error) => broken(error),
        })
    }

    /// Takes what belongs to a head: nearly always the whole of it.
    fn take_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let find = |bytes: &[u8]| HeadScan::default().find(bytes, &LIMITS).map_err(wrong);
        if self.held.is_empty()
            && let Some(length) = find(bytes)?
        {
            self.begin(&bytes[..length])?;
            return Ok(length);
        }
        let before = self.held.len();
        self.held.extend_from_slice(bytes);
        match find(&self.held)? {
            None => Ok(bytes.len()),
            Some(length) => {
                let held = std::mem::take(&mut self.held);
                self.begin(&held[..length])?;
                Ok(length - before)
            }
        }
    }

    /// Sends a head on.
    fn begin(&mut self, head: &[u8]) -> io::Result<()> {
        let Stage::Head(to) = &mut self.stage else { return Err(wrong("a head within a body")) };
        let (response, body) = match read(head, self.kind, self.key.as_ref()) {
            Ok(read) => read,
            Err(error) => {
                let mut refusal = Response::new(());
                *refusal.status_mut() = StatusCode::BAD_GATEWAY;
                to.send_response(refusal, true).map_err(broken)?;
                self.stage = Stage::Broken;
                return Err(wrong(Unsayable(error)));
            }
        };
        let Some(framing) = body else {
            return to.send_informational(response).map_err(broken);
        };
        let ended = matches!(framing, None | Some(Framing::Length(0)));
        let stream = to.send_response(response, ended).map_err(broken)?;
        self.stage = match framing {
            Some(framing) if !ended => Stage::Body(stream, framing),
            _ => Stage::Whole,
        };
        Ok(())
    }
}

/// What follows a head: `None` behind an interim one, which has another head behind it; else the body, if
/// there is one.
type Behind = Option<Option<Framing>>;

fn read(head: &[u8], kind: RequestKind, key: Option<&Key>) -> io::Result<(Response<()>, Behind)> {
    let mut room = Room::new();
    let parsed = parse_response(head, &LIMITS, &mut room, kind).map_err(wrong)?;
    let opened = parsed.status == 101;
    let opens = key.is_some();
    if opened {
        let accepted = parsed.fields.get("sec-websocket-accept");
        if !key.is_some_and(|key| accepted.is_some_and(|accept| key.is_accepted_by(accept))) {
            return Err(wrong("the upstream accepted another WebSocket than was asked for"));
        }
    } else if opens && matches!(parsed.status, 200..=299) {
        // RFC 8441 §5: to an HTTP/2 client this would say that the WebSocket is open.
        return Err(wrong("the upstream answered an upgrade with success and no upgrade"));
    }
    let mut response = Response::new(());
    let status = if opened { 200 } else { parsed.status };
    *response.status_mut() = StatusCode::from_u16(status).map_err(wrong)?;
    *response.headers_mut() = fields(head, &parsed.fields, opened)?;
    let body = match parsed.body {
        _ if opened => Some(Framing::UntilShutdown),
        ResponseBody::None => None,
        ResponseBody::Length(length) => Some(Framing::Length(length)),
        ResponseBody::Chunked => Some(Framing::Chunked(Box::new(ChunkedDecoder::new()))),
        ResponseBody::UntilClose => Some(Framing::UntilShutdown),
    };
    Ok((response, if parsed.is_interim() { None } else { Some(body) }))
}

/// The fields that go beyond this hop. Their values are parts of one copy of the head.
fn fields(head: &[u8], fields: &tieline_wire::http1::Fields<'_, '_>, opened: bool) -> io::Result<HeaderMap> {
    let copy = Bytes::copy_from_slice(head);
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields.iter() {
        let handshake = opened && field.name.eq_ignore_ascii_case("sec-websocket-accept");
        if field.kind.is_hop_by_hop() || handshake {
            continue;
        }
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(wrong)?;
        let value = HeaderValue::from_maybe_shared(copy.slice_ref_of(head, field.value)).map_err(wrong)?;
        map.append(name, value);
    }
    Ok(map)
}

trait SliceOf {
    fn slice_ref_of(&self, original: &[u8], part: &[u8]) -> Bytes;
}

impl SliceOf for Bytes {
    /// The copy of `part`, which lies in `original`, of which this is a copy.
    fn slice_ref_of(&self, original: &[u8], part: &[u8]) -> Bytes {
        let start = part.as_ptr().addr() - original.as_ptr().addr();
        self.slice(start..start + part.len())
    }
}

/// What became of some bytes of a body.
struct Sent {
    count: usize,
    whole: bool,
}

impl Framing {
    fn poll_send(
        &mut self,
        stream: &mut SendStream<Bytes>,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Sent>> {
        match self {
            Framing::UntilShutdown => {
                let count = ready!(poll_room(stream, bytes.len(), cx))?;
                stream.send_data(Bytes::copy_from_slice(&bytes[..count]), false).map_err(broken)?;
                Poll::Ready(Ok(Sent { count, whole: false }))
            }
            Framing::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                let count = ready!(poll_room(stream, most, cx))?;
                *left -= count as u64;
                let whole = *left == 0;
                stream.send_data(Bytes::copy_from_slice(&bytes[..count]), whole).map_err(broken)?;
                Poll::Ready(Ok(Sent { count, whole }))
            }
            Framing::Chunked(decoder) => {
                if let Poll::Ready(room) = poll_room(stream, bytes.len(), cx) {
                    return Poll::Ready(send_chunks(decoder, stream, bytes, room?));
                }
                // The end needs no room: a client whose window is used up to the last byte must hear of it.
                let mut ahead = decoder.clone();
                let chunk = ahead.decode(bytes).map_err(wrong)?;
                if chunk.progress == Progress::More || !chunk.data.is_empty() {
                    return Poll::Pending;
                }
                *decoder = ahead;
                end(decoder, stream, Vec::new())?;
                Poll::Ready(Ok(Sent { count: chunk.consumed, whole: true }))
            }
        }
    }
}

/// Sends the data of as many chunks as there is room for, together.
fn send_chunks(
    decoder: &mut ChunkedDecoder,
    stream: &mut SendStream<Bytes>,
    bytes: &[u8],
    room: usize,
) -> io::Result<Sent> {
    let mut data = Vec::with_capacity(room.min(bytes.len()));
    let mut count = 0;
    while count < bytes.len() {
        // Framing needs no room, but so many bytes of it and of data have not more data.
        let next = &bytes[count..bytes.len().min(count + (room - data.len()).max(1))];
        if data.len() == room {
            break;
        }
        let chunk = decoder.decode(next).map_err(wrong)?;
        data.extend_from_slice(&next[chunk.data]);
        count += chunk.consumed;
        if chunk.progress == Progress::Done {
            end(decoder, stream, data)?;
            return Ok(Sent { count, whole: true });
        }
    }
    if !data.is_empty() {
        stream.send_data(data.into(), false).map_err(broken)?;
    }
    Ok(Sent { count, whole: false })
}

/// Sends the last data, and the trailers, if there are any.
fn end(decoder: &ChunkedDecoder, stream: &mut SendStream<Bytes>, data: Vec<u8>) -> io::Result<()> {
    let lines = decoder.trailers();
    if lines.is_empty() {
        return stream.send_data(data.into(), true).map_err(broken);
    }
    if !data.is_empty() {
        stream.send_data(data.into(), false).map_err(broken)?;
    }
    stream.send_trailers(trailers(lines)?).map_err(broken)
}

fn trailers(lines: &[u8]) -> io::Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let colon = memchr::memchr(b':', line).ok_or_else(|| wrong("a trailer without a colon"))?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(wrong)?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).map_err(wrong)?;
        map.append(name, value);
    }
    Ok(map)
}

/// How many bytes the client has room for, up to `want`; at least one, when there is.
fn poll_room(stream: &mut SendStream<Bytes>, want: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let want = want.min(PIECE_MAX);
    loop {
        let room = stream.capacity();
        if room > 0 {
            return Poll::Ready(Ok(room.min(want)));
        }
        stream.reserve_capacity(want);
        if stream.capacity() > 0 {
            continue;
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

/// The stream is of no use any more.
pub(super) fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
