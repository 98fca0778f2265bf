//! Bodies that are held in memory, because they are looked at as a whole before anybody else sees them.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use tieline_base::{Fault, Reason, Stage, Whose};
use tieline_transport::Io;
use tieline_wire::http1::Progress;

use super::room::{Full, Part, Room};
use crate::Http;
use crate::buffer::{Buffer, SIZE};
use crate::client::Client;
use crate::ending::{in_time, write_all};
use crate::exchange::client_gone;
use crate::patience::Sending;
use crate::plan::{self, Plan};
use crate::source::Source;
use crate::story::Story;

/// A body as far as it was read.
#[derive(Debug)]
pub(crate) struct Held {
    /// What was read of it, without its framing.
    pub(crate) data: Vec<u8>,
    /// What is still to come; nothing, where it is whole.
    pub(crate) rest: Source,
    /// What came behind a body in chunks that is whole.
    pub(crate) trailers: Vec<u8>,
}

impl Held {
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.rest, Source::Nothing)
    }
}

/// Reads the body of a request, as far as `most` bytes. A client that waits to be asked for it is asked: the
/// upstream will not do it, because it sees the request only when the body is there (RFC 9110 §10.1.1).
///
/// # Errors
/// The client breaks off, its framing is wrong, or there is no `room` for it.
pub(super) async fn hold(
    client: &mut Client,
    input: &mut Buffer,
    plan: &mut Plan,
    story: &Story,
    http: &Http,
    most: u64,
    room: &Room,
) -> Result<Held, Fault> {
    let mut held = Held { data: Vec::new(), rest: plan.body.into(), trailers: Vec::new() };
    // Whoever says so beforehand need not be asked for it at all.
    if matches!(held.rest, Source::Length(length) if length > most) {
        return Ok(held);
    }
    let Client { connection, io, .. } = client;
    connection.expect(http.settings.body_gap, Reason::TimeoutBodyGap);
    if std::mem::take(&mut plan.expects_continue) && input.is_empty() {
        in_time(connection, Stage::Settle, Whose::Client, write_all(io, CONTINUE)).await?;
    }
    let (record, mut part) = (connection.record(), room.part());
    let (expected, mut patience, mut taken) = (http.of_body(story), Sending::default(), 0);
    let read = poll_fn(|cx| {
        let moved = |count| {
            record.moved(true, count as u64);
            taken += count as u64;
        };
        match held.poll(io, input, most, &mut part, moved, cx) {
            Poll::Pending => patience.sends(connection, expected, taken),
            read => read,
        }
    });
    in_time(connection, Stage::Settle, Whose::Client, read).await?;
    plan.held_room = Some(part);
    Ok(held)
}

fn full(error: Full) -> Fault {
    Fault::new(Stage::Settle, Whose::Us, Reason::Exhausted).because(error)
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Held {
    /// Reads on until the body is whole, or more than `most`.
    fn poll(
        &mut self,
        io: &mut Io,
        input: &mut Buffer,
        most: u64,
        part: &mut Part,
        mut moved: impl FnMut(usize),
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        loop {
            let there = input.bytes().len();
            self.take(input).map_err(plan::unreadable)?;
            let taken = there - input.bytes().len();
            if taken > 0 {
                moved(taken);
            }
            part.grow(self.data.len() as u64).map_err(full)?;
            if self.is_whole() || self.data.len() as u64 > most {
                return Poll::Ready(Ok(()));
            }
            if let Source::Length(left) = self.rest {
                input.expect(left);
            }
            let count = ready!(input.poll_fill(io, SIZE, cx)).map_err(client_gone)?;
            if count == 0 {
                return Poll::Ready(Err(client_gone(io::ErrorKind::UnexpectedEof.into())));
            }
        }
    }

    /// Takes what `input` has of the body, and nothing of what follows it.
    fn take(&mut self, input: &mut Buffer) -> Result<(), tieline_wire::http1::HttpError> {
        match &mut self.rest {
            Source::Nothing | Source::UntilClose => {}
            Source::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.bytes().len());
                self.data.extend_from_slice(&input.bytes()[..count]);
                input.consume(count);
                *left -= count as u64;
                if *left == 0 {
                    self.rest = Source::Nothing;
                }
            }
            Source::Chunked(decoder) => {
                while !input.is_empty() {
                    let chunk = decoder.decode(input.bytes())?;
                    self.data.extend_from_slice(&input.bytes()[chunk.data.clone()]);
                    input.consume(chunk.consumed);
                    if chunk.progress == Progress::Done {
                        self.trailers = decoder.trailers().to_vec();
                        self.rest = Source::Nothing;
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}
