//! A connection whose two sides are joined: the state in which it spends its life.

use std::cell::Cell;
use std::task::{Context, Poll, ready};

use tieline_base::{Clock, Moment, Reason, Whose};
use tieline_conn::{Held, Outcome};
use tieline_pool::Loan;
use tieline_transport::{Closed, Duplex, Meter, Side};

use crate::broken;

pub(crate) struct Joined {
    duplex: Duplex,
    meter: Row,
}

/// Counts moved bytes in the connection's row, and tells its loan how long the first answer took.
struct Row {
    held: Held,
    loan: Loan,
    /// When the upstream was first asked, or connected to if it speaks first.
    asked_at: Cell<Moment>,
    asked: Cell<bool>,
    answered: Cell<bool>,
}

impl Joined {
    pub(crate) fn new(held: Held, loan: Loan, duplex: Duplex, now: Moment) -> Self {
        Self {
            duplex,
            meter: Row {
                held,
                loan,
                asked_at: Cell::new(now),
                asked: Cell::new(false),
                answered: Cell::new(false),
            },
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let closed = ready!(self.duplex.poll(&self.meter, cx));
        if closed.first == Side::Upstream
            && let (Some(error), false) = (&closed.error, self.meter.answered.get())
        {
            self.meter.loan.upstream_failed(error);
        }
        Poll::Ready(outcome(closed))
    }
}

impl Meter for Row {
    fn moved(&self, from: Side, bytes: usize) {
        self.held.record.moved(from == Side::Client, bytes as u64);
        if self.answered.get() {
            return;
        }
        match from {
            Side::Client if !self.asked.replace(true) => self.asked_at.set(Clock::now()),
            Side::Client => {}
            Side::Upstream => {
                self.answered.set(true);
                self.loan.first_byte(self.asked_at.get(), Clock::now());
            }
        }
    }
}

fn outcome(closed: Closed) -> Outcome {
    match (closed.first, closed.error) {
        (Side::Client, None) => Ok(Reason::ClientClosed),
        (Side::Upstream, None) => Ok(Reason::UpstreamClosed),
        (Side::Client, Some(error)) => Err(broken(Whose::Client, Reason::ClientReset, error)),
        (Side::Upstream, Some(error)) => Err(broken(Whose::Upstream, Reason::UpstreamReset, error)),
    }
}
