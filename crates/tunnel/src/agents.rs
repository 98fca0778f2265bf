//! The agents of a server: who is linked up, and the way to what they offer.

#![allow(clippy::disallowed_types)] // looked up by every worker that dials; never held over an await

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tieline_base::{ClientAddr, Clock, FarService, Labels, Moment, Proved, Reason};
use tieline_registry::{Record, Verdict};
use tieline_wire::tunnel::{Code, LinkId, Request};
use tokio::sync::watch;

use crate::approvals::Approvals;
use crate::authority::{Authority, AuthorityError};
use crate::known::{Known, Standing};
use crate::live::{Core, LiveLink};
use crate::offered::Offered;
use crate::people::{People, PersonToken};
use crate::roster::Roster;
use crate::seats::{Seat, Seats};
use crate::server::Shown;
use crate::sha::random;
use crate::stream::{LinkStream, said};
use crate::token::TokenError;
use crate::turns::Turns;
use crate::visits::{Guest, Proof, Visits};

/// Every agent that is linked up, by name. It outlives configs.
pub struct Agents {
    roster: Arc<Roster>,
    people: People,
    visits: Visits,
    approvals: Approvals,
    authority: Mutex<Option<Arc<Authority>>>,
    seats: Seats,
    /// What is remembered of agents, linked up or not.
    sites: Mutex<HashMap<String, Site>>,
    /// When it was last looked whether a certificate is over.
    looked: Mutex<Moment>,
    /// Counts who comes and goes, and who offers other things.
    changes: watch::Sender<()>,
}

/// What is remembered of an agent for as long as the server runs.
#[derive(Default)]
struct Site {
    turns: Turns,
    /// The release of the process that linked up last.
    release: Option<String>,
    /// When its last link ended; `None` while there is one.
    left: Option<Moment>,
}

/// How an agent stands.
#[derive(Clone, Debug)]
pub struct AgentStatus {
    /// Its name.
    pub name: String,
    /// What it is labelled with.
    pub labels: Labels,
    /// Whether it is locked out, for somebody has a copy of its key.
    pub locked: bool,
    /// Whether two processes took turns at its link in the last hour.
    pub copied: bool,
    /// Until when it may link up without a new certificate, in seconds since 1970.
    pub until: u64,
    /// The release of the process that linked up last, since the server has been running.
    pub release: Option<String>,
    /// When its last link ended; `None` if there is one, or was none since the server has been running.
    pub left: Option<Moment>,
    /// Its links.
    pub links: Vec<LinkStatus>,
}

/// How a link of an agent stands.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// Whether something carries it just now.
    pub attached: bool,
    /// Its streams.
    pub streams: usize,
    /// Since when there is this link, over whatever connection.
    pub since: Moment,
    /// What the agent says that it offers; `None`: nothing was said yet.
    pub offers: Option<Arc<Offered>>,
    /// The smoothed round trip over it, once it was measured.
    pub round_trip: Option<Duration>,
    /// What part of the packets to it was lost in the last minute, in percent; `None` if none was sent.
    pub loss: Option<f64>,
    /// The connection that carries it, or did last.
    pub record: Arc<Record>,
}

impl LinkStatus {
    fn of(seat: Seat) -> LinkStatus {
        let look = |core: &mut Core| {
            let streams = core.link.streams().count();
            let (round_trip, loss) = (core.link.measured_round_trip(), core.losses.percent());
            (core.link.attached(), streams, core.heard.offers().cloned(), round_trip, loss)
        };
        let (attached, streams, offers, round_trip, loss) = seat.link.look(look);
        LinkStatus { attached, streams, since: seat.since, offers, round_trip, loss, record: seat.record }
    }
}

impl Agents {
    /// The agents of the server whose data folder is `data`. Nothing is read or made.
    pub fn new(data: &Path) -> Arc<Agents> {
        let (authority, seats, sites) = Default::default();
        let (roster, looked) = (Arc::new(Roster::at(data)), Mutex::new(Moment(0)));
        let (people, visits, approvals) = (People::of(data), Visits::default(), Approvals::default());
        let changes = watch::Sender::new(());
        Arc::new(Agents { roster, people, visits, approvals, authority, seats, sites, looked, changes })
    }

