//! HTTP/2 towards endpoints (RFC 9113). The exchange speaks HTTP/1.1 and nothing else: each conversation of a
//! trunk is a byte stream that takes the text of one request apart into frames, and makes the text of the
//! answer of those that come back.
//!
//! Owns the connection ([`Http2`], `trunk.rs`), what must be known of its frames that `h2` does not tell
//! (`frames.rs`), and one stream of it (`stream.rs`, with `request.rs` and `answer.rs`). Refuses to know who
//! shares connections, and for how long: that is the pool's.

mod answer;
mod body;
mod broken;
mod frames;
mod request;
mod stream;
mod trunk;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{Builder, Connection};
use tieline_pool::{Beginning, Driver, Trunk, Trunks};
use tieline_transport::Io;
use tieline_transport::tls::Alpn;
use tokio::sync::Notify;

pub(crate) use broken::Broken;
use trunk::{Line, STREAMS_MAX, Watched};

/// HTTP/2 towards endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Http2;

impl Trunks for Http2 {
    fn alpn(&self) -> Alpn {
        Alpn::new(b"h2").unwrap_or_else(|| unreachable!("two bytes are a name"))
    }

    fn alone(&self) -> Alpn {
        Alpn::new(b"http/1.1").unwrap_or_else(|| unreachable!("eight bytes are a name"))
    }

    fn begin(&self, io: Io, secure: bool, changed: Arc<Notify>) -> Beginning {
        Box::pin(begin(io, secure, changed))
    }
}

/// What a stream's answer may be ahead of its reader, in bytes.
const STREAM_WINDOW: u32 = 128 * 1024;

/// All streams together. Room for each, so that readers who stop cannot stop the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;

/// The fields of one answer, in bytes as RFC 9113 §6.5.2 counts them.
const HEADER_LIST_MAX: u32 = 64 * 1024;

/// What a stream may hold of a request that its endpoint does not take yet, in bytes.
const SEND_BUFFER_MAX: usize = 64 * 1024;

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST_MAX)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        // No answers that nobody asked for.
        .enable_push(false)
        // Until the endpoint has said how many it takes: this is how `begin` knows that it has.
        .initial_max_send_streams(0);
    builder
}

async fn begin(io: Io, secure: bool, changed: Arc<Notify>) -> io::Result<(Arc<dyn Trunk>, Driver)> {
    let line = Arc::new(Line::new(changed));
    let watched = Watched::new(io, line.clone());
    let (send, mut connection) = builder().handshake::<_, Bytes>(watched).await.map_err(other_language)?;
    let pings = connection.ping_pong().ok_or_else(|| io::Error::other("taken once"))?;
    poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(other_language(error))),
        Poll::Pending if send.current_max_send_streams() == 0 => Poll::Pending,
        Poll::Pending => Poll::Ready(Ok(())),
    })
    .await?;
    let driver = trunk::drive(connection, pings, line.clone());
    Ok((trunk::trunk(send, line, secure), Box::pin(driver)))
}

type Wire = Connection<Watched, Bytes>;

/// An endpoint that answers otherwise, or not at all.
fn other_language(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
    }
    io::Error::new(io::ErrorKind::InvalidData, format!("the endpoint does not speak HTTP/2: {error}"))
}
