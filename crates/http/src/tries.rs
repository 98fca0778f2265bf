//! Whether a request that failed is asked once more, and of whom; and what is told of how an endpoint did.
//!
//! Three things must hold before a request is sent again. It does no harm: nothing of it was sent, or doing
//! it twice is as doing it once (RFC 9110 §9.2.2). It can be: all of it is still here. And it may be: the
//! config says so for what happened, attempts and the retry budget are left, there is another endpoint, and
//! the request is not itself another Tieline's second attempt.

use std::io;
use std::time::Duration;

use tieline_base::{Clock, Fault, Moment, Reason, Whose, format_duration};
use tieline_pool::{Loan, Reuse, Tried};
use tieline_wire::http1::Response;

use crate::attempt::{Attempt, Way};
use crate::heard::{Final, Heard};
use crate::outward::Broken;
use crate::plan::Plan;
use crate::story::Story;

/// When a request is sent to another endpoint, as the config has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Retry {
    /// How many more endpoints may be asked.
    pub attempts: u32,
    /// After a connection that broke before its answer began.
    pub on_reset: bool,
    /// After no byte of an answer came in time.
    pub on_timeout: bool,
    /// After answers with these statuses.
    pub on_status: Vec<u16>,
    /// A try that has brought nothing for so long is given up for another.
    pub per_try: Option<Duration>,
    /// Whether a second endpoint may be asked while the first one still has time.
    pub hedged: bool,
}

impl Retry {
    /// Whether a try may end before the request's time is over.
    pub(crate) fn is_timed(&self) -> bool {
        self.per_try.is_some() || self.hedged
    }
}

/// How much of a request is kept to be sent again, in bytes.
const HELD_MAX: usize = 64 * 1024;

/// The tries of one request.
pub(crate) struct Tries<'w> {
    way: Way<'w>,
    /// How long its head is.
    head: usize,
    /// Whether doing it twice does no harm.
    idempotent: bool,
    /// Another Tieline has tried it already, elsewhere.
    retried_before: bool,
    tried: Tried,
    /// How often an endpoint has said that it did not take it.
    refused: u32,
    /// The next try is paid for.
    paid: bool,
    /// How long the line is that marks the last try.
    marked: usize,
}

/// What went wrong with a try.
enum Failed {
    Fault(Fault),
    /// It answered with this.
    Status(u16),
}

impl<'w> Tries<'w> {
    pub(crate) fn begin(plan: &Plan, way: Way<'w>) -> Self {
        let (head, idempotent) = (plan.head.len(), plan.idempotent);
        let (tried, retried_before) = (Tried::default(), plan.retried_before);
        Tries { way, head, idempotent, retried_before, tried, refused: 0, paid: false, marked: 0 }
    }

    /// The endpoints that have failed it.
    pub(crate) fn tried(&self) -> Tried {
        self.tried
    }

    /// How much of it is worth keeping.
    pub(crate) fn holds(&self) -> usize {
        let may = self.idempotent && !self.retried_before && self.way.target.retry.attempts > 0;
        if may { HELD_MAX } else { 0 }
    }

    /// For how long the try that begins now may be silent, if another may follow.
    pub(crate) fn per_try(&self) -> Option<Duration> {
        self.way.target.retry.per_try.filter(|_| self.tried.count() < self.attempts())
    }

    /// What becomes of a try whose answer has begun: with which reuse it is made once more, if it is.
    pub(crate) fn after_answer(
        &mut self,
        attempt: &mut Attempt,
        heard: &Heard,
        story: &mut Story,
    ) -> Option<Reuse> {
        let listed = &self.way.target.retry.on_status;
        let Heard::Final(answer) = heard else { return None };
        if !listed.contains(&answer.status) || !self.idempotent {
            return None;
        }
        let now = Clock::now();
        if !self.is_granted(attempt, now) {
            return None;
        }
        report(&attempt.upstream.loan, answer, story.sent.unwrap_or(now), now);
        self.go_on(attempt, &Failed::Status(answer.status), story, now);
        Some(Reuse::Any)
    }

    /// What becomes of a try that failed: with which reuse it is made once more.
    ///
    /// # Errors
    /// It is not; then the endpoint's part in it is told.
    pub(crate) fn after_fault(
        &mut self,
        attempt: &mut Attempt,
        fault: Fault,
        story: &mut Story,
    ) -> Result<Reuse, Fault> {
        let harmless = self.idempotent || attempt.up.is_unsent();
        // The endpoint closed a connection at rest as we chose it: it has seen nothing, or it does no harm to
        // ask once more. That is no failure of its own, and costs nothing of the budget.
        if fault.retry && attempt.upstream.reused && harmless && attempt.up.rewind() {
            story.notes.push("the connection at rest was closed as it was taken; asked once more".into());
            return Ok(Reuse::Never);
        }
        // The endpoint has promised that it did nothing (RFC 9113 §8.7).
        if fault.retry && is_unprocessed(&fault) && self.refused < REFUSALS_MAX && attempt.up.rewind() {
            self.refused += 1;
            let note = format!("the endpoint did not take the request ({}); asked once more", why(&fault));
            story.notes.push(note.into());
            return Ok(Reuse::Never);
        }
        // A client that leaves, or stops to send, is not the endpoint's failure.
        if fault.whose == Whose::Upstream && fault.reason != Reason::TimeoutBodyGap {
            attempt.upstream.loan.upstream_failed(&fault);
        }
        let retry = &self.way.target.retry;
        let listed = match fault.reason {
            Reason::UpstreamReset => fault.retry && retry.on_reset,
            Reason::TimeoutFirstByte => retry.on_timeout || self.paid,
            _ => false,
        };
        let now = Clock::now();
        if !listed || !harmless || !self.is_granted(attempt, now) {
            return Err(fault);
        }
        self.go_on(attempt, &Failed::Fault(fault), story, now);
        Ok(if self.idempotent { Reuse::Any } else { Reuse::Young })
    }