    /// The authority that they are believed by; it is made if it is not there. Blocks the first time.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn authority(&self) -> Result<Arc<Authority>, AuthorityError> {
        let mut known = lock(&self.authority);
        if let Some(authority) = &*known {
            return Ok(authority.clone());
        }
        let authority = Arc::new(Authority::open(self.roster.store())?);
        // Who may link up is known before anybody can.
        self.roster.refresh();
        Ok(known.insert(authority).clone())
    }

    pub(crate) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    pub(crate) fn people(&self) -> &People {
        &self.people
    }

    pub(crate) fn visits(&self) -> &Visits {
        &self.visits
    }

    /// Whom `token` proves.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn proved(&self, token: PersonToken) -> Result<Arc<Proved>, TokenError> {
        let people = self.people.clone();
        let proved = tokio::task::spawn_blocking(move || people.proved_by(&token)).await;
        let entry = proved.map_err(|_| TokenError::Revoked)??;
        Ok(Arc::new(Guest(entry, Proof::Token).proved()))
    }

    pub(crate) fn approvals(&self) -> &Approvals {
        &self.approvals
    }

    /// Whether whoever shows this may link up. Waits for nothing.
    pub(crate) fn knows(&self, shown: &Shown) -> bool {
        self.standing(shown) == Standing::Good
    }

    /// What the certificate that was shown is worth. Waits for nothing.
    pub(crate) fn standing(&self, shown: &Shown) -> Standing {
        self.roster.standing(&shown.agent, &shown.serial)
    }

    /// A certificate was shown that another has followed long ago: two have the agent's key, and which of
    /// them is the agent nobody can tell. Neither may link up until it joins anew.
    pub(crate) async fn lock_out(&self, shown: &Shown) {
        let (roster, agent) = (self.roster.clone(), shown.agent.clone());
        let locked = tokio::task::spawn_blocking(move || roster.lock_out(&agent)).await;
        let (agent, serial) = (&shown.agent, &shown.serial);
        match locked.map_err(io::Error::other) {
            Ok(Ok(true)) => tracing::error!(
                agent,
                serial,
                "somebody has a copy of this agent's key: it is locked out; find out who, then let it join \
                 anew by `tieline agent token`"
            ),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::error!(agent, "cannot lock it out: {error}"),
            Err(error) => tracing::error!(agent, "cannot lock it out: {error}"),
        }
    }

    /// An agent has linked up by its newest certificate: older ones are good no longer.
    pub(crate) async fn used(&self, shown: &Shown) {
        if !self.roster.is_first_use(&shown.agent, &shown.serial) {
            return;
        }
        let (roster, agent, serial) = (self.roster.clone(), shown.agent.clone(), shown.serial.clone());
        // Should it fail, the older one stays good for the time it was issued for.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || roster.used(&agent, &serial)).await {
            tracing::error!(agent = shown.agent, "cannot keep that its certificate is in use: {error}");
        }
    }

    /// The process `boot` of `release` links up as `agent`: if it takes turns with another, somebody should
    /// know.
    pub(crate) fn hello(&self, agent: &str, boot: [u8; 16], release: &str) {
        let now = Clock::now();
        let mut sites = lock(&self.sites);
        // As many as ever joined: each has a file of its own already.
        let site = sites.entry(agent.to_owned()).or_default();
        (site.release, site.left) = (Some(release.to_owned()), None);
        let copied = site.turns.hello(boot, now);
        drop(sites);
        if copied {
            tracing::error!(
                agent,
                "two processes take turns at its link: its folder was copied, or it runs twice; \
                 `tieline agent revoke` puts both out"
            );
        }
    }

    /// All that have joined, by name.
    pub fn list(&self) -> Vec<AgentStatus> {
        let now = Clock::now();
        let status = |(name, known): (String, Arc<Known>)| {
            let links: Vec<LinkStatus> = self.seats.of(&name).into_iter().map(LinkStatus::of).collect();
            let sites = lock(&self.sites);
            let site = sites.get(&name);
            AgentStatus {
                labels: known.labels.clone(),
                locked: known.is_locked(),
                copied: site.is_some_and(|site| site.turns.alarmed(now)),
                until: known.newest().map_or(0, |newest| newest.until),
                release: site.and_then(|site| site.release.clone()),
                left: site.and_then(|site| site.left).filter(|_| links.is_empty()),
                links,
                name,
            }
        };
        self.roster.all().into_iter().map(status).collect()
    }

    /// How many links of agents there are.
    pub(crate) fn linked(&self) -> usize {
        self.seats.count()
    }

    /// The link `id`, if it is that of `agent`.
    pub(crate) fn link(&self, agent: &str, id: LinkId) -> Option<Arc<LiveLink>> {
        self.seats.find(agent, id)
    }

    /// Gives `agent` a place. Whoever had it before is the same agent, which has begun anew: that link is
    /// over.
    pub(crate) fn seat(&self, agent: &str, seat: Seat) {
        for before in self.seats.take(agent, seat) {
            before.link.end(Code::Lost);
        }
        self.has_changed();
    }

    /// Somebody has come or gone, is carried again or no more, or offers other things.
    pub(crate) fn has_changed(&self) {
        self.changes.send_replace(());
    }

    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The agents that are linked up, by name, each with its link for one stream more.
    pub(crate) fn all_linked(&self) -> Vec<(String, Arc<LiveLink>)> {
        let names = self.seats.agents().into_iter();
        names.filter_map(|name| self.seats.best(&name).map(|link| (name, link))).collect()
    }

    /// The link of `agent` for one stream more, if there is one.
    pub(crate) fn link_of(&self, agent: &str) -> Option<Arc<LiveLink>> {
        self.seats.best(agent)
    }

    /// The link of `agent` goes on over another connection. Answers where the one before came from.
    pub(crate) fn moved(
        &self,
        agent: &str,
        id: LinkId,
        serial: &str,
        record: &Arc<Record>,
    ) -> Option<ClientAddr> {
        let before = self.seats.change(agent, id, |seat| {
            seat.serial = serial.to_owned();
            std::mem::replace(&mut seat.record, record.clone()).client()
        });
        self.has_changed();
        before
    }

    /// The link `id` of `agent` is over.
    pub(crate) fn leave(&self, agent: &str, id: LinkId) {
        if self.seats.leave(agent, id) {
            self.gone(agent);
        }
    }

    /// Ends the links of agents whose certificates are good no longer, and of people whose tokens are, if
    /// any was admitted or revoked since it was last asked, and of those whose time is over; and approvals
    /// that have had theirs. Costs two `stat`s; to be called a few times a second, by a thread that nobody
    /// waits for.
    pub fn judge_again(&self) {
        self.visits.judge_again(&self.people);
        self.end_approvals();
        let changed = self.roster.refresh();
        let now = Clock::now();
        let mut looked = lock(&self.looked);
        if !changed && now.since(*looked) < EXPIRY_LOOKED_FOR_EVERY {
            return;
        }
        *looked = now;
        drop(looked);
        let good = |agent: &str, seat: &Seat| self.roster.standing(agent, &seat.serial) == Standing::Good;
        for (agent, seat, last) in self.seats.weed(good) {
            if last {
                self.gone(&agent);
            }
            let standing = self.roster.standing(&agent, &seat.serial);
            tracing::warn!(agent, "{}: its link and all its streams are ended", told(standing));
            seat.link.end(Code::Denied);
            seat.record.end(Verdict { at: Clock::now(), reason: Reason::Revoked });
        }
    }

    /// It has no link any more.
    fn gone(&self, agent: &str) {
        self.has_changed();
        if let Some(site) = lock(&self.sites).get_mut(agent) {
            site.left = Some(Clock::now());
        }
    }
}

