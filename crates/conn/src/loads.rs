//! How many connections each worker serves, so that a new one goes to the worker with the fewest.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crossbeam_utils::CachePadded;
use tieline_base::WorkerId;

/// One count a worker, shared by all.
#[derive(Debug)]
pub(crate) struct Loads(Box<[CachePadded<AtomicU32>]>);

impl Loads {
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| CachePadded::default()).collect())
    }

    /// The worker with the fewest connections, `here` if it is one of them; counts the new one against it.
    pub(crate) fn place(&self, here: WorkerId) -> WorkerId {
        let mut chosen = here;
        for (place, load) in self.0.iter().enumerate() {
            if load.load(Relaxed) < self.of(chosen).load(Relaxed) {
                chosen = WorkerId(place as u16);
            }
        }
        self.of(chosen).fetch_add(1, Relaxed);
        chosen
    }

    /// A connection was placed at `from` but is served at `to`.
    pub(crate) fn shift(&self, from: WorkerId, to: WorkerId) {
        self.leave(from);
        self.of(to).fetch_add(1, Relaxed);
    }

    /// A connection of `worker` ended.
    pub(crate) fn leave(&self, worker: WorkerId) {
        self.of(worker).fetch_sub(1, Relaxed);
    }

    fn of(&self, worker: WorkerId) -> &AtomicU32 {
        &self.0[usize::from(worker.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_spread_within_one_of_each_other() {
        let loads = Loads::new(3);
        for count in 1..=64u32 {
            loads.place(WorkerId(1));
            let spread: Vec<u32> = loads.0.iter().map(|load| load.load(Relaxed)).collect();
            assert_eq!(spread.iter().sum::<u32>(), count);
            assert!(spread.iter().max().unwrap() - spread.iter().min().unwrap() <= 1, "{spread:?}");
        }
    }

    #[test]
    fn a_worker_that_lost_connections_gets_the_next_ones() {
        let loads = Loads::new(2);
        (0..10).for_each(|_| _ = loads.place(WorkerId(0)));
        (0..3).for_each(|_| loads.leave(WorkerId(1)));
        let next: Vec<u16> = (0..3).map(|_| loads.place(WorkerId(0)).0).collect();
        assert_eq!(next, [1, 1, 1]);
    }
}
