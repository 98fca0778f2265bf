//! Leases: one upstream connection on loan, from the wait for a place to the giving back.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{ClientAddr, Clock, EndpointAddr, Fault, Moment, Priority, Reason, Stage, Whose};
use tieline_policy::Permit;
use tieline_transport::tls::{Alpn, TlsConnectError, connect_tls};
use tieline_transport::{DialOptions, Io, dial, dial_first, is_exhaustion};
use tokio::time::timeout;

use crate::balance::{NoChoice, Why};
use crate::endpoint::Endpoint;
use crate::idle::{Making, Reuse, Wanted};
use crate::load::{Tried, penalty};
use crate::loan::Loan;
use crate::outlier::Failure;
use crate::place::{Place, Seat};
use crate::retry::backoff;
use crate::settings::{RetrySettings, Secured, Settings};
use crate::state::EndpointId;
use crate::trunk::{self, NoRoom, Trunking};
use crate::upstream::Upstream;

/// What one lease is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ask {
    /// Asks with the same key go to the same endpoint, where the upstream balances by hash.
    pub hash: u64,
    /// The endpoint that is wanted before all others, by its [`Endpoint::key`]: it is chosen if it is up, and
    /// even if an operator drains it; not if it is full.
    pub wish: Option<u64>,
    /// Whether a connection will do that others have used.
    pub reuse: Reuse,
    /// How important it is, where others wait too.
    pub priority: Priority,
    /// Who asks: the same for all that one user asks, which lives or dies together where some is refused.
    pub user: u64,
    /// The endpoints that failed what the lease is for.
    pub tried: Tried,
}

impl Ask {
    /// The user that `client` is, as far as load control tells users apart: by their address.
    pub fn user_of(client: ClientAddr) -> u64 {
        match client.ip() {
            Some(IpAddr::V4(v4)) => u64::from(v4.to_bits()),
            // A site has a /64 at the least.
            Some(IpAddr::V6(v6)) => (v6.to_bits() >> 64) as u64,
            None => 0,
        }
    }
}

/// What happens on the way to a lease, for the connection's story.
#[derive(Debug)]
pub enum Event<'a> {
    /// The caps are reached; so many are ahead in the line.
    Queued {
        /// How many.
        ahead: usize,
    },
    /// This endpoint is dialed next.
    Chosen {
        /// The endpoint.
        endpoint: &'a Arc<Endpoint>,
        /// Why it and no other.
        why: Why,
    },
    /// A connection to this endpoint was open already.
    Reused {
        /// The endpoint.
        endpoint: &'a Arc<Endpoint>,
    },
    /// It did not answer; another is tried if there is time, budget and one to try.
    Failed {
        /// The endpoint.
        endpoint: &'a Arc<Endpoint>,
        /// What it or the kernel said.
        error: &'a io::Error,
        /// How long that took.
        after: Duration,
    },
    /// It answered.
    Connected {
        /// The endpoint.
        endpoint: &'a Arc<Endpoint>,
        /// How long that took.
        after: Duration,
    },
}

/// One upstream connection on loan: the connection, and the place that it takes. Dropping it closes the one
/// and gives back the other.
#[derive(Debug)]
pub struct Lease {
    io: Io,
    loan: Loan,
    connected_at: Moment,
    making: Making,
}

impl Lease {
    /// Parts the connection from its place: for those who join the connection with another.
    pub fn split(self) -> (Io, Loan) {
        (self.io, self.loan)
    }

    /// The endpoint it leads to. One that [`Endpoint::is_leaving`] by now left while it was being dialed.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.loan.endpoint()
    }

    /// When the endpoint answered, or its open connection was taken.
    pub fn connected_at(&self) -> Moment {
        self.connected_at
    }

    /// How the connection was made: for those who give it back.
    pub fn making(&self) -> &Making {
        &self.making
    }

    /// Whether others have used it.
    pub fn is_reused(&self) -> bool {
        self.making.born < self.connected_at
    }

    /// The upstream it belongs to.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.loan.upstream
    }
}

