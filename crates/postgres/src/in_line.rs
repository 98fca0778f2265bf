//! A client that waits for a server, where a place in line is all that it waits for: it stays what it is, and
//! is asked again when its turn has come. What takes more than that is in `aside.rs`.

use std::task::{Context, Poll};
use std::time::Duration;

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose};
use tieline_pool::{Ask, Granted, Place};

use crate::refusal::Refusal;
use crate::talk::{Next, Talk, client_gone};
use crate::{fair, notice};

/// A wait in line.
pub(crate) struct Wait {
    place: Place,
    ask: Ask,
    began: Moment,
    /// The client was told of it.
    told: bool,
}

/// What came of a wait, where that was not a server.
pub(crate) struct Waited {
    /// When it began.
    pub(crate) began: Moment,
    /// The client was told of it.
    pub(crate) told: bool,
    /// The place that it got.
    pub(crate) granted: Granted,
}

impl Talk {
    /// The client waits in line from `began` on.
    pub(crate) fn line_up(&mut self, place: Place, ask: Ask, began: Moment) {
        self.key.waiting();
        self.row.waits(began);
        self.connection.expect_from(began, self.way.target.first_look(), Reason::TimeoutAcquire);
        self.wait = Some(Wait { place, ask, began, told: false });
    }

    /// Goes on once the wait is over: with a server, or as it is told.
    pub(crate) fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Next>> {
        let Some(wait) = &self.wait else { return Poll::Ready(None) };
        if self.key.is_cancelled() {
            return Poll::Ready(Some(self.refused(Refusal::Cancelled)));
        }
        let Poll::Ready(granted) = wait.place.poll(cx) else { return self.still_waits(cx) };
        if let Err(fault) = granted {
            return Poll::Ready(Some(self.refused(Refusal::Fault(fault))));
        }
        let Some(Wait { place, ask, began, told }) = self.wait.take() else { return Poll::Ready(None) };
        let now = self.now();
        // What may follow has its own time.
        self.connection.record().expect(Duration::MAX, Reason::Idle);
        let taken = self.connection.take_granted(&self.way.target.route, place, &ask, (began, now));
        self.up.again = true;
        match taken {
            // From here on its key cancels what that server does.
            Ok(lease) => {
                if self.takes(lease, &ask, began) {
                    return Poll::Ready(None);
                }
            }
            Err(granted) => self.waited = granted.map(|granted| Box::new(Waited { began, told, granted })),
        }
        self.key.idle();
        Poll::Ready(Some(Next::Link))
    }

    /// Its turn has not come: whether it has waited for too long, and is still there.
    fn still_waits(&mut self, cx: &mut Context<'_>) -> Poll<Option<Next>> {
        if self.key.poll_cancelled(cx).is_ready() {
            return Poll::Ready(Some(self.refused(Refusal::Cancelled)));
        }
        if let Some(error) = self.io.poll_broken(&mut self.up.watch, cx) {
            let fault = Fault::new(Stage::Acquire, Whose::Client, Reason::ClientReset).because(error);
            return Poll::Ready(Some(self.refused(Refusal::Fault(fault))));
        }
        if self.way.login.denials.are_any() {
            // It may be more than a place that is waited for, or in vain.
            self.key.idle();
            self.wait = None;
            self.up.again = true;
            return Poll::Ready(Some(Next::Link));
        }
        if !self.down.held.is_empty()
            && let Poll::Ready(Err(error)) = self.down.held.poll_flush(&mut self.io, cx)
        {
            return Poll::Ready(Some(self.refused(Refusal::Fault(client_gone(error)))));
        }
        let (Some(wait), Some(_)) = (&mut self.wait, self.connection.overdue()) else { return Poll::Pending };
        let (now, end) = (Clock::now(), wait.began.after(self.way.target.acquire));
        if !wait.told && now < end {
            wait.told = true;
            let text = wait.place.standing().as_ref().and_then(fair::waits);
            self.connection.expect_from(now, end.since(now), Reason::TimeoutAcquire);
            // It goes out at the next look, which is at once.
            let text = text.unwrap_or_else(|| "the query waits".into());
            notice::push(self.down.held.bytes(), &text);
            self.connection.record().note(text);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let fault = wait.place.in_vain();
        Poll::Ready(Some(self.refused(Refusal::Fault(fault))))
    }

    fn refused(&mut self, refusal: Refusal) -> Next {
        self.key.idle();
        self.wait = None;
        Next::Refuse(refusal)
    }
}
