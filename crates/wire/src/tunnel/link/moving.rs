//! A planned move to another carrier: what is under way arrives first, and nothing goes twice.
//!
//! The dialer says over the carrier in use that it is about to move, and asks whether that was heard. From
//! then on either end holds its bytes back, and confirms what still comes at once. When all of its own bytes
//! are confirmed and the question is answered, the pipe is empty both ways, and the RESUME repeats nothing.
//! Nobody waits for long: a move whose carrier has died meanwhile repeats what a cut would.

use std::time::Duration;

use tieline_base::Moment;

use super::Link;
use crate::tunnel::frame::{Endpoints, Frame, GoAway};

/// How long the dialer waits at most for what is under way.
pub const SETTLE_MAX: Duration = Duration::from_millis(250);

/// How long bytes are held back at most: until the new carrier is there, too.
pub const HOLD_MAX: Duration = Duration::from_millis(500);

/// The dialer's part of a move that is not made yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    /// Whether the carrier has the word.
    told: bool,
    /// The question that goes behind it.
    ping: u64,
    answered: bool,
}

impl Link {
    /// Gets ready for a planned move, and says by when it is to be made: as soon as [`Link::may_move`], or
    /// then at the latest. `None` if the carrier in use is gone or in doubt: there is nothing to wait for.
    /// The dialer's part.
    pub fn prepare_move(&mut self, now: Moment) -> Option<Moment> {
        if !self.attached || self.pulse.doubts() {
            return None;
        }
        self.leaving = Some(Leaving { told: false, ping: self.pulse.inquire(now), answered: false });
        self.hold(HOLD_MAX, now);
        Some(now.after(SETTLE_MAX))
    }

    /// Whether a move now would repeat nothing, as far as can be known here.
    pub fn may_move(&self) -> bool {
        let heard = self.leaving.is_none_or(|leaving| leaving.answered);
        !self.attached || heard && self.sum.waits == 0
    }

    /// The peer is about to move.
    pub(super) fn on_farewell(&mut self, goodbye: &GoAway<'_>, now: Moment) {
        self.hold(goodbye.deadline.min(HOLD_MAX), now);
    }

    /// Holds bytes back, and lets nobody wait for a confirmation.
    fn hold(&mut self, most: Duration, now: Moment) {
        self.paused = Some(now.after(most));
        self.confirm_all();
    }

    pub(super) fn farewell_due(&self) -> bool {
        self.leaving.is_some_and(|leaving| !leaving.told)
    }

    /// The word to the peer, once.
    pub(super) fn take_farewell(&mut self) -> Option<Frame<'static>> {
        let leaving = self.leaving.as_mut().filter(|leaving| !leaving.told)?;
        leaving.told = true;
        let (deadline, spread, next) = (HOLD_MAX, Duration::ZERO, Endpoints::default());
        Some(Frame::GoAway(GoAway { deadline, spread, next }))
    }

    /// The peer has answered a question: all that it said before is here, where the carrier is one pipe.
    pub(super) fn on_answer(&mut self, number: u64) {
        if let Some(leaving) = &mut self.leaving {
            leaving.answered |= leaving.told && leaving.ping == number;
        }
    }
}
