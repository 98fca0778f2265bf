//! After a change of config: everything that lives is decided about again. What is no longer allowed gets its
//! order to end, with the rule that says so; what the change does not concern is not touched.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Clock, Proved, Reason};
use tieline_policy::Subject;
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

/// Decides about everything in `registry` by `snapshot`, which follows `before`.
pub(crate) fn sweep(registry: &Registry, before: &Snapshot, snapshot: &Snapshot) -> Swept {
    let mut swept = Swept::default();
    let mut proofs = Proofs { before, snapshot, judged: HashMap::new() };
    registry.each_live(|record| {
        swept.seen += 1;
        match reconsider(record, snapshot, &mut proofs) {
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

/// What `snapshot` makes of a connection that lives: pure but for the clock, which schedules and certificates
/// go by.
fn reconsider(record: &Record, snapshot: &Snapshot, proofs: &mut Proofs<'_>) -> Standing {
    if let Some(why) = record.identity().proved().and_then(|proved| proofs.refuted(record, proved)) {
        return Standing::Forbidden {
            why: format!("reload: certificate of \"{}\": {why}", record.identity()),
        };
    }
    // One that has no route yet will be decided about by this snapshot anyway.
    let Some(old) = record.route() else { return Standing::Stays(None) };
    let leaves = |why: String| Standing::Leaves { why, grace: old.grace };
    let Some(listener) = snapshot.listeners.get(&*record.listener().name) else {
        return leaves(format!("reload: listener \"{}\" is gone", record.listener().name));
    };
    if let Some(why) = listener.protocol.disowns(record) {
        return Standing::Forbidden { why: format!("reload: {why}") };
    }
    let Some(route) = listener.protocol.route_of(record) else {
        return leaves(format!("reload: route \"{}\" is gone", old.name));
    };
    let subject = Subject { client: record.client(), identity: record.identity() };
    if let Err(denied) = route.rule.decide(&subject) {
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

/// Which certificates still prove what they proved. Each is judged once for a sweep, and only where what
/// judges it has changed: it costs signatures.
struct Proofs<'s> {
    before: &'s Snapshot,
    snapshot: &'s Snapshot,
    judged: HashMap<Shown, Option<String>>,
}

/// A certificate, and the name of the listener that it was shown to.
type Shown = (Box<str>, Box<[u8]>);

impl Proofs<'_> {
    /// Why `proved` would not be believed by the listener of `record` now; `None` if it would.
    fn refuted(&mut self, record: &Record, proved: &Proved) -> Option<String> {
        let certificate = proved.certificates.first()?;
        let name = &*record.listener().name;
        let tls = |snapshot: &Snapshot| snapshot.listeners.get(name)?.tls.clone();
        // Where TLS ends no more, or the listener is gone, routes decide.
        let now = tls(self.snapshot)?;
        if tls(self.before).is_some_and(|then| Arc::ptr_eq(&then, &now)) {
            return None;
        }
        let judge = || now.judge_again(&proved.certificates).err().map(|error| error.to_string());
        self.judged.entry((name.into(), certificate.clone())).or_insert_with(judge).clone()
    }
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
