//! Connections that wait, open, for the next lease of their endpoint. Each worker has its own board of them,
//! newest first out, so that a surplus ages and closes; more workers than cores share boards, but not what is
//! on them. A worker that has none while the caps allow no new connection takes another's: then, and only
//! then, a connection changes its worker, and is watched by that one's poller from then on. To use one that
//! another's poller watches would be to miss what that one hears meanwhile.
//!
//! The danger is the endpoint that closes while we choose (the keep-alive race). Three things stand against
//! it: a connection is looked at before it is lent; one that is nearly as old as its endpoint is known to
//! allow is not lent; and an exchange that must not be repeated gets a young one or none.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::thread::available_parallelism;
use std::time::Duration;

use smallvec::SmallVec;
use tieline_base::{Clock, Moment};
use tieline_transport::Io;

use crate::endpoint::Endpoint;
use crate::hand_over::Passed;
use crate::purpose::Fit;
use crate::settings::{PoolSettings, Secured, Settings};
use crate::share::Share;
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
    /// As [`Reuse::Any`], and one that rests with another worker before a new one is made: the endpoint says
    /// that it has no room for more, whatever the caps allow. Asks for what counts against caps alone.
    Anywhere,
}

impl Reuse {
    /// Whether a connection at rest will not do.
    fn wants_new(self) -> bool {
        matches!(self, Reuse::Alone | Reuse::Never)
    }
}

/// How a connection was made. It is lent again only for leases that would make it the same way.
#[derive(Debug)]
pub struct Making {
    /// When.
    pub(crate) born: Moment,
    /// What TLS it speaks.
    pub(crate) tls: Option<Secured>,
    /// What its protocol knows of it.
    pub(crate) kept: Option<Box<dyn Kept>>,
}

/// What a protocol knows of a connection, which rests and changes hands with it.
pub trait Kept: Any + fmt::Debug + Send {
    /// The login that its server has seen. It is lent again only for an [`Ask`](crate::Ask) of the same one,
    /// so a number must never stand for two.
    fn login(&self) -> u64;
}

impl Making {
    /// Takes what is known of the connection; `None` if it is new.
    pub fn take_kept(&mut self) -> Option<Box<dyn Kept>> {
        self.kept.take()
    }

    /// Keeps `kept` with the connection.
    pub fn keep(&mut self, kept: Box<dyn Kept>) {
        self.kept = Some(kept);
    }

    /// When the connection was made.
    pub fn born(&self) -> Moment {
        self.born
    }

    /// The login that its server has seen; 0 for none.
    pub(crate) fn login(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.login())
    }
}

impl Clone for Making {
    /// The same making, of another connection: what is known of this one is not known of that one.
    fn clone(&self) -> Self {
        Self { born: self.born, tls: self.tls.clone(), kept: None }
    }
}

/// A connection at rest.
pub(crate) struct Parked {
    pub(crate) io: Io,
    /// The worker whose poller watches it.
    worker: usize,
    since: Moment,
    pub(crate) making: Making,
    idle: Duration,
    max_age: Option<Duration>,
}

/// The connections at rest of one endpoint.
pub(crate) struct Shelf {
    boards: Box<[Board]>,
}

/// Those of one worker, or of the few who share it. A cache line of its own: nobody else looks at it, but in
/// want.
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
    /// The workers that look after theirs: all that ever put one here.
    tended: SmallVec<[usize; 1]>,
}

/// The most connections to one endpoint that a worker keeps at rest.
const PARKED_MAX: usize = 512;

/// The most boards that an endpoint has; workers beyond share them.
const BOARDS_MAX: usize = 64;

/// What share of the time that an endpoint allows is used: by anything, and by what must not be done twice.
const SHARE_ANY: (u32, u32) = (4, 5);
const SHARE_YOUNG: (u32, u32) = (1, 2);

/// How old "young" is at most where nothing is known of the endpoint.
const YOUNG: Duration = Duration::from_millis(500);

thread_local! {
    /// Which worker this is, and so which board is its own.
    static MINE: Cell<usize> = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Cell::new(NEXT.fetch_add(1, Ordering::Relaxed))
    };
    /// Whose boards this worker looks after.
    static TENDED: RefCell<Vec<(Weak<Upstream>, Weak<Endpoint>)>> = RefCell::default();
}

