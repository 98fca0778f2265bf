//! Which way a request goes: the routes of one listener, pure, and the same answer for the same request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tieline_conn::Route;
use tieline_registry::RouteRow;
use tieline_wire::http1::match_form;

use crate::guard::Guards;
use crate::mirror::Mirror;
use crate::rewrite::{Edits, Rewrite};
use crate::session::Session;
use crate::split::Split;
use crate::tries::Retry;

/// What a route wants of a request. What is empty is not looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Match {
    /// Its hosts, in lower case; `*.example.com` stands for every name with one label more.
    pub hosts: Vec<String>,
    /// Its path.
    pub path: PathMatch,
    /// Its methods.
    pub methods: Vec<String>,
    /// Header fields: the name, and the value that one of them must have; `None` for any.
    pub headers: Vec<(String, Option<String>)>,
    /// Parameters of the query, likewise.
    pub query: Vec<(String, Option<String>)>,
}

/// A path by its segments, which lie between slashes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PathMatch {
    /// The segments that it begins with; `None` stands for any one segment.
    pub segments: Vec<Option<String>>,
    /// Whether nothing may follow them.
    pub exact: bool,
}

/// What a route does with a request.
#[derive(Debug)]
pub enum Action {
    /// It is forwarded.
    Forward,
    /// It is sent elsewhere: the parts of the URL, and the status.
    Redirect(Vec<Part>, u16),
    /// It is answered at once.
    Respond {
        /// The status.
        status: u16,
        /// The body.
        body: String,
        /// What the body is.
        media_type: String,
    },
}

/// A piece of where a redirect leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// As it is.
    Text(String),
    /// The host that was asked, without its port.
    Host,
    /// The path that was asked for.
    Path,
    /// The query, with its question mark, if there is one.
    Query,
}

/// A route, what it does, and how long each thing may take where it leads.
#[derive(Debug)]
pub struct Target {
    /// The route.
    pub route: Arc<Route>,
    /// What it does.
    pub action: Action,
    /// What stands before it.
    pub guards: Option<Guards>,
    /// What it changes of requests and answers.
    pub rewrite: Option<Box<Rewrite>>,
    /// How its clients come back to the endpoint that served them.
    pub session: Option<Arc<Session>>,
    /// Where copies of its requests are sent.
    pub mirror: Option<Arc<Mirror>>,
    /// From the whole request sent to the first byte of its answer.
    pub first_byte: Duration,
    /// Between two bytes of an answer.
    pub gap: Duration,
    /// When another endpoint is asked.
    pub retry: Retry,
}

impl Target {
    /// How it changes the fields of answers.
    pub(crate) fn edits(&self) -> Option<&Edits> {
        self.rewrite.as_deref().map(|rewrite| &rewrite.response)
    }
}

/// A request as routes see it: each part in the one form in which it is also forwarded.
pub(crate) struct Ask<'a> {
    /// In lower case, without a port.
    pub(crate) host: &'a str,
    /// Decoded once.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) method: &'a str,
    pub(crate) header: &'a HasField<'a>,
}

/// Whether a field of this name has a value that fits.
pub(crate) type HasField<'a> = dyn Fn(&str, &mut dyn FnMut(&[u8]) -> bool) -> bool + 'a;

/// The routes of one listener.
#[derive(Debug, Default)]
pub struct Site {
    exact: HashMap<Box<str>, Vec<usize>>,
    /// By what stands behind the `*`, dot included.
    wildcard: HashMap<Box<str>, Vec<usize>>,
    anywhere: Vec<usize>,
    entries: Vec<(Match, Split)>,
}

impl Site {
    /// The site of these routes. The most exact wins: a host over a wildcard over none; then an exact path,
    /// the longest prefix, literal segments over any; then more conditions; then the order given.
    pub fn new(entries: Vec<(Match, Split)>) -> Self {
        let mut site = Site { entries, ..Site::default() };
        let mut order: Vec<usize> = (0..site.entries.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(rank(&site.entries[at].0)));
        for at in order {
            let hosts = &site.entries[at].0.hosts;
            if hosts.is_empty() {
                site.anywhere.push(at);
            }
            for host in hosts {
                match host.strip_prefix('*') {
                    Some(suffix) => site.wildcard.entry(suffix.into()).or_default().push(at),
                    None => site.exact.entry(host.as_str().into()).or_default().push(at),
                }
            }
        }
        site
    }

