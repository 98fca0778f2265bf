//! From a request to the head of its answer: an upstream connection is found, the request is sent, and where
//! that fails without harm it is done once more. When that is so, [`Tries`] knows.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose};
use tieline_conn::{Connection, Route};
use tieline_policy::Permit;
use tieline_pool::{Ask, Lease, Loan, Making, Reuse};
use tieline_transport::{Io, Watch};
use tieline_wire::http1::{HeadScan, RequestBody};

use crate::Http;
use crate::buffer::Buffer;
use crate::client::Client;
use crate::ending::in_time;
use crate::exchange::{client_gone, wrong};
use crate::heard::{ANSWER_LIMITS, Heard, Standing, hear};
use crate::outward::Broken;
use crate::patience::{Expected, Sending};
use crate::plan::{self, Plan};
use crate::race;
use crate::site::Target;
use crate::source::Source;
use crate::spare;
use crate::story::Story;
use crate::transfer::{Break, Transfer};
use crate::tries::Tries;

/// What holds for the whole of an exchange that is forwarded.
#[derive(Clone, Copy)]
pub(crate) struct Way<'w> {
    pub(crate) target: &'w Target,
    pub(crate) route: &'w Route,
    pub(crate) permit: &'w Permit,
    pub(crate) http: &'w Http,
    /// What is wanted of an upstream connection, but for what each try says of its use.
    pub(crate) ask: &'w Ask,
}

/// A request on its way to one endpoint, and what came back.
pub(crate) struct Attempt {
    pub(crate) upstream: Upstream,
    /// What is left of the request.
    pub(crate) up: Transfer,
    /// What came behind what was heard.
    pub(crate) output: Buffer,
}

/// The upstream's side of an exchange.
pub(crate) struct Upstream {
    pub(crate) io: Io,
    pub(crate) loan: Loan,
    pub(crate) making: Making,
    pub(crate) reused: bool,
}

impl From<Lease> for Upstream {
    fn from(lease: Lease) -> Self {
        let reused = lease.is_reused();
        let (io, loan, making) = lease.into_parts();
        Self { io, loan, making, reused }
    }
}

/// Has the request answered: by the first endpoint that is chosen, and where that does no harm by another.
/// The attempt whose answer was heard goes to `made`.
pub(crate) async fn answer(
    client: &mut Client,
    input: &mut Buffer,
    story: &mut Story,
    plan: &mut Plan,
    way: Way<'_>,
    started: Moment,
    made: &mut Option<Attempt>,
) -> Result<Heard, Fault> {
    let mut tries = Tries::begin(plan, way);
    let reuse = match plan.kind.upgrade {
        true => Reuse::Switching,
        false if plan.idempotent => Reuse::Any,
        false => Reuse::Young,
    };
    let upstream = Upstream::from(acquire(client, way, &tries, reuse, story, started).await?);
    let chunked = matches!(plan.body, RequestBody::Chunked);
    let held = plan.held.take();
    let source = if held.is_some() { Source::Nothing } else { plan.body.into() };
    if let Some(copy) = plan.copy.take_if(|_| matches!(plan.body, RequestBody::None)) {
        copy.send(&client.connection, Some(b""), plan.body);
    }
    let up = Transfer::new(std::mem::take(&mut plan.head), source, chunked, true);
    let Attempt { up, .. } = made.insert(Attempt { upstream, up, output: Buffer::roomy() });
    up.limit(way.http.settings.body);
    if let Some(bandwidth) = &way.route.bandwidth {
        up.throttle(bandwidth.up(plan.client));
    }
    if plan.copy.is_some() {
        up.tap();
    }
    if let Some(held) = held {
        up.begin_with(*held);
    }
    up.hold(tries.holds());
    loop {
        let attempt = made.as_mut().expect("one is made before each turn");
        let answered = if way.target.retry.is_timed() {
            // Boxed, so that the usual request does not pay for the room that two of them take.
            Box::pin(race::first_answer(client, input, attempt, &mut tries, plan, story, way)).await
        } else {
            first_answer(client, input, attempt, plan, story, way).await
        };
        let (reuse, unwanted) = match answered {
            Ok(heard) => match tries.after_answer(attempt, &heard, story) {
                None => {
                    if let Some(copy) = plan.copy.take() {
                        copy.send(&client.connection, attempt.up.tapped(), plan.body);
                    }
                    return Ok(heard);
                }
                Some(reuse) => (reuse, Some(heard)),
            },
            Err(fault) => (tries.after_fault(attempt, fault, story)?, None),
        };
        let Attempt { upstream, up, output } = made.take().expect("one is made before each turn");
        // Its place must be free before another one is waited for.
        spare::let_go(upstream, output, unwanted).await;
        let upstream = acquire(client, way, &tries, reuse, story, Clock::now()).await?.into();
        *made = Some(Attempt { upstream, up, output: Buffer::roomy() });
    }
}

async fn acquire(
    client: &Client,
    way: Way<'_>,
    tries: &Tries<'_>,
    reuse: Reuse,
    story: &mut Story,
    started: Moment,
) -> Result<Lease, Fault> {
    story.acquiring.get_or_insert(started);
    // Waiting for an upstream has its own limits.
    client.connection.record().expect(Duration::MAX, Reason::Idle);
    let ask = Ask { reuse, tried: tries.tried(), ..*way.ask };
    let lease = client.connection.acquire(way.route, way.permit, ask, &client.io, started).await?;
    story.acquired = Some(lease.connected_at());
    client.connection.record().enter(Stage::Relay, lease.connected_at());
    Ok(lease)
}

