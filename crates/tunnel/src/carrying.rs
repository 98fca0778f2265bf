//! A connection that carries the link of an agent: what its row counts and tells, when it is asked to leave,
//! and how long the link waits when it is gone.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{ClientAddr, Clock, Fault, Reason, Stage, Whose};
use tieline_conn::{Held, Outcome};
use tieline_registry::Record;
use tieline_wire::tunnel::{Code, Epoch, LinkId};

use crate::agents::Agents;
use crate::alarm::Alarm;
use crate::carrier::{Carrier, Parting, Passing};
use crate::ends::reason_of;
use crate::live::{LiveLink, Resumption};
use crate::server::malformed;

/// How long a link waits for its agent to come back.
const DETACHED_MAX: Duration = Duration::from_secs(120);

/// Sees to it that a link is over when the connection that carried it last is ended, by whatever.
pub(crate) struct Watch {
    pub(crate) agents: Arc<Agents>,
    pub(crate) agent: String,
    pub(crate) id: LinkId,
    pub(crate) link: Arc<LiveLink>,
    pub(crate) epoch: Epoch,
}

impl Watch {
    /// The link goes on over the connection of `record`; the one before came from `before`.
    pub(crate) fn tell_resumed(&self, record: &Record, before: Option<ClientAddr>) {
        let Some(Resumption { epoch, gap, replayed }) = self.link.look(|core| core.take_resumption()) else {
            return;
        };
        let (agent, client) = (&self.agent, record.client());
        let before = before.unwrap_or(client);
        let (gap_ms, replayed_bytes) = (gap.as_millis(), replayed);
        tracing::info!(agent, from = %before, to = %client, gap_ms, replayed_bytes, "resumed");
        let text = format!(
            "the link of agent \"{agent}\" goes on here: epoch {}, after {gap:.1?}, {replayed} bytes again, \
             before from {before}",
            epoch.0
        );
        self.agents.visits().tell_through(&self.link, &text);
        record.note(text);
    }

    /// The agent has another address, and the connection has followed it.
    fn follow(&self, record: &Record, client: ClientAddr) {
        let (agent, before) = (&self.agent, record.client());
        tracing::info!(agent, from = %before, to = %client, "the agent's address has changed");
        record.set_client(Some(client));
        let text = format!("agent \"{agent}\" comes from {client} now, before from {before}");
        self.agents.visits().tell_through(&self.link, &text);
        record.note(text);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.link.end_at(self.epoch, Code::Killed);
        if self.link.look(|core| core.link.epoch()) == self.epoch {
            self.agents.leave(&self.agent, self.id);
        }
    }
}

/// Counts in a row.
pub(crate) struct Row<'r>(pub(crate) &'r Record);

impl Passing for Row<'_> {
    fn passed(&self, up: bool, bytes: usize) {
        self.0.moved(up, bytes as u64);
    }
}

/// Whether the row is asked to leave. The agent is told, so that its link goes on over another connection
/// where it can; a link without streams ends here.
#[derive(Default)]
struct Leaving {
    told: bool,
}

/// So that the agents of a server do not all come back at once: each has so much time of its own ...
const MOVE_EACH: Duration = Duration::from_millis(5);

/// ... and all of them together have so much at the most.
const MOVE_SPREAD_MAX: Duration = Duration::from_secs(10);

impl Leaving {
    fn look(&mut self, record: &Record, carrier: &mut Carrier, agents: &Agents) {
        let Some(verdict) = record.leaves_by() else { return };
        if !std::mem::replace(&mut self.told, true) {
            let left = verdict.at.since(Clock::now());
            let all = u32::try_from(agents.linked()).unwrap_or(u32::MAX);
            let spread = MOVE_EACH.saturating_mul(all).min(MOVE_SPREAD_MAX);
            carrier.go_away(left, spread.min(left / 2));
        }
        let epoch = carrier.epoch();
        carrier.link().act(|core| {
            if core.link.epoch() == epoch && !core.awaited() {
                core.end(Code::Draining);
            }
        });
    }
}

/// Carries the link until this connection can no more.
pub(crate) async fn carry(mut carrier: Carrier, held: Held, watch: Watch) -> Outcome {
    let record = &held.record;
    record.enter(Stage::Relay, Clock::now());
    let mut leaving = Leaving::default();
    let parting = poll_fn(|cx| {
        leaving.look(record, &mut carrier, &watch.agents);
        let parting = carrier.poll(&Row(record), cx);
        if let Some(client) = carrier.take_elsewhere() {
            watch.follow(record, ClientAddr::from_socket(client));
        }
        // The agent dials, not we.
        watch.link.look(|core| core.take_doubt());
        if watch.link.look(|core| core.heard.take_news()) {
            watch.agents.has_changed();
        }
        parting
    });
    let parting = parting.await;
    drop(carrier);
    match parting {
        Parting::Replaced => Ok(Reason::Moved),
        Parting::Over(Code::Draining) => Ok(record.leaving().unwrap_or(Reason::Drained)),
        Parting::Over(code) => Ok(reason_of(code)),
        Parting::Told(code) => {
            record.note(format!("the agent ends the link: {code}"));
            Ok(Reason::ClientClosed)
        }
        Parting::Breach(_) | Parting::Frame(_) => Err(malformed(&parting.to_string())),
        Parting::Lost(error) => {
            let text = format!("{error}; the link waits for its agent");
            watch.agents.visits().tell_through(&watch.link, &text);
            record.note(text);
            record.enter(Stage::Acquire, Clock::now());
            watch.agents.has_changed();
            detached(&watch).await
        }
    }
}

/// The link waits for another connection.
async fn detached(watch: &Watch) -> Outcome {
    let mut alarm = Alarm::default();
    let waiting = poll_fn(|cx| watch.link.poll_detached(watch.epoch, &mut alarm, cx));
    match tokio::time::timeout(DETACHED_MAX, waiting).await {
        Ok(None) => Ok(Reason::Moved),
        Ok(Some(code)) => Ok(reason_of(code)),
        // It came back in the last moment.
        Err(_) if !watch.link.end_at(watch.epoch, Code::Expired) => Ok(Reason::Moved),
        Err(_) => {
            let gone = Fault::new(Stage::Acquire, Whose::Client, Reason::ClientReset);
            Err(gone.because(format!("its agent did not come back within {DETACHED_MAX:?}")))
        }
    }
}
