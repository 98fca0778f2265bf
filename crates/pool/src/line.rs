//! Who waits for a place: the more important first, of the equally important whoever holds least, the oldest
//! of theirs, and the oldest of all now and then, so that nobody waits for ever.

use tieline_base::Priority;

use crate::class::{Class, May};
use crate::purpose::Purpose;
use crate::share::Shares;
use crate::state::Ticket;

/// After so many turns of others the oldest of all has its own.
const PASSED_OVER_MAX: u32 = 15;

/// Who waits, by importance, by what they hold, and by age.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// By [`Priority`].
    classes: [Class; Priority::ALL.len()],
    /// By [`Purpose`], how many wait.
    by_purpose: [usize; Purpose::COUNT],
    /// How many have had their turn since the oldest of all had one.
    passed_over: u32,
}

impl Line {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.by_purpose.iter().sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether somebody waits for this purpose.
    pub(crate) fn has(&self, purpose: Purpose) -> bool {
        self.by_purpose[purpose.number()] > 0
    }

    /// Lines `ticket` up, which is the newest; says how many are before it.
    #[cfg(test)]
    pub(crate) fn push(&mut self, ticket: Ticket) -> usize {
        let ahead = self.ahead_of(ticket);
        self.put_back(ticket);
        ahead
    }

    /// How many are no less important than `ticket`, and older.
    pub(crate) fn ahead_of(&self, ticket: Ticket) -> usize {
        let class = ticket.priority() as usize;
        let more: usize = self.classes[..class].iter().map(Class::len).sum();
        more + self.classes[class].older_than(ticket)
    }

    /// Lines `ticket` up where it stood, or stands if it is new.
    pub(crate) fn put_back(&mut self, ticket: Ticket) {
        self.classes[ticket.priority() as usize].insert(ticket);
        self.by_purpose[ticket.purpose().number()] += 1;
    }

    /// Whose turn it is, of those whose purpose `may` be served now, where so many places are free.
    pub(crate) fn pop(&mut self, may: May, held: &Shares, free: u32) -> Option<Ticket> {
        if !may.iter().zip(self.by_purpose).any(|(may, waiting)| *may && waiting > 0) {
            return None;
        }
        if let Some(ticket) = self.pop_only(may, held, free) {
            return Some(ticket);
        }
        let next = self.classes.iter().find_map(|class| class.next(may, held, free))?;
        let oldest = self.classes.iter().filter_map(|class| class.oldest(may, held, free)).min()?;
        let ticket = if self.passed_over >= PASSED_OVER_MAX { oldest } else { next };
        self.passed_over = if ticket == oldest { 0 } else { self.passed_over + 1 };
        self.remove(ticket).then_some(ticket)
    }

    /// The same where all who wait are one user's and equally important, and the first of them may be served:
    /// nobody has to be weighed then.
    fn pop_only(&mut self, may: May, held: &Shares, free: u32) -> Option<Ticket> {
        let waiting = self.len();
        let class = self.classes.iter_mut().find(|class| class.len() > 0)?;
        let ticket = (class.len() == waiting).then(|| class.pop_only(may, held, free))??;
        self.by_purpose[ticket.purpose().number()] -= 1;
        self.passed_over = 0;
        Some(ticket)
    }

    /// Takes `ticket` out; false if it does not wait.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> bool {
        let removed = self.classes[ticket.priority() as usize].remove(ticket);
        self.by_purpose[ticket.purpose().number()] -= usize::from(removed);
        removed
    }

    /// Sends away the newest of the least important, if it is less important than `priority`.
    pub(crate) fn displace(&mut self, priority: Priority) -> Option<Ticket> {
        let least = self.classes.iter().skip(priority as usize + 1).rev().find(|class| class.len() > 0);
        let displaced = least?.newest()?;
        self.remove(displaced).then_some(displaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY: [bool; Purpose::COUNT] = [true; Purpose::COUNT];

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
        assert_eq!(
            (
                line.pop(ANY, &Shares::default(), 1),
                line.pop(ANY, &Shares::default(), 1),
                line.pop(ANY, &Shares::default(), 1)
            ),
            (Some(critical), Some(normal), None)
        );
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
                } else if let Some(next) = line.pop(ANY, &Shares::default(), 1) {
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
