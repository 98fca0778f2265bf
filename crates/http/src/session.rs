//! Sessions: a cookie that brings a client back to the endpoint that served it.
//!
//! The cookie is sealed (AES-256-GCM-SIV): a client cannot read which endpoint it names, nor write another.
//! It says nothing else, and so proves nothing about who bears it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use data_encoding::BASE64URL_NOPAD;
use tieline_base::Clock;
use tieline_wire::http1::Fields;

use crate::cookies::cookies;

/// How the clients of a route come back.
#[derive(Debug)]
pub struct Session {
    /// The name of the cookie: a token.
    pub cookie: Box<str>,
    /// How long after its last request a client is remembered; as long as the browser keeps the cookie, if
    /// there is none.
    pub ttl: Option<Duration>,
    /// What seals the cookies.
    pub keys: Arc<SessionKeys>,
}

/// The keys that seal cookies. The first seals, all of them open: so that keys can be changed without losing
/// a session.
pub struct SessionKeys(Vec<RandomizedNonceKey>);

/// How long one key is, in bytes.
pub const SESSION_KEY_BYTES: usize = 32;

/// Where a client comes back to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket {
    /// The key of the upstream's name.
    pub(crate) upstream: u64,
    /// The key of the endpoint.
    pub(crate) endpoint: u64,
    /// Until when, in seconds since 1970; the highest number is for ever.
    until: u64,
}

const NONCE_BYTES: usize = 12;
const TICKET_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const SEALED_BYTES: usize = NONCE_BYTES + TICKET_BYTES + TAG_BYTES;

/// So many cookies of one name are tried: a client may bear those of several paths or domains.
const COOKIES_MAX: usize = 4;

impl SessionKeys {
    /// The keys of these bytes, the one that seals first; `None` if there is none.
    pub fn new(keys: &[[u8; SESSION_KEY_BYTES]]) -> Option<Self> {
        let keys = keys.iter().map(|key| RandomizedNonceKey::new(&AES_256_GCM_SIV, key));
        let keys: Vec<_> = keys.collect::<Result<_, _>>().ok()?;
        (!keys.is_empty()).then_some(Self(keys))
    }

    fn seal(&self, ticket: Ticket, cookie: &str) -> Option<String> {
        let Ticket { upstream, endpoint, until } = ticket;
        let mut sealed = [upstream, endpoint, until].map(u64::to_be_bytes).concat();
        let nonce = self.0.first()?.seal_in_place_append_tag(Aad::from(cookie), &mut sealed).ok()?;
        Some(BASE64URL_NOPAD.encode(&[&nonce.as_ref()[..], &sealed[..]].concat()))
    }

    fn open(&self, value: &[u8], cookie: &str) -> Option<Ticket> {
        // The length first: what is no cookie of ours costs next to nothing.
        if BASE64URL_NOPAD.decode_len(value.len()).ok()? != SEALED_BYTES {
            return None;
        }
        let bytes = BASE64URL_NOPAD.decode(value).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES)?;
        self.0.iter().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut sealed = sealed.to_vec();
            let opened = key.open_in_place(nonce, Aad::from(cookie), &mut sealed).ok()?;
            let (numbers, _) = opened.as_chunks::<8>();
            let [upstream, endpoint, until] = numbers else { return None };
            let [upstream, endpoint, until] = [upstream, endpoint, until].map(|it| u64::from_be_bytes(*it));
            Some(Ticket { upstream, endpoint, until })
        })
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKeys({})", self.0.len())
    }
}

impl Session {
    /// Where the client of a request comes back to; `None` if it was never here, or too long ago.
    pub(crate) fn of(&self, fields: &Fields<'_, '_>) -> Option<Ticket> {
        let tickets = cookies(fields, &self.cookie).take(COOKIES_MAX);
        let mut opened = tickets.filter_map(|value| self.keys.open(value, &self.cookie));
        opened.find(|ticket| ticket.until > now())
    }

    /// Whether the client needs a new cookie: more than half of the time is over, or it was promised more
    /// than the config in force does.
    pub(crate) fn is_aging(&self, ticket: &Ticket) -> bool {
        let Some(ttl) = self.ttl.map(|ttl| ttl.as_secs().max(1)) else { return false };
        let left = ticket.until.saturating_sub(now());
        // Sealed when sessions were to last longer, it lasts too long.
        left < ttl.div_ceil(2) || left > ttl
    }

