//! What all links of this process together may hold for their peers.
//!
//! Each link is bounded by its own budget; a thousand of them that all wait for slow readers are not. From
//! [`SHORT`] of the process's budget on no link renews credit, so that senders wait as they would at a full
//! socket; at the whole of it the stream that holds most is broken off, and says why.

#![allow(clippy::disallowed_types)] // links live on several workers; never held over an await

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tieline_wire::tunnel::Code;

use crate::live::LiveLink;

/// The budget of a process, in bytes.
const BUDGET: u64 = 512 << 20;

/// From here on no credit is renewed, in percent of the budget.
const SHORT: u64 = 80;

/// Back here it is renewed again, in percent of the budget: not at the first byte below [`SHORT`].
const RELIEVED: u64 = 70;

/// What is held, and by whom.
#[derive(Debug)]
pub(crate) struct Memory {
    budget: u64,
    held: AtomicU64,
    short: AtomicBool,
    /// Whether somebody looks for the largest just now.
    searched: AtomicBool,
    links: Mutex<Vec<Weak<LiveLink>>>,
}

impl Memory {
    pub(crate) fn new(budget: u64) -> Arc<Memory> {
        let (held, short, searched, links) = Default::default();
        Arc::new(Memory { budget, held, short, searched, links })
    }

    /// That of this process: there is one, whatever servers and agents run in it.
    pub(crate) fn of_process() -> Arc<Memory> {
        static PROCESS: OnceLock<Arc<Memory>> = OnceLock::new();
        PROCESS.get_or_init(|| Memory::new(BUDGET)).clone()
    }

    /// A link that counts from now on.
    pub(crate) fn count_in(&self, link: &Arc<LiveLink>) {
        let mut links = self.links();
        // Grows twofold before it is looked through, so that a link costs a fraction of a look.
        if links.len() == links.capacity() {
            links.retain(|link| link.strong_count() > 0);
            let room = links.len().max(16);
            links.reserve(room);
        }
        links.push(Arc::downgrade(link));
    }

    /// A link that held `before` bytes holds `now`. Says whether anything is to be done by
    /// [`Memory::relieve`].
    pub(crate) fn recount(&self, before: u64, now: u64) -> bool {
        let held = if now >= before {
            self.held.fetch_add(now - before, SeqCst) + (now - before)
        } else {
            self.held.fetch_sub(before - now, SeqCst) - (before - now)
        };
        let was_short = self.short.load(SeqCst);
        let is_short = held * 100 >= self.budget * if was_short { RELIEVED } else { SHORT };
        if is_short != was_short {
            self.short.store(is_short, SeqCst);
        }
        is_short != was_short || held >= self.budget
    }

    /// Whether no credit is to be renewed.
    pub(crate) fn is_short(&self) -> bool {
        self.short.load(SeqCst)
    }

    /// Tells all links how it stands, and breaks off the largest streams as long as too much is held. The
    /// caller holds no link's lock.
    pub(crate) fn relieve(&self) {
        if self.searched.swap(true, SeqCst) {
            return;
        }
        let links: Vec<Arc<LiveLink>> = self.links().iter().filter_map(Weak::upgrade).collect();
        for link in &links {
            link.act(|_| ()); // which looks at `is_short`
        }
        while self.held.load(SeqCst) >= self.budget {
            let largest = |link: &Arc<LiveLink>| Some((link.clone(), link.look(|core| core.link.largest())?));
            let Some((link, (id, held))) =
                links.iter().filter_map(largest).max_by_key(|(_, (_, held))| *held)
            else {
                break;
            };
            if held == 0 {
                break;
            }
            tracing::warn!(held, "{id} holds most of what all links may hold: it is broken off");
            link.act(|core| core.break_off(id, Code::Memory));
        }
        self.searched.store(false, SeqCst);
    }

    fn links(&self) -> MutexGuard<'_, Vec<Weak<LiveLink>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha::Sha;
    use std::time::Duration;
    use tieline_base::Clock;
    use tieline_wire::Parsed;
    use tieline_wire::tunnel::{Exporter, Key, Limits, Link, LinkId, Request, Side, StreamId, parse};

    /// Both ends of a link; the dialer's end counts nowhere.
    struct Pair {
        far: Arc<LiveLink>,
        near: Arc<LiveLink>,
    }

