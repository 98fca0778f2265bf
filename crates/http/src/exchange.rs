//! One exchange, from the first byte of a request to the last of its answer. Read it downwards; how its
//! answer comes about is in `attempt.rs`.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::task::{Poll, ready};

use tieline_base::{ClientAddr, Clock, Fault, Moment, Reason, Stage, Whose};
use tieline_conn::Outcome;
use tieline_pool::{Ask, Loan};
use tieline_transport::{Io, Throttles};
use tieline_wire::http1::{HeadScan, Version};

use crate::Http;
use crate::answer;
use crate::attempt::{self, Attempt, Upstream, Way, first_answer, upstream_gone};
use crate::buffer::Buffer;
use crate::client::{Client, Turn};
use crate::ending::{in_time, linger, tell, write_all};
use crate::forward::{Stay, Told};
use crate::front::{Http2Front, Unsayable};
use crate::guard;
use crate::heard::{Final, Heard};
use crate::local;
use crate::patience;
use crate::plan::{self, Plan};
use crate::source::Source;
use crate::story::{DONE, Story};
use crate::transfer::{Break, Transfer};
use crate::tries;
use crate::unwanted;

/// Serves the request whose first bytes are in `input`.
pub(crate) async fn run(client: &mut Client, input: &mut Buffer) -> Turn {
    let mut story = Story::begin(&client.connection);
    let outcome = match serve(client, input, &mut story).await {
        Ok(After::Next) => {
            return Turn::Next(story.end(&client.connection, &Ok(DONE)));
        }
        Ok(After::Tunnel { upstream, loan, slot, throttles }) => {
            story.end(&client.connection, &Ok(DONE));
            return Turn::Tunnel { upstream, held: (loan, slot), throttles };
        }
        Ok(After::Refused(fault)) => {
            return Turn::Next(story.end(&client.connection, &Err(fault)));
        }
        Ok(After::RefusedLast(fault)) => return Box::pin(close(client, input, story, fault)).await,
        Ok(After::Http2(how)) => return Turn::Http2(how),
        Ok(After::Close) => Ok(DONE),
        Err(fault) => Err(fault),
    };
    // What ends its connection is rare, and does not have to make the room of all others larger.
    Box::pin(end(client, input, story, outcome)).await
}

/// Ends the connection behind an exchange with this outcome.
async fn end(client: &mut Client, input: &mut Buffer, mut story: Story, outcome: Outcome) -> Turn {
    if let Err(fault) = &outcome {
        if fault.whose == Whose::Client && fault.reason == Reason::ClientReset {
            // Nobody listens.
        } else if !story.is_answered() {
            tell(client, &mut story, fault, true).await;
        } else {
            if unsayable(fault.source.as_deref().and_then(|source| source.downcast_ref())) {
                story.status = Some(answer::status(fault));
            }
            // What was cut short must not look whole: no end in order, for which alone some answers wait.
            client.io.abort_on_close();
            story.end(&client.connection, &outcome);
            return Turn::End(outcome);
        }
    }
    story.end(&client.connection, &outcome);
    Turn::End(match outcome {
        // All was said to a stream with its last byte.
        Ok(reason) if client.connection.is_inside() => Ok(reason),
        Ok(_) => linger(client, input).await,
        Err(fault) => {
            if fault.reason != Reason::ClientReset {
                let _ = linger(client, input).await;
            }
            Err(fault)
        }
    })
}

/// Ends the connection behind an exchange that was refused for `fault` and told so.
async fn close(client: &mut Client, input: &mut Buffer, story: Story, fault: Fault) -> Turn {
    let outcome = Err(fault);
    story.end(&client.connection, &outcome);
    let _ = linger(client, input).await;
    Turn::End(outcome)
}

/// What comes after an exchange that went well.
enum After {
    Next,
    Close,
    /// It was refused and told so, and the next one may come.
    Refused(Fault),
    /// It was refused and told so, but the rest of it did not come.
    RefusedLast(Fault),
    Tunnel {
        upstream: Io,
        loan: Loan,
        slot: Option<guard::Slot>,
        throttles: Throttles,
    },
    Http2(Http2Front),
}

