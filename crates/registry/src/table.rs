//! The table of the living, and the history of the finished.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use slab::Slab;
use tieline_base::{Clock, ConnectionId, Moment, Reason, Stage, WorkerId};

use crate::exchanged::Exchanged;
use crate::filter::Filter;
use crate::meter::{ListenerRow, Meter, UpstreamRow};
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

/// Is told of every connection that has ended, on the worker that served it: must not wait.
pub type Finished = Box<dyn Fn(&Arc<Record>) + Send + Sync>;

/// Is told of every exchange that has ended, on the worker that served it: must not wait.
pub type Told = Box<dyn Fn(&Arc<Record>, &Arc<Exchanged>) + Send + Sync>;

/// Every connection of this process.
pub struct Registry {
    shards: Box<[CachePadded<Shard>]>,
    next_id: CachePadded<AtomicU64>,
    history: Lock<Limits>,
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
    exchanged: Lock<VecDeque<Arc<Exchanged>>>,
}

/// How many rows a reader takes while it holds a worker's lock.
const BATCH: usize = 256;

impl Registry {
    /// An empty table for `workers` workers; `finished` is told of each row that leaves.
    pub fn new(workers: usize, history: Limits, finished: Finished) -> Self {
        Self {
            shards: (0..workers.max(1)).map(|_| CachePadded::default()).collect(),
            next_id: CachePadded::new(AtomicU64::new(1)),
            history: Lock::new(history),
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
        let exchanged = Arc::new(exchanged);
        let took = exchanged.ended.since(exchanged.began);
        record.listener().meter.exchanged(record.worker(), exchanged.status, took);
        (self.exchanged)(record, &exchanged);
        let (rows, age) = self.share();
        let mut past = held(&self.shard(record.worker()).exchanged);
        past.push_back(exchanged);
        let oldest = Clock::coarse();
        while past.len() > rows || past.front().is_some_and(|first| oldest.since(first.ended) > age) {
            past.pop_front();
        }
    }

    /// Calls `visit` for each remembered exchange of the connection or the stream `id`, the first one first.
    pub fn exchanges_of(&self, id: ConnectionId, mut visit: impl FnMut(&Arc<Exchanged>)) {
        for shard in &self.shards {
            let past = held(&shard.exchanged);
            let of_it = |past: &&Arc<Exchanged>| past.connection == id || past.stream == Some(id);
            past.iter().filter(of_it).for_each(&mut visit);
        }
    }

    /// How many rows of the past each worker keeps, and for how long: its share, so that none has to ask
    /// another; at least one.
    fn share(&self) -> (usize, Duration) {
        let limits = *held(&self.history);
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
    /// counts.
    pub fn leave(&self, record: &Arc<Record>, reason: Reason, detail: Option<Box<str>>) {
        let at = Clock::now();
        if record.ended.set(Ended { at, reason, detail }).is_err() {
            return;
        }
        record.enter(Stage::Release, at);
        let shard = self.shard(record.worker());
        held(&shard.live).try_remove(record.slot.load(Relaxed) as usize);
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
        *held(&self.history) = limits;
    }

    /// The living that match `filter`, a copy of the moment, in the order of their ids.
    pub fn live(&self, filter: &Filter) -> Vec<Arc<Record>> {
        let now = Clock::now();
        let mut found = Vec::new();
        self.each_live(|record| {
            if filter.matches(record, now) {
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
        let (now, limits) = (Clock::now(), *held(&self.history));
        let remembered = |record: &&Arc<Record>| !expired(record, now, limits.age);
        let mut found = Vec::new();
        for shard in &self.shards {
            let finished: Vec<_> = held(&shard.finished).iter().filter(remembered).cloned().collect();
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
        let make = || ListenerRow { name: name.into(), protocol, meter: Meter::new(self.workers()) };
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
mod tests {
    use super::*;
    use crate::verdict::Verdict;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicUsize;
    use tieline_base::{ClientAddr, Generation, Identity};

    fn table(workers: usize, rows: usize) -> (Registry, Arc<AtomicUsize>) {
        let told = Arc::new(AtomicUsize::new(0));
        let tell = told.clone();
        let finished = Box::new(move |_: &Arc<Record>| {
            tell.fetch_add(1, Relaxed);
        });
        (Registry::new(workers, Limits { age: Duration::from_secs(600), rows }, finished), told)
    }

    fn enter(registry: &Registry, worker: u16) -> Arc<Record> {
        registry.enter(Opening {
            client: ClientAddr::Unix,
            listener: registry.listener("web", "tcp"),
            worker: WorkerId(worker),
            generation: Generation(1),
            parent: None,
        })
    }

    #[test]
    fn a_row_is_listed_from_its_opening_to_its_end_and_remembered() {
        let (registry, told) = table(1, 10);
        let record = enter(&registry, 0);
        assert_eq!(registry.live(&Filter::default()).len(), 1);
        registry.leave(&record, Reason::Killed, Some("by ana".into()));
        registry.leave(&record, Reason::Idle, None);
        assert!(registry.live(&Filter::default()).is_empty());
        let remembered = registry.find(record.id()).unwrap();
        assert_eq!(remembered.ended().unwrap().reason, Reason::Killed);
        assert_eq!(told.load(Relaxed), 1);
    }

    #[test]
    fn what_is_part_of_a_connection_is_a_row_and_no_connection() {
        let (registry, told) = table(1, 10);
        let parent = enter(&registry, 0);
        let proxied = Some("192.0.2.7:9".parse().map(ClientAddr::from_socket).unwrap());
        parent.set_settled(crate::Settled {
            proxied,
            sni: Some("a.test".into()),
            identity: Identity::Anonymous,
        });
        let child = || {
            registry.enter(Opening {
                client: ClientAddr::Unix,
                listener: registry.listener("web", "tcp"),
                worker: WorkerId(0),
                generation: Generation(1),
                parent: Some(parent.clone()),
            })
        };
        let (first, second) = (child(), child());
        assert_eq!((first.client(), first.sni()), (parent.client(), Some("a.test")));
        let of_parent: Filter = format!("parent={}", parent.id().0).parse().unwrap();
        assert_eq!(registry.live(&of_parent).len(), 2);
        assert_eq!(registry.live(&"parent=0".parse().unwrap())[0].id(), parent.id());
        let read = || registry.listener("web", "tcp").meter.read();
        assert_eq!((read().opened, read().streams_opened, read().streams_closed), (1, 2, 0));

        registry.exchanged(&second, exchange(second.id()));
        registry.leave(&second, Reason::Answered, None);
        registry.leave(&first, Reason::Killed, None);
        assert_eq!((read().closed.iter().sum::<u64>(), read().streams_closed), (0, 2));
        let mut exchanges = Vec::new();
        let mut seen = |one: &Arc<Exchanged>| exchanges.push((one.number, one.stream));
        registry.exchanges_of(parent.id(), &mut seen);
        assert_eq!(exchanges, [(1, Some(second.id()))]);
        // What went as it should is told by its exchange; what did not is remembered.
        assert!(registry.find(second.id()).is_none() && registry.find(first.id()).is_some());
        assert_eq!(told.load(Relaxed), 1);
        let live = registry.live(&Filter::default());
        assert_eq!(live.iter().map(|row| row.id()).collect::<Vec<_>>(), [parent.id()]);
    }

    #[test]
    fn an_order_from_outside_wakes_its_connection_once_it_is_earlier() {
        let (registry, _) = table(1, 10);
        let record = enter(&registry, 0);
        let woken = Arc::new(CountWakes::default());
        let waker = std::task::Waker::from(woken.clone());
        let mut cx = std::task::Context::from_waker(&waker);
        assert_eq!(record.poll_verdict(&mut cx), None);
        let late = Verdict { at: Moment(9_000_000), reason: Reason::Drained };
        let early = Verdict { at: Moment(1_000_000), reason: Reason::Killed };
        for (order, wakes) in [(late, 1), (early, 2), (late, 2)] {
            record.end(order);
            assert_eq!(woken.0.load(Relaxed), wakes);
            record.poll_verdict(&mut cx);
        }
        assert_eq!(record.poll_verdict(&mut cx), Some(early));
    }

    fn exchange(connection: ConnectionId) -> Exchanged {
        Exchanged {
            connection,
            stream: None,
            number: 0,
            began: Moment(1),
            ended: Clock::now(),
            acquired_after: None,
            answered_after: None,
            route: None,
            endpoint: None,
            asked: crate::Asked::default(),
            client: ClientAddr::Unix,
            called: None,
            tag: 1,
            status: Some(200),
            bytes_up: 0,
            bytes_down: 0,
            reason: Reason::Answered,
            detail: None,
            notes: Vec::new(),
        }
    }

    #[derive(Default)]
    struct CountWakes(AtomicUsize);

    impl std::task::Wake for CountWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    proptest! {
        #[test]
        fn counters_always_add_up_to_the_rows(steps in prop::collection::vec((0u16..3, 0usize..40), 1..400)) {
            let (registry, told) = table(3, 20);
            let (mut live, mut opened) = (Vec::new(), 0u64);
            for (worker, choice) in steps {
                if choice < 24 || live.is_empty() {
                    live.push(enter(&registry, worker));
                    opened += 1;
                } else {
                    let record = live.swap_remove(choice % live.len());
                    registry.leave(&record, Reason::ALL[choice % Reason::ALL.len()], None);
                }
                let reading = registry.listener("web", "tcp").meter.read();
                let closed: u64 = reading.closed.iter().sum();
                prop_assert_eq!(reading.opened, opened);
                prop_assert_eq!(reading.opened - closed, live.len() as u64);
                prop_assert_eq!(told.load(Relaxed) as u64, closed);
                let mut ids: Vec<_> = live.iter().map(|record| record.id()).collect();
                ids.sort_unstable();
                let listed: Vec<_> = registry.live(&Filter::default()).iter().map(|row| row.id()).collect();
                prop_assert_eq!(listed, ids);
                prop_assert!(registry.history(&Filter::default()).len() <= 21);
            }
        }
    }
}
