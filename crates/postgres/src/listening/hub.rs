//! The shared listener: a connection of its own, outside of the pool, that hears for many clients.
//!
//! Whoever wants something of it draws a ticket; tickets are worked off in rounds, each one query. A server
//! tells a connection of every notification that was committed before it answers what was asked behind that,
//! so a round that is answered has brought all that came before it was asked for.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, LazyLock, PoisonError};
use std::time::Duration;

use tieline_base::Clock;
use tieline_pool::{Endpoint, Upstream, knock};
use tieline_transport::dial_first;
use tieline_wire::postgres::backend::{self, kind};
use tieline_wire::postgres::frontend::push_query;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::inbox::{End, Inbox, Notification};
use super::{Channels, push_listen, push_named};
use crate::census::{Listed, Pool};
use crate::cluster::Cluster;
use crate::keys::Backend;
use crate::login::server::{LogIn, log_in, said};
use crate::login::{Line, secured};
use crate::roles::WRITES;
use crate::server::{self, Login};

/// What servers are told that it is.
pub(crate) const APPLICATION: &str = "tieline listener";

/// Where clients listen that the same listener serves.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) upstream: Arc<Upstream>,
    /// What is known of its servers, if anybody asks.
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) login: Arc<Login>,
    /// Of whose clients the first one was.
    pub(crate) pool: Arc<Pool>,
    /// The server at which a client listens.
    pub(crate) endpoint: Arc<Endpoint>,
    /// The encoding in which it is told.
    pub(crate) encoding: Box<[u8]>,
    /// All that connecting and logging in may take.
    pub(crate) within: Duration,
}

/// What makes two places the same: the upstream (by where it lies: it lies there for as long as its listener
/// is), the login, which of several servers where nobody knows their roles, and the encoding.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key(usize, u64, Option<u64>, Box<[u8]>);

impl Place {
    fn key(&self) -> Key {
        let server =
            (self.cluster.is_none() && self.upstream.endpoints().len() > 1).then(|| self.endpoint.key());
        Key(Arc::as_ptr(&self.upstream) as usize, self.login.id, server, self.encoding.clone())
    }

    /// The server to listen at, now.
    fn server(&self) -> Option<Arc<Endpoint>> {
        let endpoints = self.upstream.endpoints();
        if self.cluster.is_some() {
            return endpoints.into_iter().find(|endpoint| endpoint.fit().has(WRITES));
        }
        let same = endpoints.iter().find(|endpoint| endpoint.key() == self.endpoint.key());
        match (same, &endpoints[..]) {
            (Some(same), _) => Some(same.clone()),
            (None, [only]) => Some(only.clone()),
            _ => None,
        }
    }
}

/// A shared listener.
#[derive(Debug)]
pub(super) struct Hub {
    key: Key,
    // Held for a few instructions: for each notification, and for each ticket.
    #[allow(clippy::disallowed_types)]
    state: std::sync::Mutex<State>,
    progress: watch::Sender<Progress>,
    /// There is something to do.
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Who listens, by where their inboxes lie, and to what.
    members: HashMap<usize, (Arc<Inbox>, Channels)>,
    by_channel: HashMap<Box<[u8]>, HashMap<usize, Arc<Inbox>>>,
    /// Who is to listen from the round of this ticket on.
    coming: Vec<(u64, Arc<Inbox>, Channels)>,
    /// What is listened to may have to change.
    is_stale: bool,
    /// The last ticket.
    tickets: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    /// It has not been connected yet.
    #[default]
    Opening,
    Open,
    /// It was, and tries again.
    Lost,
    /// It is no more: another takes its place.
    Over,
}

/// Up to which ticket all is done, and up to which it was in vain.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    done: u64,
    failed: u64,
}

#[allow(clippy::disallowed_types)] // held for a look-up, once for each client that begins to listen
static HUBS: LazyLock<std::sync::Mutex<HashMap<Key, Arc<Hub>>>> = LazyLock::new(Default::default);

/// So many listeners there may be; clients beyond keep their servers.
const HUBS_MAX: usize = 64;

/// The longest wait for a ticket: two of them, and what else is asked between two clients, must find room
/// before a client is given up for it.
const TICKET_WITHIN: Duration = Duration::from_secs(3);

