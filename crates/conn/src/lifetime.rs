//! When a connection's time is up: one timer for orders from outside, its schedule, its age and its idleness.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tieline_base::{Clock, Moment, Reason};
use tieline_registry::{Heard, Record, Verdict};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::snapshot::Timeouts;

pin_project! {
    /// Resolves when `record` must end, and says why. Polled by one task, and may be dropped at any time.
    /// Written out, because every connection carries one for all its life: an async block would be twice as
    /// large.
    pub(crate) struct Lifetime<'r> {
        record: &'r Record,
        dies: Verdict,
        // What it is given to leave in order when it has lived its time; none if it could not.
        grace: Option<Duration>,
        heard: Heard,
        // When the timer rings.
        armed: Moment,
        // Whether the timer knows whom to wake then.
        rings: bool,
        #[pin]
        sleep: Sleep,
    }
}

impl<'r> Lifetime<'r> {
    /// The lifetime of `record`. One that `leaves` when it is asked to is asked when it has lived for
    /// `max_age`.
    pub(crate) fn new(record: &'r Record, timeouts: &Timeouts, leaves: bool) -> Self {
        record.expect(timeouts.idle.unwrap_or(Duration::MAX), Reason::Idle);
        let age = timeouts.max_age.map_or(Duration::MAX, jittered);
        let dies = Verdict { at: record.opened().after(age), reason: Reason::MaxAge };
        let first = next(record, dies, None);
        let grace = leaves.then_some(timeouts.drain);
        let (heard, rings) = (Heard::default(), false);
        Self { record, dies, grace, heard, armed: first.at, rings, sleep: sleep_until(timer(first.at)) }
    }
}

impl Future for Lifetime<'_> {
    type Output = Reason;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reason> {
        let mut this = self.project();
        let standing = this.record.poll_verdict(this.heard, cx);
        let mut end = next(this.record, *this.dies, standing);
        // Set anew only for an earlier end: a later one is looked for when the timer rings, so that bytes
        // that move and expectations that follow each other cost the timer nothing.
        if end.at < *this.armed {
            (*this.armed, *this.rings) = (end.at, false);
            this.sleep.as_mut().reset(timer(end.at));
        }
        // Nearly always something else woke the connection; to be asked costs the timer more than to look.
        if *this.rings && !this.sleep.is_elapsed() {
            return Poll::Pending;
        }
        while this.sleep.as_mut().poll(cx).is_ready() {
            let now = Clock::now();
            if end.at <= now {
                let Some(grace) = this.grace.take_if(|_| end == *this.dies) else {
                    return Poll::Ready(end.reason);
                };
                // This wakes its protocol, which reads it and leaves.
                *this.dies = Verdict { at: now.after(grace), ..*this.dies };
                this.record.end(*this.dies);
            }
            end = next(this.record, *this.dies, standing);
            *this.armed = end.at;
            this.sleep.as_mut().reset(timer(end.at));
        }
        // Whose turn is used up is told to come again, and the timer nothing.
        *this.rings = tokio::task::coop::has_budget_remaining();
        Poll::Pending
    }
}

/// The earliest end, as things stand.
fn next(record: &Record, dies: Verdict, verdict: Option<Verdict>) -> Verdict {
    let ends = [Some(record.patience()), verdict].into_iter().flatten();
    ends.fold(dies, |one, other| if other.at <= one.at { other } else { one })
}

/// Give or take 10 %, so that connections that came together do not leave, and return, together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * fastrand::f64())
}

fn timer(at: Moment) -> Instant {
    /// tokio's own "far future": further ones overflow its timer.
    const FAR: Duration = Duration::from_secs(86_400 * 365);
    let far = Clock::now().after(FAR);
    Instant::from_std(Clock::instant_of(at.min(far)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::Arc;
    use tieline_base::{ClientAddr, Generation, WorkerId};
    use tieline_registry::{Opening, Registry};

    fn record() -> Arc<Record> {
        let limits = tieline_registry::Limits { age: Duration::from_secs(1), rows: 1 };
        let registry = Registry::new(1, limits, Box::new(|_| {}));
        registry.enter(Opening {
            client: ClientAddr::Unix,
            listener: registry.listener("l", "tcp"),
            worker: WorkerId(0),
            generation: Generation(1),
            parent: None,
        })
    }

    async fn end(record: &Record, timeouts: Timeouts) -> Reason {
        Lifetime::new(record, &timeouts, false).await
    }

    const NEVER: Timeouts =
        Timeouts { handshake: Duration::ZERO, idle: None, max_age: None, drain: Duration::ZERO };

    #[tokio::test]
    async fn the_first_limit_reached_names_the_reason() {
        let (short, long) = (Duration::from_millis(30), Duration::from_secs(60));
        let idle = Timeouts { idle: Some(short), max_age: Some(long), ..NEVER };
        assert_eq!(end(&record(), idle).await, Reason::Idle);
        let aged = Timeouts { idle: Some(long), max_age: Some(short), ..NEVER };
        assert_eq!(end(&record(), aged).await, Reason::MaxAge);
    }

    #[tokio::test]
    async fn who_can_leave_is_asked_to_before_its_age_ends_it() {
        let record = record();
        let (short, grace) = (Duration::from_millis(30), Duration::from_millis(80));
        let timeouts = Timeouts { max_age: Some(short), drain: grace, ..NEVER };
        let mut ending = pin!(Lifetime::new(&record, &timeouts, true));
        poll_fn(|cx| {
            let done = ending.as_mut().poll(cx);
            assert!(done.is_pending());
            // Asked to leave, it is woken to do so.
            if record.leaving().is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(record.leaving(), Some(Reason::MaxAge));
        assert_eq!(ending.await, Reason::MaxAge);
        assert!(Clock::now().since(record.opened()) >= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn an_order_from_another_thread_ends_a_connection_without_limits() {
        let record = record();
        let orderer = record.clone();
        let order = Verdict { at: Clock::now(), reason: Reason::Killed };
        let thread = std::thread::spawn(move || orderer.end(order));
        assert_eq!(end(&record, NEVER).await, Reason::Killed);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_schedule_that_is_lifted_ends_nothing() {
        let record = record();
        let soon = Verdict { at: Clock::now().after(Duration::from_secs(5)), reason: Reason::Schedule };
        record.schedule(Some(soon));
        let later = Timeouts { idle: Some(Duration::from_secs(6)), ..NEVER };
        let mut ending = pin!(end(&record, later));
        assert!(poll_fn(|cx| Poll::Ready(ending.as_mut().poll(cx).is_pending())).await);
        record.schedule(None);
        assert_eq!(ending.await, Reason::Idle);
    }

    #[tokio::test]
    async fn bytes_that_move_put_idleness_off() {
        let record = record();
        let timeouts = Timeouts { idle: Some(Duration::from_secs(2)), ..NEVER };
        let mut ending = pin!(end(&record, timeouts));
        let started = Clock::now();
        assert!(poll_fn(|cx| Poll::Ready(ending.as_mut().poll(cx).is_pending())).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
        record.moved(true, 1);
        assert_eq!(ending.await, Reason::Idle);
        // The kernel's coarse clock is up to 10 ms behind.
        assert!(Clock::now().since(started) >= Duration::from_millis(2_085));
    }
}
