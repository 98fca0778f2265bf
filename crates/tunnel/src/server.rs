//! The protocol `tunnel`: agents link up, or get their certificates.
//!
//! A connection carries a link, or does not. Its row is the link's row while it does, and stays so while the
//! link waits for another connection to go on over: what ends the row ends the link.

use std::sync::Arc;
use std::time::Duration;

use tieline_base::{ClientAddr, Clock, FarService, Fault, Reason, Stage, Whose};
use tieline_config::FarMatch;
use tieline_conn::{Connection, Outcome, Protocol, Route, Serving};
use tieline_registry::Record;
use tieline_transport::Io;
use tieline_transport::tls::{ServerTls, Voucher, serial_of};
use tieline_wire::tunnel::{Code, Frame, Hello, LinkId, Party, Refusal, Resume};

use crate::agents::{Agents, told};
use crate::authority::AGENT_PREFIX;
use crate::carrier::{Carrier, Medium};
use crate::carrying::{Watch, carry};
use crate::enrol::{self, Enrolled};
use crate::far_stream::Way;
use crate::greeting::{First, GreetingError, exporter, refuse, welcome};
use crate::known::Standing;
use crate::live::LiveLink;
use crate::people::People;
use crate::probe::{self, AgentSeen, Seen};
use crate::seats::{PLACES, Seat};
use crate::sha::Sha;
use crate::visits::Guest;
use crate::websocket::{self, UpgradeError};
use crate::{ALPN_ENROL, ALPN_HTTP, ALPN_LINK, ALPN_PROBE, ALPN_QUIC, ALPN_QUIC_PROBE, far_stream, host};

/// The protocol `tunnel` at one listener.
pub struct Tunnel {
    agents: Arc<Agents>,
    route: Arc<Route>,
    /// What people may ask for, the most exact first.
    services: Vec<(FarMatch, Way)>,
    /// How TLS ends inside a WebSocket: as it does around it.
    tls: Option<Arc<ServerTls>>,
}

/// How long the first frames may take.
pub(crate) const GREETING_MAX: Duration = Duration::from_secs(5);

/// How soon an agent whose certificate is over may have a new one.
const RENEWS_WITHIN: Duration = Duration::from_secs(5);

impl Tunnel {
    /// The protocol for `agents`; `route` is the way that all links take, with its rule, and `services` are
    /// the ways to what people may ask for; `tls` is how links prove themselves.
    pub fn new(
        agents: Arc<Agents>,
        route: Arc<Route>,
        mut services: Vec<(FarMatch, Way)>,
        tls: Option<Arc<ServerTls>>,
    ) -> Self {
        services.sort_by_key(|(takes, _)| std::cmp::Reverse(takes.rank()));
        Self { agents, route, services, tls }
    }

    /// The way to `far`, if there is one.
    pub(crate) fn service(&self, far: &FarService) -> Option<&Way> {
        let takes = |(takes, _): &&(FarMatch, Way)| takes.takes(&far.agent, &far.service);
        self.services.iter().find(takes).map(|(_, way)| way)
    }

    /// The way that the stream of `record` would take.
    pub(crate) fn service_of(&self, record: &Record) -> Option<&Way> {
        let endpoint = record.endpoint()?;
        self.service(&far_stream::service(endpoint.strip_prefix(AGENT_PREFIX)?)?)
    }
}

impl Protocol for Tunnel {
    fn serve(&self, connection: Connection, io: Io) -> Serving {
        Box::pin(serve(self.agents.clone(), self.route.clone(), self.tls.clone(), connection, io))
    }

    fn disowns(&self, record: &Record) -> Option<String> {
        // A listener of tunnels without TLS has no links.
        let tls = self.tls.as_ref()?;
        let Some(shown) = Shown::by(record.identity(), tls) else {
            let known = Guest::by(record.identity(), self.agents.people(), tls).is_some();
            let gone = || format!("what \"{}\" was proved by is good no longer", record.identity());
            return if known {
                self.agents.disapproves(record, self.service_of(record))
            } else {
                Some(gone())
            };
        };
        let standing = self.agents.standing(&shown);
        (standing != Standing::Good).then(|| format!("agent \"{}\": {}", shown.agent, told(standing)))
    }

