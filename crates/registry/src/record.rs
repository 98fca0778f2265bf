//! The live row of one connection.

use std::fmt::Display;
use std::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Arc, OnceLock};
use std::task::Context;

use atomic_waker::AtomicWaker;
use tieline_base::{ClientAddr, Clock, ConnectionId, Generation, Moment, Reason, Stage, WorkerId};

use crate::histogram::add;
use crate::meter::{ListenerRow, RouteRow};
use crate::row::Note;
use crate::verdict::{Sentence, Verdict};

/// What is known of a connection the moment it is taken from the kernel.
#[derive(Debug)]
pub struct Opening {
    /// The socket's peer.
    pub client: ClientAddr,
    /// Where it was accepted.
    pub listener: Arc<ListenerRow>,
    /// The worker that serves it.
    pub worker: WorkerId,
    /// The config that was in force.
    pub generation: Generation,
}

/// What the first bytes of a connection said.
#[derive(Debug, Default)]
pub struct Settled {
    /// Whom a trusted PROXY header names as the client.
    pub proxied: Option<ClientAddr>,
    /// The server name that the TLS hello asks for.
    pub sni: Option<Box<str>>,
}

/// Which endpoint was chosen, and why.
pub struct Chosen {
    /// The endpoint, as the config and the API name it.
    pub endpoint: Arc<str>,
    /// Why it was; formatted only when somebody asks.
    pub why: Box<dyn Display + Send + Sync>,
}

/// How a connection ended.
#[derive(Debug)]
pub struct Ended {
    /// When.
    pub at: Moment,
    /// Why.
    pub reason: Reason,
    /// What lay beneath: an error of the kernel, a rule, an operator's words.
    pub detail: Option<Box<str>>,
}

/// One connection. Its worker writes it; everybody may read it and say when it must end.
pub struct Record {
    pub(crate) id: ConnectionId,
    pub(crate) slot: AtomicU32,
    pub(crate) opening: Opening,
    pub(crate) opened: Moment,
    stage: AtomicU8,
    marks_us: [AtomicU32; Stage::ALL.len()],
    settled: OnceLock<Box<Settled>>,
    route: OnceLock<Arc<RouteRow>>,
    chosen: OnceLock<Chosen>,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    moved_at: AtomicU64,
    ordered: Sentence,
    scheduled: Sentence,
    waker: AtomicWaker,
    pub(crate) notes: Notes,
    // Not boxed: a row of its own memory is one line less to fetch when it leaves the history.
    pub(crate) ended: OnceLock<Ended>,
}

#[allow(clippy::disallowed_types)] // held for a push or a copy; notes are rare, and never on the way of bytes
pub(crate) type Notes = std::sync::Mutex<Vec<Note>>;

impl Record {
    pub(crate) fn new(id: ConnectionId, opening: Opening) -> Self {
        let opened = Clock::now();
        Self {
            id,
            slot: AtomicU32::new(0),
            opening,
            opened,
            stage: AtomicU8::new(Stage::Accept as u8),
            marks_us: [const { AtomicU32::new(0) }; Stage::ALL.len()],
            settled: OnceLock::new(),
            route: OnceLock::new(),
            chosen: OnceLock::new(),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            moved_at: AtomicU64::new(opened.0),
            ordered: Sentence::none(),
            scheduled: Sentence::none(),
            waker: AtomicWaker::new(),
            notes: Notes::default(),
            ended: OnceLock::new(),
        }
    }

    /// Its id.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// When it was accepted.
    pub fn opened(&self) -> Moment {
        self.opened
    }

    /// Where it was accepted.
    pub fn listener(&self) -> &Arc<ListenerRow> {
        &self.opening.listener
    }

    /// The worker that serves it.
    pub fn worker(&self) -> WorkerId {
        self.opening.worker
    }

    /// The config that was in force when it was accepted.
    pub fn generation(&self) -> Generation {
        self.opening.generation
    }

    /// The socket's peer.
    pub fn peer(&self) -> ClientAddr {
        self.opening.client
    }

    /// Who speaks: whom a trusted PROXY header names, else the socket's peer.
    pub fn client(&self) -> ClientAddr {
        self.settled.get().and_then(|settled| settled.proxied).unwrap_or(self.opening.client)
    }

