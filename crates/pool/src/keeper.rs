//! The keeper of an upstream: checks its endpoints, follows its names, lets ejected endpoints back in.

mod check;
mod far;
mod resolve;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Address, Clock};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::demand::BUCKET;
use crate::settings::{DnsSettings, EndpointSettings, HealthSettings};
use crate::state::EndpointId;
use crate::upstream::Upstream;

/// One thing to be done over and over. When the settings change, so does the duty, and the old one ends.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Duty {
    Check(EndpointId, Arc<HealthSettings>),
    Follow(Address, Arc<DnsSettings>),
    /// Which agents are there.
    Watch,
}

/// After a duty died of a defect: so long until it is taken up again.
const PAUSE_AFTER_DEFECT: Duration = Duration::from_secs(1);

impl Upstream {
    /// Keeps the upstream until `stop` is over: resolves its names, checks its endpoints, each on its own so
    /// that a slow one delays no other, and follows every change of its settings. Belongs on the control
    /// plane's runtime; without it names have no addresses and no endpoint is checked. Dropping it ends all
    /// it does.
    pub async fn keep(self: Arc<Self>, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut changes = self.changes();
        let mut duties = Duties::default();
        let mut buckets = interval(BUCKET);
        buckets.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            changes.mark_unchanged();
            duties.become_those_of(&self);
            // Every arm may be dropped: nothing is lost but a wait.
            tokio::select! {
                () = &mut stop => break,
                Ok(()) = changes.changed() => {}
                () = self.ejected.notified() => {}
                () = until_next_return(&self) => self.refresh(),
                _ = buckets.tick() => self.gate().with(|ledger| ledger.state.turn_demand()),
                Some(ended) = duties.running.join_next() => {
                    if ended.is_err_and(|error| error.is_panic()) {
                        let upstream = self.name();
                        tracing::error!(upstream, "a check or lookup died of a defect; it starts anew");
                        sleep(PAUSE_AFTER_DEFECT).await;
                    }
                }
            }
        }
        duties.running.shutdown().await;
    }
}

/// The duties under way.
#[derive(Default)]
struct Duties {
    running: JoinSet<()>,
    handles: HashMap<Duty, AbortHandle>,
}

impl Duties {
    /// Begins what `upstream` wants done now and ends the rest; what is under way and still wanted is not
    /// disturbed.
    fn become_those_of(&mut self, upstream: &Arc<Upstream>) {
        let wanted = duties_of(upstream);
        self.handles.retain(|duty, handle| {
            let stays = wanted.contains(duty) && !handle.is_finished();
            if !stays {
                handle.abort();
            }
            stays
        });
        for duty in wanted {
            let running = &mut self.running;
            self.handles.entry(duty).or_insert_with_key(|duty| {
                let upstream = Arc::clone(upstream);
                match duty.clone() {
                    Duty::Check(endpoint, settings) => {
                        running.spawn(check::check(upstream, endpoint, settings))
                    }
                    Duty::Follow(name, settings) => running.spawn(resolve::follow(upstream, name, settings)),
                    Duty::Watch => running.spawn(far::watch(upstream)),
                }
            });
        }
    }
}

fn duties_of(upstream: &Upstream) -> HashSet<Duty> {
    let roster = upstream.roster();
    let names = roster.settings.endpoints.iter().filter(|e| matches!(e.address, Address::Name { .. }));
    let dns = Arc::new(roster.settings.dns.clone());
    let follow = names.map(|endpoint| Duty::Follow(endpoint.address.clone(), Arc::clone(&dns)));
    let health = roster.settings.health.clone().map(Arc::new);
    let check = |health: Arc<HealthSettings>| {
        roster.endpoints.iter().map(move |endpoint| Duty::Check(endpoint.id, Arc::clone(&health)))
    };
    let is_far = |e: &EndpointSettings| matches!(e.address, Address::Agent(_) | Address::Group(_));
    let watch = roster.settings.endpoints.iter().any(is_far).then_some(Duty::Watch);
    follow.chain(health.into_iter().flat_map(check)).chain(watch).collect()
}

async fn until_next_return(upstream: &Upstream) {
    match upstream.next_return() {
        // A millisecond later, so that the clock has surely passed it.
        Some(moment) => sleep(moment.since(Clock::now()) + Duration::from_millis(1)).await,
        None => std::future::pending().await,
    }
}
