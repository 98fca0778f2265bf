//! What is scarce is shared: whatever happens, in whatever order.

use super::*;
use std::collections::{BTreeMap, VecDeque};

const A: EndpointId = EndpointId(1);
const B: EndpointId = EndpointId(2);

/// What the state should know, kept plainly.
#[derive(Default)]
struct Books {
    /// Those in line, the oldest first.
    waiting: VecDeque<Ticket>,
    granted: Vec<Ticket>,
    leased: Vec<(Ticket, EndpointId)>,
    rests: BTreeMap<EndpointId, u32>,
    /// How often the oldest of all was passed over.
    passed_over: u32,
}

impl Books {
    fn held(&self, share: Share) -> usize {
        let granted = self.granted.iter().filter(|ticket| ticket.share() == share).count();
        granted + self.leased.iter().filter(|(ticket, _)| ticket.share() == share).count()
    }

    /// Judges who was granted a place, one after the other.
    fn judge(&mut self, grants: &mut Vec<Ticket>) {
        for ticket in grants.drain(..) {
            let oldest = *self.waiting.front().unwrap();
            if ticket == oldest {
                self.passed_over = 0;
            } else {
                self.passed_over += 1;
                assert!(self.passed_over <= 15, "the oldest of all waits for ever");
                let class = |other: &&Ticket| other.priority() == ticket.priority();
                let least = self.waiting.iter().filter(class).map(|it| self.held(it.share())).min();
                assert_eq!(Some(self.held(ticket.share())), least, "somebody of its class holds less");
                let more = self.waiting.iter().find(|other| other.priority() < ticket.priority());
                assert_eq!(more, None, "somebody is more important");
            }
            let mine =
                |other: &&Ticket| (other.priority(), other.share()) == (ticket.priority(), ticket.share());
            assert_eq!(self.waiting.iter().find(mine), Some(&ticket), "first come, first served");
            self.waiting.retain(|other| *other != ticket);
            self.granted.push(ticket);
        }
    }
}

fn any<T: Copy>(of: &[T], random: &mut fastrand::Rng) -> Option<T> {
    (!of.is_empty()).then(|| of[random.usize(..of.len())])
}

#[test]
fn caps_hold_nobody_is_forgotten_and_shares_are_fair_whatever_happens() {
    const EVENTS: u32 = 1_000_000;
    let (size, caps) = (7, [(A, 4), (B, 5)]);
    let mut state = PoolState::new(size, 60);
    let mut grants = Vec::new();
    caps.iter().for_each(|(id, cap)| state.add(*id, *cap, 0, 0));
    state.set_open(|_| true, &mut grants);
    let (mut books, mut random) = (Books::default(), fastrand::Rng::with_seed(7));
    for event in 0..EVENTS {
        step(&mut state, &mut books, &mut random, &mut grants);
        books.judge(&mut grants);
        let lent = books.granted.len() + books.leased.len();
        assert_eq!(state.lent() as usize, lent, "event {event}");
        assert_eq!((state.waiting(), lent <= size as usize), (books.waiting.len(), true), "event {event}");
        for (id, cap) in caps {
            assert!(books.leased.iter().filter(|(_, at)| *at == id).count() <= cap as usize);
        }
        // No wake-up is lost: whoever waits does so because there is no place.
        assert!(books.waiting.is_empty() || lent == size as usize, "event {event}");
    }
}

fn step(state: &mut PoolState, books: &mut Books, random: &mut fastrand::Rng, grants: &mut Vec<Ticket>) {
    match random.u32(..10) {
        0..4 => {
            let priority = Priority::ALL[random.usize(..Priority::ALL.len())];
            // One of them asks as often as all the others.
            let share = Share::of(random.u16(1..17).saturating_sub(8).max(1));
            match state.ask_for(priority, Purpose::USUAL, share) {
                Answer::Granted(ticket) => books.granted.push(ticket),
                Answer::Queued(ticket, ahead, displaced) => {
                    books.waiting.retain(|other| Some(*other) != displaced);
                    let before = |other: &&Ticket| other.priority() <= ticket.priority();
                    assert_eq!(ahead, books.waiting.iter().filter(before).count());
                    books.waiting.push_back(ticket);
                }
                Answer::Refused => assert_eq!(books.waiting.len(), 60),
            }
        }
        4..7 => {
            let Some(ticket) = any(&books.granted, random) else { return };
            let wanted = if random.bool() { [A, B] } else { [B, A] };
            let claimed = wanted.into_iter().find(|id| state.claim(ticket, *id, grants));
            books.granted.retain(|other| *other != ticket);
            books.leased.push((ticket, claimed.expect("a place was granted where there is room")));
        }
        7 => {
            let Some(ticket) = any(books.waiting.make_contiguous(), random) else { return };
            books.waiting.retain(|other| *other != ticket);
            state.leave(ticket, grants);
        }
        _ => {
            let Some((ticket, at)) = any(&books.leased, random) else { return };
            books.leased.retain(|(other, _)| *other != ticket);
            let rest = books.rests.entry(at).or_default();
            if random.bool() {
                *rest += 1;
                state.rest(at, ticket.share(), grants);
                state.wake(at);
                *rest -= 1;
            } else {
                state.give_back(at, ticket.share(), grants);
            }
        }
    }
}

#[test]
fn whoever_asks_for_little_is_served_before_whoever_floods() {
    let (mut state, mut grants) = (PoolState::new(4, 1_000), Vec::new());
    state.add(A, 9, 0, 0);
    state.set_open(|_| true, &mut grants);
    let (loud, quiet) = (Share::of(1), Share::of(2));
    let ask = |state: &mut PoolState, share| state.ask_for(Priority::Normal, Purpose::USUAL, share);
    for _ in 0..400 {
        if let Answer::Granted(ticket) = ask(&mut state, loud) {
            assert!(state.claim(ticket, A, &mut grants));
        }
    }
    let Answer::Queued(ticket, ahead, None) = ask(&mut state, quiet) else { panic!("there is no place") };
    assert_eq!(ahead, 396);
    let most = Some((loud, 4));
    assert_eq!(state.ahead_of(ticket), Ahead { asks: 396, places: 4, most, cap: None });
    state.give_back(A, loud, &mut grants);
    assert_eq!(grants, [ticket], "the first place that comes free is its own");
}
