//! For whom a request speaks. What it says of that itself is believed from the forwarders that the config
//! trusts, and from nobody else.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tieline_base::{ClientAddr, Fault, Reason, Stage, Whose};
use tieline_policy::Networks;
use tieline_wire::http1::Fields;

/// For whom a request speaks, and what those between say of it.
#[derive(Debug)]
pub(crate) struct Speaking<'b> {
    /// The client: whom the last trusted forwarder names, else who holds the connection.
    pub(crate) client: ClientAddr,
    /// Whether who holds the connection is trusted to speak for others.
    pub(crate) trusted: bool,
    /// The forwarders between the client and us, and the client last; empty if there are none.
    pub(crate) hops: Vec<IpAddr>,
    /// How the client asked: `http`, `https`, `ws` or `wss`.
    pub(crate) scheme: Option<&'b str>,
    /// Whom the client asked.
    pub(crate) host: Option<&'b str>,
    /// What the request is called already.
    pub(crate) request_id: Option<&'b str>,
}

/// How many hops are looked at; nobody has so many, and each costs.
const HOPS_MAX: usize = 32;

/// How long the name of a request may be, in bytes.
const REQUEST_ID_MAX: usize = 128;

/// For whom a request with `fields` speaks that comes from `sender`.
///
/// # Errors
/// Its `X-Forwarded-For` and its `Forwarded` name two clients: one of them was not looked at by the forwarder
/// and may be anybody's word.
pub(crate) fn speaking<'b>(
    fields: &Fields<'_, 'b>,
    sender: ClientAddr,
    trusted: &Networks,
) -> Result<Speaking<'b>, Fault> {
    let nearest = sender.ip().filter(|ip| trusted.contains(*ip));
    let Some(nearest) = nearest else { return Ok(Speaking::of(sender)) };
    let listed: Vec<Element<'b>> = fields.all("x-forwarded-for").flat_map(addresses).collect();
    let elements: Vec<Element<'b>> = fields.all("forwarded").flat_map(elements).collect();
    let (by_list, by_elements) = (walk(nearest, &listed, trusted), walk(nearest, &elements, trusted));
    if !listed.is_empty() && !elements.is_empty() && by_list.last() != by_elements.last() {
        let fault = Fault::new(Stage::Settle, Whose::Client, Reason::ProtocolError);
        return Err(fault.because("X-Forwarded-For and Forwarded name two clients"));
    }
    // What was written of the client: by the first that is trusted.
    let own = elements.len().checked_sub(by_elements.len() - 1).and_then(|at| elements.get(at));
    let hops = if listed.is_empty() { by_elements } else { by_list };
    let client = match hops.last() {
        Some(ip) if hops.len() > 1 => ClientAddr::from_socket(SocketAddr::new(*ip, 0)),
        _ => sender,
    };
    Ok(Speaking {
        client,
        trusted: true,
        hops: if hops.len() > 1 { hops } else { Vec::new() },
        scheme: only(fields, "x-forwarded-proto").or_else(|| own?.proto).and_then(scheme),
        host: only(fields, "x-forwarded-host").or_else(|| own?.host).and_then(host),
        request_id: only(fields, "x-request-id").and_then(request_id),
    })
}

impl Speaking<'_> {
    /// It speaks for itself.
    pub(crate) fn of(client: ClientAddr) -> Self {
        Self { client, trusted: false, hops: Vec::new(), scheme: None, host: None, request_id: None }
    }
}

/// What one forwarder wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Element<'b> {
    /// Who spoke to it; `None` if that cannot be read, or is said to be unknown.
    node: Option<IpAddr>,
    host: Option<&'b [u8]>,
    proto: Option<&'b [u8]>,
}

/// From `nearest`, who is trusted, back to the client: as long as who speaks is trusted, whom it names is
/// next.
fn walk(nearest: IpAddr, written: &[Element<'_>], trusted: &Networks) -> Vec<IpAddr> {
    let mut hops = vec![nearest];
    let mut speaks = nearest;
    for element in written.iter().rev().take(HOPS_MAX) {
        let Some(node) = element.node.filter(|_| trusted.contains(speaks)) else { break };
        hops.push(node);
        speaks = node;
    }
    hops
}

fn addresses<'b>(value: &'b [u8]) -> impl Iterator<Item = Element<'b>> + use<'b> {
    let listed = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty());
    listed.map(|item| Element { node: node(item), ..Element::default() })
}

