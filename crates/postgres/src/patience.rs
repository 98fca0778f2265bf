//! How long clients that hold a server may take: for a query, for a transaction, in the middle of one without
//! a word, and beyond it because of what they left there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tieline_base::{Clock, Fault, Moment, Reason, Stage, Whose};
use tieline_registry::Verdict;
use tieline_wire::postgres::backend::{Notice, Status, push_error};

use crate::keys::Asking;
use crate::link::Link;
use crate::site::Mode;
use crate::talk::Talk;

/// How long each thing may take; `None`: for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Patience {
    /// A query, its answer included. It is cancelled then.
    pub query: Option<Duration>,
    /// A transaction. Its client's connection ends then, as with what follows.
    pub transaction: Option<Duration>,
    /// The client's silence in the middle of one.
    pub idle_in_transaction: Option<Duration>,
    /// The client's silence while it keeps its server beyond its transactions.
    pub pinned: Option<Duration>,
}

impl Patience {
    /// Whether there is a limit at all.
    fn is_any(&self) -> bool {
        *self != Self::default()
    }
}

/// What is measured of a client that holds a server. The beginning of time: it is not under way.
#[derive(Debug, Default)]
pub(crate) struct Clocked {
    /// When the query that is answered next was asked, or became the next.
    asked: Moment,
    /// When its transaction began.
    opened: Moment,
    /// When it is too late, and for what.
    limit: Option<Verdict>,
    /// The query took too long and was asked to be cancelled. True in there: it still is to be.
    cancelled: Option<Arc<AtomicBool>>,
}

/// More than the kernel's tick: by so much, at the most, [`Clock::coarse`] is behind.
const TICK_MAX: Duration = Duration::from_millis(100);

/// How long a server may take to cancel a query, before the client's connection ends.
const CANCELLED_WITHIN: Duration = Duration::from_secs(10);

impl Clocked {
    /// A query has its whole answer.
    pub(crate) fn answered(&mut self) {
        self.asked = Moment::default();
        if let Some(wanted) = self.cancelled.take() {
            // A request that was not sent yet would hit what its client asks next.
            wanted.store(false, Ordering::Relaxed);
        }
    }
}

impl Talk {
    /// Something moved: says how long what is waited for now may take.
    pub(crate) fn wait_for_what(&mut self) {
        let Talk { link, connection, way, pins, .. } = self;
        let Some(link) = link else { return };
        let owes = link.server.outstanding.owes_answers();
        let open = link.server.status != Status::Idle || !link.server.outstanding.is_empty();
        let record = connection.record();
        let patience = way.target.patience;
        if !patience.is_any() {
            let idle = if open { Duration::MAX } else { way.postgres.settings.idle };
            return record.expect(idle, Reason::Idle);
        }
        let now = Clock::coarse();
        let kept = !pins.is_none() && way.target.mode == Mode::Transaction;
        let limit = limit(&mut link.clocked, patience, now, (owes, open, kept));
        link.clocked.limit = limit;
        let usual = Verdict { at: now.after(way.postgres.settings.idle), reason: Reason::Idle };
        let end = match limit {
            Some(limit) if open || limit.at < usual.at => limit,
            _ if open => Verdict { at: now.after(Duration::MAX), reason: Reason::Idle },
            _ => usual,
        };
        record.touch(now);
        record.expect(end.at.since(now), end.reason);
    }

    /// What came too late although something moved.
    pub(crate) fn late(&self) -> Option<Reason> {
        let limit = self.link.as_ref()?.clocked.limit?;
        // Nearly always it is far away, which the cheaper clock tells. What that one is behind must not be
        // waited for: whoever does not act in time is ended by those who look at the other clock.
        let near = limit.at <= Clock::coarse().after(TICK_MAX);
        (near && limit.at <= Clock::now()).then_some(limit.reason)
    }

