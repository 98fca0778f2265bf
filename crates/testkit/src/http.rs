//! A very small HTTP/1.1 client: one request a connection, over a unix socket or TCP (RFC 9112).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest wait for the next bytes of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of an answer that are read.
const ANSWER_MAX: u64 = 256 << 20;

/// An answer to one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpAnswer {
    /// The status code, as 200.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The body, without chunk framing.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header field, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Sends one request through the unix socket at `socket`; `headers` are whole lines without their end.
///
/// # Errors
/// When nobody listens there, or what comes back is no HTTP answer.
pub fn http_over_unix(
    socket: &Path,
    method: &str,
    target: &str,
    headers: &[&str],
    body: &[u8],
) -> io::Result<HttpAnswer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    exchange(stream, &request(method, target, "localhost", headers, body))
}

/// Sends one request to `address`.
///
/// # Errors
/// When nobody listens there, or what comes back is no HTTP answer.
pub fn http_over_tcp(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[&str],
    body: &[u8],
) -> io::Result<HttpAnswer> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    exchange(stream, &request(method, target, &address.to_string(), headers, body))
}

fn request(method: &str, target: &str, host: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for line in headers {
        head += line;
        head += "\r\n";
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

fn exchange(mut stream: impl Read + Write, request: &[u8]) -> io::Result<HttpAnswer> {
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        io::Error::new(io::ErrorKind::InvalidData, format!("no whole HTTP answer: {shown:?}"))
    })
}

/// Reads a whole answer; `None` if it is not whole or not HTTP/1.
fn parse(bytes: &[u8]) -> Option<HttpAnswer> {
    let head_length = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, rest) =
        (String::from_utf8_lossy(&bytes[..head_length]).into_owned(), &bytes[head_length + 4..]);
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let mut answer = HttpAnswer { status, head, body: Vec::new() };
    // RFC 9112 §6.3: chunked framing comes before a length; with neither, the body lasts to the end of the
    // stream.
    answer.body =
        if answer.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            unchunk(rest)?
        } else if let Some(length) = answer.header("content-length") {
            rest.get(..length.parse().ok()?)?.to_vec()
        } else {
            rest.to_vec()
        };
    Some(answer)
}

/// RFC 9112 §7.1, without trailers.
fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_length = rest.windows(2).position(|window| window == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..line_length]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        rest = &rest[line_length + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn all_three_framings_are_read() {
        let sized = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").unwrap();
        assert_eq!((sized.status, sized.text().as_str()), (200, "abc"));
        let chunked =
            b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n";
        let chunked = parse(chunked).unwrap();
        assert_eq!((chunked.status, chunked.text().as_str()), (503, "abc"));
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\n\r\nall of it").unwrap().text(), "all of it");
    }

    #[test]
    fn an_answer_that_was_cut_is_none() {
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"), None);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), None);
        assert_eq!(parse(b"HTTP/1.1 200"), None);
    }
}
