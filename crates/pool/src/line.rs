//! Who waits for a place: the more important first, the oldest of the equally important, and the oldest of
//! all now and then, so that nobody waits for ever.

use std::collections::VecDeque;

use tieline_base::Priority;

use crate::state::Ticket;

/// After so many turns of others the oldest of all has its own.
const PASSED_OVER_MAX: u32 = 15;

/// Who waits, by importance and age.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// By [`Priority`], each in order of its tickets.
    classes: [VecDeque<Ticket>; Priority::ALL.len()],
    /// How many have had their turn since the oldest of all had one.
    passed_over: u32,
}

impl Line {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.classes.iter().all(VecDeque::is_empty)
    }

    /// Lines `ticket` up, which is the newest; says how many are before it.
    pub(crate) fn push(&mut self, ticket: Ticket) -> usize {
        let class = ticket.priority() as usize;
        let ahead = self.classes[..=class].iter().map(VecDeque::len).sum();
        self.classes[class].push_back(ticket);
        ahead
    }

    /// Lines `ticket` up where it stood.
    pub(crate) fn put_back(&mut self, ticket: Ticket) {
        let class = &mut self.classes[ticket.priority() as usize];
        let index = class.partition_point(|other| *other < ticket);
        class.insert(index, ticket);
    }

    /// Whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<Ticket> {
        let first = self.classes.iter().position(|class| !class.is_empty())?;
        let oldest = (first..self.classes.len())
            .filter(|class| !self.classes[*class].is_empty())
            .min_by_key(|class| self.classes[*class].front())?;
        let class = if self.passed_over >= PASSED_OVER_MAX { oldest } else { first };
        self.passed_over = if class == oldest { 0 } else { self.passed_over + 1 };
        self.classes[class].pop_front()
    }

    /// Takes `ticket` out; false if it does not wait.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> bool {
        let class = &mut self.classes[ticket.priority() as usize];
        class.binary_search(&ticket).is_ok_and(|index| class.remove(index).is_some())
    }

    /// Sends away the newest of the least important, if it is less important than `priority`.
    pub(crate) fn displace(&mut self, priority: Priority) -> Option<Ticket> {
        let least = self.classes.iter_mut().skip(priority as usize + 1).rev().find(|class| !class.is_empty());
        least?.pop_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ticket(sequence: u64, priority: Priority) -> Ticket {
        Ticket::new(sequence, priority)
    }

    #[test]
    fn the_important_come_first_and_push_the_unimportant_out() {
        let mut line = Line::default();
        let (low, normal) = (ticket(0, Priority::Low), ticket(1, Priority::Normal));
        let critical = ticket(2, Priority::Critical);
        assert_eq!([line.push(low), line.push(normal), line.push(critical)], [0, 0, 0]);
        assert_eq!(line.displace(Priority::Low), None);
        assert_eq!(line.displace(Priority::High), Some(low));
        assert_eq!((line.pop(), line.pop(), line.pop()), (Some(critical), Some(normal), None));
    }

    proptest! {
        /// Of one class the oldest is first; who is the oldest of all waits for a bounded number of turns.
        #[test]
        fn first_come_first_served_and_nobody_starves(
            steps in prop::collection::vec((any::<bool>(), 0usize..4), 1..400),
        ) {
            let (mut line, mut sequence, mut waiting) = (Line::default(), 0, Vec::<Ticket>::new());
            let (mut oldest, mut turns) = (None, 0);
            for (arrives, class) in steps {
                if arrives {
                    let new = ticket(sequence, Priority::ALL[class]);
                    sequence += 1;
                    let ahead = waiting.iter().filter(|other| other.priority() <= new.priority()).count();
                    prop_assert_eq!(line.push(new), ahead);
                    waiting.push(new);
                } else if let Some(next) = line.pop() {
                    let first = waiting.iter().find(|other| other.priority() == next.priority());
                    prop_assert_eq!(first, Some(&next), "the oldest of its class");
                    turns = if waiting.first() == oldest.as_ref() { turns + 1 } else { 1 };
                    oldest = waiting.first().copied();
                    prop_assert!(turns <= PASSED_OVER_MAX + 1, "the oldest of all has waited too long");
                    waiting.retain(|other| *other != next);
                } else {
                    prop_assert!(waiting.is_empty());
                }
                prop_assert_eq!(line.len(), waiting.len());
            }
        }
    }
}
