//! Frames of HTTP/2 (RFC 9113 §4.1), and a server that sends any of them, one after the other.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use tieline_testkit::PATIENCE;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags: of DATA and HEADERS, of HEADERS, and of SETTINGS and PING.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const ACK: u8 = 1;

/// Settings.
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// Error codes.
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const REFUSED_STREAM: u32 = 7;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The error code of a RST_STREAM or a GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// The server's end of a connection.
pub(crate) struct Frames {
    stream: TcpStream,
    /// Whether the client's PINGs are answered.
    pub(crate) answers_pings: bool,
}

impl Frames {
    /// Reads the client's preface, and sends these settings.
    pub(crate) fn accept(stream: &TcpStream, settings: &[(u16, u32)]) -> io::Result<Frames> {
        let mut frames = Frames { stream: stream.try_clone()?, answers_pings: true };
        frames.stream.set_read_timeout(Some(PATIENCE))?;
        frames.stream.set_nodelay(true)?;
        let mut preface = [0; PREFACE.len()];
        frames.stream.read_exact(&mut preface)?;
        assert_eq!(preface, PREFACE);
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frames.send(SETTINGS, 0, 0, &payload)?;
        Ok(frames)
    }

    /// The next frame that is no matter of course; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let mut header = [0; 9];
            if let Err(error) = self.stream.read_exact(&mut header) {
                let ended = error.kind() == io::ErrorKind::UnexpectedEof;
                return if ended { Ok(None) } else { Err(error) };
            }
            let [a, b, c, kind, flags, id @ ..] = header;
            let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
            self.stream.read_exact(&mut payload)?;
            let frame = Frame { kind, flags, stream: u32::from_be_bytes(id), payload };
            match (frame.kind, frame.flags & ACK) {
                (SETTINGS, 0) => self.send(SETTINGS, ACK, 0, &[])?,
                (PING, 0) if self.answers_pings => self.send(PING, ACK, 0, &frame.payload)?,
                (SETTINGS | PING, _) => {}
                // Of the connection: it has been made large enough once and for all.
                (WINDOW_UPDATE, _) if frame.stream == 0 => {}
                _ => return Ok(Some(frame)),
            }
        }
    }

    /// The stream of the next request, whose head is in one frame, and whether it ended with that.
    pub(crate) fn request(&mut self) -> io::Result<Option<(u32, bool)>> {
        loop {
            match self.next()? {
                None => return Ok(None),
                Some(frame) if frame.kind == HEADERS => return Ok(Some((frame.stream, frame.ends()))),
                Some(_) => {}
            }
        }
    }

    /// Reads all that comes on `stream` until its end; how many bytes of data that was.
    pub(crate) fn body(&mut self, stream: u32) -> io::Result<usize> {
        let mut length = 0;
        while let Some(frame) = self.next()? {
            if frame.stream == stream && frame.kind == DATA {
                length += frame.payload.len();
                let more = u32::try_from(frame.payload.len()).expect("a frame").to_be_bytes();
                if !frame.payload.is_empty() {
                    self.send(WINDOW_UPDATE, 0, 0, &more)?;
                    self.send(WINDOW_UPDATE, 0, stream, &more)?;
                }
            }
            if frame.stream == stream && (frame.ends() || frame.kind == RST_STREAM) {
                break;
            }
        }
        Ok(length)
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
        let header = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.stream.write_all(&[&header, payload].concat())
    }

    /// HEADERS: `:status` among the fields, if these are not trailers.
    pub(crate) fn fields(&mut self, stream: u32, fields: &[(&str, &str)], ends: bool) -> io::Result<()> {
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, &block(fields))
    }

    pub(crate) fn data(&mut self, stream: u32, data: impl AsRef<[u8]>, ends: bool) -> io::Result<()> {
        self.send(DATA, u8::from(ends), stream, data.as_ref())
    }

    /// A whole answer of status 200.
    pub(crate) fn answer(&mut self, stream: u32, body: &str) -> io::Result<()> {
        self.fields(stream, &[(":status", "200"), ("content-length", &body.len().to_string())], false)?;
        self.data(stream, body, true)
    }

    pub(crate) fn reset(&mut self, stream: u32, code: u32) -> io::Result<()> {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    pub(crate) fn goaway(&mut self, last: u32, code: u32) -> io::Result<()> {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
    }
}

/// RFC 7541 §6.2.2: each literally, by a new name, in no table.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}
