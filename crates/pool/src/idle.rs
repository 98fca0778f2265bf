//! Connections that wait, open, for the next lease of their endpoint. Each worker has its own board of them,
//! newest first out, so that a surplus ages and closes. A worker that has none while the caps allow no new
//! connection takes one from another's board: then, and only then, a connection changes its worker.
//!
//! The danger is the endpoint that closes while we choose (the keep-alive race). Three things stand against
//! it: a connection is looked at before it is lent; one that is nearly as old as its endpoint is known to
//! allow is not lent; and an exchange that must not be repeated gets a young one or none.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::thread::available_parallelism;
use std::time::Duration;

use tieline_base::{Clock, Moment};
use tieline_transport::Io;
use tokio::io::{AsyncRead, ReadBuf};

use crate::endpoint::Endpoint;
use crate::settings::{PoolSettings, Secured, Settings};
use crate::trunk;
use crate::upstream::Upstream;

/// Whether a lease may be a connection that others have used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reuse {
    /// A connection of its own that shares nothing: who knows what its bytes are.
    #[default]
    Alone,
    /// One of its own, or a part of one that others share.
    Never,
    /// Any that is alive and may stop to be what it is: it is given to nobody behind this.
    Switching,
    /// One that was idle for a short time only: what it is for must not be done twice.
    Young,
    /// Any that is alive: what it is for may be done again.
    Any,
}

impl Reuse {
    /// Whether a connection at rest will not do.
    fn wants_new(self) -> bool {
        matches!(self, Reuse::Alone | Reuse::Never)
    }
}

/// How a connection was made. It is lent again only for leases that would make it the same way.
#[derive(Clone, Debug)]
pub struct Making {
    /// When.
    pub(crate) born: Moment,
    /// What TLS it speaks.
    pub(crate) tls: Option<Secured>,
}

/// A connection at rest.
pub(crate) struct Parked {
    pub(crate) io: Io,
    since: Moment,
    pub(crate) making: Making,
    idle: Duration,
    max_age: Option<Duration>,
}

/// The connections at rest of one endpoint.
pub(crate) struct Shelf {
    boards: Box<[Board]>,
}

/// Those of one worker. A cache line of its own: nobody else looks at it, but in want.
#[repr(align(64))]
struct Board(
    // Held for a few instructions, never over an await; by others than its worker only in want.
    #[allow(clippy::disallowed_types)] std::sync::Mutex<Content>,
);

#[derive(Default)]
struct Content {
    /// The newest last.
    parked: Vec<Parked>,
    /// They count against caps, so that only the holder of the gate's lock may change them.
    governed: bool,
    /// Somebody looks after them.
    tended: bool,
}

/// The most connections to one endpoint that a worker keeps at rest.
const PARKED_MAX: usize = 512;

/// The most boards that an endpoint has; workers beyond share them.
const BOARDS_MAX: usize = 64;

/// What share of the time that an endpoint allows is used: by anything, and by what must not be done twice.
const SHARE_ANY: f64 = 0.8;
const SHARE_YOUNG: f64 = 0.5;

/// How old "young" is at most where nothing is known of the endpoint.
const YOUNG: Duration = Duration::from_millis(500);

thread_local! {
    /// Which board is this worker's.
    static MINE: Cell<usize> = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Cell::new(NEXT.fetch_add(1, Ordering::Relaxed))
    };
    /// Whose boards this worker looks after.
    static TENDED: RefCell<Vec<(Weak<Upstream>, Weak<Endpoint>)>> = RefCell::default();
}

/// Only the holder of the gate's lock may do that, by now.
pub(crate) struct Governed;

impl Shelf {
    pub(crate) fn new() -> Shelf {
        static BOARDS: OnceLock<usize> = OnceLock::new();
        let count = *BOARDS.get_or_init(|| available_parallelism().map_or(1, usize::from).min(BOARDS_MAX));
        Shelf { boards: (0..count).map(|_| Board(Default::default())).collect() }
    }

    /// How many rest.
    pub(crate) fn len(&self) -> usize {
        self.boards.iter().map(|board| board.content().parked.len()).sum()
    }

    /// From now on they count against caps. Says how many there are. Under the gate's lock.
    pub(crate) fn govern(&self) -> u32 {
        let govern = |board: &Board| {
            let mut content = board.content();
            content.governed = true;
            content.parked.len() as u32
        };
        self.boards.iter().map(govern).sum()
    }

