//! Those of one importance who wait, each user's in a row of their own: of the users who hold least, the one
//! who has waited longest is next.

use std::collections::VecDeque;

use crate::purpose::Purpose;
use crate::share::{Share, Shares};
use crate::state::Ticket;

/// What may be served now, by [`Purpose`].
pub(crate) type May = [bool; Purpose::COUNT];

/// So many may stand in the room that is kept.
const SPARE_MAX: usize = 64;

/// The rows. As many as users wait, and the length of the line is bounded.
#[derive(Debug, Default)]
pub(crate) struct Class {
    rows: Vec<(Share, VecDeque<Ticket>)>,
    len: usize,
    /// The room of a row that nobody stands in any more, for the next one.
    spare: VecDeque<Ticket>,
}

impl Class {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Lines `ticket` up at its place.
    pub(crate) fn insert(&mut self, ticket: Ticket) {
        let share = ticket.share();
        let at = self.rows.iter().position(|(other, _)| *other == share).unwrap_or_else(|| {
            self.rows.push((share, std::mem::take(&mut self.spare)));
            self.rows.len() - 1
        });
        let row = &mut self.rows[at].1;
        // Nearly always it is the newest.
        match row.back() {
            Some(newest) if *newest > ticket => {
                row.insert(row.partition_point(|other| *other < ticket), ticket);
            }
            _ => row.push_back(ticket),
        }
        self.len += 1;
    }

    /// Takes `ticket` out; false if it does not wait.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> bool {
        let Some(at) = self.rows.iter().position(|(share, _)| *share == ticket.share()) else { return false };
        let row = &mut self.rows[at].1;
        let removed = row.binary_search(&ticket).is_ok_and(|index| row.remove(index).is_some());
        self.len -= usize::from(removed);
        self.tidy(at);
        removed
    }

    /// Takes the first out of the only row, if there is only one and it `may` be served.
    pub(crate) fn pop_only(&mut self, may: May, held: &Shares, free: u32) -> Option<Ticket> {
        let [(share, row)] = self.rows.as_mut_slice() else { return None };
        let first = row.front().copied().filter(|first| may[first.purpose().number()])?;
        if !held.may_have(*share, free) {
            return None;
        }
        row.pop_front();
        self.len -= 1;
        self.tidy(0);
        Some(first)
    }

    /// Drops the row at `at` if nobody stands in it.
    fn tidy(&mut self, at: usize) {
        if self.rows[at].1.is_empty() {
            let (_, row) = self.rows.swap_remove(at);
            // What a long line has taken is given back.
            if row.capacity() <= SPARE_MAX {
                self.spare = row;
            }
        }
    }

    /// The oldest of whoever is served least, of those that `may` be served.
    pub(crate) fn next(&self, may: May, held: &Shares, free: u32) -> Option<Ticket> {
        self.firsts(may, held, free).min_by_key(|ticket| (held.level(ticket.share()), *ticket))
    }

    /// The oldest of all that `may` be served.
    pub(crate) fn oldest(&self, may: May, held: &Shares, free: u32) -> Option<Ticket> {
        self.firsts(may, held, free).min()
    }

    pub(crate) fn newest(&self) -> Option<Ticket> {
        self.rows.iter().filter_map(|(_, row)| row.back().copied()).max()
    }

    /// How many of the tickets are older than `ticket`.
    pub(crate) fn older_than(&self, ticket: Ticket) -> usize {
        self.rows.iter().map(|(_, row)| row.partition_point(|other| *other < ticket)).sum()
    }

    /// The first of each row that `may` be served, of those who may have one more of so many places.
    fn firsts(&self, may: May, held: &Shares, free: u32) -> impl Iterator<Item = Ticket> {
        let may = move |ticket: &&Ticket| may[ticket.purpose().number()];
        let rows = self.rows.iter().filter(move |(share, _)| held.may_have(*share, free));
        rows.filter_map(move |(_, row)| row.iter().find(may).copied())
    }
}