/// Which board is the calling worker's.
pub(crate) fn my_board() -> usize {
    MINE.get()
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
    #[allow(clippy::result_large_err)] // no larger than what was given
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
        // Closed once the lock is released.
        let mut useless = Vec::new();
        let mut content = self.mine().content();
        if content.governed { Err(Governed) } else { Ok(content.take(wanted, &mut useless)) }
    }

    /// The same under the gate's lock. What is of no use to anybody goes to `useless`, and counts until it is
    /// closed: see [`Upstream::close_useless`].
    pub(crate) fn take_counted(
        &self,
        wanted: &Wanted<'_>,
        useless: &mut Vec<Parked>,
    ) -> Option<(Io, Making)> {
        self.mine().content().take(wanted, useless)
    }

    /// Takes one that rests, of other workers if there is one, under the gate's lock: one of this login if
    /// there is one, else any.
    pub(crate) fn take_any(&self, login: u64) -> Option<Parked> {
        let mine = MINE.get() % self.boards.len();
        let others = || (1..=self.boards.len()).map(|step| &self.boards[(mine + step) % self.boards.len()]);
        let of_login = |board: &Board| board.content().pop_of(login);
        others().find_map(of_login).or_else(|| others().find_map(|board| board.content().pop_oldest()))
    }

    /// Closes those that are `doomed`; says how many of them counted against caps. Under the gate's lock.
    pub(crate) fn close(&self, doomed: &impl Fn(&dyn Kept) -> bool) -> u32 {
        let close = |board: &Board| {
            let mut content = board.content();
            let before = content.parked.len();
            content.parked.retain(|parked| !parked.making.kept.as_deref().is_some_and(doomed));
            if content.governed { (before - content.parked.len()) as u32 } else { 0 }
        };
        self.boards.iter().map(close).sum()
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
    pub(crate) login: u64,
    pub(crate) settings: &'a Settings,
    pub(crate) now: Moment,
}

impl Wanted<'_> {
    /// Whether `parked` will do.
    pub(crate) fn fits(&self, parked: &mut Parked) -> bool {
        let idle = self.now.since(parked.since);
        let young = matches!(self.reuse, Reuse::Any | Reuse::Anywhere | Reuse::Switching)
            || idle <= young(self.endpoint);
        !self.reuse.wants_new()
            && young
            && idle <= parked.limit(self.endpoint)
            && parked.making.tls == self.settings.tls
            && parked.making.login() == self.login
            && !parked.is_aged(self.now)
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
        if !self.tended.contains(&parked.worker) {
            self.tended.push(parked.worker);
            let whose = (Arc::downgrade(owner.upstream), Arc::downgrade(owner.endpoint));
            TENDED.with_borrow_mut(|tended| tended.push(whose));
        }
        self.parked.push(parked);
        true
    }

    /// Takes the newest that will do, and what is of no use to anybody.
    fn take(&mut self, wanted: &Wanted<'_>, useless: &mut Vec<Parked>) -> Option<(Io, Making)> {
        let Wanted { endpoint, reuse, login, settings, now } = *wanted;
        if reuse.wants_new() {
            return None;
        }
        while let Some(at) = self.newest_of(login) {
            let last = &self.parked[at];
            let idle = now.since(last.since);
            if idle > last.limit(endpoint) {
                // What lies below has rested longer.
                useless.extend(self.parked.drain(..=at));
                return None;
            }
            if reuse == Reuse::Young && idle > young(endpoint) {
                return None;
            }
            let mut last = self.parked.remove(at);
            if last.making.tls == settings.tls && !last.is_aged(now) {
                if last.is_quiet() {
                    return Some((last.io, last.making));
                }
                endpoint.habit.closed(idle, now);
            }
            useless.push(last);
        }
        None
    }

    /// Where the newest of `login` lies that is this worker's.
    fn newest_of(&self, login: u64) -> Option<usize> {
        let mine = MINE.get();
        self.parked.iter().rposition(|parked| parked.worker == mine && parked.making.login() == login)
    }

    fn pop_of(&mut self, login: u64) -> Option<Parked> {
        let newest = self.parked.iter().rposition(|parked| parked.making.login() == login);
        newest.map(|at| self.parked.remove(at))
    }

    fn pop_oldest(&mut self) -> Option<Parked> {
        (!self.parked.is_empty()).then(|| self.parked.remove(0))
    }

    /// Takes what is not worth keeping of this worker's.
    fn tidy(&mut self, endpoint: &Endpoint, now: Moment) -> Vec<Parked> {
        let mine = MINE.get();
        let useless = |parked: &mut Parked| parked.worker == mine && !parked.is_worth_keeping(endpoint, now);
        self.parked.extract_if(.., useless).collect()
    }
}