async fn serve(client: &mut Client, input: &mut Buffer, story: &mut Story) -> Result<After, Fault> {
    // settle: the head, whole; route and authorize: parsed once, for everything that follows
    let http = client.http()?;
    client.prepare(&http);
    let (mut started, mut planned) = (story.began, None);
    let length = match plan::at_once(client, &http, input.bytes(), story, &mut planned)? {
        Some(length) => length,
        None => {
            let length = head(client, &http, input).await?;
            started = Clock::now();
            let head = &input.bytes()[..length];
            if let Err(fault) = plan::make(client, &http, head, story, started, &mut planned) {
                return client.turns_out(&http, input.bytes(), length).map(After::Http2).ok_or(fault);
            }
            length
        }
    };
    let plan = planned.as_mut().expect("whoever made none said why, and that was returned");
    client.connection.record().moved_by(true, length as u64, started);
    input.consume(length);
    plan.keep_alive &= !client.connection.is_leaving();
    let (target, permit) = match plan.way.take().expect("it is taken here alone") {
        Ok(way) => way,
        Err(fault) => return Box::pin(turn_away(client, &http, input, story, plan, fault)).await,
    };
    if target.rewrite.as_ref().is_some_and(|rewrite| !rewrite.response.is_empty()) {
        story.route = Some(target.clone());
    }
    plan.fits(&http)?;
    match guard::admit(plan, &target) {
        Ok(None) => {}
        Ok(Some(inspected)) => {
            // Boxed, as most have none and need no room for it.
            let passed = Box::pin(guard::pass(client, input, story, plan, &target, inspected, &http)).await;
            if let Err(fault) = passed {
                return refuse(client, story, plan, fault).await;
            }
            // It may have taken its time.
            started = Clock::now();
        }
        Err(fault) => return Box::pin(turn_away(client, &http, input, story, plan, fault)).await,
    }
    let Some(answer) = local::answer(&target, plan, story, client, input) else {
        // acquire, and relay as far as the answer's head; what is large stays where it was made
        let route = &*target.route;
        let priority = plan.priority.map_or(route.priority, |wanted| wanted.max(route.priority));
        let ask = Ask { priority, user: Ask::user_of(plan.client), ..plan.ask() };
        let way = Way { target: &target, route, permit: &permit, http: &http, ask: &ask };
        let mut attempt = None;
        let heard = match attempt::answer(client, input, story, plan, way, started, &mut attempt).await {
            Ok(heard) => heard,
            // Nothing went to anybody: the next request may come over the same connection.
            Err(fault) if fault.stage == Stage::Acquire && fault.whose != Whose::Client => {
                return refuse(client, story, plan, fault).await;
            }
            Err(fault) => return Err(fault),
        };
        // relay: the rest
        let begun = attempt.as_mut().expect("what was heard came of one");
        let passed = finish(client, input, story, plan, begun, heard, way).await?;
        let Some(Attempt { upstream, .. }) = attempt else { return Ok(After::Close) };
        return Ok(release(client, plan, upstream, way, passed));
    };
    // ... or relay without an upstream: what the route itself answers
    reply(client, &http, input, plan, story, answer).await
}

