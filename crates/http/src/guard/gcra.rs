//! Rates by GCRA (ITU-T I.371, annex A): one number for each key, the theoretical arrival time.

use std::hash::{BuildHasher, RandomState};

use crossbeam_utils::CachePadded;
use tieline_base::Moment;

/// A rate, as GCRA computes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gcra {
    interval_ns: u64,
    tolerance_ns: u64,
}

impl Gcra {
    /// `events` in every `per_ns`, and `burst` at once.
    pub(crate) fn new(events: u32, per_ns: u64, burst: u32) -> Self {
        let interval_ns = (per_ns / u64::from(events.max(1))).max(1);
        Self { interval_ns, tolerance_ns: interval_ns.saturating_mul(u64::from(burst.max(1) - 1)) }
    }

    /// What a key with this arrival time has left.
    pub(crate) fn left(self, arrival_ns: u64, now: Moment) -> Left {
        let full_in_ns = arrival_ns.saturating_sub(now.0);
        let free_ns = self.tolerance_ns.checked_sub(full_in_ns);
        Left { events: free_ns.map_or(0, |free_ns| free_ns / self.interval_ns + 1), full_in_ns }
    }

    /// The next arrival time if an event `now` conforms; else how many nanoseconds it comes too early.
    fn next(self, arrival_ns: u64, now: Moment) -> Result<u64, u64> {
        match arrival_ns.saturating_sub(now.0).checked_sub(self.tolerance_ns) {
            None | Some(0) => Ok(arrival_ns.max(now.0).saturating_add(self.interval_ns)),
            Some(early_ns) => Err(early_ns),
        }
    }
}

/// What is left of a burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Left {
    /// How many events conform at once.
    pub(crate) events: u64,
    /// After how many nanoseconds without any it is whole again.
    pub(crate) full_in_ns: u64,
}

/// What is counted by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key<'k> {
    /// An address, or what else is no longer.
    Number(u64),
    /// What a client says.
    Text(&'k [u8]),
}

/// Keys by a hash that nobody outside can predict, each with its arrival time: exact for the whole process,
/// and of a fixed size.
///
/// A key lives in one of the eight places of its set. One whose arrival time has passed is as good as unknown
/// and is forgotten for another. If none has, the newcomer takes over the place that has the least to wait,
/// *with its arrival time*: so nothing is ever forgiven, whoever floods the table with keys makes them share
/// eight places' rate, and nobody is locked out.
#[derive(Debug)]
pub(crate) struct Table {
    seed: RandomState,
    /// For numbers, of which clients cannot choose many: less than for texts will do.
    numbers: [u64; 2],
    shards: Box<[CachePadded<Shard>]>,
}

/// Held for one look into one set, and only by requests of routes that have a rate.
#[allow(clippy::disallowed_types)]
type Lock<T> = std::sync::Mutex<T>;

/// Some of the sets, behind a lock of their own.
type Shard = Lock<Box<[Set]>>;

/// Places of a set: one key and arrival time each.
type Set = [(u64, u64); WAYS];

const WAYS: usize = 8;
const SHARDS: usize = 64;

/// Keys that a table holds: 16 bytes each, 1 MiB in all.
pub(crate) const KEYS: usize = 65_536;

