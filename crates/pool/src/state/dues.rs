//! What is due to whom is kept: weights, floors and caps, whatever happens in whatever order.

use super::*;
use crate::share::Due;
use std::collections::VecDeque;

const A: EndpointId = EndpointId(1);

fn state(size: u32, dues: &Dues) -> PoolState {
    let mut state = PoolState::new(size, 1_000);
    state.add(A, u32::MAX, 0, 0);
    state.set_open(|_| true, &mut Vec::new());
    state.owe(dues, &mut Vec::new());
    state
}

fn due(weight: u32, floor: u32, cap: Option<u32>) -> Due {
    Due { weight, floor, cap }
}

/// A pool of `size` that everybody uses all the time, each of them wanting so many places.
struct Crowd {
    state: PoolState,
    leased: Vec<Ticket>,
    random: fastrand::Rng,
}

impl Crowd {
    fn new(size: u32, wants: &[(u32, Due)]) -> Crowd {
        let shares = (0..).map(|number| Share::of(number + 1));
        let named = shares.clone().zip(wants).map(|(share, (_, due))| (share, *due)).collect();
        let dues = Dues { named, others: Due::default() };
        let mut crowd =
            Crowd { state: state(size, &dues), leased: Vec::new(), random: fastrand::Rng::with_seed(3) };
        for (share, (want, _)) in shares.zip(wants) {
            (0..*want).for_each(|_| crowd.ask(share));
        }
        crowd
    }

    fn ask(&mut self, share: Share) {
        match self.state.ask_for(Priority::Normal, Purpose::USUAL, share) {
            Answer::Granted(ticket) => self.take(vec![ticket]),
            Answer::Queued(..) => {}
            Answer::Refused => panic!("the line is long enough"),
        }
    }

    fn take(&mut self, mut granted: Vec<Ticket>) {
        while let Some(ticket) = granted.pop() {
            assert!(self.state.claim(ticket, A, &mut granted));
            self.leased.push(ticket);
        }
    }

    /// Somebody is ready, and wants another place at once.
    fn turn(&mut self) {
        let ticket = self.leased.swap_remove(self.random.usize(..self.leased.len()));
        self.ask(ticket.share());
        let mut granted = Vec::new();
        self.state.give_back(A, ticket.share(), &mut granted);
        self.take(granted);
    }

    /// How many places each of so many has on average.
    fn means(&mut self, shares: u16) -> Vec<f64> {
        const TURNS: u32 = 4_000;
        (0..TURNS).for_each(|_| self.turn());
        let mut sums = vec![0; usize::from(shares)];
        for _ in 0..TURNS {
            self.turn();
            for (sum, number) in sums.iter_mut().zip(1..=shares) {
                *sum += self.state.held.of(Share::of(number));
            }
        }
        sums.into_iter().map(|sum| f64::from(sum) / f64::from(TURNS)).collect()
    }
}

/// Progressive filling: all that are not satisfied rise together, by their weights.
#[test]
fn places_are_shared_by_weight_as_far_as_they_are_wanted() {
    let alike = |want| (want, Due::default());
    let weighted = |want, weight| (want, due(weight, 0, None));
    for (wants, expected) in [
        (vec![alike(2), alike(8), alike(8)], vec![2.0, 4.0, 4.0]),
        (vec![weighted(9, 1), weighted(9, 1), weighted(9, 3)], vec![2.0, 2.0, 6.0]),
        (vec![weighted(3, 3), weighted(9, 1), weighted(9, 1)], vec![3.0, 3.5, 3.5]),
        (vec![(9, due(1, 0, Some(1))), alike(9)], vec![1.0, 9.0]),
        (vec![(9, due(1, 4, None)), (99, due(1_000, 0, None))], vec![4.0, 6.0]),
    ] {
        let means = Crowd::new(10, &wants).means(wants.len() as u16);
        let near = means.iter().zip(&expected).all(|(mean, expected)| (mean - expected).abs() < 0.5);
        assert!(near, "{wants:?}: {means:?}");
    }
}

#[test]
fn who_has_a_floor_can_always_begin() {
    let (quiet, loud) = (Share::of(1), Share::of(2));
    let dues = Dues { named: vec![(quiet, due(1, 2, None))], others: Due::default() };
    let mut state = state(5, &dues);
    let ask = |state: &mut PoolState, share| state.ask_for(Priority::Normal, Purpose::USUAL, share);
    for number in 0..20 {
        let granted = matches!(ask(&mut state, loud), Answer::Granted(_));
        assert_eq!(granted, number < 3);
    }
    assert!(matches!(ask(&mut state, quiet), Answer::Granted(_)));
    assert!(matches!(ask(&mut state, quiet), Answer::Granted(_)));
    assert!(matches!(ask(&mut state, quiet), Answer::Queued(..)));
}

