//! The table of the living, and the history of the finished.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use slab::Slab;
use tieline_base::{Clock, ConnectionId, Moment, Reason, Stage, WorkerId};

use crate::exchanged::Exchanged;
use crate::filter::Filter;
use crate::meter::{ListenerRow, UpstreamRow};
use crate::record::{Ended, Opening, Record};
use crate::tally::{Tallies, Tally};

/// A lock that is held for a push, a removal or the copy of a few hundred pointers, never over an await: each
/// worker has its own, so that only a reader of the table can ever make one wait.
#[allow(clippy::disallowed_types)]
type Lock<T> = std::sync::Mutex<T>;

/// How much of the past is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// For how long.
    pub age: Duration,
    /// How many connections at most, over all workers.
    pub rows: usize,
}

/// [`Limits`] that workers read at each end of an exchange.
struct History {
    age_ns: AtomicU64,
    rows: AtomicUsize,
}

impl History {
    fn new(limits: Limits) -> Self {
        let history = History { age_ns: AtomicU64::new(0), rows: AtomicUsize::new(0) };
        history.set(limits);
        history
    }

    fn set(&self, limits: Limits) {
        self.age_ns.store(u64::try_from(limits.age.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.rows.store(limits.rows, Relaxed);
    }

    fn limits(&self) -> Limits {
        Limits { age: Duration::from_nanos(self.age_ns.load(Relaxed)), rows: self.rows.load(Relaxed) }
    }
}

/// Is told of every connection that has ended, on the worker that served it: must not wait.
pub type Finished = Box<dyn Fn(&Arc<Record>) + Send + Sync>;

/// Is told of every exchange that has ended, on the worker that served it: must not wait.
pub type Told = Box<dyn Fn(&Arc<Record>, &Exchanged) + Send + Sync>;

/// Every connection of this process.
pub struct Registry {
    shards: Box<[CachePadded<Shard>]>,
    next_id: CachePadded<AtomicU64>,
    history: History,
    finished: Finished,
    exchanged: Told,
    listeners: Lock<BTreeMap<Box<str>, Arc<ListenerRow>>>,
    upstreams: Lock<BTreeMap<Box<str>, Arc<UpstreamRow>>>,
    tallies: Lock<Tallies>,
}

#[derive(Default)]
struct Shard {
    live: Lock<Slab<Arc<Record>>>,
    finished: Lock<VecDeque<Arc<Record>>>,
    // By value: what is forgotten lies where the next one goes.
    exchanged: Lock<VecDeque<Exchanged>>,
}

/// For how many exchanges of a worker room is set aside at once.
const RESERVED_MAX: usize = 1 << 16;

/// How many rows a reader takes while it holds a worker's lock.
const BATCH: usize = 256;

/// A row on its way from the living to the past.
struct Delisting<'a> {
    registry: &'a Registry,
    record: &'a Arc<Record>,
    at: Moment,
    reason: Reason,
}

impl Drop for Delisting<'_> {
    fn drop(&mut self) {
        let shard = self.registry.shard(self.record.worker());
        self.registry.tell(shard, self.record, self.at, self.reason);
        // To readers it moves from one list to the other at once, here.
        self.record.past.store(true, Release);
        held(&shard.live).try_remove(self.record.slot.load(Relaxed) as usize);
    }
}

impl Registry {
    /// An empty table for `workers` workers; `finished` is told of each row that leaves.
    pub fn new(workers: usize, history: Limits, finished: Finished) -> Self {
        Self {
            shards: (0..workers.max(1)).map(|_| CachePadded::default()).collect(),
            next_id: CachePadded::new(AtomicU64::new(1)),
            history: History::new(history),
            finished,
            exchanged: Box::new(|_, _| {}),
            listeners: Lock::default(),
            upstreams: Lock::default(),
            tallies: Lock::default(),
        }
    }

    /// The same table, with `told` being told of each exchange that ends.
    #[must_use]
    pub fn telling(mut self, told: Told) -> Self {
        self.exchanged = told;
        self
    }

