//! The dialer's side of a link: it is kept up over whatever connection works, as long as somebody wants it.
//!
//! Owns no decision: when to dial, whom to believe dead and how long to wait is [`Dialing`]'s, what goes
//! again is the link's. Start with [`Life::poll`].

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tieline_base::{Address, Clock, Moment};
use tieline_transport::tls::ClientTls;
use tieline_wire::tunnel::{Act, Code, Dialing, Now, Refusal, Way};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::agent::Roused;
use crate::alarm::Alarm;
use crate::attempts::{Attempts, Came};
use crate::carrier::{Carrier, Medium, Parting, Passing};
use crate::greeting::{Caller, GreetingError};
use crate::live::LiveLink;
use crate::network::Network;
use crate::offers::{self, Current};
use crate::ways::{Proxy, Reach};

type Task<T> = Pin<Box<dyn Future<Output = T>>>;

/// Brings new certificates, if any ever comes.
pub(crate) type Renewed = Option<mpsc::Receiver<Arc<ClientTls>>>;

/// What a dialer is, and whom it dials.
pub(crate) struct Dialer {
    pub(crate) server: Address,
    pub(crate) tls: Arc<ClientTls>,
    /// What leads out of the network, for all but QUIC.
    pub(crate) proxy: Option<Proxy>,
    /// The ways that may be gone.
    pub(crate) ways: Vec<Way>,
    /// Somebody knows that the network has changed.
    pub(crate) roused: Roused,
    pub(crate) caller: Caller,
    /// Where streams that the server opens lead; `None`: nothing is offered, and nothing said of it.
    pub(crate) offers: Option<Current>,
}

/// How its link stands, for those who speak through it.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// There is none, or it waits for a connection to go on over.
    Down,
    /// It is carried.
    Up(Arc<LiveLink>),
    /// The server wants none.
    Refused(Refusal),
}

/// What a dialer is doing.
pub(crate) struct Life {
    dialer: Dialer,
    standing: watch::Sender<Standing>,
    dialing: Dialing,
    attempts: Attempts,
    /// A way that asks once what is under way over the carrier in use has arrived, or by then.
    asks: Option<(Way, Moment)>,
    link: Option<Arc<LiveLink>>,
    carrier: Option<Carrier>,
    streams: JoinSet<()>,
    dialing_alarm: Alarm,
    asks_alarm: Alarm,
    link_alarm: Alarm,
    /// What it proves itself by from then on.
    renewed: Renewed,
    /// Ends when there is another network, or somebody says so.
    network: Task<Network>,
    /// Ends when other things are offered.
    reoffered: Task<()>,
}

/// Counts nothing.
struct Uncounted;

impl Passing for Uncounted {
    fn passed(&self, _: bool, _: usize) {}
}

/// After a renewal the link moves within so long: agents that joined together do not come back together.
const MOVE_WITHIN: Duration = Duration::from_secs(10);

/// How long the last words may take.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

impl Life {
    /// Nothing is dialed before it is polled.
    pub(crate) fn begin(dialer: Dialer, renewed: Renewed) -> Self {
        let network = Network::now();
        let (dialing, watched) =
            (Dialing::new(&dialer.ways, network.id(), Clock::now()), watched(network, dialer.roused.clone()));
        let reoffered = Box::pin(changed(dialer.offers.clone()));
        Self {
            dialer,
            standing: watch::Sender::new(Standing::Down),
            dialing,
            attempts: Attempts::default(),
            asks: None,
            link: None,
            carrier: None,
            streams: JoinSet::new(),
            dialing_alarm: Alarm::default(),
            asks_alarm: Alarm::default(),
            link_alarm: Alarm::default(),
            renewed,
            network: Box::pin(watched),
            reoffered,
        }
    }

