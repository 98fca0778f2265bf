//! The wait for a place under the caps.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tieline_base::{Clock, Fault, Moment, Priority, Reason, Whose};
use tokio::time::timeout;

use crate::gate::Admission;
use crate::hand_over::Handed;
use crate::lease::{Event, LeaseError, fault};
use crate::loan::Loan;
use crate::purpose::Purpose;
use crate::share::Share;
use crate::sleeper::{Sleeper, Told};
use crate::state::{Ahead, Ticket};
use crate::upstream::Upstream;

/// A place under the caps, or in the line for one; dropping it gives it to the next, with what was handed to
/// it. Without a ticket there
/// were no caps so far.
pub struct Place {
    upstream: Arc<Upstream>,
    pub(crate) ticket: Option<Ticket>,
    /// Where it is told that it has one.
    sleeper: Option<Arc<Sleeper>>,
    /// A seat has it now.
    pub(crate) spent: bool,
    /// How important it is, what for, and for whom.
    what: (Priority, Purpose, Share),
    /// When it began to wait.
    since: Moment,
    /// When the wait for it ends in a fault.
    deadline: Moment,
}

/// A place that was granted, and perhaps the endpoint that was claimed with it, of which none rests.
pub struct Granted {
    pub(crate) place: Place,
    pub(crate) seat: Option<Loan>,
}

impl Place {
    /// None so far; one is waited for until `deadline`.
    pub(crate) fn none(upstream: &Arc<Upstream>, what: (Priority, Purpose, Share), deadline: Moment) -> Self {
        let (upstream, since) = (Arc::clone(upstream), Moment::default());
        Place { upstream, ticket: None, sleeper: None, spent: false, what, since, deadline }
    }

    /// In line since `since`.
    pub(crate) fn in_line(mut self, since: Moment, ticket: Ticket, sleeper: Arc<Sleeper>) -> Self {
        (self.since, self.ticket, self.sleeper) = (since, Some(ticket), Some(sleeper));
        self
    }

    /// Ready once the place is granted; else the task of `cx` is woken when it is. That it takes too long
    /// ([`Place::in_vain`]) is the caller's to notice.
    ///
    /// # Errors
    /// Somebody more important has its place in line: `limit:shed`.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let told = match &self.sleeper {
            Some(sleeper) => ready!(sleeper.poll(cx)),
            None => Told::Granted,
        };
        Poll::Ready(match told {
            Told::Granted => Ok(()),
            Told::Displaced => {
                self.upstream.load.count_shed();
                Err(fault(Whose::Us, Reason::LimitShed))
            }
        })
    }

    /// What it got with its place, if that was handed to it.
    pub(crate) fn take_handed(&self) -> Option<Handed> {
        self.sleeper.as_ref()?.take_handed()
    }

    /// Waits for a place. With a ticket that found no endpoint, waits again, from its old place in line.
    pub(crate) async fn wait(&mut self, observe: &mut impl FnMut(Event<'_>)) -> Result<(), Fault> {
        let gate = self.upstream.gate();
        self.spent = false;
        self.sleeper = Some(match self.ticket {
            Some(ticket) => gate.with(|ledger| ledger.put_back(ticket)),
            None => match gate.with(|ledger| ledger.ask(self.what.0, self.what.1, self.what.2)) {
                Admission::Refused => return Err(fault(Whose::Us, Reason::LimitQueue)),
                Admission::Granted(ticket) => {
                    self.ticket = Some(ticket);
                    return Ok(());
                }
                Admission::Queued { ticket, ahead, sleeper } => {
                    (self.ticket, self.since) = (Some(ticket), Clock::now());
                    observe(Event::Queued { ahead });
                    sleeper
                }
            },
        });
        let granted = timeout(self.deadline.since(Clock::now()), poll_fn(|cx| self.poll(cx)));
        granted.await.unwrap_or_else(|_| Err(self.in_vain()))
    }

    /// The time for the wait is over: says what was in between.
    pub fn in_vain(&self) -> Fault {
        let late = fault(Whose::Us, Reason::TimeoutAcquire);
        match self.standing() {
            Some(standing) => late.because(standing),
            None => late,
        }
    }

    /// What is in between while it waits: [`LeaseError::Waited`]. `None`: it does not wait in line.
    pub fn standing(&self) -> Option<LeaseError> {
        let ticket = self.ticket?;
        let Ahead { asks, places, most, cap } =
            self.upstream.gate().with(|ledger| ledger.state.ahead_of(ticket));
        let (upstream, after) = (self.upstream.name().to_owned(), Clock::now().since(self.since));
        Some(LeaseError::Waited { upstream, after, ahead: asks, places, most, cap })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (Some(ticket), false) = (self.ticket, self.spent) else { return };
        // Under the lock: whoever hands it something does so there.
        let handed = self.upstream.gate().with(|ledger| {
            let handed = self.take_handed();
            if handed.is_none() {
                ledger.leave(ticket);
            }
            handed
        });
        if let Some(Handed { endpoint, io, making, .. }) = handed {
            Loan::at(&self.upstream, endpoint, self.what.2).park(io, making);
        }
    }
}
