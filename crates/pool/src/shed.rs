//! Shedding: who is refused at once where more is asked than can be done.
//!
//! After WeChat's DAGOR (Zhou et al., SoCC 2018): overload shows in how long requests wait for their turn,
//! and what is refused is decided by rank alone: the priority first, then the user, so that all that one user
//! asks lives or dies together. A request that is refused must be refused early, before anything was spent on
//! it.

use std::time::Duration;

use tieline_base::{Moment, Priority};

/// Users are told apart by so many buckets.
const USERS: usize = 128;

/// The ranks: each priority has one for each bucket of users.
const RANKS: usize = USERS * Priority::ALL.len();

/// The critical are never shed: the queue bounds them like everybody.
const LEAST: usize = USERS;

/// How often the level is looked at, and after how many waits at least.
const WINDOW: Duration = Duration::from_millis(250);
const WAITS_MIN: u32 = 20;

/// What of the load is cut while waits are too long, and given back while they are not.
const CUT: f64 = 0.95;
const RETURN: f64 = 1.02;

/// For so long a user stays in the same bucket.
const SALTED_FOR: Duration = Duration::from_secs(3_600);

/// One upstream's level: what ranks below it is let in.
#[derive(Clone, Debug)]
pub(crate) struct Shedder {
    level: usize,
    /// Who asked within this window, by rank, and was let in or not.
    asked: Box<[u32]>,
    began: Moment,
    waits: u32,
    waited: Duration,
}

impl Shedder {
    /// Everybody is let in.
    pub(crate) fn new(now: Moment) -> Shedder {
        let asked = vec![0; RANKS].into_boxed_slice();
        Shedder { level: RANKS, asked, began: now, waits: 0, waited: Duration::ZERO }
    }

    /// Whether anybody is refused.
    pub(crate) fn is_shedding(&self) -> bool {
        self.level < RANKS
    }

    /// Whether who asks is let in. `user` is the same for all that one user asks.
    pub(crate) fn admits(&mut self, priority: Priority, user: u64, target: Duration, now: Moment) -> bool {
        self.turn(target, now);
        let rank = rank(priority, user, now);
        self.asked[rank] = self.asked[rank].saturating_add(1);
        rank < self.level
    }

    /// One that was let in has waited so long for its turn, be it in vain.
    pub(crate) fn waited(&mut self, wait: Duration, target: Duration, now: Moment) {
        self.waits = self.waits.saturating_add(1);
        self.waited = self.waited.saturating_add(wait);
        self.turn(target, now);
    }

    fn turn(&mut self, target: Duration, now: Moment) {
        let passed = now.since(self.began);
        // Few waits say little; but nobody stays refused because nobody else is let in.
        if passed < WINDOW || (self.waits < WAITS_MIN && passed < 4 * WINDOW) {
            return;
        }
        let mean = self.waited.checked_div(self.waits).unwrap_or_default();
        self.level = if mean > target { self.lower() } else { self.higher() };
        self.asked.fill(0);
        (self.began, self.waits, self.waited) = (now, 0, Duration::ZERO);
    }

    /// The level at which a twentieth less would have been let in.
    fn lower(&self) -> usize {
        let admitted: u32 = self.asked[..self.level].iter().sum();
        let wanted = (f64::from(admitted) * CUT) as u32;
        let (mut level, mut left) = (self.level, admitted);
        while level > LEAST && left > wanted {
            level -= 1;
            left -= self.asked[level];
        }
        level
    }

    /// The level at which a little more would have been let in; all, if that is all who asked.
    fn higher(&self) -> usize {
        let admitted: u32 = self.asked[..self.level].iter().sum();
        let wanted = (f64::from(admitted) * RETURN).ceil() as u32;
        let (mut level, mut sum) = (self.level, admitted);
        while level < RANKS && sum <= wanted {
            sum += self.asked[level];
            level += 1;
        }
        level
    }
}

