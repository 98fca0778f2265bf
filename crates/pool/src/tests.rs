//! Leases over real sockets.

mod caps;
mod checks;
mod failures;
mod idle;
mod in_line;
mod load;
mod names;
mod purposes;
mod reload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Address, ClientAddr, EndpointAddr, Fault};
use tieline_policy::{Access, Identity, Permit, Rule, Subject};
use tieline_transport::Io;

use crate::{Ask, EndpointSettings, Event, Lease, Settings, Upstream};

fn settings(addresses: &[SocketAddr]) -> Settings {
    let endpoint = |address: &SocketAddr| EndpointSettings::new(Address::Socket(*address));
    Settings::new("db", addresses.iter().map(endpoint).collect())
}

fn upstream(settings: Settings) -> Arc<Upstream> {
    Upstream::new(settings, Arc::new(|_| ()))
}

fn permit(upstream: &str) -> Permit {
    let subject = Subject { client: ClientAddr::Unix, identity: &Identity::Anonymous };
    Rule::new("orders", upstream, "tieline.toml:1", Access::Public).decide(&subject).unwrap()
}

async fn lease(upstream: &Arc<Upstream>) -> Result<Lease, Fault> {
    upstream.lease(&permit("db"), Ask::default(), &mut |_| ()).await
}

/// A lease, and the story of how it came about.
async fn lease_with_story(upstream: &Arc<Upstream>) -> (Result<Lease, Fault>, Vec<String>) {
    let mut story = Vec::new();
    let mut observe = |event: Event<'_>| {
        story.push(match event {
            Event::Queued { ahead } => format!("queued behind {ahead}"),
            Event::Reused { endpoint } => format!("reused {}", endpoint.label()),
            Event::Chosen { endpoint, .. } => format!("chosen {}", endpoint.label()),
            Event::Failed { endpoint, .. } => format!("failed {}", endpoint.label()),
            Event::Connected { endpoint, .. } => format!("connected {}", endpoint.label()),
        });
    };
    let lease = upstream.lease(&permit("db"), Ask::default(), &mut observe).await;
    (lease, story)
}

/// The address of the lease's endpoint, which has one only.
fn address_of(lease: &Lease) -> EndpointAddr {
    lease.endpoint().addresses()[0].clone()
}

/// Whom the lease's connection leads to.
fn peer_of(lease: Lease) -> SocketAddr {
    match lease.split().0 {
        Io::Tcp(tcp) => tcp.peer_addr().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Runs `body` while the upstream is kept.
async fn kept<T>(upstream: &Arc<Upstream>, body: impl Future<Output = T>) -> T {
    tokio::select! {
        () = Arc::clone(upstream).keep(std::future::pending()) => unreachable!("it is never told to stop"),
        done = body => done,
    }
}

/// Waits until `condition` holds.
#[track_caller]
fn eventually(condition: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let looking = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let patience = tieline_testkit::PATIENCE;
        assert!(tokio::time::timeout(patience, looking).await.is_ok(), "still not so at {caller}");
    }
}

/// Polls `future` once; true if it has to wait.
async fn has_to_wait<F: Future + Unpin>(future: &mut F) -> bool {
    tokio::select! {
        biased;
        _ = future => false,
        () = std::future::ready(()) => true,
    }
}
