//! One timer that follows a moment which moves.

use std::pin::Pin;
use std::task::{Context, Poll};

use tieline_base::{Clock, Moment};
use tokio::time::{Instant, Sleep, sleep_until};

/// Wakes its task at a moment. Takes no timer before it is first asked for one.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    set: Moment,
}

/// Further away than anything waits.
const NEVER: Moment = Moment(u64::MAX / 2);

impl Alarm {
    /// Ready at `at`; else the task is woken then.
    pub(crate) fn poll(&mut self, at: Moment, cx: &mut Context<'_>) -> Poll<()> {
        if at >= NEVER {
            return Poll::Pending;
        }
        // A millisecond later, so that the clock has surely passed it.
        let instant = || Instant::from_std(Clock::instant_of(at)) + std::time::Duration::from_millis(1);
        if self.sleep.is_none() {
            (self.sleep, self.set) = (Some(Box::pin(sleep_until(instant()))), at);
        }
        let Some(sleep) = &mut self.sleep else { return Poll::Pending };
        if self.set != at {
            sleep.as_mut().reset(instant());
            self.set = at;
        }
        sleep.as_mut().poll(cx)
    }
}
