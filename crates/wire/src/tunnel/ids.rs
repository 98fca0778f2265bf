//! What numbers in frames stand for.

use std::fmt;

/// One stream of a link. The side that dialled gives out even numbers from 2, the other odd ones from 1, each
/// strictly upwards and none twice: so a number alone tells whether a stream is to come, lives, or has ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

impl StreamId {
    /// Who opened it.
    pub fn opener(self) -> Side {
        if self.0.is_multiple_of(2) { Side::Dialer } else { Side::Acceptor }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}", self.0)
    }
}

/// The two ends of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// It dials the carriers: an agent, or a user's device.
    Dialer,
    /// It accepts them: the server.
    Acceptor,
}

impl Side {
    /// The first stream that this side opens.
    pub(super) fn first(self) -> StreamId {
        match self {
            Side::Dialer => StreamId(2),
            Side::Acceptor => StreamId(1),
        }
    }
}

/// Which carrier of a link: 1 is the first, and each one after it has a greater number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Of the carrier that HELLO and WELCOME passed on.
    pub const FIRST: Epoch = Epoch(1);
}

/// A link, by 128 random bits that the acceptor chose. No secret by itself, but told to nobody else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub [u8; 16]);

/// Why a stream or a link was refused or broke off. Numbers are for ever; an unknown one is kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Code {
    /// The socket behind the stream was reset or vanished.
    Aborted,
    /// No room for one more stream.
    Busy,
    /// Policy says no, or does no longer say yes.
    Denied,
    /// No such service here.
    Unknown,
    /// The service does not answer.
    Unreachable,
    /// The service did not answer in time.
    Timeout,
    /// No byte moved for as long as the stream may be idle.
    Idle,
    /// The link was down for longer than the stream can wait.
    Expired,
    /// Ended by an operator.
    Killed,
    /// It held more memory than there is.
    Memory,
    /// The other side no longer knows it.
    Lost,
    /// The bytes break the protocol.
    Protocol,
    /// The peer is draining.
    Draining,
    /// A number that this version does not know.
    Other(u64),
}

/// Every code with its number and the word that logs show.
const CODES: [(Code, u64, &str); 13] = [
    (Code::Aborted, 1, "aborted"),
    (Code::Busy, 2, "busy"),
    (Code::Denied, 3, "denied"),
    (Code::Unknown, 4, "unknown service"),
    (Code::Unreachable, 5, "unreachable"),
    (Code::Timeout, 6, "timeout"),
    (Code::Idle, 7, "idle"),
    (Code::Expired, 8, "expired while the link was down"),
    (Code::Killed, 9, "killed"),
    (Code::Memory, 10, "out of memory"),
    (Code::Lost, 11, "lost by the other side"),
    (Code::Protocol, 12, "protocol error"),
    (Code::Draining, 13, "draining"),
];

impl Code {
    /// Its number on the wire.
    pub fn number(self) -> u64 {
        match self {
            Code::Other(number) => number,
            known => CODES.iter().find(|(code, ..)| *code == known).map_or(0, |(_, number, _)| *number),
        }
    }

    /// What `number` stands for.
    pub fn of(number: u64) -> Code {
        CODES.iter().find(|(_, known, _)| *known == number).map_or(Code::Other(number), |(code, ..)| *code)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, CODES.iter().find(|(code, ..)| code == self)) {
            (Code::Other(number), _) => write!(f, "code {number}"),
            (_, Some((.., word))) => f.pad(word),
            (_, None) => f.pad("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CODES, Code};

    #[test]
    fn every_code_survives_its_number() {
        for (at, (code, number, _)) in (1..).zip(CODES) {
            assert_eq!((code.number(), Code::of(number)), (at, code));
        }
        assert_eq!(Code::of(99), Code::Other(99));
        assert_eq!(Code::Other(99).number(), 99);
    }
}
