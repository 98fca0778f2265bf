//! The body of a request on its way into frames.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tieline_wire::http1::{ChunkedDecoder, HttpError, Progress};

/// How the text frames the body.
#[derive(Debug)]
pub(super) enum Body {
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked(Box<ChunkedDecoder>),
    /// Until the writer shuts it down: another protocol's bytes.
    Raw,
}

/// What became of bytes.
pub(super) struct Put {
    /// How many were taken.
    pub(super) taken: usize,
    /// Whether the body ended with them.
    pub(super) ended: bool,
}

/// Why they could not be sent.
pub(super) enum Refused {
    /// The stream takes no more.
    Closed,
    /// It, or the connection, broke.
    Broken(h2::Error),
    /// They are no body.
    Framing(HttpError),
}

impl From<h2::Error> for Refused {
    fn from(error: h2::Error) -> Self {
        Refused::Broken(error)
    }
}

impl From<HttpError> for Refused {
    fn from(error: HttpError) -> Self {
        Refused::Framing(error)
    }
}

/// The most that is sent at once, so that a frame is not copied for want of a window.
const PIECE_MAX: usize = 64 * 1024;

impl Body {
    /// Sends what `bytes`, which are not empty, begin with, as far as the endpoint takes it now.
    pub(super) fn poll_put(
        &mut self,
        stream: &mut SendStream<Bytes>,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<Put, Refused>> {
        let room = match poll_room(stream, bytes.len().min(PIECE_MAX), cx) {
            Poll::Ready(room) => room?,
            // What frames the chunks needs none: their end must not wait for a window.
            Poll::Pending => match self {
                Body::Chunked(decoder) => {
                    let mut ahead = decoder.clone();
                    if !ahead.decode(bytes)?.data.is_empty() {
                        return Poll::Pending;
                    }
                    return Poll::Ready(self.put(stream, bytes));
                }
                Body::Length(_) | Body::Raw => return Poll::Pending,
            },
        };
        Poll::Ready(self.put(stream, &bytes[..bytes.len().min(room)]))
    }

    /// Sends what `bytes` begin with, whether or not the endpoint takes it now.
    pub(super) fn put(&mut self, stream: &mut SendStream<Bytes>, bytes: &[u8]) -> Result<Put, Refused> {
        match self {
            Body::Raw => {
                stream.send_data(Bytes::copy_from_slice(bytes), false)?;
                Ok(Put { taken: bytes.len(), ended: false })
            }
            Body::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                let ended = *left == 0;
                stream.send_data(Bytes::copy_from_slice(&bytes[..taken]), ended)?;
                Ok(Put { taken, ended })
            }
            Body::Chunked(decoder) => {
                let chunk = decoder.decode(bytes)?;
                let ended = chunk.progress == Progress::Done;
                let trailers = if ended { trailers(decoder.trailers()) } else { HeaderMap::new() };
                let last = ended && trailers.is_empty();
                if last || !chunk.data.is_empty() {
                    stream.send_data(Bytes::copy_from_slice(&bytes[chunk.data]), last)?;
                }
                if !trailers.is_empty() {
                    stream.send_trailers(trailers)?;
                }
                Ok(Put { taken: chunk.consumed, ended })
            }
        }
    }
}

/// How many of `wanted` bytes the endpoint takes now, one at least.
fn poll_room(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, Refused>> {
    stream.reserve_capacity(wanted);
    loop {
        let room = stream.capacity();
        if room > 0 {
            return Poll::Ready(Ok(room));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error.into())),
            None => return Poll::Ready(Err(Refused::Closed)),
        }
    }
}

/// Checked lines, each with its CRLF, as fields.
fn trailers(lines: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}
