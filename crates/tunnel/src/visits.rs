//! People's links at the server: who reaches which service through them, and each stream as a row.
//!
//! A person's first connection is the host of his link: its row lives as long as the link does, and those of
//! all streams are inside it. A connection over which the link goes on has a row of its own, which ends with
//! that connection. Whatever opens or goes on is held against policy then and there, by the address that it
//! comes from then.

#![allow(clippy::disallowed_types)] // looked at by every worker that a person dials; never held over an await

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tieline_base::{ClientAddr, Clock, ConnectionId, Fault, Identity, Proved, Reason, Stage, Whose};
use tieline_registry::{Record, Verdict};
use tieline_wire::tunnel::{Code, LinkId};
use tokio::sync::mpsc;

use crate::live::{LiveLink, Resumption};
use crate::people::{People, PersonEntry, id_in};
use crate::store::now;

/// Everybody who is linked up, and their streams. It outlives configs.
#[derive(Default)]
pub(crate) struct Visits {
    links: Mutex<HashMap<LinkId, Visit>>,
    streams: Mutex<HashMap<ConnectionId, Through>>,
    /// As the tokens were when all were asked about last.
    judged: Mutex<Option<SystemTime>>,
}

/// One person's link.
#[derive(Clone)]
pub(crate) struct Visit {
    pub(crate) who: Guest,
    pub(crate) link: Arc<LiveLink>,
    /// The host's row.
    pub(crate) record: Arc<Record>,
    /// Tells the host over what its link goes on.
    pub(crate) moves: mpsc::Sender<Move>,
}

/// The link goes on over another connection.
pub(crate) struct Move {
    /// Its row.
    pub(crate) over: ConnectionId,
    /// Where it comes from.
    pub(crate) client: ClientAddr,
    pub(crate) resumption: Option<Resumption>,
}

/// A stream, and the agent that it leads through.
struct Through {
    agent: String,
    record: Arc<Record>,
}

/// Who somebody proved to be, and by which token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Guest(pub(crate) PersonEntry);

/// The most links of one person: each `tieline connect` is one.
const LINKS_MAX: usize = 32;

/// The most moves that wait for a host: it takes each at once.
pub(crate) const MOVES_MAX: usize = 4;

impl Guest {
    /// Whose certificate of ours `identity` shows, if its token is good.
    pub(crate) fn by(identity: &Identity, people: &People) -> Option<Guest> {
        let proved = identity.proved()?;
        let serial = tieline_transport::tls::serial_of(proved.certificates.first()?)?;
        people.good(id_in(&serial)?, &proved.name).map(Guest)
    }

    /// Who that is for policy: the name, and the groups that the token says.
    pub(crate) fn identity(&self, shown: &Identity) -> Identity {
        let certificates = shown.proved().map(|proved| proved.certificates.clone()).unwrap_or_default();
        let groups = self.0.groups.iter().map(|group| group.as_str().into()).collect();
        let (name, by) = (self.0.name.as_str().into(), format!("token {}", self.0.id).into());
        Identity::Proved(Arc::new(Proved { name, by, groups, certificates }))
    }
}

impl Visits {
    /// The link `id`, if it is one that was begun by `guest`'s token.
    pub(crate) fn find(&self, id: LinkId, guest: &Guest) -> Option<Visit> {
        lock(&self.links).get(&id).filter(|visit| visit.who.0.id == guest.0.id).cloned()
    }

    /// Gives a link its place.
    ///
    /// # Errors
    /// There are too many of that person.
    pub(crate) fn enter(&self, id: LinkId, visit: Visit) -> Result<(), Fault> {
        let mut links = lock(&self.links);
        let name = &visit.who.0.name;
        let own: Vec<_> = links.values().filter(|other| other.who.0.name == *name).collect();
        if own.len() >= LINKS_MAX {
            // One that waits for somebody who may never come back makes room for who is here.
            let waits = |other: &&&Visit| !other.link.look(|core| core.link.attached());
            let Some(oldest) = own.iter().filter(waits).min_by_key(|other| other.record.id()) else {
                let fault = Fault::new(Stage::Identify, Whose::Client, Reason::LimitPerUser);
                return Err(fault.because(format!("\"{name}\" has {LINKS_MAX} links already")));
            };
            oldest.record.note("ended, because its person has many others and it waited longest");
            oldest.link.end(Code::Lost);
        }
        links.insert(id, visit);
        Ok(())
    }

    pub(crate) fn leave(&self, id: LinkId) {
        lock(&self.links).remove(&id);
    }

    /// Notes that the stream of `record` leads through `agent`.
    pub(crate) fn passes(&self, agent: &str, record: &Arc<Record>) {
        let through = Through { agent: agent.into(), record: record.clone() };
        lock(&self.streams).insert(record.id(), through);
    }

    pub(crate) fn passes_no_more(&self, record: &Record) {
        lock(&self.streams).remove(&record.id());
    }

    /// Adds to the stories of all streams through the link of `agent`.
    pub(crate) fn tell_through(&self, agent: &str, text: &str) {
        let streams = lock(&self.streams);
        let concerned = streams.values().filter(|through| through.agent == agent);
        concerned.for_each(|through| through.record.note(text));
    }

    /// Adds to the stories of all streams inside `host`, and does `also` to each.
    pub(crate) fn tell_inside(&self, host: &Record, text: &str, also: impl Fn(&Arc<Record>)) {
        let inside: Vec<Arc<Record>> = {
            let streams = lock(&self.streams);
            let inside = |through: &&Through| through.record.parent().is_some_and(|it| it.id() == host.id());
            streams.values().filter(inside).map(|through| through.record.clone()).collect()
        };
        for record in inside {
            record.note(text);
            also(&record);
        }
    }

    /// Ends the links of those whose tokens are good no longer: costs one `stat` if none was made or taken
    /// away since it was last asked.
    pub(crate) fn judge_again(&self, people: &People) {
        let changed_at = people.changed_at();
        let same = std::mem::replace(&mut *lock(&self.judged), changed_at) == changed_at;
        let age = changed_at.and_then(|at| Clock::wall().duration_since(at).ok());
        let settled = same && age.is_none_or(|age| age > crate::agents::SETTLED);
        let second = now();
        let mut ended = Vec::new();
        lock(&self.links).retain(|_, visit| {
            let who = &visit.who.0;
            let expired = who.expires < second;
            let good = !expired && (settled || people.good(&who.id, &who.name).is_some());
            if !good {
                ended.push((visit.clone(), expired));
            }
            good
        });
        for (visit, expired) in ended {
            let why = if expired { "has expired" } else { "was revoked" };
            let Guest(PersonEntry { id, name, .. }) = &visit.who;
            tracing::warn!(
                person = name,
                token = id,
                "the token {why}: the link and all its streams are ended"
            );
            let text = format!("token {id} of \"{name}\" {why}");
            visit.record.note(text.as_str());
            // First the reason, then the end.
            let verdict = Verdict { at: Clock::now(), reason: Reason::Revoked };
            self.tell_inside(&visit.record, &text, |stream| stream.end(verdict));
            visit.record.end(verdict);
            visit.link.end(if expired { Code::Expired } else { Code::Denied });
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
