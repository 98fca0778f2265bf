//! What is known of one pool.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{LazyLock, PoisonError};
use std::time::Duration;

use tieline_base::{Clock, WorkerId};
use tokio::sync::Notify;

use super::counts::{Average, Count, Counts, Marks, Totals};
use crate::site::Mode;

/// All that is done for one database, as clients call it, by one user of its servers.
#[derive(Debug)]
pub(crate) struct Pool {
    /// No two have the same.
    pub(crate) id: u32,
    pub(crate) database: Box<str>,
    /// Whom its servers know: the client's own name where no other is configured.
    pub(crate) user: Box<str>,
    mode: AtomicU8,
    counts: Counts,
    marks: Lock<Marks>,
    signing_in: AtomicU32,
    paused: AtomicBool,
    resumed: Notify,
}

/// Held for a copy, by the console and once a minute.
#[allow(clippy::disallowed_types)]
type Lock<T> = std::sync::Mutex<T>;

/// Over so much time averages are taken.
const PERIOD: Duration = Duration::from_secs(60);

static NEXT_ID: AtomicU32 = AtomicU32::new(1);

impl Pool {
    pub(crate) fn new(database: &str, user: &str, mode: Mode, paused: bool) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            database: database.into(),
            user: user.into(),
            mode: AtomicU8::new(mode as u8),
            counts: Counts::new(),
            marks: Lock::new(Marks::new(Clock::now())),
            signing_in: AtomicU32::new(0),
            paused: AtomicBool::new(paused),
            resumed: Notify::new(),
        }
    }

    /// Counts what the calling thread, `worker`, did.
    pub(crate) fn count(&self, worker: WorkerId, what: Count, more: u64) {
        self.counts.add(worker, what, more);
    }

    pub(crate) fn totals(&self) -> Totals {
        self.counts.read()
    }

    /// The averages of the last period.
    pub(crate) fn average(&self) -> Average {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.average(Clock::now(), self.totals())
    }

    fn mark(&self) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.mark(Clock::now(), self.totals());
    }

    pub(crate) fn mode(&self) -> Mode {
        [Mode::Session, Mode::Transaction, Mode::Statement][usize::from(self.mode.load(Relaxed)).min(2)]
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode as u8, Relaxed);
    }

    /// Whether its clients get no servers for the time being.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(SeqCst)
    }

    /// Has its clients wait, or go on.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, SeqCst);
        if !paused {
            self.resumed.notify_waiters();
        }
    }

    /// Returns when its clients may go on.
    pub(crate) async fn resumed(&self) {
        loop {
            let mut resumed = std::pin::pin!(self.resumed.notified());
            // Enlisted first, so that a change between the two is not missed.
            resumed.as_mut().enable();
            if !self.is_paused() {
                return;
            }
            resumed.await;
        }
    }

    /// How many servers are being logged in to.
    pub(crate) fn signing_in(&self) -> u32 {
        self.signing_in.load(Relaxed)
    }
}

/// A log-in to a server, counted for as long as it lasts.
pub(crate) struct SigningIn<'p>(&'p Pool);

impl<'p> SigningIn<'p> {
    pub(crate) fn begin(pool: &'p Pool) -> Self {
        pool.signing_in.fetch_add(1, Relaxed);
        Self(pool)
    }
}

impl Drop for SigningIn<'_> {
    fn drop(&mut self) {
        self.0.signing_in.fetch_sub(1, Relaxed);
    }
}

/// Has averages taken from now on; for processes that have a console.
pub(crate) fn keep_averages() {
    static STARTED: LazyLock<()> = LazyLock::new(|| {
        let keep = || {
            loop {
                std::thread::sleep(PERIOD);
                super::pools().iter().for_each(|pool| pool.mark());
            }
        };
        // Without it averages are those of the time since the start.
        if let Err(error) = std::thread::Builder::new().name("averages".into()).spawn(keep) {
            tracing::error!("no thread to take averages on: {error}");
        }
    });
    LazyLock::force(&STARTED);
}
