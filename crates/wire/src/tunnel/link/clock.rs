//! What the time brings to a link.

use tieline_base::Moment;

use super::{Event, Link};
use crate::tunnel::ids::{Code, Epoch, StreamId};
use crate::tunnel::pulse::Beat;

impl Link {
    /// When [`Link::on_time`] is next needed; the end of time if it is not.
    pub fn deadline(&self) -> Moment {
        let never = Moment(u64::MAX);
        let pulse = if self.attached { self.pulse.deadline(self.busy()) } else { never };
        let confirm = self.confirm_at.filter(|_| self.attached).unwrap_or(never);
        pulse.min(confirm).min(self.paused.unwrap_or(never)).min(self.expires)
    }

    /// It is `now`. To be called at [`Link::deadline`], and harmless at any other time.
    pub fn on_time(&mut self, now: Moment) {
        if self.attached && self.pulse.beat(now, self.busy()) == Beat::Doubt {
            self.expires = Moment(0);
            self.events.push_back(Event::Doubt);
        }
        if self.attached && self.confirm_at.is_some_and(|at| at <= now) {
            self.confirm_all();
        }
        self.paused.take_if(|until| *until <= now);
        if self.expires <= now {
            self.expire(now);
        }
    }

    /// The network or the clock has jumped: the peer is asked at once whether it is there.
    pub fn hurry(&mut self, now: Moment) {
        self.pulse.hurry(now);
    }

    /// The carrier of `epoch` is gone. From here on streams wait, each for as long as it may.
    pub fn detach(&mut self, epoch: Epoch, now: Moment) {
        if epoch == self.epoch && self.attached {
            self.attached = false;
            self.expire(now);
        }
    }

    fn busy(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Breaks off what has waited for too long, and finds out when that is next to be looked at. Streams that
    /// move push their time back without a word here: the look comes early then, and finds nothing.
    fn expire(&mut self, now: Moment) {
        let detached = (!self.attached || self.pulse.doubts()).then(|| self.pulse.last_heard());
        let waits = |(id, stream): (&StreamId, &super::Stream)| Some((*id, stream.deadline(detached)?));
        let waiting: Vec<(StreamId, (Moment, Code))> = self.streams.iter().filter_map(waits).collect();
        self.expires = Moment(u64::MAX);
        for (id, (at, code)) in waiting {
            if at <= now {
                self.break_off(id, code);
            } else {
                self.expires = self.expires.min(at);
            }
        }
    }
}