#[test]
fn who_has_all_that_it_may_have_keeps_nobody_waiting() {
    let (capped, other) = (Share::of(1), Share::of(2));
    let dues = Dues { named: vec![(capped, due(1, 0, Some(1)))], others: Due::default() };
    let mut state = state(3, &dues);
    let ask = |state: &mut PoolState, share| state.ask_for(Priority::Normal, Purpose::USUAL, share);
    assert!(matches!(ask(&mut state, capped), Answer::Granted(_)));
    let Answer::Queued(ticket, ..) = ask(&mut state, capped) else { panic!("it has its one") };
    assert_eq!(state.ahead_of(ticket).cap, Some(1));
    assert!(matches!(ask(&mut state, other), Answer::Granted(_)));
    let mut grants = Vec::new();
    state.owe(&Dues::default(), &mut grants);
    assert_eq!(grants, [ticket], "a cap that is gone holds nobody");
}

/// What is known of a million events, kept plainly.
struct Plain {
    size: u32,
    dues: Dues,
    waiting: VecDeque<Ticket>,
    taken: Vec<Ticket>,
    passed_over: u32,
}

impl Plain {
    fn held(&self, share: Share) -> u32 {
        self.taken.iter().filter(|ticket| ticket.share() == share).count() as u32
    }

    fn due(&self, share: Share) -> Due {
        let named = self.dues.named.iter().find(|(other, _)| *other == share);
        named.map_or(self.dues.others, |(_, due)| *due)
    }

    fn may_have(&self, share: Share) -> bool {
        let others = self.dues.named.iter().filter(|(other, _)| *other != share);
        let kept: u32 = others.map(|(other, due)| due.floor.saturating_sub(self.held(*other))).sum();
        let below_cap = self.due(share).cap.is_none_or(|cap| self.held(share) < cap);
        below_cap && self.size - self.taken.len() as u32 > kept
    }

    fn grant(&mut self, ticket: Ticket) {
        assert!(self.may_have(ticket.share()), "{ticket:?} has what is due to others");
        let mut eligible = self.waiting.iter().filter(|ticket| self.may_have(ticket.share()));
        if eligible.next() == Some(&ticket) {
            self.passed_over = 0;
        } else {
            self.passed_over += 1;
        }
        assert!(self.passed_over <= 15, "the oldest that may be served waits for ever");
        let first = self.waiting.iter().find(|other| other.share() == ticket.share());
        assert_eq!(first, Some(&ticket), "first come, first served");
        self.waiting.retain(|other| *other != ticket);
        self.taken.push(ticket);
    }

    fn check(&self, state: &PoolState, event: u32) {
        assert_eq!((state.lent(), state.waiting()), (self.taken.len() as u32, self.waiting.len()));
        assert!(state.lent() <= self.size, "event {event}");
        for share in (1..=5).map(Share::of) {
            assert!(self.due(share).cap.is_none_or(|cap| self.held(share) <= cap), "event {event}");
        }
        let forgotten = self.waiting.iter().find(|ticket| self.may_have(ticket.share()));
        assert_eq!(forgotten, None, "event {event}: it waits, and there is a place for it");
    }
}

#[test]
fn floors_and_caps_hold_and_nobody_is_forgotten_whatever_happens() {
    const EVENTS: u32 = 1_000_000;
    let share = Share::of;
    let named = vec![
        (share(1), due(1, 2, None)),
        (share(2), due(5, 0, Some(3))),
        (share(3), due(1, 1, Some(2))),
        (share(4), due(3, 0, None)),
    ];
    let dues = Dues { named, others: due(1, 0, Some(4)) };
    let mut state = state(8, &dues);
    let mut plain = Plain { size: 8, dues, waiting: VecDeque::new(), taken: Vec::new(), passed_over: 0 };
    let (mut random, mut leased) = (fastrand::Rng::with_seed(11), Vec::<Ticket>::new());
    for event in 0..EVENTS {
        let mut grants = Vec::new();
        if random.u32(..8) < 4 && plain.waiting.len() < 30 {
            let share = share(1 + random.u16(..9).min(4));
            match state.ask_for(Priority::Normal, Purpose::USUAL, share) {
                Answer::Granted(ticket) => {
                    assert!(plain.may_have(share), "event {event}");
                    plain.taken.push(ticket);
                    leased.push(ticket);
                    assert!(state.claim(ticket, A, &mut grants));
                }
                Answer::Queued(ticket, ..) => plain.waiting.push_back(ticket),
                Answer::Refused => panic!("the line is long enough"),
            }
        } else if random.u32(..8) == 0 && !plain.waiting.is_empty() {
            let ticket = plain.waiting.remove(random.usize(..plain.waiting.len())).unwrap();
            state.leave(ticket, &mut grants);
        } else if !leased.is_empty() {
            let ticket = leased.swap_remove(random.usize(..leased.len()));
            plain.taken.retain(|other| *other != ticket);
            state.give_back(A, ticket.share(), &mut grants);
        }
        while !grants.is_empty() {
            let ticket = grants.remove(0);
            plain.grant(ticket);
            leased.push(ticket);
            assert!(state.claim(ticket, A, &mut grants));
        }
        // The books are kept plainly, and slowly.
        if event % 16 == 0 {
            plain.check(&state, event);
        }
    }
}