    /// Puts `parked` on this worker's board while nothing is counted.
    ///
    /// # Errors
    /// It is counted, and not put anywhere.
    fn put_free(&self, owner: Owner<'_>, parked: Parked) -> Result<(), (Parked, Governed)> {
        let mut content = self.mine().content();
        if content.governed {
            return Err((parked, Governed));
        }
        content.put(owner, parked);
        Ok(())
    }

    /// Puts `parked` on this worker's board, under the gate's lock; false if there is no room and it is
    /// closed.
    fn put_counted(&self, owner: Owner<'_>, parked: Parked) -> bool {
        self.mine().content().put(owner, parked)
    }

    /// Takes the connection that this worker parked last while nothing is counted, if it is alive and not too
    /// old for `reuse`.
    ///
    /// # Errors
    /// They are counted, and nothing is taken.
    pub(crate) fn take_free(&self, wanted: &Wanted<'_>) -> Result<Option<(Io, Making)>, Governed> {
        let mut content = self.mine().content();
        if content.governed { Err(Governed) } else { Ok(content.take(wanted).0) }
    }

    /// The same under the gate's lock; also says how many were closed as they were of no use.
    pub(crate) fn take_counted(&self, wanted: &Wanted<'_>) -> (Option<(Io, Making)>, u32) {
        self.mine().content().take(wanted)
    }

    /// Takes any that rests, of other workers if there is one, under the gate's lock.
    pub(crate) fn take_any(&self) -> Option<Parked> {
        let mine = MINE.get() % self.boards.len();
        let others = (1..=self.boards.len()).map(|step| &self.boards[(mine + step) % self.boards.len()]);
        others.into_iter().find_map(|board| board.content().parked.pop())
    }

    /// Closes all; says how many. Under the gate's lock.
    pub(crate) fn clear(&self) -> u32 {
        let clear = |board: &Board| board.content().parked.drain(..).count() as u32;
        self.boards.iter().map(clear).sum()
    }

    fn mine(&self) -> &Board {
        &self.boards[MINE.get() % self.boards.len()]
    }
}

/// Whose connections they are.
#[derive(Clone, Copy)]
struct Owner<'a> {
    upstream: &'a Arc<Upstream>,
    endpoint: &'a Arc<Endpoint>,
}

/// What a connection at rest is wanted for.
pub(crate) struct Wanted<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) reuse: Reuse,
    pub(crate) settings: &'a Settings,
    pub(crate) now: Moment,
}

impl Wanted<'_> {
    /// Whether `parked` will do.
    pub(crate) fn fits(&self, parked: &mut Parked) -> bool {
        let idle = self.now.since(parked.since);
        let young = matches!(self.reuse, Reuse::Any | Reuse::Switching) || idle <= young(self.endpoint);
        !self.reuse.wants_new()
            && young
            && idle <= parked.limit(self.endpoint)
            && parked.making.tls == self.settings.tls
            && parked.is_quiet()
    }
}

impl Board {
    #[allow(clippy::disallowed_types)] // see the field
    fn content(&self) -> std::sync::MutexGuard<'_, Content> {
        // Every line leaves it whole, so a holder that panicked left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn put(&mut self, owner: Owner<'_>, parked: Parked) -> bool {
        if self.parked.len() >= PARKED_MAX {
            return false;
        }
        if !self.tended {
            self.tended = true;
            let whose = (Arc::downgrade(owner.upstream), Arc::downgrade(owner.endpoint));
            TENDED.with_borrow_mut(|tended| tended.push(whose));
        }
        self.parked.push(parked);
        true
    }

    /// Takes the newest that will do, and closes what is of no use to anybody: how many.
    fn take(&mut self, wanted: &Wanted<'_>) -> (Option<(Io, Making)>, u32) {
        let before = self.parked.len() as u32;
        let taken = self.newest(wanted);
        let closed = before - self.parked.len() as u32 - u32::from(taken.is_some());
        (taken, closed)
    }

    fn newest(&mut self, wanted: &Wanted<'_>) -> Option<(Io, Making)> {
        let Wanted { endpoint, reuse, settings, now } = *wanted;
        if reuse.wants_new() {
            return None;
        }
        while let Some(last) = self.parked.last() {
            let idle = now.since(last.since);
            if idle > last.limit(endpoint) {
                // What lies below has rested longer.
                self.parked.clear();
                return None;
            }
            if reuse == Reuse::Young && idle > young(endpoint) {
                return None;
            }
            let mut last = self.parked.pop()?;
            if last.making.tls != settings.tls {
                continue;
            }
            if last.is_quiet() {
                return Some((last.io, last.making));
            }
            endpoint.closed_idle(idle);
        }
        None
    }

    /// Closes what is not worth keeping; says how many.
    fn tidy(&mut self, endpoint: &Endpoint, now: Moment) -> u32 {
        let before = self.parked.len();
        self.parked.retain_mut(|parked| parked.is_worth_keeping(endpoint, now));
        (before - self.parked.len()) as u32
    }
}

