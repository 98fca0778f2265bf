//! Copies of requests, whose answers nobody waits for. A copy never delays or fails the request that it is a
//! copy of: it has a task of its own, its own permit and its own upstream connection, and where too many are
//! on their way it is not made.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::ClientAddr;
use tieline_base::text::push_decimal;
use tieline_conn::{Connection, Route};
use tieline_policy::Permit;
use tieline_pool::{Ask, Reuse};
use tieline_registry::Mirrored;
use tieline_transport::Io;
use tieline_wire::http1::{HeadScan, RequestBody, RequestKind, Room, parse_response};
use tokio::time::timeout;

use crate::buffer::Buffer;
use crate::ending::write_all;
use crate::heard::ANSWER_LIMITS;
use crate::spare::{fill, read_on};

/// Where copies of a route's requests are sent.
#[derive(Debug)]
pub struct Mirror {
    /// The way there, with a rule of its own.
    pub route: Arc<Route>,
    /// How many of a hundred requests are copied.
    pub percent: u8,
    /// From a copy sent to the end of its answer.
    pub patience: Duration,
}

/// The longest body that is copied, in bytes: it is held until the request is sent.
pub(crate) const BODY_MAX: usize = 64 * 1024;

/// An answer longer than this is not read to its end, so that its connection may be used again.
const DRAIN_MAX: u64 = 1024 * 1024;

/// A copy to be sent: its head as far as it is known, and where to.
pub(crate) struct Copy {
    mirror: Arc<Mirror>,
    permit: Permit,
    /// Without the empty line that ends it.
    head: Vec<u8>,
    kind: RequestKind,
}

impl Mirror {
    /// Whether the next request is to be copied.
    pub(crate) fn draws(&self) -> bool {
        fastrand::u8(..100) < self.percent
    }
}

impl Copy {
    /// A copy with this head, on behalf of `client`; `None` if policy lets nothing of it through.
    pub(crate) fn new(
        connection: &Connection,
        client: ClientAddr,
        mirror: &Arc<Mirror>,
        head: Vec<u8>,
        kind: RequestKind,
    ) -> Option<Self> {
        let permit = connection.authorize(&mirror.route, client).ok()?;
        Some(Self { mirror: mirror.clone(), permit, head, kind })
    }

    /// Sends it, with `body` if it has one; nobody waits. `None`: the body is not known, or too long.
    pub(crate) fn send(mut self, connection: &Connection, body: Option<&[u8]>, framed: RequestBody) {
        let Some(row) = self.mirror.route.row.upstream.clone() else { return };
        let Some(body) = body else { return row.mirrored(Mirrored::TooLarge) };
        if framed == RequestBody::Chunked {
            self.head.extend_from_slice(b"Content-Length: ");
            push_decimal(body.len() as u64, &mut self.head);
            self.head.extend_from_slice(b"\r\n");
        }
        self.head.extend_from_slice(b"\r\n");
        self.head.extend_from_slice(body);
        let told = row.clone();
        let sent = connection.aside(async move {
            let answered = self.exchange().await;
            told.mirrored(if answered.is_some() { Mirrored::Answered } else { Mirrored::Failed });
        });
        if !sent {
            row.mirrored(Mirrored::Dropped);
        }
    }

    /// One try; `None` if it failed in any way.
    async fn exchange(self) -> Option<()> {
        let upstream = self.mirror.route.upstream.clone()?;
        let ask = Ask { reuse: Reuse::Young, ..Ask::default() };
        let lease = upstream.lease(&self.permit, ask, &mut |_| ()).await.ok()?;
        let (mut io, loan, making) = lease.into_parts();
        let asked = async {
            write_all(&mut io, &self.head).await.ok()?;
            drain(&mut io, self.kind).await.ok()
        };
        match timeout(self.mirror.patience, asked).await.ok().flatten() {
            Some(Left::Clean) => loan.park(io, making),
            Some(Left::Unread) => {}
            None => return None,
        }
        Some(())
    }
}

/// What is left on a connection behind an answer.
enum Left {
    /// Nothing: it may be used again.
    Clean,
    /// Something, or nobody knows.
    Unread,
}

/// Reads an answer and forgets it.
async fn drain(io: &mut Io, kind: RequestKind) -> io::Result<Left> {
    let mut input = Buffer::take();
    let wrong = || io::Error::from(io::ErrorKind::InvalidData);
    loop {
        let mut scan = HeadScan::default();
        let length = loop {
            if let Some(length) = scan.find(input.bytes(), &ANSWER_LIMITS).map_err(|_| wrong())? {
                break length;
            }
            fill(io, &mut input, ANSWER_LIMITS.head).await?;
        };
        let (interim, body, stays) = {
            let mut room = Room::new();
            let head = &input.bytes()[..length];
            let answer = parse_response(head, &ANSWER_LIMITS, &mut room, kind).map_err(|_| wrong())?;
            (answer.is_interim(), answer.body, answer.keep_alive)
        };
        input.consume(length);
        if interim {
            continue;
        }
        let whole = read_on(io, &mut input, body.into(), DRAIN_MAX).await?;
        let clean = whole && stays && input.is_empty();
        return Ok(if clean { Left::Clean } else { Left::Unread });
    }
}

/// What a request's body has been so far, for its copy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tap {
    bytes: Vec<u8>,
    over: bool,
}

impl Tap {
    /// Takes a piece; one that would make it too long is the end of the copy.
    pub(crate) fn take(&mut self, piece: &[u8]) {
        if self.over || self.bytes.len() + piece.len() > BODY_MAX {
            (self.over, self.bytes) = (true, Vec::new());
        } else {
            self.bytes.extend_from_slice(piece);
        }
    }

    /// The body, if it is not too long.
    pub(crate) fn body(&self) -> Option<&[u8]> {
        (!self.over).then_some(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_held_as_long_as_it_is_short() {
        let mut tap = Tap::default();
        assert_eq!(tap.body(), Some(&b""[..]));
        tap.take(&[1; BODY_MAX - 1]);
        tap.take(&[2]);
        assert_eq!(tap.body().map(<[u8]>::len), Some(BODY_MAX));
        tap.take(&[3]);
        tap.take(b"x");
        assert_eq!((tap.body(), tap.bytes.capacity()), (None, 0));
    }
}
