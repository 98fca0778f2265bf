//! One data-plane thread: a runtime of its own, on which its connections live and die.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Address, Clock, Fault, Generation, Moment, Reason, Stage, Whose, WorkerId};
use tieline_pool::tidy_idle;
use tieline_registry::{Opening, Record, Registry};
use tieline_transport::{Accepted, Acceptor, is_exhaustion, rouse_stalled};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::connection::Outcome;
use crate::handshakes::Handshakes;
use crate::loads::Loads;
use crate::path;
use crate::quic_doors::QuicDoors;
use crate::snapshot::{Listener, Snapshot};
use crate::turns::Turns;

/// What every connection of a thread shares.
pub struct Worker {
    id: WorkerId,
    registry: Arc<Registry>,
    snapshot: RefCell<Arc<Snapshot>>,
    loads: Arc<Loads>,
    peers: Vec<mpsc::Sender<Command>>,
    handshakes: Handshakes,
    /// How many works that no client waits for are under way.
    asides: Rc<Cell<u32>>,
}

/// What a worker can be told.
pub(crate) enum Command {
    /// Serve a connection that another worker took from the kernel.
    Serve(Accepted, Arc<Listener>),
    /// Obey this config from now on, and accept at its listeners; say when done.
    Deliver(Arc<Snapshot>, oneshot::Sender<()>),
    /// Stop accepting; say when the queues are empty.
    StopAccepting(oneshot::Sender<()>),
}

/// How many commands, hand-overs above all, may wait for one worker. When it is that far behind, the others
/// serve what they accept themselves.
pub(crate) const COMMANDS_MAX: usize = 1_024;

/// How many works that no client waits for a worker does at once.
const ASIDES_MAX: u32 = 128;

/// One of them, counted for as long as it lasts.
struct Aside(Rc<Cell<u32>>);

