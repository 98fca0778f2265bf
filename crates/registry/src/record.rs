//! The live row of one connection.

use std::fmt::Display;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use std::sync::{Arc, OnceLock};
use std::task::Context;
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tieline_base::{ClientAddr, Clock, ConnectionId, Generation, Identity, Moment, Reason, Stage, WorkerId};

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
    /// The connection that carries it, if it is part of one: then the client is whoever speaks there.
    pub parent: Option<Arc<Record>>,
}

/// What the first bytes of a connection said.
#[derive(Debug, Default)]
pub struct Settled {
    /// Whom a trusted PROXY header names as the client.
    pub proxied: Option<ClientAddr>,
    /// The server name that the TLS hello asks for.
    pub sni: Option<Box<str>>,
    /// Who was proved.
    pub identity: Identity,
    /// Who was proved later, in the words of the protocol.
    pub proved: OnceLock<Identity>,
    /// What carries it, where that is not one thing at its listener.
    pub carrier: OnceLock<&'static str>,
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
    bearing: Lock<Bearing>,
    /// Whether its exchange has a client of its own.
    spoken_for: AtomicBool,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    moved_at: AtomicU64,
    ordered: Sentence,
    scheduled: Sentence,
    patience_ns: AtomicU64,
    impatience: AtomicU8,
    exchanges: AtomicU32,
    /// How often it was woken: as long as it is the same, whoever is to be woken still is.
    rouses: AtomicU64,
    waker: AtomicWaker,
    pub(crate) notes: Notes,
    // Not boxed: a row of its own memory is one line less to fetch when it leaves the history.
    pub(crate) ended: OnceLock<Ended>,
    /// Whether its end was counted, told and written down: from then on it is of the past, before it lives.
    pub(crate) past: AtomicBool,
}

/// Where its exchange goes: each exchange of a connection may go elsewhere.
#[derive(Default)]
struct Bearing {
    route: Option<Arc<RouteRow>>,
    chosen: Option<Chosen>,
    client: Option<ClientAddr>,
}

