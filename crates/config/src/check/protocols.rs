//! Keys of upstreams, and the protocols of the listeners that lead there.

use std::collections::{BTreeSet, HashMap};

use crate::config::Config;
use crate::fields::Confined;
use crate::problem::Problems;
use crate::protocol::{Protocol, quoted};

/// Tells of keys that no protocol looks at which comes to their upstream. `confined` holds those of each
/// upstream, in the same order.
pub(crate) fn protocols(config: &Config, confined: &[Vec<Confined>], problems: &mut Problems) {
    // Beside an error it may be the error's own echo: the listener that leads there was refused.
    if problems.any_error() {
        return;
    }
    let mut spoken: HashMap<&str, BTreeSet<Protocol>> = HashMap::new();
    for listener in &config.live.listeners {
        for upstream in listener.routes.iter().filter_map(|route| route.upstream()) {
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
    }
}
