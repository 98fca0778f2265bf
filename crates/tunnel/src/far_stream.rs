//! One stream of a person's link: asked for by name, held against policy, led through an agent.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use tieline_base::{Address, Clock, FarGroup, FarService, Fault, Moment, Reason, Stage, Whose};
use tieline_conn::{Connection, Outcome, Route};
use tieline_policy::Subject;
use tieline_policy::approval::{ApprovalId, State, Terms, Wish};
use tieline_registry::{Chosen, Record, Verdict};
use tieline_transport::{Closed, Duplex, Io, Meter, Side};
use tieline_wire::tunnel::{Code, Patience, Request, StreamId};
use tokio::sync::watch;

use crate::agents::Agents;
use crate::alarm::Alarm;
use crate::approvals;
use crate::authority::AGENT_PREFIX;
use crate::flow::{FlowEnd, LinkFlow, join_flows};
use crate::host::AWAY_MAX;
use crate::live::LiveLink;
use crate::server::Tunnel;
use crate::stream::{code_in, said_in};

/// The way to services that people may ask for.
#[derive(Clone, Debug)]
pub struct Way {
    /// Who may.
    pub route: Arc<Route>,
    /// Who has to agree each time; `None`: nobody.
    pub approval: Option<Arc<Terms>>,
    /// How long no byte may move; `None`: for ever.
    pub idle: Option<Duration>,
    /// How long a stream may live; `None`: for ever.
    pub max_age: Option<Duration>,
}

/// How long an agent may take to reach its service. It has a time of its own, which is shorter.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// How long a stream waits for its person: as long as its link does.
const PATIENCE: Patience = Patience { detached: AWAY_MAX, idle: None };
/// The most flows of one person's link at once: those of all people share the agent's.
const FLOWS_MAX: usize = 256;

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
    let (mut conversation, far, way) = match asked.open(&connection, &request).await {
        Ok(opened) => opened,
        Err(fault) => {
            asked.refuse(&fault);
            return Err(fault);
        }
    };
    // Dropped before the conversation: what is cut must not look like an end.
    let mut cut = Cut { near: &asked, far, cut: true };
    let held = connection.into_held();
    held.record.enter(Stage::Relay, Clock::now());
    let mut limits = Limits::begin(&way, &held.record);
    let closed = {
        let mut passing = pin!(conversation.pass(&held.record));
        poll_fn(|cx| {
            limits.poll(&held.record, cx);
            passing.as_mut().poll(cx)
        })
        .await
    };
    cut.cut = false;
    // Who ordered the end knows better why than those who see it.
    match (held.record.leaving(), &closed.error) {
        (Some(reason), Some(_)) => Ok(reason),
        _ => outcome(closed),
    }
}

/// What passes between the two links.
enum Conversation {
    Bytes(Box<Duplex>),
    Datagrams(LinkFlow, LinkFlow),
}

impl Conversation {
    /// Passes it on until it ends.
    async fn pass(&mut self, record: &Record) -> Closed {
        match self {
            Conversation::Bytes(duplex) => poll_fn(|cx| duplex.poll(&Row(record), cx)).await,
            Conversation::Datagrams(near, far) => {
                let mut counted = Datagrams { record, near, far, from: 0, to: 0 };
                match join_flows(near, far, |up, bytes| counted.passed(up, bytes)).await {
                    FlowEnd::Near(end) => Closed { first: Side::Client, error: end.err() },
                    FlowEnd::Far(end) => Closed { first: Side::Upstream, error: end.err() },
                }
            }
        }
    }
}

/// Counts the datagrams of a flow, and tells in its row how many they were, however it ends.
struct Datagrams<'f> {
    record: &'f Record,
    near: &'f LinkFlow,
    far: &'f LinkFlow,
    /// From the person, and to him.
    from: u64,
    to: u64,
}

impl Datagrams<'_> {
    fn passed(&mut self, up: bool, bytes: usize) {
        self.record.moved(up, bytes as u64);
        *(if up { &mut self.from } else { &mut self.to }) += 1;
    }
}