    /// The `Set-Cookie` line that brings a client back to this endpoint of this upstream. `secure`: it asked
    /// by TLS.
    pub(crate) fn line(&self, upstream: u64, endpoint: u64, secure: bool) -> Option<Vec<u8>> {
        let until = self.ttl.map_or(u64::MAX, |ttl| now().saturating_add(ttl.as_secs().max(1)));
        let value = self.keys.seal(Ticket { upstream, endpoint, until }, &self.cookie)?;
        let age = self.ttl.map(|ttl| format!("; Max-Age={}", ttl.as_secs().max(1))).unwrap_or_default();
        let secure = if secure { "; Secure" } else { "" };
        let cookie = &self.cookie;
        let line = format!("Set-Cookie: {cookie}={value}; Path=/{age}; HttpOnly{secure}; SameSite=Lax\r\n");
        Some(line.into_bytes())
    }
}

fn now() -> u64 {
    Clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(firsts: &[u8]) -> SessionKeys {
        SessionKeys::new(&firsts.iter().map(|first| [*first; SESSION_KEY_BYTES]).collect::<Vec<_>>()).unwrap()
    }

    const TICKET: Ticket = Ticket { upstream: 1, endpoint: 2, until: u64::MAX };

    #[test]
    fn every_key_opens_and_the_first_one_seals() {
        let sealed = keys(&[1]).seal(TICKET, "sid").unwrap();
        assert_eq!(keys(&[1]).open(sealed.as_bytes(), "sid"), Some(TICKET));
        assert_eq!(keys(&[2, 1]).open(sealed.as_bytes(), "sid"), Some(TICKET));
        assert_eq!(keys(&[2]).open(sealed.as_bytes(), "sid"), None);
        assert_eq!(keys(&[1]).open(sealed.as_bytes(), "other"), None, "a cookie is good for its name alone");
        let renewed = keys(&[2, 1]).seal(TICKET, "sid").unwrap();
        assert_eq!(keys(&[2]).open(renewed.as_bytes(), "sid"), Some(TICKET));
        assert!(SessionKeys::new(&[]).is_none());
    }

    #[test]
    fn the_same_ticket_never_looks_the_same() {
        let keys = keys(&[1]);
        assert_ne!(keys.seal(TICKET, "sid"), keys.seal(TICKET, "sid"));
    }

    #[test]
    fn a_cookie_lives_as_long_as_it_says() {
        let session = |ttl| Session { cookie: "sid".into(), ttl, keys: Arc::new(keys(&[1])) };
        let hour = session(Some(Duration::from_secs(3_600)));
        let line = String::from_utf8(hour.line(1, 2, true).unwrap()).unwrap();
        assert!(line.starts_with("Set-Cookie: sid="), "{line}");
        assert!(line.ends_with("; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax\r\n"), "{line}");
        let plain = String::from_utf8(session(None).line(1, 2, false).unwrap()).unwrap();
        assert!(plain.ends_with("; Path=/; HttpOnly; SameSite=Lax\r\n"), "{plain}");
        let left = |seconds| Ticket { until: now() + seconds, ..TICKET };
        assert!(hour.is_aging(&left(1_000)) && !hour.is_aging(&left(2_000)));
        assert!(!hour.is_aging(&left(3_600)) && hour.is_aging(&left(4_000)) && hour.is_aging(&TICKET));
        assert!(!session(None).is_aging(&TICKET));
    }

    proptest! {
        /// No cookie but those that were sealed here leads anywhere.
        #[test]
        fn a_changed_cookie_is_none(at in 0usize..SEALED_BYTES, bit in 0u8..8) {
            let keys = keys(&[1]);
            let sealed = keys.seal(TICKET, "sid").unwrap();
            let mut bytes = BASE64URL_NOPAD.decode(sealed.as_bytes()).unwrap();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(keys.open(BASE64URL_NOPAD.encode(&bytes).as_bytes(), "sid"), None);
        }

        #[test]
        fn no_value_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(keys(&[1]).open(&value, "sid"), None);
        }
    }
}
