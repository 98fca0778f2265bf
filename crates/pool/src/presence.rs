//! Which agents are there: whom a group stands for, and which endpoint cannot be asked just now.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tieline_base::{Address, Clock, EndpointAddr, FarGroup, Moment};
use tieline_transport::FarSites;

use crate::endpoint::Endpoint;
use crate::upstream::Upstream;

impl Upstream {
    /// Looks which agents are there: who has come or gone, and who cannot be asked just now.
    pub(crate) fn look_far(&self) {
        let roster = Arc::clone(&self.roster());
        let far = roster.settings.dial.far.as_ref();
        let groups = roster.settings.endpoints.iter().filter_map(|endpoint| match &endpoint.address {
            Address::Group(group) => Some((&endpoint.address, group)),
            _ => None,
        });
        let has_changed = |(configured, group): (&Address, &FarGroup)| {
            let of_it = roster.endpoints.iter().filter(|endpoint| endpoint.configured() == configured);
            let known = of_it.filter_map(|endpoint| match endpoint.addresses() {
                [EndpointAddr::Agent(far)] => Some(far.as_ref().clone()),
                _ => None,
            });
            far.is_some_and(|FarSites(sites)| known.ne(sites.members(group)))
        };
        if groups.into_iter().any(has_changed) {
            self.enlist_again();
        }
        let now = Clock::now();
        let changed = self.endpoints().iter().filter(|endpoint| endpoint.look_whether_there(now)).count();
        if changed > 0 {
            self.refresh();
        }
    }
}

impl Endpoint {
    /// Looks whether the agent that offers it is there; whether that has changed.
    pub(crate) fn look_whether_there(&self, now: Moment) -> bool {
        let (Some(FarSites(sites)), [EndpointAddr::Agent(far)]) = (&self.far, self.addresses()) else {
            return false;
        };
        let away = !sites.is_there(far);
        let changed = self.away.swap(away, Ordering::Relaxed) != away;
        if changed {
            self.standing_since.store(now.0, Ordering::Relaxed);
        }
        changed
    }
}

/// The addresses of each endpoint that `group` stands for.
pub(crate) fn addresses_of(group: &FarGroup, FarSites(sites): &FarSites) -> Vec<Box<[EndpointAddr]>> {
    let address = |far| Box::new([EndpointAddr::Agent(Box::new(far))]) as Box<[EndpointAddr]>;
    sites.members(group).into_iter().map(address).collect()
}
