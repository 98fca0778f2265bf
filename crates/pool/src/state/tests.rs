use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const A: EndpointId = EndpointId(1);
const B: EndpointId = EndpointId(2);

fn state(size: u32, queue: usize, caps: &[(EndpointId, u32)]) -> PoolState {
    let mut state = PoolState::new(size, queue);
    for (id, cap) in caps {
        state.add(*id, *cap, 0, 0);
    }
    state.set_open(|_| true, &mut Vec::new());
    state
}

pub(super) fn granted(answer: Answer) -> Ticket {
    match answer {
        Answer::Granted(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

pub(super) fn queued(answer: Answer) -> Ticket {
    match answer {
        Answer::Queued(ticket, ..) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_oldest_waits_no_longer_when_a_lease_comes_back() {
    let mut state = state(1, 2, &[(A, 9)]);
    let first = granted(state.ask(Priority::Normal));
    assert!(state.claim(first, A, &mut Vec::new()));
    let second = queued(state.ask(Priority::Normal));
    assert_eq!(state.ask(Priority::Normal), Answer::Queued(Ticket::new(2, Priority::Normal), 1, None));
    assert_eq!(state.ask(Priority::Normal), Answer::Refused);
    let mut grants = Vec::new();
    state.give_back(A, Share::NOBODY, &mut grants);
    assert_eq!(grants, [second]);
}

#[test]
fn what_is_wanted_is_what_is_taken_what_is_waited_for_and_what_is_refused() {
    let mut state = state(2, 1, &[(A, 9)]);
    let first = granted(state.ask(Priority::Normal));
    assert!(state.claim(first, A, &mut Vec::new()));
    assert_eq!(state.demand(), 1);
    let (second, third) = (state.ask(Priority::Normal), state.ask(Priority::Normal));
    assert_eq!((granted(second), queued(third)).1, Ticket::new(2, Priority::Normal));
    assert_eq!(state.demand(), 3);
    assert_eq!(state.ask(Priority::Normal), Answer::Refused);
    state.give_back(A, Share::NOBODY, &mut Vec::new());
    assert_eq!(state.demand(), 4, "it is over, and was so");
    (0..4).for_each(|_| state.turn_demand());
    assert_eq!(state.demand(), 2);
}

#[test]
fn a_waiter_that_leaves_makes_room_in_line_and_a_granted_one_passes_its_place_on() {
    let mut state = state(1, 1, &[(A, 9)]);
    let (first, mut grants) = (granted(state.ask(Priority::Normal)), Vec::new());
    let second = queued(state.ask(Priority::Normal));
    state.leave(second, &mut grants);
    let third = queued(state.ask(Priority::Normal));
    state.leave(first, &mut grants);
    assert_eq!(grants, [third]);
}

#[test]
fn an_endpoint_at_its_cap_is_waited_for() {
    let mut state = state(9, 9, &[(A, 1)]);
    let first = granted(state.ask(Priority::Normal));
    let second = queued(state.ask(Priority::Normal)); // the room is promised to the first
    assert!(state.claim(first, A, &mut Vec::new()));
    let mut grants = Vec::new();
    state.add(B, 1, 0, 0);
    state.set_open(|_| true, &mut grants);
    assert_eq!(grants, [second]);
    assert!(!state.claim(second, A, &mut Vec::new()));
    assert!(state.claim(second, B, &mut Vec::new()));
}

#[test]
fn a_closed_endpoint_promises_nothing_but_may_be_claimed() {
    let mut state = state(9, 9, &[(A, 1), (B, 1)]);
    state.set_open(|id| id == A, &mut Vec::new());
    let first = granted(state.ask(Priority::Normal));
    queued(state.ask(Priority::Normal));
    assert!(state.claim(first, B, &mut Vec::new()), "a second attempt may use a later tier");
}

#[test]
fn who_finds_no_room_after_all_is_first_in_line_again() {
    let (mut state, mut grants) = (state(9, 9, &[(A, 1)]), Vec::new());
    let first = granted(state.ask(Priority::Normal));
    let second = queued(state.ask(Priority::Normal));
    state.set_open(|_| false, &mut grants);
    state.put_back(first, &mut grants);
    state.set_open(|_| true, &mut grants);
    assert_eq!(grants, [first]);
    assert!(second > first);
}

#[test]
fn leases_from_before_the_caps_count_against_them() {
    let mut state = PoolState::new(3, 9);
    state.add(A, 9, 3, 0);
    state.set_open(|_| true, &mut Vec::new());
    let waiter = queued(state.ask(Priority::Normal));
    let mut grants = Vec::new();
    state.remove(A);
    state.give_back(A, Share::NOBODY, &mut grants);
    assert_eq!((grants.as_slice(), state.lent()), (&[][..], 2), "room, but no endpoint");
    state.add(B, 9, 0, 0);
    state.set_open(|_| true, &mut grants);
    assert_eq!(grants, [waiter]);
}

#[derive(Clone, Debug)]
enum Op {
    Ask(usize),
    Leave(prop::sample::Index),
    Claim(prop::sample::Index, prop::sample::Index),
    Unclaim(prop::sample::Index),
    PutBack(prop::sample::Index),
    GiveBack(prop::sample::Index),
    PassOn(prop::sample::Index, bool),
    Add(u32),
    Remove(prop::sample::Index),
    Cap(prop::sample::Index, u32),
    Open(u64),
    Resize(u32, usize),
}

fn any_op() -> impl Strategy<Value = Op> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (0usize..4).prop_map(Op::Ask),
        2 => index().prop_map(Op::Leave),
        8 => (index(), index()).prop_map(|(ticket, endpoint)| Op::Claim(ticket, endpoint)),
        2 => index().prop_map(Op::Unclaim),
        1 => index().prop_map(Op::PutBack),
        5 => index().prop_map(Op::GiveBack),
        5 => (index(), any::<bool>()).prop_map(|(lease, fits)| Op::PassOn(lease, fits)),
        1 => (0u32..4).prop_map(Op::Add),
        1 => index().prop_map(Op::Remove),
        1 => (index(), 0u32..4).prop_map(|(endpoint, cap)| Op::Cap(endpoint, cap)),
        1 => any::<u64>().prop_map(Op::Open),
        1 => (0u32..8, 0usize..6).prop_map(|(size, queue)| Op::Resize(size, queue)),
    ]
}

/// What an onlooker knows: written without the state's own means.
#[derive(Default)]
struct Onlooker {
    size: u32,
    queue: usize,
    endpoints: BTreeMap<EndpointId, (u32, bool)>, // cap, open
    waiting: BTreeSet<Ticket>,
    granted: BTreeSet<Ticket>,
    leases: Vec<(Ticket, EndpointId)>,
}

impl Onlooker {
    fn lent_of(&self, id: EndpointId) -> u32 {
        self.leases.iter().filter(|(_, endpoint)| *endpoint == id).count() as u32
    }

    fn lent(&self) -> u32 {
        (self.granted.len() + self.leases.len()) as u32
    }

    fn has_room_for_one_more(&self) -> bool {
        let open = self.endpoints.iter().filter(|(_, (_, open))| *open);
        let room: u32 = open.map(|(id, (cap, _))| cap.saturating_sub(self.lent_of(*id))).sum();
        self.lent() < self.size && room > self.granted.len() as u32
    }

    fn take_grants(&mut self, grants: Vec<Ticket>) {
        for ticket in grants {
            let first = self.waiting.iter().find(|other| other.priority() == ticket.priority());
            assert_eq!(first, Some(&ticket), "the oldest of the equally important first");
            self.waiting.remove(&ticket);
            assert!(self.granted.insert(ticket), "granted twice");
            assert!(self.lent() <= self.size, "granted above the cap");
        }
    }
}

fn chosen<T: Copy>(index: &prop::sample::Index, of: impl IntoIterator<Item = T>) -> Option<T> {
    let all: Vec<T> = of.into_iter().collect();
    (!all.is_empty()).then(|| *index.get(&all))
}

fn step(op: Op, state: &mut PoolState, seen: &mut Onlooker, next_id: &mut u64) {
    let mut grants = Vec::new();
    match op {
        Op::Ask(_)
        | Op::Leave(_)
        | Op::Claim(..)
        | Op::Unclaim(_)
        | Op::PutBack(_)
        | Op::GiveBack(_)
        | Op::PassOn(..) => {
            ask_step(op, state, seen, &mut grants);
        }
        Op::Add(_) | Op::Remove(_) | Op::Cap(..) | Op::Open(_) | Op::Resize(..) => {
            endpoint_step(op, state, seen, next_id, &mut grants);
        }
    }
    seen.take_grants(grants);
}

fn ask_step(op: Op, state: &mut PoolState, seen: &mut Onlooker, grants: &mut Vec<Ticket>) {
    match op {
        Op::Ask(class) => match state.ask(Priority::ALL[class]) {
            Answer::Granted(ticket) => {
                assert!(seen.waiting.is_empty() && seen.has_room_for_one_more(), "granted out of turn");
                seen.granted.insert(ticket);
            }
            Answer::Queued(ticket, ahead, displaced) => {
                let before = seen.waiting.len();
                if let Some(displaced) = displaced {
                    assert!(
                        displaced.priority() > ticket.priority(),
                        "who is no less important is sent away"
                    );
                    assert_eq!(
                        seen.waiting.iter().map(|other| other.priority()).max(),
                        Some(displaced.priority())
                    );
                    assert!(seen.waiting.len() >= seen.queue && seen.waiting.remove(&displaced));
                }
                assert_eq!(ahead, seen.waiting.iter().filter(|o| o.priority() <= ticket.priority()).count());
                seen.waiting.insert(ticket);
                let grown = seen.waiting.len() > before;
                assert!(!grown || seen.waiting.len() <= seen.queue, "the line is longer than its bound");
            }
            Answer::Refused => assert!(seen.waiting.len() >= seen.queue, "refused with room in line"),
        },
        Op::Leave(index) => {
            if let Some(ticket) = chosen(&index, seen.waiting.iter().chain(&seen.granted).copied()) {
                state.leave(ticket, grants);
                let _ = seen.waiting.remove(&ticket) || seen.granted.remove(&ticket);
            }
        }
        Op::Claim(ticket, endpoint) => {
            let ticket = chosen(&ticket, seen.granted.iter().copied());
            let endpoint = chosen(&endpoint, seen.endpoints.keys().copied());
            if let (Some(ticket), Some(endpoint)) = (ticket, endpoint) {
                let room = seen.lent_of(endpoint) < seen.endpoints[&endpoint].0;
                assert_eq!(state.claim(ticket, endpoint, grants), room);
                if room {
                    seen.granted.remove(&ticket);
                    seen.leases.push((ticket, endpoint));
                }
                assert!(!state.claim(ticket, endpoint, &mut Vec::new()), "one place lent twice");
            }
        }
        Op::Unclaim(index) => {
            if let Some((ticket, endpoint)) = chosen(&index, seen.leases.iter().copied()) {
                state.unclaim(ticket, endpoint, grants);
                seen.leases.retain(|lease| lease.0 != ticket);
                seen.granted.insert(ticket);
            }
        }
        Op::PutBack(index) => {
            if let Some(ticket) = chosen(&index, seen.granted.iter().copied()) {
                state.put_back(ticket, grants);
                seen.granted.remove(&ticket);
                seen.waiting.insert(ticket);
            }
        }
        Op::GiveBack(index) => {
            if let Some((ticket, endpoint)) = chosen(&index, seen.leases.iter().copied()) {
                state.give_back(endpoint, Share::NOBODY, grants);
                seen.leases.retain(|lease| lease.0 != ticket);
            }
        }
        Op::PassOn(index, fits) => pass_on(&index, fits, state, seen),
        _ => unreachable!("the endpoints' own"),
    }
}

fn pass_on(index: &prop::sample::Index, fits: bool, state: &mut PoolState, seen: &mut Onlooker) {
    let Some((ticket, endpoint)) = chosen(index, seen.leases.iter().copied()) else { return };
    let Some(next) = state.pass_on(endpoint, Share::NOBODY) else { return };
    seen.leases.retain(|lease| lease.0 != ticket);
    assert!(seen.has_room_for_one_more(), "passed on above a cap");
    assert!(seen.endpoints.get(&endpoint).is_some_and(|(cap, open)| *open && seen.lent_of(endpoint) < *cap));
    seen.take_grants(vec![next]);
    if fits {
        seen.granted.remove(&next);
        seen.leases.push((next, endpoint));
    } else {
        state.not_passed_on(endpoint, next);
        // Nothing rests here for long.
        state.wake(endpoint);
    }
}

fn endpoint_step(
    op: Op,
    state: &mut PoolState,
    seen: &mut Onlooker,
    next_id: &mut u64,
    grants: &mut Vec<Ticket>,
) {
    match op {
        Op::Add(cap) => {
            *next_id += 1;
            state.add(EndpointId(*next_id), cap, 0, 0);
            seen.endpoints.insert(EndpointId(*next_id), (cap, false));
        }
        Op::Remove(index) => {
            if let Some(id) = chosen(&index, seen.endpoints.keys().copied()) {
                state.remove(id);
                seen.endpoints.remove(&id);
            }
        }
        Op::Cap(index, cap) => {
            if let Some(id) = chosen(&index, seen.endpoints.keys().copied()) {
                state.set_cap(id, cap, grants);
                seen.endpoints.entry(id).and_modify(|endpoint| endpoint.0 = cap);
            }
        }
        Op::Open(bits) => {
            let open = |id: EndpointId| bits >> (id.0 % 64) & 1 == 1;
            state.set_open(open, grants);
            seen.endpoints.iter_mut().for_each(|(id, endpoint)| endpoint.1 = open(*id));
        }
        Op::Resize(size, queue) => {
            state.resize(size, queue, grants);
            (seen.size, seen.queue) = (size, queue);
        }
        _ => unreachable!("the asks' own"),
    }
}

proptest! {
    /// Whatever happens in whatever order: nothing is lent twice or above a cap, the oldest waiter is first,
    /// the line keeps its bound, nobody waits while there is room for them, and when all is back the counts
    /// are zero.
    #[test]
    fn the_caps_hold_and_nobody_waits_in_vain(ops in prop::collection::vec(any_op(), 1..400)) {
        let (mut state, mut next_id) = (PoolState::new(4, 4), 0);
        let mut seen = Onlooker { size: 4, queue: 4, ..Onlooker::default() };
        for op in ops {
            step(op, &mut state, &mut seen, &mut next_id);
            prop_assert_eq!(state.lent(), seen.lent());
            prop_assert_eq!(state.waiting(), seen.waiting.len());
            prop_assert!(seen.waiting.is_empty() || !seen.has_room_for_one_more(), "waits in vain");
        }
        let held: Vec<_> = seen.granted.iter().chain(&seen.waiting).copied().collect();
        held.into_iter().for_each(|ticket| state.leave(ticket, &mut Vec::new()));
        while let Some((_, endpoint)) = seen.leases.pop() {
            let mut grants = Vec::new();
            state.give_back(endpoint, Share::NOBODY, &mut grants);
            prop_assert!(grants.is_empty());
        }
        prop_assert_eq!((state.lent(), state.waiting(), state.unclaimed.len()), (0, 0, 0));
        prop_assert!(state.slots.iter().all(|slot| slot.lent == 0 && !slot.leaving));
    }
}

/// Connections as an endpoint would count them.
#[derive(Default)]
struct Wires {
    lent: u32,
    idle: u32,
}

/// Makes a claim good as [`Upstream`](crate::Upstream) does: by a connection at rest, or by a new one.
fn connect(
    state: &mut PoolState,
    wires: &mut BTreeMap<EndpointId, Wires>,
    endpoint: EndpointId,
    reuse: bool,
) {
    loop {
        let here = wires.entry(endpoint).or_default();
        if reuse && here.idle > 0 {
            here.idle -= 1;
            state.wake(endpoint);
            break;
        }
        let other = match state.may_dial(endpoint) {
            Dialing::Now => break,
            Dialing::AfterOneHere => endpoint,
            Dialing::AfterOne => *wires.iter().find(|(_, wires)| wires.idle > 0).expect("one rests").0,
        };
        wires.get_mut(&other).expect("it was there").idle -= 1;
        state.wake(other);
    }
    wires.entry(endpoint).or_default().lent += 1;
}

proptest! {
    /// What is open, lent or at rest, never passes a cap; and nobody waits because of what rests.
    #[test]
    fn connections_at_rest_count_and_hold_nobody_up(
        size in 1u32..6,
        caps in prop::collection::vec(1u32..4, 1..4),
        steps in prop::collection::vec((0u8..3, any::<prop::sample::Index>(), any::<bool>()), 1..200),
    ) {
        let ids: Vec<EndpointId> = (1..=caps.len() as u64).map(EndpointId).collect();
        let with_caps: Vec<_> = ids.iter().copied().zip(caps.iter().copied()).collect();
        let (mut state, mut wires) = (state(size, 0, &with_caps), BTreeMap::<EndpointId, Wires>::new());
        for (act, index, flag) in steps {
            let endpoint = *index.get(&ids);
            let lent = wires.get(&endpoint).map_or(0, |wires| wires.lent);
            let out: u32 = wires.values().map(|wires| wires.lent).sum();
            if act == 0 {
                match state.ask(Priority::Normal) {
                    Answer::Granted(ticket) if state.claim(ticket, endpoint, &mut Vec::new()) => {
                        connect(&mut state, &mut wires, endpoint, flag);
                    }
                    Answer::Granted(ticket) => {
                        prop_assert_eq!(lent, caps[endpoint.0 as usize - 1]);
                        state.leave(ticket, &mut Vec::new());
                    }
                    _ => {
                        let full = |(id, cap): &(EndpointId, u32)| {
                            wires.get(id).is_some_and(|wires| wires.lent >= *cap)
                        };
                        let room = !with_caps.iter().all(full);
                        prop_assert!(out >= size || !room, "held up with {} out", out);
                    }
                }
            } else if lent > 0 {
                let here = wires.get_mut(&endpoint).unwrap();
                here.lent -= 1;
                if flag {
                    here.idle += 1;
                    state.rest(endpoint, Share::NOBODY, &mut Vec::new());
                } else {
                    state.give_back(endpoint, Share::NOBODY, &mut Vec::new());
                }
            }
            for (id, cap) in &with_caps {
                let open = wires.get(id).map_or(0, |wires| wires.lent + wires.idle);
                prop_assert!(open <= *cap, "{} connections of {}", open, cap);
            }
            prop_assert!(wires.values().map(|wires| wires.lent + wires.idle).sum::<u32>() <= size);
            prop_assert_eq!(state.idle(), wires.values().map(|wires| wires.idle).sum::<u32>());
        }
    }

    /// The limit bounds what is lent, but for what is exempt.
    #[test]
    fn the_limit_spares_what_is_exempt(limit in 0u32..5, exempt in 0u32..4) {
        let mut state = state(100, 100, &[(A, 100)]);
        for _ in 0..exempt {
            let ticket = granted(state.ask(Priority::Normal));
            prop_assert!(state.claim(ticket, A, &mut Vec::new()));
            state.exempt(&mut Vec::new());
        }
        state.limit(limit, &mut Vec::new());
        for _ in 0..limit {
            let ticket = granted(state.ask(Priority::Normal));
            prop_assert!(state.claim(ticket, A, &mut Vec::new()));
        }
        let waiter = queued(state.ask(Priority::Normal));
        let mut grants = Vec::new();
        state.limit(limit + 1, &mut grants);
        prop_assert_eq!(grants, vec![waiter]);
    }
}