/// How often a server is asked whether it is still there, and how long the answer to anything may take.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The pause before another try, and after how long without a server there are no more.
const PAUSE: Duration = Duration::from_millis(250);
const LOST_FOR: Duration = Duration::from_secs(60);

/// Servers send no longer message to who only listens.
const MESSAGE_MAX: usize = 64 * 1024;

impl Hub {
    /// The listener at `place`; where there is none, one that `run` is to run. `None` if there are too many,
    /// or nobody runs it.
    pub(super) fn at(place: &Place, run: impl FnOnce(Running) -> bool) -> Option<Arc<Self>> {
        let key = place.key();
        let mut hubs = HUBS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hubs.get(&key) {
            return Some(known.clone());
        }
        if hubs.len() >= HUBS_MAX {
            return None;
        }
        let (state, progress) = (Default::default(), watch::Sender::new(Progress::default()));
        let hub = Arc::new(Self { key: key.clone(), state, progress, wake: Notify::new() });
        if !run(Running { hub: hub.clone(), place: place.clone() }) {
            return None;
        }
        hubs.insert(key, hub.clone());
        Some(hub)
    }

    /// Whether it is the one for `place`.
    pub(super) fn is_at(&self, place: &Place) -> bool {
        self.key == place.key() && !self.is_over()
    }

    /// Whether another one has to take its place.
    pub(super) fn is_over(&self) -> bool {
        self.with(|state| state.phase) == Phase::Over
    }

    /// From the answer on `inbox` hears what is said in `channels`, and in no others; false if it does not.
    pub(super) async fn join(&self, inbox: &Arc<Inbox>, channels: &Channels) -> bool {
        let ticket = self.with(|state| {
            let ticket = state.ticket()?;
            state.coming.push((ticket, inbox.clone(), channels.clone()));
            state.is_stale = true;
            Some(ticket)
        });
        self.is_done(ticket).await
    }

    /// Returns when all has been heard that was committed before; false if that is not known.
    pub(super) async fn catch_up(&self) -> bool {
        let ticket = self.with(State::ticket);
        self.is_done(ticket).await
    }

    /// `inbox` hears nothing more.
    pub(super) fn leave(&self, inbox: &Arc<Inbox>) {
        self.with(|state| {
            state.coming.retain(|(_, coming, _)| !Arc::ptr_eq(coming, inbox));
            state.remove(place_of(inbox));
            state.is_stale = true;
        });
        self.wake.notify_one();
    }

    async fn is_done(&self, ticket: Option<u64>) -> bool {
        let Some(ticket) = ticket else { return false };
        self.wake.notify_one();
        let mut progress = self.progress.subscribe();
        match timeout(TICKET_WITHIN, progress.wait_for(|progress| progress.done >= ticket)).await {
            Ok(Ok(progress)) => progress.failed < ticket,
            _ => false,
        }
    }

    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All tickets were in vain.
    fn fail(&self, phase: Phase) {
        let tickets = self.with(|state| {
            state.phase = phase;
            state.coming.clear();
            state.tickets
        });
        self.progress.send_replace(Progress { done: tickets, failed: tickets });
    }

    /// Tells whom it concerns what the server said.
    fn tell(&self, body: &[u8]) {
        let Some((process, channel, said)) = backend::notification(body) else { return };
        let it = Arc::new(Notification { process, said: said.into() });
        self.with(|state| {
            for inbox in state.by_channel.get(channel).into_iter().flat_map(HashMap::values) {
                inbox.push(&it);
            }
        });
    }

    /// What is to be asked next, if anything; `always` asks even if there is nothing.
    fn round(&self, listening: &HashSet<Box<[u8]>>, always: bool) -> Option<Round> {
        let done = self.progress.borrow().done;
        self.with(|state| {
            if !state.is_stale && state.tickets == done && !always {
                return None;
            }
            let mut round = Round { upto: state.tickets, ..Round::default() };
            if std::mem::take(&mut state.is_stale) {
                let coming = state.coming.iter().flat_map(|(_, _, channels)| channels.iter());
                let wanted: HashSet<_> = state.by_channel.keys().chain(coming).cloned().collect();
                round.more = wanted.difference(listening).cloned().collect();
                round.less = listening.difference(&wanted).cloned().collect();
            }
            Some(round)
        })
    }

