//! What an agent offers: streams that the server opens, led to services of the agent's own network.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::Address;
use tieline_config::Service;
use tieline_transport::{DialOptions, Duplex, Io, Meter, Side, UdpPeer, dial_named};
use tieline_wire::tunnel::{Code, Request, StreamId};

use crate::flow::{FlowEnd, LinkFlow, join_peer};
use crate::live::LiveLink;

/// Where each service is, by name. Nothing else is ever dialed.
pub(crate) type Offers = HashMap<String, Service>;

/// How long a service may take to answer.
const DIAL_MAX: Duration = Duration::from_secs(5);

/// After so much silence the kernel asks whether a service still lives.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Counts nothing.
struct Uncounted;

impl Meter for Uncounted {
    fn moved(&self, _: Side, _: usize) {}
}

/// Serves one stream that the server asks for, to its end.
pub(crate) async fn serve(link: Arc<LiveLink>, id: StreamId, request: Request, offers: Arc<Offers>) {
    let service = &*request.service;
    match (offers.get(service), request.flow) {
        (Some(Service::Stream(to)), false) => serve_stream(link, id, service, to).await,
        (Some(Service::Datagrams(to)), true) => serve_flow(link, id, service, to).await,
        (Some(Service::Stream(_)), true) => {
            link.refuse(id, Code::Unreachable, "it takes no datagrams; reach it without udp:");
        }
        (Some(Service::Datagrams(_)), false) => link.refuse(id, Code::Unreachable, DATAGRAMS_ALONE),
        (None, _) => {
            tracing::warn!(service, "the server asks for a service that is not offered");
            link.refuse(id, Code::Unknown, "it offers no such service");
        }
    }
}

/// What is told to those who ask for a stream where there is none.
const DATAGRAMS_ALONE: &str = "it takes datagrams alone: tieline connect AGENT/SERVICE --listen udp:PORT";

async fn serve_stream(link: Arc<LiveLink>, id: StreamId, service: &str, to: &Address) {
    let options = DialOptions { keepalive: Some(KEEPALIVE), far: None };
    let dialed = tokio::time::timeout(DIAL_MAX, dial_named(to, &options)).await;
    let io = match dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(io) => io,
        Err(error) => return refuse(&link, id, service, to, &error),
    };
    let Some(stream) = link.accept(id) else { return };
    tracing::debug!(service, to = %to, "stream opened");
    // A stream that is broken off resets the service's socket: a cut never looks like an end.
    let mut duplex = Duplex::new(Io::Stream(Box::new(stream)), io, Vec::new());
    let closed = poll_fn(|cx| duplex.poll(&Uncounted, cx)).await;
    tracing::debug!(service, first = ?closed.first, error = ?closed.error, "stream ended");
}

async fn serve_flow(link: Arc<LiveLink>, id: StreamId, service: &str, to: &Address) {
    let dialed = tokio::time::timeout(DIAL_MAX, UdpPeer::dial(to)).await;
    let peer = match dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(peer) => peer,
        Err(error) => return refuse(&link, id, service, to, &error),
    };
    let Some(stream) = link.accept(id) else { return };
    tracing::debug!(service, to = %to, "flow opened");
    match join_peer(&LinkFlow::new(stream), &peer).await {
        FlowEnd::Near(end) => tracing::debug!(service, ?end, "flow ended"),
        FlowEnd::Far(end) => {
            tracing::warn!(service, to = %to, ?end, "a service that is offered takes no datagrams");
            link.reset(id, Code::Unreachable);
        }
    }
}

fn refuse(link: &LiveLink, id: StreamId, service: &str, to: &Address, error: &io::Error) {
    tracing::warn!(service, to = %to, %error, "a service that is offered does not answer");
    let code = match error.kind() {
        io::ErrorKind::TimedOut => Code::Timeout,
        _ => Code::Unreachable,
    };
    // What is said of the agent's network is how it failed, not where.
    link.refuse(id, code, &format!("the service does not answer: {}", error.kind()));
}
