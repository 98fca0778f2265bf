//! Where bytes come from and go to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::labels::{LabelError, Labels};

/// An address as people write it: `10.0.0.5:5432`, `[::1]:80`, `db.example.com:5432`, `unix:/run/db.sock`,
/// `agent:plant-7/web` or `agent:site=berlin/web`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Address {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A DNS name and port, to be resolved.
    Name {
        /// The name, in lower case.
        host: String,
        /// The port.
        port: u16,
    },
    /// A unix socket's path.
    Unix(PathBuf),
    /// What an agent offers.
    Agent(FarService),
    /// The same of every agent that is labelled so.
    Group(FarGroup),
}

/// A service at a far site, reached through the link of the agent there.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FarService {
    /// The agent's name.
    pub agent: String,
    /// What the agent calls the service.
    pub service: String,
}

/// A service at any of the far sites whose agents have certain labels.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FarGroup {
    /// What their agents are labelled with, among others; at least one label.
    pub labels: Labels,
    /// What the agents call the service.
    pub service: String,
}

/// Whether `name` can be an agent's, or that of what one offers: 1 to 63 letters, digits, dots, hyphens and
/// underscores, of which the first is a letter or digit.
pub fn is_far_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let begins = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    begins && name.len() <= 63 && name.bytes().all(fits)
}

impl fmt::Display for FarService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "agent:{}/{}", self.agent, self.service)
    }
}

impl fmt::Display for FarGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "agent:{}/{}", self.labels, self.service)
    }
}

/// Why a text is no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// There is no `:port` at the end.
    #[error("\"{0}\" has no port; write host:port, [v6]:port or unix:/path")]
    NoPort(String),
    /// The part behind the last colon is no port.
    #[error("\"{0}\" does not end in a port from 0 to 65535")]
    BadPort(String),
    /// The part before the port is neither an IP address nor a host name.
    #[error("\"{0}\" is neither an IP address nor a host name; an IPv6 address stands in brackets: [::1]:80")]
    BadHost(String),
    /// A unix path that is empty, relative or too long for the kernel.
    #[error("\"{0}\" needs an absolute path of at most 107 bytes behind unix:")]
    BadPath(String),
    /// What stands behind `agent:` is no name, a slash and a name.
    #[error("\"{0}\" needs the name of an agent and of what it offers behind agent:, like agent:plant-7/web")]
    BadService(String),
    /// What stands behind `agent:` has labels, and they are none.
    #[error("\"{0}\": {1}")]
    BadLabels(String, LabelError),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).ok_or_else(|| AddressError::BadPath(text.into()));
        }
        if let Some(far) = text.strip_prefix("agent:") {
            return agent(far, text);
        }
        if let Ok(socket) = text.parse() {
            return Ok(Address::Socket(socket));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.into()))?;
        let port = port.parse().map_err(|_| AddressError::BadPort(text.into()))?;
        if !is_host_name(host) {
            return Err(AddressError::BadHost(text.into()));
        }
        Ok(Address::Name { host: host.to_ascii_lowercase(), port })
    }
}

/// `far` is what stands behind `agent:` in `text`.
fn agent(far: &str, text: &str) -> Result<Address, AddressError> {
    let bad = || AddressError::BadService(text.into());
    let (agent, service) = far.split_once('/').filter(|(_, service)| is_far_name(service)).ok_or_else(bad)?;
    let service = service.to_owned();
    if agent.contains('=') {
        let labels = agent.parse().map_err(|error| AddressError::BadLabels(text.into(), error))?;
        return Ok(Address::Group(FarGroup { labels, service }));
    }
    let agent = is_far_name(agent).then(|| agent.to_owned()).ok_or_else(bad)?;
    Ok(Address::Agent(FarService { agent, service }))
}

fn unix(path: &str) -> Option<Address> {
    // unix(7): sun_path holds 108 bytes with its closing NUL.
    let fits = path.starts_with('/') && path.len() <= 107 && !path.contains('\0');
    fits.then(|| Address::Unix(path.into()))
}

