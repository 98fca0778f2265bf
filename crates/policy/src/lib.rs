//! Floor 1: who may use what. Nothing is allowed that a rule here did not allow.
//!
//! Owns the decision and its proof. A [`Permit`] has no public constructor: [`Rule::decide`] alone makes one,
//! and only a permit opens a pool, so a forgotten check does not compile. [`AdminPermit`] does the same for
//! the verbs of operators. Refuses to know sockets, config syntax and protocols. Start with [`Rule::decide`].

mod admin;
pub mod approval;
mod networks;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use tieline_base::ClientAddr;

pub use admin::{AdminPermit, AdminSubject, NotAdmin};
pub use networks::Networks;
pub use tieline_base::{Identity, Proved};

/// What a decision is made about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Where it speaks from: the socket's peer, or whom a trusted PROXY header names.
    pub client: ClientAddr,
    /// Who was proved.
    pub identity: &'a Identity,
}

/// Whom a route lets in.
#[derive(Clone, PartialEq, Debug)]
pub enum Access {
    /// Everybody.
    Public,
    /// Those that the allow-list names.
    Policy(Allow),
}

/// The short form of a policy: `allow = { from = [...], identity = [...] }`. Each condition that is there
/// must hold; where none is, nobody is let in.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Allow {
    /// Sources that may connect. A client on a unix socket has no source address and matches none.
    pub from: Option<Networks>,
    /// Those who may. Who proved nothing matches none.
    pub identity: Option<Names>,
}

/// Those who may, by their names and their groups.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// The names, among them those of all members of `groups` that are known beforehand.
    pub names: HashSet<Box<str>>,
    /// Groups that someone may have been proved to belong to.
    pub groups: HashSet<Box<str>>,
}

impl Names {
    fn hold(&self, proved: &Proved) -> bool {
        self.names.contains(&proved.name) || proved.groups.iter().any(|group| self.groups.contains(group))
    }
}

impl Allow {
    fn lets_in(&self, subject: &Subject<'_>) -> bool {
        let from = |from: &Networks| subject.client.ip().is_some_and(|ip| from.contains(ip));
        (self.from.is_some() || self.identity.is_some())
            && self.from.as_ref().is_none_or(from)
            && self
                .identity
                .as_ref()
                .is_none_or(|names| subject.identity.proved().is_some_and(|who| names.hold(who)))
    }
}

/// The rule of one route: what it guards, and whom it lets in.
#[derive(Clone, Debug)]
pub struct Rule(Arc<Terms>);

#[derive(Debug)]
struct Terms {
    route: Box<str>,
    upstream: Box<str>,
    place: Box<str>,
    access: Access,
}

impl Rule {
    /// The rule that guards `upstream` on `route`; `place` is its line in the config, for those who ask why.
    pub fn new(route: &str, upstream: &str, place: &str, access: Access) -> Self {
        Self(Arc::new(Terms { route: route.into(), upstream: upstream.into(), place: place.into(), access }))
    }

    /// Decides about `subject`: pure, and the same for the same rule and subject.
    ///
    /// # Errors
    /// [`Denied`], naming the rule that said no.
    pub fn decide(&self, subject: &Subject<'_>) -> Result<Permit, Denied> {
        let allowed = match &self.0.access {
            Access::Public => true,
            Access::Policy(allow) => allow.lets_in(subject),
        };
        if allowed { Ok(Permit(self.clone())) } else { Err(Denied(self.clone())) }
    }

    /// How the rule came to its word, for `show`.
    fn because(&self) -> &'static str {
        match &self.0.access {
            Access::Public => "access = \"public\"",
            Access::Policy(Allow { from: Some(_), identity: Some(_) }) => "allow.from and allow.identity",
            Access::Policy(Allow { identity: Some(_), .. }) => "allow.identity",
            Access::Policy(_) => "allow.from",
        }
    }
}

/// Proof that policy said yes, to one upstream, by one rule.
#[derive(Clone, Debug)]
pub struct Permit(Rule);

impl Permit {
    /// The upstream that it opens.
    pub fn upstream(&self) -> &str {
        &self.0.0.upstream
    }

    /// The route whose rule said yes.
    pub fn route(&self) -> &str {
        &self.0.0.route
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of route \"{}\" ({})", self.because(), self.0.route, self.0.place)
    }
}

impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "allowed by {}", self.0)
    }
}

/// Policy said no. For operators: strangers are told nothing of it.
#[derive(Clone, Debug)]
pub struct Denied(Rule);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not allowed by {}", self.0)
    }
}

