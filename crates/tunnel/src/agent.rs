//! The agent: it keeps a link to its server, or two, and serves what it offers over each.
//!
//! Start with [`Agent::run`]; what keeps a link up is [`Life`].

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tieline_base::{Address, Clock};
use tieline_config::Service;
use tieline_transport::rouse_stalled;
use tieline_transport::tls::ClientTls;
use tieline_wire::tunnel::{Party, Way};
use tokio::sync::{mpsc, watch};

use crate::enrol;
use crate::greeting::Caller;
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
    pub to: Service,
}

/// An agent, ready to run.
#[derive(Debug)]
pub struct Agent {
    servers: Vec<Server>,
    identity: Identity,
    offers: watch::Sender<Arc<Offers>>,
    carriers: Vec<Over>,
}

/// An address of the server, and how it is reached. There is a link for each.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is.
    pub address: Address,
    /// What leads there, for all but QUIC.
    pub proxy: Option<Proxy>,
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

impl Over {
    /// Each of them.
    pub const ALL: [Over; 3] = [Over::Quic, Over::Tls, Over::WebSocket];
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
    /// An agent of the server at `servers`.
    pub fn new(
        servers: impl IntoIterator<Item = Server>,
        identity: Identity,
        offers: impl IntoIterator<Item = Offer>,
    ) -> Agent {
        let offers = watch::Sender::new(offers_of(offers));
        let (servers, carriers) = (servers.into_iter().collect(), Over::ALL.to_vec());
        Agent { servers, identity, offers, carriers }
    }

    /// The same over nothing but `carriers`.
    #[must_use]
    pub fn over(self, carriers: &[Over]) -> Agent {
        Agent { carriers: carriers.to_vec(), ..self }
    }

    /// Offers this and nothing else from now on. Streams to what is gone, or is elsewhere now, are broken
    /// off; the others know nothing of it.
    pub fn offer(&self, offers: impl IntoIterator<Item = Offer>) {
        self.offers.send_replace(offers_of(offers));
    }

    /// Runs until `stop` is done, on a runtime of one thread that takes local tasks. A server that cannot be
    /// reached, or says no, is asked again and again, less and less often. Whoever knows that the network has
    /// changed tells it by `roused`; it notices other gateways and a sleep of the machine by itself.
    ///
    /// # Errors
    /// [`AgentError`], at the start alone.
    #[allow(clippy::disallowed_methods)] // the agent's own beat, for as long as it runs
    pub async fn run(&self, roused: Roused, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
        let tls = Arc::new(self.identity.tls()?);
        let _alone = self.identity.hold()?;
        let (boot, mut lives, mut renewed) = (random()?, Vec::new(), Vec::new());
        for (place, server) in (0..).zip(&self.servers) {
            let (renews, certificates) = mpsc::channel(1);
            let caller = Caller { party: Party::Agent, boot, place };
            lives.push(Life::begin(self.dialer(server, &tls, &roused, caller), Some(certificates)));
            renewed.push(renews);
        }
        let renewing = renew_always(self, tls, renewed, roused);
        let beat = tokio::task::spawn_local(beat());
        let living = poll_fn(|cx| {
            for life in &mut lives {
                let Poll::Pending = life.poll(cx);
            }
            Poll::<Infallible>::Pending
        });
        // All arms may be dropped: the first is polled again where it stands.
        tokio::select! {
            never = living => match never {},
            () = renewing => {}
            () = stop => {}
        }
        for life in &mut lives {
            life.leave().await;
        }
        beat.abort();
        Ok(())
    }

    fn dialer(&self, server: &Server, tls: &Arc<ClientTls>, roused: &Roused, caller: Caller) -> Dialer {
        Dialer {
            server: server.address.clone(),
            tls: tls.clone(),
            proxy: server.proxy.clone(),
            ways: ways_to(&server.address, &self.carriers),
            roused: roused.clone(),
            caller,
            offers: Some(self.offers.subscribe()),
        }
    }
}

fn offers_of(offers: impl IntoIterator<Item = Offer>) -> Arc<Offers> {
    Arc::new(Offers::of(offers.into_iter().map(|offer| (offer.name, offer.to))))
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
    renewed: Vec<mpsc::Sender<Arc<ClientTls>>>,
    mut roused: Roused,
) {
    loop {
        tls = renew(agent, &tls, &mut roused).await;
        for link in &renewed {
            if link.send(tls.clone()).await.is_err() {
                return;
            }
        }
    }
}

/// Waits until the certificate is to be renewed, and renews it; done when there is a new one.
async fn renew(agent: &Agent, tls: &Arc<ClientTls>, roused: &mut Roused) -> Arc<ClientTls> {
    let identity = &agent.identity;
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
        let renewed = renew_at_any(agent, tls).await;
        match renewed.and_then(|()| identity.tls().map_err(|it| it.to_string())) {
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

/// Renews it at the first address of the server that does.
async fn renew_at_any(agent: &Agent, tls: &Arc<ClientTls>) -> Result<(), String> {
    let mut failed = Vec::new();
    for Server { address, proxy } in &agent.servers {
        match enrol::renew(address, proxy.as_ref(), tls, &agent.identity).await {
            Ok(()) => return Ok(()),
            Err(error) => failed.push(error.to_string()),
        }
    }
    Err(failed.join("; "))
}
