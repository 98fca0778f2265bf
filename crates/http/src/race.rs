//! Tries that do not have all the time of their request: one that takes too long is given up, or a second
//! endpoint is asked too, and the first good answer wins.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose, format_duration};
use tieline_conn::Connection;
use tieline_pool::{Ask, Lease, Reuse};
use tokio::time::Sleep;

use crate::attempt::{Attempt, Near, Upstream, Waiting, Way};
use crate::buffer::Buffer;
use crate::client::Client;
use crate::ending::in_time;
use crate::heard::Heard;
use crate::plan::Plan;
use crate::story::Story;
use crate::tries::{self, Tries, is_gateway_failure};

type Answered = Result<Heard, Fault>;

/// As [`attempt::first_answer`](crate::attempt::first_answer), within the try's own time. What has answered
/// is in `attempt` afterwards.
pub(crate) async fn first_answer(
    client: &mut Client,
    input: &mut Buffer,
    attempt: &mut Attempt,
    tries: &mut Tries<'_>,
    plan: &Plan,
    story: &mut Story,
    way: Way<'_>,
) -> Answered {
    let began = Clock::now();
    let Client { connection, io, watch, .. } = client;
    let connection = &*connection;
    connection.expect(way.http.settings.body_gap, Reason::TimeoutBodyGap);
    let near = Near { connection, io, watch, input, expected: way.http.of_body(story) };
    let after = way.route.upstream.as_ref().and_then(|upstream| upstream.hedge_after(began));
    let mut race = Race {
        way,
        plan,
        near,
        began,
        first: Waiting::default(),
        fell: None,
        second: Second::None,
        give_up: tries.per_try().map(timer),
        hedge: after.filter(|_| way.target.retry.hedged).map(timer),
    };
    let answer = poll_fn(|cx| race.poll(attempt, tries, cx));
    let answered = in_time(connection, Stage::Relay, Whose::Upstream, answer).await;
    race.tell(attempt, story);
    answered
}

fn timer(after: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(after))
}

struct Race<'r, 'w> {
    way: Way<'w>,
    plan: &'r Plan,
    near: Near<'r>,
    began: Moment,
    first: Waiting,
    /// How the first one fell out, while the second still runs.
    fell: Option<Answered>,
    second: Second<'w>,
    /// When the first one is given up.
    give_up: Option<Pin<Box<Sleep>>>,
    /// When the second one is asked.
    hedge: Option<Pin<Box<Sleep>>>,
}

enum Second<'w> {
    None,
    Acquiring(Pin<Box<dyn Future<Output = Result<Lease, Fault>> + 'w>>),
    Asked(Box<(Attempt, Waiting)>),
    /// It brought nothing.
    Fell,
    /// It has answered, after so long.
    Won(Duration),
}

impl Race<'_, '_> {
    fn poll(&mut self, attempt: &mut Attempt, tries: &mut Tries<'_>, cx: &mut Context<'_>) -> Poll<Answered> {
        if self.fell.is_none()
            && let Poll::Ready(answered) =
                self.first.poll(&mut self.near, attempt, self.plan, self.way.target, cx)
        {
            if !self.second.runs() || wins(&answered) || is_clients(&answered) {
                return Poll::Ready(answered);
            }
            self.fell = Some(answered);
        }
        if let Poll::Ready(won) = self.poll_second(attempt, cx) {
            return Poll::Ready(won);
        }
        if !self.second.runs()
            && let Some(answered) = self.fell.take()
        {
            return Poll::Ready(answered);
        }
        self.poll_timers(attempt, tries, cx)
    }

