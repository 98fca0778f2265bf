//! A counted place on its way from the wait for it to a connection.

use std::sync::Arc;

use tieline_base::{Clock, Fault, Moment, Priority, Reason, Whose};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::endpoint::Endpoint;
use crate::gate::Admission;
use crate::lease::{Event, fault};
use crate::loan::Loan;
use crate::state::Ticket;
use crate::upstream::Upstream;

/// A counted place at an endpoint that is being dialed. Dropping it gives it back.
pub(crate) struct Seat<'a> {
    upstream: &'a Arc<Upstream>,
    pub(crate) endpoint: Arc<Endpoint>,
    /// What it counts for is now counted elsewhere: by a lease, or by the ask that keeps its place.
    passed_on: bool,
}

impl<'a> Seat<'a> {
    /// A seat at `endpoint`, which counts it already.
    pub(crate) fn at(upstream: &'a Arc<Upstream>, endpoint: Arc<Endpoint>) -> Self {
        Seat { upstream, endpoint, passed_on: false }
    }

    /// The endpoint is connected to: from now on the loan counts.
    pub(crate) fn into_loan(mut self) -> Loan {
        self.passed_on = true;
        Loan { upstream: Arc::clone(self.upstream), endpoint: Some(Arc::clone(&self.endpoint)) }
    }

    /// Gives up the endpoint, and keeps the place under the upstream's own cap.
    pub(crate) fn back_to(mut self, place: &mut Place<'_>) {
        let Some(ticket) = place.ticket else { return };
        self.passed_on = true;
        place.spent = false;
        self.upstream.gate().with(|ledger| ledger.unclaim(ticket, &self.endpoint));
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if !self.passed_on {
            self.upstream.give_back(&self.endpoint);
        }
    }
}

/// A place under the caps, or in the line for one. Without a ticket there were no caps so far.
pub(crate) struct Place<'a> {
    upstream: &'a Arc<Upstream>,
    pub(crate) ticket: Option<Ticket>,
    /// A seat has it now.
    pub(crate) spent: bool,
    priority: Priority,
    /// When the wait for it ends in a fault.
    deadline: Moment,
}

impl<'a> Place<'a> {
    /// None so far; one is waited for until `deadline`.
    pub(crate) fn none(upstream: &'a Arc<Upstream>, priority: Priority, deadline: Moment) -> Self {
        Place { upstream, ticket: None, spent: false, priority, deadline }
    }

    /// Waits for a place. With a ticket that found no endpoint, waits again, from its old place in line.
    pub(crate) async fn wait(&mut self, observe: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        let gate = self.upstream.gate();
        self.spent = false;
        let turn = match self.ticket {
            Some(ticket) => gate.with(|ledger| ledger.put_back(ticket)),
            None => match gate.with(|ledger| ledger.ask(self.priority)) {
                Admission::Refused => return Err(fault(Whose::Us, Reason::LimitQueue)),
                Admission::Granted(ticket) => {
                    self.ticket = Some(ticket);
                    return Ok(());
                }
                Admission::Queued { ticket, ahead, turn } => {
                    self.ticket = Some(ticket);
                    observe(Event::Queued { ahead });
                    turn
                }
            },
        };
        self.until_granted(turn).await
    }

    async fn until_granted(&self, turn: oneshot::Receiver<()>) -> Result<(), Fault> {
        match timeout(self.deadline.since(Clock::now()), turn).await {
            Ok(Ok(())) => Ok(()),
            // The gate drops a sleeper that it has not woken only if another takes its place in line.
            Ok(Err(_)) => {
                self.upstream.load.count_shed();
                Err(fault(Whose::Us, Reason::LimitShed))
            }
            Err(_) => Err(fault(Whose::Us, Reason::TimeoutAcquire)),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let (Some(ticket), false) = (self.ticket, self.spent) {
            self.upstream.gate().with(|ledger| ledger.leave(ticket));
        }
    }
}
