//! What a pool has done, counted where it is done: each worker adds to its own figures.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tieline_base::{Moment, WorkerId};

/// What is counted, in the order in which the console tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Count {
    /// Servers that clients got.
    Assigned,
    Transactions,
    /// Queries, and batches of the extended protocol.
    Queries,
    /// Bytes from clients.
    Received,
    /// Bytes to clients.
    Sent,
    /// The time in transactions, in nanoseconds as all times here.
    InTransactions,
    InQueries,
    /// The time that clients waited for servers.
    Waited,
    /// Statements that clients prepared.
    ClientParses,
    /// Those that servers had to prepare.
    ServerParses,
    Binds,
    Logins,
}

/// How many things are counted.
pub(crate) const COUNTS: usize = Count::Logins as usize + 1;

/// All counts at one moment.
pub(crate) type Totals = [u64; COUNTS];

/// The counts of one worker, on lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard([AtomicU64; COUNTS]);

/// Workers beyond so many share the last shard.
const SHARDS: usize = 64;

/// The counts of a pool.
#[derive(Debug)]
pub(crate) struct Counts {
    own: [OnceLock<Box<Shard>>; SHARDS],
    shared: Shard,
}

impl Counts {
    pub(crate) fn new() -> Self {
        Self { own: [const { OnceLock::new() }; SHARDS], shared: Shard::default() }
    }

    /// Adds to what `worker`, the calling thread, has counted.
    pub(crate) fn add(&self, worker: WorkerId, what: Count, more: u64) {
        match self.own.get(usize::from(worker.0)) {
            Some(own) => {
                let count = &own.get_or_init(Box::default).0[what as usize];
                // Nobody else writes it.
                count.store(count.load(Relaxed) + more, Relaxed);
            }
            None => drop(self.shared.0[what as usize].fetch_add(more, Relaxed)),
        }
    }

    pub(crate) fn read(&self) -> Totals {
        let mut totals = Totals::default();
        let shards = self.own.iter().filter_map(|shard| shard.get().map(|shard| &**shard));
        for shard in shards.chain([&self.shared]) {
            totals.iter_mut().zip(&shard.0).for_each(|(total, count)| *total += count.load(Relaxed));
        }
        totals
    }
}

/// Between two marks what was done is averaged.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    older: (Moment, Totals),
    newer: Option<(Moment, Totals)>,
}

impl Marks {
    pub(crate) fn new(now: Moment) -> Self {
        Self { older: (now, Totals::default()), newer: None }
    }

    /// A period is over.
    pub(crate) fn mark(&mut self, now: Moment, totals: Totals) {
        if let Some(newer) = self.newer.replace((now, totals)) {
            self.older = newer;
        }
    }

    /// The averages of the last whole period; before there was one, of the time since the beginning.
    pub(crate) fn average(&self, now: Moment, totals: Totals) -> Average {
        let (until, new) = self.newer.unwrap_or((now, totals));
        let (since, old) = self.older;
        Average::of(&old, &new, until.since(since))
    }
}

/// What was done in a second: bytes and events. Times are those of one event, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Average(pub(crate) Totals);

impl Average {
    fn of(old: &Totals, new: &Totals, period: Duration) -> Self {
        let done = |what: Count| new[what as usize].saturating_sub(old[what as usize]);
        let mut average = Totals::default();
        let milliseconds = u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1);
        for (at, average) in average.iter_mut().enumerate() {
            *average = new[at].saturating_sub(old[at]).saturating_mul(1_000) / milliseconds;
        }
        for (time, event) in [
            (Count::InTransactions, Count::Transactions),
            (Count::InQueries, Count::Queries),
            (Count::Waited, Count::Assigned),
        ] {
            average[time as usize] = done(time) / 1_000 / done(event).max(1);
        }
        Self(average)
    }

    /// Of several pools, this of all of them: `others` and this one have these totals.
    pub(crate) fn and(mut self, own: &Totals, other: Self, others: &Totals) -> Self {
        let times = [
            (Count::InTransactions, Count::Transactions),
            (Count::InQueries, Count::Queries),
            (Count::Waited, Count::Assigned),
        ];
        for (at, average) in self.0.iter_mut().enumerate() {
            *average = match times.iter().find(|(time, _)| *time as usize == at) {
                None => *average + other.0[at],
                // Weighed by how many events each had.
                Some((_, event)) => {
                    let (mine, theirs) = (own[*event as usize], others[*event as usize]);
                    let sum = u128::from(*average) * u128::from(mine)
                        + u128::from(other.0[at]) * u128::from(theirs);
                    u64::try_from(sum / u128::from(mine + theirs).max(1)).unwrap_or(u64::MAX)
                }
            };
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_add_is_summed() {
        let counts = Counts::new();
        for worker in [0, 1, 63, 64, 900] {
            counts.add(WorkerId(worker), Count::Queries, 2);
        }
        assert_eq!(counts.read()[Count::Queries as usize], 10);
        assert_eq!(counts.read()[Count::Sent as usize], 0);
    }

    #[test]
    fn an_average_is_of_the_last_whole_period() {
        let at = |seconds: u64| Moment(seconds * 1_000_000_000);
        let done = |transactions: u64, nanoseconds: u64| {
            let mut totals = Totals::default();
            totals[Count::Transactions as usize] = transactions;
            totals[Count::InTransactions as usize] = nanoseconds;
            totals
        };
        let mut marks = Marks::new(at(0));
        let read = |average: Average| {
            (average.0[Count::Transactions as usize], average.0[Count::InTransactions as usize])
        };
        assert_eq!(read(marks.average(at(10), done(100, 5_000_000))), (10, 50));
        marks.mark(at(60), done(600, 600_000));
        marks.mark(at(120), done(1_200, 1_200_000));
        // What came since does not count yet.
        assert_eq!(read(marks.average(at(130), done(9_000, 9))), (10, 1));
    }
}