    fn leaves_when_asked(&self) -> bool {
        true
    }

    fn carries_others(&self) -> bool {
        true
    }

    fn route_of(&self, record: &Record) -> Option<Arc<Route>> {
        match record.parent() {
            Some(_) => self.service_of(record).map(|way| way.route.clone()),
            None => Some(self.route.clone()),
        }
    }
}

/// The certificate of an agent, good or not.
pub(crate) struct Shown {
    pub(crate) agent: String,
    pub(crate) serial: String,
}

impl Shown {
    /// What `identity` was proved by, if that is a certificate of ours for an agent. Whom others vouch for is
    /// none, whatever his certificate says.
    fn by(identity: &tieline_policy::Identity, tls: &ServerTls) -> Option<Shown> {
        let proved = identity.proved()?;
        if tls.voucher(&proved.certificates)? != Voucher::House {
            return None;
        }
        let agent = proved.name.strip_prefix(AGENT_PREFIX)?.to_owned();
        Some(Shown { agent, serial: serial_of(proved.certificates.first()?)? })
    }
}

async fn serve(
    agents: Arc<Agents>,
    route: Arc<Route>,
    tls: Option<Arc<ServerTls>>,
    mut connection: Connection,
    mut io: Io,
) -> Outcome {
    let client = connection.record().client();
    connection.decide(Some(&route), client, Clock::now())?;
    let tls = tls.ok_or_else(|| malformed("it agreed on no protocol of tunnels"))?;
    let mut medium = Medium::Tls;
    // Whoever offers nothing may be a proxy that passes on what its clients ask of it.
    if matches!(agreed(&connection).as_deref(), None | Some(ALPN_HTTP)) {
        let inside = unwrap(&mut connection, io, &tls, agents.people());
        io = tokio::time::timeout(GREETING_MAX, inside).await.map_err(|_| late())??;
        medium = Medium::WebSocket;
    }
    let shown = Shown::by(connection.identity(), &tls);
    let standing = shown.as_ref().map_or(Standing::Unknown, |shown| agents.standing(shown));
    if matches!(agreed(&connection).as_deref(), Some(ALPN_PROBE | ALPN_QUIC_PROBE)) {
        let person = Guest::by(connection.identity(), agents.people(), &tls);
        let seen = Seen {
            agent: shown.map(|shown| AgentSeen::of(&shown, standing)),
            person: person.map(|Guest(who, _)| who.name),
        };
        return probed(&connection, io, seen).await;
    }
    if let Some(shown) = shown.as_ref().filter(|_| standing == Standing::Copied) {
        agents.lock_out(shown).await;
    }
    let guest = Guest::by(connection.identity(), agents.people(), &tls);
    let medium = match agreed(&connection).as_deref() {
        Some(ALPN_ENROL) => {
            let worth = matches!(standing, Standing::Good | Standing::Expired);
            return issue(&agents, connection, io, shown.filter(|_| worth)).await;
        }
        Some(ALPN_LINK) => medium,
        Some(ALPN_QUIC) => Medium::Quic,
        _ => return Err(malformed("it agreed on no protocol of tunnels")),
    };
    connection.record().set_carrier(medium.as_str());
    match guest {
        Some(guest) => host::serve(agents, guest, connection, io).await,
        None => link_up(agents, connection, io, shown, standing).await,
    }
}

fn agreed(connection: &Connection) -> Option<Vec<u8>> {
    Some(connection.tls()?.alpn.as_ref()?.as_bytes().to_vec())
}

/// What is inside a WebSocket. Whoever was proved around it counts for nothing: whoever spoke there may have
/// passed on the bytes of another.
async fn unwrap(
    connection: &mut Connection,
    io: Io,
    tls: &Arc<ServerTls>,
    people: &People,
) -> Result<Io, Fault> {
    let io = websocket::answer(io).await.map_err(|error| match error {
        UpgradeError::Io(error) => reset(error),
        error => malformed(&error.to_string()),
    })?;
    let io = connection.secure(io, Vec::new(), tls).await?;
    let shown = connection.identity().clone();
    let inside = Guest::by(&shown, people, tls).map(|guest| guest.identity(&shown));
    connection.prove(inside.unwrap_or(shown), Some(tls))?;
    Ok(io)
}

