//! A connection as its protocol sees it, and the exchanges it opens.

use std::any::Any;
use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tieline_base::{
    ClientAddr, Clock, Fault, Generation, Moment, Proved, Reason, Stage, Whose, format_duration,
};
use tieline_policy::{Identity, Permit, Subject};
use tieline_pool::balance::stable_key;
use tieline_pool::{Ask, Event, Lease, Reuse, Why};
use tieline_registry::{Chosen, Exchanged, Record, UpstreamRow, Verdict};
use tieline_transport::tls::Handshake;
use tieline_transport::{Hello, Io};

use crate::admission::Slot;
use crate::snapshot::{HashBy, Route};
use crate::worker::Worker;

/// How a connection ended: in order and why, or by a fault.
pub type Outcome = Result<Reason, Fault>;

/// A protocol's work on one connection: one box, and no more, for each.
pub type Serving = Pin<Box<dyn Future<Output = Outcome>>>;

/// What bytes mean. Plugged in above; the road knows none by name.
pub trait Protocol: Any + Send + Sync {
    /// Serves one connection to its end. The future may be dropped at any await: its sockets then close.
    fn serve(&self, connection: Connection, io: Io) -> Serving;

    /// Whether it routes by the server name of a TLS hello that passes through.
    fn reads_hello(&self) -> bool {
        false
    }

    /// Whether its connections end by themselves, at their next safe point, when they are asked to leave.
    fn leaves_when_asked(&self) -> bool {
        false
    }

    /// The route that the exchange of a live connection would take by this config; `None` if there is none
    /// any more.
    fn route_of(&self, record: &Record) -> Option<Arc<Route>>;
}

/// One conversation with a client, past its first bytes.
pub struct Connection {
    worker: Rc<Worker>,
    record: Arc<Record>,
    identity: Identity,
    // Apart: most connections begin without one. Shared with the connections inside this one.
    first: Option<Rc<First>>,
    // None inside another one: that one holds the place.
    slot: Option<Slot>,
}

/// What a connection began with: its first bytes, and what TLS agreed on where it ended here.
pub(crate) struct First {
    pub(crate) hello: Hello,
    pub(crate) tls: Option<Handshake>,
}

impl First {
    /// The server that was asked for, in lower case.
    pub(crate) fn server_name(&self) -> Option<&str> {
        let shaken = self.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        shaken.or(self.hello.server_name.as_deref())
    }

    /// Who the client proved to be. The certificate is taken: the identity holds what is needed of it.
    pub(crate) fn take_identity(&mut self) -> Identity {
        let shown = self.tls.as_mut().and_then(|tls| tls.client_certificate.take());
        shown.map_or(Identity::Anonymous, |shown| {
            let by = format!("certificate {} ({})", shown.serial, shown.subject);
            let (name, certificates) = (shown.holder.into(), shown.chain);
            Identity::Proved(Arc::new(Proved { name, by: by.into(), certificates }))
        })
    }
}

/// What a connection still holds once its exchanges are open: its row, and its counted place at the listener.
pub struct Held {
    /// Its row in the live table.
    pub record: Arc<Record>,
    _slot: Option<Slot>,
}

/// One unit of work: its route, the permit that opened it, and an upstream connection on loan.
pub struct Exchange {
    /// The route that matched.
    pub route: Arc<Route>,
    /// Proof that policy said yes.
    pub permit: Permit,
    /// The upstream connection.
    pub lease: Lease,
}