impl Drop for Datagrams<'_> {
    fn drop(&mut self) {
        let Datagrams { from, to, .. } = self;
        let dropped = self.near.dropped() + self.far.dropped();
        self.record.note(format!("{from} datagrams from the client, {to} to it, {dropped} dropped here"));
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
    ) -> Result<(Conversation, (Arc<LiveLink>, StreamId), Way), Fault> {
        if request.flow && self.link.look(|core| core.link.flows()) > FLOWS_MAX {
            let many = Fault::new(Stage::Acquire, Whose::Client, Reason::LimitPerUser);
            return Err(many.because(format!("a link has {FLOWS_MAX} flows at the most")));
        }
        let far = self.choose(connection, &request.service)?;
        let record = &self.record;
        let of_a_group = request.service.contains('=');
        let why =
            if of_a_group { "of the group that its person asked for" } else { "its person asked for it" };
        record.set_chosen(Chosen { endpoint: far.to_string().as_str().into(), why: Box::new(why) });
        self.agents.visits().passes(record);
        // However long he waits for somebody else, he comes back as who he is.
        self.link.act(|core| core.link.set_patience(self.id, PATIENCE));
        let way = self.let_through(connection, &far, &request.why).await?;
        let (record, client) = (&self.record, self.record.client());
        record.enter(Stage::Acquire, Clock::now());
        let subject = connection.identity().name().unwrap_or_default();
        let opening = tokio::time::timeout(OPEN_MAX, self.agents.open(&far, subject, request.flow));
        // Both arms may be dropped: a stream that is dropped while it opens is taken back.
        let opened = tokio::select! {
            opened = opening => opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            () = poll_fn(|cx| self.link.poll_gone(self.id, cx)) => {
                return Err(gone());
            }
        };
        let stream = opened.map_err(unreached)?;
        let far = stream.handle();
        self.agents.visits().leads_over(&self.record, &far.0);
        let near = self.link.accept(self.id).ok_or_else(gone)?;
        self.answered = true;
        if request.flow {
            let (near, stream) = (LinkFlow::new(near), LinkFlow::new(stream));
            return Ok((Conversation::Datagrams(near, stream), far, way));
        }
        let duplex = Duplex::new(Io::Stream(Box::new(near)), Io::Stream(Box::new(stream)), Vec::new());
        let duplex = Box::new(duplex.throttled(way.route.throttles(client)));
        Ok((Conversation::Bytes(duplex), far, way))
    }

    /// Decides, and waits for an approval where one is needed; then decides again, because that took its
    /// time.
    async fn let_through(&self, connection: &Connection, far: &FarService, why: &str) -> Result<Way, Fault> {
        let record = &self.record;
        let (person, service) = (connection.identity().name().unwrap_or_default(), named(far));
        let wish = Wish { person, service: &service, why };
        let mut changes = self.agents.approvals().changes();
        let mut waits = None;
        loop {
            let client = record.parent().map_or(record.client(), |host| host.client());
            record.set_client(Some(client));
            let way = connection.current::<Tunnel>()?.service(far).cloned();
            connection.decide(way.as_ref().map(|way| &way.route), client, Clock::now())?;
            let way = way.ok_or_else(no_route)?;
            let Some(terms) = &way.approval else { return Ok(way) };
            let asked = self.agents.approvals().ask(&wish, terms).map_err(unapproved)?;
            if let State::Approved(_) = asked.state {
                record.note(approvals::said(&asked));
                self.agents.visits().passes_by(asked.id, record);
                // Whoever takes it back from here on finds the stream.
                if self.agents.approvals().holds(asked.id, terms) {
                    return Ok(way);
                }
                continue;
            }
            if waits.replace(asked.id) != Some(asked.id) {
                let text = approvals::asks(&asked);
                record.note(format!("waits for approval: {text}"));
                self.link.act(|core| core.link.wait(self.id, &text));
            }
            self.answer(connection, asked.id, &mut changes).await?;
        }
    }

    /// Waits until the request `id` was approved, or has to be put anew.
    async fn answer(
        &self,
        connection: &Connection,
        id: ApprovalId,
        changes: &mut watch::Receiver<()>,
    ) -> Result<(), Fault> {
        let asked_by = connection.generation();
        loop {
            let request = self.agents.approvals().look(id);
            match request.as_ref().map(|request| request.state) {
                Some(State::Denied | State::Unanswered) => {
                    return Err(unapproved(request.as_ref().map(approvals::said).unwrap_or_default()));
                }
                Some(State::Waits(_)) if connection.generation() == asked_by => {}
                _ => return Ok(()),
            }
            // Both arms may be dropped.
            tokio::select! {
                _ = changes.changed() => {}
                () = poll_fn(|cx| self.link.poll_gone(self.id, cx)) => return Err(gone()),
            }
        }
    }

    /// Which service of which agent `text` means. Of a group it is one that this person may reach: a name
    /// that stands for several opens nothing that the agents' own names would not.
    fn choose(&self, connection: &Connection, text: &str) -> Result<FarService, Fault> {
        let group = match wanted(text).ok_or_else(no_route)? {
            Wanted::Service(far) => return Ok(far),
            Wanted::Group(group) => group,
        };
        let client = self.record.parent().map_or(self.record.client(), |host| host.client());
        let subject = Subject { client, identity: connection.identity() };
        let tunnel = connection.current::<Tunnel>()?;
        let may =
            |far: &FarService| tunnel.service(far).is_some_and(|way| way.route.rule.decide(&subject).is_ok());
        let candidates = self.agents.candidates(&group);
        let chosen = candidates.iter().find(|far| may(far)).or(candidates.first()).cloned();
        chosen.ok_or_else(no_route)
    }

    fn refuse(&mut self, fault: &Fault) {
        self.answered = true;
        let (code, text) = match fault.reason {
            Reason::RefusedPolicy | Reason::RefusedNoRoute => (Code::Denied, NOT_ALLOWED.to_owned()),
            Reason::RefusedSchedule => (Code::Denied, "it is not open at this time".into()),
            Reason::RefusedApproval => {
                (Code::Denied, fault.source.as_ref().map(ToString::to_string).unwrap_or_default())
            }
            Reason::LimitPerUser => (Code::Busy, "too many flows at once".into()),
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
        Some(Reason::MaxAge | Reason::Schedule | Reason::ApprovalEnded) => Code::Expired,
        Some(Reason::Idle) => Code::Idle,
        Some(Reason::Drained) => Code::Draining,
        _ => Code::Aborted,
    }
}

