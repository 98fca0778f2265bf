//! What a route does with what it takes.

use crate::fields::{Fields, Taken};
use crate::http_match::is_token;
use crate::place::{Place, Spot};
use crate::problem::Problems;
use crate::protocol::Protocol;
use crate::target::Target;
use crate::value::Value;

/// What a route does with what it takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Sends it to one of these upstreams of the config; there is one at least.
    Upstream(Vec<Share>),
    /// Tells the client to ask elsewhere.
    Redirect(Redirect),
    /// Answers by itself.
    Respond(Respond),
    /// Leads to what the client asks for by name: to the service of an agent.
    Asked,
}

/// An upstream, and its part of the requests of a route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// The upstream's name.
    pub upstream: String,
    /// Its part of the sum of all weights; 0: none.
    pub weight: u32,
    /// Where it is named.
    pub place: Place,
}

/// The answer that tells a client to ask elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// Where.
    pub to: Target,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// An answer that is always the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Respond {
    /// From 200 to 599.
    pub status: u16,
    /// What follows the head; empty with 204, 205 and 304, which have none.
    pub body: String,
    /// The `Content-Type` of the body.
    pub media_type: String,
}

/// RFC 9110 §15.4: the statuses that send a client elsewhere. 300 leaves the choice to it, 304 answers
/// another question, 305 and 306 are no more.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// Reads the keys that say what a route does; `None` if that cannot be told, which has been told. The place
/// is that of the name or table that says it.
pub(crate) fn read(
    fields: &mut Fields,
    protocol: Option<Protocol>,
    problems: &mut Problems,
) -> Option<Spot<Action>> {
    let place = fields.place();
    let keys = ["upstream", "redirect", "respond"];
    let written: Vec<_> = keys.into_iter().filter(|key| fields.has(key)).collect();
    let lacking = keys.iter().all(|key| fields.lacks(key));
    let leads = written.contains(&"upstream");
    let upstream = fields.take::<Value>("upstream").and_then(|taken| upstream(taken, problems));
    let redirect = fields.table_if_written("redirect").and_then(|table| redirect(table, problems));
    let respond = fields.table_if_written("respond").and_then(|table| respond(table, problems));
    if protocol == Some(Protocol::Tunnel) {
        if leads {
            let error = problems
                .error(place, "a route of protocol \"tunnel\" leads to the service that is asked for");
            error.hint("take `upstream` away, and name services: service = \"plant-7/ssh\"");
        }
        return Some(Spot { value: Action::Asked, place });
    }
    match written[..] {
        [] if lacking => nothing(place, protocol, problems),
        [_, _, ..] => {
            let names: Vec<_> = written.iter().map(|key| format!("`{key}`")).collect();
            let message = format!("the route has {}, and can do one thing only", names.join(" and "));
            problems.error(place, message).hint("take one of them away, or write another route for it");
        }
        _ => {}
    }
    upstream.or(redirect).or(respond)
}

fn nothing(place: Place, protocol: Option<Protocol>, problems: &mut Problems) {
    let error = problems.error(place, "`upstream` is missing");
    error.hint(match protocol {
        Some(Protocol::Http) => "write upstream = \"orders\", or answer with `redirect` or `respond`",
        _ => "write upstream = \"orders\"",
    });
}

/// `"orders"`, or tables with a `name` and a `weight`.
fn upstream(Taken { value, place, .. }: Taken<Value>, problems: &mut Problems) -> Option<Spot<Action>> {
    let items = match value {
        Value::Text(upstream) => {
            let only = Share { upstream, weight: 1, place };
            return Some(Spot { value: Action::Upstream(vec![only]), place });
        }
        Value::List(items) => items,
        _ => return None,
    };
    let mut shares: Vec<Share> = Vec::with_capacity(items.len());
    for share in items.into_iter().filter_map(share) {
        match shares.iter().find(|other| other.upstream == share.upstream) {
            Some(_) => {
                let message = format!("`upstream` names \"{}\" twice", share.upstream);
                problems.error(share.place, message).hint("add their weights");
            }
            None => shares.push(share),
        }
    }
    if !shares.is_empty() && shares.iter().all(|share| share.weight == 0) {
        problems.error(place, "`upstream` has no share with a weight above 0, so requests go nowhere");
    }
    (!shares.is_empty()).then_some(Spot { value: Action::Upstream(shares), place })
}

fn share(item: Spot<Value>) -> Option<Share> {
    let Value::Table(mut fields) = item.value else { return None };
    let (name, weight) = (fields.take::<String>("name"), fields.whole("weight"));
    fields.done();
    let name = name?;
    Some(Share { upstream: name.value, weight: weight.unwrap_or(1), place: name.place })
}

fn redirect(mut fields: Fields, problems: &mut Problems) -> Option<Spot<Action>> {
    let place = fields.place();
    let status_place = fields.place_of("status");
    let (to, status) = (fields.maybe("to"), fields.whole("status"));
    fields.done();
    let (to, status) = (to?, status?);
    if !REDIRECTS.contains(&status) {
        let message =
            format!("`status`: {status} sends no client elsewhere; write 301, 302, 303, 307 or 308");
        problems.error(status_place, message);
    }
    Some(Spot { value: Action::Redirect(Redirect { to, status }), place })
}

fn respond(mut fields: Fields, problems: &mut Problems) -> Option<Spot<Action>> {
    let place = fields.place();
    let body_place = fields.place_of("body");
    let (status, body, media_type) = (fields.whole("status"), fields.value("body"), fields.value("type"));
    fields.done();
    let respond = Respond { status: status?, body, media_type };
    // RFC 9110 §15.3.5, §15.3.6 and §15.4.5.
    if matches!(respond.status, 204 | 205 | 304) && !respond.body.is_empty() {
        problems.error(body_place, format!("an answer with status {} has no `body`", respond.status));
    }
    Some(Spot { value: Action::Respond(respond), place })
}

/// What a text is.
pub(crate) fn media_type(text: &str) -> Result<String, String> {
    // RFC 9110 §8.3.1: two tokens, and parameters that hold nothing that would end the field.
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let halves = essence.trim_end_matches(' ').split_once('/');
    let sound = halves.is_some_and(|(kind, rest)| is_token(kind) && is_token(rest));
    if sound && parameters.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return Ok(text.into());
    }
    Err(format!("\"{text}\" is no media type; write one like \"text/plain\""))
}