/// Why no connection was made: what an endpoint said, or that there is none to ask.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The endpoint did not answer.
    #[error("{endpoint}: {error}")]
    Dial {
        /// The endpoint that was tried last.
        endpoint: String,
        /// What it or the kernel said.
        error: io::Error,
    },
    /// The breakers of all endpoints are open.
    #[error("too much fails at upstream \"{upstream}\": the next endpoint is tried in {after:.1?}")]
    BreakersOpen {
        /// The upstream.
        upstream: String,
        /// For so long.
        after: Duration,
    },
    /// There is no endpoint to be tried.
    #[error("upstream \"{0}\" has no endpoint in use: its names do not resolve, or all are drained")]
    NoEndpoint(String),
    /// The permit is for another upstream.
    #[error("a permit for \"{permitted}\" does not open \"{upstream}\"")]
    WrongPermit {
        /// What the permit opens.
        permitted: String,
        /// What it was shown to.
        upstream: String,
    },
}

impl Upstream {
    /// Lends a connection: waits for a place under the caps, chooses an endpoint and dials it; if that fails,
    /// others, while time, attempts and the retry budget last. Tells `observe` of every step. Safe to drop at
    /// any point.
    ///
    /// # Errors
    /// A [`Fault`] of stage *acquire*: `limit:queue`, `limit:shed` and `timeout:acquire` at the caps,
    /// `refused:breaker` where all breakers are open, `timeout:connect` or
    /// `unreachable` when endpoints fail, `exhausted` when this machine lacks descriptors or ports,
    /// `internal` for a permit that names another upstream. Its source, where there is one, is a
    /// [`LeaseError`].
    pub async fn lease(
        self: &Arc<Self>,
        permit: &Permit,
        ask: Ask,
        observe: &mut impl FnMut(Event<'_>),
    ) -> Result<Lease, Fault> {
        if permit.upstream() != self.name() {
            let (permitted, upstream) = (permit.upstream().to_owned(), self.name().to_owned());
            let error = LeaseError::WrongPermit { permitted, upstream };
            return Err(fault(Whose::Us, Reason::Internal).because(error));
        }
        let mut now = Clock::now();
        let mut dialing = Dialing::begin(self, ask, now);
        if self.gate().is_governed() {
            dialing.admit(now)?;
            // What is rare is boxed, here and below, so that the usual lease is small while it is dialed.
            Box::pin(dialing.some_endpoint()).await?;
            let waited = Box::pin(dialing.place.wait(observe)).await;
            dialing.waited(now);
            waited?;
            // The wait for a place is over, and connecting has its own time.
            now = Clock::now();
        }
        dialing.run(now, observe).await
    }
}

/// One ask on its way to a connection.
struct Dialing<'a> {
    upstream: &'a Arc<Upstream>,
    place: Place<'a>,
    ask: Ask,
    /// Endpoints that failed it.
    tried: Vec<EndpointId>,
    deadline: Moment,
    settings: Arc<Settings>,
    retries: u32,
}

/// The first wait before an endpoint is tried a second time, and the longest.
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

impl<'a> Dialing<'a> {
    fn begin(upstream: &'a Arc<Upstream>, ask: Ask, now: Moment) -> Self {
        let settings = Arc::clone(&upstream.roster().settings);
        Dialing {
            upstream,
            place: Place::none(upstream, ask.priority, now.after(settings.acquire)),
            ask,
            tried: ask.tried.ids(),
            deadline: now.after(settings.connect),
            settings,
            retries: 0,
        }
    }

