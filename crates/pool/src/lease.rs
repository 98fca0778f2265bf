//! Leases: one upstream connection on loan, from the wait for a place to the giving back.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{ClientAddr, Clock, Fault, Moment, Priority, Reason, Stage, Whose};
use tieline_policy::Permit;
use tieline_transport::Io;

use crate::at_once::AtOnce;
use crate::balance::Why;
use crate::endpoint::Endpoint;
use crate::idle::{Making, Reuse};
use crate::knock::Knock;
use crate::load::Tried;
use crate::loan::Loan;
use crate::purpose::Purpose;
use crate::share::Share;
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
    /// The login that a used one must have seen, by its [`Kept::login`](crate::Kept::login); 0 for none.
    pub login: u64,
    /// How important it is, where others wait too.
    pub priority: Priority,
    /// What it is for: the endpoint must be fit for that.
    pub purpose: Purpose,
    /// Whom it counts for: where others wait too, whoever holds least is next.
    pub share: Share,
    /// Who asks: the same for all that one user asks, which lives or dies together where some is refused.
    pub user: u64,
    /// The endpoints that failed what the lease is for.
    pub tried: Tried,
    /// When it waits no longer, where that is sooner than the upstream says.
    pub until: Option<Moment>,
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
    pub(crate) io: Io,
    pub(crate) loan: Loan,
    pub(crate) connected_at: Moment,
    pub(crate) making: Making,
    pub(crate) knock: Option<Knock>,
}

impl Lease {
    /// The turn at its endpoint's door, where connections are made a few at a time: the next has its turn
    /// when what this gives is dropped, or at once if nobody asks for it.
    pub fn take_knock(&mut self) -> Option<Knock> {
        self.knock.take()
    }

    /// Parts the connection from its place: for those who join the connection with another.
    pub fn split(self) -> (Io, Loan) {
        (self.io, self.loan)
    }

    /// [`Lease::split`], with how the connection was made: for those who park it again.
    pub fn into_parts(self) -> (Io, Loan, Making) {
        (self.io, self.loan, self.making)
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
    #[error(
        "upstream \"{0}\" has no endpoint in use: its names do not resolve, no agent of its groups is linked \
         up, or all are drained"
    )]
    NoEndpoint(String),
    /// There are endpoints, and none that is fit for what the lease is for.
    #[error("no endpoint of upstream \"{0}\" is fit for this just now")]
    NoneFit(String),
    /// It waited in vain for a place.
    #[error("{ahead} are ahead for the {places} places of upstream \"{upstream}\" after {after:.1?}")]
    Waited {
        /// The upstream.
        upstream: String,
        /// How long it waited.
        after: Duration,
        /// How many are still ahead of it.
        ahead: usize,
        /// How many places are taken.
        places: u32,
        /// Who holds most of those, if they count for anybody, and how many.
        most: Option<(Share, u32)>,
        /// Whom it counts for may have no more than so many, and has them.
        cap: Option<u32>,
    },
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
        match self.lease_at_once(permit, &ask, Clock::now(), observe)? {
            AtOnce::Lent(lease) => Ok(lease),
            AtOnce::Waits(leasing) => leasing.run(observe).await,
        }
    }
}

/// A fault of the wait for a connection.
pub(crate) fn fault(whose: Whose, reason: Reason) -> Fault {
    Fault::new(Stage::Acquire, whose, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leasing::unreachable;
    use crate::settings::{EndpointSettings, Settings};

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