impl Table {
    /// An empty table for so many keys.
    pub(crate) fn new(keys: usize) -> Self {
        let sets = (keys / WAYS / SHARDS).max(1);
        let shard = || CachePadded::new(Shard::new(vec![Set::default(); sets].into_boxed_slice()));
        let seed = RandomState::new();
        let numbers = [seed.hash_one(0), seed.hash_one(1) | 1];
        Self { seed, numbers, shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// The next arrival time of `key`, if one more event of it conforms to `rate`; else how many nanoseconds
    /// it comes too early. With `charge` it counts.
    pub(crate) fn ask(&self, rate: Gcra, key: Key<'_>, now: Moment, charge: bool) -> Result<u64, u64> {
        let hash = self.hash(key);
        // 0 stands for a place that nobody has.
        let tag = hash | 1;
        let mut shard = self.shards[(hash >> 58) as usize].lock().unwrap_or_else(|held| held.into_inner());
        let sets = shard.len() as u64;
        let set = &mut shard[((hash >> 16) % sets) as usize];
        let at = set.iter().position(|(other, _)| *other == tag).unwrap_or_else(|| place(set));
        let next = rate.next(set[at].1, now)?;
        if charge {
            set[at] = (tag, next);
        }
        Ok(next)
    }

    fn hash(&self, key: Key<'_>) -> u64 {
        match key {
            Key::Number(number) => {
                let product = u128::from(number ^ self.numbers[0]) * u128::from(self.numbers[1]);
                product as u64 ^ (product >> 64) as u64
            }
            Key::Text(text) => self.seed.hash_one(text),
        }
    }
}

/// The place with the least to wait: an empty one, one that has nothing to wait, or the next best.
fn place(set: &Set) -> usize {
    let least = set.iter().enumerate().min_by_key(|(_, (_, arrival_ns))| *arrival_ns);
    least.map_or(0, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(ns: u64) -> Moment {
        Moment((1 << 40) + ns)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (table, rate) = (Table::new(KEYS), Gcra::new(10, SECOND, 5));
        let admitted =
            |from: u64| (0..20).filter(|_| table.ask(rate, Key::Text(b"a"), at(from), true).is_ok()).count();
        assert_eq!(admitted(0), 5);
        assert_eq!(admitted(SECOND / 10 - 1), 0);
        assert_eq!(admitted(SECOND / 10), 1);
        assert_eq!(admitted(10 * SECOND), 5);
        assert_eq!(table.ask(rate, Key::Text(b"a"), at(10 * SECOND), true), Err(SECOND / 10));
        assert!(
            table.ask(rate, Key::Text(b"b"), at(10 * SECOND), true).is_ok(),
            "another key is another bucket"
        );
    }

    #[test]
    fn to_look_costs_nothing() {
        let (table, rate) = (Table::new(KEYS), Gcra::new(1, SECOND, 1));
        assert!((0..9).all(|_| table.ask(rate, Key::Text(b"a"), at(0), false).is_ok()));
        assert!(table.ask(rate, Key::Text(b"a"), at(0), true).is_ok());
        assert!(table.ask(rate, Key::Text(b"a"), at(0), false).is_err());
    }

    #[test]
    fn what_is_left_is_what_conforms() {
        let (table, rate) = (Table::new(KEYS), Gcra::new(10, SECOND, 4));
        for left in (0..4).rev() {
            let next = table.ask(rate, Key::Text(b"a"), at(7), true).unwrap();
            let full_in_ns = (4 - left) * SECOND / 10;
            assert_eq!(rate.left(next, at(7)), Left { events: left, full_in_ns });
        }
        assert!(table.ask(rate, Key::Text(b"a"), at(7), true).is_err());
        let next = table.ask(rate, Key::Text(b"a"), at(7 + SECOND / 10), false).unwrap();
        assert_eq!(rate.left(next - SECOND / 10, at(7 + SECOND / 10)).events, 1, "it has come back");
        assert_eq!(rate.left(0, at(0)), Left { events: 4, full_in_ns: 0 }, "nobody has asked");
    }

    #[test]
    fn a_flood_of_keys_forgives_nobody_and_shares_what_there_is() {
        // 512 places: 1 event a second each, bursts of 4.
        let (table, rate) = (Table::new(512), Gcra::new(1, SECOND, 4));
        while table.ask(rate, Key::Text(b"known"), at(0), true).is_ok() {}
        let flood = (0..1_000_000u32)
            .filter(|key| table.ask(rate, Key::Number(u64::from(*key)), at(1), true).is_ok());
        assert!(flood.count() <= 512 * 4 - 4, "more than all places together admit");
        assert!(table.ask(rate, Key::Text(b"known"), at(1), true).is_err(), "it had used up its share");
    }

    proptest! {
        #[test]
        fn no_window_admits_more_than_the_burst_and_the_rate(
            events in 1u32..200, burst in 1u32..20,
            gaps_us in prop::collection::vec(0u64..50_000, 1..400),
        ) {
            let (table, rate) = (Table::new(KEYS), Gcra::new(events, SECOND, burst));
            let (mut now, mut admitted) = (0, Vec::new());
            for gap in gaps_us {
                now += gap * 1_000;
                if table.ask(rate, Key::Text(b"key"), at(now), true).is_ok() {
                    admitted.push(now);
                }
            }
            for (first, from) in admitted.iter().enumerate() {
                for (count, to) in (1u64..).zip(&admitted[first..]) {
                    // Intervals are rounded down to whole nanoseconds.
                    let allowed = u64::from(burst) + (to - from) * u64::from(events) / (SECOND - 200) + 1;
                    prop_assert!(count <= allowed, "{count} in {} ns", to - from);
                }
            }
        }

        #[test]
        fn who_keeps_below_the_rate_is_never_refused(
            events in 1u32..200, burst in 1u32..20, slack_us in prop::collection::vec(0u64..5_000, 1..300),
        ) {
            let (table, rate) = (Table::new(KEYS), Gcra::new(events, SECOND, burst));
            let mut now = 0;
            for slack in slack_us {
                prop_assert!(table.ask(rate, Key::Text(b"key"), at(now), true).is_ok());
                now += SECOND / u64::from(events) + slack * 1_000;
            }
        }
    }
}
