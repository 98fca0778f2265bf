//! Asks that not every endpoint will do for.

use super::tests::{granted, queued};
use super::*;
use proptest::prelude::*;

const A: EndpointId = EndpointId(1);
const B: EndpointId = EndpointId(2);
const WRITES: Purpose = Purpose::new(1);
const READS: Purpose = Purpose::new(2);

/// `A` is for writes and `B` for reads, each with this cap.
fn state(size: u32, cap: u32) -> PoolState {
    let mut state = PoolState::new(size, 99);
    state.add(A, cap, 0, 0);
    state.add(B, cap, 0, 0);
    state.open_for(fit, &mut Vec::new());
    state
}

fn fit(id: EndpointId) -> Fit {
    Fit::of([if id == A { WRITES } else { READS }, Purpose::USUAL])
}

#[test]
fn who_waits_for_one_kind_of_endpoint_keeps_nobody_from_another() {
    let (mut state, mut grants) = (state(9, 1), Vec::new());
    let first = granted(state.ask_for(Priority::Normal, WRITES, Share::NOBODY));
    assert!(state.claim(first, A, &mut grants));
    let second = queued(state.ask_for(Priority::Normal, WRITES, Share::NOBODY));
    let reader = granted(state.ask_for(Priority::Normal, READS, Share::NOBODY));
    assert_eq!((second.purpose(), reader.purpose(), reader.priority()), (WRITES, READS, Priority::Normal));
    assert!(state.claim(reader, B, &mut grants));
    assert_eq!(grants, []);
    state.give_back(B, Share::NOBODY, &mut grants);
    assert_eq!(grants, [], "room at the other kind is none for it");
    state.give_back(A, Share::NOBODY, &mut grants);
    assert_eq!(grants, [second]);
}

#[test]
fn a_role_that_moves_takes_the_waiting_with_it() {
    let (mut state, mut grants) = (state(9, 9), Vec::new());
    state.open_for(|_| Fit::of([READS]), &mut grants);
    let waiting: Vec<_> =
        (0..3).map(|_| queued(state.ask_for(Priority::Normal, WRITES, Share::NOBODY))).collect();
    state.open_for(|id| if id == B { Fit::of([WRITES]) } else { Fit::NONE }, &mut grants);
    assert_eq!(grants, waiting);
    assert!(grants.iter().all(|ticket| state.claim(*ticket, B, &mut Vec::new())));
}

proptest! {
    /// Of one purpose and importance the oldest is first, and nobody waits for whom there is room.
    #[test]
    fn purposes_are_served_each_in_order(
        steps in prop::collection::vec((0u8..3, any::<bool>(), any::<bool>()), 1..200),
        (size, cap) in (1u32..6, 1u32..4),
    ) {
        let mut state = state(size, cap);
        let (mut waiting, mut lent) = (Vec::<Ticket>::new(), Vec::<EndpointId>::new());
        for (number, asks, other_end) in steps {
            let (purpose, mut grants) = (Purpose::new(number), Vec::new());
            if asks {
                match state.ask_for(Priority::Normal, purpose, Share::NOBODY) {
                    Answer::Granted(ticket) => {
                        prop_assert!(!waiting.iter().any(|other| other.purpose() == purpose), "overtaken");
                        grants.push(ticket);
                    }
                    Answer::Queued(ticket, ..) => waiting.push(ticket),
                    Answer::Refused => prop_assert!(false, "the line is long enough"),
                }
            } else if !lent.is_empty() {
                let endpoint = lent.remove(if other_end { 0 } else { lent.len() - 1 });
                state.give_back(endpoint, Share::NOBODY, &mut grants);
            }
            while !grants.is_empty() {
                let ticket = grants.remove(0);
                let first = waiting.iter().find(|other| other.purpose() == ticket.purpose());
                prop_assert!(first.is_none_or(|first| *first == ticket), "not the oldest");
                waiting.retain(|other| *other != ticket);
                let ends = [A, B].into_iter().filter(|id| fit(*id).has(ticket.purpose()));
                let mut claimed = ends.filter(|id| lent.iter().filter(|it| *it == id).count() < cap as usize);
                let Some(endpoint) = claimed.next() else {
                    prop_assert!(false, "granted, and there is no room for it");
                    unreachable!();
                };
                lent.push(endpoint);
                prop_assert!(state.claim(ticket, endpoint, &mut grants));
            }
            prop_assert!(lent.len() <= size as usize);
            for ticket in &waiting {
                let full = |id: EndpointId| lent.iter().filter(|it| **it == id).count() >= cap as usize;
                let room = [A, B].into_iter().any(|id| fit(id).has(ticket.purpose()) && !full(id));
                prop_assert!(lent.len() >= size as usize || !room, "waits in vain");
            }
        }
    }
}
