//! The life of the server: its workers, its phases, what it obeys, and its end.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Clock, Reason, WorkerId};
use tieline_registry::{Filter, Record, Registry, Verdict};
use tokio::sync::{mpsc, oneshot, watch};

use crate::loads::Loads;
use crate::snapshot::Snapshot;
use crate::sweep::{self, Swept};
use crate::worker::{COMMANDS_MAX, Command, Worker};

/// Where the server stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// It is being set up.
    Starting,
    /// It accepts.
    Ready,
    /// It accepts no more; what lives may finish.
    Draining,
    /// What still lives is being ended.
    Closing,
    /// Nothing lives.
    Stopped,
}

impl Phase {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
            Phase::Closing => "closing",
            Phase::Stopped => "stopped",
        }
    }
}

/// The data plane: its workers, and the config that they obey.
pub struct Server {
    registry: Arc<Registry>,
    workers: Vec<mpsc::Sender<Command>>,
    obeyed: watch::Sender<Arc<Snapshot>>,
    phase: watch::Sender<Phase>,
}

/// What a stop did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stopped {
    /// How many connections lived when it began.
    pub live: usize,
    /// How many of them ended by themselves; the others were ended.
    pub finished: usize,
}

impl Server {
    /// Starts as many workers as `registry` was made for, each on a thread of its own, obeying `snapshot` but
    /// not accepting yet.
    ///
    /// # Errors
    /// When the kernel gives no thread or no poller.
    pub fn start(registry: Arc<Registry>, snapshot: Arc<Snapshot>) -> io::Result<Server> {
        let loads = Arc::new(Loads::new(registry.workers()));
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..registry.workers()).map(|_| mpsc::channel(COMMANDS_MAX)).unzip();
        for (place, commands) in receivers.into_iter().enumerate() {
            let id = WorkerId(u16::try_from(place).unwrap_or(u16::MAX));
            let (registry, snapshot) = (registry.clone(), snapshot.clone());
            let (loads, peers) = (loads.clone(), senders.clone());
            let worker = move || Worker::new(id, registry, snapshot, loads, peers);
            start_worker(id, worker, commands)?;
        }
        let (obeyed, phase) = (watch::Sender::new(snapshot), watch::Sender::new(Phase::Starting));
        Ok(Server { registry, workers: senders, obeyed, phase })
    }

    /// The live table.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The config in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.obeyed.borrow().clone()
    }

    /// Where the server stands.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Follows the phases.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Makes every worker obey `snapshot`, then decides again about everything that lives. When it returns,
    /// no worker decides by the old config any more, and what the new one forbids has its order to end.
    pub async fn deliver(&self, snapshot: Arc<Snapshot>) -> Swept {
        let before = self.obeyed.send_replace(snapshot.clone());
        self.tell_all(|done| Command::Deliver(snapshot.clone(), done)).await;
        self.phase.send_if_modified(|phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Ready;
            }
            starting
        });
        sweep::sweep(&self.registry, &before, &snapshot)
    }

    /// Stops: no more accepting, then a drain that ends the moment the last connection does, at the latest
    /// when the longest `timeouts.drain` is over. `hurry` resolves when somebody will not wait for that.
    pub async fn stop(&self, hurry: impl Future<Output = ()>) -> Stopped {
        self.phase.send_replace(Phase::Draining);
        self.tell_all(Command::StopAccepting).await;
        let live = self.registry.live(&Filter::default());
        let snapshot = self.snapshot();
        for record in &live {
            let drain = drain_of(record, &snapshot);
            record.end(Verdict { at: Clock::now().after(drain), reason: Reason::Drained });
        }
        // Both arms may be dropped: one polls a count, the other waits for a signal.
        tokio::select! {
            () = self.emptied_but_for_carriers(&snapshot) => {}
            () = hurry => {
                self.phase.send_replace(Phase::Closing);
                let now = Verdict { at: Clock::now(), reason: Reason::Drained };
                self.registry.each_live(|record| record.end(now));
                self.emptied().await;
            }
        }
        self.phase.send_replace(Phase::Stopped);
        let whole = |record: &Arc<Record>| record.parent().is_none() && !carries(record, &snapshot);
        let live: Vec<_> = live.into_iter().filter(whole).collect();
        let cut = |record: &&Arc<Record>| record.ended().is_some_and(|ended| ended.reason == Reason::Drained);
        Stopped { live: live.len(), finished: live.len() - live.iter().filter(cut).count() }
    }

    /// [`Server::emptied`]; what only carries others ends as soon as there are no others.
    async fn emptied_but_for_carriers(&self, snapshot: &Snapshot) {
        if snapshot.listeners.values().any(|listener| listener.protocol.carries_others()) {
            let others =
                || self.registry.live(&Filter::default()).into_iter().filter(|row| !carries(row, snapshot));
            while self.registry.live_count() > 0 && others().next().is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let now = Verdict { at: Clock::now(), reason: Reason::Drained };
            self.registry.each_live(|record| record.end(now));
        }
        self.emptied().await;
    }

    /// Waits until nothing lives. A drain is a matter of seconds: looking 50 times in one costs nothing.
    async fn emptied(&self) {
        while self.registry.live_count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn tell_all(&self, command: impl Fn(oneshot::Sender<()>) -> Command) {
        let mut answers = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            // A worker that is gone obeys nothing any more.
            if worker.send(command(done)).await.is_ok() {
                answers.push(answer);
            }
        }
        for answer in answers {
            let _ = answer.await;
        }
    }
}

/// How long a stop gives `record`.
fn drain_of(record: &Record, snapshot: &Snapshot) -> Duration {
    let listeners = &snapshot.listeners;
    if carries(record, snapshot) {
        // What it carries belongs to other listeners, and has the time that those give.
        return listeners.values().map(|listener| listener.timeouts.drain).max().unwrap_or_default();
    }
    listeners.get(&*record.listener().name).map_or(Duration::ZERO, |listener| listener.timeouts.drain)
}

/// Whether `record` is only the way of others.
fn carries(record: &Record, snapshot: &Snapshot) -> bool {
    let listener = snapshot.listeners.get(&*record.listener().name);
    record.parent().is_none() && listener.is_some_and(|listener| listener.protocol.carries_others())
}

/// Starts one worker on a thread of its own, and waits until its runtime stands.
fn start_worker(
    id: WorkerId,
    worker: impl FnOnce() -> Worker + Send + 'static,
    commands: mpsc::Receiver<Command>,
) -> io::Result<()> {
    let (stands, standing) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new().name(format!("worker-{}", id.0)).spawn(move || {
        // The runtime is tied to its thread: it is made there.
        match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
            Ok(runtime) => {
                let _ = stands.send(Ok(()));
                runtime.block_on(Rc::new(worker()).work(commands));
            }
            Err(error) => drop(stands.send(Err(error))),
        }
    })?;
    standing.recv().unwrap_or_else(|_| Err(io::Error::other("the worker's thread ended at its start")))
}
