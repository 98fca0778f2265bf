//! Many clients at once: short ones one after the other, or long ones that stay.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tieline_testkit::wait_until;

/// A message of the short connections, each way.
pub(crate) const MESSAGE: usize = 64;

/// Source addresses in turn, so that the ports of one are never used up: `127.0.1.1` to `127.0.1.64`.
const SOURCES: usize = 64;
/// No answer takes longer unless the proxy is stuck.
const STUCK: Duration = Duration::from_secs(20);

/// Makes `count` short connections, `at_once` at a time: connect, [`MESSAGE`] bytes there and back; the
/// client closes.
pub(crate) fn short_connections(proxy: SocketAddr, count: usize, at_once: usize) -> io::Result<()> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..at_once)
            .map(|client| {
                // The first clients take what the division leaves.
                let share = count / at_once + usize::from(client < count % at_once);
                scope.spawn(move || (0..share).try_for_each(|turn| short_connection(proxy, client + turn)))
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().expect("a client does not panic"))
    })
}

fn short_connection(proxy: SocketAddr, source: usize) -> io::Result<()> {
    let mut connection = connect(proxy, source)?;
    connection.write_all(&[b'x'; MESSAGE])?;
    connection.read_exact(&mut [0; MESSAGE])
}

pub(crate) fn connect(proxy: SocketAddr, source: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let last = u8::try_from(source % SOURCES).unwrap_or(0) + 1;
    socket.bind(&SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, last)), 0).into())?;
    socket.connect(&proxy.into())?;
    let connection = TcpStream::from(socket);
    connection.set_read_timeout(Some(STUCK))?;
    Ok(connection)
}

/// Connections that stay open.
pub(crate) struct Crowd {
    members: Vec<Member>,
    said: u64,
}

struct Member {
    connection: TcpStream,
    end: Option<End>,
}

/// How the other side ended a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

impl Crowd {
    /// Opens `count` connections, each heard and answered once.
    pub(crate) fn gather(proxy: SocketAddr, count: usize) -> io::Result<Crowd> {
        let mut crowd = Crowd::line_up(proxy, count)?;
        for member in &mut crowd.members {
            member.connection.write_all(b"!")?;
            member.connection.read_exact(&mut [0])?;
        }
        Ok(crowd)
    }

    /// Opens `count` connections, each upgraded to a WebSocket at `path`.
    pub(crate) fn upgraded(proxy: SocketAddr, path: &str, count: usize) -> io::Result<Crowd> {
        let mut crowd = Crowd::line_up(proxy, count)?;
        for member in &mut crowd.members {
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: bench.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            member.connection.write_all(request.as_bytes())?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                member.connection.read_exact(&mut byte)?;
                answer.extend_from_slice(&byte);
            }
            if !answer.starts_with(b"HTTP/1.1 101 ") {
                return Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
            }
        }
        Ok(crowd)
    }

    /// Opens `count` connections that say nothing and expect nothing.
    pub(crate) fn line_up(proxy: SocketAddr, count: usize) -> io::Result<Crowd> {
        let connected =
            (0..count).map(|source| Ok(Member { connection: connect(proxy, source)?, end: None }));
        Ok(Crowd { members: connected.collect::<io::Result<_>>()?, said: 0 })
    }

    /// How many there are, ended or not.
    pub(crate) fn size(&self) -> usize {
        self.members.len()
    }

    /// How many the other side has ended, in whatever way.
    pub(crate) fn ended(&mut self) -> usize {
        self.members.iter_mut().filter_map(Member::look).count()
    }

    /// How many were reset instead of closed in order.
    pub(crate) fn reset(&mut self) -> usize {
        self.members.iter_mut().filter_map(Member::look).filter(|end| *end == End::Reset).count()
    }

    /// Waits until all have ended; whether they did.
    pub(crate) fn wait_all_ended(&mut self, patience: Duration) -> bool {
        wait_until(patience, || self.ended() == self.size())
    }

    /// Says something new on every `step`th connection from `first` and hears it back; how many did not
    /// echo it.
    pub(crate) fn wrong_echoes(&mut self, first: usize, step: usize) -> usize {
        let mut wrong = 0;
        for member in self.members.iter_mut().skip(first).step_by(step) {
            self.said += 1;
            wrong += usize::from(!echoes(&mut member.connection, self.said).unwrap_or(false));
        }
        wrong
    }
}

impl Member {
    /// Looks without taking anything and without waiting. The kernel reports a reset once, so it is
    /// remembered.
    fn look(&mut self) -> Option<End> {
        if self.end.is_none() {
            let looked = self.connection.set_nonblocking(true).and_then(|()| self.connection.peek(&mut [0]));
            let _ = self.connection.set_nonblocking(false); // cannot fail where the line above did not
            self.end = match looked {
                Ok(0) => Some(End::Closed),
                Ok(_) => None,
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(_) => Some(End::Reset),
            };
        }
        self.end
    }
}

fn echoes(connection: &mut TcpStream, word: u64) -> io::Result<bool> {
    connection.write_all(&word.to_be_bytes())?;
    let mut heard = [0; 8];
    connection.read_exact(&mut heard)?;
    Ok(heard == word.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::{Crowd, short_connections};
    use crate::backend::Echo;
    use std::time::Duration;
    use tieline_testkit::{PATIENCE, TcpServer, wait_until};

    #[test]
    fn short_connections_are_all_made_and_all_closed() {
        let echo = Echo::start(2).unwrap();
        short_connections(echo.addresses()[0], 103, 10).unwrap();
        assert!(wait_until(PATIENCE, || echo.open() == 0));
        let refusing = tieline_testkit::Refusing::start();
        assert!(short_connections(refusing.address(), 1, 1).is_err());
    }

    #[test]
    fn a_crowd_stays_until_the_other_side_ends_it() {
        let echo = Echo::start(1).unwrap();
        let mut crowd = Crowd::gather(echo.addresses()[0], 20).unwrap();
        assert_eq!((echo.open(), crowd.ended(), crowd.wrong_echoes(0, 1)), (20, 0, 0));
        drop(echo);
        assert!(crowd.wait_all_ended(Duration::from_secs(5)));
        assert_eq!((crowd.reset(), crowd.wrong_echoes(0, 2)), (0, 10));
    }

    #[test]
    fn resets_are_told_from_ends_in_order() {
        let server = TcpServer::echo();
        let mut crowd = Crowd::gather(server.address(), 5).unwrap();
        server.reset_all();
        assert!(wait_until(PATIENCE, || crowd.reset() == 5));
        assert_eq!(crowd.ended(), 5);
    }
}