/// Sends the request, and reads until the head of an answer is there. The answer may come before the request
/// is sent whole.
pub(crate) async fn first_answer(
    client: &mut Client,
    input: &mut Buffer,
    attempt: &mut Attempt,
    plan: &Plan,
    story: &mut Story,
    way: Way<'_>,
) -> Result<Heard, Fault> {
    let Client { connection, io, watch, .. } = client;
    let connection = &*connection;
    connection.expect_from(
        story.acquired.unwrap_or(story.began),
        way.http.settings.body_gap,
        Reason::TimeoutBodyGap,
    );
    let mut waiting = Waiting::default();
    let mut near = Near { connection, io, watch, input, expected: way.http.of_body(story) };
    let answer = poll_fn(|cx| waiting.poll(&mut near, attempt, plan, way.target, cx));
    let answered = in_time(connection, Stage::Relay, Whose::Upstream, answer).await;
    story.sent = waiting.sent.or(story.sent);
    answered
}

/// The client's side of an exchange.
pub(crate) struct Near<'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) io: &'c mut Io,
    pub(crate) watch: &'c mut Watch,
    pub(crate) input: &'c mut Buffer,
    /// What is expected of it while it sends.
    pub(crate) expected: Expected,
}

/// An answer that is waited for, and how far the request is.
#[derive(Default)]
pub(crate) struct Waiting {
    scan: HeadScan,
    /// When the whole request was sent.
    pub(crate) sent: Option<Moment>,
    /// Why the endpoint does not listen any more.
    refused: Option<io::Error>,
    /// Another one has the client's patience.
    second: bool,
    patience: Sending,
}

impl Waiting {
    /// One beside another.
    pub(crate) fn second() -> Self {
        Waiting { second: true, ..Waiting::default() }
    }

    /// Sends what can be sent, and reads what there is to read.
    pub(crate) fn poll(
        &mut self,
        near: &mut Near<'_>,
        attempt: &mut Attempt,
        plan: &Plan,
        target: &Target,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Heard, Fault>> {
        if self.sent.is_none()
            && let Poll::Ready(sent) = self.send(near, attempt, target, cx)
        {
            sent?;
        }
        let Attempt { upstream, up, output } = attempt;
        loop {
            let began = !output.is_empty();
            // Behind an interim answer the next one may be there already.
            if began {
                let standing = Standing { sent: up.is_over(), leaving: near.connection.is_leaving() };
                let from = upstream.loan.endpoint();
                if let Some(heard) = hear(plan, target, from, output, &mut self.scan, standing)? {
                    return Poll::Ready(Ok(heard));
                }
            }
            match output.poll_fill(&mut upstream.io, ANSWER_LIMITS.head, cx) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(Ok(_)) => {
                    let error = self.refused.take().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    return Poll::Ready(Err(upstream_gone(error, began)));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(upstream_gone(error, began))),
                Poll::Pending if self.sent.is_none() || self.second => return Poll::Pending,
                // Nobody reads the client now: if it is gone, its answer is wanted by nobody.
                Poll::Pending => {
                    let gone = near.io.poll_broken(near.watch, cx);
                    return gone.map_or(Poll::Pending, |error| Poll::Ready(Err(client_gone(error))));
                }
            }
        }
    }

    fn send(
        &mut self,
        near: &mut Near<'_>,
        Attempt { upstream, up, .. }: &mut Attempt,
        target: &Target,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        let record = near.connection.record();
        let moved = |count| record.moved(true, count as u64);
        let Poll::Ready(sent) = up.poll(near.io, near.input, &mut upstream.io, moved, cx) else {
            if self.second {
                return Poll::Pending;
            }
            return self.patience.wait(near.connection, up, near.expected, target.gap);
        };
        let now = Clock::now();
        self.sent = Some(now);
        if !self.second {
            near.connection.expect_from(now, target.first_byte, Reason::TimeoutFirstByte);
        }
        Poll::Ready(match sent {
            Ok(()) => Ok(()),
            // It may have answered before it stopped listening.
            Err(Break::Receiver(error)) => {
                self.refused = Some(error);
                Ok(())
            }
            Err(Break::Sender(error)) => Err(client_gone(error)),
            Err(Break::Framing(error)) => Err(plan::unreadable(error)),
            Err(Break::TooLarge) => Err(plan::too_large()),
        })
    }
}

/// An upstream that broke before its answer began may not have seen the request.
pub(crate) fn upstream_gone(error: io::Error, began: bool) -> Fault {
    match Broken::within(&error).map(|_| error.kind()) {
        // What an endpoint of HTTP/2 sent is against the rules, or it cannot do what is asked.
        Some(io::ErrorKind::InvalidData | io::ErrorKind::Unsupported) => return wrong(error),
        // HTTP/2 cannot carry the request.
        Some(io::ErrorKind::InvalidInput) => {
            return Fault::new(Stage::Relay, Whose::Client, Reason::ProtocolError).because(error);
        }
        _ => {}
    }
    let fault = Fault::new(Stage::Relay, Whose::Upstream, Reason::UpstreamReset).because(error);
    if began { fault } else { fault.retryable() }
}
