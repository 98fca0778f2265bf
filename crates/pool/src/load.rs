//! What an upstream learns of its load, where its config asks for it, and what it does about it: it sheds,
//! limits what is in flight, hedges and retries, each within its bounds. The decisions are pure and lie
//! beside this.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use tieline_base::{Clock, Moment, Percent, Priority};

use crate::balance::Standing;
use crate::breaker::Change;
use crate::endpoint::Endpoint;
use crate::gradient::Gradient;
use crate::hedge::Hedging;
use crate::outlier::Failure;
use crate::purpose::Purpose;
use crate::settings::Settings;
use crate::shed::Shedder;
use crate::state::EndpointId;
use crate::upstream::Upstream;

/// What an upstream has learned of its load.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Somebody wants to know how each answer went.
    watched: AtomicBool,
    hedging: OnceLock<Hedging>,
    // Each is held for a few steps of pure logic, never over an await, and only where the config asks for it.
    #[allow(clippy::disallowed_types)]
    gradient: std::sync::Mutex<Option<Gradient>>,
    #[allow(clippy::disallowed_types)]
    shedder: std::sync::Mutex<Option<Shedder>>,
    pub(crate) counts: Counts,
}

/// What was done about load since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    retries: AtomicU64,
    retries_denied: AtomicU64,
    hedges: AtomicU64,
    hedges_won: AtomicU64,
    shed: AtomicU64,
    breaker_opened: AtomicU64,
}

/// What was done about load since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoadCounts {
    /// Requests that were sent again to another endpoint, or connections tried there.
    pub retries: u64,
    /// Those that were not, as the retry budget was spent.
    pub retries_denied: u64,
    /// Requests that a second endpoint was asked too.
    pub hedges: u64,
    /// Those that it answered first.
    pub hedges_won: u64,
    /// Asks that were refused at once, as others were more important.
    pub shed: u64,
    /// How often the breaker of an endpoint opened.
    pub breaker_opened: u64,
}

/// The endpoints that failed a request. Of many the latest few.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tried {
    ids: [u64; TRIED_MAX],
    count: u32,
}

const TRIED_MAX: usize = 4;

impl Tried {
    /// Adds one.
    pub fn add(&mut self, endpoint: &Endpoint) {
        self.ids[self.count as usize % TRIED_MAX] = endpoint.id.0;
        self.count += 1;
    }

    /// How many failed it.
    pub fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn ids(&self) -> Vec<EndpointId> {
        if self.count == 0 {
            return Vec::new();
        }
        // Ids begin at 1.
        self.ids.iter().filter(|id| **id != 0).map(|id| EndpointId(*id)).collect()
    }
}

/// A failure counts in the balance as an answer that took so long, at the least.
const FAILED_TOOK: Duration = Duration::from_secs(5);

/// And an endpoint that asks for patience is believed so far.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// What a failed answer counts as: `after` and `retry_after` as far as they are known.
pub(crate) fn penalty(after: Duration, retry_after: Option<Duration>) -> Duration {
    after.max(FAILED_TOOK).max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
}

impl Counts {
    pub(crate) fn read(&self) -> LoadCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LoadCounts {
            retries: read(&self.retries),
            retries_denied: read(&self.retries_denied),
            hedges: read(&self.hedges),
            hedges_won: read(&self.hedges_won),
            shed: read(&self.shed),
            breaker_opened: read(&self.breaker_opened),
        }
    }
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl Load {
    /// Obeys new settings. What was learned is kept as long as it is wanted.
    pub(crate) fn obey(&self, settings: &Settings, now: Moment) {
        let Settings { breaker, hedge, adaptive, pool, .. } = settings;
        if hedge.is_some() {
            self.hedging.get_or_init(Hedging::new);
        }
        let mut gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        match adaptive {
            true if gradient.is_none() => *gradient = Some(Gradient::new(pool.size.map(Into::into), now)),
            true => {}
            false => *gradient = None,
        }
        let mut shedder = self.shedder.lock().unwrap_or_else(PoisonError::into_inner);
        match pool.shed {
            Some(_) if shedder.is_none() => *shedder = Some(Shedder::new(now)),
            Some(_) => {}
            None => *shedder = None,
        }
        self.watched.store(breaker.is_some() || hedge.is_some() || *adaptive, Ordering::Relaxed);
    }

    /// How many may be in flight, if that is learned.
    pub(crate) fn limit(&self) -> Option<u32> {
        let gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        gradient.as_ref().map(Gradient::limit)
    }

    /// Whether the least important are refused just now.
    pub(crate) fn is_shedding(&self) -> bool {
        let shedder = self.shedder.lock().unwrap_or_else(PoisonError::into_inner);
        shedder.as_ref().is_some_and(Shedder::is_shedding)
    }

    /// Whether who asks may wait for a place.
    pub(crate) fn admits(&self, priority: Priority, user: u64, target: Duration, now: Moment) -> bool {
        let mut shedder = self.shedder.lock().unwrap_or_else(PoisonError::into_inner);
        shedder.as_mut().is_none_or(|shedder| shedder.admits(priority, user, target, now))
    }

    /// Somebody waited so long for a place.
    pub(crate) fn waited(&self, wait: Duration, target: Duration, now: Moment) {
        let mut shedder = self.shedder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shedder) = shedder.as_mut() {
            shedder.waited(wait, target, now);
        }
    }

    pub(crate) fn count_shed(&self) {
        one_more(&self.counts.shed);
    }

    /// A first attempt pays into what hedges cost.
    pub(crate) fn earn_hedge(&self, share: Percent) {
        if let Some(hedging) = self.hedging.get() {
            hedging.earn(share);
        }
    }

    fn learn(&self, after: Duration, in_flight: u32, settings: &Settings, now: Moment) -> Option<u32> {
        let mut gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        gradient.as_mut()?.observe(after, in_flight, settings.pool.size.map(Into::into), now)
    }
}

