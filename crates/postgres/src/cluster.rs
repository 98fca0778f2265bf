//! The servers of an upstream that hold the same data: which of them takes writes, found by asking, and told
//! to the pool.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tieline_base::{Clock, Moment};
use tieline_pool::{Endpoint, Fit, OnLeave, Purpose, Upstream};
use tokio::sync::Notify;

use crate::login::server::ServerLogin;
use crate::roles::{Allowed, MaxLag, READS, Roles, Sight, WRITES};

/// What a route leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Wants {
    /// The server that takes writes.
    #[default]
    Primary,
    /// One that only reads are for.
    Replica,
    /// Any.
    Any,
}

/// How servers are asked what they are.
#[derive(Clone, Debug)]
pub struct Watching {
    /// As whom.
    pub login: ServerLogin,
    /// From one question to the next.
    pub every: Duration,
    /// All that one question may take, connecting included.
    pub within: Duration,
    /// Replicas that are further behind serve no reads.
    pub max_lag: MaxLag,
    /// Whether the primary serves what is meant for replicas where none is fit.
    pub primary_stands_in: bool,
    /// What servers may be used as, by their configured addresses; those left out as what they are.
    pub allowed: Vec<(tieline_base::Address, Allowed)>,
}

/// The servers of one upstream. It outlives configs.
pub struct Cluster {
    // Each held for a few instructions, once for each question or failure.
    #[allow(clippy::disallowed_types)]
    watching: std::sync::Mutex<Arc<Watching>>,
    #[allow(clippy::disallowed_types)]
    roles: std::sync::Mutex<Roles>,
    /// Whether a replica is fit for reads.
    has_replica: AtomicBool,
    primary_stands_in: AtomicBool,
    /// Every replica that is fit for reads has all that was written before. In nanoseconds.
    caught_up: AtomicU64,
    /// Something is wrong: until then all are asked often. In nanoseconds.
    hurried_until: AtomicU64,
    suspected: Notify,
    changed: Notify,
    on_demoted: OnLeave,
}

/// Servers are left alone for so long, whatever goes wrong.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// After something went wrong servers are asked so often, for so long.
const HURRIED_EVERY: Duration = Duration::from_millis(100);
const HURRIED_FOR: Duration = Duration::from_secs(30);

impl Cluster {
    /// Servers of whom nothing is known yet. `on_demoted` is told of each that took writes and does no more.
    pub fn new(watching: Watching, on_demoted: OnLeave) -> Arc<Self> {
        let stands_in = watching.primary_stands_in;
        Arc::new(Self {
            watching: Arc::new(watching).into(),
            roles: Default::default(),
            has_replica: AtomicBool::new(false),
            primary_stands_in: AtomicBool::new(stands_in),
            caught_up: AtomicU64::new(0),
            hurried_until: AtomicU64::new(0),
            suspected: Notify::new(),
            changed: Notify::new(),
            on_demoted,
        })
    }

    /// Obeys new settings.
    pub fn obey(&self, watching: Watching) {
        self.primary_stands_in.store(watching.primary_stands_in, Ordering::Relaxed);
        *self.watching.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(watching);
        self.suspected.notify_waiters();
    }

    /// Of the servers of `upstream` that nobody has seen yet nothing is known: they get what any may serve.
    pub fn begin(&self, upstream: &Upstream) {
        for endpoint in upstream.endpoints().iter().filter(|endpoint| endpoint.fit() == Fit::ALL) {
            upstream.set_fit(endpoint, Fit::of([Purpose::USUAL]));
        }
    }

    pub(crate) fn watching(&self) -> Arc<Watching> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the pool is asked for, now.
    pub(crate) fn purpose(&self, wants: Wants) -> Purpose {
        match wants {
            Wants::Any => Purpose::USUAL,
            Wants::Primary => WRITES,
            Wants::Replica => {
                let stands_in = self.primary_stands_in.load(Ordering::Relaxed);
                if stands_in && !self.has_replica.load(Ordering::Relaxed) { WRITES } else { READS }
            }
        }
    }

    /// What the pool is asked for, now, by a client that may read from any replica which has what it wrote;
    /// it `wrote` for the last time then, or never if that is the beginning of time.
    pub(crate) fn reads(&self, wrote: Moment) -> Purpose {
        let has_all = wrote == Moment::default() || wrote.0 < self.caught_up.load(Ordering::SeqCst);
        if has_all { self.purpose(Wants::Replica) } else { WRITES }
    }

