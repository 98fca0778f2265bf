//! Health probes: the first words exchanged with a server, enough to know that it serves.
//!
//! Each probe is a state machine without I/O. The caller connects, sends [`Conversation::first`], feeds what
//! arrives to [`Conversation::on_bytes`] (and the end of the stream to [`Conversation::on_close`]) until a
//! verdict comes, then sends [`Conversation::farewell`] and closes. The caller owns the deadline.
//!
//! No probe logs in: there is no password to leak and nothing to configure on the server. What that costs is
//! a line in the log of a server that reports every login it refused; each probe's module says which.

mod grpc;
mod http;
mod mysql;
mod postgres;
mod redis;
mod text;

/// The most bytes that a server may answer before a verdict. Handshakes take some hundred, error texts a few
/// more.
pub const REPLY_MAX: usize = 16 * 1024;

/// How to find out whether a server is fit to be used.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Probe {
    /// It accepts a connection.
    Tcp,
    /// It answers `GET path` with a status from 200 to 399.
    Http {
        /// The request target. Bytes that may not stand there are percent-encoded, so no path can break the
        /// request.
        path: String,
        /// What the `Host` field says; treated likewise.
        host: String,
    },
    /// It serves, by the word of its `grpc.health.v1.Health`.
    Grpc {
        /// The service that is asked for; empty for the server as a whole. Cut at 100 bytes.
        service: String,
        /// What the `Host` field says.
        host: String,
    },
    /// It takes logins, as `pg_isready` understands it.
    Postgres,
    /// It takes logins: MySQL and MariaDB.
    MySql,
    /// It answers `PING`: Redis and Valkey.
    Redis,
}

impl Probe {
    /// Whether it is one request and one answer, as a connection that many share can carry them.
    pub fn is_exchange(&self) -> bool {
        matches!(self, Probe::Http { .. } | Probe::Grpc { .. })
    }

    /// Begins a conversation on a new connection; `None` when being connected is all that was to be shown.
    pub fn start(&self) -> Option<Conversation> {
        let (first, talk) = match self {
            Probe::Tcp => return None,
            Probe::Http { path, host } => (http::request(path, host), Talk::Http),
            Probe::Grpc { service, host } => (grpc::request(service, &http::encoded(host)), Talk::Grpc),
            Probe::Postgres => (postgres::startup(), Talk::Postgres),
            Probe::MySql => (Vec::new(), Talk::MySql(mysql::Login::default())),
            Probe::Redis => (redis::PING.to_vec(), Talk::Redis),
        };
        Some(Conversation { first, talk, unread: Vec::new(), received: 0, farewell: &[] })
    }
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Read on.
    NeedMore,
    /// Send this, then read on.
    Send(Vec<u8>),
    /// The server is fit.
    Healthy,
    /// It is not; one line without control characters, with the server's own words where it had any.
    Unhealthy(String),
}

/// One probe under way.
#[derive(Clone, Debug)]
pub struct Conversation {
    first: Vec<u8>,
    talk: Talk,
    /// Bytes of a message that is not whole.
    unread: Vec<u8>,
    received: usize,
    farewell: &'static [u8],
}

#[derive(Clone, Debug)]
enum Talk {
    Http,
    Grpc,
    Postgres,
    MySql(mysql::Login),
    Redis,
}

/// What a protocol makes of the bytes at hand.
enum Heard {
    /// No message is whole.
    Nothing,
    /// A message of this many bytes that decides nothing.
    Skip(usize),
    /// A message of this many bytes that wants an answer.
    Answer(usize, Vec<u8>),
    /// Fit; these bytes take leave in the way the server likes.
    Healthy(&'static [u8]),
    /// Unfit, and why.
    Unhealthy(String),
}

impl Conversation {
    /// What to send before anything is read; may be empty.
    pub fn first(&self) -> &[u8] {
        &self.first
    }

    /// What to send after the verdict, before closing, so that the server does not log a lost connection; may
    /// be empty.
    pub fn farewell(&self) -> &[u8] {
        self.farewell
    }

    /// Takes the next bytes from the server, however they were cut. Not to be called again after a verdict.
    pub fn on_bytes(&mut self, bytes: &[u8]) -> Step {
        // Nothing behind REPLY_MAX is looked at, so the verdict does not depend on how the bytes were cut.
        let bytes = &bytes[..bytes.len().min(REPLY_MAX - self.received)];
        self.received += bytes.len();
        self.unread.extend_from_slice(bytes);
        let mut answers = Vec::new();
        loop {
            let heard = match &mut self.talk {
                Talk::Http => http::hear(&self.unread),
                Talk::Grpc => grpc::hear(&self.unread),
                Talk::Postgres => postgres::hear(&self.unread),
                Talk::MySql(login) => login.hear(&self.unread),
                Talk::Redis => redis::hear(&self.unread),
            };
            match heard {
                Heard::Skip(length) => drop(self.unread.drain(..length)),
                Heard::Answer(length, answer) => {
                    self.unread.drain(..length);
                    answers.extend(answer);
                }
                Heard::Healthy(farewell) => {
                    self.farewell = farewell;
                    return Step::Healthy;
                }
                Heard::Unhealthy(why) => return Step::Unhealthy(why),
                Heard::Nothing if self.received == REPLY_MAX => {
                    return Step::Unhealthy(format!("answered {REPLY_MAX} bytes that decide nothing"));
                }
                Heard::Nothing if answers.is_empty() => return Step::NeedMore,
                Heard::Nothing => return Step::Send(answers),
            }
        }
    }

    /// The server closed the connection before a verdict: says why that is unhealthy.
    pub fn on_close(&self) -> String {
        match self.received {
            0 => "closed the connection without an answer".into(),
            received => format!("closed the connection after {received} bytes that decide nothing"),
        }
    }
}

#[cfg(test)]
mod tests;
