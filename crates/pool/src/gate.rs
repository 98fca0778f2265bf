//! The skin of [`PoolState`]: its lock, and the tasks that wait behind it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use smallvec::SmallVec;
use tieline_base::Priority;

use crate::endpoint::Endpoint;
use crate::hand_over::Wants;
use crate::purpose::Purpose;
use crate::share::Share;
use crate::sleeper::Sleeper;
use crate::state::{Answer, Lined, PoolState, Ticket};

/// Where leases of an upstream with caps pass. An upstream that never had a cap never locks it. Once one has
/// had a cap it stays governed, since counting on costs less than being wrong about a change.
#[derive(Debug)]
pub(crate) struct Gate {
    governed: AtomicBool,
    // Held for a few steps of pure logic, never over an await; wakers are called after it is released.
    #[allow(clippy::disallowed_types)]
    ledger: std::sync::Mutex<Ledger>,
}

/// The caps' state and who waits for it, as the holder of the lock sees them.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) state: PoolState,
    /// Tickets granted by this holder's events, to be woken when the lock is released.
    pub(crate) grants: Vec<Ticket>,
    sleepers: Sleepers,
}

/// What became of an ask at the gate.
pub(crate) enum Admission {
    Granted(Ticket),
    /// `sleeper` is told when its turn comes, or when a more important ask has taken the place in line.
    Queued {
        ticket: Ticket,
        ahead: usize,
        sleeper: Arc<Sleeper>,
    },
    Refused,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let ledger =
            Ledger { state: PoolState::new(u32::MAX, 0), grants: Vec::new(), sleepers: Sleepers::default() };
        Gate { governed: AtomicBool::new(false), ledger: ledger.into() }
    }

    /// Whether leases must pass here.
    pub(crate) fn is_governed(&self) -> bool {
        self.governed.load(Ordering::Acquire)
    }

    /// From now on they must. To be called under [`Gate::with`]'s lock, with all endpoints taken over.
    pub(crate) fn set_governed(&self) {
        self.governed.store(true, Ordering::Release);
    }

    /// Runs `act` under the lock, and then wakes whom it granted a place.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Ledger) -> R) -> R {
        let (result, woken) = {
            // Every event leaves the state whole, so a holder that panicked left nothing half done.
            let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let result = act(&mut ledger);
            // By far the most: nobody waited.
            if ledger.grants.is_empty() {
                return result;
            }
            (result, ledger.granted())
        };
        // Who stopped waiting in this instant gives the place back by its own drop.
        woken.iter().for_each(|sleeper| sleeper.grant());
        result
    }
}

impl Ledger {
    pub(crate) fn ask(&mut self, priority: Priority, purpose: Purpose, share: Share) -> Admission {
        match self.state.ask_for(priority, purpose, share) {
            Answer::Granted(ticket) => Admission::Granted(ticket),
            Answer::Queued(ticket, ahead, displaced) => {
                self.displace(displaced);
                Admission::Queued { ticket, ahead, sleeper: self.sleep(ticket, None) }
            }
            Answer::Refused => Admission::Refused,
        }
    }

    /// Into the line, for who got no place just now, and would take what it `wants` from another's hand;
    /// `None` if the line is full.
    pub(crate) fn line_up(
        &mut self,
        (priority, purpose, share): (Priority, Purpose, Share),
        wants: Option<Wants>,
    ) -> Option<(Ticket, Arc<Sleeper>)> {
        let Lined { ticket, displaced } = self.state.line_up(priority, purpose, share)?;
        self.displace(displaced);
        Some((ticket, self.sleep(ticket, wants)))
    }

    fn displace(&mut self, displaced: Option<Ticket>) {
        if let Some(sleeper) = displaced.and_then(|displaced| self.sleepers.take(displaced)) {
            sleeper.displace();
        }
    }

