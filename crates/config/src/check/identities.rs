//! What routes ask of identities, and what proves them.

use crate::access::{Access, Who};
use crate::config::Live;
use crate::group::Group;
use crate::listener::Listener;
use crate::problem::Problems;
use crate::protocol::Protocol;
use crate::suggest::did_you_mean;
use crate::tls::ListenerTls;
use crate::words::Auth;

/// Tells of groups that do not exist or can have no members, and of identities that nothing at their listener
/// proves.
pub(crate) fn identities(live: &Live, problems: &mut Problems) {
    // Tokens name groups, and are shown where tunnels end.
    let tokens = live.listeners.iter().any(|listener| listener.protocol == Protocol::Tunnel);
    for group in live.groups.iter().filter(|group| group.members.is_empty() && !tokens) {
        let message = format!("group \"{}\" has no members", group.name);
        problems.error(group.place, message).hint("write members = [\"ana\", \"bob@example.com\"]");
    }
    for listener in &live.listeners {
        let proves = proves_identities(listener);
        for route in &listener.routes {
            for who in route.approval.iter().flat_map(|approval| &approval.by).filter(|who| who.group) {
                tell_of_missing(who, &live.groups, problems);
            }
            let Access::Policy(allow) = &route.access else { continue };
            let Some(identity) = &allow.identity else { continue };
            for who in identity.iter().filter(|who| who.group) {
                tell_of_missing(who, &live.groups, problems);
            }
            if let Some(first) = identity.first().filter(|_| !proves) {
                let message = format!(
                    "`allow.identity` lets nobody in, because nothing at listener \"{}\" proves who \
                     a client is",
                    listener.name
                );
                let warning = problems.warning(first.place, message);
                warning.hint(match listener.protocol {
                    Protocol::Postgres => "write auth = \"scram\" there",
                    _ => "write tls = { certificate = ..., key = ..., client_ca = \"ca.pem\" } there",
                });
            }
        }
    }
}

fn proves_identities(listener: &Listener) -> bool {
    if listener.protocol == Protocol::Tunnel {
        return true;
    }
    if listener.protocol == Protocol::Postgres {
        return listener.auth != Auth::Trust;
    }
    match &listener.tls {
        Some(ListenerTls::Certificates(all)) => all.iter().any(|one| one.client.is_some()),
        Some(ListenerTls::SelfSigned) | None => false,
    }
}

fn tell_of_missing(who: &Who, groups: &[Group], problems: &mut Problems) {
    let known = || groups.iter().map(|group| group.name.as_str());
    if known().any(|name| name == who.name) {
        return;
    }
    let hint = did_you_mean(&who.name, known())
        .unwrap_or_else(|| format!("write [group.{}] and its members", who.name));
    problems.error(who.place, format!("group \"{}\" does not exist", who.name)).hint(hint);
}
