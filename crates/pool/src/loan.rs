//! The place that a connection on loan takes, and what is told of how the loan went.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Clock, Moment};
use tieline_transport::Io;

use crate::endpoint::Endpoint;
use crate::idle::Making;
use crate::load::penalty;
use crate::outlier::Failure;
use crate::place::Place;
use crate::share::Share;
use crate::upstream::Upstream;

/// The place that a leased connection takes. Dropping it gives the place back at once, to the oldest that
/// waits.
#[derive(Debug)]
pub struct Loan {
    pub(crate) upstream: Arc<Upstream>,
    /// Gone once its place was given back.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// Whom it counts for.
    share: Share,
}

impl Loan {
    /// A loan of `endpoint`, which counts it already.
    pub(crate) fn at(upstream: &Arc<Upstream>, endpoint: Arc<Endpoint>, share: Share) -> Self {
        Self { upstream: Arc::clone(upstream), endpoint: Some(endpoint), share }
    }

    /// Gives up the endpoint, and keeps the place under the upstream's own cap.
    pub(crate) fn back_to(mut self, place: &mut Place) {
        if let Some(ticket) = place.ticket
            && let Some(endpoint) = self.endpoint.take()
        {
            place.spent = false;
            self.upstream.gate().with(|ledger| ledger.unclaim(ticket, &endpoint));
        }
    }

    /// The endpoint's first byte came `now`, to what was sent to it at `asked_at`, or to the connecting where
    /// the server speaks first. The time between is the latency that balancing goes by, and the byte the
    /// proof that the endpoint serves.
    pub fn first_byte(&self, asked_at: Moment, now: Moment) {
        self.upstream.served(self.endpoint(), now.since(asked_at), now);
    }

    /// The endpoint's first byte came `now`, and what it says is that it cannot serve; perhaps for how long.
    pub fn turned_away(&self, asked_at: Moment, now: Moment, retry_after: Option<Duration>, what: &str) {
        let took = penalty(now.since(asked_at), retry_after);
        self.upstream.failed(self.endpoint(), Failure::Service, what, took);
    }

    /// What it was asked for at `asked_at` is wanted no more, and no byte has come: it takes that long at the
    /// least, which is no failure.
    pub fn given_up(&self, asked_at: Moment, now: Moment) {
        self.endpoint().took(now.since(asked_at), now);
    }

    /// From now on it may be out for as long as it likes, as an upgraded connection is: what is learned of
    /// how much may be in flight is not about it. Holds until what comes back is dropped.
    pub fn exempt(&self) -> Exemption {
        let gate = self.upstream.gate();
        if !gate.is_governed() {
            return Exemption(None);
        }
        gate.with(|ledger| ledger.state.exempt(&mut ledger.grants));
        Exemption(Some(Arc::clone(&self.upstream)))
    }

    /// Whether others wait for a place at its upstream.
    pub fn others_wait(&self) -> bool {
        let gate = self.upstream.gate();
        gate.is_governed() && gate.with(|ledger| ledger.state.waiting()) > 0
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.endpoint.as_ref().expect("only who gives it back takes it out, and keeps nothing of it")
    }

    /// The upstream.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Gives the place back, and keeps `io` for a later lease. Only for a connection on which everything
    /// asked was answered and nothing else came.
    pub fn park(self, io: Io, making: Making) {
        self.park_at(io, making, Clock::coarse());
    }

    /// The same `now`, which the clock was read for already.
    pub fn park_at(mut self, io: Io, making: Making, now: Moment) {
        if let Some(endpoint) = self.endpoint.take() {
            self.upstream.rest(&endpoint, self.share, io, making, now);
        }
    }

    /// The endpoint broke the connection. Enough of that in a row ejects it.
    pub fn upstream_failed(&self, error: &dyn fmt::Display) {
        let took = penalty(Duration::ZERO, None);
        self.upstream.failed(self.endpoint(), Failure::Service, &error.to_string(), took);
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            self.upstream.give_back(endpoint, self.share);
        }
    }
}

/// See [`Loan::exempt`].
#[derive(Debug)]
pub struct Exemption(Option<Arc<Upstream>>);

impl Drop for Exemption {
    fn drop(&mut self) {
        if let Some(upstream) = &self.0 {
            upstream.gate().with(|ledger| ledger.state.exempt_no_more());
        }
    }
}
