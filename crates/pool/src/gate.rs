//! The skin of [`PoolState`]: its lock, and the tasks that wait behind it.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use tieline_base::Priority;
use tokio::sync::oneshot;

use crate::endpoint::Endpoint;
use crate::state::{Answer, PoolState, Ticket};

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
    sleepers: HashMap<Ticket, oneshot::Sender<()>>,
}

/// What became of an ask at the gate.
pub(crate) enum Admission {
    Granted(Ticket),
    /// `turn` comes, or its sender is dropped when a more important ask has taken the place in line.
    Queued {
        ticket: Ticket,
        ahead: usize,
        turn: oneshot::Receiver<()>,
    },
    Refused,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let ledger =
            Ledger { state: PoolState::new(u32::MAX, 0), grants: Vec::new(), sleepers: HashMap::new() };
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
            (result, ledger.granted())
        };
        for turn in woken {
            // Who stopped waiting in this instant gives the place back by its own drop.
            let _ = turn.send(());
        }
        result
    }
}

impl Ledger {
    pub(crate) fn ask(&mut self, priority: Priority) -> Admission {
        match self.state.ask(priority) {
            Answer::Granted(ticket) => Admission::Granted(ticket),
            Answer::Queued(ticket, ahead, displaced) => {
                if let Some(displaced) = displaced {
                    self.sleepers.remove(&displaced);
                }
                Admission::Queued { ticket, ahead, turn: self.sleep(ticket) }
            }
            Answer::Refused => Admission::Refused,
        }
    }

    /// Back to the line, to be woken again.
    pub(crate) fn put_back(&mut self, ticket: Ticket) -> oneshot::Receiver<()> {
        let turn = self.sleep(ticket);
        self.state.put_back(ticket, &mut self.grants);
        turn
    }

    pub(crate) fn leave(&mut self, ticket: Ticket) {
        self.sleepers.remove(&ticket);
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

    pub(crate) fn give_back(&mut self, endpoint: &Endpoint) {
        endpoint.tally.leave_governed();
        self.state.give_back(endpoint.id, &mut self.grants);
    }

    /// The lease has ended, and its connection rests.
    pub(crate) fn rest(&mut self, endpoint: &Endpoint) {
        endpoint.tally.leave_governed();
        self.state.rest(endpoint.id, &mut self.grants);
    }

    /// So many connections of `endpoint` rest no more.
    pub(crate) fn closed_at_rest(&mut self, endpoint: &Endpoint, count: u32) {
        (0..count).for_each(|_| self.state.wake(endpoint.id));
    }

    fn sleep(&mut self, ticket: Ticket) -> oneshot::Receiver<()> {
        let (wake, turn) = oneshot::channel();
        self.sleepers.insert(ticket, wake);
        turn
    }

    fn granted(&mut self) -> Vec<oneshot::Sender<()>> {
        let Ledger { grants, sleepers, .. } = self;
        grants.drain(..).filter_map(|ticket| sleepers.remove(&ticket)).collect()
    }
}
