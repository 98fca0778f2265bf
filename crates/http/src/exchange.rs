//! One exchange, from the first byte of a request to the last of its answer. Read it downwards; how its
//! answer comes about is in `attempt.rs`.

use std::future::{Future, poll_fn};
use std::io;
use std::task::{Poll, ready};

use tieline_base::{Clock, Fault, Reason, Stage, Whose};
use tieline_pool::{Ask, Loan};
use tieline_transport::Io;
use tieline_wire::http1::{HeadScan, Version};

use crate::Http;
use crate::attempt::{self, Answering, Attempt, Way, first_answer, upstream_gone};
use crate::buffer::Buffer;
use crate::client::{Client, Tunnel, Turn};
use crate::ending::{in_time, linger, tell, write_all};
use crate::forward::{Stay, Told};
use crate::front::Http2Front;
use crate::guard;
use crate::heard::{Final, Heard};
use crate::local;
use crate::plan::{self, Plan};
use crate::site::Target;
use crate::story::{DONE, Story};
use crate::transfer::{Break, Transfer};
use crate::tries;

/// Serves the request whose first bytes are in `input`. A function that returns an async block: what it is
/// given is then held once, not twice.
#[allow(clippy::manual_async_fn)]
pub(crate) fn run(mut client: Client, mut input: Buffer) -> impl Future<Output = Turn> {
    async move {
        let mut story = Story::begin(&client.connection);
        let done = serve(&mut client, &mut input, &mut story).await;
        let outcome = match done {
            Ok(After::Next) => {
                story.end(&client.connection, &Ok(DONE));
                return Turn::Next(client, input);
            }
            Ok(After::Tunnel { upstream, loan, slot }) => {
                story.end(&client.connection, &Ok(DONE));
                return Turn::Tunnel(Tunnel::new(client, upstream, (loan, slot), input.bytes().to_vec()));
            }
            Ok(After::Refused(fault)) => {
                story.end(&client.connection, &Err(fault));
                return Turn::Next(client, input);
            }
            Ok(After::Http2(how)) => return Turn::Http2(client, input, how),
            Ok(After::Close) => Ok(DONE),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = &outcome {
            if fault.whose == Whose::Client && fault.reason == Reason::ClientReset {
                // Nobody listens.
            } else if !story.is_answered() {
                tell(&mut client, &mut story, fault, true).await;
            } else {
                // What was cut short must not look whole.
                client.io.abort_on_close();
            }
        }
        story.end(&client.connection, &outcome);
        Turn::End(match outcome {
            // All was said to a stream with its last byte.
            Ok(reason) if client.connection.is_inside() => Ok(reason),
            Ok(_) => linger(&mut client, &mut input).await,
            Err(fault) => {
                if fault.reason != Reason::ClientReset {
                    let _ = linger(&mut client, &mut input).await;
                }
                Err(fault)
            }
        })
    }
}

/// What comes after an exchange that went well.
enum After {
    Next,
    Close,
    /// It was refused and told so, and the next one may come.
    Refused(Fault),
    Tunnel {
        upstream: Io,
        loan: Loan,
        slot: Option<guard::Slot>,
    },
    Http2(Http2Front),
}

async fn serve(client: &mut Client, input: &mut Buffer, story: &mut Story) -> Result<After, Fault> {
    // settle: the head, whole; route: parsed once, for everything that follows
    let http = client.http()?;
    let (mut plan, length) = match plan::at_once(client, &http, input.bytes(), story)? {
        Some(planned) => planned,
        None => {
            let length = head(client, &http, input).await?;
            match plan::make(client, &http, &input.bytes()[..length], story) {
                Ok(plan) => (plan, length),
                Err(fault) => {
                    let http2 = client.turns_out(&http, input.bytes(), length);
                    return http2.map(After::Http2).ok_or(fault);
                }
            }
        }
    };
    client.connection.record().moved(true, length as u64);
    input.consume(length);
    // authorize
    let started = Clock::now();
    story.routed = plan.target.is_some();
    let route = plan.target.as_ref().map(|target| target.route.clone());
    let (route, permit) = client.connection.decide(route, plan.client, started)?;
    let Some(target) = plan.target.clone() else { return Err(plan::no_route()) };
    plan.fits(&http)?;
    if let Err(fault) = guard::pass(client, input, story, &mut plan, &target, &http).await {
        return refuse(client, story, &plan, fault).await;
    }
    let Some(answer) = local::answer(&target.action, &plan, story) else {
        // acquire, and relay as far as the answer's head
        let priority = plan.priority.map_or(route.priority, |wanted| wanted.max(route.priority));
        let ask = Ask { priority, user: Ask::user_of(plan.client), ..plan.ask() };
        let way = Way { target: &target, route: &route, permit: &permit, http: &http, ask };
        let answering = match attempt::answer(client, input, story, &mut plan, way, started).await {
            Ok(answering) => answering,
            // Nothing went to anybody: the next request may come over the same connection.
            Err(fault) if fault.stage == Stage::Acquire && fault.whose != Whose::Client => {
                return refuse(client, story, &plan, fault).await;
            }
            Err(fault) => return Err(fault),
        };
        // relay: the rest
        return finish(client, input, story, &mut plan, answering, way).await;
    };
    // ... or relay without an upstream: what the route itself answers
    reply(client, &http, &plan, story, answer).await
}

/// Refuses a request without its connection, where nothing of it is left to come.
async fn refuse(client: &mut Client, story: &mut Story, plan: &Plan, fault: Fault) -> Result<After, Fault> {
    let refused = guard::is_refusal(&fault) || fault.stage == Stage::Acquire;
    let goes_on = refused && plan.stays_open() && plan.version == Version::Http11;
    if goes_on && tell(client, story, &fault, false).await { Ok(After::Refused(fault)) } else { Err(fault) }
}

/// Sends an answer of the route's own.
async fn reply(
    client: &mut Client,
    http: &Http,
    plan: &Plan,
    story: &mut Story,
    answer: local::Local,
) -> Result<After, Fault> {
    client.connection.record().enter(Stage::Relay, Clock::now());
    story.status = Some(answer.status);
    send_all(client, http, &answer.bytes).await?;
    client.connection.record().moved(false, answer.bytes.len() as u64);
    Ok(if plan.stays_open() { After::Next } else { After::Close })
}

async fn head(client: &mut Client, http: &Http, input: &mut Buffer) -> Result<usize, Fault> {
    let limits = &http.settings.limits;
    let mut scan = HeadScan::default();
    if let Some(length) = scan.find(input.bytes(), limits).map_err(plan::unreadable)? {
        return Ok(length);
    }
    let Client { connection, io, .. } = client;
    connection.expect(http.settings.request_head, Reason::TimeoutRequestHead);
    let read = poll_fn(|cx| {
        loop {
            let count = ready!(input.poll_fill(io, limits.head, cx)).map_err(client_gone)?;
            if count == 0 {
                return Poll::Ready(Err(client_gone(io::ErrorKind::UnexpectedEof.into())));
            }
            if let Some(length) = scan.find(input.bytes(), limits).map_err(plan::unreadable)? {
                return Poll::Ready(Ok(length));
            }
        }
    });
    in_time(connection, Stage::Settle, Whose::Client, read).await
}

/// Interim answers that an exchange may have.
const INTERIM_MAX: u32 = 8;

/// Passes the answer on, and what is left of the request.
async fn finish(
    client: &mut Client,
    input: &mut Buffer,
    story: &mut Story,
    plan: &mut Plan,
    answering: Answering,
    way: Way<'_>,
) -> Result<After, Fault> {
    let Answering { mut attempt, mut heard } = answering;
    let now = Clock::now();
    story.answered = Some(now);
    for _ in 0..=INTERIM_MAX {
        match heard {
            Heard::Interim(head) => {
                send_all(client, way.http, &head).await?;
                client.connection.record().moved(false, head.len() as u64);
                heard = first_answer(client, input, &mut attempt, plan, story, way).await?;
            }
            Heard::Final(mut answer) => {
                story.status = Some(answer.status);
                tries::report(&attempt.upstream.loan, &answer, story.sent.unwrap_or(now), now);
                if answer.stay == Stay::Upgrade {
                    let Attempt { upstream, output, .. } = attempt;
                    answer.head.extend_from_slice(output.bytes());
                    send_all(client, way.http, &answer.head).await?;
                    client.connection.record().moved(false, answer.head.len() as u64);
                    client.connection.expect(way.http.settings.tunnel_idle, Reason::TimeoutTunnelIdle);
                    return Ok(After::Tunnel {
                        upstream: upstream.io,
                        loan: upstream.loan,
                        slot: plan.slot.take(),
                    });
                }
                return pass(client, input, attempt, answer, way.target).await;
            }
        }
    }
    Err(wrong("more interim answers than are allowed"))
}

/// Streams the answer to the client, and the rest of the request beside it, until the answer is whole.
async fn pass(
    client: &mut Client,
    input: &mut Buffer,
    attempt: Attempt,
    answer: Final,
    target: &Target,
) -> Result<After, Fault> {
    let Attempt { mut upstream, mut up, mut output } = attempt;
    let Final { head, source, told, stay, reusable, idle_allowed, trailers, .. } = answer;
    let head_length = head.len();
    let mut down = Transfer::new(head, source, told == Told::Chunked, trailers);
    let Client { connection, io, .. } = client;
    connection.expect(target.gap, Reason::TimeoutGap);
    let record = connection.record();
    record.moved(false, (head_length + output.bytes().len()) as u64);
    let mut sending = !up.is_over();
    let passed = poll_fn(|cx| {
        if sending {
            let sent = up.poll(io, input, &mut upstream.io, |count| record.moved(true, count as u64), cx);
            // However it ends: the answer is what counts now.
            sending = sent.is_pending();
        }
        let moved = |count| record.moved(false, count as u64);
        match ready!(down.poll(&mut upstream.io, &mut output, io, moved, cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Break::Sender(error)) => Poll::Ready(Err(upstream_gone(error, true))),
            Err(Break::Framing(error)) => Poll::Ready(Err(wrong_answer(error))),
            Err(Break::TooLarge) => Poll::Ready(Err(wrong("the answer is too large"))),
            Err(Break::Receiver(error)) => Poll::Ready(Err(client_gone(error))),
        }
    });
    let passed = in_time(connection, Stage::Relay, Whose::Upstream, passed).await;
    if let Err(fault) = passed {
        if fault.whose == Whose::Upstream {
            upstream.loan.upstream_failed(&fault);
        }
        return Err(fault);
    }
    // release: what is clean is used again; bytes behind the answer belong to nobody
    if let Some(allowed) = idle_allowed {
        upstream.loan.endpoint().allows_idle(allowed);
    }
    if reusable && !down.ended_by_close() && output.is_empty() {
        upstream.loan.park(upstream.io, upstream.making);
    }
    let leaving = connection.record().leaving().is_some();
    Ok(if stay == Stay::Close || leaving { After::Close } else { After::Next })
}

async fn send_all(client: &mut Client, http: &Http, bytes: &[u8]) -> Result<(), Fault> {
    let Client { connection, io, .. } = client;
    connection.expect(http.settings.body_gap, Reason::TimeoutGap);
    in_time(connection, Stage::Relay, Whose::Client, write_all(io, bytes)).await
}

pub(crate) fn client_gone(error: io::Error) -> Fault {
    Fault::new(Stage::Relay, Whose::Client, Reason::ClientReset).because(error)
}

pub(crate) fn wrong_answer(error: tieline_wire::http1::HttpError) -> Fault {
    wrong(error)
}

pub(crate) fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(Stage::Relay, Whose::Upstream, Reason::UpstreamProtocolError).because(error)
}