    async fn run(&mut self, mut now: Moment, observe: &mut impl FnMut(Event<'_>)) -> Result<Lease, Fault> {
        self.deadline = now.after(self.settings.connect);
        self.earn();
        loop {
            let (seat, why) = match self.seat(now) {
                Ok(seated) => seated,
                Err(none) => {
                    Box::pin(self.until_seats(none, observe)).await?;
                    now = Clock::now();
                    continue;
                }
            };
            observe(Event::Chosen { endpoint: &seat.endpoint, why });
            if let Some((io, making)) = self.at_hand(&seat.endpoint, now) {
                observe(Event::Reused { endpoint: &seat.endpoint });
                return Ok(Lease { io, loan: seat.into_loan(), connected_at: now, making });
            }
            let dialed = self.dial(&seat.endpoint, now).await;
            let (begun, ended) = (now, Clock::now());
            let after = ended.since(begun);
            match dialed {
                Ok((io, making)) => {
                    seat.endpoint.connected();
                    observe(Event::Connected { endpoint: &seat.endpoint, after });
                    let making =
                        making.unwrap_or_else(|| Making { born: ended, tls: self.settings.tls.clone() });
                    return Ok(Lease { io, loan: seat.into_loan(), connected_at: ended, making });
                }
                Err(error) => {
                    observe(Event::Failed { endpoint: &seat.endpoint, error: &error, after });
                    Box::pin(self.failed(seat, error)).await?;
                    now = Clock::now();
                }
            }
        }
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

    /// A first attempt pays for those that follow others.
    fn earn(&self) {
        if self.ask.tried.count() == 0 {
            self.upstream.budget.earn(self.settings.retry.budget);
            if let Some(hedge) = self.settings.hedge {
                self.upstream.load.earn_hedge(hedge.budget);
            }
        }
    }

    /// How many more endpoints may be dialed.
    fn retries_left(&self) -> u32 {
        let RetrySettings { attempts, connect, .. } = self.settings.retry;
        let made = self.retries + self.ask.tried.count();
        if connect { attempts.saturating_sub(made) } else { 0 }
    }

    /// Chooses an endpoint and takes a seat at it.
    fn seat(&mut self, now: Moment) -> Result<(Seat<'a>, Why), NoChoice> {
        let (endpoint, why) = self.upstream.seat(self.place.ticket, &self.ask, &self.tried, now)?;
        self.place.spent = true;
        Ok((Seat::at(self.upstream, endpoint), why))
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
                if roster.selection(now).is_some() {
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
                let error = LeaseError::NoEndpoint(self.upstream.name().to_owned());
                return Err(fault(Whose::Upstream, Reason::Unreachable).because(error));
            }
        }
    }

    /// Whether the lease may share a connection.
    fn trunking(&self) -> Option<Trunking> {
        self.settings.trunks.filter(|trunking| trunking.serves(self.ask.reuse))
    }

    /// A connection to `endpoint` that is open.
    fn at_hand(&self, endpoint: &Endpoint, now: Moment) -> Option<(Io, Making)> {
        let shares = self.trunking().is_some() && !endpoint.has_no_trunks();
        // Where none will do, this still makes room for another by closing one.
        let reuse = if shares { Reuse::Never } else { self.ask.reuse };
        let rested = self.upstream.rested(&Wanted { endpoint, reuse, settings: &self.settings, now });
        if shares { rested.or_else(|| trunk::take(endpoint, &self.settings, now)) } else { rested }
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
    async fn failed(&mut self, seat: Seat<'_>, error: io::Error) -> Result<(), Fault> {
        let endpoint = Arc::clone(&seat.endpoint);
        seat.back_to(&mut self.place);
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
        self.upstream.roster().hopeful(now, &self.tried)
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

fn unreachable(endpoint: &Endpoint, error: io::Error) -> Fault {
    let (whose, reason) = match error.kind() {
        _ if NoRoom::of(&error) == Some(NoRoom::InLine) => (Whose::Us, Reason::LimitQueue),
        _ if NoRoom::of(&error).is_some() => (Whose::Us, Reason::TimeoutAcquire),
        _ if is_exhaustion(&error) => (Whose::Us, Reason::Exhausted),
        io::ErrorKind::TimedOut => (Whose::Upstream, Reason::TimeoutConnect),
        _ => (Whose::Upstream, Reason::Unreachable),
    };
    fault(whose, reason).because(LeaseError::Dial { endpoint: endpoint.label().to_owned(), error })
}

/// A fault of the wait for a connection.
pub(crate) fn fault(whose: Whose, reason: Reason) -> Fault {
    Fault::new(Stage::Acquire, whose, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::EndpointSettings;

    #[test]
    fn a_shortage_of_ours_is_told_apart_from_an_endpoint_at_fault() {
        let endpoint = EndpointSettings::new("127.0.0.1:1".parse().unwrap());
        let upstream = Upstream::new(Settings::new("db", vec![endpoint]), Arc::new(|_| ()));
        let endpoint = &upstream.endpoints()[0];
        let told = |error: io::Error| {
            let fault = unreachable(endpoint, error);
            (fault.reason, fault.whose)
        };
        let (emfile, eaddrnotavail) = (24, 99);
        for code in [emfile, eaddrnotavail] {
            assert_eq!(told(io::Error::from_raw_os_error(code)), (Reason::Exhausted, Whose::Us));
        }
        let refused = io::ErrorKind::ConnectionRefused.into();
        assert_eq!(told(refused), (Reason::Unreachable, Whose::Upstream));
        assert_eq!(told(io::ErrorKind::TimedOut.into()), (Reason::TimeoutConnect, Whose::Upstream));
    }
}