impl Connection {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        record: &Arc<Record>,
        identity: Identity,
        first: Option<Rc<First>>,
        slot: Slot,
    ) -> Self {
        Self { worker: worker.clone(), record: record.clone(), identity, first, slot: Some(slot) }
    }

    /// A connection inside this one, with a row of its own: it is who this one is.
    pub(crate) fn inside(&self, record: &Arc<Record>) -> Self {
        let (worker, identity) = (self.worker.clone(), self.identity.clone());
        Self { worker, record: record.clone(), identity, first: self.first.clone(), slot: None }
    }

    /// Whether it is part of another one.
    pub fn is_inside(&self) -> bool {
        self.record.parent().is_some()
    }

    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Its row in the live table.
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Lets go of all but the row and the place: for a protocol that opens no further exchange.
    pub fn into_held(self) -> Held {
        Held { record: self.record, _slot: self.slot }
    }

    /// Notes that one of its exchanges has ended.
    pub fn exchanged(&self, exchanged: Exchanged) {
        self.worker.registry().exchanged(&self.record, exchanged);
    }

    /// From now on a byte must move at least every `within`; the protocol learns of `reason` by
    /// [`Connection::overdue`], and if it does not act on it, the connection ends.
    pub fn expect(&self, within: Duration, reason: Reason) {
        self.record.touch(Clock::coarse());
        self.record.expect(within, reason);
    }

    /// What was expected and did not come in time.
    pub fn overdue(&self) -> Option<Reason> {
        let end = self.record.patience();
        (end.at <= Clock::now()).then_some(end.reason)
    }

    /// The bytes that were read while it settled, for the upstream to see first. Taken once.
    pub fn take_first_bytes(&mut self) -> Vec<u8> {
        let first = self.first.as_mut().and_then(Rc::get_mut);
        first.map(|first| std::mem::take(&mut first.hello.bytes)).unwrap_or_default()
    }

    /// Which config is in force now.
    pub fn generation(&self) -> Generation {
        self.worker.generation()
    }

    /// The protocol of its listener as the config in force now compiled it: where routes are looked up.
    ///
    /// # Errors
    /// A reload took the listener away.
    pub fn current<P: Protocol>(&self) -> Result<Arc<P>, Fault> {
        let view = self.worker.snapshot();
        let listener = view.listeners.get(&*self.record.listener().name);
        let protocol = listener.map(|listener| listener.protocol.clone() as Arc<dyn Any + Send + Sync>);
        protocol.and_then(|protocol| protocol.downcast().ok()).ok_or_else(no_route)
    }

    /// Opens one exchange by the route that the protocol found (`None`: it found none): the only way from a
    /// client to an upstream. `io` is watched meanwhile, so that a client that broke off gives its place in
    /// the queue to others.
    ///
    /// # Errors
    /// [`Fault`] with the reason that the client, the log and the metrics share.
    pub async fn open(&self, route: Option<Arc<Route>>, reuse: Reuse, io: &Io) -> Result<Exchange, Fault> {
        // What follows, up to the wait for an endpoint, takes no time worth telling apart.
        let now = Clock::now();
        let client = self.record.client();
        let (route, permit) = self.decide(route, client, now)?;
        let ask = Ask {
            hash: self.hash(&route.hash_by, client),
            reuse,
            priority: route.priority,
            user: Ask::user_of(client),
            ..Ask::default()
        };
        let lease = self.acquire(&route, &permit, ask, io, now).await?;
        Ok(Exchange { route, permit, lease })
    }

    /// The first half of [`Connection::open`]: whether an exchange for `client` may take `route`, `now`.
    ///
    /// # Errors
    /// Nothing leads there, or not for this client, or not at this time.
    pub fn decide(
        &self,
        route: Option<Arc<Route>>,
        client: ClientAddr,
        now: Moment,
    ) -> Result<(Arc<Route>, Permit), Fault> {
        let record = &self.record;
        record.enter(Stage::Route, now);
        let route = route.ok_or_else(no_route)?;
        record.set_route(&route.row);

        record.enter(Stage::Authorize, now);
        let permit = self.authorize(&route, client)?;
        if let Some(schedule) = &route.schedule {
            record.schedule(scheduled(schedule, &route)?);
        }
        Ok((route, permit))
    }

    /// Whether an exchange for `client` may take `route`, which is not noted as its own.
    ///
    /// # Errors
    /// Policy says no.
    pub fn authorize(&self, route: &Route, client: ClientAddr) -> Result<Permit, Fault> {
        let subject = Subject { client, identity: &self.identity };
        let denied =
            |error| Fault::new(Stage::Authorize, Whose::Client, Reason::RefusedPolicy).because(error);
        route.rule.decide(&subject).map_err(denied)
    }

    /// Does `work` beside the connection, which does not wait for it and may end before it; false if the
    /// worker does too much of that already.
    pub fn aside(&self, work: impl Future<Output = ()> + 'static) -> bool {
        self.worker.aside(work)
    }

    /// The server name that its TLS hello asks for, in lower case.
    pub fn server_name(&self) -> Option<&str> {
        self.first.as_ref()?.server_name()
    }

    /// Who was proved to speak.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What TLS agreed on, where it ended here.
    pub fn tls(&self) -> Option<&Handshake> {
        self.first.as_ref()?.tls.as_ref()
    }

    /// The second half of [`Connection::open`]: waits for an upstream connection, from `started` on.
    ///
    /// # Errors
    /// There is no place, or no endpoint answers.
    pub async fn acquire(
        &self,
        route: &Route,
        permit: &Permit,
        ask: Ask,
        io: &Io,
        started: Moment,
    ) -> Result<Lease, Fault> {
        let record = &self.record;
        record.enter(Stage::Acquire, started);
        let (Some(upstream), Some(row)) = (&route.upstream, &route.row.upstream) else {
            return Err(no_route());
        };
        let mut why = None;
        let mut observe = |event: Event<'_>| self.observe(event, row, &mut why);
        let leased = tokio::select! {
            biased;
            leased = upstream.lease(permit, ask, &mut observe) => leased,
            () = io.broken() => Err(Fault::new(Stage::Acquire, Whose::Client, Reason::ClientReset)),
        };
        let acquired_at = leased.as_ref().map_or_else(|_| Clock::now(), Lease::connected_at);
        row.acquired(record.worker(), acquired_at.since(started));
        let lease = leased?;
        // Who came back to a drained endpoint is one of its own.
        let drained = lease.endpoint().is_drained() && ask.wish != Some(lease.endpoint().key());
        if lease.endpoint().is_leaving() || drained {
            // It left or was drained while it was dialed: who did it could not find this row yet.
            record.end(Verdict { at: Clock::now().after(route.row.grace), reason: Reason::Drained });
        }
        Ok(lease)
    }

    /// Puts what the pool tells into the connection's story.
    fn observe(&self, event: Event<'_>, upstream: &UpstreamRow, last_why: &mut Option<Why>) {
        match event {
            Event::Chosen { why, .. } => *last_why = Some(why),
            Event::Connected { endpoint, after } => {
                upstream.connected(self.record.worker(), after);
                let why: Box<dyn Display + Send + Sync> = match last_why.take() {
                    Some(why) => Box::new(why),
                    None => Box::new("chosen before"),
                };
                self.record.set_chosen(Chosen { endpoint: endpoint.shared_label(), why });
            }
            Event::Reused { endpoint } => {
                let why = last_why.take();
                self.record.set_endpoint(endpoint.label_ref(), || Box::new(Reused(why)));
            }
            Event::Queued { ahead } => self.record.note(format!("waits for a place, {ahead} ahead")),
            Event::Failed { endpoint, error, after } => {
                let after = format_duration(after);
                self.record.note(format!("endpoint {} failed after {after}: {error}", endpoint.label()));
            }
        }
    }

    /// The key that the `hash` balance goes by, as far as it is the connection's: of what a request carries
    /// its protocol knows more.
    pub fn hash(&self, by: &HashBy, client: ClientAddr) -> u64 {
        match by {
            HashBy::Nothing => 0,
            HashBy::Remote | HashBy::Field(_) | HashBy::Cookie(_) => {
                client.ip().map_or(0, |ip| stable_key(&ip.to_string()))
            }
            HashBy::ServerName => stable_key(self.server_name().unwrap_or_default()),
        }
    }

    /// The addresses that a PROXY header to the upstream names: the client, and where it connected to.
    pub fn addresses(&self, io: &Io) -> Option<(std::net::SocketAddr, std::net::SocketAddr)> {
        let ClientAddr::Socket(source) = self.record.client() else { return None };
        let told = self.first.as_ref().and_then(|first| first.hello.destination);
        Some((source, told.or_else(|| io.local_address())?))
    }
}

