//! After a change of config: everything that lives is decided about again. What is no longer allowed gets its
//! order to end, with the rule that says so; what the change does not concern is not touched.

use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Clock, Reason};
use tieline_policy::{Identity, Subject};
use tieline_registry::{Record, Registry, RouteRow, Verdict};

use crate::connection::{end_by_schedule, wall};
use crate::snapshot::{Route, Snapshot};

/// What a sweep did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Connections decided about.
    pub seen: usize,
    /// Those that policy no longer allows: ended at once.
    pub revoked: usize,
    /// Those whose listener, route or upstream is gone: ended when the grace is over.
    pub leaving: usize,
}

/// Decides about everything in `registry` by `snapshot`.
pub(crate) fn sweep(registry: &Registry, snapshot: &Snapshot) -> Swept {
    let mut swept = Swept::default();
    registry.each_live(|record| {
        swept.seen += 1;
        match reconsider(record, snapshot) {
            Standing::Stays(schedule) => record.schedule(schedule),
            Standing::Leaves { why, grace } => {
                swept.leaving += 1;
                end(record, why, grace);
            }
            Standing::Forbidden { why } => {
                swept.revoked += 1;
                end(record, why, Duration::ZERO);
            }
        }
    });
    swept
}

fn end(record: &Record, why: String, grace: Duration) {
    record.note(why);
    record.end(Verdict { at: Clock::now().after(grace), reason: Reason::Revoked });
}

enum Standing {
    /// It is as welcome as before; its schedule ends it then, if ever.
    Stays(Option<Verdict>),
    /// Nothing leads it where it went any more.
    Leaves { why: String, grace: Duration },
    /// Policy says no.
    Forbidden { why: String },
}

/// What `snapshot` makes of a connection that lives: pure but for the clock of schedules.
fn reconsider(record: &Record, snapshot: &Snapshot) -> Standing {
    // One that has no route yet will be decided about by this snapshot anyway.
    let Some(old) = record.route() else { return Standing::Stays(None) };
    let leaves = |why: String| Standing::Leaves { why, grace: old.grace };
    let Some(listener) = snapshot.listeners.get(&*record.listener().name) else {
        return leaves(format!("reload: listener \"{}\" is gone", record.listener().name));
    };
    let Some(route) = listener.protocol.route_of(record) else {
        return leaves(format!("reload: route \"{}\" is gone", old.name));
    };
    let identity = Identity::Anonymous;
    if let Err(denied) = route.rule.decide(&Subject { client: record.client(), identity: &identity }) {
        return Standing::Forbidden { why: format!("reload: {denied}") };
    }
    if route.row.upstream_name() != old.upstream_name() {
        let named = |row: &RouteRow| row.upstream_name().unwrap_or("no upstream").to_owned();
        let (was, is) = (named(&old), named(&route.row));
        return leaves(format!(
            "reload: route \"{}\" leads to \"{is}\" now, not to \"{was}\"",
            route.row.name
        ));
    }
    Standing::Stays(schedule_end(record, &route))
}

/// When the schedule of `route` ends `record`. One that is closed already ends it when the grace is over, and
/// no later than an earlier sweep said.
fn schedule_end(record: &Record, route: &Arc<Route>) -> Option<Verdict> {
    let schedule = route.schedule.as_ref()?;
    let now = wall();
    if schedule.is_open(now) {
        return end_by_schedule(schedule, route, now);
    }
    let at = Clock::now().after(route.row.grace);
    let at = record.scheduled().map_or(at, |standing| standing.at.min(at));
    Some(Verdict { at, reason: Reason::Schedule })
}
