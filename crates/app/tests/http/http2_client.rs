//! A client that speaks HTTP/2 frame by frame, so that it can say what no library would.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

pub(crate) use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, Frame, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE,
};
use crate::support::connect;

/// END_STREAM of a DATA or HEADERS frame, and ACK of the others.
pub(crate) const END: u8 = 1;

/// What a field list begins with that asks for `target` of `a.test`.
pub(crate) fn get(target: &str) -> Vec<(&str, &str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", target)]
}

/// Fields in HPACK's plainest form (RFC 7541 §6.2.2): spelled out, and not remembered.
pub(crate) fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            length(text.len(), &mut bytes);
            bytes.extend_from_slice(text);
        }
    }
    bytes
}

/// RFC 7541 §5.1, with a prefix of seven bits.
fn length(mut length: usize, bytes: &mut Vec<u8>) {
    if length < 127 {
        return bytes.push(length as u8);
    }
    bytes.push(127);
    length -= 127;
    while length >= 128 {
        bytes.push(length as u8 | 128);
        length /= 128;
    }
    bytes.push(length as u8);
}

/// How a stream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// By the server's END_STREAM.
    Whole,
    /// By a RST_STREAM with this code.
    Reset(u32),
    /// With the connection, by a GOAWAY with this code.
    Away(u32),
    /// With the connection, and not a word.
    Gone,
}

/// What came on one stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// Every status, interim ones too.
    pub(crate) statuses: Vec<u16>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: bool,
    pub(crate) ended: Ended,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.statuses.last().copied().unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection.
pub(crate) struct Frames {
    stream: TcpStream,
    /// Whether windows are opened as data comes.
    pub(crate) generous: bool,
}

impl Frames {
    /// Connects, and says the preface and empty settings.
    pub(crate) fn connect(address: SocketAddr) -> Frames {
        Frames::with_settings(address, &[])
    }

    /// Connects, and says the preface and these settings.
    pub(crate) fn with_settings(address: SocketAddr, settings: &[(u16, u32)]) -> Frames {
        let mut frames = Frames::silent(address);
        frames.raw(PREFACE).unwrap();
        // SETTINGS_HEADER_TABLE_SIZE: fields are spelled out.
        let payload: Vec<u8> = [(1, 0)]
            .iter()
            .chain(settings)
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
            .collect();
        frames.send(SETTINGS, 0, 0, &payload).unwrap();
        frames
    }

    /// A connection that has said nothing.
    pub(crate) fn silent(address: SocketAddr) -> Frames {
        let stream = connect(address);
        // Small frames go out at once.
        stream.set_nodelay(true).unwrap();
        Frames { stream, generous: true }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.raw(&frame(kind, flags, stream, payload))
    }

    /// A whole request without a body.
    pub(crate) fn ask(&mut self, stream: u32, fields: &[(&str, &str)]) -> Answer {
        let _ = self.send(HEADERS, END | END_HEADERS, stream, &block(fields));
        self.answer(stream)
    }

    /// The head of a request that has a body.
    pub(crate) fn begin(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.send(HEADERS, END_HEADERS, stream, &block(fields)).unwrap();
    }

    /// The next frame; `None` when the server has closed. Settings and pings are answered on the way.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.read()?;
            match (frame.kind, frame.flags & END) {
                (SETTINGS, 0) => drop(self.send(SETTINGS, END, 0, &[])),
                (PING, 0) => drop(self.send(PING, END, 0, &frame.payload)),
                (SETTINGS | PING, _) => {}
                (DATA, _) if self.generous && !frame.payload.is_empty() => {
                    let grown = (frame.payload.len() as u32).to_be_bytes();
                    let _ = self.send(WINDOW_UPDATE, 0, 0, &grown);
                    let _ = self.send(WINDOW_UPDATE, 0, frame.stream, &grown);
                    return Some(frame);
                }
                _ => return Some(frame),
            }
        }
    }

    /// The next frame on `stream`.
    #[track_caller]
    pub(crate) fn next_of(&mut self, stream: u32) -> Frame {
        loop {
            let frame = self.next().expect("the connection stays open");
            if frame.stream == stream {
                return frame;
            }
        }
    }

    /// The next frame, whatever it is; none is answered.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        if let Err(error) = self.stream.read_exact(&mut head) {
            let patient = !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(patient, "the server neither answers nor closes");
            return None;
        }
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// What comes on `stream`, to its end. What comes on others meanwhile is dropped.
    pub(crate) fn answer(&mut self, stream: u32) -> Answer {
        let mut answer =
            Answer { statuses: Vec::new(), body: Vec::new(), trailers: false, ended: Ended::Gone };
        let mut away = None;
        loop {
            let Some(frame) = self.next() else {
                answer.ended = away.map_or(Ended::Gone, Ended::Away);
                return answer;
            };
            if frame.kind == GOAWAY {
                away = Some(frame.code());
            }
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                HEADERS => match status(&frame.payload) {
                    Some(status) => answer.statuses.push(status),
                    None => answer.trailers = true,
                },
                DATA => answer.body.extend_from_slice(&frame.payload),
                RST_STREAM => {
                    answer.ended = Ended::Reset(frame.code());
                    return answer;
                }
                _ => {}
            }
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END != 0 {
                answer.ended = Ended::Whole;
                return answer;
            }
        }
    }

    /// The code of the GOAWAY that the server leaves with; `None` if it leaves without a word.
    pub(crate) fn goodbye(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }
}

/// A frame as it is sent.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The status that a field block begins with; `None` for trailers. We let no table be kept, so that it is
/// always told in one of two ways.
fn status(block: &[u8]) -> Option<u16> {
    // RFC 7541 §6.3: the size of the table that we asked for.
    let start = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    match &block[start..] {
        [first @ 0x88..=0x8e, ..] => Some([200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)]),
        // `:status` by its index, and a value in Huffman's code, remembered or not.
        [0x48 | 0x08 | 0x18, length, value @ ..] if length & 0x80 != 0 => {
            Some(digits(&value[..usize::from(length & 0x7f)]))
        }
        _ => None,
    }
}

/// Three digits in the code of RFC 7541, appendix B.
fn digits(code: &[u8]) -> u16 {
    // One byte more, so that the last digit may be looked at as if it were long.
    let bits = code.iter().take(3).chain([&0xff]).fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = 8 * (code.len().min(3) + 1);
    let mut number = 0;
    for _ in 0..3 {
        let six = bits >> (left - 6) & 63;
        let (digit, used) = if six >> 1 <= 2 { (six >> 1, 5) } else { (six - 0x16, 6) };
        number = 10 * number + digit as u16;
        left -= used;
    }
    number
}
