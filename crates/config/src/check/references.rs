//! Routes and the upstreams they name.

use std::collections::HashSet;

use crate::listener::{Listener, ListenerDraft};
use crate::problem::Problems;
use crate::route::{Draft, Route};
use crate::suggest::did_you_mean;
use crate::upstream::Upstream;

/// Ties routes to the upstreams that they name. Tells of names that no upstream bears, and of upstreams that
/// nothing names.
pub(crate) fn references(
    drafts: Vec<ListenerDraft>,
    upstreams: &[Upstream],
    problems: &mut Problems,
) -> Vec<Listener> {
    let known: HashSet<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    let mut used = HashSet::new();
    let mut tied = |draft: Draft| -> Option<Route> {
        let mut sound = true;
        for (name, place) in draft.route.named_upstreams() {
            if known.contains(name) {
                used.insert(name.to_owned());
                continue;
            }
            let error = problems.error(place, format!("upstream \"{name}\" does not exist"));
            error.maybe(|| Some(meant(name, upstreams)));
            sound = false;
        }
        sound.then_some(draft.route)
    };
    let tie = |ListenerDraft { mut listener, routes }| {
        listener.routes = routes.into_iter().filter_map(&mut tied).collect();
        listener
    };
    let listeners: Vec<Listener> = drafts.into_iter().map(tie).collect();
    for asked in listeners.iter().filter_map(|listener| listener.auth_query.as_ref()) {
        if !used.insert(asked.upstream.clone()) || known.contains(asked.upstream.as_str()) {
            continue;
        }
        let error = problems.error(asked.place, format!("upstream \"{}\" does not exist", asked.upstream));
        error.maybe(|| Some(meant(&asked.upstream, upstreams)));
    }
    let told = problems.any_error();
    // Beside an error it may be the error's own echo: the route that leads there was refused, or names it
    // wrongly.
    let idle = upstreams.iter().filter(|upstream| !used.contains(&upstream.name));
    for upstream in idle.filter(|_| !told) {
        problems.warning(upstream.place, format!("no route leads to upstream \"{}\"", upstream.name));
    }
    listeners
}

fn meant(name: &str, upstreams: &[Upstream]) -> String {
    let known = upstreams.iter().map(|upstream| upstream.name.as_str());
    did_you_mean(name, known).unwrap_or_else(|| format!("write [upstream.{name}] and its endpoints"))
}