    /// The route of `ask`.
    pub(crate) fn find(&self, ask: &Ask<'_>) -> Option<&Split> {
        let fitting = |list: &Vec<usize>| list.iter().copied().find(|&at| fits(&self.entries[at].0, ask));
        let named = || self.exact.get(ask.host).and_then(fitting);
        let covered = || {
            let dot = if self.wildcard.is_empty() { None } else { ask.host.find('.') };
            dot.and_then(|dot| self.wildcard.get(&ask.host[dot..])).and_then(fitting)
        };
        let found = named().or_else(covered).or_else(|| fitting(&self.anywhere));
        found.map(|at| &self.entries[at].1)
    }

    /// What the route `old` is by this config: the same route to the same upstream, or to another if it no
    /// longer leads there.
    pub(crate) fn heir(&self, old: &RouteRow) -> Option<&Arc<Target>> {
        let targets = self.entries.iter().flat_map(|(_, split)| split.targets());
        let mut same = targets.filter(|target| target.route.row.identity == old.identity).peekable();
        let first = same.peek().copied();
        same.find(|target| target.route.row.upstream_name() == old.upstream_name()).or(first)
    }
}

/// Greater is more exact.
fn rank(wanted: &Match) -> (bool, usize, usize, usize) {
    let literal = wanted.path.segments.iter().filter(|segment| segment.is_some()).count();
    let conditions = usize::from(!wanted.methods.is_empty()) + wanted.headers.len() + wanted.query.len();
    (wanted.path.exact, wanted.path.segments.len(), literal, conditions)
}

fn fits(wanted: &Match, ask: &Ask<'_>) -> bool {
    wanted.path.fits(ask.path)
        && (wanted.methods.is_empty() || wanted.methods.iter().any(|method| method == ask.method))
        && wanted.headers.iter().all(|(name, value)| {
            (ask.header)(name, &mut |have| value.as_ref().is_none_or(|value| have == value.as_bytes()))
        })
        && wanted.query.iter().all(|(name, value)| asks_for(ask.query, name, value.as_deref()))
}

fn asks_for(query: Option<&str>, name: &str, value: Option<&str>) -> bool {
    let mut pairs =
        query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.any(|(key, have)| match_form(key) == name && value.is_none_or(|value| match_form(have) == value))
}

impl PathMatch {
    fn fits(&self, path: &str) -> bool {
        let mut rest = path.strip_prefix('/').unwrap_or(path);
        let mut more = true;
        for wanted in &self.segments {
            if !more {
                return false;
            }
            let (segment, behind) = match rest.split_once('/') {
                Some((segment, behind)) => (segment, Some(behind)),
                None => (rest, None),
            };
            let any = !segment.is_empty();
            if !wanted.as_ref().map_or(any, |literal| literal == segment) {
                return false;
            }
            more = behind.is_some();
            rest = behind.unwrap_or_default();
        }
        // A slash behind the last segment is another path to an exact match, and the same to a prefix.
        !self.exact || if self.segments.is_empty() { rest.is_empty() } else { !more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PathMatch {
        let (exact, text) = text.strip_prefix("= ").map_or((false, text), |text| (true, text));
        let segments = text.split('/').filter(|segment| !segment.is_empty());
        let segments =
            segments.map(|segment| (!segment.starts_with('{')).then(|| segment.to_owned())).collect();
        PathMatch { segments, exact }
    }

    #[test]
    fn a_path_matches_by_whole_segments() {
        for (wanted, asked, fits) in [
            ("/", "/", true),
            ("/", "/a/b", true),
            ("/a", "/a", true),
            ("/a", "/a/", true),
            ("/a", "/a/b", true),
            ("/a", "/ab", false),
            ("/a/b", "/a", false),
            ("/users/{id}", "/users/7", true),
            ("/users/{id}", "/users/7/posts", true),
            ("/users/{id}", "/users/", false),
            ("/users/{id}", "/users", false),
            ("= /a", "/a", true),
            ("= /a", "/a/", false),
            ("= /a", "/a/b", false),
            ("= /", "/", true),
            ("= /", "/a", false),
        ] {
            assert_eq!(path(wanted).fits(asked), fits, "{wanted} {asked}");
        }
    }

    #[test]
    fn the_query_is_looked_at_by_whole_names() {
        assert!(asks_for(Some("a=1&v=2"), "v", Some("2")));
        assert!(asks_for(Some("a=1&v"), "v", None));
        assert!(!asks_for(Some("a=1&vv=2"), "v", None));
        assert!(!asks_for(None, "v", None));
    }
}