/// Refuses a request of which nobody has touched the body: where that is little, the connection goes on
/// behind it.
async fn turn_away(
    client: &mut Client,
    http: &Http,
    input: &mut Buffer,
    story: &mut Story,
    plan: &mut Plan,
    fault: Fault,
) -> Result<After, Fault> {
    // A stream has no next request.
    if client.connection.is_inside() {
        return refuse(client, story, plan, fault).await;
    }
    plan.pass_over(client, input);
    let goes_on = plan.stays_open() && plan.version == Version::Http11;
    if !goes_on || !tell(client, story, &fault, false).await {
        return Err(fault);
    }
    Ok(match unwanted::pass_over(client, http, input, plan).await {
        Ok(()) => After::Refused(fault),
        Err(_) => After::RefusedLast(fault),
    })
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
    input: &mut Buffer,
    plan: &Plan,
    story: &mut Story,
    answer: local::Local,
) -> Result<After, Fault> {
    client.connection.record().enter(Stage::Relay, Clock::now());
    story.status = Some(answer.status);
    send_all(client, http, &answer.bytes).await?;
    client.connection.record().moved(false, answer.bytes.len() as u64);
    let mut goes_on = plan.stays_open();
    if goes_on && plan.to_pass_over > 0 {
        goes_on = Box::pin(unwanted::pass_over(client, http, input, plan)).await.is_ok();
    }
    Ok(if goes_on { After::Next } else { After::Close })
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

/// An answer that was passed on.
enum Passed {
    /// To its end. `clean`: the upstream's connection owes nobody anything.
    Whole { clean: bool, closes: bool },
    /// Its head, behind which there is no HTTP any more.
    Upgrade,
}

/// Passes the answer on, and what is left of the request.
async fn finish(
    client: &mut Client,
    input: &mut Buffer,
    story: &mut Story,
    plan: &Plan,
    attempt: &mut Attempt,
    mut heard: Heard,
    way: Way<'_>,
) -> Result<Passed, Fault> {
    let mut now = Clock::now();
    story.answered = Some(now);
    for _ in 0..=INTERIM_MAX {
        match &mut heard {
            Heard::Interim(head) => {
                send_all(client, way.http, head).await?;
                client.connection.record().moved(false, head.len() as u64);
                heard = first_answer(client, input, attempt, plan, story, way).await?;
                now = Clock::now();
            }
            Heard::Final(answer) => {
                story.status = Some(answer.status);
                tries::report(
                    &attempt.upstream.loan,
                    answer,
                    story.sent.unwrap_or(now),
                    story.answered.unwrap_or(now),
                );
                if answer.stay == Stay::Upgrade {
                    return upgrade(client, attempt, answer, way).await.map(|()| Passed::Upgrade);
                }
                return pass(client, input, attempt, answer, plan.client, way, now).await;
            }
        }
    }
    Err(wrong("more interim answers than are allowed"))
}

/// Passes on the head behind which bytes are no HTTP, and those that came with it.
async fn upgrade(
    client: &mut Client,
    Attempt { upstream, output, .. }: &mut Attempt,
    answer: &mut Final,
    way: Way<'_>,
) -> Result<(), Fault> {
    answer.head.extend_from_slice(output.bytes());
    send_all(client, way.http, &answer.head).await.inspect_err(|fault| {
        if fault.whose == Whose::Upstream {
            upstream.loan.upstream_failed(fault);
        }
    })?;
    client.connection.record().moved(false, answer.head.len() as u64);
    client.connection.expect(way.http.settings.tunnel_idle, Reason::TimeoutTunnelIdle);
    Ok(())
}

/// Streams the answer to the client, and the rest of the request beside it, until the answer is whole.
async fn pass(
    client: &mut Client,
    input: &mut Buffer,
    Attempt { upstream, up, output }: &mut Attempt,
    answer: &mut Final,
    asks: ClientAddr,
    way: Way<'_>,
    now: Moment,
) -> Result<Passed, Fault> {
    let (head, source) = (mem::take(&mut answer.head), mem::replace(&mut answer.source, Source::Nothing));
    let head_length = head.len();
    let mut down = Transfer::new(head, source, answer.told == Told::Chunked, answer.trailers);
    if let Some(bandwidth) = &way.route.bandwidth {
        down.throttle(bandwidth.down(asks));
    }
    let Client { connection, io, .. } = client;
    let mut patience =
        patience::Answering::begin(connection, now, way.target.gap, way.http.settings.min_rate);
    let record = connection.record();
    record.moved_by(false, (head_length + output.bytes().len()) as u64, now);
    let mut sending = !up.is_over();
    let passed = poll_fn(|cx| {
        if sending {
            let sent = up.poll(io, input, &mut upstream.io, |count| record.moved(true, count as u64), cx);
            // However it ends: the answer is what counts now.
            sending = sent.is_pending();
        }
        let moved = |count| record.moved(false, count as u64);
        let Poll::Ready(passed) = down.poll(&mut upstream.io, output, io, moved, cx) else {
            return patience.wait(connection, &down, io);
        };
        match passed {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Break::Sender(error)) => Poll::Ready(Err(upstream_gone(error, true))),
            Err(Break::Framing(error)) => Poll::Ready(Err(wrong_answer(error))),
            Err(Break::TooLarge) => Poll::Ready(Err(wrong("the answer is too large"))),
            Err(Break::Receiver(error)) => Poll::Ready(Err(client_gone(error))),
        }
    });
    if let Err(fault) = passed.await {
        if fault.whose == Whose::Upstream {
            upstream.loan.upstream_failed(&fault);
        }
        return Err(fault);
    }
    if let Some(allowed) = answer.idle_allowed {
        upstream.loan.endpoint().allows_idle(allowed);
    }
    // Bytes behind the answer belong to nobody.
    let clean = answer.reusable && !down.ended_by_close() && output.is_empty();
    Ok(Passed::Whole { clean, closes: answer.stay == Stay::Close })
}

/// release: what is clean is used again.
fn release(client: &Client, plan: &mut Plan, upstream: Upstream, way: Way<'_>, passed: Passed) -> After {
    match passed {
        Passed::Upgrade => After::Tunnel {
            upstream: upstream.io,
            loan: upstream.loan,
            slot: plan.slot.take(),
            throttles: way.route.throttles(plan.client),
        },
        Passed::Whole { clean, closes } => {
            if clean {
                upstream.loan.park(upstream.io, upstream.making);
            }
            let leaves = closes || client.connection.is_leaving();
            if leaves { After::Close } else { After::Next }
        }
    }
}

async fn send_all(client: &mut Client, http: &Http, bytes: &[u8]) -> Result<(), Fault> {
    let Client { connection, io, .. } = client;
    connection.expect(http.settings.body_gap, Reason::TimeoutGap);
    in_time(connection, Stage::Relay, Whose::Client, write_all(io, bytes)).await
}

pub(crate) fn client_gone(error: io::Error) -> Fault {
    if unsayable(Some(&error)) {
        return wrong(error);
    }
    Fault::new(Stage::Relay, Whose::Client, Reason::ClientReset).because(error)
}

/// Whether the client was told something else, because what the upstream says cannot be said to it.
fn unsayable(error: Option<&io::Error>) -> bool {
    error.and_then(io::Error::get_ref).is_some_and(|source| source.is::<Unsayable>())
}

pub(crate) fn wrong_answer(error: tieline_wire::http1::HttpError) -> Fault {
    wrong(error)
}

pub(crate) fn wrong(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(Stage::Relay, Whose::Upstream, Reason::UpstreamProtocolError).because(error)
}
