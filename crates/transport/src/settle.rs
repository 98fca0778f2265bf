//! The first bytes of a connection, read before anything is decided: whom a PROXY header names, and which
//! server a TLS hello asks for. One deadline covers it all.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tieline_wire::Parsed;
use tieline_wire::hello::{self, HelloError};
use tieline_wire::proxy::{self, ProxyError};
use tokio::io::AsyncReadExt;

use crate::Io;

/// What a listener reads before it serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Front {
    /// A PROXY header must come first. Only to be set for sources that may speak for others.
    pub proxy: bool,
    /// The TLS hello's server name is needed to find a route.
    pub hello: bool,
    /// How long all of it may take.
    pub handshake: Duration,
}

/// What the first bytes said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hello {
    /// Whom a PROXY header names as the client; `None` without one, or when the proxy speaks for itself.
    pub source: Option<SocketAddr>,
    /// Where that client connected to.
    pub destination: Option<SocketAddr>,
    /// The server that a TLS hello asks for.
    pub server_name: Option<String>,
    /// What was read behind the PROXY header: the upstream must see it first.
    pub bytes: Vec<u8>,
}

/// Why the first bytes led nowhere.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// They did not come in time.
    #[error("the first bytes did not come within the handshake timeout")]
    Timeout,
    /// The client closed before they were whole.
    #[error("the client closed before its first bytes were whole")]
    Closed,
    /// The socket broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The PROXY header is missing or wrong.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The TLS hello is wrong.
    #[error(transparent)]
    Hello(#[from] HelloError),
}

impl Front {
    /// Whether there is anything to read.
    pub fn asks(&self) -> bool {
        self.proxy || self.hello
    }
}

/// Reads what `front` asks for, and no byte where it asks for nothing; gives `io` back.
///
/// # Errors
/// [`SettleError`]: the connection is of no use then, and closed.
pub async fn settle(mut io: Io, front: &Front) -> Result<(Io, Hello), SettleError> {
    let settled = tokio::time::timeout(front.handshake, read(&mut io, front)).await;
    Ok((io, settled.unwrap_or(Err(SettleError::Timeout))?))
}

async fn read(io: &mut Io, front: &Front) -> Result<Hello, SettleError> {
    let mut settled = Hello::default();
    if front.proxy {
        let header = until_parsed(io, &mut settled.bytes, |bytes| Ok(proxy::parse(bytes)?)).await?;
        settled.bytes.drain(..header.consumed);
        (settled.source, settled.destination) = (header.value.source, header.value.destination);
    }
    if front.hello {
        let first = until_parsed(io, &mut settled.bytes, |bytes| Ok(hello::parse(bytes)?)).await?;
        if let hello::Hello::Tls(client_hello) = first.value {
            settled.server_name = client_hello.server_name;
        }
    }
    Ok(settled)
}

struct Whole<T> {
    value: T,
    consumed: usize,
}

/// Reads until `parse` has what it wants. It reads no further than that can need, so memory is bounded by it.
async fn until_parsed<T>(
    io: &mut Io,
    bytes: &mut Vec<u8>,
    parse: impl Fn(&[u8]) -> Result<Parsed<T>, SettleError>,
) -> Result<Whole<T>, SettleError> {
    loop {
        match parse(bytes)? {
            Parsed::Done { value, consumed } => return Ok(Whole { value, consumed }),
            Parsed::Incomplete { at_most } => {
                let room = at_most.saturating_sub(bytes.len()).clamp(1, READ_MAX);
                bytes.reserve(room);
                if io.take(room as u64).read_buf(bytes).await? == 0 {
                    return Err(SettleError::Closed);
                }
            }
        }
    }
}

/// The most that is read at once, in bytes: a ClientHello fits with room to spare.
const READ_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpStream, Io) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = listener.accept().unwrap().0;
        near.set_nonblocking(true).unwrap();
        (far, Io::Tcp(tokio::net::TcpStream::from_std(near).unwrap()))
    }

    fn front(proxy: bool, hello: bool) -> Front {
        Front { proxy, hello, handshake: Duration::from_secs(5) }
    }

    #[tokio::test]
    async fn a_header_is_taken_and_what_follows_it_is_kept() {
        let (mut far, io) = pair();
        far.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 443\r\nSSH-2.0-x\r\n").unwrap();
        let settled = settle(io, &front(true, true)).await.unwrap().1;
        assert_eq!(settled.source, Some("192.0.2.1:4000".parse().unwrap()));
        assert_eq!((settled.server_name, settled.bytes), (None, b"SSH-2.0-x\r\n".to_vec()));
    }

    #[tokio::test]
    async fn nothing_is_read_where_nothing_is_asked_for() {
        let (_far, io) = pair();
        assert_eq!(settle(io, &front(false, false)).await.unwrap().1, Hello::default());
    }

    #[tokio::test]
    async fn a_missing_header_is_refused_at_its_first_byte() {
        let (mut far, io) = pair();
        far.write_all(b"G").unwrap();
        let error = settle(io, &front(true, false)).await.unwrap_err();
        assert!(matches!(error, SettleError::Proxy(ProxyError::NoHeader)));
    }

    #[tokio::test]
    async fn a_client_that_leaves_midway_is_told_from_one_that_is_slow() {
        let (mut far, io) = pair();
        far.write_all(b"PROXY TCP4 ").unwrap();
        drop(far);
        assert!(matches!(settle(io, &front(true, false)).await, Err(SettleError::Closed)));
        let (mut slow, io) = pair();
        slow.write_all(&[0x16, 0x03, 0x01]).unwrap();
        let impatient = Front { handshake: Duration::from_millis(50), ..front(false, true) };
        assert!(matches!(settle(io, &impatient).await, Err(SettleError::Timeout)));
    }
}
