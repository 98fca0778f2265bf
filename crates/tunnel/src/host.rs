//! A person's connection to a tunnel listener: it begins a link and hosts it, or carries one that goes on.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tieline_base::{ClientAddr, Clock, Reason, Stage};
use tieline_conn::{Children, Connection, Outcome};
use tieline_policy::Subject;
use tieline_registry::{Record, Verdict};
use tieline_transport::Io;
use tieline_wire::tunnel::{Code, Epoch, Frame, LinkId, Party, Refusal};
use tokio::sync::mpsc;

use crate::agents::Agents;
use crate::alarm::Alarm;
use crate::carrier::{Carrier, Parting};
use crate::carrying::Row;
use crate::ends::reason_of;
use crate::far_stream;
use crate::greeting::{First, exporter, refuse, welcome};
use crate::live::{LiveLink, Resumption};
use crate::server::{GREETING_MAX, Tunnel, denied, go_on, late, malformed, no_link, ungreeted};
use crate::visits::{Guest, MOVES_MAX, Move, Visit};

/// How long a person's link waits for him to come back: as long as somebody at a terminal would.
pub(crate) const AWAY_MAX: Duration = Duration::from_secs(900);

/// How long the last words may take.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// How a carrier of a person's link began.
enum Begun {
    /// With a link of its own.
    Anew(LinkId, Carrier, mpsc::Receiver<Move>),
    /// With one that has a host.
    Again(Visit, Carrier),
}

/// Serves a connection by which `guest` was proved.
pub(crate) async fn serve(agents: Arc<Agents>, guest: Guest, mut connection: Connection, io: Io) -> Outcome {
    // Policy knows whoever has a token by that from here on.
    let identity = guest.identity(connection.identity());
    if identity != *connection.identity() {
        connection.prove(identity, None)?;
    }
    let begun = begin(&agents, &connection, io, &guest);
    match tokio::time::timeout(GREETING_MAX, begun).await.map_err(|_| late())?? {
        Begun::Anew(id, carrier, moves) => Host::new(agents, connection, id, carrier, moves).run().await,
        Begun::Again(visit, carrier) => carry(&agents, connection, visit, carrier).await,
    }
}

/// The first frames.
async fn begin(
    agents: &Agents,
    connection: &Connection,
    mut io: Io,
    guest: &Guest,
) -> Result<Begun, tieline_base::Fault> {
    let first = First::read(&mut io).await.map_err(ungreeted)?;
    let exporter = exporter(&io).map_err(ungreeted)?;
    let (record, mut out) = (connection.record(), Vec::new());
    match first.frame().map_err(ungreeted)? {
        Frame::Hello(hello) => {
            let made = welcome(&hello, Party::Connect, &exporter, &mut out).map_err(ungreeted)?;
            let (id, link) = match made {
                Ok(made) => made,
                Err(refusal) => {
                    refuse(&mut io, refusal, Duration::ZERO).await;
                    return Err(malformed("it wants a link that this server does not make"));
                }
            };
            let (epoch, link) = (link.epoch(), LiveLink::new(link, true));
            let (moves, moved) = mpsc::channel(MOVES_MAX);
            let (who, record) = (guest.clone(), record.clone());
            if let Err(fault) = agents.visits().enter(id, Visit { who, link: link.clone(), record, moves }) {
                refuse(&mut io, Refusal::Busy, Duration::from_secs(30)).await;
                return Err(fault);
            }
            if !still_good(agents, guest) {
                agents.visits().leave(id);
                refuse(&mut io, Refusal::Denied, Duration::ZERO).await;
                return Err(denied().because("the token was revoked while it linked up"));
            }
            Ok(Begun::Anew(id, Carrier::new(io, link, epoch, first.rest(), out), moved))
        }
        Frame::Resume(resume) => {
            let (id, epoch) = (resume.link, resume.epoch);
            let visit = agents.visits().find(id, guest).ok_or(Refusal::NoLink);
            let gone_on = visit.and_then(|visit| {
                let good = || still_good(agents, guest);
                go_on(&visit.link, resume, exporter, good, &mut out).map(|()| visit)
            });
            match gone_on {
                Ok(visit) => {
                    let carrier = Carrier::new(io, visit.link.clone(), epoch, first.rest(), out);
                    Ok(Begun::Again(visit, carrier))
                }
                Err(refusal) => {
                    refuse(&mut io, refusal, Duration::ZERO).await;
                    Err(no_link(refusal).because("no link of this token goes on here by what it shows"))
                }
            }
        }
        _ => Err(malformed("its first frame begins no link")),
    }
}