    /// Notes that an exchange of `record` has ended, and keeps it in the history. Its number is given here.
    pub fn exchanged(&self, record: &Arc<Record>, mut exchanged: Exchanged) {
        exchanged.number = record.count_exchange();
        if let Some(parent) = record.parent() {
            exchanged.connection = parent.id;
            exchanged.stream = Some(record.id);
            exchanged.number = parent.count_exchange();
        }
        let took = exchanged.ended.since(exchanged.began);
        record.listener().meter.exchanged(record.worker(), exchanged.status, took);
        (self.exchanged)(record, &exchanged);
        let (rows, age) = self.share();
        let now = exchanged.ended;
        let mut past = held(&self.shard(record.worker()).exchanged);
        // Room is made first, so that what is full does not grow for one.
        while !past.is_empty()
            && (past.len() >= rows || past.front().is_some_and(|first| now.since(first.ended) > age))
        {
            past.pop_front();
        }
        if rows > 0 {
            if past.capacity() == 0 {
                // Memory that is not written to is not used: growing step by step would copy all of it again
                // and again.
                past.reserve_exact(rows.min(RESERVED_MAX));
            }
            past.push_back(exchanged);
        }
    }

    /// The remembered exchanges of the connection or the stream `id`, the first one first; the latest `most`.
    pub fn exchanges_of(&self, id: ConnectionId, most: usize) -> Vec<Exchanged> {
        let of_it = |past: &&Exchanged| past.connection == id || past.stream == Some(id);
        let mut found = Vec::new();
        for shard in &self.shards {
            // It is all on one worker.
            found.extend(held(&shard.exchanged).iter().rev().filter(of_it).take(most).cloned());
        }
        found.reverse();
        found
    }

    /// How many rows of the past each worker keeps, and for how long: its share, so that none has to ask
    /// another; at least one.
    fn share(&self) -> (usize, Duration) {
        let limits = self.history.limits();
        ((limits.rows / self.shards.len()).max(usize::from(limits.rows > 0)), limits.age)
    }

    /// How many workers it was made for.
    pub fn workers(&self) -> usize {
        self.shards.len()
    }

    /// Lists a connection. It stays listed until [`Registry::leave`].
    pub fn enter(&self, opening: Opening) -> Arc<Record> {
        let worker = opening.worker;
        opening.listener.meter.opened(worker, opening.parent.is_some());
        let record = Arc::new(Record::new(ConnectionId(self.next_id.fetch_add(1, Relaxed)), opening));
        let slot = held(&self.shard(worker).live).insert(record.clone());
        record.slot.store(u32::try_from(slot).unwrap_or(u32::MAX), Relaxed);
        record
    }

    /// Delists a connection, which ended for `reason`, and keeps it in the history. Only the first call
    /// counts. What it is `holding` is dropped first: whoever sees that it lives no more finds its places
    /// free, and it counted, told and remembered.
    pub fn leave(&self, record: &Arc<Record>, reason: Reason, detail: Option<Box<str>>, holding: impl Sized) {
        let at = Clock::now();
        if record.ended.set(Ended { at, reason, detail }).is_err() {
            return;
        }
        record.enter(Stage::Release, at);
        // Even if what it holds panics when it is dropped.
        let delisted = Delisting { registry: self, record, at, reason };
        drop(holding);
        drop(delisted);
    }

    /// Counts and remembers that `record` ended, and tells of it.
    fn tell(&self, shard: &Shard, record: &Arc<Record>, at: Moment, reason: Reason) {
        if record.parent().is_some() {
            record.listener().meter.stream_closed(record.worker());
            if record.exchanges() > 0 && reason == Reason::Answered {
                // Its exchange tells all of it; a connection of a thousand would push out all others.
                return;
            }
        } else {
            let (up, down) = record.bytes();
            let lifetime = at.since(record.opened);
            record.listener().meter.closed(record.worker(), reason, up, down, lifetime);
        }
        self.remember(shard, record.clone());
        (self.finished)(record);
    }

    fn remember(&self, shard: &Shard, record: Arc<Record>) {
        let (rows, age) = self.share();
        let mut finished = held(&shard.finished);
        finished.push_back(record);
        let oldest = Clock::coarse();
        while finished.len() > rows || finished.front().is_some_and(|first| expired(first, oldest, age)) {
            finished.pop_front();
        }
    }

    /// Changes how much of the past is kept.
    pub fn set_history(&self, limits: Limits) {
        self.history.set(limits);
    }

