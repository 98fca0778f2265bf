//! What a route changes of requests and answers: their path, their host, their fields.

use crate::fields::Fields;
use crate::host::HostPattern;
use crate::http_match::{HttpMatch, is_token, is_value};
use crate::node::{Entry, Node};
use crate::path_pattern::{PathPattern, Segment};
use crate::place::{Place, Spot};
use crate::problem::Problems;

/// What a route changes of requests and answers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rewrite {
    /// The path that upstreams are asked for; none: the one that came.
    pub path: Option<PathRewrite>,
    /// The host that upstreams are asked for; none: the one that came.
    pub host: Option<String>,
    /// The fields of requests.
    pub request: Edits,
    /// The fields of answers.
    pub response: Edits,
}

/// A path made of pieces of the one that came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathRewrite {
    /// How many segments of the path are matched by the route, or stripped.
    pub matched: usize,
    /// What it is made of.
    pub parts: Vec<PathPart>,
}

/// One piece of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PathPart {
    /// This segment, as it is spelled in a path.
    Text(String),
    /// The segment of this number, from 0, as it came.
    Segment(usize),
    /// All that stands behind the matched segments.
    Rest,
}

/// How fields are changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Edits {
    /// Name and value of those that stand there once, whatever came.
    pub set: Vec<(String, String)>,
    /// Name and value of those that stand there beside what came.
    pub add: Vec<(String, String)>,
    /// Those that do not stand there.
    pub remove: Vec<String>,
}

/// Reads the keys of a route that change requests and answers. `matches` is what it takes, if nothing was
/// wrong with that.
pub(crate) fn read(fields: &mut Fields, matches: Option<&HttpMatch>, problems: &mut Problems) -> Rewrite {
    let mut rewrite = Rewrite::default();
    if let Some(mut table) = fields.table_if_written("rewrite") {
        let (path_place, strip_place) = (table.place_of("path"), table.place_of("strip_prefix"));
        let (path, strip) = (table.maybe::<PathPattern>("path"), table.maybe::<PathPattern>("strip_prefix"));
        rewrite.host = table.maybe("host");
        table.done();
        rewrite.path = match (path, strip, matches) {
            (Some(_), Some(_), _) => {
                let error = problems.error(strip_place, "`strip_prefix` means nothing beside `path`");
                error.hint("write what is left as {rest} in `path`");
                None
            }
            (Some(path), None, Some(matches)) => made(&path, path_place, matches, problems),
            (None, Some(strip), Some(matches)) => stripped(&strip, strip_place, matches, problems),
            _ => None,
        };
    }
    rewrite.request = edits(fields, "request_headers", problems);
    rewrite.response = edits(fields, "response_headers", problems);
    rewrite
}

/// `/v2/{id}/{rest}`: names stand for segments of the route's path, and `{rest}` for what is behind it.
fn made(
    path: &PathPattern,
    place: Place,
    matches: &HttpMatch,
    problems: &mut Problems,
) -> Option<PathRewrite> {
    if path.exact {
        problems.error(place, "`path`: \"=\" has no place in a path that is made").hint("take it away");
        return None;
    }
    let known = matches.path.as_ref().map_or(&[][..], |path| &path.segments);
    let at = |name: &str| known.iter().position(|it| matches!(it, Segment::Any(known) if known == name));
    let mut parts = Vec::with_capacity(path.segments.len());
    for (number, segment) in path.segments.iter().enumerate() {
        parts.push(match segment {
            Segment::Literal(_) => PathPart::Text(segment.to_string()),
            Segment::Any(name) => match at(name) {
                Some(at) => PathPart::Segment(at),
                None if name == "rest" && number + 1 == path.segments.len() => PathPart::Rest,
                None if name == "rest" => {
                    problems.error(place, "`path`: {rest} stands for all that follows, so it is the last");
                    return None;
                }
                None => {
                    let message = format!("`path`: the path of the route has no segment called {{{name}}}");
                    let error = problems.error(place, message);
                    error.hint("{rest} is what stands behind the route's path");
                    return None;
                }
            },
        });
    }
    Some(PathRewrite { matched: known.len(), parts })
}

/// The path without what it begins with.
fn stripped(
    strip: &PathPattern,
    place: Place,
    matches: &HttpMatch,
    problems: &mut Problems,
) -> Option<PathRewrite> {
    let (strip, count) = (strip.unnamed(), strip.segments.len());
    let route = matches.path.as_ref().map(PathPattern::unnamed).unwrap_or_default();
    if strip.exact || !route.segments.starts_with(&strip.segments) {
        let message = "`strip_prefix` is not what the route's `path` begins with";
        problems.error(place, message).hint("write the path, or its first segments");
        return None;
    }
    Some(PathRewrite { matched: count, parts: vec![PathPart::Rest] })
}

