//! A WebSocket as a pipe of bytes (RFC 6455), at both ends.
//!
//! It proves nobody: whoever terminates the TLS around it sees what it carries, so TLS of our own goes
//! inside.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use data_encoding::BASE64;
use tieline_transport::{Io, Stream};
use tieline_wire::http1::{
    HeadScan, HttpError, Limits, Method, RequestBody, RequestKind, Room, parse_request, parse_response,
};
use tieline_wire::websocket::{Decoder, Kind, Said, Side, encode_frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::sha::random;

/// Where a server is asked for one.
pub(crate) const PATH: &str = "/tieline";

/// Why one did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("not HTTP: {0}")]
    Http(#[from] HttpError),
    #[error("the server answers {0} and no WebSocket")]
    Status(u16),
    #[error("{0}")]
    Wrong(&'static str),
}

/// What a head may have: there are few fields, but a proxy adds its own.
const HEAD: Limits = Limits { line: 2 * 1024, head: 8 * 1024, fields: 64 };

/// Asks `host` for a WebSocket over `io`. Without a deadline: the caller has one.
pub(crate) async fn ask(mut io: Io, host: &str) -> Result<Io, UpgradeError> {
    let key = BASE64.encode(&random::<16>()?);
    let asked = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    io.write_all(asked.as_bytes()).await?;
    io.flush().await?;
    let (mut head, length) = read_head(&mut io).await?;
    agrees(&head[..length], &key)?;
    head.drain(..length);
    Ok(pipe(io, Side::Client, head))
}

/// Whether the answer to a request with `key` agrees to it (§4.1).
fn agrees(head: &[u8], key: &str) -> Result<(), UpgradeError> {
    let (mut room, to) = (Room::new(), RequestKind { head: false, upgrade: true });
    let answer = parse_response(head, &HEAD, &mut room, to)?;
    if answer.status != 101 {
        return Err(UpgradeError::Status(answer.status));
    }
    let sign = answer.fields.get("sec-websocket-accept");
    if sign == Some(accepted(key.as_bytes()).as_bytes()) {
        Ok(())
    } else {
        Err(UpgradeError::Wrong("what answers is no WebSocket"))
    }
}

/// Answers who asks for a WebSocket over `io`. Without a deadline: the caller has one.
pub(crate) async fn answer(mut io: Io) -> Result<Io, UpgradeError> {
    let (mut head, length) = read_head(&mut io).await?;
    let Some(accept) = asked_for(&head[..length])? else {
        // RFC 9110 §15.5.22. Who gets it is no agent, and need not know more.
        io.write_all(REFUSAL).await?;
        io.flush().await?;
        return Err(UpgradeError::Wrong("it asks for no WebSocket"));
    };
    let agreed = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    io.write_all(agreed.as_bytes()).await?;
    io.flush().await?;
    head.drain(..length);
    Ok(pipe(io, Side::Server, head))
}

const REFUSAL: &[u8] =
    b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
                         Sec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n";

/// What agrees to a request for a WebSocket (§4.2.1); `None` if it is for something else.
fn asked_for(head: &[u8]) -> Result<Option<String>, HttpError> {
    let mut room = Room::new();
    let request = parse_request(head, &HEAD, &mut room)?;
    let key = request.fields.get("sec-websocket-key");
    let asks = request.method == Method::Get
        && request.body == RequestBody::None
        && request.upgrade.is_some_and(|to| to.eq_ignore_ascii_case("websocket"))
        && request.fields.get("sec-websocket-version") == Some(b"13");
    // Sixteen bytes.
    let key = key.filter(|key| BASE64.decode(key).is_ok_and(|bytes| bytes.len() == 16));
    Ok(key.filter(|_| asks).map(accepted))
}

/// §4.2.2: SHA-1, as a sign that the request was understood and for nothing else.
fn accepted(key: &[u8]) -> String {
    use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
    let mut sha = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    sha.update(key);
    sha.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64.encode(sha.finish().as_ref())
}

/// Reads the head of a message, and what happens to come behind it.
pub(crate) async fn read_head(io: &mut Io) -> Result<(Vec<u8>, usize), UpgradeError> {
    let (mut bytes, mut scan) = (Vec::new(), HeadScan::default());
    loop {
        if let Some(length) = scan.find(&bytes, &HEAD)? {
            return Ok((bytes, length));
        }
        bytes.reserve(READ_MAX);
        if (&mut *io).take(READ_MAX as u64).read_buf(&mut bytes).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Reads the head of the answer to a request of `CONNECT`: which status it is.
pub(crate) async fn read_status(io: &mut Io) -> Result<u16, UpgradeError> {
    let (head, length) = read_head(io).await?;
    let mut room = Room::new();
    let answer = parse_response(&head[..length], &HEAD, &mut room, RequestKind::default())?;
    // RFC 9110 §9.3.6: behind it begins the tunnel, where we speak first.
    if answer.status == 200 && head.len() > length {
        return Err(UpgradeError::Wrong("the proxy speaks where the server should"));
    }
    Ok(answer.status)
}

/// The most that is read at once of what begins it.
const READ_MAX: usize = 2 * 1024;

fn pipe(io: Io, side: Side, inbox: Vec<u8>) -> Io {
    let pipe = Pipe {
        io,
        side,
        decoder: Decoder::new(side),
        inbox,
        ready: 0,
        outbox: Vec::new(),
        sent: 0,
        ended: false,
        closed: false,
    };
    Io::Stream(Box::new(pipe))
}

struct Pipe {
    io: Io,
    side: Side,
    decoder: Decoder,
    /// What came: first what is for the reader, then what is not made out.
    inbox: Vec<u8>,
    ready: usize,
    /// Whole frames, of which so much is sent.
    outbox: Vec<u8>,
    sent: usize,
    /// The peer says nothing more.
    ended: bool,
    /// Nor do we.
    closed: bool,
}

/// The most that one frame carries.
const FRAME_MAX: usize = 16 * 1024;

/// The most that waits to be sent: answers to pings are not added to it.
const OUTBOX_MAX: usize = 2 * FRAME_MAX;

impl Pipe {
    /// Makes out what has come, until there is something for the reader, or more is needed.
    fn make_out(&mut self) -> io::Result<()> {
        while self.ready == 0 && !self.ended && !self.inbox.is_empty() {
            let broken = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            let (taken, said) = self.decoder.take(&mut self.inbox).map_err(broken)?;
            match said {
                Said::Bytes(range) => {
                    // They stand at the front.
                    self.ready = range.end;
                    return Ok(());
                }
                Said::Close => self.ended = true,
                Said::Ping(payload) if self.outbox.len() < OUTBOX_MAX => {
                    self.push(Kind::Pong, &payload)?;
                }
                Said::Ping(_) | Said::Nothing => {}
            }
            self.inbox.drain(..taken);
            if taken == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    fn push(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let mask = if self.side == Side::Client { random()? } else { [0; 4] };
        encode_frame(self.side, kind, mask, payload, &mut self.outbox);
        Ok(())
    }

    /// Sends what waits; ready when nothing does.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outbox.len() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.outbox[self.sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        // While nothing is said no room is held for it.
        (self.outbox, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let pipe = self.get_mut();
        loop {
            pipe.make_out()?;
            if pipe.ready > 0 {
                let count = pipe.ready.min(buffer.remaining());
                buffer.put_slice(&pipe.inbox[..count]);
                pipe.inbox.drain(..count);
                pipe.ready -= count;
                return Poll::Ready(Ok(()));
            }
            // The answer to a ping goes as soon as it can; whoever writes next takes it along.
            if let Poll::Ready(sent) = pipe.poll_send(cx) {
                sent?;
                if let Poll::Ready(flushed) = Pin::new(&mut pipe.io).poll_flush(cx) {
                    flushed?;
                }
            }
            if pipe.ended {
                return Poll::Ready(Ok(()));
            }
            pipe.inbox.reserve(FRAME_MAX);
            let mut reading = std::pin::pin!(pipe.io.read_buf(&mut pipe.inbox));
            match reading.as_mut().poll(cx)? {
                Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(_) => {}
                Poll::Pending => {
                    if pipe.inbox.is_empty() {
                        pipe.inbox = Vec::new();
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let pipe = self.get_mut();
        if pipe.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.outbox.len() >= OUTBOX_MAX {
            ready!(pipe.poll_send(cx))?;
        }
        let count = bytes.len().min(FRAME_MAX);
        pipe.push(Kind::Binary, &bytes[..count])?;
        // As much as goes now; the rest with what follows, or with the flush.
        if let Poll::Ready(Err(error)) = pipe.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let pipe = self.get_mut();
        ready!(pipe.poll_send(cx))?;
        Pin::new(&mut pipe.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let pipe = self.get_mut();
        if !pipe.closed {
            pipe.closed = true;
            // §7.4.1: 1000, it was all.
            pipe.push(Kind::Close, &1000u16.to_be_bytes())?;
        }
        ready!(pipe.poll_send(cx))?;
        Pin::new(&mut pipe.io).poll_shutdown(cx)
    }
}

impl Stream for Pipe {
    fn abort_on_close(&self) {
        self.io.abort_on_close();
    }

    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        // Whoever carries a link reads all the time.
        match self.io.poll_broken(&mut tieline_transport::Watch::default(), cx) {
            Some(error) => Poll::Ready(error),
            None => Poll::Pending,
        }
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").field("side", &self.side).field("io", &self.io).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_rfc_6455_section_1_3_is_accepted_as_there() {
        assert_eq!(accepted(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn only_who_asks_for_a_web_socket_gets_one() {
        let whole = "GET /tieline HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        assert!(asked_for(whole.as_bytes()).unwrap().is_some());
        for (from, to) in [
            ("websocket", "h2c"),
            ("Connection: Upgrade", "Connection: close"),
            (": 13", ": 8"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"),
            ("GET", "POST"),
        ] {
            let other = whole.replacen(from, to, 1);
            assert!(!matches!(asked_for(other.as_bytes()), Ok(Some(_))), "{other}");
        }
    }
}