impl Upstream {
    /// Ends a lease of `endpoint` whose connection `io` owes nobody anything: keeps it for the next lease.
    pub(crate) fn rest(self: &Arc<Self>, endpoint: &Arc<Endpoint>, io: Io, making: Making) {
        let PoolSettings { idle, max_age, .. } = self.roster().settings.pool;
        let owner = Owner { upstream: self, endpoint };
        let mut parked = Parked { io, since: Clock::coarse(), making, idle, max_age };
        // A part of a shared one goes back by being closed.
        let is_part = matches!(parked.io, Io::Stream(_));
        if is_part || idle.is_zero() || endpoint.is_drained() || endpoint.is_leaving() {
            // The connection first, then its place.
            drop(parked);
            return self.give_back(endpoint);
        }
        if !self.gate().is_governed() {
            match endpoint.shelf.put_free(owner, parked) {
                Ok(()) => return self.give_back(endpoint),
                Err((refused, Governed)) => parked = refused,
            }
        }
        self.gate().with(|ledger| {
            // Whether it leaves is decided under this lock too.
            if !endpoint.is_leaving() && endpoint.shelf.put_counted(owner, parked) {
                ledger.rest(endpoint);
            } else {
                ledger.give_back(endpoint);
            }
        });
    }
}

/// Closes what rested too long, what its endpoint has closed, and what leads to endpoints out of use. To be
/// called every second or so by each thread that leases.
pub fn tidy_idle() {
    let now = Clock::now();
    trunk::tidy(now);
    // Taken out meanwhile: closing may free a place, and whoever is woken may park here.
    let mut tended = TENDED.take();
    tended.retain(|(upstream, endpoint)| {
        let (Some(upstream), Some(endpoint)) = (upstream.upgrade(), endpoint.upgrade()) else { return false };
        let mut content = endpoint.shelf.mine().content();
        if !content.governed {
            content.tidy(&endpoint, now);
            return true;
        }
        drop(content);
        upstream.gate().with(|ledger| {
            let closed = endpoint.shelf.mine().content().tidy(&endpoint, now);
            ledger.closed_at_rest(&endpoint, closed);
        });
        true
    });
    TENDED.with_borrow_mut(|since| {
        tended.append(since);
        *since = tended;
    });
}

fn young(endpoint: &Endpoint) -> Duration {
    endpoint.idle_allowed().map_or(YOUNG, |allowed| allowed.mul_f64(SHARE_YOUNG))
}

impl Parked {
    fn limit(&self, endpoint: &Endpoint) -> Duration {
        endpoint.idle_allowed().map_or(self.idle, |allowed| allowed.mul_f64(SHARE_ANY).min(self.idle))
    }

    fn is_worth_keeping(&mut self, endpoint: &Endpoint, now: Moment) -> bool {
        let idle = now.since(self.since);
        let out_of_use = endpoint.is_leaving() || endpoint.is_drained();
        if out_of_use
            || idle > self.limit(endpoint)
            || self.max_age.is_some_and(|age| now.since(self.making.born) > age)
        {
            return false;
        }
        let quiet = self.is_quiet();
        if !quiet {
            endpoint.closed_idle(idle);
        }
        quiet
    }

    /// Whether nothing came, neither an end nor bytes that nobody asked for. Costs a system call only if
    /// something did.
    fn is_quiet(&mut self) -> bool {
        let (mut byte, mut cx) = ([0], Context::from_waker(Waker::noop()));
        matches!(Pin::new(&mut self.io).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)), Poll::Pending)
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("rest", &self.len()).finish()
    }
}