/// RFC 7239 §4.
fn elements<'b>(value: &'b [u8]) -> impl Iterator<Item = Element<'b>> + use<'b> {
    let written = unquoted_split(value, b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty());
    written.map(|item| {
        let mut element = Element::default();
        for pair in unquoted_split(item, b';') {
            let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { continue };
            let (name, value) = (pair[..equals].trim_ascii(), unquoted(pair[equals + 1..].trim_ascii()));
            match name {
                name if name.eq_ignore_ascii_case(b"for") => element.node = node(value),
                name if name.eq_ignore_ascii_case(b"host") => element.host = Some(value),
                name if name.eq_ignore_ascii_case(b"proto") => element.proto = Some(value),
                _ => {}
            }
        }
        element
    })
}

/// The pieces of `text` between those of `separator` that stand in no quotes.
fn unquoted_split<'b>(text: &'b [u8], separator: u8) -> impl Iterator<Item = &'b [u8]> + use<'b> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |byte| {
        let ends = !quoted && *byte == separator;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        ends
    })
}

/// What stands between the quotes, if it is quoted. Nothing that is read here needs an escape.
fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// RFC 7239 §6: an address, with a port or without; an IPv6 address with a port is in brackets.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let is_port = |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, port) = rest.split_once(']')?;
        let sound = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return ip.parse::<Ipv6Addr>().ok().filter(|_| sound).map(|ip| IpAddr::V6(ip).to_canonical());
    }
    let bare = || text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    bare().or_else(|| {
        let (ip, port) = text.split_once(':')?;
        ip.parse().ok().filter(|_| is_port(port)).map(IpAddr::V4)
    })
}

/// The value of the one field of this name; of two nobody knows which is meant.
fn only<'b>(fields: &Fields<'_, 'b>, name: &str) -> Option<&'b [u8]> {
    let mut values = fields.all(name);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

fn scheme(value: &[u8]) -> Option<&str> {
    let known = matches!(value, b"http" | b"https" | b"ws" | b"wss");
    std::str::from_utf8(value).ok().filter(|_| known)
}

fn host(value: &[u8]) -> Option<&str> {
    let sound = value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte));
    let fits = sound && (1..=255).contains(&value.len());
    std::str::from_utf8(value).ok().filter(|_| fits)
}