impl Upstream {
    /// Ends a lease of `endpoint` whose connection `io` owes nobody anything: keeps it for the next lease, or
    /// gives it to whoever waits for it.
    pub(crate) fn rest(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        share: Share,
        io: Io,
        making: Making,
        since: Moment,
    ) {
        let roster = self.roster();
        let PoolSettings { idle, max_age, .. } = roster.settings.pool;
        let owner = Owner { upstream: self, endpoint };
        let mut parked = Parked { io, worker: MINE.get(), since, making, idle, max_age };
        // A part of a shared one goes back by being closed.
        let is_part = matches!(&parked.io, Io::Stream(stream) if !stream.roams());
        let of_no_use = endpoint.is_drained() || endpoint.is_leaving() || endpoint.fit() == Fit::NONE;
        if is_part || idle.is_zero() || of_no_use {
            // The connection first, then its place.
            drop(parked);
            return self.give_back(endpoint, share);
        }
        if !self.gate().is_governed() {
            match endpoint.shelf.put_free(owner, parked) {
                Ok(()) => return self.give_back(endpoint, share),
                Err((refused, Governed)) => parked = refused,
            }
        }
        let handed = self.gate().with(|ledger| {
            // Whether it leaves is decided under this lock too.
            if endpoint.is_leaving() {
                ledger.give_back(endpoint, share);
                return None;
            }
            if ledger.state.waiting() > 0 {
                match self.hand_on(ledger, &roster, endpoint, share, parked, since) {
                    Passed::To(sleeper) => return Some(sleeper),
                    Passed::Place(kept) => parked = kept,
                    Passed::Nobody(kept) => {
                        parked = kept;
                        ledger.rest(endpoint, share);
                    }
                }
            } else {
                ledger.rest(endpoint, share);
            }
            if !endpoint.shelf.put_counted(owner, parked) {
                ledger.closed_at_rest(endpoint, 1);
            }
            None
        });
        // Behind the lock, as with all who are woken.
        if let Some(sleeper) = handed {
            sleeper.grant();
        }
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
        endpoint.habit.forget(now);
        let mut content = endpoint.shelf.mine().content();
        if !content.governed {
            let useless = content.tidy(&endpoint, now);
            drop(content);
            drop(useless);
            return true;
        }
        drop(content);
        let useless = upstream.gate().with(|_| endpoint.shelf.mine().content().tidy(&endpoint, now));
        upstream.close_useless(&endpoint, useless);
        true
    });
    TENDED.with_borrow_mut(|since| {
        tended.append(since);
        *since = tended;
    });
}

fn young(endpoint: &Endpoint) -> Duration {
    endpoint.habit.allowed().map_or(YOUNG, |allowed| share(allowed, SHARE_YOUNG))
}

fn share(of: Duration, (parts, all): (u32, u32)) -> Duration {
    of / all * parts
}

impl Parked {
    fn limit(&self, endpoint: &Endpoint) -> Duration {
        endpoint.habit.allowed().map_or(self.idle, |allowed| share(allowed, SHARE_ANY).min(self.idle))
    }

    /// Whether it has lived for as long as it may.
    fn is_aged(&self, now: Moment) -> bool {
        self.max_age.is_some_and(|age| crate::age::is_past(age, self.making.born, now))
    }

    fn is_worth_keeping(&mut self, endpoint: &Endpoint, now: Moment) -> bool {
        let idle = now.since(self.since);
        let out_of_use = endpoint.is_leaving() || endpoint.is_drained();
        if out_of_use || idle > self.limit(endpoint) || self.is_aged(now) {
            return false;
        }
        // Who used it last has gone, and must not be kept for the sake of waking it.
        let quiet = self.io.is_quiet_asking_nobody();
        if !quiet {
            endpoint.habit.closed(idle, now);
        }
        quiet
    }

    /// Whether nothing came, neither an end nor bytes that nobody asked for. Costs a system call only if
    /// something did.
    fn is_quiet(&mut self) -> bool {
        self.io.is_quiet()
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("rest", &self.len()).finish()
    }
}