/// Held for a copy or a push, and nearly always by the connection's own worker: never on the way of bytes.
#[allow(clippy::disallowed_types)]
type Lock<T> = std::sync::Mutex<T>;
pub(crate) type Notes = Lock<Vec<Note>>;

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
            bearing: Lock::default(),
            spoken_for: AtomicBool::new(false),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            moved_at: AtomicU64::new(opened.0),
            ordered: Sentence::none(),
            scheduled: Sentence::none(),
            patience_ns: AtomicU64::new(u64::MAX),
            impatience: AtomicU8::new(Reason::Idle as u8),
            exchanges: AtomicU32::new(0),
            rouses: AtomicU64::new(0),
            waker: AtomicWaker::new(),
            notes: Notes::default(),
            ended: OnceLock::new(),
            past: AtomicBool::new(false),
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

    /// The connection that carries it, if it is part of one.
    pub fn parent(&self) -> Option<&Arc<Record>> {
        self.opening.parent.as_ref()
    }

    /// Whose first bytes count: its own, or those of what carries it.
    fn first_bytes(&self) -> Option<&Settled> {
        self.parent().map_or(self, |parent| parent).settled.get().map(|settled| &**settled)
    }

    /// For whom its exchange speaks, or the last one did: whom a trusted forwarder names, else its
    /// [`Record::sender`].
    pub fn client(&self) -> ClientAddr {
        let named = || self.bearing().client;
        let named = if self.spoken_for.load(Relaxed) { named() } else { None };
        named.unwrap_or_else(|| self.sender())
    }

    /// Who holds the connection: whom a trusted PROXY header names, else the socket's peer.
    pub fn sender(&self) -> ClientAddr {
        self.first_bytes().and_then(|settled| settled.proxied).unwrap_or(self.opening.client)
    }

    /// The server name that its TLS hello asks for.
    pub fn sni(&self) -> Option<&str> {
        self.first_bytes()?.sni.as_deref()
    }

    /// What carries it, where its listener takes more than one thing.
    pub fn carrier(&self) -> Option<&'static str> {
        self.first_bytes()?.carrier.get().copied()
    }

    /// Who was proved to speak.
    pub fn identity(&self) -> &Identity {
        self.first_bytes()
            .map_or(&Identity::Anonymous, |settled| settled.proved.get().unwrap_or(&settled.identity))
    }

    /// The route of its exchange, or of the last one, once one was found.
    pub fn route(&self) -> Option<Arc<RouteRow>> {
        self.bearing().route.clone()
    }

    /// The endpoint of its exchange, or of the last one, once one was chosen and answered.
    pub fn endpoint(&self) -> Option<Arc<str>> {
        self.bearing().chosen.as_ref().map(|chosen| chosen.endpoint.clone())
    }

    /// Both at once: [`Record::route`] and [`Record::endpoint`].
    pub fn way(&self) -> (Option<Arc<RouteRow>>, Option<Arc<str>>) {
        let bearing = self.bearing();
        (bearing.route.clone(), bearing.chosen.as_ref().map(|chosen| chosen.endpoint.clone()))
    }

    /// Why it was that endpoint.
    pub fn why(&self) -> Option<String> {
        self.bearing().chosen.as_ref().map(|chosen| chosen.why.to_string())
    }

    fn bearing(&self) -> std::sync::MutexGuard<'_, Bearing> {
        // What it holds is whole after every statement, so a holder that panicked left nothing half done.
        self.bearing.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
        let us = now.0.saturating_sub(self.opened.0) / 1_000;
        let us = u32::try_from(us).unwrap_or(u32::MAX).max(1);
        self.marks_us[stage as usize].store(us, Relaxed);
        self.stage.store(stage as u8, Release);
    }

    /// Notes what the first bytes said.
    pub fn set_settled(&self, settled: Settled) {
        let _ = self.settled.set(Box::new(settled));
    }

    /// Notes who was proved in the words of its protocol, once and for all.
    pub fn set_proved(&self, identity: Identity) {
        let _ = self.settled.get_or_init(Box::default).proved.set(identity);
    }

    /// Notes what carries it, where its listener takes more than one thing; once and for all.
    pub fn set_carrier(&self, carrier: &'static str) {
        let _ = self.settled.get_or_init(Box::default).carrier.set(carrier);
    }

    /// Notes the route found.
    pub fn set_route(&self, route: &Arc<RouteRow>) {
        let mut bearing = self.bearing();
        if bearing.route.as_ref().is_none_or(|standing| !Arc::ptr_eq(standing, route)) {
            bearing.route = Some(route.clone());
        }
    }

    /// Notes for whom its exchange speaks, as a trusted forwarder says; `None`: for its sender.
    pub fn set_client(&self, client: Option<ClientAddr>) {
        if client.is_some() || self.spoken_for.load(Relaxed) {
            self.bearing().client = client;
            self.spoken_for.store(client.is_some(), Relaxed);
        }
    }

    /// Notes the endpoint chosen.
    pub fn set_chosen(&self, chosen: Chosen) {
        self.bearing().chosen = Some(chosen);
    }

    /// Notes the endpoint chosen, if it is another than before.
    pub fn set_endpoint(&self, endpoint: &Arc<str>, why: impl FnOnce() -> Box<dyn Display + Send + Sync>) {
        let mut bearing = self.bearing();
        if bearing.chosen.as_ref().is_none_or(|standing| !Arc::ptr_eq(&standing.endpoint, endpoint)) {
            bearing.chosen = Some(Chosen { endpoint: endpoint.clone(), why: why() });
        }
    }

    /// From now on the connection must move a byte at least every `within`, or end for `reason`. Its
    /// protocol says so for each thing that it waits for.
    pub fn expect(&self, within: Duration, reason: Reason) {
        let ns = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
        self.impatience.store(reason as u8, Relaxed);
        self.patience_ns.store(ns, Relaxed);
    }

    /// How many exchanges it has carried, where it carries more than one.
    pub fn exchanges(&self) -> u32 {
        self.exchanges.load(Relaxed)
    }

    pub(crate) fn count_exchange(&self) -> u32 {
        let number = self.exchanges.load(Relaxed).saturating_add(1);
        self.exchanges.store(number, Relaxed);
        number
    }

    /// Whether somebody wants it to end, now or when its grace is over: at the next safe point, then.
    pub fn leaving(&self) -> Option<Reason> {
        self.ordered.read().map(|verdict| verdict.reason)
    }

    /// [`Record::leaving`], and by when it has to be gone.
    pub fn leaves_by(&self) -> Option<Verdict> {
        self.ordered.read()
    }

    /// When it must end, and why, if no byte moves until then.
    pub fn patience(&self) -> Verdict {
        let at = Moment(self.moved_at.load(Relaxed).saturating_add(self.patience_ns.load(Relaxed)));
        let reason = Reason::from_code(self.impatience.load(Relaxed)).unwrap_or(Reason::Idle);
        Verdict { at, reason }
    }

    /// Notes that something moved that is not counted as bytes: the clock of [`Record::expect`] begins anew.
    pub fn touch(&self, now: Moment) {
        self.moved_at.store(now.0, Relaxed);
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
        self.moved_by(up, bytes, Clock::coarse());
    }

    /// The same `now`, which the clock was read for already.
    pub fn moved_by(&self, up: bool, bytes: u64, now: Moment) {
        add(if up { &self.bytes_up } else { &self.bytes_down }, bytes);
        self.moved_at.store(now.0, Relaxed);
    }

    /// Orders the connection to end; the earliest order stands. May be called from any thread.
    pub fn end(&self, verdict: Verdict) {
        if self.ordered.hasten(verdict) {
            self.rouse();
        }
    }

    /// Sets when its route's schedule ends it, in place of what was set before. May be called from any
    /// thread.
    pub fn schedule(&self, verdict: Option<Verdict>) {
        if self.scheduled.replace(verdict) {
            self.rouse();
        }
    }

    /// When its route's schedule ends it, as things stand.
    pub fn scheduled(&self) -> Option<Verdict> {
        self.scheduled.read()
    }

    fn rouse(&self) {
        // The waker is taken between the two: who sees as many done as begun, and no more than when it left
        // its waker, still has it there.
        self.rouses.fetch_add(Rouses::BEGUN, AcqRel);
        self.waker.wake();
        self.rouses.fetch_add(Rouses::DONE, AcqRel);
    }

    /// The earliest order that stands now, and a promise to wake `cx` when an earlier one comes. `heard` is
    /// what was heard last by the same task, [`Heard::default`] at first.
    pub fn poll_verdict(&self, heard: &mut Heard, cx: &mut Context<'_>) -> Option<Verdict> {
        // Registered before reading, so that an order between the two is not missed.
        let rouses = Rouses(self.rouses.load(Acquire));
        if heard.0 != Some(rouses) {
            heard.0 = rouses.are_done().then_some(rouses);
            self.waker.register(cx.waker());
        }
        let (ordered, scheduled) = (self.ordered.read(), self.scheduled.read());
        match (ordered, scheduled) {
            (Some(one), Some(other)) => Some(if one.at <= other.at { one } else { other }),
            (one, other) => one.or(other),
        }
    }
}

/// How far a task has heard of the orders to its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Heard(Option<Rouses>);

/// How often a connection was roused: begun in the upper half, done in the lower one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rouses(u64);

impl Rouses {
    const BEGUN: u64 = 1 << 32;
    const DONE: u64 = 1;

    /// Nobody is about to take the waker.
    fn are_done(self) -> bool {
        self.0 >> 32 == self.0 & u64::from(u32::MAX)
    }
}

/// The most notes that one connection keeps.
const NOTES_MAX: usize = 64;

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("id", &self.id).field("stage", &self.stage()).finish_non_exhaustive()
    }
}