impl Upstream {
    /// `endpoint` has served, and the first byte took so long.
    pub(crate) fn served(&self, endpoint: &Endpoint, after: Duration, now: Moment) {
        endpoint.served(after, now);
        if self.load.watched.load(Ordering::Relaxed) {
            self.learn(endpoint, after, now);
        }
    }

    fn learn(&self, endpoint: &Endpoint, after: Duration, now: Moment) {
        let roster = self.roster();
        let settings = &roster.settings;
        if settings.hedge.is_some()
            && let Some(hedging) = self.load.hedging.get()
        {
            hedging.observe(after, now);
        }
        if settings.adaptive {
            let in_flight = roster.endpoints.iter().map(|endpoint| endpoint.in_flight()).sum();
            if let Some(limit) = self.load.learn(after, in_flight, settings, now) {
                self.gate().with(|ledger| ledger.state.limit(limit, &mut ledger.grants));
            }
        }
        drop(roster);
        self.report(endpoint, true, "", now);
    }

    /// Holds `error` against `endpoint`, which took `took` for it.
    pub(crate) fn failed(&self, endpoint: &Endpoint, failure: Failure, error: &str, took: Duration) {
        let now = Clock::now();
        endpoint.took(took, now);
        self.report(endpoint, false, error, now);
        let roster = self.roster();
        let settings = roster.settings.outlier.as_ref();
        let Some(rest) = endpoint.failed(failure, error, settings, roster.census(now), now) else { return };
        drop(roster);
        tracing::warn!(
            upstream = self.name(), endpoint = endpoint.label(), error, rest = ?rest,
            "endpoint ejected: too many failures in a row"
        );
        self.refresh();
        self.ejected.notify_one();
    }

    /// Takes a result into the breaker of `endpoint`, if there are breakers.
    fn report(&self, endpoint: &Endpoint, good: bool, error: &str, now: Moment) {
        let Some(settings) = self.roster().settings.breaker else { return };
        match endpoint.reported(good, &settings, now) {
            None => return,
            Some(Change::Opened(rest)) => {
                one_more(&self.load.counts.breaker_opened);
                tracing::warn!(
                    upstream = self.name(), endpoint = endpoint.label(), error, rest = ?rest,
                    "breaker open: too much fails"
                );
            }
            Some(Change::Closed) => {
                tracing::info!(upstream = self.name(), endpoint = endpoint.label(), "breaker closed");
            }
        }
        self.refresh();
        self.ejected.notify_one();
    }

    /// Whether what failed at `tried` may be sent to another endpoint now. Pays for it.
    pub fn grants_retry(&self, tried: &Tried, now: Moment) -> bool {
        let other = self.roster().hopeful(now, Purpose::USUAL, &tried.ids()) > 0;
        other && self.pays_retry(now)
    }

    pub(crate) fn pays_retry(&self, now: Moment) -> bool {
        let paid = self.budget.spend(now);
        one_more(if paid { &self.load.counts.retries } else { &self.load.counts.retries_denied });
        paid
    }

    /// When a second endpoint may be asked for what was asked at `now`: after so long without an answer.
    /// `None` if never: hedging is off, too little is known, or the upstream is at its limits.
    pub fn hedge_after(&self, now: Moment) -> Option<Duration> {
        let hedge = self.roster().settings.hedge?;
        let after = self.load.hedging.get()?.percentile(hedge.percentile, now)?;
        self.is_calm(now).then_some(after)
    }

    /// Whether another endpoint than those in `tried` may be asked too, now. Pays for it.
    pub fn grants_hedge(&self, tried: &Tried, now: Moment) -> bool {
        let other = self.roster().hopeful(now, Purpose::USUAL, &tried.ids()) > 0;
        let granted = other
            && self.is_calm(now)
            && self.load.hedging.get().is_some_and(Hedging::spend)
            && self.budget.spend(now);
        if granted {
            one_more(&self.load.counts.hedges);
        }
        granted
    }

    /// The second endpoint answered first.
    pub fn hedge_won(&self) {
        one_more(&self.load.counts.hedges_won);
    }

    /// Whether more can be asked without harm.
    fn is_calm(&self, now: Moment) -> bool {
        let broken = |endpoint: &Arc<Endpoint>| endpoint.standing(now) == Standing::BreakerOpen;
        let waiting = self.gate().is_governed() && self.gate().with(|ledger| ledger.state.waiting() > 0);
        !waiting && !self.load.is_shedding() && !self.roster().endpoints.iter().any(broken)
    }
}
