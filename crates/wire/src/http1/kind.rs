//! What a field is to a proxy.

/// What a field is to a proxy, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Kind {
    /// For the other end: passed on as it is.
    #[default]
    Plain,
    /// The authority that the client means.
    Host,
    /// One way to say how long the body is.
    ContentLength,
    /// The other way.
    TransferEncoding,
    /// Options of this hop, and names of fields for this hop only.
    Connection,
    /// How long this hop stays open.
    KeepAlive,
    /// Protocols that this hop could switch to.
    Upgrade,
    /// Whether this hop may carry trailers.
    Te,
    /// Any other field for this hop only: by its name, or because `Connection` names it.
    HopByHop,
    /// Says where the client is: `Forwarded`, `X-Forwarded-*`, `X-Real-IP`. Believed from nobody but known
    /// proxies.
    Forwarding,
    /// What single products take for the client's address, or for what it asked for: `True-Client-IP`,
    /// `X-Original-URL` and the like. Passed on for known proxies, and for nobody else.
    Claim,
    /// Never passed on: `Proxy` (CGI takes it for a setting), names with `_` and all that CGI takes for one
    /// of those here, and `X-Tieline-*`, in which nobody but us says who the client is and what is a copy.
    Dropped,
    /// What the client waits for before it sends the body.
    Expect,
    /// The proxies on the way.
    Via,
    /// `X-Request-Id`.
    RequestId,
    /// When the answer was made.
    Date,
    /// Who made the answer.
    Server,
    /// Credentials for the other end.
    Authorization,
    /// Sessions of the other end.
    Cookie,
    /// A new session.
    SetCookie,
    /// Names of trailers to come.
    Trailer,
    /// Ports of an endpoint, which we may not serve.
    AltSvc,
    /// `Tieline-Attempt`: it was tried elsewhere before.
    Attempt,
    /// `Tieline-Priority`: it is less important than its way says.
    Priority,
    /// `Accept`.
    Accept,
}

impl Kind {
    /// What `name`, a token, says by itself.
    pub fn of(name: &[u8]) -> Kind {
        match Self::of_word(name) {
            Kind::Plain if name.iter().any(|byte| is_odd(*byte)) && is_alias(name) => Kind::Dropped,
            kind => kind,
        }
    }

    /// [`Kind::of`] a name that has nothing but letters, digits and hyphens.
    #[inline]
    pub(super) fn of_word(name: &[u8]) -> Kind {
        match known(name) {
            Kind::Plain if is_forwarded(name) => Kind::Forwarding,
            Kind::Plain if is_ours(name) => Kind::Dropped,
            kind => kind,
        }
    }

    /// RFC 9110 §7.6.1: ends at this hop, whatever the forwarder thinks of it.
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Kind::TransferEncoding
                | Kind::Connection
                | Kind::KeepAlive
                | Kind::Upgrade
                | Kind::Te
                | Kind::HopByHop
        )
    }

    /// Whether it says something of this hop or of the body, for [`Facts`](super::facts::Facts) to gather.
    #[inline]
    pub(super) const fn decides(self) -> bool {
        matches!(
            self,
            Kind::Host
                | Kind::ContentLength
                | Kind::TransferEncoding
                | Kind::Connection
                | Kind::Upgrade
                | Kind::Te
                | Kind::Expect
                | Kind::KeepAlive
                | Kind::Authorization
        )
    }

    /// What no `Connection` field may take away: this hop has decided by it, and the next one must see the
    /// same.
    pub(super) const fn is_end_to_end(self) -> bool {
        matches!(
            self,
            Kind::Host | Kind::ContentLength | Kind::Authorization | Kind::Cookie | Kind::SetCookie
        )
    }
}