fn still_good(agents: &Agents, guest: &Guest) -> bool {
    guest.is_good(agents.people())
}

/// Carries a link that is hosted elsewhere, until this connection can no more.
async fn carry(agents: &Agents, connection: Connection, visit: Visit, mut carrier: Carrier) -> Outcome {
    let (host, resumption) = (visit.record.id(), visit.link.look(|core| core.take_resumption()));
    let record = connection.record().clone();
    record.note(format!("carries the link of connection {host} from here on"));
    let told = Move { over: record.id(), client: record.client(), resumption };
    if visit.moves.send(told).await.is_err() || !still_good(agents, &visit.who) {
        visit.link.end(Code::Denied);
        return Err(denied().because("the link ended while it was to go on"));
    }
    record.enter(Stage::Relay, Clock::now());
    let held = connection.into_held();
    let over = held.record.id();
    let parting = poll_fn(|cx| {
        let parting = carrier.poll(&Row(&held.record), cx);
        if let Some(client) = carrier.take_elsewhere().map(ClientAddr::from_socket) {
            held.record.set_client(Some(client));
            if visit.moves.try_send(Move { over, client, resumption: None }).is_err() {
                // Nobody is there who could ask policy.
                visit.link.end(Code::Denied);
            }
        }
        parting
    });
    let parting = parting.await;
    match parting {
        Parting::Replaced => Ok(Reason::Moved),
        Parting::Over(code) => {
            // Whoever knows it already does not mind.
            let _ = tokio::time::timeout(FAREWELL_MAX, carrier.kill(code)).await;
            Ok(reason_of(code))
        }
        Parting::Told(code) => {
            held.record.note(format!("the client ends the link: {code}"));
            Ok(Reason::ClientClosed)
        }
        Parting::Breach(_) | Parting::Frame(_) => Err(malformed(&parting.to_string())),
        Parting::Lost(error) => {
            held.record.note(format!("{error}; connection {host} waits for another"));
            Ok(Reason::Moved)
        }
    }
}

/// The first connection of a link: whatever the link carries lives inside it.
struct Host {
    agents: Arc<Agents>,
    id: LinkId,
    link: Arc<LiveLink>,
    record: Arc<Record>,
    children: Children,
    carrier: Option<Carrier>,
    epoch: Epoch,
    moves: mpsc::Receiver<Move>,
    alarm: Alarm,
    /// When the link is given up.
    expiry: Alarm,
    /// Since when nothing carries it.
    away: Option<tieline_base::Moment>,
}

impl Host {
    fn new(
        agents: Arc<Agents>,
        connection: Connection,
        id: LinkId,
        carrier: Carrier,
        moves: mpsc::Receiver<Move>,
    ) -> Self {
        let (link, epoch) = (carrier.link().clone(), carrier.epoch());
        let record = connection.record().clone();
        record.enter(Stage::Relay, Clock::now());
        let children = Children::of(connection);
        let (alarm, expiry) = Default::default();
        Self {
            agents,
            id,
            link,
            record,
            children,
            carrier: Some(carrier),
            epoch,
            moves,
            alarm,
            expiry,
            away: None,
        }
    }

