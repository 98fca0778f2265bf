//! The places of agents: each link of an agent has one, and a newer claim of the agent takes it.
//!
//! An agent may have two links. They are told apart by the number that its process gives each, and known for
//! its own by what the process is called: a process that follows another takes all of its places, so that
//! what is left of a dead one never stands in the way.

#![allow(clippy::disallowed_types)] // looked up by every worker that dials; never held over an await

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tieline_base::Moment;
use tieline_registry::Record;
use tieline_wire::tunnel::LinkId;

use crate::live::LiveLink;

/// The most links of one agent.
pub(crate) const PLACES: u64 = 2;

/// The links of all agents.
#[derive(Default)]
pub(crate) struct Seats(Mutex<HashMap<String, Vec<Seat>>>);

/// A link, and whose it is.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) id: LinkId,
    pub(crate) link: Arc<LiveLink>,
    /// The process that began it.
    pub(crate) boot: [u8; 16],
    /// Which of that process's links it is.
    pub(crate) place: u64,
    /// The certificate that it was last carried by.
    pub(crate) serial: String,
    /// The connection that carries it, or did last.
    pub(crate) record: Arc<Record>,
    /// Since when there is this link, over whatever connections.
    pub(crate) since: Moment,
}

impl Seats {
    /// Gives `agent` this place; the seats that it takes are handed back, and their links are over.
    #[must_use]
    pub(crate) fn take(&self, agent: &str, seat: Seat) -> Vec<Seat> {
        let mut seats = self.lock();
        let own = seats.entry(agent.to_owned()).or_default();
        let stays = |other: &Seat| other.boot == seat.boot && other.place != seat.place;
        let (stay, taken) = std::mem::take(own).into_iter().partition(stays);
        *own = stay;
        own.push(seat);
        taken
    }

    /// The link `id`, if it is one of `agent`.
    pub(crate) fn find(&self, agent: &str, id: LinkId) -> Option<Arc<LiveLink>> {
        let seats = self.lock();
        let own = seats.get(agent)?.iter().find(|seat| seat.id == id)?;
        Some(own.link.clone())
    }

    /// Changes the seat of that link, if it is there.
    pub(crate) fn change<T>(
        &self,
        agent: &str,
        id: LinkId,
        change: impl FnOnce(&mut Seat) -> T,
    ) -> Option<T> {
        self.lock().get_mut(agent)?.iter_mut().find(|seat| seat.id == id).map(change)
    }

    /// The link `id` of `agent` is over; whether it was there, and the last one.
    pub(crate) fn leave(&self, agent: &str, id: LinkId) -> bool {
        let mut seats = self.lock();
        let Some(own) = seats.get_mut(agent) else { return false };
        own.retain(|seat| seat.id != id);
        let last = own.is_empty();
        if last {
            seats.remove(agent);
        }
        last
    }

    /// All seats of `agent`, in the order of their places.
    pub(crate) fn of(&self, agent: &str) -> Vec<Seat> {
        let mut own = self.lock().get(agent).cloned().unwrap_or_default();
        own.sort_unstable_by_key(|seat| seat.place);
        own
    }

    /// The link of `agent` for one stream more: one that is carried and not in doubt before one that waits,
    /// and the one with fewer streams of two that are alike.
    pub(crate) fn best(&self, agent: &str) -> Option<Arc<LiveLink>> {
        let rank = |seat: &Seat| {
            seat.link.look(|core| {
                let well = core.link.attached() && !core.link.in_doubt();
                (!well, core.link.streams().count())
            })
        };
        match &*self.of(agent) {
            [only] => Some(only.link.clone()),
            several => several.iter().min_by_key(|seat| rank(seat)).map(|seat| seat.link.clone()),
        }
    }

    /// Who has a place, by name.
    pub(crate) fn agents(&self) -> Vec<String> {
        let mut names: Vec<String> = self.lock().keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// How many links there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    /// Takes away the seats that are not `good`, and hands them back, each with its agent and with whether it
    /// was the last one of that.
    pub(crate) fn weed(&self, good: impl Fn(&str, &Seat) -> bool) -> Vec<(String, Seat, bool)> {
        let mut weeded = Vec::new();
        self.lock().retain(|agent, own| {
            let (stay, gone): (Vec<_>, Vec<_>) =
                std::mem::take(own).into_iter().partition(|it| good(agent, it));
            *own = stay;
            let none_left = own.is_empty();
            weeded.extend(gone.into_iter().map(|seat| (agent.clone(), seat, none_left)));
            !none_left
        });
        weeded
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Seat>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