/// Why an endpoint was chosen to which a connection was open.
struct Reused(Option<Why>);

impl Display for Reused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(why) = &self.0 {
            write!(f, "{why}; ")?;
        }
        f.write_str("over a connection that was open")
    }
}

fn no_route() -> Fault {
    Fault::new(Stage::Route, Whose::Client, Reason::RefusedNoRoute)
}

/// When the schedule of `route` will end a connection that starts now; a fault if it is closed.
fn scheduled(schedule: &tieline_config::Schedule, route: &Route) -> Result<Option<Verdict>, Fault> {
    let now = wall();
    if !schedule.is_open(now) {
        return Err(Fault::new(Stage::Authorize, Whose::Us, Reason::RefusedSchedule));
    }
    Ok(end_by_schedule(schedule, route, now))
}

/// When `schedule`, open at `now`, ends the connections of `route`; `None` if it never closes.
pub(crate) fn end_by_schedule(
    schedule: &tieline_config::Schedule,
    route: &Route,
    now: Timestamp,
) -> Option<Verdict> {
    let open_for = schedule.closes_at(now)?.duration_since(now).unsigned_abs();
    Some(Verdict { at: Clock::now().after(open_for).after(route.row.grace), reason: Reason::Schedule })
}

/// The wall clock, in the terms of schedules.
pub(crate) fn wall() -> Timestamp {
    Timestamp::try_from(Clock::wall()).unwrap_or(Timestamp::UNIX_EPOCH)
}
