//! Keys of upstreams, and the protocols of the listeners that lead there.

use std::collections::{BTreeSet, HashMap};

use crate::config::Config;
use crate::fields::Confined;
use crate::problem::Problems;
use crate::protocol::{Protocol, quoted};
use crate::route::Route;
use crate::upstream::{Balance, Upstream};
use crate::words::ProxyProtocolOut;

/// Tells of keys that no protocol looks at which comes to their upstream. `confined` holds those of each
/// upstream, in the same order.
pub(crate) fn protocols(config: &Config, confined: &[Vec<Confined>], problems: &mut Problems) {
    // Beside an error it may be the error's own echo: the listener that leads there was refused.
    if problems.any_error() {
        return;
    }
    let mut spoken: HashMap<&str, BTreeSet<Protocol>> = HashMap::new();
    for listener in &config.live.listeners {
        for upstream in listener.routes.iter().flat_map(Route::upstreams) {
            spoken.entry(upstream).or_default().insert(listener.protocol);
        }
    }
    for (upstream, keys) in config.live.upstreams.iter().zip(confined) {
        let Some(spoken) = spoken.get(upstream.name.as_str()) else { continue };
        for key in keys.iter().filter(|key| !key.protocols.iter().any(|it| spoken.contains(it))) {
            let spoken: Vec<_> = spoken.iter().copied().collect();
            let message = format!(
                "`{}` is for protocol {}, and what leads to upstream \"{}\" speaks {}",
                key.name,
                quoted(key.protocols),
                upstream.name,
                quoted(&spoken)
            );
            problems.error(key.place, message);
        }
        hash_of_requests(upstream, spoken, problems);
        announced(upstream, spoken, problems);
    }
}

/// A hash of what requests carry, where no request comes.
fn hash_of_requests(upstream: &Upstream, spoken: &BTreeSet<Protocol>, problems: &mut Problems) {
    let Balance::Hash(by) = &upstream.balance else { return };
    let other = spoken.iter().find(|protocol| **protocol != Protocol::Http);
    if let Some(other) = other.filter(|_| by.is_of_requests()) {
        let message = format!(
            "upstream \"{}\" hashes \"{by}\", which connections of protocol \"{other}\" do not have",
            upstream.name
        );
        problems.error(upstream.place, message).hint("write hash_by = \"remote\"");
    }
}

/// A PROXY header names one client for a whole connection; those of HTTP and PostgreSQL have many.
fn announced(upstream: &Upstream, spoken: &BTreeSet<Protocol>, problems: &mut Problems) {
    if upstream.proxy_protocol == ProxyProtocolOut::Off {
        return;
    }
    let (clients, hint) = if spoken.contains(&Protocol::Http) {
        ("HTTP", "take it away: requests name their client in X-Forwarded-For, or Forwarded")
    } else if spoken.contains(&Protocol::Postgres) {
        ("PostgreSQL", "take it away")
    } else {
        return;
    };
    let message = format!(
        "`proxy_protocol` of upstream \"{}\" names one client for a connection that {clients} clients \
         share",
        upstream.name
    );
    problems.error(upstream.place, message).hint(hint);
}