    /// What was waited for did not come in time.
    ///
    /// # Errors
    /// That ends the connection.
    pub(crate) fn overdue(&mut self, reason: Reason) -> Result<(), Fault> {
        if let (Reason::TimeoutQuery, Some(link)) = (reason, &mut self.link)
            && link.clocked.cancelled.is_none()
            && let Some(backend) = link.server.backend.clone()
        {
            self.connection.record().note("its query took longer than `timeouts.query`, and was cancelled");
            let wanted = Arc::new(AtomicBool::new(true));
            let is_wanted = wanted.clone();
            let send = |asking: Asking| asking.send(move || is_wanted.load(Ordering::Relaxed));
            // It is on its way from here on; `None`: another one is. If too much goes on aside, the next look
            // asks again.
            let asked = Asking::begin(&backend).is_none_or(|asking| self.connection.aside(send(asking)));
            link.clocked.cancelled = asked.then_some(wanted);
            let at = Clock::coarse().after(CANCELLED_WITHIN);
            link.clocked.limit = Some(Verdict { at, reason });
            self.connection.expect(CANCELLED_WITHIN, reason);
            return Ok(());
        }
        Err(Fault::new(Stage::Relay, Whose::Client, reason))
    }
}

/// When it is too late for a client that is owed answers, is in a transaction, or keeps its server beyond it.
fn limit(
    clocked: &mut Clocked,
    patience: Patience,
    now: Moment,
    (owes, open, kept): (bool, bool, bool),
) -> Option<Verdict> {
    let begin = |clock: &mut Moment, runs: bool| match runs {
        true if *clock == Moment::default() => *clock = now,
        true => {}
        false => *clock = Moment::default(),
    };
    begin(&mut clocked.asked, owes);
    begin(&mut clocked.opened, open);
    if clocked.cancelled.is_some() {
        return clocked.limit;
    }
    let limit = |runs: bool, since: Moment, within: Option<Duration>, reason| {
        within.filter(|_| runs).map(|within| Verdict { at: since.after(within), reason })
    };
    let limits = [
        limit(open, clocked.opened, patience.transaction, Reason::TimeoutTransaction),
        limit(owes, clocked.asked, patience.query, Reason::TimeoutQuery),
        limit(open && !owes, now, patience.idle_in_transaction, Reason::TimeoutIdleInTransaction),
        limit(kept && !open, now, patience.pinned, Reason::TimeoutPinned),
    ];
    limits.into_iter().flatten().min_by_key(|limit| limit.at)
}

/// What the client is told in place of `error`, the body of what the server said of a query that we had
/// cancelled; `None` if it is about anything else.
pub(crate) fn cancelled(link: &Link, error: &[u8]) -> Option<Vec<u8>> {
    let said = Notice::read(error).filter(|_| link.clocked.cancelled.is_some())?;
    let ours = said.code == Some(b"57014");
    let mut out = Vec::new();
    let message: &[u8] = b"canceling statement due to query timeout";
    push_error(&mut out, &Notice { message: Some(message), ..said });
    ours.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn patience() -> Patience {
        let seconds = |count: u32| Some(SECOND * count);
        Patience {
            query: seconds(5),
            transaction: seconds(20),
            idle_in_transaction: seconds(2),
            pinned: seconds(9),
        }
    }

    /// The limit at each of these moments, in seconds: owed, open, kept.
    fn limits(steps: &[(u32, (bool, bool, bool))]) -> Vec<(u64, Reason)> {
        let mut clocked = Clocked::default();
        let start = Moment(1);
        let mut at = |(second, state): &(u32, _)| {
            let limit = limit(&mut clocked, patience(), start.after(SECOND * *second), *state);
            limit.map_or((0, Reason::Idle), |limit| (limit.at.since(start).as_secs(), limit.reason))
        };
        steps.iter().map(&mut at).collect()
    }

    #[test]
    fn a_query_has_its_time_however_its_answer_trickles_in() {
        let runs = (true, true, false);
        assert_eq!(limits(&[(0, runs), (1, runs), (4, runs)]), [(5, Reason::TimeoutQuery); 3]);
    }

    #[test]
    fn silence_counts_anew_and_the_transaction_does_not() {
        let (runs, silent) = ((true, true, false), (false, true, false));
        let told = limits(&[(0, runs), (1, silent), (2, runs), (17, silent), (19, silent)]);
        let idle = Reason::TimeoutIdleInTransaction;
        let transaction = (20, Reason::TimeoutTransaction);
        assert_eq!(
            told,
            [(5, Reason::TimeoutQuery), (3, idle), (7, Reason::TimeoutQuery), (19, idle), transaction]
        );
    }

    #[test]
    fn who_keeps_a_server_is_measured_by_its_silence_between_transactions() {
        let (between, none) = ((false, false, true), (false, false, false));
        assert_eq!(limits(&[(3, between), (4, none)]), [(12, Reason::TimeoutPinned), (0, Reason::Idle)]);
    }
}