    /// Ends a lease of `endpoint` for whoever is next in line, who has it from here on if that `fits` where
    /// it waits; it is to be told. Else it has a place, and what the lease was of rests. `None`, with nothing
    /// changed, if nobody is next.
    pub(crate) fn pass_on(
        &mut self,
        endpoint: &Endpoint,
        share: Share,
        fits: impl FnOnce(&Sleeper, Ticket) -> bool,
    ) -> Option<Option<Arc<Sleeper>>> {
        let ticket = self.state.pass_on(endpoint.id, share)?;
        if let Some(sleeper) = self.sleepers.take(ticket) {
            if fits(&sleeper, ticket) {
                return Some(Some(sleeper));
            }
            self.sleepers.put(ticket, sleeper);
        }
        endpoint.tally.leave_governed();
        self.state.not_passed_on(endpoint.id, ticket);
        self.grants.push(ticket);
        Some(None)
    }

    /// Back to the line, to be woken again.
    pub(crate) fn put_back(&mut self, ticket: Ticket) -> Arc<Sleeper> {
        let sleeper = self.sleep(ticket, None);
        self.state.put_back(ticket, &mut self.grants);
        sleeper
    }

    pub(crate) fn leave(&mut self, ticket: Ticket) {
        self.sleepers.take(ticket);
        self.state.leave(ticket, &mut self.grants);
    }

    pub(crate) fn claim(&mut self, ticket: Ticket, endpoint: &Endpoint) -> bool {
        let claimed = self.state.claim(ticket, endpoint.id, &mut self.grants);
        if claimed {
            endpoint.tally.enter_governed();
        }
        claimed
    }

    pub(crate) fn unclaim(&mut self, ticket: Ticket, endpoint: &Endpoint) {
        endpoint.tally.leave_governed();
        self.state.unclaim(ticket, endpoint.id, &mut self.grants);
    }

    pub(crate) fn give_back(&mut self, endpoint: &Endpoint, share: Share) {
        endpoint.tally.leave_governed();
        self.state.give_back(endpoint.id, share, &mut self.grants);
    }

    /// The lease has ended, and its connection rests.
    pub(crate) fn rest(&mut self, endpoint: &Endpoint, share: Share) {
        endpoint.tally.leave_governed();
        self.state.rest(endpoint.id, share, &mut self.grants);
    }

    /// So many connections of `endpoint` rest no more.
    pub(crate) fn closed_at_rest(&mut self, endpoint: &Endpoint, count: u32) {
        (0..count).for_each(|_| self.state.wake(endpoint.id));
    }

    fn sleep(&mut self, ticket: Ticket, wants: Option<Wants>) -> Arc<Sleeper> {
        let sleeper = Arc::new(Sleeper::new(wants));
        self.sleepers.put(ticket, sleeper.clone());
        sleeper
    }

    fn granted(&mut self) -> SmallVec<[Arc<Sleeper>; 2]> {
        let Ledger { grants, sleepers, .. } = self;
        grants.drain(..).filter_map(|ticket| sleepers.take(ticket)).collect()
    }
}

/// Who waits, by their tickets. Nearly always the newest is put there, and the oldest taken.
#[derive(Debug, Default)]
struct Sleepers(VecDeque<(Ticket, Arc<Sleeper>)>);

impl Sleepers {
    fn put(&mut self, ticket: Ticket, sleeper: Arc<Sleeper>) {
        match self.0.back() {
            Some((newest, _)) if *newest > ticket => {
                let at = self.0.partition_point(|(other, _)| *other < ticket);
                self.0.insert(at, (ticket, sleeper));
            }
            _ => self.0.push_back((ticket, sleeper)),
        }
    }

    fn take(&mut self, ticket: Ticket) -> Option<Arc<Sleeper>> {
        let at = match self.0.front()? {
            (oldest, _) if *oldest == ticket => 0,
            _ => self.0.binary_search_by_key(&ticket, |(other, _)| *other).ok()?,
        };
        self.0.remove(at).map(|(_, sleeper)| sleeper)
    }
}
