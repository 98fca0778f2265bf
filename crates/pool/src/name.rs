//! A configured name, and the addresses that it stands for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tieline_base::{Address, Clock, EndpointAddr, Moment};

use crate::addresses::{Pair, pair};

/// What the resolver said of a name. The families are asked for apart, and one may fail while the other
/// answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) v6: Result<Vec<Ipv6Addr>, String>,
    pub(crate) v4: Result<Vec<Ipv4Addr>, String>,
    /// How long the records live; `None` if there are none.
    pub(crate) ttl: Option<Duration>,
}

/// What is known of a name. A failure never takes addresses away: a resolver that is down, or that denies a
/// name which was there a minute ago, is more often wrong than right.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Name {
    pairs: Vec<Pair>,
    /// Whether there was an answer yet, a bad one included.
    pub(crate) asked: bool,
    pub(crate) error: Option<String>,
    /// Until when the records of the last answer live.
    pub(crate) lives_until: Option<Moment>,
}

impl Answer {
    /// Why it is of no use, if it is not.
    pub(crate) fn error(&self) -> Option<String> {
        match (&self.v6, &self.v4) {
            (Ok(v6), Ok(v4)) if v6.is_empty() && v4.is_empty() => Some("it has no addresses".into()),
            (Ok(v6), Err(error)) if v6.is_empty() => Some(error.clone()),
            (Err(error), Ok(v4)) if v4.is_empty() => Some(error.clone()),
            (Err(_), Err(error)) => Some(error.clone()),
            _ => None,
        }
    }
}

impl Name {
    /// Takes an answer for `address` of `upstream`; logs a change between working and not.
    pub(crate) fn take(&mut self, upstream: &str, address: &Address, answer: Answer) {
        self.asked = true;
        self.lives_until = answer.ttl.map(|ttl| Clock::now().after(ttl));
        let error = answer.error();
        match (&error, &self.error) {
            (Some(error), None) => {
                let kept = self.pairs.len();
                tracing::warn!(upstream, name = %address, error, kept, "name not resolved");
            }
            (None, Some(_)) => tracing::info!(upstream, name = %address, "name resolved again"),
            _ => {}
        }
        self.error = error;
        if self.error.is_none() {
            // A family that failed alone keeps its old addresses.
            let v6 = answer.v6.unwrap_or_else(|_| self.known(v6_of));
            let v4 = answer.v4.unwrap_or_else(|_| self.known(v4_of));
            self.pairs = pair(&self.pairs, &v6, &v4);
        }
    }

    /// The endpoints it stands for, each with its addresses in the order of dialing.
    pub(crate) fn endpoints(&self, port: u16) -> Vec<Box<[EndpointAddr]>> {
        let address = |ip| EndpointAddr::Socket(SocketAddr::new(ip, port));
        self.pairs.iter().map(|pair| pair.addresses().map(address).collect()).collect()
    }

    fn known<T>(&self, family: impl Fn(IpAddr) -> Option<T>) -> Vec<T> {
        self.pairs.iter().flat_map(|pair| pair.addresses()).filter_map(family).collect()
    }
}

/// The address, if it is of IPv6.
pub(crate) fn v6_of(ip: IpAddr) -> Option<Ipv6Addr> {
    match ip {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    }
}

/// The address, if it is of IPv4.
pub(crate) fn v4_of(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(v6: Result<&[&str], &str>, v4: Result<&[&str], &str>) -> Answer {
        fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(
            family: Result<&[&str], &str>,
        ) -> Result<Vec<T>, String> {
            Ok(family?.iter().map(|text| text.parse().unwrap()).collect())
        }
        Answer { v6: parsed(v6), v4: parsed(v4), ttl: Some(Duration::from_secs(1)) }
    }

    fn after(answers: &[Answer]) -> (Vec<String>, Option<String>) {
        let (mut name, address) = (Name::default(), "db.test:80".parse().unwrap());
        for answer in answers {
            name.take("db", &address, answer.clone());
        }
        let texts = name.endpoints(80).iter().flatten().map(ToString::to_string).collect();
        (texts, name.error)
    }

    #[test]
    fn a_failure_keeps_the_old_addresses_and_says_so() {
        let good = answer(Ok(&[]), Ok(&["10.0.0.1", "10.0.0.2"]));
        for bad in [answer(Err("down"), Err("down")), answer(Ok(&[]), Ok(&[])), answer(Ok(&[]), Err("down"))]
        {
            let (addresses, error) = after(&[good.clone(), bad]);
            assert_eq!(addresses, ["10.0.0.1:80", "10.0.0.2:80"]);
            assert!(error.is_some());
        }
    }

    #[test]
    fn a_family_that_fails_alone_keeps_its_own() {
        let both = answer(Ok(&["fd00::1"]), Ok(&["10.0.0.1"]));
        let half = answer(Err("timeout"), Ok(&["10.0.0.1"]));
        assert_eq!(after(&[both, half]), (vec!["[fd00::1]:80".into(), "10.0.0.1:80".into()], None));
    }

    #[test]
    fn a_new_answer_replaces_the_old() {
        let (old, new) = (answer(Ok(&[]), Ok(&["10.0.0.1"])), answer(Ok(&[]), Ok(&["10.0.0.9"])));
        assert_eq!(after(&[old, new]).0, ["10.0.0.9:80"]);
    }
}
