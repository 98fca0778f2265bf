//! People's links at the server: who reaches which service through them, and each stream as a row.
//!
//! A person's first connection is the host of his link: its row lives as long as the link does, and those of
//! all streams are inside it. A connection over which the link goes on has a row of its own, which ends with
//! that connection. Whatever opens or goes on is held against policy then and there, by the address that it
//! comes from then.

#![allow(clippy::disallowed_types)] // looked at by every worker that a person dials; never held over an await

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tieline_base::{ClientAddr, Clock, ConnectionId, Fault, Identity, Proved, Reason, Stage, Whose};
use tieline_policy::approval::ApprovalId;
use tieline_registry::{Record, Verdict};
use tieline_transport::tls::{Fingerprint, ServerTls, Voucher, serial_of, valid_since, valid_until};
use tieline_wire::tunnel::{Code, LinkId};
use tokio::sync::mpsc;

use crate::live::{LiveLink, Resumption};
use crate::people::{ID_DIGITS, People, PersonEntry, id_in, is_certified_name};
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

/// A stream, and the link of an agent that it leads through, once it is opened.
struct Through {
    link: Option<Arc<LiveLink>>,
    /// The approval that it was opened by, where one was needed.
    approval: Option<ApprovalId>,
    record: Arc<Record>,
}

/// Who somebody proved to be, and by what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Guest(pub(crate) PersonEntry, pub(crate) Proof);

/// What somebody proved it by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Proof {
    /// A token of ours: the entry is the one that is kept of it.
    Token,
    /// A certificate of an authority that the listener names: the entry says what the certificate does.
    Certificate,
}

impl Proof {
    fn as_str(self) -> &'static str {
        match self {
            Proof::Token => "token",
            Proof::Certificate => "certificate",
        }
    }
}

/// The most links of one person: each `tieline connect` is one.
const LINKS_MAX: usize = 32;

/// The most moves that wait for a host: it takes each at once.
pub(crate) const MOVES_MAX: usize = 4;

impl Guest {
    /// Who shows a certificate of ours, for a token that is good, or one for which somebody else vouches whom
    /// the listener believes. Neither can pass for the other.
    pub(crate) fn by(identity: &Identity, people: &People, tls: &ServerTls) -> Option<Guest> {
        let proved = identity.proved()?;
        let own = proved.certificates.first()?;
        match tls.voucher(&proved.certificates)? {
            Voucher::House => {
                let good = people.good(id_in(&serial_of(own)?)?, &proved.name)?;
                Some(Guest(good, Proof::Token))
            }
            Voucher::Guests if is_certified_name(&proved.name) => {
                let seconds = |time: SystemTime| Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs());
                let (created, expires) = (seconds(valid_since(own)?)?, seconds(valid_until(own)?)?);
                let id = Fingerprint::of(own).to_string()[..ID_DIGITS].to_owned();
                let (name, groups) = (proved.name.to_string(), Vec::new());
                Some(Guest(PersonEntry { id, name, groups, created, expires }, Proof::Certificate))
            }
            Voucher::Guests => None,
        }
    }

    /// Whether both were proved by the same.
    fn is_same(&self, other: &Guest) -> bool {
        (&self.0.id, self.1) == (&other.0.id, other.1)
    }

    /// Whether what it was proved by counts still. Of a certificate that is its time: what a reload changes,
    /// the sweep behind that sees.
    pub(crate) fn is_good(&self, people: &People) -> bool {
        let Guest(who, proof) = self;
        match proof {
            Proof::Token => people.good(&who.id, &who.name).is_some(),
            Proof::Certificate => who.expires >= now(),
        }
    }

    /// Who that is for policy: the name, and the groups that the token says.
    pub(crate) fn identity(&self, shown: &Identity) -> Identity {
        if self.1 == Proof::Certificate {
            return shown.clone();
        }
        let certificates = shown.proved().map(|proved| proved.certificates.clone()).unwrap_or_default();
        Identity::Proved(Arc::new(Proved { certificates, ..self.proved() }))
    }

    /// The same without a certificate, for who shows the token itself.
    pub(crate) fn proved(&self) -> Proved {
        let groups = self.0.groups.iter().map(|group| group.as_str().into()).collect();
        let (name, by) = (self.0.name.as_str().into(), format!("token {}", self.0.id).into());
        Proved { name, by, groups, certificates: Vec::new() }
    }
}

impl Visits {
    /// The link `id`, if it is one that was begun by `guest`'s token.
    pub(crate) fn find(&self, id: LinkId, guest: &Guest) -> Option<Visit> {
        lock(&self.links).get(&id).filter(|visit| visit.who.is_same(guest)).cloned()
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

    /// Notes the stream of `record`.
    pub(crate) fn passes(&self, record: &Arc<Record>) {
        let through = Through { link: None, approval: None, record: record.clone() };
        lock(&self.streams).insert(record.id(), through);
    }

    /// Notes that the stream of `record` leads through this link of an agent.
    pub(crate) fn leads_over(&self, record: &Record, link: &Arc<LiveLink>) {
        if let Some(through) = lock(&self.streams).get_mut(&record.id()) {
            through.link = Some(link.clone());
        }
    }

    /// Notes that the stream of `record` is opened by that approval, and ends with it.
    pub(crate) fn passes_by(&self, approval: ApprovalId, record: &Record) {
        if let Some(through) = lock(&self.streams).get_mut(&record.id()) {
            through.approval = Some(approval);
        }
    }

    /// The approval that the stream of `record` was opened by.
    pub(crate) fn approval_of(&self, record: &Record) -> Option<ApprovalId> {
        lock(&self.streams).get(&record.id())?.approval
    }

    /// Ends what was opened by that approval.
    pub(crate) fn end_approved(&self, approval: ApprovalId, reason: Reason, text: &str) {
        let streams = lock(&self.streams);
        let concerned = streams.values().filter(|through| through.approval == Some(approval));
        for Through { record, .. } in concerned {
            record.note(text);
            record.end(Verdict { at: Clock::now(), reason });
        }
    }

    pub(crate) fn passes_no_more(&self, record: &Record) {
        lock(&self.streams).remove(&record.id());
    }

    /// Adds to the stories of all streams through this link of an agent.
    pub(crate) fn tell_through(&self, link: &Arc<LiveLink>, text: &str) {
        let streams = lock(&self.streams);
        let leads_there = |through: &&Through| through.link.as_ref().is_some_and(|it| Arc::ptr_eq(it, link));
        streams.values().filter(leads_there).for_each(|through| through.record.note(text));
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
        if !settled {
            people.refresh();
        }
        let second = now();
        let mut ended = Vec::new();
        lock(&self.links).retain(|_, visit| {
            let who = &visit.who.0;
            let expired = who.expires < second;
            let good = !expired && (settled || visit.who.is_good(people));
            if !good {
                ended.push((visit.clone(), expired));
            }
            good
        });
        for (visit, expired) in ended {
            let why = if expired { "has expired" } else { "was revoked" };
            let Guest(PersonEntry { id, name, .. }, proof) = &visit.who;
            let what = proof.as_str();
            tracing::warn!(person = name, id, "the {what} {why}: the link and all its streams are ended");
            let text = format!("{what} {id} of \"{name}\" {why}");
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