    /// A round was answered.
    fn answered(&self, round: &Round) {
        self.with(|state| {
            let (now, later) =
                std::mem::take(&mut state.coming).into_iter().partition(|it| it.0 <= round.upto);
            state.coming = later;
            let now: Vec<(u64, Arc<Inbox>, Channels)> = now;
            now.into_iter().for_each(|(_, inbox, channels)| state.add(inbox, channels));
        });
        self.progress.send_modify(|progress| progress.done = round.upto);
    }
}

impl State {
    /// The next ticket; `None` if there is nobody to work it off.
    fn ticket(&mut self) -> Option<u64> {
        if matches!(self.phase, Phase::Lost | Phase::Over) {
            return None;
        }
        self.tickets += 1;
        Some(self.tickets)
    }

    fn add(&mut self, inbox: Arc<Inbox>, channels: Channels) {
        let key = place_of(&inbox);
        self.remove(key);
        for channel in channels.iter() {
            self.by_channel.entry(channel.clone()).or_default().insert(key, inbox.clone());
        }
        self.members.insert(key, (inbox, channels));
        // What nobody listens to any more.
        self.is_stale = true;
    }

    fn remove(&mut self, key: usize) {
        let Some((_, channels)) = self.members.remove(&key) else { return };
        for channel in channels.iter() {
            if let Some(inboxes) = self.by_channel.get_mut(channel) {
                inboxes.remove(&key);
                if inboxes.is_empty() {
                    self.by_channel.remove(channel);
                }
            }
        }
    }
}

fn place_of(inbox: &Arc<Inbox>) -> usize {
    Arc::as_ptr(inbox) as usize
}

/// A query, and what it does.
#[derive(Debug, Default)]
struct Round {
    upto: u64,
    more: Vec<Box<[u8]>>,
    less: Vec<Box<[u8]>>,
}

impl Round {
    fn query(&self) -> Vec<u8> {
        let (mut sql, mut out) = (Vec::new(), Vec::new());
        push_listen(&mut sql, &self.more);
        self.less.iter().for_each(|channel| push_named(&mut sql, b"UNLISTEN ", channel));
        push_query(&mut out, &sql);
        out
    }

    fn apply(self, listening: &mut HashSet<Box<[u8]>>) {
        listening.extend(self.more);
        for channel in &self.less {
            listening.remove(channel);
        }
    }
}

/// A listener that somebody has to run.
pub(super) struct Running {
    hub: Arc<Hub>,
    place: Place,
}

impl Running {
    /// Listens until nobody wants it any more.
    pub(super) async fn run(self) {
        let (mut lost_at, mut before) = (None, false);
        loop {
            let error = match self.connect().await {
                Ok((mut line, endpoint, _row)) => {
                    lost_at = None;
                    match self.listen(&mut line, &endpoint, before).await {
                        Ok(()) => return,
                        Err(error) => {
                            before = true;
                            error
                        }
                    }
                }
                Err(error) => error,
            };
            let (upstream, since) = (self.place.upstream.name(), *lost_at.get_or_insert_with(Clock::now));
            tracing::warn!(upstream, %error, "the shared listener has no server");
            if !before || Clock::now().since(since) >= LOST_FOR {
                // Who waits for the first connection keeps its server; who listened is told the truth.
                return self.end(Some(End::Lost));
            }
            self.hub.fail(Phase::Lost);
            let changed = self.place.cluster.as_deref().map(|cluster| {
                cluster.suspect();
                cluster.changed()
            });
            // Both may be dropped.
            tokio::select! {
                () = sleep(PAUSE.mul_f64(0.5 + fastrand::f64())) => {}
                () = until(changed) => {}
            }
            if self.end_if_deserted() {
                return;
            }
        }
    }