    /// How its link stands from now on.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Does all that can be done now, and never ends.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Infallible> {
        loop {
            let moved = self.poll_network(cx);
            let attempted = self.poll_attempts(cx);
            let carried = self.poll_carrier(cx);
            let linked = self.poll_link(cx);
            let asked = self.poll_asks(cx);
            let dialed = self.poll_dialing(cx);
            let renewed = self.poll_renewing(cx);
            let reoffered = self.poll_reoffered(cx);
            self.tell_failures();
            if !(moved || attempted || carried || linked || asked || dialed || renewed || reoffered) {
                return Poll::Pending;
            }
        }
    }

    fn now(&self) -> Now {
        let awaited = self.link.as_ref().is_some_and(|link| link.look(|core| core.awaited()));
        Now { time: Clock::now(), awaited, random: fastrand::u64(..) }
    }

    /// Whether something came of an attempt.
    fn poll_attempts(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(came) = self.attempts.poll(cx) else { return false };
        let (now, mut acts) = (self.now(), Vec::new());
        match came {
            Came::Through(way) => self.dialing.through(way, now),
            Came::Failed(way) => self.dialing.failed(way),
            Came::Carries(way, carrier) => {
                self.attach(*carrier, way);
                self.dialing.answered(way, now, &mut acts);
                // The others were given up, and did not fail.
                self.attempts.close_all();
                self.asks = None;
                return true;
            }
            Came::Refused(refusal, retry_after) => {
                self.refused(refusal);
                self.dialing.refused(refusal, retry_after, now, &mut acts);
            }
        }
        self.obey(acts);
        true
    }

    /// Says once why no way was open. Where a link is carried it was only looked for a better one.
    fn tell_failures(&mut self) {
        let Some(why) = self.attempts.take_failures() else { return };
        let server = &self.dialer.server;
        match self.carrier {
            None => tracing::warn!(%server, "cannot link up: {why}"),
            Some(_) => tracing::debug!(%server, "no better way: {why}"),
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        tracing::warn!(server = %self.dialer.server, "{}", GreetingError::Refused(refusal, Duration::ZERO));
        self.attempts.close_all();
        self.asks = None;
        if !matches!(refusal, Refusal::Busy | Refusal::Stale) {
            self.end(Code::Lost);
        }
        self.standing.send_replace(Standing::Refused(refusal));
    }

    /// The link is over: whatever comes is another one.
    fn end(&mut self, code: Code) {
        if let Some(link) = self.link.take() {
            link.end(code);
        }
        self.carrier = None;
        self.standing.send_replace(Standing::Down);
    }

    fn attach(&mut self, carrier: Carrier, way: Way) {
        let over = Medium::from(way).as_str();
        let link = carrier.link().clone();
        match link.look(|core| core.take_resumption()) {
            Some(resumed) => {
                let (gap, replayed) = (resumed.gap, resumed.replayed);
                tracing::info!(server = %self.dialer.server, ?gap, replayed, over, "the link goes on");
            }
            None => {
                tracing::info!(server = %self.dialer.server, over, "linked up");
                self.tell_offers(&link);
            }
        }
        self.standing.send_replace(Standing::Up(link.clone()));
        self.link = Some(link);
        self.carrier = Some(carrier);
    }

    /// Whether the carrier has ended.
    fn poll_carrier(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(carrier) = &mut self.carrier else { return false };
        let Poll::Ready(parting) = carrier.poll(&Uncounted, cx) else { return false };
        let (round_trip, spread) = carrier.link().look(|core| (core.link.round_trip(), core.take_move()));
        self.carrier = None;
        if let Some(spread) = spread {
            self.dialing.move_within(spread, self.now());
        }
        tracing::warn!(server = %self.dialer.server, "link down: {parting}");
        match parting {
            Parting::Told(Code::Draining) => {
                self.end(Code::Draining);
                self.dialing.sent_away(round_trip, self.now());
                return true;
            }
            Parting::Lost(_) | Parting::Replaced => {
                self.standing.send_replace(Standing::Down);
            }
            Parting::Over(code) | Parting::Told(code) => self.end(code),
            Parting::Breach(_) | Parting::Frame(_) => self.end(Code::Protocol),
        }
        self.dialing.lost(round_trip, self.now());
        true
    }

    /// Whether the link wants something.
    #[allow(clippy::disallowed_methods)] // streams live and end with the link
    fn poll_link(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(link) = self.link.clone() else { return false };
        while let Some((id, request)) = link.look(|core| core.take_offered()) {
            let Some(offers) = self.dialer.offers.clone() else { continue };
            self.streams.spawn_local(offers::serve(link.clone(), id, request, offers));
        }
        while self.streams.try_join_next().is_some() {}
        if link.look(|core| core.take_doubt()) {
            tracing::info!(server = %self.dialer.server, "the server is silent: looking for another way");
            self.dialing.look_elsewhere(self.now());
            return true;
        }
        if let Some(spread) = link.look(|core| core.take_move()) {
            tracing::info!(server = %self.dialer.server, "the server asks to go on over another connection");
            self.dialing.move_within(spread, self.now());
            return true;
        }
        if self.carrier.is_some() {
            return false;
        }
        let epoch = link.look(|core| core.link.epoch());
        if link.poll_detached(epoch, &mut self.link_alarm, cx).is_ready() {
            self.link = None;
            self.standing.send_replace(Standing::Down);
            return true;
        }
        false
    }

    /// Whether something was begun or closed.
    fn poll_dialing(&mut self, cx: &mut Context<'_>) -> bool {
        let mut acts = Vec::new();
        self.dialing.on_time(self.now(), &mut acts);
        if !acts.is_empty() {
            self.obey(acts);
            return true;
        }
        self.dialing_alarm.poll(self.dialing.deadline(), cx).is_ready()
    }

    fn obey(&mut self, acts: Vec<Act>) {
        for act in acts {
            let dialer = &self.dialer;
            match act {
                Act::Dial(way) => {
                    let (server, proxy) = (dialer.server.clone(), dialer.proxy.clone());
                    self.attempts.dial(way, Reach { server, proxy, tls: dialer.tls.clone() });
                }
                Act::Ask(way) => {
                    let link = self.link.as_ref().filter(|_| self.carrier.is_some());
                    let by = link.and_then(|link| link.act(|core| core.link.prepare_move(Clock::now())));
                    self.asks = Some((way, by.unwrap_or_default()));
                }
                Act::Close(way) => {
                    self.attempts.close(way);
                    self.asks.take_if(|(asks, _)| *asks == way);
                }
            }
        }
    }

    /// Whether a way has asked: at once where no carrier is in use, else when that one is empty.
    fn poll_asks(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((way, by)) = self.asks else { return false };
        let waits = self.link.as_ref().is_some_and(|link| !link.look(|core| core.link.may_move()));
        if waits && self.asks_alarm.poll(by, cx).is_pending() {
            return false;
        }
        self.asks = None;
        self.attempts.ask(way, self.link.clone(), self.dialer.caller);
        true
    }

    /// Whether this machine is in another network, or might be.
    fn poll_network(&mut self, cx: &mut Context<'_>) -> bool {
        let Poll::Ready(network) = self.network.as_mut().poll(cx) else { return false };
        tracing::info!(server = %self.dialer.server, "the network may have changed: looking for a way");
        if let Some(link) = &self.link {
            link.act(|core| core.link.hurry(Clock::now()));
        }
        self.dialing.network_changed(network.id(), self.now());
        // Else the next look would hear the same word again.
        self.dialer.roused.mark_unchanged();
        self.network = Box::pin(watched(network, self.dialer.roused.clone()));
        true
    }

    /// Whether there is a new certificate.
    fn poll_renewing(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(renewed) = &mut self.renewed else { return false };
        let Poll::Ready(tls) = renewed.poll_recv(cx) else { return false };
        let Some(tls) = tls else {
            self.renewed = None;
            return false;
        };
        self.dialer.tls = tls;
        // The link goes on by the new one: the old one is good for so long and no longer.
        self.dialing.move_within(MOVE_WITHIN, self.now());
        true
    }

    /// Whether other things are offered than before.
    fn poll_reoffered(&mut self, cx: &mut Context<'_>) -> bool {
        if self.reoffered.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.reoffered = Box::pin(changed(self.dialer.offers.clone()));
        if let Some(link) = &self.link {
            self.tell_offers(link);
        }
        true
    }

    fn tell_offers(&self, link: &LiveLink) {
        if let Some(offers) = &self.dialer.offers {
            link.act(|core| core.link.tell_offers(offers.borrow().told()));
        }
    }

    /// Tells the server that the link is over, so that it does not wait; what the streams lead to is reset.
    pub(crate) async fn leave(&mut self) {
        if let Some(mut carrier) = self.carrier.take() {
            // Whoever does not hear it finds out by itself.
            let _ = tokio::time::timeout(FAREWELL_MAX, carrier.kill(Code::Draining)).await;
        }
        self.end(Code::Draining);
        // The streams reset their sockets: what is dropped before that would look like an orderly end.
        let ended = async { while self.streams.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL_MAX, ended).await;
    }
}

/// Waits until there is another network than `network`, or somebody says that there might be.
async fn watched(network: Network, mut roused: Roused) -> Network {
    // Both arms may be dropped: what was said is remembered.
    tokio::select! {
        changed = network.changed() => changed,
        () = told(&mut roused) => Network::now(),
    }
}

/// Waits until the offers change.
async fn changed(offers: Option<Current>) {
    match offers {
        Some(mut offers) => {
            offers.mark_unchanged();
            if offers.changed().await.is_err() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}

/// Waits until somebody says that the network may have changed. May be dropped at any time.
pub(crate) async fn told(roused: &mut Roused) {
    if roused.changed().await.is_err() {
        // Nobody will ever say so.
        std::future::pending().await
    }
}