    async fn run(mut self) -> Outcome {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            self.link.host(cx);
            if let Some(outcome) = self.poll_carrier(cx) {
                return Poll::Ready(outcome);
            }
            let moved = self.poll_moves(cx);
            let opened = self.open_streams();
            if let Some(code) = self.link.over() {
                return Poll::Ready(Ok(self.reason_of(code)));
            }
            if self.poll_away(cx).is_ready() {
                self.link.end(Code::Expired);
                self.record.note(format!("nobody came back within {AWAY_MAX:?}"));
                return Poll::Ready(Ok(Reason::ClientReset));
            }
            self.children.watch(cx);
            if self.record.leaving().is_some() && self.children.living() == 0 {
                self.link.end(Code::Draining);
                return Poll::Ready(Ok(Reason::Drained));
            }
            if !(moved || opened) {
                return Poll::Pending;
            }
        }
    }

    /// The connection's own carrier; `Some` when the link is over for good.
    fn poll_carrier(&mut self, cx: &mut Context<'_>) -> Option<Outcome> {
        let carrier = self.carrier.as_mut()?;
        let polled = carrier.poll(&Row(&self.record), cx);
        if let Some(client) = carrier.take_elsewhere().map(ClientAddr::from_socket) {
            self.follow(Move { over: self.record.id(), client, resumption: None });
        }
        let Poll::Ready(parting) = polled else { return None };
        match parting {
            Parting::Replaced => self.carrier = None,
            Parting::Lost(error) => {
                self.record.note(format!("{error}; the link waits"));
                self.carrier = None;
            }
            // It is left for the last words.
            Parting::Over(code) => return Some(Ok(self.reason_of(code))),
            Parting::Told(code) => {
                self.record.note(format!("the client ends the link: {code}"));
                return Some(Ok(self.record.leaving().unwrap_or(Reason::ClientClosed)));
            }
            Parting::Breach(_) | Parting::Frame(_) => return Some(Err(malformed(&parting.to_string()))),
        }
        None
    }

    /// Who ordered the end knows better why.
    fn reason_of(&self, code: Code) -> Reason {
        self.record.leaving().unwrap_or_else(|| reason_of(code))
    }

    /// Whether the link goes on over another connection: then all that is open is decided about again.
    fn poll_moves(&mut self, cx: &mut Context<'_>) -> bool {
        let Poll::Ready(Some(told)) = self.moves.poll_recv(cx) else { return false };
        self.follow(told);
        true
    }

    fn follow(&self, Move { over, client, resumption }: Move) {
        let before = self.record.client();
        let again = resumption.map_or_else(String::new, |Resumption { epoch, gap, replayed }| {
            format!(": epoch {}, after {gap:.1?}, {replayed} bytes again", epoch.0)
        });
        let text =
            format!("the person's link goes on over connection {over} from {client}, before {before}{again}");
        let (gap, replayed) = resumption.map_or_else(Default::default, |it| (it.gap, it.replayed));
        let (person, gap_ms, replayed_bytes) = (self.record.identity(), gap.as_millis(), replayed);
        tracing::info!(%person, from = %before, to = %client, gap_ms, replayed_bytes, "resumed");
        self.record.note(text.as_str());
        self.record.set_client(Some(client));
        self.record.enter(Stage::Relay, Clock::now());
        let tunnel = self.children.parent().current::<Tunnel>().ok();
        self.agents.visits().tell_inside(&self.record, &text, |stream| {
            stream.set_client(Some(client));
            let way = tunnel.as_ref().and_then(|tunnel| tunnel.service_of(stream));
            let subject = Subject { client, identity: stream.identity() };
            let disapproved = || self.agents.disapproves(stream, way);
            let denied = match way.map(|way| way.route.rule.decide(&subject)) {
                Some(Ok(_)) => match disapproved() {
                    Some(why) => why,
                    None => return,
                },
                Some(Err(denied)) => denied.to_string(),
                None => "no route leads there any more".into(),
            };
            stream.note(format!("not from {client}: {denied}"));
            stream.end(Verdict { at: Clock::now(), reason: Reason::Revoked });
        });
    }

    /// Whether there were streams to open.
    fn open_streams(&mut self) -> bool {
        let mut any = false;
        while let Some((id, request)) = self.link.look(|core| core.take_offered()) {
            any = true;
            if self.record.leaving().is_some() {
                self.link.refuse(id, Code::Draining, "the server is draining");
                continue;
            }
            let (agents, link) = (self.agents.clone(), self.link.clone());
            self.children
                .open_alone(|connection| Box::pin(far_stream::serve(agents, connection, link, id, request)));
        }
        any
    }

    /// Looks after the link while nothing carries it; ready when it is given up.
    fn poll_away(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (attached, epoch) = self.link.look(|core| (core.link.attached(), core.link.epoch()));
        if attached || self.carrier.is_some() {
            self.away = None;
            return Poll::Pending;
        }
        let now = Clock::now();
        if self.away.is_none() || self.epoch != epoch {
            (self.away, self.epoch) = (Some(now), epoch);
            self.record.enter(Stage::Acquire, now);
            self.agents.visits().tell_inside(&self.record, "the person's link is down; it waits", |_| {});
        }
        // Over, or going on elsewhere: whoever brings that about wakes us as its host, too.
        let _ = self.link.poll_detached(epoch, &mut self.alarm, cx);
        let until = self.away.unwrap_or(now).after(AWAY_MAX);
        self.expiry.poll(until, cx)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.agents.visits().leave(self.id);
        let told = || far_stream::code_of(self.record.ended().map(|ended| ended.reason));
        let code = self.link.over().unwrap_or_else(told);
        self.link.end(code);
        if let Some(mut carrier) = self.carrier.take() {
            // So that the person learns why now, and not by dialing again.
            self.children.parent().aside(async move {
                let _ = tokio::time::timeout(FAREWELL_MAX, carrier.kill(code)).await;
            });
        }
    }
}