fn request_id(value: &[u8]) -> Option<&str> {
    let sound = value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._:/+=@".contains(byte));
    let fits = sound && (1..=REQUEST_ID_MAX).contains(&value.len());
    std::str::from_utf8(value).ok().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tieline_wire::http1::{Limits, Room, parse_request};

    fn trusted() -> Networks {
        ["10.0.0.0/8", "2001:db8:1::/48"].into_iter().map(|net| net.parse().unwrap()).collect()
    }

    /// What `lines` say, coming from `sender`: the client's IP address, and all else that is believed.
    fn said(sender: &str, lines: &[&str]) -> Result<(String, Option<String>, Option<String>), Reason> {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut room = Room::new();
        let limits = Limits { line: 8_192, head: 32_768, fields: 100 };
        let request = parse_request(head.as_bytes(), &limits, &mut room).unwrap();
        let sender = ClientAddr::from_socket(SocketAddr::new(sender.parse().unwrap(), 4_000));
        let speaking = speaking(&request.fields, sender, &trusted()).map_err(|fault| fault.reason)?;
        let client = speaking.client.ip().unwrap().to_string();
        Ok((client, speaking.scheme.map(Into::into), speaking.host.map(Into::into)))
    }

    fn client(sender: &str, lines: &[&str]) -> String {
        said(sender, lines).unwrap().0
    }

    #[test]
    fn the_client_is_found_from_the_right_and_only_by_those_who_are_trusted() {
        for (sender, lines, expected) in [
            ("192.0.2.1", &["X-Forwarded-For: 198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["X-Forwarded-For: 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["X-Forwarded-For: 1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["X-Forwarded-For: 1.1.1.1", "x-forwarded-for: 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["X-Forwarded-For: 1.1.1.1, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["X-Forwarded-For: 10.9.9.9, 10.0.0.2"], "10.9.9.9"),
            ("10.0.0.1", &["X-Forwarded-For: evil, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["X-Forwarded-For: unknown"], "10.0.0.1"),
            ("10.0.0.1", &["X-Forwarded-For: 198.51.100.7:8080"], "198.51.100.7"),
            ("10.0.0.1", &["X-Forwarded-For: [2001:db8::7]:8080"], "2001:db8::7"),
            ("10.0.0.1", &["X-Forwarded-For: 2001:db8::7"], "2001:db8::7"),
            ("10.0.0.1", &["X-Forwarded-For: ::ffff:198.51.100.7"], "198.51.100.7"),
            ("2001:db8:1::1", &["Forwarded: for=\"[2001:db8::7]:8080\";proto=https"], "2001:db8::7"),
            ("10.0.0.1", &["Forwarded: for=1.1.1.1, For=198.51.100.7;by=10.0.0.1"], "198.51.100.7"),
            ("10.0.0.1", &["Forwarded: for=198.51.100.7;ext=\"a, for=1.1.1.1\""], "198.51.100.7"),
            ("10.0.0.1", &["Forwarded: for=_hidden"], "10.0.0.1"),
            ("10.0.0.1", &["X-Forwarded-For: 2.2.2.2", "Forwarded: for=2.2.2.2"], "2.2.2.2"),
        ] {
            assert_eq!(client(sender, lines), expected, "{sender} {lines:?}");
        }
    }

    #[test]
    fn two_fields_that_name_two_clients_are_refused() {
        let both = ["X-Forwarded-For: 198.51.100.7", "Forwarded: for=10.1.1.1"];
        assert_eq!(said("10.0.0.1", &both), Err(Reason::ProtocolError));
        assert_eq!(client("192.0.2.1", &both), "192.0.2.1", "and nobody looks at those of others");
    }

    #[test]
    fn scheme_host_and_id_are_believed_if_they_are_ones() {
        let told = |lines: &[&str]| {
            let (_, scheme, host) = said("10.0.0.1", lines).unwrap();
            (scheme.unwrap_or_default(), host.unwrap_or_default())
        };
        let pair = |scheme: &str, host: &str| (scheme.to_owned(), host.to_owned());
        assert_eq!(told(&["X-Forwarded-Proto: https", "X-Forwarded-Host: a.b:1"]), pair("https", "a.b:1"));
        assert_eq!(told(&["X-Forwarded-Proto: https, http"]), pair("", ""));
        assert_eq!(told(&["X-Forwarded-Proto: https", "X-Forwarded-Proto: http"]), pair("", ""));
        assert_eq!(told(&["X-Forwarded-Host: a\"b"]), pair("", ""));
        let element = "Forwarded: for=9.9.9.9;host=evil;proto=http, for=2.2.2.2;host=\"a.b\";proto=https";
        assert_eq!(told(&[element]), pair("https", "a.b"));
        assert_eq!(request_id(b"9f-1.a:/+=@_"), Some("9f-1.a:/+=@_"));
        assert_eq!((request_id(b""), request_id(b"a b"), request_id(&[b'a'; 129])), (None, None, None));
    }

    proptest! {
        /// Whatever stands left of the first address that is not trusted changes nothing.
        #[test]
        fn what_a_client_writes_itself_changes_nothing(
            forged in "[ -~]{0,60}",
            between in prop::collection::vec(0u8..=255, 0..4),
        ) {
            let hops: String = between.iter().map(|last| format!(", 10.0.0.{last}")).collect();
            let line = format!("X-Forwarded-For: {forged}, 198.51.100.7{hops}");
            prop_assert_eq!(client("10.0.0.1", &[&line]), "198.51.100.7");
        }
    }
}
