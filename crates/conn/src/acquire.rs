//! An upstream connection for an exchange: as far as it comes without a wait, in line, and all the way.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose, format_duration};
use tieline_policy::Permit;
use tieline_pool::{Ask, AtOnce, Event, Granted, InLine, Lease, Place, Why};
use tieline_registry::{Chosen, UpstreamRow, Verdict};
use tieline_transport::Io;

use crate::connection::{Connection, no_route};
use crate::snapshot::Route;

impl Connection {
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
        self.acquire_while(route, permit, ask, Some(io), started).await
    }

    /// The same for those who look themselves whether the client is still there.
    ///
    /// # Errors
    /// As of [`Connection::acquire`].
    pub async fn acquire_unwatched(
        &self,
        route: &Route,
        permit: &Permit,
        ask: Ask,
        started: Moment,
    ) -> Result<Lease, Fault> {
        self.acquire_while(route, permit, ask, None, started).await
    }

    async fn acquire_while(
        &self,
        route: &Route,
        permit: &Permit,
        ask: Ask,
        io: Option<&Io>,
        started: Moment,
    ) -> Result<Lease, Fault> {
        let record = self.record();
        record.enter(Stage::Acquire, started);
        let (Some(upstream), Some(row)) = (&route.upstream, &route.row.upstream) else {
            return Err(no_route());
        };
        let mut why = None;
        let mut observe = |event: Event<'_>| self.observe(event, row, &mut why);
        let leased = match upstream.lease_at_once(permit, &ask, started, &mut observe) {
            Ok(AtOnce::Lent(lease)) => Ok(lease),
            Ok(AtOnce::Waits(leasing)) => {
                // Boxed: it takes its room only while something is waited for.
                unless_broken(Box::pin(leasing.run(&mut observe)), io).await
            }
            Err(fault) => Err(fault),
        };
        let acquired_at = leased.as_ref().map_or_else(|_| Clock::now(), Lease::connected_at);
        row.acquired(record.worker(), acquired_at.since(started));
        leased.inspect(|lease| self.note_leaving(lease, route, &ask))
    }

    /// An upstream connection that need not be waited for, if there is one: the same without a wait, for
    /// those who would rather do something else meanwhile.
    pub fn acquire_at_once(
        &self,
        route: &Route,
        permit: &Permit,
        ask: &Ask,
        started: Moment,
    ) -> Option<Lease> {
        self.record().enter(Stage::Acquire, started);
        let (upstream, row) = (route.upstream.as_ref()?, route.row.upstream.as_ref()?);
        let mut why = None;
        let mut observe = |event: Event<'_>| self.observe(event, row, &mut why);
        // What would have to be waited for is let go of.
        let leased = upstream.lease_at_once(permit, ask, started, &mut observe);
        let Ok(AtOnce::Lent(lease)) = leased else { return None };
        row.acquired(self.record().worker(), Duration::ZERO);
        self.note_leaving(&lease, route, ask);
        Some(lease)
    }

    /// The same from `started` on for those who can stand in line by themselves and have better to do
    /// meanwhile than to await: as far as it comes without a wait.
    pub fn acquire_or_line_up(&self, route: &Route, permit: &Permit, ask: &Ask, started: Moment) -> InLine {
        self.record().enter(Stage::Acquire, started);
        let (Some(upstream), Some(row)) = (&route.upstream, &route.row.upstream) else {
            return InLine::Nowhere;
        };
        let mut why = None;
        let mut observe = |event: Event<'_>| match event {
            // To stand in line is no news to them.
            Event::Queued { .. } => {}
            event => self.observe(event, row, &mut why),
        };
        let leased = upstream.lease_or_line_up(permit, ask, started, &mut observe);
        // Whoever has the wrong permit is told so where there is time for it.
        let leased = leased.unwrap_or(InLine::Nowhere);
        if let InLine::Lent(lease) = &leased {
            row.acquired(self.record().worker(), Duration::ZERO);
            self.note_leaving(lease, route, ask);
        }
        leased
    }

    /// Behind [`Connection::acquire_or_line_up`], once `place` was granted, at `now`.
    ///
    /// # Errors
    /// More has to be waited for ([`Connection::acquire_granted`]).
    pub fn take_granted(
        &self,
        route: &Route,
        place: Place,
        ask: &Ask,
        (started, now): (Moment, Moment),
    ) -> Result<Lease, Option<Granted>> {
        let (Some(upstream), Some(row)) = (&route.upstream, &route.row.upstream) else { return Err(None) };
        let mut why = None;
        let mut observe = |event: Event<'_>| self.observe(event, row, &mut why);
        let lease = upstream.take_granted(place, ask, now, &mut observe)?;
        row.acquired(self.record().worker(), now.since(started));
        self.note_leaving(&lease, route, ask);
        Ok(lease)
    }

    /// The rest of the wait for an upstream connection that began at `started`, with a place that was
    /// granted. Whether the client is still there is its caller's to look at.
    ///
    /// # Errors
    /// No endpoint answers.
    pub async fn acquire_granted(
        &self,
        route: &Route,
        granted: Granted,
        ask: &Ask,
        started: Moment,
    ) -> Result<Lease, Fault> {
        let (Some(upstream), Some(row)) = (&route.upstream, &route.row.upstream) else {
            return Err(no_route());
        };
        let mut why = None;
        let mut observe = |event: Event<'_>| self.observe(event, row, &mut why);
        let leasing = upstream.lease_granted(granted, ask, Clock::now());
        let leased = Box::pin(leasing.run(&mut observe)).await;
        row.acquired(self.record().worker(), Clock::now().since(started));
        leased.inspect(|lease| self.note_leaving(lease, route, ask))
    }

    /// Has the connection leave with its endpoint.
    fn note_leaving(&self, lease: &Lease, route: &Route, ask: &Ask) {
        // Who came back to a drained endpoint is one of its own.
        let drained = lease.endpoint().is_drained() && ask.wish != Some(lease.endpoint().key());
        if lease.endpoint().is_leaving() || drained {
            // It left or was drained while it was dialed: who did it could not find this row yet.
            let verdict = Verdict { at: Clock::now().after(route.row.grace), reason: Reason::Drained };
            self.record().end(verdict);
        }
    }

    /// Puts what the pool tells into the connection's story.
    fn observe(&self, event: Event<'_>, upstream: &UpstreamRow, last_why: &mut Option<Why>) {
        match event {
            Event::Chosen { why, .. } => *last_why = Some(why),
            Event::Connected { endpoint, after } => {
                upstream.connected(self.record().worker(), after);
                let why: Box<dyn Display + Send + Sync> = match last_why.take() {
                    Some(why) => Box::new(why),
                    None => Box::new("chosen before"),
                };
                self.record().set_chosen(Chosen { endpoint: endpoint.shared_label(), why });
            }
            Event::Reused { endpoint } => {
                let why = last_why.take();
                self.record().set_endpoint(endpoint.label_ref(), || Box::new(Reused(why)));
            }
            Event::Queued { ahead } => self.record().note(format!("waits for a place, {ahead} ahead")),
            Event::Failed { endpoint, error, after } => {
                let after = format_duration(after);
                self.record().note(format!("endpoint {} failed after {after}: {error}", endpoint.label()));
            }
        }
    }
}

/// What `leased` comes to, unless the client at `io` breaks off.
async fn unless_broken(
    leased: impl Future<Output = Result<Lease, Fault>>,
    io: Option<&Io>,
) -> Result<Lease, Fault> {
    let Some(io) = io else { return leased.await };
    tokio::select! {
        biased;
        leased = leased => leased,
        () = io.broken() => Err(Fault::new(Stage::Acquire, Whose::Client, Reason::ClientReset)),
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