/// How long a stream may last, by its route.
struct Limits {
    dies: Moment,
    alarm: Alarm,
}

impl Limits {
    fn begin(way: &Way, record: &Record) -> Limits {
        let now = Clock::now();
        record.touch(now);
        record.expect(way.idle.unwrap_or(Duration::MAX), Reason::Idle);
        let dies = way.max_age.map_or(Moment(u64::MAX), |age| now.after(age));
        Limits { dies, alarm: Alarm::default() }
    }

    /// Orders the end when the time has come.
    fn poll(&mut self, record: &Record, cx: &mut Context<'_>) {
        if self.alarm.poll(self.dies, cx).is_ready() {
            record.end(Verdict { at: self.dies, reason: Reason::MaxAge });
            self.dies = Moment(u64::MAX);
        }
    }
}

/// Counts in a row.
struct Row<'r>(&'r Record);

impl Meter for Row<'_> {
    fn moved(&self, from: Side, bytes: usize) {
        self.0.moved(from == Side::Client, bytes as u64);
    }
}

/// What a person asks for.
enum Wanted {
    Service(FarService),
    Group(FarGroup),
}

/// `AGENT/SERVICE` or `LABELS/SERVICE`.
fn wanted(text: &str) -> Option<Wanted> {
    match format!("{AGENT_PREFIX}{text}").parse().ok()? {
        Address::Agent(far) => Some(Wanted::Service(far)),
        Address::Group(group) => Some(Wanted::Group(group)),
        _ => None,
    }
}

/// `AGENT/SERVICE`.
pub(crate) fn service(text: &str) -> Option<FarService> {
    let (agent, service) = text.split_once('/')?;
    let named = tieline_base::is_far_name(agent) && tieline_base::is_far_name(service);
    named.then(|| FarService { agent: agent.into(), service: service.into() })
}

/// `AGENT/SERVICE`, as whoever asks for it writes it.
fn named(far: &FarService) -> String {
    format!("{}/{}", far.agent, far.service)
}

fn unapproved(why: impl ToString) -> Fault {
    Fault::new(Stage::Authorize, Whose::Client, Reason::RefusedApproval).because(why.to_string())
}

fn gone() -> Fault {
    Fault::new(Stage::Acquire, Whose::Client, Reason::ClientReset)
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
                Some(Code::Unreachable) => Reason::Unreachable,
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