    /// Ready when the second one has won; it is in `attempt` then.
    fn poll_second(&mut self, attempt: &mut Attempt, cx: &mut Context<'_>) -> Poll<Answered> {
        if let Second::Acquiring(acquiring) = &mut self.second
            && let Poll::Ready(leased) = acquiring.as_mut().poll(cx)
        {
            self.second = match (leased, attempt.up.twin()) {
                (Ok(lease), Some(up)) => {
                    let second = Attempt { upstream: Upstream::from(lease), up, output: Buffer::roomy() };
                    Second::Asked(Box::new((second, Waiting::second())))
                }
                _ => Second::Fell,
            };
        }
        let Second::Asked(second) = &mut self.second else { return Poll::Pending };
        let (other, waiting) = &mut **second;
        match waiting.poll(&mut self.near, other, self.plan, self.way.target, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(answered) if wins(&answered) => {
                let took = Clock::now().since(self.began);
                if let Second::Asked(second) = std::mem::replace(&mut self.second, Second::Won(took)) {
                    let (other, waiting) = *second;
                    let loser = std::mem::replace(attempt, other);
                    let (now, asked_at) = (Clock::now(), self.first.sent.unwrap_or(self.began));
                    match self.fell.take() {
                        Some(fell) => blame(&loser.upstream, &fell, asked_at, now),
                        None => loser.upstream.loan.given_up(self.began, now),
                    }
                    self.first = waiting;
                }
                Poll::Ready(answered)
            }
            Poll::Ready(answered) => {
                blame(&other.upstream, &answered, waiting.sent.unwrap_or(self.began), Clock::now());
                self.second = Second::Fell;
                Poll::Pending
            }
        }
    }

    fn poll_timers(
        &mut self,
        attempt: &Attempt,
        tries: &mut Tries<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Answered> {
        if rings(&mut self.hedge, cx) && tries.may_hedge(attempt, Clock::now()) {
            self.second = ask_second(self.way, attempt, tries);
            // It has a first turn at once.
            cx.waker().wake_by_ref();
        }
        // The bell is not listened to while the second runs: should that fall out, it rings then.
        if !self.second.runs() && rings(&mut self.give_up, cx) && tries.may_give_up(attempt, Clock::now()) {
            let fault = Fault::new(Stage::Relay, Whose::Upstream, Reason::TimeoutFirstByte);
            return Poll::Ready(Err(fault.because("no answer within `retry.per_try`")));
        }
        Poll::Pending
    }

    /// Puts what came of it into the story.
    fn tell(self, attempt: &Attempt, story: &mut Story) {
        story.sent = self.first.sent.or(story.sent);
        let connection: &Connection = self.near.connection;
        match self.second {
            Second::None => {}
            Second::Won(took) => {
                if let Some(upstream) = &self.way.route.upstream {
                    upstream.hedge_won();
                }
                let endpoint = attempt.upstream.loan.endpoint();
                let note = format!(
                    "a second endpoint, {}, was asked too and answered first, after {}",
                    endpoint.label(),
                    format_duration(took)
                );
                story.notes.push(note.into());
                let why = || -> Box<dyn std::fmt::Display + Send + Sync> { Box::new("it answered first") };
                connection.record().set_endpoint(endpoint.label_ref(), why);
            }
            Second::Acquiring(_) | Second::Asked(_) | Second::Fell => {
                story.notes.push("a second endpoint was asked too, in vain".into());
            }
        }
    }
}

fn ask_second<'w>(way: Way<'w>, attempt: &Attempt, tries: &Tries<'_>) -> Second<'w> {
    let Way { permit, route, ask, .. } = way;
    let Some(upstream) = &route.upstream else { return Second::Fell };
    let ask = Ask { reuse: Reuse::Any, tried: tries.with(attempt), ..*ask };
    Second::Acquiring(Box::pin(async move { upstream.lease(permit, ask, &mut |_| ()).await }))
}

impl Second<'_> {
    fn runs(&self) -> bool {
        matches!(self, Second::Acquiring(_) | Second::Asked(_))
    }
}

/// Counts against its endpoint what did not win because it failed. That a connection at rest was closed as it
/// was taken is nobody's failure.
fn blame(upstream: &Upstream, answered: &Answered, asked_at: Moment, now: Moment) {
    match answered {
        Ok(Heard::Final(answer)) => tries::report(&upstream.loan, answer, asked_at, now),
        Err(fault) if fault.whose == Whose::Upstream && !(fault.retry && upstream.reused) => {
            upstream.loan.upstream_failed(fault);
        }
        Ok(Heard::Interim(_)) | Err(_) => {}
    }
}

/// Whether it is over; once.
fn rings(timer: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> bool {
    let over = timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
    if over {
        *timer = None;
    }
    over
}

/// Whether there is no need to wait for the other one.
fn wins(answered: &Answered) -> bool {
    match answered {
        Ok(Heard::Final(answer)) => !is_gateway_failure(answer.status),
        Ok(Heard::Interim(_)) => true,
        Err(_) => false,
    }
}

/// Whether the client itself has failed: then nobody's answer is wanted.
fn is_clients(answered: &Answered) -> bool {
    answered.as_ref().is_err_and(|fault| fault.whose == Whose::Client)
}