impl std::error::Error for Denied {}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(access: Access, client: ClientAddr) -> Result<Permit, Denied> {
        decide_about(access, client, &Identity::Anonymous)
    }

    fn decide_about(access: Access, client: ClientAddr, identity: &Identity) -> Result<Permit, Denied> {
        let rule = Rule::new("orders", "db", "tieline.toml:9", access);
        rule.decide(&Subject { client, identity })
    }

    fn proved(name: &str) -> Identity {
        let (name, by) = (name.into(), "a certificate".into());
        Identity::Proved(Arc::new(Proved { name, by, groups: Vec::new(), certificates: Vec::new() }))
    }

    fn names(names: &[&str]) -> Option<Names> {
        let names = names.iter().map(|&name| name.into()).collect();
        Some(Names { names, groups: HashSet::new() })
    }

    #[test]
    fn who_is_proved_to_belong_to_a_group_is_let_in_by_it() {
        let names = Names { names: HashSet::new(), groups: ["support".into()].into() };
        let access = Access::Policy(Allow { from: None, identity: Some(names) });
        let of = |groups: &[&str]| {
            let groups = groups.iter().map(|&group| group.into()).collect();
            let (name, by) = ("support".into(), "a token".into());
            Identity::Proved(Arc::new(Proved { name, by, groups, certificates: Vec::new() }))
        };
        let local = client("127.0.0.1:1");
        for (groups, allowed) in [
            (&["support"][..], true),
            (&["field", "support"], true),
            (&["Support"], false),
            // A name is no group.
            (&[], false),
        ] {
            assert_eq!(decide_about(access.clone(), local, &of(groups)).is_ok(), allowed, "{groups:?}");
        }
    }

    fn from(networks: &[&str]) -> Access {
        let from = networks.iter().map(|network| network.parse().unwrap()).collect();
        Access::Policy(Allow { from: Some(from), identity: None })
    }

    fn client(address: &str) -> ClientAddr {
        ClientAddr::from_socket(address.parse().unwrap())
    }

    #[test]
    fn an_empty_policy_denies_everybody() {
        for who in [client("127.0.0.1:1"), client("[::1]:1"), ClientAddr::Unix] {
            assert!(decide(from(&[]), who).is_err(), "{who}");
        }
    }

    #[test]
    fn a_permit_names_its_rule_and_a_denial_too() {
        let permit = decide(from(&["10.0.0.0/8"]), client("10.1.2.3:9")).unwrap();
        assert_eq!(permit.to_string(), "allowed by allow.from of route \"orders\" (tieline.toml:9)");
        assert_eq!(permit.upstream(), "db");
        let denied = decide(from(&["10.0.0.0/8"]), client("11.1.2.3:9")).unwrap_err();
        assert_eq!(denied.to_string(), "not allowed by allow.from of route \"orders\" (tieline.toml:9)");
    }

    #[test]
    fn who_proved_nothing_is_nobody_and_names_are_compared_whole() {
        let access = || Access::Policy(Allow { from: None, identity: names(&["ana", "bob"]) });
        let local = client("127.0.0.1:1");
        for (identity, allowed) in [
            (proved("ana"), true),
            (proved("bob"), true),
            (proved("Ana"), false),
            (proved("ana "), false),
            (proved("anna"), false),
            (proved(""), false),
            (Identity::Anonymous, false),
        ] {
            assert_eq!(decide_about(access(), local, &identity).is_ok(), allowed, "{identity:?}");
        }
        assert!(decide_about(Access::Policy(Allow::default()), local, &proved("ana")).is_err());
    }

    #[test]
    fn a_source_and_an_identity_must_both_hold() {
        let from = ["10.0.0.0/8".parse().unwrap()].into_iter().collect();
        let access = Access::Policy(Allow { from: Some(from), identity: names(&["ana"]) });
        let decide = |source, who: &str| decide_about(access.clone(), client(source), &proved(who));
        let permit = decide("10.0.0.1:1", "ana").unwrap();
        assert!(permit.to_string().starts_with("allowed by allow.from and allow.identity of"), "{permit}");
        assert!(decide("11.0.0.1:1", "ana").is_err());
        assert!(decide("10.0.0.1:1", "bob").is_err());
    }

    #[test]
    fn a_mapped_source_cannot_slip_past_an_ipv4_rule() {
        assert!(decide(from(&["10.0.0.0/8"]), client("[::ffff:10.1.2.3]:9")).is_ok());
        assert!(decide(from(&["::/0"]), client("[::ffff:10.1.2.3]:9")).is_err());
    }

    #[test]
    fn a_unix_client_matches_no_network_but_may_use_a_public_route() {
        assert!(decide(from(&["0.0.0.0/0", "::/0"]), ClientAddr::Unix).is_err());
        assert!(decide(Access::Public, ClientAddr::Unix).is_ok());
    }
}