fn edits(fields: &mut Fields, key: &str, problems: &mut Problems) -> Edits {
    let Some(mut table) = fields.table_if_written(key) else { return Edits::default() };
    let (set, add) = (table.value::<FieldValues>("set"), table.value::<FieldValues>("add"));
    let remove: Vec<Spot<String>> = table.list("remove");
    table.done();
    let set_names = set.0.iter().map(|(name, _)| name);
    let all = set_names.clone().chain(add.0.iter().map(|(name, _)| name)).chain(&remove);
    for name in all {
        if let Some(instead) = reserved(&name.value, key == "request_headers") {
            let message = format!("`{key}` cannot change \"{}\", which is the server's own", name.value);
            problems.error(name.place, message).maybe(|| instead.map(Into::into));
        }
    }
    for name in remove.iter().filter(|gone| set_names.clone().any(|set| same(&set.value, &gone.value))) {
        let message = format!("`{key}` removes \"{}\", which it sets", name.value);
        problems.error(name.place, message).hint("`set` replaces what came");
    }
    let plain = |values: FieldValues| {
        values.0.into_iter().map(|(name, value)| (name.value, value)).collect::<Vec<_>>()
    };
    Edits { set: plain(set), add: plain(add), remove: remove.into_iter().map(|name| name.value).collect() }
}

fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Fields that frame a message, end at one hop or say where a request comes from; of some, how they are
/// changed.
fn reserved(name: &str, request: bool) -> Option<Option<&'static str>> {
    const BOTH: [&str; 12] = [
        "connection",
        "content-length",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    const REQUEST: [&str; 3] = ["expect", "via", "x-request-id"];
    let name = name.to_ascii_lowercase();
    if BOTH.contains(&name.as_str()) {
        return Some(None);
    }
    match &*name {
        "host" if request => Some(Some("write rewrite = { host = \"…\" }")),
        name if request && (matches!(name, "forwarded" | "x-real-ip") || name.starts_with("x-forwarded")) => {
            Some(Some("`forwarded` says which of them are sent"))
        }
        name if request && (REQUEST.contains(&name) || name.starts_with("x-tieline-")) => Some(None),
        _ => None,
    }
}

/// A host, with a port or without.
pub(crate) fn authority(text: &str) -> Result<String, String> {
    let ends = text.rfind(':').filter(|colon| !text[*colon..].contains(']'));
    let (host, port) = ends.map_or((text, None), |colon| (&text[..colon], Some(&text[colon + 1..])));
    let host_sound = matches!(host.parse(), Ok(HostPattern::Exact(_)));
    if host_sound && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Ok(text.to_ascii_lowercase());
    }
    let message =
        format!("\"{text}\" is no host; write one like \"shop.internal\" or \"shop.internal:8080\"");
    Err(message)
}

/// The name of a field or a cookie.
pub(crate) fn token(text: &str) -> Result<String, String> {
    if is_token(text) {
        return Ok(text.into());
    }
    Err(format!("\"{text}\" is no name; letters, digits and hyphens make one"))
}

/// Names of fields and their values.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldValues(pub(crate) Vec<(Spot<String>, String)>);

/// Reads a table of fields; what has a problem is told and left out.
pub(crate) fn field_values(key: &str, entries: &[Entry], problems: &mut Problems) -> FieldValues {
    let mut values: Vec<(Spot<String>, String)> = Vec::new();
    for Entry { name, value } in entries {
        let Node::Text(text) = &value.value else {
            let message = format!(
                "`{key}`: \"{}\" takes a text like \"1\", not {}",
                name.value,
                value.value.describe()
            );
            problems.error(value.place, message);
            continue;
        };
        if !is_token(&name.value) {
            problems.error(name.place, format!("`{key}`: \"{}\" is no name of a field", name.value));
        } else if !is_value(text) {
            let message =
                format!("`{key}`: no field \"{}\" has a value with line ends or space around it", name.value);
            problems.error(value.place, message);
        } else if let Some((first, _)) = values.iter().find(|(other, _)| same(&other.value, &name.value)) {
            let message = format!("`{key}` has \"{}\" already, in line {}", name.value, first.place.line);
            problems.error(name.place, message).hint("fields are not told apart by case");
        } else {
            values.push((name.clone(), text.clone()));
        }
    }
    FieldValues(values)
}