impl Aside {
    fn begin(count: &Rc<Cell<u32>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Worker {
    pub(crate) fn new(
        id: WorkerId,
        registry: Arc<Registry>,
        snapshot: Arc<Snapshot>,
        loads: Arc<Loads>,
        peers: Vec<mpsc::Sender<Command>>,
    ) -> Self {
        let handshakes = Handshakes::new();
        Self {
            id,
            registry,
            snapshot: RefCell::new(snapshot),
            loads,
            peers,
            handshakes,
            asides: Rc::default(),
        }
    }

    /// Which one it is.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// The live table.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The config that this worker obeys now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// When a TLS handshake may go on.
    pub(crate) fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    /// Which config that is.
    pub fn generation(&self) -> Generation {
        self.snapshot.borrow().generation
    }

    /// Obeys `commands` until their sender is gone.
    #[allow(clippy::disallowed_methods)] // the worker's own beat and turns, for as long as it works
    pub(crate) async fn work(self: Rc<Self>, mut commands: mpsc::Receiver<Command>) {
        tokio::task::spawn_local(beat());
        let worker = self.clone();
        tokio::task::spawn_local(async move { worker.handshakes.keep().await });
        let (mut doors, mut quic) = (Doors::default(), QuicDoors::default());
        while let Some(command) = commands.recv().await {
            match command {
                Command::Serve(accepted, listener) => self.serve(accepted, listener),
                Command::Deliver(snapshot, done) => {
                    self.snapshot.replace(snapshot.clone());
                    doors.follow(&self, &snapshot);
                    quic.follow(&self, &snapshot);
                    // Whoever asked may have gone meanwhile.
                    let _ = done.send(());
                }
                Command::StopAccepting(done) => {
                    doors.close_all(&self);
                    quic.close_all();
                    let _ = done.send(());
                }
            }
        }
    }

    #[allow(clippy::disallowed_methods)] // the one place that spawns connections
    fn serve(self: &Rc<Self>, accepted: Accepted, listener: Arc<Listener>) {
        tokio::task::spawn_local(path::serve(accepted, listener, self.clone()));
    }

    /// Spawns the serving of a connection inside another one.
    #[allow(clippy::disallowed_methods)] // connections are spawned here, also those inside others
    pub(crate) fn serve_inside(&self, serving: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(serving);
    }

    /// Spawns work that no client waits for; false if too much of that is under way.
    #[allow(clippy::disallowed_methods)] // the one place that spawns what belongs to no connection
    pub(crate) fn aside(&self, work: impl Future<Output = ()> + 'static) -> bool {
        if self.asides.get() >= ASIDES_MAX {
            return false;
        }
        let under_way = Aside::begin(&self.asides);
        tokio::task::spawn_local(async move {
            work.await;
            drop(under_way);
        });
        true
    }

    /// Serves `accepted` here, or hands it to the worker with the fewest connections.
    pub(crate) fn place(self: &Rc<Self>, accepted: Accepted, listener: Arc<Listener>) {
        let chosen = self.loads.place(self.id);
        if chosen == self.id {
            return self.serve(accepted, listener);
        }
        let sent = self.peers[usize::from(chosen.0)].try_send(Command::Serve(accepted, listener));
        if let Err(mpsc::error::TrySendError::Full(Command::Serve(accepted, listener))) = sent {
            self.loads.shift(chosen, self.id);
            self.serve(accepted, listener);
        }
    }
}

/// Sleeps for ever, in short naps, and looks after the stalled between them. A timer that is earlier than
/// every other makes the runtime wake itself through the kernel, even from its own thread; while a nap is
/// always the earliest, the timers of connections never are.
async fn beat() {
    loop {
        for _ in 0..BEATS_PER_ROUSE {
            tokio::time::sleep(BEAT).await;
        }
        rouse_stalled();
        tidy_idle();
    }
}

/// Shorter than nearly every timeout of a connection, long enough to cost nothing.
const BEAT: Duration = Duration::from_millis(200);

/// How many beats a stalled connection may take to hear that its sender is gone: a second's worth.
const BEATS_PER_ROUSE: u32 = 5;

/// The sockets at which one worker accepts.
#[derive(Default)]
struct Doors(HashMap<Address, Door>);

struct Door {
    acceptor: Rc<Acceptor>,
    listener: Rc<RefCell<Arc<Listener>>>,
    accepting: JoinHandle<()>,
}

impl Doors {
    /// Accepts where `snapshot` says, and where this worker is the one to do it.
    fn follow(&mut self, worker: &Rc<Worker>, snapshot: &Snapshot) {
        let mut wanted = HashMap::new();
        for listener in snapshot.listeners.values() {
            for (bound, accepted_by) in &listener.doors {
                if *accepted_by == worker.id {
                    wanted.insert(bound.address().clone(), (bound, listener));
                }
            }
        }
        let gone: Vec<Address> = self.0.keys().filter(|at| !wanted.contains_key(at)).cloned().collect();
        gone.iter().for_each(|address| self.close(worker, address));
        for (address, (bound, listener)) in wanted {
            if let Some(door) = self.0.get(&address) {
                door.listener.replace(listener.clone());
                continue;
            }
            match Acceptor::new(bound) {
                Ok(acceptor) => drop(self.0.insert(address, Door::open(worker, acceptor, listener.clone()))),
                Err(error) => tracing::error!(%address, %error, "cannot watch a listening socket"),
            }
        }
    }

    fn close_all(&mut self, worker: &Rc<Worker>) {
        let all: Vec<Address> = self.0.keys().cloned().collect();
        all.iter().for_each(|address| self.close(worker, address));
    }

    /// Stops accepting at `address`. Who had connected already is told no, in the table too, instead of being
    /// lost with the queue.
    fn close(&mut self, worker: &Rc<Worker>, address: &Address) {
        let Some(door) = self.0.remove(address) else { return };
        door.accepting.abort();
        let listener = door.listener.borrow().clone();
        while let Ok(Some(accepted)) = door.acceptor.take_queued() {
            let record = worker.registry.enter(Opening {
                client: accepted.client,
                listener: listener.row.clone(),
                worker: worker.id,
                generation: worker.generation(),
                parent: None,
            });
            worker.registry.leave(&record, Reason::RefusedDraining, None, ());
        }
        // A reload, or a long drain, holds the socket on: clients must go elsewhere, not queue for nobody.
        door.acceptor.close();
    }
}

impl Door {
    #[allow(clippy::disallowed_methods)] // the one place that spawns acceptors
    fn open(worker: &Rc<Worker>, acceptor: Acceptor, listener: Arc<Listener>) -> Door {
        let (acceptor, listener) = (Rc::new(acceptor), Rc::new(RefCell::new(listener)));
        let accepting =
            tokio::task::spawn_local(accept_all(worker.clone(), acceptor.clone(), listener.clone()));
        Door { acceptor, listener, accepting }
    }
}

/// How long accepting pauses when this machine has run out of something. Those who wait stay in the kernel's
/// queue.
const EXHAUSTION_PAUSE: Duration = Duration::from_millis(50);

/// How often the log speaks of it.
const EXHAUSTION_LOGGED_EVERY: Duration = Duration::from_secs(5);

/// How many connections are taken from the kernel before those that are served have their turn: whoever
/// floods a listener makes newcomers wait in the kernel's queue, and nobody else.
pub(crate) const ACCEPTS_PER_TURN: u32 = 8;

async fn accept_all(worker: Rc<Worker>, acceptor: Rc<Acceptor>, listener: Rc<RefCell<Arc<Listener>>>) {
    let (mut logged, mut turns): (Option<Moment>, _) = (None, Turns::of(ACCEPTS_PER_TURN));
    loop {
        let listening = || listener.borrow().clone();
        match acceptor.accept().await {
            Ok(accepted) => {
                worker.place(accepted, listening());
                turns.did().await;
            }
            Err(error) => {
                let now = Clock::now();
                if logged.is_none_or(|last| now.since(last) >= EXHAUSTION_LOGGED_EVERY) {
                    let listener = &*listening().row.name;
                    let exhausted = is_exhaustion(&error);
                    tracing::warn!(listener, %error, exhausted, "cannot accept; trying again every 50 ms");
                    logged = Some(now);
                }
                tokio::time::sleep(EXHAUSTION_PAUSE).await;
            }
        }
    }
}

/// A connection's place in the table and in its worker's count: left exactly once, in order or by a panic.
pub(crate) struct Seat {
    worker: Rc<Worker>,
    record: Arc<Record>,
    left: bool,
}

impl Seat {
    pub(crate) fn new(worker: Rc<Worker>, record: Arc<Record>) -> Self {
        Self { worker, record, left: false }
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Gives back what the connection `held`, and delists it with its outcome.
    pub(crate) fn leave(mut self, outcome: Outcome, held: impl Sized) {
        self.left = true;
        let (reason, detail) = match outcome {
            Ok(reason) => (reason, None),
            Err(fault) => (fault.reason, detail(&fault)),
        };
        self.worker.registry.leave(&self.record, reason, detail, held);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Work inside a connection is where that was placed.
        if self.record.parent().is_none() {
            self.worker.loads.leave(self.worker.id);
        }
        if !self.left {
            let defect = Fault::new(Stage::Release, Whose::Us, Reason::Internal);
            tracing::error!(connection = self.record.id().0, "{defect}");
            self.worker.registry.leave(&self.record, defect.reason, Some("a defect of Tieline".into()), ());
        }
    }
}

/// The causes beneath a fault, in one line.
fn detail(fault: &Fault) -> Option<Box<str>> {
    let mut texts = Vec::new();
    let mut cause = fault.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    (!texts.is_empty()).then(|| texts.join(": ").into())
}