/// Tells somebody who only looks how he got here. It is no alarm whatever he shows.
async fn probed(connection: &Connection, mut io: Io, seen: Seen) -> Outcome {
    let record = connection.record();
    record.note("somebody looks whether he gets here (`tieline doctor`)");
    let answered = probe::answer(&mut io, record.client(), seen);
    match tokio::time::timeout(GREETING_MAX, answered).await {
        Ok(Ok(())) => Ok(Reason::Answered),
        Ok(Err(error)) => Err(reset(error)),
        Err(_) => Err(late()),
    }
}

async fn issue(agents: &Arc<Agents>, connection: Connection, mut io: Io, good: Option<Shown>) -> Outcome {
    let authority = agents
        .authority()
        .map_err(|error| Fault::new(Stage::Identify, Whose::Us, Reason::Internal).because(error))?;
    let joins = good.is_none();
    let answered = enrol::answer(&mut io, agents, &authority, good);
    match tokio::time::timeout(GREETING_MAX, answered).await.map_err(|_| late())?.map_err(reset)? {
        Enrolled::Issued(agent, issued) => {
            let serial = issued.good.serial;
            // Every agent renews its own twice a day.
            if joins {
                tracing::info!(agent, serial, client = %connection.record().client(), "certificate issued");
            } else {
                tracing::debug!(agent, serial, "certificate renewed");
            }
            connection.record().note(format!("certificate {serial} issued to \"{agent}\""));
            Ok(Reason::Answered)
        }
        Enrolled::Refused(why) => Err(denied().because(why)),
    }
}

/// A carrier, and which link it carries.
struct Up {
    id: LinkId,
    carrier: Carrier,
    /// Where the one before came from, of a link that goes on.
    before: Option<ClientAddr>,
}

async fn link_up(
    agents: Arc<Agents>,
    connection: Connection,
    mut io: Io,
    shown: Option<Shown>,
    standing: Standing,
) -> Outcome {
    let (refusal, retry_after) = match standing {
        // It renews first, and comes again.
        Standing::Expired => (Refusal::Busy, RENEWS_WITHIN),
        Standing::Stale => (Refusal::Stale, Duration::ZERO),
        _ => (Refusal::Denied, Duration::ZERO),
    };
    let Some(shown) = shown.filter(|_| standing == Standing::Good) else {
        refuse(&mut io, refusal, retry_after).await;
        return Err(
            denied().because(format!("no certificate of an agent that may link up: {}", told(standing)))
        );
    };
    let begun = begin(&agents, connection.record(), io, &shown);
    let up = tokio::time::timeout(GREETING_MAX, begun).await.map_err(|_| late())??;
    let held = connection.into_held();
    let watch = Watch {
        agents: agents.clone(),
        agent: shown.agent.clone(),
        id: up.id,
        link: up.carrier.link().clone(),
        epoch: up.carrier.epoch(),
    };
    agents.used(&shown).await;
    watch.tell_resumed(&held.record, up.before);
    carry(up.carrier, held, watch).await
}