    /// The server name that its TLS hello asks for.
    pub fn sni(&self) -> Option<&str> {
        self.settled.get()?.sni.as_deref()
    }

    /// Its route, once one was found.
    pub fn route(&self) -> Option<&Arc<RouteRow>> {
        self.route.get()
    }

    /// Its endpoint, once one was chosen and answered.
    pub fn chosen(&self) -> Option<&Chosen> {
        self.chosen.get()
    }

    /// Where it stands.
    pub fn stage(&self) -> Stage {
        Stage::from_code(self.stage.load(Acquire)).unwrap_or(Stage::Release)
    }

    /// When it entered `stage`; none if it never did.
    pub fn entered(&self, stage: Stage) -> Option<Moment> {
        let us = self.marks_us[stage as usize].load(Relaxed);
        match stage {
            Stage::Accept => Some(self.opened),
            Stage::Release => self.ended.get().map(|ended| ended.at),
            _ => (us > 0).then(|| Moment(self.opened.0 + u64::from(us) * 1_000)),
        }
    }

    /// Bytes from the client, and to it.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_up.load(Relaxed), self.bytes_down.load(Relaxed))
    }

    /// When bytes last moved; the opening if none did.
    pub fn moved_at(&self) -> Moment {
        Moment(self.moved_at.load(Relaxed))
    }

    /// How it ended, once it has.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.get()
    }

    /// The one way by which a connection changes its stage. Marks when; stages past the first hour of a
    /// connection are marked at 71 minutes, the most that 32 bits of microseconds hold.
    pub fn enter(&self, stage: Stage, now: Moment) {
        let us = now.since(self.opened).as_micros();
        let us = u32::try_from(us).unwrap_or(u32::MAX).max(1);
        self.marks_us[stage as usize].store(us, Relaxed);
        self.stage.store(stage as u8, Release);
    }

    /// Notes what the first bytes said.
    pub fn set_settled(&self, settled: Settled) {
        let _ = self.settled.set(Box::new(settled));
    }

    /// Notes the route found.
    pub fn set_route(&self, route: Arc<RouteRow>) {
        let _ = self.route.set(route);
    }

    /// Notes the endpoint chosen.
    pub fn set_chosen(&self, chosen: Chosen) {
        let _ = self.chosen.set(chosen);
    }

    /// Adds to its story something out of the ordinary: a failed try, a wait, a decision taken again.
    pub fn note(&self, text: impl Into<Box<str>>) {
        let note = Note { at: Clock::now().since(self.opened), text: text.into() };
        if let Ok(mut notes) = self.notes.lock()
            && notes.len() < NOTES_MAX
        {
            notes.push(note);
        }
    }

    /// Counts `bytes` moved: `up` from the client, else to it.
    pub fn moved(&self, up: bool, bytes: u64) {
        add(if up { &self.bytes_up } else { &self.bytes_down }, bytes);
        self.moved_at.store(Clock::coarse().0, Relaxed);
    }

    /// Orders the connection to end; the earliest order stands. May be called from any thread.
    pub fn end(&self, verdict: Verdict) {
        if self.ordered.hasten(verdict) {
            self.waker.wake();
        }
    }

    /// Sets when its route's schedule ends it, in place of what was set before. May be called from any
    /// thread.
    pub fn schedule(&self, verdict: Option<Verdict>) {
        if self.scheduled.replace(verdict) {
            self.waker.wake();
        }
    }

    /// When its route's schedule ends it, as things stand.
    pub fn scheduled(&self) -> Option<Verdict> {
        self.scheduled.read()
    }

    /// The earliest order that stands now, and a promise to wake `cx` when an earlier one comes.
    pub fn poll_verdict(&self, cx: &mut Context<'_>) -> Option<Verdict> {
        // Registered before reading, so that an order between the two is not missed.
        self.waker.register(cx.waker());
        let (ordered, scheduled) = (self.ordered.read(), self.scheduled.read());
        match (ordered, scheduled) {
            (Some(one), Some(other)) => Some(if one.at <= other.at { one } else { other }),
            (one, other) => one.or(other),
        }
    }
}

/// The most notes that one connection keeps.
const NOTES_MAX: usize = 64;

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("id", &self.id).field("stage", &self.stage()).finish_non_exhaustive()
    }
}
