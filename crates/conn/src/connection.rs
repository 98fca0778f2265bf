//! A connection as its protocol sees it, and the exchanges it opens.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tieline_base::{ClientAddr, Clock, Fault, Generation, Moment, Proved, Reason, Stage, Whose};
use tieline_policy::{Identity, Permit, Subject};
use tieline_pool::balance::stable_key;
use tieline_pool::{Ask, Lease, Reuse};
use tieline_registry::{Exchanged, Record, Verdict};
use tieline_transport::tls::{Handshake, ServerTls, accept_tls_after};
use tieline_transport::{Hello, Io};

use crate::admission::Slot;
use crate::path::{still_proved, unshaken};
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

    /// Whether its clients ask for TLS, and prove who they are, in its own words: the road leaves both to
    /// [`Connection::secure`] and [`Connection::prove`].
    fn settles_itself(&self) -> bool {
        false
    }

    /// Why it would not let the client of a live connection in again; `None` if it would.
    fn disowns(&self, _record: &Record) -> Option<String> {
        None
    }

    /// Whether its connections end by themselves, at their next safe point, when they are asked to leave.
    fn leaves_when_asked(&self) -> bool {
        false
    }

    /// Whether its connections are the way of others', which have rows of their own: a stop ends them when
    /// those have ended, and gives them as long as it gives those.
    fn carries_others(&self) -> bool {
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
            Identity::Proved(Arc::new(Proved { name, by: by.into(), groups: Vec::new(), certificates }))
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

    /// Whether it is to end at its next safe point; never one that is part of another, which ends with that.
    pub fn is_leaving(&self) -> bool {
        self.record.leaving().is_some() && !self.is_inside()
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

    /// Ends TLS here, where clients ask for it in the words of their protocol; `opening` was read of it
    /// already. Who a client certificate proves is its identity from here on. Without a deadline: the caller
    /// has one.
    ///
    /// # Errors
    /// The handshake fails.
    pub async fn secure(&mut self, io: Io, opening: Vec<u8>, tls: &ServerTls) -> Result<Io, Fault> {
        let worker = self.worker.clone();
        let turn = worker.handshakes().turn();
        let (io, shaken) = accept_tls_after(io, opening, tls, turn).await.map_err(unshaken)?;
        let hello = self.first.take().and_then(|first| Rc::try_unwrap(first).ok());
        let hello = hello.map(|first| first.hello).unwrap_or_default();
        let mut first = First { hello, tls: Some(shaken) };
        self.identity = first.take_identity();
        self.first = Some(Rc::new(first));
        Ok(io)
    }

    /// Waits for its turn among the first steps of connections on this worker: one takes a step, then
    /// whatever else is ready has its own, so that many who log in at once keep nobody else waiting.
    pub async fn turn(&self) {
        self.worker.handshakes().turn().await;
    }

    /// It speaks for `identity` from here on, proved in the words of its protocol; `by` is what judged its
    /// certificates, if it showed any.
    ///
    /// # Errors
    /// What was proved is refuted by the config that is in force now.
    pub fn prove(&mut self, identity: Identity, by: Option<&Arc<ServerTls>>) -> Result<(), Fault> {
        if let Some(proved) = identity.proved() {
            still_proved(&self.record.listener().name, by, &self.worker, proved)?;
        }
        self.record.set_proved(identity.clone());
        self.identity = identity;
        Ok(())
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

    /// The same from `now` on, which the clock was read for already.
    pub fn expect_from(&self, now: Moment, within: Duration, reason: Reason) {
        self.record.touch(now);
        self.record.expect(within, reason);
    }

    /// What was expected and did not come in time.
    pub fn overdue(&self) -> Option<Reason> {
        let end = self.record.patience();
        // Nearly always it is far away, which the cheaper clock tells: it is behind by a tick at the most.
        let near = end.at <= Clock::coarse().after(TICK_MAX);
        (near && end.at <= Clock::now()).then_some(end.reason)
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
        let permit = self.decide(route.as_ref(), client, now)?;
        let route = route.ok_or_else(no_route)?;
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
        route: Option<&Arc<Route>>,
        client: ClientAddr,
        now: Moment,
    ) -> Result<Permit, Fault> {
        let record = &self.record;
        record.enter(Stage::Route, now);
        let route = route.ok_or_else(no_route)?;
        record.set_route(&route.row);

        record.enter(Stage::Authorize, now);
        let permit = self.authorize(route, client)?;
        if let Some(schedule) = &route.schedule {
            record.schedule(scheduled(schedule, route)?);
        }
        Ok(permit)
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

/// More than the kernel's tick: by so much, at the most, [`Clock::coarse`] is behind.
const TICK_MAX: Duration = Duration::from_millis(100);

pub(crate) fn no_route() -> Fault {
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
