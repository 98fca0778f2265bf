//! One stream of a person's link: asked for by name, held against policy, led through an agent.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Clock, FarService, Fault, Reason, Stage, Whose};
use tieline_conn::{Connection, Outcome};
use tieline_registry::{Chosen, Record};
use tieline_transport::{Closed, Duplex, Io, Meter, Side};
use tieline_wire::tunnel::{Code, Patience, Request, StreamId};

use crate::agents::Agents;
use crate::host::AWAY_MAX;
use crate::live::LiveLink;
use crate::server::Tunnel;
use crate::stream::{code_in, said_in};

/// How long an agent may take to reach its service. It has a time of its own, which is shorter.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// What a person is told who may not, whatever the reason: whether there is such a service is none of his
/// business.
const NOT_ALLOWED: &str = "there is no such service, or it is not for you";

/// Serves the stream `id` of `link`, which the person asked for, to its end.
pub(crate) async fn serve(
    agents: Arc<Agents>,
    connection: Connection,
    link: Arc<LiveLink>,
    id: StreamId,
    request: Request,
) -> Outcome {
    // Dropped last: until then it says what became of the stream, should nobody else.
    let mut asked = Asked { link, id, record: connection.record().clone(), agents, answered: false };
    let (mut duplex, far) = match asked.open(&connection, &request).await {
        Ok(opened) => opened,
        Err(fault) => {
            asked.refuse(&fault);
            return Err(fault);
        }
    };
    // Dropped before the duplex: what is cut must not look like an end.
    let mut cut = Cut { near: &asked, far, cut: true };
    let held = connection.into_held();
    held.record.enter(Stage::Relay, Clock::now());
    let closed = poll_fn(|cx| duplex.poll(&Row(&held.record), cx)).await;
    cut.cut = false;
    // Who ordered the end knows better why than those who see it.
    match (held.record.leaving(), &closed.error) {
        (Some(reason), Some(_)) => Ok(reason),
        _ => outcome(closed),
    }
}

/// A stream that a person asked for.
struct Asked {
    agents: Arc<Agents>,
    link: Arc<LiveLink>,
    id: StreamId,
    record: Arc<Record>,
    answered: bool,
}

impl Asked {
    async fn open(
        &mut self,
        connection: &Connection,
        request: &Request,
    ) -> Result<(Duplex, (Arc<LiveLink>, StreamId)), Fault> {
        let far = service(&request.service).ok_or_else(no_route)?;
        let record = &self.record;
        let (endpoint, why) = (far.to_string(), "its person asked for it");
        record.set_chosen(Chosen { endpoint: endpoint.as_str().into(), why: Box::new(why) });
        self.agents.visits().passes(&far.agent, record);
        let client = record.parent().map_or(record.client(), |host| host.client());
        record.set_client(Some(client));
        let tunnel = connection.current::<Tunnel>()?;
        let route = tunnel.service(&far).cloned();
        connection.decide(route.as_ref(), client, Clock::now())?;
        let route = route.ok_or_else(no_route)?;
        record.enter(Stage::Acquire, Clock::now());
        let subject = connection.identity().name().unwrap_or_default();
        let opening = tokio::time::timeout(OPEN_MAX, self.agents.open(&far, subject));
        // Both arms may be dropped: a stream that is dropped while it opens is taken back.
        let opened = tokio::select! {
            opened = opening => opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = poll_fn(|cx| self.link.poll_gone(self.id, cx)) => {
                return Err(Fault::new(Stage::Acquire, Whose::Client, Reason::ClientReset));
            }
        };
        let stream = opened.map_err(unreached)?;
        let far = stream.handle();
        let near = self
            .link
            .accept(self.id)
            .ok_or_else(|| Fault::new(Stage::Acquire, Whose::Client, Reason::ClientReset))?;
        self.answered = true;
        let patience = Patience { detached: AWAY_MAX, idle: None };
        self.link.act(|core| core.link.set_patience(self.id, patience));
        let duplex = Duplex::new(Io::Stream(Box::new(near)), Io::Stream(Box::new(stream)), Vec::new());
        Ok((duplex.throttled(route.throttles(client)), far))
    }

