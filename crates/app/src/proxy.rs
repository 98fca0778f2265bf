//! Which proxy leads an agent, or a person, out of a network: what a file says, else the environment.

use anyhow::{Context, bail};
use tieline_base::{Address, Secret};
use tieline_config as config;
use tieline_tunnel::Proxy;

use crate::passwords;

/// Which way leads out.
pub(crate) enum Out {
    /// No proxy is named.
    Straight,
    /// One is named, and the server is reached past it.
    Past(Proxy),
    /// One is.
    Through(Proxy),
}

impl Out {
    /// What is to be gone through.
    pub(crate) fn proxy(&self) -> Option<&Proxy> {
        if let Out::Through(proxy) = self { Some(proxy) } else { None }
    }
}

/// The proxy of `written`, whose password is read; where the file names none, that of the environment, if
/// it is for `server`.
///
/// # Errors
/// What is wrong with it, in one line.
pub(crate) fn of(written: Option<&config::Proxy>, server: &Address) -> anyhow::Result<Option<Proxy>> {
    Ok(out(written, server)?.proxy().cloned())
}

/// The same, and why there is none.
///
/// # Errors
/// What is wrong with it, in one line.
pub(crate) fn out(written: Option<&config::Proxy>, server: &Address) -> anyhow::Result<Out> {
    let Some(written) = written else { return named_outside(server) };
    let password = match &written.password_file {
        Some(path) => passwords::read(path).map_err(anyhow::Error::msg)?,
        None => Secret::new(String::new()),
    };
    let login = written.user.as_ref().map(|user| Secret::new(format!("{user}:{}", password.reveal())));
    Ok(Out::Through(Proxy { address: written.address.clone(), login }))
}

/// The proxy that the environment names for `server`.
///
/// # Errors
/// It names one that cannot be.
pub(crate) fn from_environment(server: &Address) -> anyhow::Result<Option<Proxy>> {
    Ok(named_outside(server)?.proxy().cloned())
}

/// The proxy of an argument, which every process of the machine may see.
///
/// # Errors
/// It holds a password, or is none.
pub(crate) fn without_password(text: &str) -> anyhow::Result<Proxy> {
    let proxy = parse(text).context("--proxy")?;
    if proxy.login.as_ref().is_some_and(|login| !login.reveal().ends_with(':')) {
        bail!("--proxy holds a password, which `ps` shows to everybody; put it into HTTPS_PROXY");
    }
    Ok(proxy)
}

fn named_outside(server: &Address) -> anyhow::Result<Out> {
    let either = |upper: &str, lower: &str| {
        let found = [upper, lower].into_iter().find_map(|name| std::env::var(name).ok());
        found.filter(|text| !text.is_empty())
    };
    let Some(text) = either("HTTPS_PROXY", "https_proxy") else { return Ok(Out::Straight) };
    let past = either("NO_PROXY", "no_proxy").unwrap_or_default();
    // What a URL says may be a password.
    let read = parse(&text).context("HTTPS_PROXY in the environment")?;
    Ok(if leads_past(&past, server) { Out::Past(read) } else { Out::Through(read) })
}

/// `http://[user[:password]@]host[:port]`.
fn parse(text: &str) -> anyhow::Result<Proxy> {
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some(_) => bail!("is no proxy of plain HTTP, like http://proxy.internal:3128"),
        None => text,
    };
    let rest = rest.trim_end_matches('/');
    let (login, host) = match rest.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, rest),
    };
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let whole = if has_port { host.to_owned() } else { format!("{host}:80") };
    let address: Address = whole.parse().map_err(|_| anyhow::anyhow!("names no host"))?;
    if !matches!(address, Address::Socket(_) | Address::Name { .. }) {
        bail!("names no host");
    }
    let login = login.map(|login| match login.split_once(':') {
        Some((user, password)) => format!("{}:{}", decoded(user), decoded(password)),
        None => format!("{}:", decoded(login)),
    });
    Ok(Proxy { address, login: login.map(Secret::new) })
}

/// RFC 3986 §2.1. What is no escape stays as it is.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, others @ ..] = rest {
        let escaped = match others {
            [high, low, ..] if *first == b'%' => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                digit(high).zip(digit(low)).map(|(high, low)| (high * 16 + low) as u8)
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &others[2..] } else { others };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether `past`, as `NO_PROXY` has it, names the host of `server`: by its name, its domain, its address
/// or `*`.
fn leads_past(past: &str, server: &Address) -> bool {
    let text = server.to_string();
    let host = text.rsplit_once(':').map_or(text.as_str(), |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    past.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        let domain = entry.trim_start_matches('*').trim_start_matches('.');
        let network = || entry.parse::<ipnet::IpNet>().ok().zip(host.parse::<std::net::IpAddr>().ok());
        entry == "*"
            || host == domain
            || (!domain.is_empty() && host.strip_suffix(domain).is_some_and(|sub| sub.ends_with('.')))
            || network().is_some_and(|(network, ip)| network.contains(&ip))
    })
}

#[cfg(test)]
mod tests {
    use super::{leads_past, parse};

    #[test]
    fn a_proxy_is_read_with_who_asks() {
        for (text, address, login) in [
            ("http://proxy.test:3128", "proxy.test:3128", None),
            ("HTTP://proxy.test/", "proxy.test:80", None),
            ("10.0.0.1:8080", "10.0.0.1:8080", None),
            ("http://[2001:db8::1]", "[2001:db8::1]:80", None),
            ("http://ana:p%40ss%3A%zz@proxy.test:3128/", "proxy.test:3128", Some("ana:p@ss:%zz")),
            ("http://ana@proxy.test", "proxy.test:80", Some("ana:")),
        ] {
            let proxy = parse(text).unwrap();
            assert_eq!(proxy.address.to_string(), address, "{text}");
            assert_eq!(proxy.login.as_ref().map(|login| login.reveal()), login, "{text}");
        }
        for text in ["https://proxy.test", "socks5://a:1", "http://", "unix:/x", "agent:a/b"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.contains("://a:1"), "{error}");
        }
    }

    #[test]
    fn some_servers_are_reached_past_the_proxy() {
        for (past, server, expected) in [
            ("", "gate.test:443", false),
            ("*", "gate.test:443", true),
            ("gate.test", "gate.test:443", true),
            ("other.test, .Test", "gate.test:443", true),
            ("test", "gate.test:443", true),
            ("ate.test", "gate.test:443", false),
            ("*.test", "gate.test:443", true),
            ("10.0.0.0/8", "10.1.2.3:443", true),
            ("10.0.0.0/8", "11.1.2.3:443", false),
            ("2001:db8::/32", "[2001:db8::1]:443", true),
        ] {
            assert_eq!(leads_past(past, &server.parse().unwrap()), expected, "{past} {server}");
        }
    }
}
