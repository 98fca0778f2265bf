//! Whose bytes go next: deficit round robin (RFC 8290 §4), in which a stream that had nothing to send goes
//! first, once, and then takes its turn among the others.
//!
//! So a keystroke waits for one frame of a bulk transfer at most, however many of those there are, and no
//! stream can starve another by stopping and starting.

use std::collections::VecDeque;

use super::frame::DATA_MAX;
use super::ids::StreamId;

/// How many bytes a stream may send in one turn.
const QUANTUM: i64 = DATA_MAX as i64;

#[derive(Default, Debug)]
pub(super) struct Schedule {
    fresh: VecDeque<Turn>,
    ring: VecDeque<Turn>,
}

/// A stream's place in line. A stream has one at most; who keeps the streams sees to that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) stream: StreamId,
    fresh: bool,
    left: i64,
}

impl Schedule {
    /// A stream that is not in line has something to send.
    pub(super) fn wake(&mut self, stream: StreamId) {
        self.fresh.push_back(Turn { stream, fresh: true, left: QUANTUM });
    }

    /// Whose turn it is. To be given back by [`Schedule::sent`] or [`Schedule::nothing`].
    pub(super) fn next(&mut self) -> Option<Turn> {
        loop {
            let mut turn = self.fresh.pop_front().or_else(|| self.ring.pop_front())?;
            if turn.left > 0 {
                return Some(turn);
            }
            turn.left += QUANTUM;
            self.join_ring(turn);
        }
    }

    /// `bytes` went out in this turn.
    pub(super) fn sent(&mut self, turn: Turn, bytes: usize) {
        // An end without bytes costs as well: nobody sends for nothing.
        let turn = Turn { left: turn.left - bytes.max(1) as i64, ..turn };
        if turn.fresh { self.fresh.push_front(turn) } else { self.ring.push_front(turn) }
    }

    /// The stream has nothing to send. Says whether it keeps its place for one more round: a stream that has
    /// just gone first may not do so again at once.
    pub(super) fn nothing(&mut self, turn: Turn) -> bool {
        if turn.fresh {
            self.join_ring(turn);
        }
        turn.fresh
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.ring.is_empty()
    }

    /// All places are given up.
    pub(super) fn clear(&mut self) {
        self.fresh.clear();
        self.ring.clear();
    }

    #[cfg(test)]
    pub(super) fn contains(&self, stream: StreamId) -> bool {
        self.fresh.iter().chain(&self.ring).filter(|turn| turn.stream == stream).count() == 1
    }

    fn join_ring(&mut self, turn: Turn) {
        self.ring.push_back(Turn { fresh: false, ..turn });
    }
}