    fn refuse(&mut self, fault: &Fault) {
        self.answered = true;
        let (code, text) = match fault.reason {
            Reason::RefusedPolicy | Reason::RefusedNoRoute => (Code::Denied, NOT_ALLOWED.to_owned()),
            Reason::RefusedSchedule => (Code::Denied, "it is not open at this time".into()),
            Reason::TimeoutConnect => (Code::Timeout, "its site does not answer".into()),
            Reason::Unreachable => {
                let error = fault.source.as_ref().and_then(|source| source.downcast_ref::<io::Error>());
                (Code::Unreachable, error.map_or_else(|| "its site cannot be reached".into(), said_in))
            }
            _ => (Code::Aborted, String::new()),
        };
        self.link.refuse(self.id, code, &text);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.agents.visits().passes_no_more(&self.record);
        if !self.answered {
            let why = self.record.ended().map(|ended| ended.reason);
            self.link.refuse(self.id, code_of(why), "");
        }
    }
}

/// Both ends of a stream, which are reset unless it ended by itself.
struct Cut<'s> {
    near: &'s Asked,
    far: (Arc<LiveLink>, StreamId),
    cut: bool,
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        if self.cut {
            let code = code_of(self.near.record.ended().map(|ended| ended.reason));
            self.near.link.reset(self.near.id, code);
            self.far.0.reset(self.far.1, code);
        }
    }
}

/// What both ends of a stream are told that was ended for `why`.
pub(crate) fn code_of(why: Option<Reason>) -> Code {
    match why {
        Some(Reason::Killed) => Code::Killed,
        Some(Reason::Revoked | Reason::RefusedPolicy) => Code::Denied,
        Some(Reason::MaxAge | Reason::Schedule) => Code::Expired,
        Some(Reason::Idle) => Code::Idle,
        Some(Reason::Drained) => Code::Draining,
        _ => Code::Aborted,
    }
}

/// Counts in a row.
struct Row<'r>(&'r Record);

impl Meter for Row<'_> {
    fn moved(&self, from: Side, bytes: usize) {
        self.0.moved(from == Side::Client, bytes as u64);
    }
}

/// `AGENT/SERVICE`.
pub(crate) fn service(text: &str) -> Option<FarService> {
    let (agent, service) = text.split_once('/')?;
    let named = tieline_base::is_far_name(agent) && tieline_base::is_far_name(service);
    named.then(|| FarService { agent: agent.into(), service: service.into() })
}

fn no_route() -> Fault {
    Fault::new(Stage::Route, Whose::Client, Reason::RefusedNoRoute)
}

fn unreached(error: io::Error) -> Fault {
    let reason = match (code_in(&error), error.kind()) {
        // The agent decides by its own file, too.
        (Some(Code::Denied), _) => Reason::RefusedPolicy,
        (Some(Code::Unknown), _) => Reason::RefusedNoRoute,
        (_, io::ErrorKind::TimedOut) => Reason::TimeoutConnect,
        _ => Reason::Unreachable,
    };
    Fault::new(Stage::Acquire, Whose::Upstream, reason).because(error)
}

fn outcome(closed: Closed) -> Outcome {
    let (whose, reset) = match closed.first {
        Side::Client => (Whose::Client, Reason::ClientReset),
        Side::Upstream => (Whose::Upstream, Reason::UpstreamReset),
    };
    match (closed.first, closed.error) {
        (Side::Client, None) => Ok(Reason::ClientClosed),
        (Side::Upstream, None) => Ok(Reason::UpstreamClosed),
        (_, Some(error)) => {
            let reason = match code_in(&error) {
                Some(Code::Idle) => Reason::Idle,
                _ => reset,
            };
            Err(Fault::new(Stage::Relay, whose, reason).because(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::service;

    #[test]
    fn a_service_has_an_agent_and_a_name() {
        assert_eq!(service("plant-7/ssh").unwrap().to_string(), "agent:plant-7/ssh");
        for text in ["", "ssh", "/ssh", "plant-7/", "a/b/c", "a/b\n", "../x"] {
            assert!(service(text).is_none(), "{text}");
        }
    }
}
