//! Whether datagrams of a size come to a server of QUIC and back, before any connection.
//!
//! Every server answers a version that nobody speaks with those that it does (RFC 9000 §6.1), computes
//! nothing for it and remembers nothing of it. So what is lost, too large or refused on the way is seen
//! without a trace at the server.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use tieline_base::{Clock, Moment};
use tokio::net::UdpSocket;

use super::Family;
use super::dial::bind;

/// What came of datagrams that were sent to a server of QUIC.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Soundings {
    /// Each of them, in the order that they were sent in.
    pub sent: Vec<Sounding>,
    /// Whether somebody said that nothing listens there (ICMP: port unreachable).
    pub refused: bool,
}

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sounding {
    /// What it holds, in bytes, without the heads of UDP and IP.
    pub size: usize,
    /// How long the answer took; `None` if none came.
    pub round_trip: Option<Duration>,
}

/// What a server answers at all (RFC 9000 §14.1).
pub const SIZE_MIN: usize = 1_200;

/// A version that nobody speaks (RFC 9000 §15).
const VERSION: [u8; 4] = [0x5a, 0x6a, 0x7a, 0x8a];

/// How long a connection's id is here, in bytes.
const ID: usize = 8;

/// The most that an answer has.
const ANSWER_MAX: usize = 512;

/// Sends a datagram of each of `sizes` to `to`, one each `pace`, none of which may be taken apart on its way;
/// and waits for the last answers for as long as `patience`.
///
/// # Errors
/// There is no socket, or no way to `to` from here.
pub async fn sound(
    to: SocketAddr,
    sizes: &[usize],
    pace: Duration,
    patience: Duration,
) -> io::Result<Soundings> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let socket = bind(family)?;
    match family {
        Family::V4 => sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?,
        Family::V6 => sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?,
    }
    let socket = UdpSocket::from_std(socket)?;
    // So that the kernel tells of a refusal, and takes no one else's word.
    socket.connect(to).await?;
    let mut lead = Lead::new(socket)?;
    for size in sizes {
        lead.send(*size).await?;
        tokio::join!(lead.hear(pace), tokio::time::sleep(pace));
        if lead.soundings.refused {
            return Ok(lead.soundings);
        }
    }
    lead.hear(patience).await;
    Ok(lead.soundings)
}

/// What is under way.
struct Lead {
    socket: UdpSocket,
    /// Nobody who does not see the datagrams can answer them.
    secret: [u8; ID],
    sent_at: Vec<Moment>,
    soundings: Soundings,
}

impl Lead {
    fn new(socket: UdpSocket) -> io::Result<Self> {
        let mut secret = [0; ID];
        aws_lc_rs::rand::fill(&mut secret)
            .map_err(|_| io::Error::other("the kernel gives no random bytes"))?;
        Ok(Self { socket, secret, sent_at: Vec::new(), soundings: Soundings::default() })
    }

    async fn send(&mut self, size: usize) -> io::Result<()> {
        let number = self.sent_at.len();
        self.sent_at.push(Clock::now());
        self.soundings.sent.push(Sounding { size, round_trip: None });
        match self.socket.send(&datagram(size, number, &self.secret)).await {
            Ok(_) => Ok(()),
            Err(error) => self.failed(error),
        }
    }

    /// What says something about the way, and not about this machine.
    fn failed(&mut self, error: io::Error) -> io::Result<()> {
        match error.kind() {
            ErrorKind::ConnectionRefused => {
                self.soundings.refused = true;
                Ok(())
            }
            // The first link takes less than that.
            _ if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => Ok(()),
            _ => Err(error),
        }
    }

    /// Takes what comes within `time`, and no longer than until all is answered.
    async fn hear(&mut self, time: Duration) {
        let hearing = async {
            let mut answer = [0; ANSWER_MAX];
            while !self.soundings.refused && self.soundings.sent.iter().any(|it| it.round_trip.is_none()) {
                match self.socket.recv(&mut answer).await {
                    Ok(length) => self.heard(&answer[..length]),
                    // What else is wrong, sending tells.
                    Err(error) => drop(self.failed(error)),
                }
            }
        };
        // It may be dropped anywhere: what was received is noted at once.
        let _ = tokio::time::timeout(time, hearing).await;
    }

