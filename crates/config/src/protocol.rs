//! Which protocols there are, and which of them this version serves.

use std::fmt;

/// A protocol that a listener can speak.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// Bytes passed on unread.
    Tcp,
    /// Datagrams, by flow.
    Udp,
    /// HTTP/1.1 and HTTP/2.
    Http,
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
    /// Links of agents.
    Tunnel,
    /// WireGuard.
    Wireguard,
}

/// The protocols that this version serves. A later one is served by its name here, its keys and its crate.
pub const SERVED: &[Protocol] = &[Protocol::Tcp, Protocol::Http, Protocol::Postgres, Protocol::Tunnel];

impl Protocol {
    /// Every protocol, served or not.
    pub const ALL: [Protocol; 7] = [
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Http,
        Protocol::Postgres,
        Protocol::Mysql,
        Protocol::Tunnel,
        Protocol::Wireguard,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Http => "http",
            Protocol::Postgres => "postgres",
            Protocol::Mysql => "mysql",
            Protocol::Tunnel => "tunnel",
            Protocol::Wireguard => "wireguard",
        }
    }

    /// The protocol that `word` names.
    pub fn from_word(word: &str) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.as_str() == word)
    }

    /// Whether this version serves it.
    pub fn is_served(self) -> bool {
        SERVED.contains(&self)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `"tcp"`, or `"tcp", "udp" and "http"`: protocols in a sentence.
pub(crate) fn quoted(protocols: &[Protocol]) -> String {
    let words: Vec<_> = protocols.iter().map(|protocol| format!("\"{protocol}\"")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
        None => String::new(),
    }
}

/// The half-sentence that refuses a protocol: `not in this version; it serves: tcp, http`.
pub(crate) fn not_in_this_version() -> String {
    let served: Vec<_> = SERVED.iter().map(|protocol| protocol.as_str()).collect();
    format!("not in this version; it serves: {}", served.join(", "))
}
