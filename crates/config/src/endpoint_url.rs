//! Endpoints as users of other proxies write them: `https://10.0.0.5:443`.

use tieline_base::Address;

use crate::agent::Service;
use crate::place::Place;
use crate::problem::Problems;
use crate::value::Wrong;

/// Whom to connect to, and by TLS or not if its spelling says so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Dialed {
    /// Whom.
    pub(crate) address: Address,
    /// What stands before it.
    pub(crate) scheme: Option<Scheme>,
}

/// The scheme of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scheme {
    /// Without TLS.
    Http,
    /// By TLS.
    Https,
}

impl Scheme {
    /// How it is written.
    pub(crate) const fn prefix(self) -> &'static str {
        match self {
            Scheme::Http => "http://",
            Scheme::Https => "https://",
        }
    }

    const fn usual_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }

    /// The scheme of `text` and what is behind it, with the usual port where there is none.
    pub(crate) fn split(text: &str) -> Option<(Scheme, String)> {
        let (scheme, rest) = [Scheme::Http, Scheme::Https].into_iter().find_map(|scheme| {
            let (prefix, rest) = text.split_at_checked(scheme.prefix().len())?;
            prefix.eq_ignore_ascii_case(scheme.prefix()).then_some((scheme, rest))
        })?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let has_port = rest.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let whole = if has_port { rest.to_owned() } else { format!("{rest}:{}", scheme.usual_port()) };
        Some((scheme, whole))
    }
}

/// Reads an endpoint as the file has it.
pub(crate) fn endpoint(text: &str) -> Result<Dialed, Wrong> {
    let Some((scheme, rest)) = Scheme::split(text) else {
        return Ok(Dialed { address: endpoint_address(text)?, scheme: None });
    };
    if let Some((authority, _)) = rest.split_once(['/', '?', '#']) {
        let message = format!("\"{text}\" has a path, and an endpoint is a server");
        let hint =
            format!("write \"{}{authority}\", and the path as `rewrite` of the route", scheme.prefix());
        return Err(Wrong::Hinted(message, hint));
    }
    let address = endpoint_address(&rest)?;
    if matches!(address, Address::Unix(_) | Address::Agent(_) | Address::Group(_)) {
        return Err(Wrong::Because(format!("\"{text}\" is no URL of a server")));
    }
    Ok(Dialed { address, scheme: Some(scheme) })
}

/// Reads where a service is that an agent offers.
pub(crate) fn service(text: &str) -> Result<Service, Wrong> {
    let Some(datagrams) = text.strip_prefix(UDP) else { return endpoint_address(text).map(Service::Stream) };
    match endpoint_address(datagrams)? {
        Address::Unix(_) | Address::Agent(_) => {
            Err(Wrong::Because(format!("\"{text}\" needs host and port behind udp:, like udp:10.0.0.53:53")))
        }
        address => Ok(Service::Datagrams(address)),
    }
}

/// What stands before where datagrams go.
const UDP: &str = "udp:";

fn endpoint_address(text: &str) -> Result<Address, Wrong> {
    if let Some(datagrams) = text.strip_prefix(UDP) {
        let hint = format!(
            "an agent offers it by [offer.NAME] to = \"{UDP}{datagrams}\", and `tieline connect AGENT/NAME \
             --listen udp:PORT` reaches it"
        );
        return Err(Wrong::Hinted(format!("\"{text}\" takes datagrams, and endpoints take streams"), hint));
    }
    if let Some((_, host)) = text.split_once("://") {
        let host = host.split('/').next().unwrap_or(host);
        return Err(Wrong::Hinted(
            format!("\"{text}\" is a URL"),
            format!("write host and port alone, like \"{host}\""),
        ));
    }
    let address = text.parse::<Address>().map_err(Wrong::because)?;
    let port = match &address {
        Address::Socket(socket) => Some(socket.port()),
        Address::Name { port, .. } => Some(*port),
        Address::Unix(_) | Address::Agent(_) | Address::Group(_) => None,
    };
    if port == Some(0) {
        return Err(Wrong::Because(format!("\"{text}\" has port 0, to which nobody can connect")));
    }
    match address {
        Address::Socket(socket) if socket.ip().is_unspecified() => {
            let local = if socket.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            let message = format!("\"{text}\" is an address to listen at, not one to connect to");
            Err(Wrong::Hinted(message, format!("did you mean \"{local}:{}\"?", socket.port())))
        }
        Address::Socket(socket) => Ok(Address::Socket(crate::bind::canonical(socket))),
        address => Ok(address),
    }
}

/// What the spelling of the endpoints says of all of them: all or none are spoken to by TLS.
pub(crate) fn scheme_of(
    endpoints: &[(Address, Place, Option<Scheme>)],
    speaks_postgres: bool,
    problems: &mut Problems,
) -> Option<Scheme> {
    let written = |(.., scheme): &&(Address, Place, Option<Scheme>)| scheme.is_some();
    let (address, place, scheme) = endpoints.iter().find(written)?;
    let scheme = (*scheme)?;
    if speaks_postgres {
        let message = format!("endpoint \"{address}\" is a URL of HTTP, and the upstream speaks PostgreSQL");
        problems.error(*place, message).hint("write host and port alone");
        return None;
    }
    let secure = |it: Option<Scheme>| it == Some(Scheme::Https);
    let first_is_secure = secure(endpoints.first().and_then(|(.., scheme)| *scheme));
    if let Some((other, place, _)) = endpoints.iter().find(|(.., it)| secure(*it) != first_is_secure) {
        let (first, ..) = &endpoints[0];
        let (by_tls, without) = if first_is_secure { (first, other) } else { (other, first) };
        let message =
            format!("endpoint \"{by_tls}\" is spoken to by TLS, and endpoint \"{without}\" without");
        problems.error(*place, message).hint("write https:// before all or none; else make two upstreams");
        return None;
    }
    Some(scheme)
}

#[cfg(test)]
mod tests {
    use super::Scheme;

    #[test]
    fn a_url_is_a_scheme_and_an_address() {
        for (text, expected) in [
            ("https://10.0.0.5:8443", Some((Scheme::Https, "10.0.0.5:8443"))),
            ("HTTPS://shop.test/", Some((Scheme::Https, "shop.test:443"))),
            ("http://[::1]", Some((Scheme::Http, "[::1]:80"))),
            ("http://[::1]:81", Some((Scheme::Http, "[::1]:81"))),
            ("ftp://a:1", None),
            ("10.0.0.5:80", None),
            ("http:/", None),
        ] {
            let split = Scheme::split(text);
            assert_eq!(split.as_ref().map(|(scheme, rest)| (*scheme, rest.as_str())), expected, "{text}");
        }
    }
}
