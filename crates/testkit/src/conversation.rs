//! One end of an HTTP/1.1 connection that sends any bytes and reads one message after the other (RFC 9112).

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::http::HttpAnswer;
use crate::wait::PATIENCE;

/// A connection as its client or as its server has it. What is sent is not looked at.
#[derive(Debug)]
pub struct HttpConversation {
    stream: TcpStream,
    /// What came and is not read yet.
    input: Vec<u8>,
}

/// A message: its head as it came, without the empty line, and its body without chunk framing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpMessage {
    /// The first line and the fields.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
    /// The lines of the trailer section.
    pub trailers: String,
}

impl HttpMessage {
    /// The value of the first field of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The values of all fields of this name.
    pub fn all<'m>(&'m self, name: &'m str) -> impl Iterator<Item = &'m str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The first line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    fn says(&self, name: &str, word: &str) -> bool {
        self.all(name).any(|value| value.to_ascii_lowercase().contains(word))
    }
}

impl HttpConversation {
    /// Connects as a client.
    ///
    /// # Panics
    /// If nobody listens there.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> HttpConversation {
        HttpConversation::over(
            TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}")),
        )
    }

    /// Goes on over `stream`, of which nothing is lost.
    pub fn over(stream: TcpStream) -> HttpConversation {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero can be set");
        stream.set_nodelay(true).expect("a TCP socket can send at once");
        HttpConversation { stream, input: Vec::new() }
    }

    /// The connection.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// When the far end has closed.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends `request` and reads the answer to it, interim answers left out.
    ///
    /// # Panics
    /// If no whole answer comes.
    #[track_caller]
    pub fn ask(&mut self, request: &str) -> HttpAnswer {
        self.send(request).unwrap_or_else(|error| panic!("{request:?}: {error}"));
        let method = request.split(' ').next().unwrap_or_default().to_owned();
        self.answer(&method).unwrap_or_else(|error| panic!("{request:?}: {error}"))
    }

    /// Reads the next final answer, to a request of `method`.
    ///
    /// # Errors
    /// When it does not come whole.
    pub fn answer(&mut self, method: &str) -> io::Result<HttpAnswer> {
        loop {
            let answer = self.any_answer(method)?;
            if answer.status >= 200 || answer.status == 101 {
                return Ok(answer);
            }
        }
    }

    /// [`HttpConversation::answer`], which may be an interim one.
    ///
    /// # Errors
    /// When it does not come whole.
    pub fn any_answer(&mut self, method: &str) -> io::Result<HttpAnswer> {
        let head = self.head()?;
        let status: u16 = head
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1)?.parse().ok())
            .ok_or_else(|| wrong(&head))?;
        let bodyless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        let mut message = HttpMessage { head, body: Vec::new(), trailers: String::new() };
        if !bodyless && !self.framed_body(&mut message)? {
            self.read_to_end()?;
            message.body = std::mem::take(&mut self.input);
        }
        Ok(HttpAnswer { status, head: message.head, body: message.body })
    }

    /// Reads the next request; `None` if the client closed instead.
    ///
    /// # Errors
    /// When it does not come whole.
    pub fn request(&mut self) -> io::Result<Option<HttpMessage>> {
        let Some(mut request) = self.request_head()? else { return Ok(None) };
        self.framed_body(&mut request)?;
        Ok(Some(request))
    }

    /// Reads the head of the next request, and leaves its body where it is.
    ///
    /// # Errors
    /// When it does not come whole.
    pub fn request_head(&mut self) -> io::Result<Option<HttpMessage>> {
        if self.input.is_empty() && self.fill()? == 0 {
            return Ok(None);
        }
        Ok(Some(HttpMessage { head: self.head()?, body: Vec::new(), trailers: String::new() }))
    }

    /// Reads exactly `length` bytes.
    ///
    /// # Errors
    /// When fewer come.
    pub fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.input.len() < length {
            self.more()?;
        }
        Ok(self.input.drain(..length).collect())
    }

    /// Reads all that comes until the far end closes.
    ///
    /// # Errors
    /// When it closes by a reset, or not at all.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        self.read_to_end()?;
        Ok(std::mem::take(&mut self.input))
    }

    /// Says that nothing more is sent.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write); // the far end may be gone
    }

    fn head(&mut self) -> io::Result<String> {
        let head = self.through(b"\r\n\r\n")?;
        Ok(String::from_utf8_lossy(&head[..head.len() - 4]).into_owned())
    }

    /// Reads the body that the head of `message` frames; whether it does.
    fn framed_body(&mut self, message: &mut HttpMessage) -> io::Result<bool> {
        if message.says("transfer-encoding", "chunked") {
            self.chunked_body(message)?;
            return Ok(true);
        }
        let Some(length) = message.header("content-length") else { return Ok(false) };
        let length = length.parse().map_err(|_| wrong(&message.head))?;
        message.body = self.take(length)?;
        Ok(true)
    }

    fn chunked_body(&mut self, message: &mut HttpMessage) -> io::Result<()> {
        loop {
            let line = String::from_utf8_lossy(&self.through(b"\r\n")?).into_owned();
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| wrong(&line))?;
            if size == 0 {
                break;
            }
            message.body.extend(self.take(size)?);
            self.through(b"\r\n")?;
        }
        loop {
            let line = self.through(b"\r\n")?;
            if line == b"\r\n" {
                return Ok(());
            }
            message.trailers += &String::from_utf8_lossy(&line);
        }
    }

    /// Everything up to `end`, which is included.
    fn through(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.input.windows(end.len()).position(|window| window == end) {
                return Ok(self.input.drain(..at + end.len()).collect());
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> io::Result<()> {
        match self.fill()? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, self.shown())),
            _ => Ok(()),
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = vec![0; 64 << 10];
        let count = self.stream.read(&mut piece)?;
        self.input.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    fn read_to_end(&mut self) -> io::Result<()> {
        while self.fill()? > 0 {}
        Ok(())
    }

    fn shown(&self) -> String {
        let shown = self.input[..self.input.len().min(200)].escape_ascii();
        format!("the far end closed after {} bytes: {shown}", self.input.len())
    }
}

fn wrong(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP message: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::HttpConversation;
    use crate::tcp::TcpServer;

    #[test]
    fn one_message_follows_the_other() {
        let server = TcpServer::scripted(|stream| {
            let mut client = HttpConversation::over(stream.try_clone()?);
            while let Some(request) = client.request()? {
                let length = request.body.len() + request.trailers.len();
                client.send("HTTP/1.1 103 Early Hints\r\n\r\n")?;
                client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{length:02}"))?;
            }
            Ok(())
        });
        let mut client = HttpConversation::connect(server.address());
        client.send("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(client.answer("POST").unwrap().text(), "03");
        assert_eq!(client.answer("GET").unwrap().text(), "00");
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nA: b\r\n\r\n";
        assert_eq!(client.ask(chunked).text(), "08");
        client.finish();
        assert!(client.rest().unwrap().is_empty());
        assert!(client.answer("GET").is_err());
    }
}
