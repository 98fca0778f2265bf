//! Frames of HTTP/2 as no library would send them, for clients that do harm.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::crowd::connect;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// END_STREAM.
pub(crate) const END: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 §6.5.2).
const INITIAL_WINDOW: u16 = 4;

/// A frame (RFC 9113 §4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The fields of a request without a body, spelled out (RFC 7541 §6.2.2): none is longer than 126 bytes.
pub(crate) fn fields(method: &str, path: &str) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "http"), (":authority", "bench.test"), (":path", path)];
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap_or(126)], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// A whole request.
pub(crate) fn request(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END | END_HEADERS, stream, &fields("GET", path))
}

/// Connects by prior knowledge, and lets the server send so much on each stream.
pub(crate) fn begin(to: SocketAddr, source: usize, window: u32) -> io::Result<TcpStream> {
    let mut client = connect(to, source)?;
    client.set_nodelay(true)?;
    client.set_write_timeout(Some(Duration::from_secs(2)))?;
    client.set_read_timeout(Some(Duration::from_secs(2)))?;
    let setting = [&INITIAL_WINDOW.to_be_bytes()[..], &window.to_be_bytes()].concat();
    client
        .write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &setting)[..]].concat())?;
    Ok(client)
}

/// The next frame: its kind, its stream and its payload.
pub(crate) fn read(client: &mut TcpStream) -> io::Result<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    client.read_exact(&mut head)?;
    let [a, b, c, kind, _, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    client.read_exact(&mut payload)?;
    Ok((kind, u32::from_be_bytes(stream), payload))
}

#[cfg(test)]
mod tests {
    use super::{HEADERS, PING, frame, request};

    #[test]
    fn frames_are_as_the_rfc_has_them() {
        assert_eq!(frame(PING, 0, 0, &[7; 8]), [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[7; 8]].concat());
        let asked = request(3, "/128");
        assert_eq!((asked[3], asked[4], asked[8]), (HEADERS, 5, 3));
        assert!(asked.ends_with(b"\0\x05:path\x04/128"));
    }
}
