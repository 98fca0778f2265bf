use super::*;
use crate::verdict::Verdict;
use proptest::prelude::*;
use std::sync::atomic::Ordering::{Acquire, Release};
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
fn who_lives_no_more_was_counted_and_told_of_before() {
    let table = Arc::new(std::sync::OnceLock::<Arc<Registry>>::new());
    let seen = table.clone();
    let finished = Box::new(move |record: &Arc<Record>| {
        let registry = seen.get().unwrap();
        assert_eq!((registry.live_count(), registry.live(&Filter::default()).len()), (1, 1));
        assert!(registry.history(&Filter::default()).is_empty());
        assert_eq!(record.listener().meter.read().closed.iter().sum::<u64>(), 1);
    });
    let limits = Limits { age: Duration::from_secs(600), rows: 10 };
    let registry = table.get_or_init(|| Arc::new(Registry::new(1, limits, finished)));
    let record = enter(registry, 0);
    registry.leave(&record, Reason::ClientClosed, None, ());
    assert_eq!((registry.live_count(), registry.live(&Filter::default()).len()), (0, 0));
    assert_eq!(registry.history(&Filter::default()).len(), 1);
}

#[test]
fn a_row_goes_whatever_becomes_of_what_it_held() {
    struct Breaks;
    impl Drop for Breaks {
        fn drop(&mut self) {
            panic!("as a test wants it");
        }
    }
    let (registry, told) = table(1, 10);
    let record = enter(&registry, 0);
    let leaves = std::panic::AssertUnwindSafe(|| registry.leave(&record, Reason::Idle, None, Breaks));
    assert!(std::panic::catch_unwind(leaves).is_err());
    assert_eq!((registry.live_count(), told.load(Relaxed)), (0, 1));
}

#[test]
fn a_row_is_listed_from_its_opening_to_its_end_and_remembered() {
    let (registry, told) = table(1, 10);
    let record = enter(&registry, 0);
    assert_eq!(registry.live(&Filter::default()).len(), 1);
    registry.leave(&record, Reason::Killed, Some("by ana".into()), ());
    registry.leave(&record, Reason::Idle, None, ());
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
        ..crate::Settled::default()
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
    registry.leave(&second, Reason::Answered, None, ());
    registry.leave(&first, Reason::Killed, None, ());
    assert_eq!((read().closed.iter().sum::<u64>(), read().streams_closed), (0, 2));
    let exchanges = registry.exchanges_of(parent.id(), 9);
    let exchanges: Vec<_> = exchanges.iter().map(|one| (one.number, one.stream)).collect();
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
    let mut heard = crate::Heard::default();
    assert_eq!(record.poll_verdict(&mut heard, &mut cx), None);
    let late = Verdict { at: Moment(9_000_000), reason: Reason::Drained };
    let early = Verdict { at: Moment(1_000_000), reason: Reason::Killed };
    for (order, wakes) in [(late, 1), (early, 2), (late, 2)] {
        record.end(order);
        assert_eq!(woken.0.load(Relaxed), wakes);
        record.poll_verdict(&mut heard, &mut cx);
    }
    assert_eq!(record.poll_verdict(&mut heard, &mut cx), Some(early));
}

#[test]
fn no_order_is_lost_between_others_however_often_the_connection_looks() {
    /// Wakes a thread.
    struct Unparks(std::thread::Thread);
    impl std::task::Wake for Unparks {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    const ROUNDS: u64 = 20_000;
    let (registry, _) = table(1, 10);
    let record = enter(&registry, 0);
    let at = |ms: u64| Moment(ms * 1_000_000);
    let order = |ms| record.schedule(Some(Verdict { at: at(ms), reason: Reason::Drained }));
    let (round, others, waits) = (AtomicU64::new(0), AtomicU64::new(0), AtomicUsize::new(0));
    let each_round = |act: &dyn Fn(u64)| {
        for now in 1..=ROUNDS {
            while round.load(Acquire) < now {
                std::thread::yield_now();
            }
            act(now);
        }
    };
    let lost = std::thread::scope(|scope| {
        scope.spawn(|| {
            each_round(&|now| {
                order(now * 10 + 1);
                others.store(now, Release);
            });
        });
        scope.spawn(|| {
            each_round(&|now| {
                order(now * 10 + 2);
                while others.load(Acquire) < now {
                    std::thread::yield_now();
                }
                order(now * 10 + 3);
            });
        });
        let waker = std::task::Waker::from(Arc::new(Unparks(std::thread::current())));
        let (mut heard, mut lost) = (crate::Heard::default(), 0);
        for now in 1..=ROUNDS {
            round.store(if lost > 0 { u64::MAX } else { now }, Release);
            let mut look = || record.poll_verdict(&mut heard, &mut std::task::Context::from_waker(&waker));
            while look().map(|verdict| verdict.at) != Some(at(now * 10 + 3)) && lost == 0 {
                // Now and then it is something else that wakes it.
                if waits.fetch_add(1, Relaxed) % 3 > 0 {
                    let (slept, longest) = (Clock::now(), Duration::from_secs(20));
                    std::thread::park_timeout(longest);
                    lost += usize::from(Clock::now().since(slept) >= longest);
                }
            }
        }
        lost
    });
    assert_eq!(lost, 0, "an order stood, and nobody was woken");
    assert!(waits.load(Relaxed) > 100, "else nothing was tried");
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
                registry.leave(&record, Reason::ALL[choice % Reason::ALL.len()], None, ());
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