/// Whether `host` is a DNS host name. RFC 1123 §2.1 and RFC 952: letters, digits and hyphens in labels of 1
/// to 63, 253 in all. Underscores are let through, because service names carry them; a last label of digits
/// alone is a mistyped IP address.
pub fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(label) && !numeric
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(socket) => socket.fmt(f),
            Address::Name { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Agent(far) => far.fmt(f),
            Address::Group(group) => group.fmt(f),
        }
    }
}

/// Who speaks to us: the peer of an accepted socket, or whom a trusted PROXY header names in its place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ClientAddr {
    /// A TCP peer; IPv4-mapped IPv6 addresses are stored as IPv4, so that one rule covers both.
    Socket(SocketAddr),
    /// A process on this machine, by a unix socket.
    Unix,
}

impl ClientAddr {
    /// The peer `socket`, its IPv4-mapped form undone.
    pub fn from_socket(socket: SocketAddr) -> Self {
        ClientAddr::Socket(SocketAddr::new(socket.ip().to_canonical(), socket.port()))
    }

    /// The IP address, if it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            ClientAddr::Socket(socket) => Some(socket.ip()),
            ClientAddr::Unix => None,
        }
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Known by the word of a forwarder, which does not know the port.
            ClientAddr::Socket(socket) if socket.port() == 0 => socket.ip().fmt(f),
            ClientAddr::Socket(socket) => socket.fmt(f),
            ClientAddr::Unix => f.write_str("unix"),
        }
    }
}

/// Where an endpoint can be dialed: names are resolved by now.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum EndpointAddr {
    /// A TCP address.
    Socket(SocketAddr),
    /// A unix socket's path.
    Unix(Box<Path>),
    /// What an agent offers.
    Agent(Box<FarService>),
}

impl fmt::Display for EndpointAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointAddr::Socket(socket) => socket.fmt(f),
            EndpointAddr::Unix(path) => write!(f, "unix:{}", path.display()),
            EndpointAddr::Agent(far) => far.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, AddressError, ClientAddr};

    #[test]
    fn reads_every_form_and_prints_it_back() {
        let all = ["127.0.0.1:80", "[::1]:80", "db.example.com:5432", "unix:/run/x.sock", "_pg.local:1"];
        for text in all.into_iter().chain([
            "agent:plant-7/web",
            "agent:7.a_B/x",
            "agent:site=a/x",
            "agent:role=edge,site=a/x",
        ]) {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let error = |text: &str| text.parse::<Address>().unwrap_err();
        assert!(matches!(error("localhost"), AddressError::NoPort(_)));
        assert!(matches!(error("localhost:http"), AddressError::BadPort(_)));
        assert!(matches!(error("localhost:65536"), AddressError::BadPort(_)));
        for host in ["::1:80", "10.0.0:80", "10.0.0.256:80", "-a.b:1", "a..b:1", "a b:1", ":80"] {
            assert!(matches!(error(host), AddressError::BadHost(_)), "{host}");
        }
        for path in ["unix:", "unix:relative", &format!("unix:/{}", "x".repeat(107))] {
            assert!(matches!(error(path), AddressError::BadPath(_)), "{path}");
        }
    }

    #[test]
    fn a_far_service_is_two_names_and_nothing_else() {
        let long = format!("agent:a/{}", "x".repeat(64));
        for text in
            ["agent:", "agent:a", "agent:a/", "agent:/b", "agent:a/b/c", "agent:-a/b", "agent:a b/c", &long]
        {
            assert!(matches!(text.parse::<Address>(), Err(AddressError::BadService(_))), "{text}");
        }
    }

    #[test]
    fn a_mapped_client_is_its_ipv4_self() {
        let mapped = ClientAddr::from_socket("[::ffff:10.1.2.3]:9".parse().unwrap());
        assert_eq!(mapped.to_string(), "10.1.2.3:9");
    }
}
