//! The agent: it keeps a link to its server, and serves what it offers.
//!
//! Start with [`Agent::run`]; what keeps the link up is [`Life`].

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Address, Clock};
use tieline_transport::rouse_stalled;
use tieline_transport::tls::ClientTls;
use tieline_wire::tunnel::{Party, Way};
use tokio::sync::{mpsc, watch};

use crate::enrol;
use crate::identity::{Identity, IdentityError, RENEWAL_AGAIN};
use crate::life::{Dialer, Life, told};
use crate::offers::Offers;
use crate::sha::random;
use crate::ways::Proxy;

/// A service that an agent offers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// What the server calls it.
    pub name: String,
    /// Where it is.
    pub to: Address,
}

/// An agent, ready to run.
#[derive(Debug)]
pub struct Agent {
    server: Address,
    identity: Identity,
    offers: Arc<Offers>,
    proxy: Option<Proxy>,
    ways: Vec<Way>,
}

/// What a link may go over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// QUIC, where UDP passes.
    Quic,
    /// TLS over TCP.
    Tls,
    /// TLS inside a WebSocket, inside TLS over TCP.
    WebSocket,
}

/// Tells a dialer that the network, or the clock, has changed.
pub type Roused = watch::Receiver<()>;

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It does not know who it is.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The kernel gives no randomness.
    #[error("the kernel gives no random bytes: {0}")]
    Random(#[from] io::Error),
}

impl Agent {
    /// An agent of the server at `server`.
    pub fn new(server: Address, identity: Identity, offers: impl IntoIterator<Item = Offer>) -> Agent {
        let offers = offers.into_iter().map(|offer| (offer.name, offer.to)).collect();
        let ways = ways_to(&server, &[Over::Quic, Over::Tls, Over::WebSocket]);
        Agent { server, identity, offers: Arc::new(offers), proxy: None, ways }
    }

    /// The same behind `proxy`, which leads out for all but QUIC.
    #[must_use]
    pub fn behind(self, proxy: Option<Proxy>) -> Agent {
        Agent { proxy, ..self }
    }

    /// The same over nothing but `carriers`.
    #[must_use]
    pub fn over(self, carriers: &[Over]) -> Agent {
        let ways = ways_to(&self.server, carriers);
        Agent { ways, ..self }
    }

    /// Runs until `stop` is done, on a runtime of one thread that takes local tasks. A server that cannot be
    /// reached, or says no, is asked again and again, less and less often. Whoever knows that the network has
    /// changed tells it by `roused`; it notices other gateways and a sleep of the machine by itself.
    ///
    /// # Errors
    /// [`AgentError`], at the start alone.
    #[allow(clippy::disallowed_methods)] // the agent's own beat, for as long as it runs
    pub async fn run(&self, roused: Roused, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
        let (server, offers) = (self.server.clone(), self.offers.clone());
        let tls = Arc::new(self.identity.tls()?);
        let _alone = self.identity.hold()?;
        let (renewed, certificates) = mpsc::channel(1);
        let renewing = renew_always(self, tls.clone(), renewed, roused.clone());
        let (ways, boot, proxy) = (self.ways.clone(), random()?, self.proxy.clone());
        let dialer = Dialer { server, proxy, tls, ways, roused, party: Party::Agent, boot, offers };
        let mut life = Life::begin(dialer, Some(certificates));
        let beat = tokio::task::spawn_local(beat());
        // All arms may be dropped: the first is polled again where it stands.
        tokio::select! {
            never = poll_fn(|cx| life.poll(cx)) => match never {},
            () = renewing => {}
            () = stop => {}
        }
        life.leave().await;
        beat.abort();
        Ok(())
    }
}

/// The ways that may lead there.
pub(crate) fn ways_to(server: &Address, carriers: &[Over]) -> Vec<Way> {
    let leads_there = |way: &Way| match way {
        // Where the server has no address of a family, that way fails at once.
        Way::Quic6 | Way::Quic4 => carriers.contains(&Over::Quic) && !matches!(server, Address::Unix(_)),
        Way::Tls => carriers.contains(&Over::Tls),
        Way::WebSocket => carriers.contains(&Over::WebSocket),
    };
    Way::ALL.into_iter().filter(leads_there).collect()
}

/// Looks after the stalled, as a server's workers do.
pub(crate) async fn beat() {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rouse_stalled();
    }
}

/// Renews the certificate whenever it is time for that; done when nobody wants it any more.
async fn renew_always(
    agent: &Agent,
    mut tls: Arc<ClientTls>,
    renewed: mpsc::Sender<Arc<ClientTls>>,
    mut roused: Roused,
) {
    loop {
        tls = renew(agent, &tls, &mut roused).await;
        if renewed.send(tls.clone()).await.is_err() {
            return;
        }
    }
}

/// Waits until the certificate is to be renewed, and renews it; done when there is a new one.
async fn renew(agent: &Agent, tls: &Arc<ClientTls>, roused: &mut Roused) -> Arc<ClientTls> {
    let Agent { server, identity, proxy, .. } = agent;
    let random = fastrand::u64(..);
    loop {
        let left = identity.renewal(random).and_then(|at| at.duration_since(Clock::wall()).ok());
        if let Some(left) = left {
            // In steps: the wall clock may be set meanwhile, or the machine sleep. Both arms may be dropped.
            tokio::select! {
                () = tokio::time::sleep(left.min(RENEWAL_AGAIN)) => {}
                () = told(roused) => {}
            }
            continue;
        }
        let renewed = enrol::renew(server, proxy.as_ref(), tls, identity).await;
        match renewed
            .map_err(|error| error.to_string())
            .and_then(|()| identity.tls().map_err(|it| it.to_string()))
        {
            Ok(tls) => {
                tracing::info!("the certificate was renewed");
                return Arc::new(tls);
            }
            Err(error) => {
                tracing::warn!("the certificate cannot be renewed, trying again: {error}");
                tokio::time::sleep(RENEWAL_AGAIN).await;
            }
        }
    }
}
