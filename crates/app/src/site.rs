//! The routes of an HTTP listener, from the config to what the data plane obeys.

use std::sync::Arc;
use std::time::Duration;

use tieline_config as config;
use tieline_conn::{HashBy, Route};
use tieline_http::{self as http, SessionKeys};

use crate::guards::Guards;
use crate::upstreams::retry;

/// A route as the config has it, compiled once for everything that it leads to.
pub(crate) struct Ways<'c> {
    pub(crate) written: &'c config::Route,
    /// Each of its upstreams, with its part of the requests; one without an upstream if it answers itself.
    pub(crate) shares: Vec<(u32, Arc<Route>)>,
    /// The way of copies.
    pub(crate) mirror: Option<Arc<Route>>,
}

/// The site of `routes`.
pub(crate) fn site(
    listener: &config::Listener,
    routes: Vec<Ways<'_>>,
    live: &config::Live,
    keys: Option<&Arc<SessionKeys>>,
    guards: &Guards,
) -> http::Site {
    let entries = routes.into_iter().filter_map(|ways| {
        let written = ways.written;
        let matches = http_match(&written.matches);
        let before = || guards.of(listener, written);
        Some((matches, split(ways, live, keys, before)?))
    });
    http::Site::new(entries.collect())
}

fn split(
    ways: Ways<'_>,
    live: &config::Live,
    keys: Option<&Arc<SessionKeys>>,
    guards: impl Fn() -> Option<http::Guards>,
) -> Option<http::Split> {
    let Ways { written, shares, mirror } = ways;
    let described = |route: &Route| live.upstream(route.row.upstream_name()?);
    let session = written.session.as_ref().zip(keys).map(|(session, keys)| {
        let (cookie, ttl, keys) = (session.cookie.as_str().into(), session.ttl, keys.clone());
        Arc::new(http::Session { cookie, ttl, keys })
    });
    let mirror = written.mirror.as_ref().zip(mirror).map(|(written, route)| {
        let patience = described(&route).map_or(Duration::ZERO, |upstream| upstream.first_byte_timeout);
        Arc::new(http::Mirror { route, percent: written.percent.0, patience })
    });
    let share = |(weight, route): (u32, Arc<Route>)| {
        let upstream = described(&route);
        let target = http::Target {
            action: action(&written.action),
            guards: guards(),
            rewrite: rewrite(&written.rewrite).map(Box::new),
            session: session.clone(),
            mirror: mirror.clone(),
            first_byte: upstream.map_or(Duration::ZERO, |upstream| upstream.first_byte_timeout),
            gap: upstream.map_or(Duration::ZERO, |upstream| upstream.gap_timeout),
            retry: upstream.map(retry).unwrap_or_default(),
            route,
        };
        http::Share { weight, target: Arc::new(target) }
    };
    let mut shares = shares.into_iter().map(share);
    let by = written.split_by.as_ref().map_or(HashBy::Nothing, hash_by);
    Some(http::Split::new(shares.next()?, shares.collect(), by))
}

/// What a choice is the same by.
pub(crate) fn hash_by(written: &config::HashBy) -> HashBy {
    match written {
        config::HashBy::Remote => HashBy::Remote,
        config::HashBy::Sni => HashBy::ServerName,
        config::HashBy::Header(name) => HashBy::Field(name.as_str().into()),
        config::HashBy::Cookie(name) => HashBy::Cookie(name.as_str().into()),
    }
}

fn http_match(written: &config::HttpMatch) -> http::Match {
    let condition = |condition: &config::Condition| {
        let value = match &condition.value {
            config::Expected::Present => None,
            config::Expected::Exactly(value) => Some(value.clone()),
        };
        (condition.name.clone(), value)
    };
    let segment = |segment: &config::Segment| match segment {
        config::Segment::Literal(text) => Some(text.clone()),
        config::Segment::Any(_) => None,
    };
    let path = written.path.as_ref().map(|path| http::PathMatch {
        segments: path.segments.iter().map(segment).collect(),
        exact: path.exact,
    });
    http::Match {
        hosts: written.hosts.iter().map(ToString::to_string).collect(),
        path: path.unwrap_or_default(),
        methods: written.methods.clone(),
        headers: written.headers.iter().map(condition).collect(),
        query: written.query.iter().map(condition).collect(),
    }
}

fn action(written: &config::Action) -> http::Action {
    match written {
        // `check` knows no other for HTTP.
        config::Action::Upstream(_) | config::Action::Asked => http::Action::Forward,
        config::Action::Redirect(redirect) => {
            let part = |part: &config::Part| match part {
                config::Part::Text(text) => http::Part::Text(text.clone()),
                config::Part::Host => http::Part::Host,
                config::Part::Path => http::Part::Path,
                config::Part::Query => http::Part::Query,
            };
            http::Action::Redirect(redirect.to.parts.iter().map(part).collect(), redirect.status)
        }
        config::Action::Respond(respond) => http::Action::Respond {
            status: respond.status,
            body: respond.body.clone(),
            media_type: respond.media_type.clone(),
        },
    }
}

/// What is changed of requests and answers; `None` if nothing is.
fn rewrite(written: &config::Rewrite) -> Option<http::Rewrite> {
    if *written == config::Rewrite::default() {
        return None;
    }
    let part = |part: &config::PathPart| match part {
        config::PathPart::Text(text) => http::PathPart::Text(text.as_str().into()),
        config::PathPart::Segment(at) => http::PathPart::Segment(*at),
        config::PathPart::Rest => http::PathPart::Rest,
    };
    let path = written.path.as_ref().map(|path| http::PathRewrite {
        matched: path.matched,
        parts: path.parts.iter().map(part).collect(),
    });
    let (request, response) = (edits(&written.request), edits(&written.response));
    Some(http::Rewrite { path, host: written.host.as_deref().map(Into::into), request, response })
}

fn edits(written: &config::Edits) -> http::Edits {
    let pair = |(name, value): &(String, String)| (name.as_str().into(), value.as_str().into());
    http::Edits {
        set: written.set.iter().map(pair).collect(),
        add: written.add.iter().map(pair).collect(),
        remove: written.remove.iter().map(|name| name.as_str().into()).collect(),
    }
}