/// The first frames: a new link, or one that goes on.
async fn begin(agents: &Agents, record: &Arc<Record>, mut io: Io, shown: &Shown) -> Result<Up, Fault> {
    let first = First::read(&mut io).await.map_err(ungreeted)?;
    let exporter = exporter(&io).map_err(ungreeted)?;
    let mut out = Vec::new();
    match first.frame().map_err(ungreeted)? {
        Frame::Hello(hello) => {
            let made = welcome(&hello, Party::Agent, &exporter, &mut out).map_err(ungreeted)?;
            let (id, link) = match made.and_then(|made| hello_fits(&hello).map(|()| made)) {
                Ok(made) => made,
                Err(refusal) => {
                    refuse(&mut io, refusal, Duration::ZERO).await;
                    return Err(malformed("it wants a link that this server does not make"));
                }
            };
            record.note(format!("agent \"{}\" {} links up", shown.agent, hello.release));
            let (epoch, link) = (link.epoch(), LiveLink::new(link, false));
            let (serial, record, since) = (shown.serial.clone(), record.clone(), Clock::now());
            let Hello { boot, place, release, .. } = hello;
            agents.hello(&shown.agent, boot, release);
            agents.seat(&shown.agent, Seat { id, link: link.clone(), boot, place, serial, record, since });
            still_good(agents, shown, id, &link)?;
            Ok(Up { id, carrier: Carrier::new(io, link, epoch, first.rest(), out), before: None })
        }
        Frame::Resume(resume) => {
            let (id, epoch) = (resume.link, resume.epoch);
            // An unknown link, another's and a wrong proof are answered alike.
            let link = agents.link(&shown.agent, id).ok_or(Refusal::NoLink);
            let good = || agents.knows(shown);
            match link.and_then(|link| go_on(&link, resume, exporter, good, &mut out).map(|()| link)) {
                Ok(link) => {
                    let before = agents.moved(&shown.agent, id, &shown.serial, record);
                    still_good(agents, shown, id, &link)?;
                    Ok(Up { id, carrier: Carrier::new(io, link, epoch, first.rest(), out), before })
                }
                Err(refusal) => {
                    refuse(&mut io, refusal, Duration::ZERO).await;
                    Err(no_link(refusal).because("no link of this agent goes on here by what it shows"))
                }
            }
        }
        _ => Err(malformed("its first frame begins no link")),
    }
}

/// Whether the link has a place among those of its agent.
fn hello_fits(hello: &Hello<'_>) -> Result<(), Refusal> {
    if hello.place < PLACES { Ok(()) } else { Err(Refusal::Denied) }
}

/// Its certificate was judged before it spoke. From now on [`Agents::judge_again`] sees it; what was revoked
/// in between, this does.
fn still_good(agents: &Agents, shown: &Shown, id: LinkId, link: &LiveLink) -> Result<(), Fault> {
    if agents.knows(shown) {
        return Ok(());
    }
    link.end(Code::Denied);
    agents.leave(&shown.agent, id);
    Err(denied().because("it was revoked while it linked up"))
}

/// The order counts: the certificate was judged, then the proof, then the policy; only then anything changes.
pub(crate) fn go_on(
    link: &LiveLink,
    resume: Resume<'_>,
    exporter: tieline_wire::tunnel::Exporter,
    good: impl FnOnce() -> bool,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    link.act(|core| {
        if core.over().is_some() {
            return Err(Refusal::NoLink);
        }
        let judged = core.link.judge(&Sha, exporter, resume).map_err(|_| Refusal::NoLink)?;
        if !good() {
            return Err(Refusal::Denied);
        }
        core.link.attach(&Sha, judged, Clock::now(), out).map_err(|_| Refusal::Stale)
    })?;
    link.displace();
    Ok(())
}

pub(crate) fn denied() -> Fault {
    Fault::new(Stage::Identify, Whose::Client, Reason::RefusedCertificate)
}

/// Why a link does not go on.
pub(crate) fn no_link(refusal: Refusal) -> Fault {
    match refusal {
        Refusal::Denied => denied(),
        _ => Fault::new(Stage::Identify, Whose::Client, Reason::RefusedLink),
    }
}

pub(crate) fn late() -> Fault {
    Fault::new(Stage::Identify, Whose::Client, Reason::TimeoutHandshake)
}

pub(crate) fn malformed(why: &str) -> Fault {
    Fault::new(Stage::Identify, Whose::Client, Reason::ProtocolError).because(why.to_owned())
}

fn reset(error: std::io::Error) -> Fault {
    Fault::new(Stage::Identify, Whose::Client, Reason::ClientReset).because(error)
}

pub(crate) fn ungreeted(error: GreetingError) -> Fault {
    match error {
        GreetingError::Io(error) => reset(error),
        error => malformed(&error.to_string()),
    }
}
