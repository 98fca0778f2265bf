//! Where a listener accepts.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use tieline_base::{Address, AddressError};

/// An address to accept at: no name, because a name can mean another machine tomorrow.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BindAddress {
    /// An IP address and port; an IPv4-mapped IPv6 address is stored as IPv4, port 0 is any free port.
    Socket(SocketAddr),
    /// A unix socket's path.
    Unix(PathBuf),
}

/// Why a text is no address to accept at.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BindError {
    /// Not an address at all.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A host name.
    #[error("\"{text}\" is a name; write the IP address to listen on, like \"{usual}:{port}\"")]
    Name {
        /// What was written.
        text: String,
        /// The address that is probably meant.
        usual: &'static str,
        /// Its port.
        port: u16,
    },
    /// What an agent offers.
    #[error("\"{0}\" is a service that an agent offers, not an address to listen at")]
    Agent(String),
    /// A way to say "every address" that other programs know.
    #[error(
        "\"{0}\" has no IP address; write \"0.0.0.0:{1}\" for every IPv4 address \
         and \"[::]:{1}\" for every IPv6 one"
    )]
    Every(String, String),
}

impl FromStr for BindAddress {
    type Err = BindError;

    fn from_str(text: &str) -> Result<Self, BindError> {
        if let Some(port) = text.strip_prefix("*:").or_else(|| text.strip_prefix(':'))
            && port.parse::<u16>().is_ok()
        {
            return Err(BindError::Every(text.into(), port.into()));
        }
        match text.parse()? {
            Address::Socket(socket) => Ok(BindAddress::Socket(canonical(socket))),
            Address::Unix(path) => Ok(BindAddress::Unix(path)),
            Address::Agent(_) | Address::Group(_) => Err(BindError::Agent(text.into())),
            Address::Name { host, port } => {
                let usual = if host == "localhost" { "127.0.0.1" } else { "0.0.0.0" };
                Err(BindError::Name { text: text.into(), usual, port })
            }
        }
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindAddress::Socket(socket) => socket.fmt(f),
            BindAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl BindAddress {
    /// Whether machines other than this one can connect to it.
    pub fn is_public(&self) -> bool {
        matches!(self, BindAddress::Socket(socket) if !socket.ip().is_loopback())
    }
}

/// `socket`, its IPv4-mapped form undone.
pub(crate) fn canonical(socket: SocketAddr) -> SocketAddr {
    SocketAddr::new(socket.ip().to_canonical(), socket.port())
}

/// The address that means every address of the family of `ip`. Who binds it takes each of them: `[::]` is
/// every IPv6 address and no IPv4 one.
pub(crate) fn every_address_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_addresses_and_refuses_names() {
        let bind = |text: &str| text.parse::<BindAddress>();
        assert_eq!(bind("[::ffff:127.0.0.1]:80").unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(bind("unix:/run/x").unwrap().to_string(), "unix:/run/x");
        assert!(bind("localhost:80").unwrap_err().to_string().contains("like \"127.0.0.1:80\""));
        assert!(bind("*:80").unwrap_err().to_string().contains("\"[::]:80\""));
        assert!(bind(":80").unwrap_err().to_string().contains("\"0.0.0.0:80\""));
    }
}
