//! How an exchange ends that could not go on: the answer for what went wrong, and a close that does not
//! destroy it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tieline_base::{Fault, Reason, Stage, Whose};
use tieline_conn::Connection;
use tieline_transport::Io;
use tokio::io::AsyncWrite;

use crate::answer::{self, Answer};
use crate::buffer::Buffer;
use crate::client::Client;
use crate::exchange::client_gone;
use crate::story::Story;

/// Answers for what went wrong; whether the answer went out. With `close` it says that the connection ends.
pub(crate) async fn tell(client: &mut Client, story: &mut Story, fault: &Fault, close: bool) -> bool {
    let status = answer::status(fault);
    let detail = fault.to_string();
    let mut bytes = Vec::with_capacity(512);
    answer::encode(
        &Answer {
            status,
            detail: public(fault, &detail),
            request_id: &String::from_utf8_lossy(&story.request_id()),
            form: story.form,
            close,
            body: !story.bodyless,
            refusal: Some(fault),
            quota: story.quota.as_deref(),
            edits: story.route.as_ref().and_then(|target| Some(&target.rewrite.as_ref()?.response)),
        },
        &mut bytes,
    );
    story.status = Some(status);
    let Client { connection, io, .. } = client;
    connection.expect(TELL_WITHIN, Reason::TimeoutGap);
    let written = in_time(connection, Stage::Release, Whose::Client, write_all(io, &bytes)).await;
    if written.is_ok() {
        connection.record().moved(false, bytes.len() as u64);
    }
    written.is_ok()
}

/// What a client may know of a fault: what is wrong with its own bytes, and else the word for it.
fn public<'f>(fault: &'f Fault, word: &'f str) -> &'f str {
    match fault.reason {
        Reason::RefusedPolicy | Reason::RefusedNoRoute => "no route leads there",
        Reason::RefusedApi => "the request does not keep to the interface",
        _ => word,
    }
}

/// How long an answer of ours may take to be taken.
const TELL_WITHIN: Duration = Duration::from_secs(5);

/// How long, and for how many bytes, a client may go on sending what nobody reads any more, so that the close
/// does not destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

/// Closes towards the client without destroying what is on its way to it.
pub(crate) async fn linger(client: &mut Client, input: &mut Buffer) -> Result<Reason, Fault> {
    let Client { connection, io, .. } = client;
    connection.expect(LINGER, Reason::Answered);
    let mut left = LINGER_BYTES;
    let drained = poll_fn(|cx| {
        // Both ends may be gone already.
        let _ = Pin::new(&mut *io).poll_shutdown(cx);
        loop {
            input.consume(usize::MAX);
            match ready!(input.poll_fill(io, 0, cx)) {
                Ok(count) if count > 0 && count < left => left -= count,
                _ => return Poll::Ready(Ok(())),
            }
        }
    });
    // That the time is over is no fault.
    let _: Result<(), Fault> = in_time(connection, Stage::Release, Whose::Client, drained).await;
    Ok(Reason::ClientClosed)
}

/// Sends all of `bytes`.
pub(crate) fn write_all(io: &mut Io, bytes: &[u8]) -> impl Future<Output = Result<(), Fault>> {
    let mut sent = 0;
    poll_fn(move |cx| {
        while sent < bytes.len() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &bytes[sent..]));
            sent += written.map_err(client_gone)?;
        }
        Poll::Ready(Ok(()))
    })
}

/// `work`, unless what the connection expects does not come in time.
pub(crate) async fn in_time<T>(
    connection: &Connection,
    stage: Stage,
    whose: Whose,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let mut work = pin!(work);
    poll_fn(|cx: &mut Context<'_>| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => match connection.overdue() {
            None => Poll::Pending,
            // Nobody but the client sends its body.
            Some(reason @ Reason::TimeoutBodyGap) => {
                Poll::Ready(Err(Fault::new(stage, Whose::Client, reason)))
            }
            Some(reason) => Poll::Ready(Err(Fault::new(stage, whose, reason))),
        },
    })
    .await
}
