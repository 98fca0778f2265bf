//! What a lease has to do that cannot be had at once: waiting for a place, and dialing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Clock, EndpointAddr, Fault, Moment, Reason, Whose};
use tieline_transport::tls::{Alpn, TlsConnectError, connect_tls};
use tieline_transport::{DialOptions, Io, dial, dial_first, is_exhaustion};
use tokio::time::timeout;

use crate::at_once::Seat;
use crate::balance::NoChoice;
use crate::balance::Standing;
use crate::endpoint::Endpoint;
use crate::idle::Making;
use crate::knock::{Knock, knock, knock_at_once};
use crate::lease::{Ask, Event, Lease, LeaseError, fault};
use crate::load::penalty;
use crate::loan::Loan;
use crate::outlier::Failure;
use crate::place::{Granted, Place};
use crate::purpose::Purpose;
use crate::retry::backoff;
use crate::settings::{RetrySettings, Secured, Settings};
use crate::state::EndpointId;
use crate::trunk::{self, NoRoom, Trunking};
use crate::upstream::Upstream;

/// One ask on its way to a connection. Dropping it gives back what it has.
pub struct Leasing<'a> {
    upstream: &'a Arc<Upstream>,
    place: Place,
    ask: Ask,
    /// Where it may dial at once: an endpoint was chosen, and none of its connections rests.
    seat: Option<Loan>,
    /// When it began.
    since: Moment,
    /// Endpoints that failed it.
    tried: Vec<EndpointId>,
    deadline: Moment,
    /// When it waits no longer for others.
    until: Moment,
    settings: Arc<Settings>,
    retries: u32,
}

/// What a seat comes to.
enum Sat {
    /// A connection rested there.
    Lent(Lease),
    /// None did.
    Dials(Loan),
}

/// What comes of a wait before an endpoint's door.
enum Door {
    /// It opens.
    Open(Loan, Option<Knock>),
    /// A connection came to rest there meanwhile.
    Lent(Lease),
    /// The endpoint is none to wait for any more.
    Shut,
}

/// The first wait before an endpoint is tried a second time, and the longest.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

impl<'a> Leasing<'a> {
    pub(crate) fn begin(
        upstream: &'a Arc<Upstream>,
        settings: &Arc<Settings>,
        ask: Ask,
        now: Moment,
    ) -> Self {
        let until = now.after(settings.acquire);
        let until = ask.until.map_or(until, |own| own.min(until));
        Leasing {
            upstream,
            place: Place::none(upstream, (ask.priority, ask.purpose, ask.share), until),
            ask,
            seat: None,
            since: now,
            tried: ask.tried.ids(),
            deadline: now.after(settings.connect),
            until,
            settings: Arc::clone(settings),
            retries: 0,
        }
    }

    /// The same, with the seat that it has already.
    pub(crate) fn seated(mut self, seat: Seat) -> Self {
        self.place.ticket = seat.ticket;
        self.place.spent = true;
        self.seat = Some(seat.loan);
        self
    }

    /// The same, with a place that it has waited for already.
    pub(crate) fn granted(mut self, granted: Granted) -> Self {
        self.place = granted.place;
        self.place.spent = granted.seat.is_some();
        self.seat = granted.seat;
        self
    }