    /// Something went wrong that a change of roles may explain: all are asked, now and often.
    pub(crate) fn suspect(&self) {
        let now = Clock::now();
        let until = now.after(HURRIED_FOR).0;
        let before = self.hurried_until.swap(until, Ordering::Relaxed);
        if before <= now.0 {
            self.suspected.notify_waiters();
        }
    }

    /// Returns when some server's role has changed since this was called.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Waits until a server is to be asked again.
    pub(crate) async fn until_next(&self) {
        // Whoever suspects something from here on is heard.
        let suspected = self.suspected.notified();
        tokio::pin!(suspected);
        suspected.as_mut().enable();
        let hurried = self.hurried_until.load(Ordering::Relaxed) > Clock::now().0;
        let every = self.watching().every;
        let pause = if hurried { every.min(HURRIED_EVERY) } else { every };
        let pause = pause.mul_f64(0.9 + 0.2 * fastrand::f64());
        // Both may be dropped.
        tokio::select! {
            () = tokio::time::sleep(pause) => return,
            () = suspected => {}
        }
        // Errors that clients make at will are no reason to ask all the time.
        tokio::time::sleep(PAUSE_MIN).await;
    }

    /// Takes what `endpoint`, asked at `began`, has said.
    pub(crate) fn saw(
        &self,
        upstream: &Upstream,
        endpoint: &Endpoint,
        began: Moment,
        sight: Result<Sight, String>,
    ) {
        if let Err(error) = &sight {
            let (upstream, endpoint) = (upstream.name(), endpoint.label());
            tracing::debug!(upstream, endpoint, error, "a server does not say what it is");
        }
        let endpoints = upstream.endpoints();
        let watching = self.watching();
        let mut changes = Vec::new();
        {
            let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
            roles.saw(endpoint.key(), began, sight.ok());
            let keys: Vec<u64> = endpoints.iter().map(|endpoint| endpoint.key()).collect();
            roles.keep(&keys);
            if roles.has_primary() {
                self.hurried_until.store(0, Ordering::Relaxed);
            }
            for endpoint in &endpoints {
                let verdict = roles.verdict(endpoint.key(), watching.of(endpoint), watching.max_lag);
                changes.push((endpoint, verdict));
            }
        }
        // Before any of them is fit, and for as long as one is: whoever asks when it has its server must
        // not see that of others.
        let reads = changes.iter().filter(|(it, verdict)| verdict.fit.has(READS) || it.fit().has(READS));
        let caught_up = reads.map(|(_, verdict)| verdict.caught_up.unwrap_or_default().0).min();
        self.caught_up.store(caught_up.unwrap_or_default(), Ordering::SeqCst);
        let has_replica = changes.iter().any(|(_, verdict)| verdict.fit.has(READS));
        self.has_replica.store(has_replica, Ordering::Relaxed);
        let mut any = false;
        for (endpoint, verdict) in changes {
            let before = endpoint.fit();
            if before == verdict.fit {
                endpoint.say(verdict.said);
                continue;
            }
            any = true;
            let (upstream_name, label) = (upstream.name(), endpoint.label());
            let role = verdict.said.role.unwrap_or("unknown");
            if verdict.is_superseded {
                tracing::warn!(
                    upstream = upstream_name,
                    endpoint = label,
                    "a server takes writes, though another was promoted in its place: nothing is asked of it"
                );
            } else {
                let (writes, reads) = (verdict.fit.has(WRITES), verdict.fit.has(READS));
                tracing::info!(upstream = upstream_name, endpoint = label, role, writes, reads, "role");
            }
            upstream.set_fit(endpoint, verdict.fit);
            // Last: whoever waits for a role finds it obeyed.
            endpoint.say(verdict.said);
            if verdict.is_superseded || (before.has(WRITES) && !verdict.fit.has(WRITES)) {
                upstream.close_rested_at(endpoint);
                (self.on_demoted)(endpoint);
            }
        }
        if any {
            self.changed.notify_waiters();
        }
    }
}

impl Watching {
    fn of(&self, endpoint: &Endpoint) -> Allowed {
        let found = self.allowed.iter().find(|(address, _)| address == endpoint.configured());
        found.map_or(Allowed::Either, |(_, allowed)| *allowed)
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}