/// The lower, the longer it is let in.
fn rank(priority: Priority, user: u64, now: Moment) -> usize {
    // Another bucket each hour: nobody is always the first to be refused.
    let salt = now.0 / SALTED_FOR.as_nanos() as u64;
    // A step of splitmix64: neighbours must not share their fate.
    let mut mixed = user ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    priority as usize * USERS + (mixed >> 57) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TARGET: Duration = Duration::from_millis(20);

    /// An upstream that serves `capacity` requests each second, to which each user sends one after the other;
    /// says what share of each priority was let in within the last five of `seconds`.
    fn overload(capacity: u32, per_second: [u32; 4], seconds: u32) -> [f64; 4] {
        let (mut shedder, mut now, mut backlog) = (Shedder::new(Moment(0)), Moment(0), 0.0f64);
        let total: u32 = per_second.iter().sum();
        let (mut asked, mut admitted) = ([0u32; 4], [0u32; 4]);
        for at in 0..total * seconds {
            now = now.after(Duration::from_secs(1) / total);
            backlog = (backlog - f64::from(capacity) / f64::from(total)).max(0.0);
            let mut draw = at.wrapping_mul(2_654_435_761) % total;
            let class = (0..4)
                .find(|class| {
                    let mine = draw < per_second[*class];
                    draw = draw.saturating_sub(per_second[*class]);
                    mine
                })
                .unwrap();
            let late = at / total + 5 >= seconds;
            asked[class] += u32::from(late);
            if shedder.admits(Priority::ALL[class], u64::from(at % 997), TARGET, now) {
                admitted[class] += u32::from(late);
                backlog += 1.0;
                let wait = Duration::from_secs_f64(backlog / f64::from(capacity));
                shedder.waited(wait.min(Duration::from_secs(1)), TARGET, now);
            }
        }
        std::array::from_fn(|class| f64::from(admitted[class]) / f64::from(asked[class].max(1)))
    }

    #[test]
    fn at_three_times_the_capacity_the_important_are_served() {
        let [critical, high, _, low] = overload(1_000, [300, 300, 1_200, 1_200], 40);
        assert!(critical == 1.0 && high >= 0.99 && low < 0.05, "{critical} {high} {low}");
    }

    #[test]
    fn what_can_be_done_is_not_refused() {
        assert_eq!(overload(1_000, [100, 200, 300, 300], 20), [1.0; 4]);
    }

    #[test]
    fn all_that_one_user_asks_lives_or_dies_together() {
        let now = Moment(1);
        let ranks: Vec<_> = (0..1_000).map(|user| rank(Priority::Normal, user, now)).collect();
        assert!(ranks.iter().all(|rank| (2 * USERS..3 * USERS).contains(rank)));
        let used: std::collections::HashSet<_> = ranks.iter().collect();
        assert!(used.len() > USERS * 9 / 10, "users are spread: {}", used.len());
        assert_eq!(rank(Priority::Normal, 7, now), rank(Priority::Normal, 7, Moment(2)));
    }

    proptest! {
        /// Whatever comes: the critical are let in, and who is let in is no less important than who is not.
        #[test]
        fn it_cuts_from_the_bottom(
            events in prop::collection::vec((0usize..4, 0u64..50, 0u64..100, 0u64..40), 1..600),
        ) {
            let (mut shedder, mut now) = (Shedder::new(Moment(0)), Moment(0));
            for (class, user, wait_ms, pause_ms) in events {
                now = now.after(Duration::from_millis(pause_ms));
                let priority = Priority::ALL[class];
                let admitted = shedder.admits(priority, user, TARGET, now);
                prop_assert!(admitted || priority != Priority::Critical);
                let better = shedder.level > rank(Priority::Critical, user, now);
                prop_assert!(better);
                if admitted {
                    shedder.waited(Duration::from_millis(wait_ms), TARGET, now);
                }
            }
            // An hour of calm: all are let in again, one by one.
            for _ in 0..600 {
                now = now.after(Duration::from_secs(6));
                shedder.admits(Priority::Low, 3, TARGET, now);
            }
            prop_assert!(!shedder.is_shedding());
        }
    }
}