    /// The living that match `filter`, a copy of the moment, in the order of their ids.
    pub fn live(&self, filter: &Filter) -> Vec<Arc<Record>> {
        let now = Clock::now();
        let mut found = Vec::new();
        self.each_live(|record| {
            if !record.past.load(Acquire) && filter.matches(record, now) {
                found.push(record.clone());
            }
        });
        found.sort_unstable_by_key(|record| record.id);
        found
    }

    /// Calls `visit` for every living connection, without holding up any worker for longer than a batch.
    pub fn each_live(&self, mut visit: impl FnMut(&Arc<Record>)) {
        let mut batch = Vec::with_capacity(BATCH);
        for shard in &self.shards {
            let mut next_slot = 0;
            loop {
                {
                    let live = held(&shard.live);
                    // Slots are read one by one: iterating a slab would start from its beginning each time.
                    while next_slot < live.capacity() && batch.len() < BATCH {
                        batch.extend(live.get(next_slot).cloned());
                        next_slot += 1;
                    }
                }
                if batch.is_empty() {
                    break;
                }
                batch.drain(..).for_each(|record| visit(&record));
            }
        }
    }

    /// How many are listed, those that are part of others included.
    pub fn live_count(&self) -> usize {
        self.shards.iter().map(|shard| held(&shard.live).len()).sum()
    }

    /// How many of `worker` are listed.
    pub fn live_count_of(&self, worker: WorkerId) -> usize {
        held(&self.shard(worker).live).len()
    }

    /// The finished that match `filter` and are still remembered, the latest first.
    pub fn history(&self, filter: &Filter) -> Vec<Arc<Record>> {
        let (now, limits) = (Clock::now(), self.history.limits());
        let remembered = |record: &&Arc<Record>| !expired(record, now, limits.age);
        let past = |record: &&Arc<Record>| record.past.load(Acquire);
        let mut found = Vec::new();
        for shard in &self.shards {
            let finished: Vec<_> =
                held(&shard.finished).iter().filter(past).filter(remembered).cloned().collect();
            found.extend(finished.into_iter().filter(|record| filter.matches(record, now)));
        }
        found.sort_unstable_by_key(|record| std::cmp::Reverse(record.ended().map(|ended| ended.at)));
        found
    }

    /// The connection with this id, living or remembered.
    pub fn find(&self, id: ConnectionId) -> Option<Arc<Record>> {
        let mut found = None;
        self.each_live(|record| {
            if record.id == id {
                found = Some(record.clone());
            }
        });
        let past =
            |shard: &CachePadded<Shard>| held(&shard.finished).iter().find(|record| record.id == id).cloned();
        found.or_else(|| self.shards.iter().find_map(past))
    }

    /// The row for the listener `name`, made once for the life of the process.
    pub fn listener(&self, name: &str, protocol: &'static str) -> Arc<ListenerRow> {
        let make = || ListenerRow::new(name, protocol, self.workers());
        held(&self.listeners).entry(name.into()).or_insert_with(|| Arc::new(make())).clone()
    }

    /// The row for the upstream `name`, made once for the life of the process.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamRow> {
        let make = || Arc::new(UpstreamRow::new(name, self.workers()));
        held(&self.upstreams).entry(name.into()).or_insert_with(make).clone()
    }

    /// Every listener that there was, by name.
    pub fn listeners(&self) -> Vec<Arc<ListenerRow>> {
        held(&self.listeners).values().cloned().collect()
    }

    /// Every upstream that there was, by name.
    pub fn upstreams(&self) -> Vec<Arc<UpstreamRow>> {
        held(&self.upstreams).values().cloned().collect()
    }

    /// The counter of this name and labels, made once for the life of the process.
    pub fn tally(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
    ) -> Arc<Tally> {
        held(&self.tallies).find_or_make(name, help, labels)
    }

    /// Every counter that was asked for, those of one name beside each other.
    pub fn tallies(&self) -> Vec<Arc<Tally>> {
        held(&self.tallies).all()
    }

    fn shard(&self, worker: WorkerId) -> &Shard {
        &self.shards[usize::from(worker.0)]
    }
}

fn expired(record: &Arc<Record>, now: Moment, age: Duration) -> bool {
    record.ended().is_none_or(|ended| now.since(ended.at) > age)
}

/// The lock's content; a panic while it was held left nothing half done, so poison is no reason to stop.
fn held<T>(lock: &Lock<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("live", &self.live_count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
