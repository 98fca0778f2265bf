//! Chunked bodies (RFC 9112 §7.1).

use std::ops::Range;

use super::HttpError;
use super::bytes::hex_digit;
use super::extension::Extensions;
use super::trailers::Trailers;

/// Digits of a size; 4 GiB a chunk.
const DIGITS_MAX: u8 = 8;

/// Takes one chunked body apart. Knows where it ends; extensions are checked and forgotten, trailers
/// checked and kept.
///
/// What frames the body is bounded: twelve bytes a chunk, 16 KiB of extensions and 8 KiB of trailers in all.
#[derive(Clone, Default, Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// Of the chunk, first as its digits come, then what is still missing of it.
    left: u64,
    digits: u8,
    extensions: Extensions,
    trailers: Trailers,
}

/// What [`ChunkedDecoder::decode`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// So many bytes are done with, the data among them. At least one, if one was given and the body goes on.
    pub consumed: usize,
    /// Where data lies in the bytes that were given; may be empty.
    pub data: Range<usize>,
    /// Whether the body has ended.
    pub progress: Progress,
}

/// Whether a body has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It goes on.
    More,
    /// What follows is another message.
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum State {
    #[default]
    Size,
    Extension,
    /// The LF that ends the line of a size.
    SizeEnd,
    Data,
    /// The CR behind the data.
    DataEnd,
    /// The LF behind that.
    ChunkEnd,
    /// A trailer may begin, or the last line.
    LineStart,
    Trailer,
    /// The LF of the last line.
    End,
    Done,
}

impl ChunkedDecoder {
    /// At the beginning of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes up to the end of the body, or to where a second run of data would begin. Not to
    /// be called again after an error.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Chunk, HttpError> {
        let mut data = 0..0;
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            match self.state {
                State::Data if !data.is_empty() => break,
                State::Data => {
                    data = at..at + self.take_data(bytes.len() - at);
                    at = data.end;
                }
                State::Trailer => at += self.take_trailer(&bytes[at..])?,
                _ => {
                    let stays = self.step(bytes[at])?;
                    at += usize::from(!stays);
                }
            }
        }
        let progress = if self.state == State::Done { Progress::Done } else { Progress::More };
        Ok(Chunk { consumed: at, data, progress })
    }

    /// Checked trailers, each a whole line with its CRLF, for a peer that takes them; complete once the
    /// body has ended. Names of fields that only we may set are not among them.
    pub fn trailers(&self) -> &[u8] {
        self.trailers.lines()
    }

    /// How many of `available` bytes are data.
    fn take_data(&mut self, available: usize) -> usize {
        let length = usize::try_from(self.left).map_or(available, |left| left.min(available));
        self.left -= length as u64;
        if self.left == 0 {
            self.state = State::DataEnd;
        }
        length
    }

    fn take_trailer(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        let (taken, ended) = self.trailers.take(bytes)?;
        if ended {
            self.state = State::LineStart;
        }
        Ok(taken)
    }

    /// Takes one byte of what is not data; says whether it is to be looked at again.
    fn step(&mut self, byte: u8) -> Result<bool, HttpError> {
        self.state = match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeEnd,
            (State::Size, b';') if self.digits > 0 => self.start_extension()?,
            (State::Size, _) => self.take_digit(byte)?,
            (State::Extension, b'\r') if self.extensions.may_end() => State::SizeEnd,
            (State::Extension, _) => {
                self.extensions.take(byte).ok_or(HttpError::ChunkExtension)?;
                State::Extension
            }
            (State::SizeEnd, b'\n') if self.left == 0 => State::LineStart,
            (State::SizeEnd, b'\n') => State::Data,
            (State::DataEnd, b'\r') => State::ChunkEnd,
            (State::ChunkEnd, b'\n') => {
                self.digits = 0;
                State::Size
            }
            (State::DataEnd | State::ChunkEnd, _) => return Err(HttpError::ChunkEnd),
            (State::LineStart, b'\r') => State::End,
            (State::LineStart, _) => {
                self.state = State::Trailer;
                return Ok(true);
            }
            (State::End, b'\n') => State::Done,
            _ => return Err(HttpError::BareNewline),
        };
        Ok(false)
    }

    fn take_digit(&mut self, byte: u8) -> Result<State, HttpError> {
        let digit = hex_digit(byte).filter(|_| self.digits < DIGITS_MAX).ok_or(match byte {
            b'\n' => HttpError::BareNewline,
            _ => HttpError::ChunkSize,
        })?;
        self.digits += 1;
        self.left = self.left << 4 | u64::from(digit);
        Ok(State::Size)
    }

    fn start_extension(&mut self) -> Result<State, HttpError> {
        self.extensions.start().ok_or(HttpError::ChunkExtension)?;
        Ok(State::Extension)
    }
}