    fn heard(&mut self, answer: &[u8]) {
        let Some(number) = answered(answer, &self.secret) else { return };
        if let (Some(sounding), Some(sent_at)) =
            (self.soundings.sent.get_mut(number), self.sent_at.get(number))
            && sounding.round_trip.is_none()
        {
            sounding.round_trip = Some(Clock::now().since(*sent_at));
        }
    }
}

/// A first packet of a version that nobody speaks (RFC 8999 §5.1): `number` stands in the id that the server
/// sends back.
fn datagram(size: usize, number: usize, secret: &[u8; ID]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    bytes.push(0xc0);
    bytes.extend_from_slice(&VERSION);
    bytes.push(ID as u8);
    bytes.extend_from_slice(secret);
    bytes.push(ID as u8);
    bytes.extend_from_slice(&own_id(number, secret));
    bytes.resize(size.max(bytes.len()), 0);
    bytes
}

/// The id of the sender: the secret, and in its first two bytes the number.
fn own_id(number: usize, secret: &[u8; ID]) -> [u8; ID] {
    let mut id = *secret;
    let number = (number as u16).to_be_bytes();
    id[..number.len()].copy_from_slice(&number);
    id
}

/// Which datagram `answer` answers, if it names the versions of a server (RFC 8999 §6).
fn answered(answer: &[u8], secret: &[u8; ID]) -> Option<usize> {
    let (first, rest) = answer.split_first()?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first()?;
    let id = rest.first_chunk::<ID>()?;
    let number = u16::from_be_bytes([id[0], id[1]]).into();
    let ours = *id == own_id(number, secret) && usize::from(*length) == ID;
    (first & 0x80 != 0 && *version == [0; 4] && ours).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket as Plain;

    const PACE: Duration = Duration::from_millis(1);
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn only_an_answer_to_what_was_sent_counts() {
        let secret = [7; ID];
        let sent = datagram(SIZE_MIN, 300, &secret);
        assert_eq!(sent.len(), SIZE_MIN);
        let mut answer = vec![0xff, 0, 0, 0, 0, 8];
        answer.extend_from_slice(&sent[15..23]);
        answer.extend_from_slice(&[8; 9]);
        assert_eq!(answered(&answer, &secret), Some(300));
        assert_eq!(answered(&answer, &[8; ID]), None, "somebody guesses");
        for at in [0, 4, 5, 9] {
            let mut other = answer.clone();
            other[at] ^= 0xff;
            assert_eq!(answered(&other, &secret), None, "{at}");
        }
        assert!(
            (0..answer.len()).all(|length| length >= 14 || answered(&answer[..length], &secret).is_none())
        );
    }

    #[tokio::test]
    async fn what_is_answered_and_what_is_not_is_told_apart() {
        let server = Plain::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut datagram = [0; 2_048];
            for _ in 0..3 {
                let (length, from) = server.recv_from(&mut datagram).unwrap();
                // What is large does not pass here.
                if length <= SIZE_MIN {
                    let head = [&[0xff, 0, 0, 0, 0, 8][..], &datagram[15..23]].concat();
                    server.send_to(&head, from).unwrap();
                }
            }
        });
        let found = sound(to, &[SIZE_MIN, 1_400, SIZE_MIN], PACE, Duration::from_secs(1)).await.unwrap();
        answering.join().unwrap();
        let came: Vec<_> = found.sent.iter().map(|one| (one.size, one.round_trip.is_some())).collect();
        assert_eq!(came, [(SIZE_MIN, true), (1_400, false), (SIZE_MIN, true)]);
    }

    #[tokio::test]
    async fn a_refusal_is_heard() {
        let gone = Plain::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let found = sound(gone, &[SIZE_MIN; 8], PACE, PATIENCE).await.unwrap();
        assert!(found.refused && found.sent.iter().all(|one| one.round_trip.is_none()), "{found:?}");
    }
}
