//! Connections inside a connection, as the streams of HTTP/2 are. Each is a row of its own, and all that a
//! filter, a timeout, a schedule or an operator can do to a connection can be done to it alone.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use slab::Slab;
use tieline_base::{Clock, Reason, Stage};
use tieline_registry::{Opening, Record, Verdict};
use tieline_transport::Io;

use crate::connection::{Connection, Serving};
use crate::lifetime::Lifetime;
use crate::snapshot::Timeouts;
use crate::worker::Seat;

/// A connection, and those inside it: they share its client, its place at the listener and its worker, and
/// end with it.
pub struct Children {
    parent: Connection,
    family: Rc<Family>,
}

#[derive(Default)]
struct Family {
    living: RefCell<Slab<Arc<Record>>>,
    /// Who waits for the next one to end.
    waiting: Cell<Option<Waker>>,
}

impl Children {
    /// A connection that opens others inside itself.
    pub fn of(parent: Connection) -> Self {
        Self { parent, family: Rc::default() }
    }

    /// The one that they are inside of.
    pub fn parent(&self) -> &Connection {
        &self.parent
    }

    /// How many live. One that its client gave up lives until its work has really ended.
    pub fn living(&self) -> usize {
        self.family.living.borrow().len()
    }

    /// Wakes `cx` when the next one ends.
    pub fn watch(&self, cx: &Context<'_>) {
        self.family.waiting.set(Some(cx.waker().clone()));
    }

    /// Opens one, which `io` carries: it is listed, then served by what `serve` makes of it, in a task of its
    /// own on this worker. Nothing limits how many there are but the caller.
    pub fn open(&self, io: Io, serve: impl FnOnce(Connection, Io) -> Serving) {
        self.open_alone(|connection| serve(connection, io));
    }

    /// The same for one whose bytes its protocol finds by itself.
    pub fn open_alone(&self, serve: impl FnOnce(Connection) -> Serving) {
        let (worker, parent) = (self.parent.worker(), self.parent.record());
        let record = worker.registry().enter(Opening {
            client: parent.peer(),
            listener: parent.listener().clone(),
            worker: worker.id(),
            generation: worker.generation(),
            parent: Some(parent.clone()),
        });
        // All that was proved of the one that carries it.
        record.enter(Stage::Identify, record.opened());
        let serving = serve(self.parent.inside(&record));
        let place = self.family.living.borrow_mut().insert(record.clone());
        let member = Member { family: self.family.clone(), place };
        worker.serve_inside(live(serving, Seat::new(worker.clone(), record), member));
    }
}

/// Its life, from its opening on.
///
/// A function that returns an async block, not an async function: what it is given is then held once, not
/// twice.
#[allow(clippy::manual_async_fn)]
fn live(mut serving: Serving, seat: Seat, member: Member) -> impl Future<Output = ()> + 'static {
    async move {
        // Declared first, so that it is counted until all that it held has been given back.
        let _member = member;
        let lifetime = Lifetime::new(seat.record(), &NONE_OF_ITS_OWN, false);
        // Both arms may be dropped: the first gives its stream up, the second holds a timer.
        let outcome = tokio::select! {
            biased;
            outcome = &mut serving => outcome,
            reason = lifetime => Ok(reason),
        };
        seat.leave(outcome, serving);
    }
}

/// What the one that carries it may take holds for that one; for each exchange its protocol says more.
const NONE_OF_ITS_OWN: Timeouts =
    Timeouts { handshake: Duration::ZERO, idle: None, max_age: None, drain: Duration::ZERO };

/// One that lives.
struct Member {
    family: Rc<Family>,
    place: usize,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.family.living.borrow_mut().try_remove(self.place);
        if let Some(waiting) = self.family.waiting.take() {
            waiting.wake();
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        // What ends the one that carries them ends them too, and its row says what that was.
        let why = self.parent.record().ended().map_or(Reason::ClientClosed, |ended| ended.reason);
        let verdict = Verdict { at: Clock::now(), reason: why };
        self.family.living.borrow().iter().for_each(|(_, record)| record.end(verdict));
    }
}