    /// Waits for a place, chooses an endpoint and dials it; if that fails, others, while time, attempts and
    /// the retry budget last. Safe to drop at any point.
    ///
    /// # Errors
    /// As of [`Upstream::lease`].
    pub async fn run(mut self, observe: &mut impl FnMut(Event<'_>)) -> Result<Lease, Fault> {
        let mut now = self.since;
        if self.place.ticket.is_none() && self.seat.is_none() && self.upstream.gate().is_governed() {
            self.admit(now)?;
            // What is rare is boxed, here and below, so that the usual lease is small while it is dialed.
            Box::pin(self.some_endpoint()).await?;
            let waited = Box::pin(self.place.wait(observe)).await;
            self.waited(now);
            waited?;
            // The wait for a place is over, and connecting has its own time.
            now = Clock::now();
        }
        self.deadline = now.after(self.settings.connect);
        self.upstream.earn(&self.ask, &self.settings);
        loop {
            let loan = match self.sit(now, observe) {
                Ok(Sat::Lent(lease)) => return Ok(lease),
                Ok(Sat::Dials(loan)) => loan,
                Err(none) => {
                    Box::pin(self.until_seats(none, observe)).await?;
                    now = Clock::now();
                    continue;
                }
            };
            let (loan, knock) = match self.settings.few_at_once {
                false => (loan, None),
                true => match Box::pin(self.door(loan, &mut now, observe)).await? {
                    Door::Open(loan, knock) => (loan, knock),
                    Door::Lent(lease) => return Ok(lease),
                    Door::Shut => continue,
                },
            };
            let dialed = self.dial(loan.endpoint(), now).await;
            let (begun, ended) = (now, Clock::now());
            let after = ended.since(begun);
            let endpoint = loan.endpoint();
            match dialed {
                Ok((io, making)) => {
                    endpoint.connected();
                    observe(Event::Connected { endpoint, after });
                    let making = making.unwrap_or_else(|| Making {
                        born: ended,
                        tls: self.settings.tls.clone(),
                        kept: None,
                    });
                    return Ok(Lease { io, loan, connected_at: ended, making, knock });
                }
                Err(error) => {
                    drop(knock);
                    observe(Event::Failed { endpoint, error: &error, after });
                    Box::pin(self.failed(loan, error)).await?;
                    now = Clock::now();
                }
            }
        }
    }

    /// Waits for a turn at the endpoint's door. The time that connecting may take begins behind that.
    async fn door(
        &mut self,
        loan: Loan,
        now: &mut Moment,
        observe: &mut impl FnMut(Event<'_>),
    ) -> Result<Door, Fault> {
        let endpoint = Arc::clone(loan.endpoint());
        let label = endpoint.shared_label();
        if let Some(knock) = knock_at_once(&label) {
            return Ok(Door::Open(loan, Some(knock)));
        }
        let knock = timeout(self.until.since(Clock::now()), knock(&label)).await;
        // A wait for others that are let in there says nothing of the endpoint.
        let knock = knock.map_err(|_| fault(Whose::Us, Reason::TimeoutAcquire))?;
        let began = std::mem::replace(now, Clock::now());
        self.deadline = self.deadline.after(now.since(began));
        if let Some((io, making)) = self.upstream.at_hand(&endpoint, &self.ask, &self.settings, *now) {
            observe(Event::Reused { endpoint: &endpoint });
            return Ok(Door::Lent(Lease { io, loan, connected_at: *now, making, knock: None }));
        }
        let is_hopeful =
            endpoint.standing(*now) == Standing::Healthy && endpoint.is_fit_for(self.ask.purpose);
        if !is_hopeful && self.hopeful(*now) > 0 {
            // Those before it have seen it fail, and there are others.
            loan.back_to(&mut self.place);
            return Ok(Door::Shut);
        }
        Ok(Door::Open(loan, Some(knock)))
    }

    /// Refuses who is not important enough, before anything is spent on it.
    fn admit(&self, now: Moment) -> Result<(), Fault> {
        let Some(target) = self.settings.pool.shed else { return Ok(()) };
        let Ask { priority, user, .. } = self.ask;
        if self.upstream.load.admits(priority, user, target, now) {
            return Ok(());
        }
        self.upstream.load.count_shed();
        Err(fault(Whose::Us, Reason::LimitShed))
    }

    /// The wait for a place that began then is over.
    fn waited(&self, since: Moment) {
        if let Some(target) = self.settings.pool.shed {
            let now = Clock::now();
            self.upstream.load.waited(now.since(since), target, now);
        }
    }

    /// How many more endpoints may be dialed.
    fn retries_left(&self) -> u32 {
        let RetrySettings { attempts, connect, .. } = self.settings.retry;
        let made = self.retries + self.ask.tried.count();
        if connect { attempts.saturating_sub(made) } else { 0 }
    }

    /// Takes a seat, and what rests at it.
    fn sit(&mut self, now: Moment, observe: &mut impl FnMut(Event<'_>)) -> Result<Sat, NoChoice> {
        if let Some(loan) = self.seat.take() {
            return Ok(Sat::Dials(loan));
        }
        let (endpoint, why) = self.upstream.seat(self.place.ticket, &self.ask, &self.tried, now)?;
        self.place.spent = true;
        let loan = Loan::at(self.upstream, endpoint, self.ask.share);
        observe(Event::Chosen { endpoint: loan.endpoint(), why });
        Ok(match self.upstream.at_hand(loan.endpoint(), &self.ask, &self.settings, now) {
            Some((io, making)) => {
                observe(Event::Reused { endpoint: loan.endpoint() });
                Sat::Lent(Lease { io, loan, connected_at: now, making, knock: None })
            }
            None => Sat::Dials(loan),
        })
    }

    /// Waits where no seat was to be had: endpoints have closed since the place was granted, or caps have
    /// come up since none was needed.
    async fn until_seats(
        &mut self,
        none: NoChoice,
        observe: &mut impl FnMut(Event<'_>),
    ) -> Result<(), Fault> {
        match none {
            NoChoice::Full => self.place.wait(observe).await,
            NoChoice::Empty => self.some_endpoint().await,
        }
    }

    /// Returns when there is an endpoint to be tried: at once, or when a name that was never asked for has
    /// its answer.
    async fn some_endpoint(&self) -> Result<(), Fault> {
        let mut changes = self.upstream.changes();
        loop {
            let now = Clock::now();
            let unresolved = {
                let roster = self.upstream.roster();
                if roster.selection(now, self.ask.purpose).is_some() {
                    return Ok(());
                }
                if let Some(until) = roster.opens_at(now) {
                    let (upstream, after) = (self.upstream.name().to_owned(), until.since(now));
                    let error = LeaseError::BreakersOpen { upstream, after };
                    return Err(fault(Whose::Upstream, Reason::RefusedBreaker).because(error));
                }
                roster.unresolved
            };
            let patience = self.deadline.since(now);
            let changed = unresolved && matches!(timeout(patience, changes.changed()).await, Ok(Ok(())));
            if !changed {
                let name = self.upstream.name().to_owned();
                let others = self.upstream.roster().selection(now, Purpose::USUAL).is_some();
                let error = if others { LeaseError::NoneFit(name) } else { LeaseError::NoEndpoint(name) };
                return Err(fault(Whose::Upstream, Reason::Unreachable).because(error));
            }
        }
    }

    /// Whether the lease may share a connection.
    fn trunking(&self) -> Option<Trunking> {
        self.settings.trunks.filter(|trunking| trunking.serves(self.ask.reuse))
    }

    /// Dials, with a fair share of the time that is left: an endpoint that swallows everything leaves time
    /// for others. Without a making it is as the settings say.
    async fn dial(&self, endpoint: &Arc<Endpoint>, now: Moment) -> io::Result<(Io, Option<Making>)> {
        let share = self.share(now);
        let Settings { tls, dial: options, .. } = &*self.settings;
        let dialed = match (endpoint.addresses(), tls, self.trunking()) {
            ([only], None, None) => timeout(share, dial(only, options)).await,
            // Boxed, so that the usual endpoint does not pay for the room that the race of two takes, or TLS.
            (all, _, None) => {
                let offer = self.settings.trunks.map(|trunking| trunking.offered_alone(self.ask.reuse));
                let dialed = dial_any(endpoint, all, tls, offer, options);
                Box::pin(timeout(share, dialed)).await.map(|dialed| dialed.map(|(io, _)| io))
            }
            (_, _, Some(trunking)) => {
                let joined = Box::pin(trunk::join(endpoint, &self.settings, trunking, share)).await;
                return joined.map(|(io, making)| (io, Some(making)));
            }
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {share:.1?}"));
        Ok((dialed.map_err(late)??, None))
    }

    /// How long the next endpoint may take.
    fn share(&self, now: Moment) -> Duration {
        let left = self.deadline.since(now);
        match self.retries_left() {
            0 => left,
            // This one is among the hopeful ones, unless health is disregarded.
            more => {
                left / u32::try_from(self.hopeful(now)).unwrap_or(u32::MAX).clamp(1, more.saturating_add(1))
            }
        }
    }

    /// Gives up an endpoint that failed; returns if another attempt may be made.
    async fn failed(&mut self, loan: Loan, error: io::Error) -> Result<(), Fault> {
        let endpoint = Arc::clone(loan.endpoint());
        loan.back_to(&mut self.place);
        if NoRoom::of(&error).is_some() {
            return Err(unreachable(&endpoint, error));
        }
        if !is_exhaustion(&error) {
            let took = penalty(Duration::ZERO, None);
            self.upstream.failed(&endpoint, Failure::Connect, &error.to_string(), took);
        }
        let again = self.tried.contains(&endpoint.id);
        if !again {
            self.tried.push(endpoint.id);
        }
        let now = Clock::now();
        let may = self.retries_left() > 0 && now < self.deadline && self.upstream.pays_retry(now);
        if !may {
            return Err(unreachable(&endpoint, error));
        }
        self.retries += 1;
        if self.hopeful(now) == 0 {
            // Who has just failed is asked again: not at once.
            let pause = backoff(self.retries, BACKOFF, BACKOFF_MAX, fastrand::u64(..));
            tokio::time::sleep(pause.min(self.deadline.since(now))).await;
        }
        Ok(())
    }

    fn hopeful(&self, now: Moment) -> usize {
        self.upstream.roster().hopeful(now, self.ask.purpose, &self.tried)
    }
}

/// Connects to the first of `addresses` that answers. What is agreed on by TLS is one of `offer`, or without
/// an offer what the settings say.
pub(crate) async fn dial_any(
    endpoint: &Endpoint,
    addresses: &[EndpointAddr],
    tls: &Option<Secured>,
    offer: Option<Vec<Alpn>>,
    options: &DialOptions,
) -> io::Result<(Io, Option<Alpn>)> {
    let (_, io) = dial_first(addresses, options).await?;
    let Some(Secured(tls)) = tls else { return Ok((io, None)) };
    connect_tls(io, tls, &endpoint.host(), offer).await.map_err(|error| match error {
        TlsConnectError::Io(error) => error,
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    })
}

pub(crate) fn unreachable(endpoint: &Endpoint, error: io::Error) -> Fault {
    let (whose, reason) = match error.kind() {
        _ if NoRoom::of(&error) == Some(NoRoom::InLine) => (Whose::Us, Reason::LimitQueue),
        _ if NoRoom::of(&error).is_some() => (Whose::Us, Reason::TimeoutAcquire),
        _ if is_exhaustion(&error) => (Whose::Us, Reason::Exhausted),
        io::ErrorKind::TimedOut => (Whose::Upstream, Reason::TimeoutConnect),
        _ => (Whose::Upstream, Reason::Unreachable),
    };
    fault(whose, reason).because(LeaseError::Dial { endpoint: endpoint.label().to_owned(), error })
}