/// The names that mean something here. Length and first letter decide first: they tell most fields apart.
fn known(name: &[u8]) -> Kind {
    let Some(first) = name.first() else { return Kind::Plain };
    match (name.len(), first | 0x20) {
        (2, b't') if is(name, b"te") => Kind::Te,
        (3, b'v') if is(name, b"via") => Kind::Via,
        (4, b'h') if is(name, b"host") => Kind::Host,
        (4, b'd') if is(name, b"date") => Kind::Date,
        (5, b'p') if is(name, b"proxy") => Kind::Dropped,
        (6, b'c') if is(name, b"cookie") => Kind::Cookie,
        (6, b'e') if is(name, b"expect") => Kind::Expect,
        (6, b'a') if is(name, b"accept") => Kind::Accept,
        (6, b's') if is(name, b"server") => Kind::Server,
        (7, b'u') if is(name, b"upgrade") => Kind::Upgrade,
        (7, b't') if is(name, b"trailer") => Kind::Trailer,
        (7, b'a') if is(name, b"alt-svc") => Kind::AltSvc,
        (9, b'x') if is(name, b"x-real-ip") => Kind::Forwarding,
        (9, b'f') if is(name, b"forwarded") => Kind::Forwarding,
        (9, b'c') if is(name, b"client-ip") => Kind::Claim,
        (10, b'c') if is(name, b"connection") => Kind::Connection,
        (10, b'k') if is(name, b"keep-alive") => Kind::KeepAlive,
        (10, b's') if is(name, b"set-cookie") => Kind::SetCookie,
        (11, b'x') if is(name, b"x-client-ip") => Kind::Claim,
        (12, b'x') if is(name, b"x-request-id") => Kind::RequestId,
        (13, b'a') if is(name, b"authorization") => Kind::Authorization,
        (13, b'x') if is(name, b"x-rewrite-url") => Kind::Claim,
        (14, b'c') if is(name, b"content-length") => Kind::ContentLength,
        (14, b'h') if is(name, b"http2-settings") => Kind::HopByHop,
        (14, b't') if is(name, b"true-client-ip") => Kind::Claim,
        (14, b'x') if is(name, b"x-original-url") => Kind::Claim,
        (15, b't') if is(name, b"tieline-attempt") => Kind::Attempt,
        (15, b'x') if is(name, b"x-original-host") => Kind::Claim,
        (16, b'c') if is(name, b"cf-connecting-ip") => Kind::Claim,
        (16, b'f') if is(name, b"fastly-client-ip") => Kind::Claim,
        (16, b't') if is(name, b"tieline-priority") => Kind::Priority,
        (16, b'p') if is(name, b"proxy-connection") => Kind::HopByHop,
        (17, b't') if is(name, b"transfer-encoding") => Kind::TransferEncoding,
        (18, b'p') if is(name, b"proxy-authenticate") => Kind::HopByHop,
        (19, b'p') if is(name, b"proxy-authorization") => Kind::HopByHop,
        (19, b'x') if is(name, b"x-cluster-client-ip") => Kind::Claim,
        (24, b'x') if is(name, b"x-original-forwarded-for") => Kind::Claim,
        (25, b'p') if is(name, b"proxy-authentication-info") => Kind::HopByHop,
        _ => Kind::Plain,
    }
}

/// Equal but for case. Setting bit 5 makes a letter lower case and no other byte of a token one that stands
/// in `lower`, whose bytes are lower-case letters, digits and hyphens.
fn is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else { return false };
    name.iter().zip(lower).fold(0, |apart, (byte, lower)| apart | ((byte | 0x20) ^ lower)) == 0
}

fn is_forwarded(name: &[u8]) -> bool {
    matches!(name.first(), Some(b'x' | b'X')) && name.len() >= 11 && is(&name[..11], b"x-forwarded")
}

fn is_ours(name: &[u8]) -> bool {
    matches!(name.first(), Some(b'x' | b'X')) && name.len() >= 10 && is(&name[..10], b"x-tieline-")
}

/// Whether servers that hand fields on as variables (CGI, RFC 3875 §4.1.18) take `name`, which has something
/// else than letters, digits and hyphens, for a name that means something here: all of that becomes `_`.
#[cold]
fn is_alias(name: &[u8]) -> bool {
    if name.contains(&b'_') {
        return true;
    }
    let mut alias = [0; ALIAS_MAX];
    let length = name.len().min(ALIAS_MAX);
    for (to, from) in alias.iter_mut().zip(name) {
        *to = if is_odd(*from) { b'-' } else { *from };
    }
    Kind::of_word(&alias[..length]) != Kind::Plain
}

/// Longer than every name that means something here.
const ALIAS_MAX: usize = 32;

const fn is_odd(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() && byte != b'-'
}
