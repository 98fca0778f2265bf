//! Answers that nobody wants, read to their end so that their connection may be used again.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Poll, ready};

use tieline_transport::Io;
use tieline_wire::http1::{ChunkedDecoder, Progress};

use crate::attempt::Upstream;
use crate::buffer::{Buffer, SIZE};
use crate::heard::{Final, Heard};
use crate::source::Source;

/// An answer that was given up for another endpoint's is read on if it is no longer than this, in bytes.
const SHORT_MAX: u64 = 64 * 1024;

/// Lets go of a connection, `unwanted` being what came over it.
pub(crate) async fn let_go(upstream: Upstream, output: Buffer, unwanted: Option<Heard>) {
    if let Some(Heard::Final(answer)) = unwanted {
        // Boxed: few requests come here.
        Box::pin(spare(upstream, output, answer)).await;
    }
}

/// Gives a connection back whose answer is not wanted, if what is left of the answer is short and there
/// already; else it closes. Nobody waits for the rest: the request is in a hurry.
async fn spare(upstream: Upstream, mut output: Buffer, answer: Final) {
    if !answer.reusable {
        return;
    }
    let Upstream { mut io, loan, making, .. } = upstream;
    let whole = {
        let mut rest = pin!(read_on(&mut io, &mut output, answer.source, SHORT_MAX));
        poll_fn(|cx| Poll::Ready(rest.as_mut().poll(cx))).await
    };
    if matches!(whole, Poll::Ready(Ok(true))) && output.is_empty() {
        if let Some(allowed) = answer.idle_allowed {
            loan.endpoint().allows_idle(allowed);
        }
        loan.park(io, making);
    }
}

/// Reads what is left of a body and forgets it; whether it came to its end within `most` bytes.
pub(crate) async fn read_on(io: &mut Io, input: &mut Buffer, source: Source, most: u64) -> io::Result<bool> {
    match source {
        Source::Nothing => Ok(true),
        Source::Length(length) => skip(io, input, length, most).await,
        Source::Chunked(decoder) => skip_chunks(io, input, *decoder, most).await,
        Source::UntilClose => Ok(false),
    }
}

async fn skip(io: &mut Io, input: &mut Buffer, mut left: u64, most: u64) -> io::Result<bool> {
    if left > most {
        return Ok(false);
    }
    loop {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.bytes().len());
        input.consume(count);
        left -= count as u64;
        if left == 0 {
            return Ok(true);
        }
        fill(io, input, SIZE).await?;
    }
}

async fn skip_chunks(
    io: &mut Io,
    input: &mut Buffer,
    mut decoder: ChunkedDecoder,
    most: u64,
) -> io::Result<bool> {
    let mut read = 0;
    while read <= most {
        while !input.is_empty() {
            let chunk =
                decoder.decode(input.bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            read += chunk.data.len() as u64;
            input.consume(chunk.consumed);
            if chunk.progress == Progress::Done {
                return Ok(true);
            }
        }
        fill(io, input, SIZE).await?;
    }
    Ok(false)
}

/// Reads once more, up to `most` bytes at a time.
///
/// # Errors
/// There is no more, or the connection broke.
pub(crate) async fn fill(io: &mut Io, input: &mut Buffer, most: usize) -> io::Result<()> {
    let count = poll_fn(|cx| {
        let count = ready!(input.poll_fill(io, most, cx));
        Poll::Ready(count)
    });
    if count.await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
