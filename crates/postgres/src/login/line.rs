//! A connection while it logs in: messages are few and small, so they are read whole.

use std::future::poll_fn;
use std::io;

use tieline_conn::Connection;
use tieline_transport::Io;
use tieline_wire::Parsed;
use tieline_wire::postgres::startup::{self, StartupError};
use tieline_wire::postgres::{HEADER, Head};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A connection, and what was read of it beyond what was asked for.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) io: Io,
    pub(crate) unread: Vec<u8>,
}

/// What is read at once.
const CHUNK: usize = 2 * 1024;

impl Line {
    pub(crate) fn new(io: Io) -> Self {
        Self { io, unread: Vec::new() }
    }

    /// The connection.
    ///
    /// # Errors
    /// More was read of it than was asked for: whoever uses it next would take what follows that for
    /// something else.
    pub(crate) fn into_quiet_io(self) -> io::Result<Io> {
        if self.unread.is_empty() {
            return Ok(self.io);
        }
        // Most likely its last words: another one may do better.
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "it says what nobody asked for"))
    }

    /// Waits until something may have come, and then for the turn of `connection` to read it; not where it
    /// was read already.
    pub(crate) async fn turn(&self, connection: &Connection) {
        if self.unread.is_empty() {
            poll_fn(|cx| self.io.poll_readable(cx)).await;
            connection.turn().await;
        }
    }

    /// The next byte, left in place.
    ///
    /// # Errors
    /// The connection breaks or ends.
    pub(crate) async fn peek(&mut self) -> io::Result<u8> {
        self.fill(1).await?;
        self.unread.first().copied().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Reads a first packet: all of its bytes, or why it is none.
    ///
    /// # Errors
    /// The connection breaks or ends.
    pub(crate) async fn packet(&mut self) -> io::Result<Result<Vec<u8>, StartupError>> {
        loop {
            match startup::parse(&self.unread) {
                Ok(Parsed::Done { consumed, .. }) => return Ok(Ok(self.unread.drain(..consumed).collect())),
                Ok(Parsed::Incomplete { .. }) => {}
                Err(error) => return Ok(Err(error)),
            }
            self.fill(self.unread.len() + 1).await?;
        }
    }

    /// Reads a message whose body has at most `most` bytes: its kind, and its body.
    ///
    /// # Errors
    /// The connection breaks or ends, or the message is too long (`InvalidData`).
    pub(crate) async fn message(&mut self, most: usize) -> io::Result<(u8, Vec<u8>)> {
        self.fill(HEADER).await?;
        let head = Head::read(&self.unread).map_err(invalid)?.ok_or(io::ErrorKind::InvalidData)?;
        if head.length as usize > most {
            return Err(invalid(format!("a message of {} bytes while logging in", head.length)));
        }
        self.fill(head.whole()).await?;
        Ok((head.kind, self.unread.drain(..head.whole()).skip(HEADER).collect()))
    }

    /// Writes all of `bytes`, and flushes them.
    ///
    /// # Errors
    /// The connection breaks.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// Reads until there are `wanted` bytes.
    async fn fill(&mut self, wanted: usize) -> io::Result<()> {
        while self.unread.len() < wanted {
            self.unread.reserve(CHUNK);
            if self.io.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