/// Why an agent may not be linked up.
pub(crate) fn told(standing: Standing) -> &'static str {
    match standing {
        Standing::Good => "it may link up",
        Standing::Expired => "its certificate has expired and was not renewed",
        Standing::Stale | Standing::Copied => "another certificate of the same agent is in use",
        Standing::Locked => "locked out, for somebody has a copy of its key",
        Standing::Unknown => "revoked",
    }
}

/// How often it is looked whether a live link's certificate is over.
const EXPIRY_LOOKED_FOR_EVERY: Duration = Duration::from_secs(10);

/// More than a tick of any file system.
pub(crate) const SETTLED: Duration = Duration::from_secs(3);

impl Agents {
    /// Opens a stream to a service, or a `flow`, for `subject`: who was proved, or nobody where many share
    /// it. Without a deadline: the caller has one.
    ///
    /// # Errors
    /// The agent is not linked up, takes no more streams, or says no.
    pub(crate) async fn open(&self, far: &FarService, subject: &str, flow: bool) -> io::Result<LinkStream> {
        let stream = self.ask(far, subject, flow)?;
        stream.opened().await?;
        Ok(stream)
    }

    /// Asks for a stream, whose answer is yet to come.
    pub(crate) fn ask(&self, far: &FarService, subject: &str, flow: bool) -> io::Result<LinkStream> {
        let absent = || {
            let text = format!("agent \"{}\" is not linked up", far.agent);
            io::Error::new(io::ErrorKind::NotConnected, text)
        };
        let link = self.link_of(&far.agent).ok_or_else(absent)?;
        if let Some(offered) =
            link.look(|core| core.heard.offers().cloned()).filter(|it| !it.has(&far.service))
        {
            return Err(not_offered(far, &offered));
        }
        let (service, subject) = (far.service.as_str().into(), subject.into());
        let request = Request { service, subject, permit: 0, trace: random()?, why: "".into(), flow };
        link.open(request).map_err(|code| {
            let text = format!("agent \"{}\" takes no stream: {code}", far.agent);
            io::Error::new(io::ErrorKind::ConnectionRefused, text)
        })
    }
}

/// The agent would say the same.
fn not_offered(far: &FarService, offered: &Offered) -> io::Error {
    let FarService { agent, service } = far;
    said(Code::Unknown, format!("agent \"{agent}\" offers no \"{service}\"; it offers {offered}"))
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agents").field("linked", &self.list()).finish_non_exhaustive()
    }
}
