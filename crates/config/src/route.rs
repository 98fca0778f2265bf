//! `[[listener.NAME.route]]` as it is obeyed.

use std::path::Path;
use std::time::Duration;

use tieline_base::Priority;

use crate::access::{self, Access};
use crate::action::{self, Action, Share};
use crate::api::{self, Api};
use crate::bandwidth::{self, Bandwidth};
use crate::far::FarMatch;
use crate::fields::Fields;
use crate::hash_by::HashBy;
use crate::http_match::{self, HttpMatch};
use crate::place::{Place, Spot};
use crate::postgres::{self, Count, Logins};
use crate::problem::Problems;
use crate::protocol::Protocol;
use crate::rate::{self, RateLimit};
use crate::rewrite::{self, Rewrite};
use crate::schedule::Schedule;
use crate::session::{self, Mirror, Session};
use crate::sni::Sni;
use crate::support::{self, Approval, FarTimeouts};
use crate::words::{PriorityWord, ReplicaReads, RouteRole};

/// What goes where, and for whom.
#[derive(Clone, PartialEq, Debug)]
pub struct Route {
    /// Its name: no other route of the listener bears it.
    pub name: String,
    /// Whether the file gives it that name.
    pub named: bool,
    /// Where it stands.
    pub place: Place,
    /// The names it takes; none: whatever no other route takes.
    pub sni: Vec<Sni>,
    /// The requests it takes; empty unless the listener speaks HTTP.
    pub matches: HttpMatch,
    /// The services of agents that it takes; empty unless the listener speaks `tunnel`.
    pub services: Vec<FarMatch>,
    /// The logins it takes; all unless the listener speaks PostgreSQL.
    pub logins: Logins,
    /// How many clients may be logged in to each of its databases; none: not said.
    pub connections: Option<Count>,
    /// Which servers of PostgreSQL it leads to; none: not said.
    pub role: Option<RouteRole>,
    /// What of it goes to replicas all the same.
    pub replica_reads: ReplicaReads,
    /// Whether its clients read there only what is as new as what they wrote.
    pub read_your_writes: bool,
    /// Whether it takes connections for replication too.
    pub replication: bool,
    /// What it does with what it takes.
    pub action: Action,
    /// By what requests are shared among its upstreams; none: each is drawn anew.
    pub split_by: Option<HashBy>,
    /// How often its requests may come.
    pub rates: Vec<RateLimit>,
    /// How many of them may be under way.
    pub concurrent: Option<u32>,
    /// How fast bytes may go by it.
    pub bandwidth: Option<Bandwidth>,
    /// What its requests must keep to.
    pub api: Option<Api>,
    /// What it changes of requests and answers.
    pub rewrite: Rewrite,
    /// How its clients come back to the endpoint that served them; none: they do not.
    pub session: Option<Session>,
    /// Where copies of its requests are sent.
    pub mirror: Option<Mirror>,
    /// Who decides about its connections.
    pub access: Access,
    /// Who has to agree before a far service is opened by it; none: nobody.
    pub approval: Option<Approval>,
    /// How long streams to far services may last.
    pub far_timeouts: FarTimeouts,
    /// How important what comes this way is.
    pub priority: Priority,
    /// When it is open; none: always.
    pub schedule: Option<Schedule>,
    /// How long live connections go on when it closed, or is gone.
    pub grace: Duration,
}

impl Route {
    /// The upstreams that it leads to: none if it answers itself.
    pub fn shares(&self) -> &[Share] {
        match &self.action {
            Action::Upstream(shares) => shares,
            Action::Redirect(_) | Action::Respond(_) | Action::Asked => &[],
        }
    }

    /// The names of the upstreams that it leads to.
    pub fn upstreams(&self) -> impl Iterator<Item = &str> {
        self.named_upstreams().map(|(name, _)| name)
    }

    /// The upstreams that it leads to or sends copies to, and where they are named.
    pub(crate) fn named_upstreams(&self) -> impl Iterator<Item = (&str, Place)> {
        let shares = self.shares().iter().map(|share| (share.upstream.as_str(), share.place));
        shares.chain(self.mirror.iter().map(|mirror| (mirror.upstream.as_str(), mirror.place)))
    }

    /// What makes it the same route in two configs: its name if the file gives it one, else what it takes.
    pub fn identity(&self) -> String {
        match (self.named, self.logins.is_any()) {
            (true, _) => self.name.clone(),
            (false, _) if !self.services.is_empty() => format!("{:?}", self.services),
            (false, true) => format!("{:?}", self.matches.unnamed()),
            (false, false) => format!("{:?}", self.logins),
        }
    }
}

