//! How a route keeps a client at its endpoint, and what it sends elsewhere beside.

use std::time::Duration;

use tieline_base::Percent;

use crate::action::Action;
use crate::fields::Fields;
use crate::place::Place;
use crate::problem::Problems;

/// How a client that was served by an endpoint comes back to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    /// The cookie that says which.
    pub cookie: String,
    /// How long after its last request it is remembered; none: as long as the browser keeps the cookie.
    pub ttl: Option<Duration>,
}

/// Where copies of requests are sent, whose answers nobody waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    /// The upstream: one of the config's.
    pub upstream: String,
    /// How many of all requests.
    pub percent: Percent,
    /// Where it stands.
    pub place: Place,
}

/// Reads `session`; one of a route that answers itself is told.
pub(crate) fn session(fields: &mut Fields, forwards: bool, problems: &mut Problems) -> Option<Session> {
    let mut table = fields.table_if_written("session")?;
    let place = table.place();
    let session = Session { cookie: table.value("cookie"), ttl: table.maybe("ttl") };
    table.done();
    if !forwards {
        problems.error(place, "`session` means nothing without `upstream`");
    }
    Some(session)
}

/// Reads `mirror`; one of a route that answers itself, or to where the route leads anyway, is told.
pub(crate) fn mirror(
    fields: &mut Fields,
    action: Option<&Action>,
    problems: &mut Problems,
) -> Option<Mirror> {
    let mut table = fields.table_if_written("mirror")?;
    let place = table.place();
    let upstream = table.take::<String>("upstream");
    let percent = table.value("percent");
    table.done();
    let upstream = upstream?;
    match action {
        Some(Action::Upstream(shares)) if shares.iter().any(|share| share.upstream == upstream.value) => {
            let message = format!("`mirror`: the route leads to upstream \"{}\" itself", upstream.value);
            problems.error(upstream.place, message).hint("write another [upstream.NAME] for the copies");
        }
        Some(Action::Redirect(_) | Action::Respond(_) | Action::Asked) => {
            problems.error(place, "`mirror` means nothing without `upstream`");
        }
        _ => {}
    }
    Some(Mirror { upstream: upstream.value, percent, place: upstream.place })
}
