//! One connection of a client that speaks the protocol by hand.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::frontend::{self, V3_0};
use super::message::Message;
use crate::wait::PATIENCE;

/// A client's connection: bytes go out as the test says, messages come back whole.
pub struct Conversation {
    stream: TcpStream,
    input: Vec<u8>,
    key_data: Vec<u8>,
}

impl Conversation {
    /// Connects and says nothing yet.
    ///
    /// # Panics
    /// If nobody accepts.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Conversation {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        Conversation::over(stream)
    }

    /// [`Conversation::connect`] from an address of this machine.
    ///
    /// # Panics
    /// If nobody accepts, or that is none.
    #[track_caller]
    pub fn connect_from(from: IpAddr, address: SocketAddr) -> Conversation {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(from, 0).into()).expect("an address of this machine");
        socket.connect(&address.into()).unwrap_or_else(|error| panic!("{address}: {error}"));
        Conversation::over(socket.into())
    }

    fn over(stream: TcpStream) -> Conversation {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout above zero can be set");
        stream.set_nodelay(true).expect("a TCP socket can do without Nagle");
        Conversation { stream, input: Vec::new(), key_data: Vec::new() }
    }

    /// Connects and logs in as `user` to `database` where no password is asked for; ready for a query.
    ///
    /// # Panics
    /// If the server does not let it in.
    #[track_caller]
    pub fn log_in(address: SocketAddr, user: &str, database: &str) -> Conversation {
        Conversation::log_in_with(address, &[("user", user), ("database", database)])
    }

    /// [`Conversation::log_in`] with any parameters of a StartupMessage.
    ///
    /// # Panics
    /// If the server does not let it in.
    #[track_caller]
    pub fn log_in_with(address: SocketAddr, parameters: &[(&str, &str)]) -> Conversation {
        let mut client = Conversation::connect(address);
        client.send(&frontend::startup(V3_0, parameters)).expect("the server reads");
        let said = client.until(b'Z').expect("the server lets us in");
        assert!(said.last().is_some_and(|last| last.kind == b'Z'), "no login: {said:#?}");
        client
    }

    /// Sends `bytes` in one write.
    ///
    /// # Errors
    /// When the server does not take them.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends `bytes` in writes of `piece` bytes, each a packet of its own.
    ///
    /// # Errors
    /// When the server does not take them.
    pub fn send_in_pieces(&mut self, bytes: &[u8], piece: usize) -> io::Result<()> {
        bytes.chunks(piece.max(1)).try_for_each(|piece| self.stream.write_all(piece))
    }

    /// Reads the next message; `None` when the server has closed, in order or by a reset.
    ///
    /// # Errors
    /// When the time is over, or the connection ends within a message.
    pub fn message(&mut self) -> io::Result<Option<Message>> {
        while self.whole().is_none() {
            if self.fill()? == 0 {
                return if self.input.is_empty() { Ok(None) } else { Err(self.cut()) };
            }
        }
        let Some(length) = self.whole() else { return Ok(None) };
        let bytes: Vec<u8> = self.input.drain(..length).collect();
        let message = Message { kind: bytes[0], body: bytes[5..].to_vec() };
        if message.kind == b'K' {
            self.key_data.clone_from(&message.body);
        }
        Ok(Some(message))
    }

    /// Reads messages up to one of type `kind`, which is the last of them unless the server closed before.
    ///
    /// # Errors
    /// When the time is over.
    pub fn until(&mut self, kind: u8) -> io::Result<Vec<Message>> {
        let mut messages = Vec::new();
        while let Some(message) = self.message()? {
            let last = message.kind == kind;
            messages.push(message);
            if last {
                break;
            }
        }
        Ok(messages)
    }

    /// Sends a simple query and returns all that answers it.
    ///
    /// # Panics
    /// If the connection breaks.
    #[track_caller]
    pub fn query(&mut self, sql: &str) -> Vec<Message> {
        self.send(&frontend::query(sql)).expect(sql);
        self.until(b'Z').expect(sql)
    }

    /// The first column of the first row that answers `sql`; what was said instead, if there is none.
    ///
    /// # Panics
    /// If the connection breaks.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> String {
        let said = self.query(sql);
        let row = said.iter().find(|message| message.kind == b'D');
        let value = row.and_then(|row| row.columns().into_iter().next());
        match value {
            Some(value) => value.unwrap_or_else(|| "null".to_owned()),
            None => format!("{said:?}"),
        }
    }

    /// Reads one byte that is no message: the answer to an SSLRequest. `None` if the server closed.
    ///
    /// # Errors
    /// When the time is over.
    pub fn byte(&mut self) -> io::Result<Option<u8>> {
        if self.input.is_empty() && self.fill()? == 0 {
            return Ok(None);
        }
        Ok(Some(self.input.remove(0)))
    }

    /// What the last BackendKeyData held: process id and key.
    pub fn key_data(&self) -> &[u8] {
        &self.key_data
    }

    /// Whether nothing comes for `pause`: neither a message nor the end.
    pub fn is_silent_for(&mut self, pause: Duration) -> bool {
        if !self.input.is_empty() {
            return false;
        }
        let _ = self.stream.set_read_timeout(Some(pause)); // above zero, so it can be set
        let silent = matches!(self.fill(), Err(error) if is_timeout(&error));
        let _ = self.stream.set_read_timeout(Some(PATIENCE));
        silent
    }

    /// Says that nothing more is sent.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write); // the far end may be gone
    }

    /// Closes with a reset, as a program that is killed does.
    pub fn reset(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)); // a TCP socket can linger
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The length of the first message, once it is whole.
    fn whole(&self) -> Option<usize> {
        let length = self.input.get(1..5)?.try_into().ok()?;
        let length = usize::try_from(u32::from_be_bytes(length)).ok()?.max(4) + 1;
        (self.input.len() >= length).then_some(length)
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 16 << 10];
        let count = match self.stream.read(&mut piece) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error),
        };
        self.input.extend_from_slice(&piece[..count]);
        Ok(count)
    }

    fn cut(&self) -> io::Error {
        let shown = self.input[..self.input.len().min(100)].escape_ascii();
        io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed within a message: {shown}"))
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::Conversation;
    use crate::pg::frontend;
    use crate::postgres::Postgres;

    fn texts(messages: &[super::Message]) -> Vec<String> {
        messages.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_server_answers_what_is_sent_whole_or_byte_by_byte() {
        let postgres = Postgres::start();
        let mut client = Conversation::log_in(postgres.address(), "postgres", "postgres");
        assert_eq!(client.key_data().len(), 8);
        assert_eq!(client.value("select 6 * 7"), "42");
        let batch = [
            frontend::parse("", "select $1::int", &[]),
            frontend::bind("", "", &[Some("7")], 0),
            frontend::execute("", 0),
            frontend::sync(),
        ]
        .concat();
        for piece in [1, 7, batch.len()] {
            client.send_in_pieces(&batch, piece).unwrap();
            let said = texts(&client.until(b'Z').unwrap());
            let expected = [
                "ParseComplete",
                "BindComplete",
                "DataRow \"7\"",
                "CommandComplete SELECT 1",
                "ReadyForQuery I",
            ];
            assert_eq!(said, expected);
        }
        client.send(&frontend::terminate()).unwrap();
        assert!(client.message().unwrap().is_none());
    }
}