/// A route as it stands in the file: its name may be missing, its upstream may not exist.
pub(crate) struct Draft {
    pub(crate) name: Option<Spot<String>>,
    pub(crate) sni: Vec<Spot<Sni>>,
    /// Whether it names no `sni` at all, not even one that was refused.
    pub(crate) takes_all: bool,
    /// Whether nothing was wrong with what it says about requests.
    pub(crate) match_sound: bool,
    /// Everything but its name.
    pub(crate) route: Route,
}

/// Reads one route; `None` if it does not say where it leads, which has been told.
/// `folder` is the config file's.
pub(crate) fn read(
    mut fields: Fields,
    protocol: Option<Protocol>,
    folder: &Path,
    problems: &mut Problems,
) -> Option<Draft> {
    let place = fields.place();
    let name = fields.take::<String>("name").map(|name| Spot { value: name.value, place: name.place });
    let takes_all = !fields.has("sni");
    let sni: Vec<Spot<Sni>> = fields.list("sni");
    let match_sound = ["host", "path", "method", "headers", "query", "database", "user", "service"]
        .iter()
        .all(|key| fields.is_sound_at(key));
    let matches = http_match::read(&mut fields, problems);
    let services = services(&mut fields, protocol);
    let logins = postgres::logins(&mut fields);
    let connections = Count::read(&mut fields, "connections");
    let role = fields.word("role", RouteRole::from_word);
    let (replica_reads, read_your_writes) = postgres::replica_reads(&mut fields, role, problems);
    let replication = fields.value("replication");
    let split_by = split_by(&mut fields, problems);
    let action = action::read(&mut fields, protocol, problems);
    let (rates, concurrent) = (rate::read(&mut fields), fields.whole("concurrent"));
    let api = api::read(&mut fields, folder, problems);
    let rewrite = rewrite::read(&mut fields, match_sound.then_some(&matches), problems);
    let forwards = action.as_ref().is_none_or(|it| matches!(it.value, Action::Upstream(_)));
    let bandwidth = bandwidth::read(&mut fields, forwards, problems);
    let session = session::session(&mut fields, forwards, problems);
    let mirror = session::mirror(&mut fields, action.as_ref().map(|it| &it.value), problems);
    let access = access::read(&mut fields, place, problems);
    let (approval, far_timeouts) = (support::approval(&mut fields), support::timeouts(&mut fields, problems));
    let priority = fields.word("priority", PriorityWord::from_word).map_or(Priority::Normal, priority);
    let schedule = schedule(fields.list("schedule"), problems);
    let grace = fields.value("grace");
    fields.done();
    let action = action?.value;
    let route = Route {
        name: String::new(),
        named: false,
        place,
        sni: sni.iter().map(|sni| sni.value.clone()).collect(),
        matches,
        services,
        logins,
        connections,
        role,
        replica_reads,
        read_your_writes,
        replication,
        split_by,
        action,
        rates,
        concurrent,
        bandwidth,
        api,
        rewrite,
        session,
        mirror,
        access,
        approval,
        far_timeouts,
        priority,
        schedule,
        grace,
    };
    Some(Draft { name, sni, takes_all, match_sound, route })
}

/// What people may ask for by a route of a listener for tunnels: all, where it does not say.
fn services(fields: &mut Fields, protocol: Option<Protocol>) -> Vec<FarMatch> {
    let services: Vec<FarMatch> = fields.list("service").into_iter().map(|spot| spot.value).collect();
    let any = services.is_empty() && protocol == Some(Protocol::Tunnel);
    if any { vec![FarMatch::ANY] } else { services }
}

fn split_by(fields: &mut Fields, problems: &mut Problems) -> Option<HashBy> {
    let place = fields.place_of("split_by");
    let shared = fields.is_list("upstream") || !fields.is_sound_at("upstream");
    let split_by = fields.maybe("split_by");
    if split_by.is_some() && !shared {
        let error = problems.error(place, "`split_by` means nothing with one upstream");
        error.hint("write upstream = [{ name = \"a\", weight = 95 }, { name = \"b\", weight = 5 }]");
    }
    split_by
}

fn priority(word: PriorityWord) -> Priority {
    match word {
        PriorityWord::Critical => Priority::Critical,
        PriorityWord::High => Priority::High,
        PriorityWord::Normal => Priority::Normal,
        PriorityWord::Low => Priority::Low,
    }
}

fn schedule(windows: Vec<Spot<Schedule>>, problems: &mut Problems) -> Option<Schedule> {
    let mut whole: Option<Schedule> = None;
    for Spot { value, place } in windows {
        whole = Some(match whole {
            None => value,
            Some(before) => match before.and(value) {
                Ok(both) => both,
                Err(error) => {
                    problems.error(place, format!("`schedule`: {error}"));
                    return None;
                }
            },
        });
    }
    whole
}
