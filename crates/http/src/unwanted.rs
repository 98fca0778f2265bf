//! Bodies that nobody wants: those of requests that are answered here. What is little is read past, so that
//! the next request finds its place; behind anything else the connection closes.

use std::future::poll_fn;
use std::io;
use std::task::{Poll, ready};

use tieline_base::{Clock, Fault, Reason, Stage, Whose};
use tieline_wire::http1::{ChunkedDecoder, Progress, RequestBody};

use crate::Http;
use crate::buffer::{Buffer, SIZE};
use crate::client::Client;
use crate::ending::in_time;
use crate::exchange::client_gone;
use crate::plan::Plan;

/// How many bytes of a body that is still to come are read past. Whoever has more to send is cut off, as
/// there is no other way to say that it need not be sent.
const PASSED_OVER_MAX: u64 = 64 * 1024;

impl Plan {
    /// Reads past what is there of the body, which nobody has touched, and decides what becomes of the rest.
    pub(crate) fn pass_over(&mut self, client: &Client, input: &mut Buffer) {
        if client.connection.is_inside() {
            // A stream has no next request.
            return;
        }
        match self.body {
            RequestBody::None => {}
            RequestBody::Length(length) => {
                let there = input.bytes().len();
                let passed = usize::try_from(length).map_or(there, |length| length.min(there));
                input.consume(passed);
                let left = length - passed as u64;
                // Whoever asked first whether to send it may leave it out now (RFC 9110 §10.1.1), and then
                // nobody knows what comes.
                let sure = passed > 0 || !self.expects_continue;
                if left == 0 {
                    self.body = RequestBody::None;
                } else if left <= PASSED_OVER_MAX && sure {
                    self.to_pass_over = left;
                }
            }
            // Of one that is not here nobody knows how long it is.
            RequestBody::Chunked => {
                if let Some(length) = whole(input.bytes()) {
                    input.consume(length);
                    self.body = RequestBody::None;
                }
            }
        }
    }
}

/// How long the chunked body is that `bytes` begin with, if all of it is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let (mut decoder, mut at) = (ChunkedDecoder::new(), 0);
    while at < bytes.len() {
        let chunk = decoder.decode(&bytes[at..]).ok()?;
        at += chunk.consumed;
        if chunk.progress == Progress::Done {
            return Some(at);
        }
    }
    None
}

/// Reads past what [`Plan::pass_over`] left of the body.
///
/// # Errors
/// It does not come, or not in time.
pub(crate) async fn pass_over(
    client: &mut Client,
    http: &Http,
    input: &mut Buffer,
    plan: &Plan,
) -> Result<(), Fault> {
    let mut left = plan.to_pass_over;
    if left == 0 {
        return Ok(());
    }
    let Client { connection, io, .. } = client;
    connection.expect(http.settings.body_gap, Reason::TimeoutBodyGap);
    let (record, began) = (connection.record(), Clock::now());
    let passed = poll_fn(|cx| {
        while left > 0 {
            let count = ready!(input.poll_fill(io, SIZE, cx)).map_err(client_gone)? as u64;
            if count == 0 {
                return Poll::Ready(Err(client_gone(io::ErrorKind::UnexpectedEof.into())));
            }
            let passed = count.min(left);
            // All of it within one gap: it is not worth more patience.
            record.moved_by(true, passed, began);
            input.consume(usize::try_from(passed).unwrap_or(usize::MAX));
            left -= passed;
        }
        Poll::Ready(Ok(()))
    });
    in_time(connection, Stage::Release, Whose::Client, passed).await
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn a_chunked_body_ends_where_it_ends() {
        let body = b"5\r\nhello\r\n3;x=y\r\n...\r\n0\r\nX-Sum: 1\r\n\r\n";
        let next = [&body[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!((whole(body), whole(&next)), (Some(body.len()), Some(body.len())));
        for cut in 0..body.len() {
            assert_eq!(whole(&body[..cut]), None, "{cut}");
        }
        assert_eq!(whole(b"zz\r\n0\r\n\r\n"), None);
    }
}
