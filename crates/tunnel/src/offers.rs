//! What an agent offers: streams that the server opens, led to services of the agent's own network.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::Address;
use tieline_config::Service;
use tieline_transport::{DialOptions, Duplex, Io, Meter, Side, UdpPeer, dial_named};
use tieline_wire::tunnel::{Code, OfferKind, Offered, Request, StreamId};
use tokio::sync::watch;

use crate::flow::{FlowEnd, LinkFlow, join_peer};
use crate::live::LiveLink;

/// Where each service is, by name. Nothing else is ever dialed.
#[derive(Default, Debug)]
pub(crate) struct Offers(BTreeMap<String, Service>);

/// The offers of this moment, and word of their changes.
pub(crate) type Current = watch::Receiver<Arc<Offers>>;

/// How long a service may take to answer.
const DIAL_MAX: Duration = Duration::from_secs(5);

/// After so much silence the kernel asks whether a service still lives.
const KEEPALIVE: Duration = Duration::from_secs(60);

impl Offers {
    pub(crate) fn of(offers: impl IntoIterator<Item = (String, Service)>) -> Offers {
        Offers(offers.into_iter().collect())
    }

    /// What the server is told of them: where they are is not its business.
    pub(crate) fn told(&self) -> impl Iterator<Item = Offered<'_>> {
        self.0.iter().map(|(name, to)| Offered {
            name,
            kind: match to {
                Service::Datagrams(_) => OfferKind::Udp,
                Service::Stream(Address::Unix(_)) => OfferKind::Unix,
                Service::Stream(_) => OfferKind::Tcp,
            },
        })
    }
}

/// Counts nothing.
struct Uncounted;

impl Meter for Uncounted {
    fn moved(&self, _: Side, _: usize) {}
}

/// Serves one stream or flow that the server asks for, to its end.
pub(crate) async fn serve(link: Arc<LiveLink>, id: StreamId, request: Request, mut current: Current) {
    let service = &*request.service;
    let Some(to) = current.borrow_and_update().0.get(service).cloned() else {
        tracing::warn!(service, "the server asks for a service that is not offered");
        return link.refuse(id, Code::Unknown, "it offers no such service");
    };
    match (&to, request.flow) {
        (Service::Stream(address), false) => serve_stream(&link, id, service, address, &mut current).await,
        (Service::Datagrams(address), true) => serve_flow(&link, id, service, address, &mut current).await,
        (Service::Stream(_), true) => {
            link.refuse(id, Code::Unreachable, "it takes no datagrams; reach it without udp:");
        }
        (Service::Datagrams(_), false) => link.refuse(id, Code::Unreachable, DATAGRAMS_ALONE),
    }
}

/// What is told to those who ask for a stream where there is none.
const DATAGRAMS_ALONE: &str = "it takes datagrams alone: tieline connect AGENT/SERVICE --listen udp:PORT";

async fn serve_stream(
    link: &Arc<LiveLink>,
    id: StreamId,
    service: &str,
    to: &Address,
    current: &mut Current,
) {
    let options = DialOptions { keepalive: Some(KEEPALIVE), far: None };
    let dialed = tokio::time::timeout(DIAL_MAX, dial_named(to, &options)).await;
    let io = match dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(io) => io,
        Err(error) => return refuse(link, id, service, to, &error),
    };
    let Some(stream) = link.accept(id) else { return };
    tracing::debug!(service, to = %to, "stream opened");
    // A stream that is broken off resets the service's socket: a cut never looks like an end.
    let mut duplex = Duplex::new(Io::Stream(Box::new(stream)), io, Vec::new());
    let mut passing = poll_fn(|cx| duplex.poll(&Uncounted, cx));
    let kept = Service::Stream(to.clone());
    // Both arms may be dropped: the first is polled again where it stands.
    let closed = tokio::select! {
        closed = &mut passing => closed,
        () = withdrawn(current, service, &kept) => {
            tracing::info!(service, to = %to, "a stream is broken off: that is not offered any more");
            link.reset(id, Code::Unknown);
            passing.await
        }
    };
    tracing::debug!(service, first = ?closed.first, error = ?closed.error, "stream ended");
}

async fn serve_flow(link: &Arc<LiveLink>, id: StreamId, service: &str, to: &Address, current: &mut Current) {
    let dialed = tokio::time::timeout(DIAL_MAX, UdpPeer::dial(to)).await;
    let peer = match dialed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(peer) => peer,
        Err(error) => return refuse(link, id, service, to, &error),
    };
    let Some(stream) = link.accept(id) else { return };
    tracing::debug!(service, to = %to, "flow opened");
    let (flow, kept) = (LinkFlow::new(stream), Service::Datagrams(to.clone()));
    // Both arms may be dropped: nothing of a flow is owed to anybody.
    let end = tokio::select! {
        end = join_peer(&flow, &peer) => end,
        () = withdrawn(current, service, &kept) => {
            tracing::info!(service, to = %to, "a flow is broken off: that is not offered any more");
            return link.reset(id, Code::Unknown);
        }
    };
    match end {
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

/// Waits until `service` is not offered as it was. May be dropped at any time.
async fn withdrawn(current: &mut Current, service: &str, kept: &Service) {
    if current.wait_for(|offers| offers.0.get(service) != Some(kept)).await.is_err() {
        // They will never change.
        std::future::pending().await
    }
}
