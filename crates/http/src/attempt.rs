//! From a request to the head of its answer: an upstream connection is found, the request is sent, and where
//! that fails without harm it is done once more.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose};
use tieline_conn::Route;
use tieline_policy::Permit;
use tieline_pool::{Ask, Lease, Loan, Making, Reuse};
use tieline_transport::Io;
use tieline_wire::http1::{ChunkedDecoder, HeadScan, RequestBody};

use crate::Http;
use crate::buffer::Buffer;
use crate::client::Client;
use crate::ending::in_time;
use crate::exchange::{client_gone, wrong};
use crate::heard::{ANSWER_LIMITS, Heard, hear};
use crate::outward::Broken;
use crate::plan::{self, Plan};
use crate::site::Target;
use crate::story::Story;
use crate::transfer::{Break, Source, Transfer};

/// What holds for the whole of an exchange that is forwarded.
#[derive(Clone, Copy)]
pub(crate) struct Way<'w> {
    pub(crate) target: &'w Target,
    pub(crate) route: &'w Route,
    pub(crate) permit: &'w Permit,
    pub(crate) http: &'w Http,
    /// What is wanted of an upstream connection, but for what each try says of its use.
    pub(crate) ask: Ask,
}

/// An exchange whose answer has begun.
pub(crate) struct Answering {
    pub(crate) upstream: Upstream,
    /// What is left of the request.
    pub(crate) up: Transfer,
    /// What came behind what was heard.
    pub(crate) output: Buffer,
    pub(crate) heard: Heard,
}

/// The upstream's side of an exchange.
pub(crate) struct Upstream {
    pub(crate) io: Io,
    pub(crate) loan: Loan,
    pub(crate) making: Making,
    reused: bool,
}

impl From<Lease> for Upstream {
    fn from(lease: Lease) -> Self {
        let (making, reused) = (lease.making().clone(), lease.is_reused());
        let (io, loan) = lease.split();
        Self { io, loan, making, reused }
    }
}

/// Has the request answered: by the first endpoint that is chosen, and where that does no harm by another.
pub(crate) async fn answer(
    client: &mut Client,
    input: &mut Buffer,
    story: &mut Story,
    plan: &mut Plan,
    way: Way<'_>,
    started: Moment,
) -> Result<Answering, Fault> {
    let reuse = match plan.kind.upgrade {
        true => Reuse::Switching,
        false if plan.idempotent => Reuse::Any,
        false => Reuse::Young,
    };
    let mut upstream = Upstream::from(acquire(client, way, reuse, story, started).await?);
    let chunked = matches!(plan.body, RequestBody::Chunked);
    let held = plan.held.take();
    let source = match plan.body {
        _ if held.is_some() => Source::Nothing,
        RequestBody::None => Source::Nothing,
        RequestBody::Length(length) => Source::Length(length),
        RequestBody::Chunked => Source::Chunked(Box::new(ChunkedDecoder::new())),
    };
    let mut up = Transfer::new(std::mem::take(&mut plan.head), source, chunked, true);
    up.limit(way.http.settings.body);
    if let Some(held) = held {
        up.begin_with(*held);
    }
    let mut output = Buffer::take();
    let mut again = REFUSALS_MAX;
    let heard = loop {
        let far = (&mut upstream, &mut up, &mut output);
        let answer = first_answer(client, input, far, plan, story, way).await;
        match answer {
            Ok(heard) => break heard,
            // The endpoint closed a connection at rest as we chose it: it has seen nothing, or it does no
            // harm to ask once more.
            Err(fault) if fault.retry && upstream.reused && plan.idempotent && up.rewind() => {
                story.notes.push("the connection at rest was closed as it was taken; asked once more".into());
                drop(upstream);
                output = Buffer::take();
                upstream = acquire(client, way, Reuse::Never, story, Clock::now()).await?.into();
            }
            // The endpoint has promised that it did nothing (RFC 9113 §8.7).
            Err(fault) if fault.retry && is_unprocessed(&fault) && again > 0 && up.rewind() => {
                again -= 1;
                let note =
                    format!("the endpoint did not take the request ({}); asked once more", why(&fault));
                story.notes.push(note.into());
                drop(upstream);
                output = Buffer::take();
                upstream = acquire(client, way, Reuse::Never, story, Clock::now()).await?.into();
            }
            Err(fault) => {
                upstream.loan.upstream_failed(&fault);
                return Err(fault);
            }
        }
    };
    Ok(Answering { upstream, up, output, heard })
}

async fn acquire(
    client: &Client,
    way: Way<'_>,
    reuse: Reuse,
    story: &mut Story,
    started: Moment,
) -> Result<Lease, Fault> {
    story.acquiring.get_or_insert(started);
    // Waiting for an upstream has its own limits.
    client.connection.expect(Duration::MAX, Reason::Idle);
    let ask = Ask { reuse, ..way.ask };
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
    (upstream, up, output): (&mut Upstream, &mut Transfer, &mut Buffer),
    plan: &Plan,
    story: &mut Story,
    Way { target, http, .. }: Way<'_>,
) -> Result<Heard, Fault> {
    let mut scan = HeadScan::default();
    let Client { connection, io, watch, .. } = client;
    connection.expect(http.settings.body_gap, Reason::TimeoutBodyGap);
    let (mut sending, mut refused) = (true, None);
    let answer = poll_fn(|cx| {
        if sending {
            let record = connection.record();
            match up.poll(io, input, &mut upstream.io, |count| record.moved(true, count as u64), cx) {
                Poll::Pending => {}
                Poll::Ready(sent) => {
                    sending = false;
                    story.sent = Some(Clock::now());
                    connection.expect(target.first_byte, Reason::TimeoutFirstByte);
                    match sent {
                        Ok(()) => {}
                        // It may have answered before it stopped listening.
                        Err(Break::Receiver(error)) => refused = Some(error),
                        Err(Break::Sender(error)) => return Poll::Ready(Err(client_gone(error))),
                        Err(Break::Framing(error)) => return Poll::Ready(Err(plan::unreadable(error))),
                        Err(Break::TooLarge) => return Poll::Ready(Err(plan::too_large())),
                    }
                }
            }
        }
        loop {
            let began = !output.is_empty();
            // Behind an interim answer the next one may be there already.
            if began && let Some(heard) = hear(plan, output, &mut scan, up)? {
                return Poll::Ready(Ok(heard));
            }
            match output.poll_fill(&mut upstream.io, ANSWER_LIMITS.head, cx) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(Ok(_)) => {
                    let error = refused.take().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    return Poll::Ready(Err(upstream_gone(error, began)));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(upstream_gone(error, began))),
                Poll::Pending if sending => return Poll::Pending,
                // Nobody reads the client now: if it is gone, its answer is wanted by nobody.
                Poll::Pending => {
                    let gone = io.poll_broken(watch, cx);
                    return gone.map_or(Poll::Pending, |error| Poll::Ready(Err(client_gone(error))));
                }
            }
        }
    });
    in_time(connection, Stage::Relay, Whose::Upstream, answer).await
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