    /// Whether the try may be given up for another one, now; it is paid for then.
    pub(crate) fn may_give_up(&mut self, attempt: &Attempt, now: Moment) -> bool {
        self.paid = self.idempotent && attempt.up.keeps_all() && self.pays(attempt, now);
        self.paid
    }

    /// Whether a second endpoint may be asked too, now; it is paid for then.
    pub(crate) fn may_hedge(&self, attempt: &Attempt, now: Moment) -> bool {
        let Some(upstream) = &self.way.route.upstream else { return false };
        let may = self.idempotent && !self.retried_before && attempt.up.is_whole();
        may && upstream.grants_hedge(&self.with(attempt), now)
    }

    /// The endpoints that have failed it, and the one that is asked now.
    pub(crate) fn with(&self, attempt: &Attempt) -> Tried {
        let mut tried = self.tried;
        tried.add(attempt.upstream.loan.endpoint());
        tried
    }

    fn attempts(&self) -> u32 {
        if self.retried_before { 0 } else { self.way.target.retry.attempts }
    }

    /// Whether another try is paid for; the request is ready to be sent again then.
    fn is_granted(&mut self, attempt: &mut Attempt, now: Moment) -> bool {
        if !attempt.up.keeps_all() {
            return false;
        }
        let granted = std::mem::take(&mut self.paid) || self.pays(attempt, now);
        granted && attempt.up.rewind()
    }

    fn pays(&self, attempt: &Attempt, now: Moment) -> bool {
        let Some(upstream) = &self.way.route.upstream else { return false };
        self.tried.count() < self.attempts() && upstream.grants_retry(&self.with(attempt), now)
    }

    /// Gets the request ready for the next endpoint.
    fn go_on(&mut self, attempt: &mut Attempt, failed: &Failed, story: &mut Story, now: Moment) {
        let endpoint = attempt.upstream.loan.endpoint();
        self.tried.add(endpoint);
        let took = format_duration(now.since(story.acquired.unwrap_or(now)));
        let what = match failed {
            Failed::Status(status) => format!("answered {status}"),
            Failed::Fault(fault) => fault.reason.to_string(),
        };
        let note = format!("try {} at {}: {what} after {took}", self.tried.count(), endpoint.label());
        story.notes.push(note.into());
        let field = mark(self.tried.count() + 1);
        attempt.up.remark(self.head, self.marked, field.as_bytes());
        self.marked = field.len();
        story.sent = None;
    }
}

/// Marks what is no first attempt, for a Tieline behind this one: it must not try again what is tried again.
fn mark(attempt: u32) -> String {
    format!("Tieline-Attempt: {attempt}\r\n")
}

/// Tells the pool how an endpoint did that has answered.
pub(crate) fn report(loan: &Loan, answer: &Final, asked_at: Moment, now: Moment) {
    if is_gateway_failure(answer.status) {
        loan.turned_away(asked_at, now, answer.retry_after, &format!("answered {}", answer.status));
    } else {
        loan.first_byte(asked_at, now);
    }
}

/// For how long an endpoint that cannot serve asks for patience (RFC 9110 §10.2.3; a date says less than we
/// need to know, and is not looked at).
pub(crate) fn retry_after(answer: &Response<'_, '_>) -> Option<Duration> {
    if !is_gateway_failure(answer.status) {
        return None;
    }
    let seconds = std::str::from_utf8(answer.fields.get("retry-after")?).ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// Whether it says that who answers cannot serve, rather than that what was asked cannot be done.
pub(crate) fn is_gateway_failure(status: u16) -> bool {
    matches!(status, 502..=504)
}

/// How often a request is sent again that an endpoint did not take.
const REFUSALS_MAX: u32 = 2;

fn is_unprocessed(fault: &Fault) -> bool {
    let source = fault.source.as_ref().and_then(|source| source.downcast_ref::<io::Error>());
    source.and_then(Broken::within).is_some_and(|broken| broken.unprocessed)
}

fn why(fault: &Fault) -> String {
    fault.source.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gateways_fail_as_gateways_do() {
        let failures: Vec<u16> = (100..600).filter(|status| is_gateway_failure(*status)).collect();
        assert_eq!(failures, [502, 503, 504], "500 is an answer");
    }
}