    impl Pair {
        fn new(memory: &Arc<Memory>) -> Pair {
            let link = |side| {
                let key = Key::first(&Sha, &Exporter([1; 32]));
                Link::new(LinkId([2; 16]), side, Limits::DEFAULT, key, Duration::from_secs(15), Clock::now())
            };
            let far = LiveLink::counted(link(Side::Dialer), true, Memory::new(u64::MAX / 100));
            Pair { far, near: LiveLink::counted(link(Side::Acceptor), true, memory.clone()) }
        }

        /// Carries frames both ways until nobody has anything to say.
        fn talk(&self) {
            while deliver(&self.far, &self.near) | deliver(&self.near, &self.far) {}
        }

        /// A stream from the far end, which writes as much as it may, up to `most`.
        fn pour(&self, most: usize) -> (StreamId, usize) {
            let request = Request {
                service: "x".into(),
                subject: "".into(),
                permit: 0,
                trace: [0; 16],
                why: "".into(),
                flow: false,
            };
            let id = self.far.act(|core| core.link.open(request, Clock::now())).unwrap();
            self.talk();
            let (taken, _) = self.near.look(|core| core.take_offered()).unwrap();
            self.near.act(|core| core.link.accept(taken));
            (id, self.pour_into(id, most))
        }

        fn pour_into(&self, id: StreamId, most: usize) -> usize {
            let mut poured = 0;
            loop {
                self.talk();
                let piece = vec![7; (most - poured).min(64 << 10)];
                let count = self.far.act(|core| core.link.write(id, &piece, Clock::now()));
                poured += count;
                if count == 0 {
                    return poured;
                }
            }
        }

        fn held(&self) -> u64 {
            self.near.look(|core| core.link.held())
        }

        /// Passes on what waits at the near end.
        fn drink(&self, id: StreamId, most: usize) -> usize {
            let drunk = self.near.act(|core| {
                let mut drunk = 0;
                while drunk < most && !core.link.readable(id).is_empty() {
                    let count = core.link.readable(id).len().min(most - drunk);
                    core.link.drain(id, count, Clock::now());
                    drunk += count;
                }
                drunk
            });
            self.talk();
            drunk
        }
    }

    fn deliver(from: &LiveLink, to: &LiveLink) -> bool {
        let mut bytes = Vec::new();
        from.act(|core| core.link.fill(&mut bytes, 64 << 10, Clock::now()));
        let mut at = 0;
        while let Ok(Parsed::Done { value, consumed }) = parse(&bytes[at..]) {
            at += consumed;
            to.act(|core| core.link.receive(core.link.epoch(), value, Clock::now()).unwrap());
        }
        at > 0
    }

    #[test]
    fn short_of_memory_no_link_renews_credit_until_others_let_go() {
        let memory = Memory::new(200 << 10);
        let (one, other) = (Pair::new(&memory), Pair::new(&memory));
        let (full, _) = one.pour(64 << 10);
        let (_, before) = other.pour(64 << 10);
        let (slow, _) = one.pour(60 << 10);
        assert!(before == 64 << 10 && memory.is_short());
        // What was promised holds; what is passed on earns no new credit.
        assert_eq!((one.drink(slow, 32 << 10), one.pour_into(slow, 1 << 20)), (32 << 10, 4 << 10));
        let blocked = one.pour_into(slow, 1 << 20);
        assert_eq!(blocked, 0);
        assert_eq!(one.drink(full, usize::MAX), 64 << 10);
        assert!(!memory.is_short());
        assert!(one.pour_into(slow, 1 << 20) > 0, "its credit is renewed by itself");
        drop((one, other));
    }

    #[test]
    fn at_the_whole_budget_the_largest_is_broken_off_and_says_why() {
        let memory = Memory::new(144 << 10);
        let (one, other) = (Pair::new(&memory), Pair::new(&memory));
        let (large, _) = one.pour(64 << 10);
        let (small, _) = other.pour(48 << 10);
        let (last, _) = other.pour(32 << 10);
        other.talk();
        one.talk();
        assert!(one.near.look(|core| core.link.held()) == 0, "the largest is gone");
        let broken = one.far.look(|core| core.link.streams().any(|id| id == large));
        assert!(!broken, "its other end knows");
        assert_eq!((other.held(), other.drink(small, usize::MAX)), (80 << 10, 48 << 10));
        assert_eq!(other.drink(last, usize::MAX), 32 << 10);
    }

    #[test]
    fn a_link_that_is_gone_is_counted_no_more() {
        let memory = Memory::new(1 << 20);
        let one = Pair::new(&memory);
        one.pour(64 << 10);
        assert!(memory.held.load(SeqCst) >= 48 << 10);
        drop(one);
        assert_eq!(memory.held.load(SeqCst), 0);
    }
}
