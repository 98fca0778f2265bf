//! The two ends of a bulk transfer, made as cheap as they can be: what is measured is the proxy between them.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};

/// What a client says first when it wants to receive.
pub(crate) const DOWNLOAD: [u8; 1] = *b"d";
/// What a client says first when it wants to send.
pub(crate) const UPLOAD: [u8; 1] = *b"u";

/// One write, or one read.
const PIECE: usize = 256 << 10;
/// No single read or write takes longer unless the proxy is stuck.
const STUCK: Duration = Duration::from_secs(30);

static ZEROS: [u8; PIECE] = [0; PIECE];

/// Which way the bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Download,
    Upload,
}

/// Moves `bytes` on each of `connections` at once through the proxy at `proxy`, whole and to the end.
pub(crate) fn transfer(
    proxy: SocketAddr,
    direction: Direction,
    connections: usize,
    bytes: u64,
) -> io::Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..connections).map(|_| scope.spawn(move || transfer_one(proxy, direction, bytes))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("the transfer does not panic"))
    })
}

fn transfer_one(proxy: SocketAddr, direction: Direction, bytes: u64) -> io::Result<()> {
    let mut connection = TcpStream::connect(proxy)?;
    bound_waits(&connection)?;
    let received = match direction {
        Direction::Download => {
            connection.write_all(&DOWNLOAD)?;
            discard(&connection)?
        }
        Direction::Upload => {
            connection.write_all(&UPLOAD)?;
            send(&connection, bytes)?;
            connection.shutdown(Shutdown::Write)?;
            discard(&connection)? // the end comes when the backend has had everything
        }
    };
    let expected = if direction == Direction::Download { bytes } else { 0 };
    if received != expected {
        return Err(io::Error::other(format!("{direction:?}: {received} of {expected} bytes arrived")));
    }
    Ok(())
}

/// Lets no read or write wait for ever.
pub(crate) fn bound_waits(connection: &TcpStream) -> io::Result<()> {
    connection.set_read_timeout(Some(STUCK))?;
    connection.set_write_timeout(Some(STUCK))
}

/// Sends `bytes` zeros.
pub(crate) fn send(mut connection: &TcpStream, bytes: u64) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let piece = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        connection.write_all(&ZEROS[..piece])?;
        left -= piece as u64;
    }
    Ok(())
}

/// Takes everything until the end; how much it was. The kernel throws it away without copying (tcp(7),
/// MSG_TRUNC).
pub(crate) fn discard(connection: &TcpStream) -> io::Result<u64> {
    let (mut total, mut place) = (0, vec![0; PIECE]);
    loop {
        let (_, length) = recv(connection, place.as_mut_slice(), RecvFlags::TRUNC)?;
        if length == 0 {
            return Ok(total);
        }
        total += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, transfer};
    use crate::backend::Bulk;

    #[test]
    fn every_byte_is_counted_both_ways() {
        let backend = Bulk::start(3_000_001).unwrap();
        transfer(backend.address(), Direction::Download, 2, 3_000_001).unwrap();
        transfer(backend.address(), Direction::Upload, 2, 3_000_001).unwrap();
        let short = transfer(backend.address(), Direction::Download, 1, 3_000_002).unwrap_err();
        assert!(short.to_string().contains("3000001 of 3000002 bytes"), "{short}");
    }
}
