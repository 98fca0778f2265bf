//! Where one that waits in line hears that its turn has come.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

use crate::hand_over::{Handed, Wants};

/// One wait. It is told once.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    told: AtomicU8,
    waker: AtomicWaker,
    /// What it would take from another's hand; `None`: nothing.
    pub(crate) wants: Option<Wants>,
    // Held for a move, under the gate's lock or by its own worker.
    #[allow(clippy::disallowed_types)]
    handed: std::sync::Mutex<Option<Handed>>,
}

/// What it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// The place is its own.
    Granted,
    /// Somebody more important has its place in line.
    Displaced,
}

const NOTHING: u8 = 0;
const GRANTED: u8 = 1;
const DISPLACED: u8 = 2;

impl Sleeper {
    pub(crate) fn new(wants: Option<Wants>) -> Self {
        Self { wants, ..Self::default() }
    }

    /// With its place it gets this. To be followed by [`Sleeper::grant`].
    pub(crate) fn hand(&self, handed: Handed) {
        *self.handed.lock().unwrap_or_else(PoisonError::into_inner) = Some(handed);
    }

    /// What it was given with its place, once.
    pub(crate) fn take_handed(&self) -> Option<Handed> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn grant(&self) {
        self.tell(GRANTED);
    }

    pub(crate) fn displace(&self) {
        self.tell(DISPLACED);
    }

    fn tell(&self, what: u8) {
        self.told.store(what, Ordering::Release);
        self.waker.wake();
    }

    /// What it was told; else the task of `cx` is woken when it is.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Told> {
        let told = self.told().or_else(|| {
            self.waker.register(cx.waker());
            // Perhaps it was told between the look and the line above.
            self.told()
        });
        told.map_or(Poll::Pending, Poll::Ready)
    }

    fn told(&self) -> Option<Told> {
        match self.told.load(Ordering::Acquire) {
            NOTHING => None,
            GRANTED => Some(Told::Granted),
            _ => Some(Told::Displaced),
        }
    }
}