    /// A connection to the server that is to be listened at.
    async fn connect(&self) -> io::Result<(Line, Arc<Endpoint>, Listed)> {
        let place = &self.place;
        let none = || io::Error::new(io::ErrorKind::AddrNotAvailable, "there is no server to listen at");
        let endpoint = place.server().ok_or_else(none)?;
        let login = &place.login;
        let connected = timeout(place.within, async {
            let _turn = knock(&endpoint.shared_label()).await;
            let (_, io) = dial_first(endpoint.addresses(), &endpoint.dial_options()).await?;
            let io = secured(io, login.tls.as_ref(), &endpoint.host()).await.map_err(io::Error::other)?;
            let mut line = Line::new(io);
            let parameters = [
                ((*b"client_encoding").into(), place.encoding.clone()),
                ((*b"application_name").into(), APPLICATION.as_bytes().into()),
            ];
            let login = LogIn { parameters: &parameters, ..login.log_in() };
            let ready = log_in(&mut line, &login).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((line, ready))
        });
        let (line, ready) = connected.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        let backend = ready.key.map(|key| Backend::new(key, &endpoint, login.tls.clone()));
        let row = Listed::list_listener(server::row(&endpoint, backend, &place.pool, &line.io));
        Ok((line, endpoint, row))
    }

    /// Listens over `line`; returns when nobody wants that any more. What was heard `before` has a gap now.
    ///
    /// # Errors
    /// The server is gone, or is not the one to listen at any more.
    async fn listen(&self, line: &mut Line, endpoint: &Arc<Endpoint>, before: bool) -> io::Result<()> {
        let Running { hub, place } = self;
        let mut listening = HashSet::new();
        hub.with(|state| (state.phase, state.is_stale) = (Phase::Open, true));
        let (mut asked, mut had_gap) = (None, !before);
        let mut rests = false;
        loop {
            if asked.is_none()
                && let Some(round) = hub.round(&listening, std::mem::take(&mut rests))
            {
                let written = timeout(ANSWER_WITHIN, line.write(&round.query())).await;
                written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
                asked = Some(round);
            }
            let changed = place.cluster.as_deref().map(Cluster::changed);
            if place.server().is_none_or(|server| server.key() != endpoint.key()) {
                return Err(io::Error::other("another server takes its place"));
            }
            let patience = if asked.is_some() { ANSWER_WITHIN } else { LOOK_EVERY };
            // All may be dropped: a message that came in part stays with the line.
            tokio::select! {
                message = line.message(MESSAGE_MAX) => match message? {
                    (kind::NOTIFICATION_RESPONSE, body) => hub.tell(&body),
                    (kind::ERROR_RESPONSE, body) => return Err(io::Error::other(said(&body))),
                    (kind::READY_FOR_QUERY, _) => if let Some(round) = asked.take() {
                        if !std::mem::replace(&mut had_gap, true) {
                            hub.with(|state| state.members.values().for_each(|(inbox, _)| inbox.push_gap()));
                        }
                        hub.answered(&round);
                        round.apply(&mut listening);
                    },
                    _ => {}
                },
                () = hub.wake.notified(), if asked.is_none() => {}
                () = until(changed) => {}
                () = sleep(patience) => {
                    if asked.is_some() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    if self.end_if_deserted() {
                        return Ok(());
                    }
                    rests = true;
                }
            }
        }
    }

    /// Ends it if nobody listens, nor is about to.
    fn end_if_deserted(&self) -> bool {
        let is_deserted = self.hub.with(|state| {
            let deserted = state.members.is_empty() && state.coming.is_empty();
            if deserted {
                state.phase = Phase::Over;
            }
            deserted
        });
        if is_deserted {
            self.end(None);
        }
        is_deserted
    }

    fn end(&self, why: Option<End>) {
        let mut hubs = HUBS.lock().unwrap_or_else(PoisonError::into_inner);
        if hubs.get(&self.hub.key).is_some_and(|known| Arc::ptr_eq(known, &self.hub)) {
            hubs.remove(&self.hub.key);
        }
        drop(hubs);
        self.hub.fail(Phase::Over);
        if let Some(why) = why {
            self.hub.with(|state| state.members.values().for_each(|(inbox, _)| inbox.end(why)));
        }
    }
}

/// Returns when it is so; never if there is nothing to wait for.
async fn until(changed: Option<tokio::sync::futures::Notified<'_>>) {
    match changed {
        Some(changed) => changed.await,
        None => std::future::pending().await,
    }
}
