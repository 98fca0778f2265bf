//! An upstream: its endpoints and their standing, shared by all workers, outliving every reload.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;
use tieline_base::{Address, Clock, EndpointAddr, Moment};
use tieline_transport::FarSites;
use tokio::sync::{Notify, watch};

use crate::balance::{Balance, NoChoice, Turn, Why, stride};
use crate::endpoint::{Birth, Endpoint};
use crate::gate::{Gate, Ledger};
use crate::health::Verdict;
use crate::idle::Kept;
use crate::lease::Ask;
use crate::load::Load;
use crate::name::{Answer, Name};
use crate::presence::addresses_of;
use crate::purpose::{Fit, Purpose};
use crate::retry::RetryBudget;
use crate::room;
use crate::roster::Roster;
use crate::settings::{EndpointSettings, HealthSettings, Settings};
use crate::share::Share;
use crate::state::{EndpointId, Ticket};
use crate::status::{NameStatus, UnknownEndpoint, UpstreamStatus};

/// Told of every endpoint that leaves, so that whoever holds connections to it can drain them. Called with no
/// lock held, on the thread that made the change.
pub type OnLeave = Arc<dyn Fn(&Endpoint) + Send + Sync>;

/// A named set of endpoints, and where leases of them come from. There is one for the whole process; it lives
/// outside the config snapshot, and a reload changes it in place ([`Upstream::apply`]).
pub struct Upstream {
    name: Box<str>,
    roster: ArcSwap<Roster>,
    gate: Gate,
    pub(crate) budget: RetryBudget,
    pub(crate) load: Load,
    /// Round-robin's time.
    turn_clock: AtomicU64,
    /// Counts the roster's changes.
    changes: watch::Sender<u64>,
    /// An endpoint was ejected, and must be let back in time.
    pub(crate) ejected: Notify,
    on_leave: OnLeave,
    // Held while an operator, a reload or the keeper changes the roster; never by a lease, never over an
    // await.
    #[allow(clippy::disallowed_types)]
    control: std::sync::Mutex<Control>,
}

#[derive(Debug, Default)]
struct Control {
    names: BTreeMap<Address, Name>,
    /// What operators said last of an endpoint, by the name they called it: true to drain it. The latest rule
    /// that fits decides, also for endpoints to come.
    drains: Vec<(String, bool)>,
    /// Gone from the roster, with leases still out.
    leaving: Vec<Arc<Endpoint>>,
}

impl Upstream {
    /// An upstream with `settings`. Names have no addresses before [`Upstream::keep`] runs.
    pub fn new(settings: Settings, on_leave: OnLeave) -> Arc<Self> {
        let name = settings.name.clone().into();
        let nothing = Settings { endpoints: Vec::new(), ..settings.clone() };
        let roster = Roster { settings: Arc::new(nothing), endpoints: Vec::new(), unresolved: false };
        let upstream = Arc::new(Self {
            name,
            roster: ArcSwap::from_pointee(roster),
            gate: Gate::new(),
            budget: RetryBudget::new(Clock::now()),
            load: Load::default(),
            turn_clock: AtomicU64::new(0),
            changes: watch::Sender::new(0),
            ejected: Notify::new(),
            on_leave,
            control: Default::default(),
        });
        upstream.apply(settings);
        upstream
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Obeys new settings. Endpoints that stay keep their standing, counters and leases; those that are gone
    /// are told to [`OnLeave`] and returned. The name does not change.
    pub fn apply(&self, settings: Settings) -> Vec<Arc<Endpoint>> {
        self.load.obey(&settings, Clock::now());
        let left = self.change(|control, _| {
            control.names.retain(|address, _| settings.endpoints.iter().any(|e| e.address == *address));
            for endpoint in &settings.endpoints {
                if let Address::Name { .. } = endpoint.address {
                    control.names.entry(endpoint.address.clone()).or_default();
                }
            }
            Arc::new(settings)
        });
        self.told_of(left)
    }

    /// Takes the endpoints called `text` (a configured address, a label, or an address that a name stands
    /// for) out of use: no new leases. It holds until [`Upstream::enable_endpoint`], across reloads and new
    /// DNS answers. Leases that are out stay; their holders drain them.
    ///
    /// # Errors
    /// [`UnknownEndpoint`] if none is called so.
    pub fn drain_endpoint(&self, text: &str) -> Result<Vec<Arc<Endpoint>>, UnknownEndpoint> {
        self.rule(text, true)
    }

    /// Takes the endpoints called `text` back into use.
    ///
    /// # Errors
    /// [`UnknownEndpoint`] if none is called so.
    pub fn enable_endpoint(&self, text: &str) -> Result<Vec<Arc<Endpoint>>, UnknownEndpoint> {
        self.rule(text, false)
    }

    /// The endpoints in use, in the order of the config.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.roster.load().endpoints.clone()
    }

    /// From now on `endpoint` is fit for these purposes alone; what was lent for others is its holder's
    /// affair.
    pub fn set_fit(&self, endpoint: &Endpoint, fit: Fit) {
        if endpoint.become_fit_for(fit) != fit {
            self.refresh();
        }
    }

    /// Closes the connections to `endpoint` that rest.
    pub fn close_rested_at(&self, endpoint: &Endpoint) {
        self.gate.with(|ledger| {
            let closed = endpoint.shelf.clear();
            if self.gate.is_governed() {
                ledger.closed_at_rest(endpoint, closed);
            }
        });
    }

    /// Whether an ask for the endpoint of this [`Endpoint::key`] may be granted, now or when it has room.
    pub fn grants_wish(&self, key: u64) -> bool {
        let (roster, now) = (self.roster.load(), Clock::now());
        let endpoint = roster.endpoints.iter().find(|endpoint| endpoint.key() == key);
        endpoint.is_some_and(|endpoint| endpoint.standing(now).keeps_its_own())
    }

    /// Closes the connections at rest of which what is known is `doomed`.
    pub fn close_rested(&self, doomed: impl Fn(&dyn Kept) -> bool) {
        self.gate.with(|ledger| {
            for endpoint in &self.roster.load().endpoints {
                let closed = endpoint.shelf.close(&doomed);
                if closed > 0 {
                    ledger.closed_at_rest(endpoint, closed);
                }
            }
        });
    }

    /// How everything stands now.
    pub fn status(&self) -> UpstreamStatus {
        let now = Clock::now();
        let (roster, control) = (self.roster.load_full(), self.control());
        let leaving = control.leaving.iter().filter(|endpoint| endpoint.in_flight() > 0);
        let endpoints: Vec<_> = roster.endpoints.iter().chain(leaving).map(|e| e.status(now)).collect();
        let names = control.names.iter().map(|(address, name)| NameStatus {
            name: address.to_string(),
            endpoints: roster.endpoints.iter().filter(|e| e.configured() == address).count(),
            lives_until: name.lives_until,
            error: name.error.clone(),
        });
        let (waiting, wanted) = self.gate.with(|ledger| (ledger.state.waiting(), ledger.state.demand()));
        UpstreamStatus {
            name: self.name.to_string(),
            balance: roster.settings.balance,
            in_flight: endpoints.iter().map(|endpoint| endpoint.in_flight).sum(),
            waiting,
            wanted: self.gate.is_governed().then_some(wanted),
            size: roster.settings.pool.size,
            queue: roster.settings.pool.queue,
            panic: roster.selection(now, Purpose::USUAL).is_some_and(|selection| selection.panic),
            retries_left: self.budget.left(),
            limit: self.load.limit(),
            shedding: self.load.is_shedding(),
            counts: self.load.counts.read(),
            names: names.collect(),
            endpoints,
        }
    }
}

/// What leases need.
impl Upstream {
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(crate) fn roster(&self) -> arc_swap::Guard<Arc<Roster>> {
        self.roster.load()
    }

    /// Learns of changes to the roster.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Chooses an endpoint and counts a lease of it. With a ticket it is claimed at the gate; without one,
    /// [`NoChoice::Full`] may also mean that leases must pass the gate by now.
    pub(crate) fn seat(
        &self,
        ticket: Option<Ticket>,
        ask: &Ask,
        tried: &[EndpointId],
        now: Moment,
    ) -> Result<(Arc<Endpoint>, Why), NoChoice> {
        let Some(ticket) = ticket else {
            let (endpoint, why) = self.choose(&self.roster.load(), ask, tried, now)?;
            return if endpoint.tally.enter() { Ok((endpoint, why)) } else { Err(NoChoice::Full) };
        };
        self.gate.with(|ledger| {
            // The roster changes under this lock, so it agrees with the ledger.
            let roster = self.roster.load();
            let chosen = self.choose(&roster, ask, tried, now);
            if matches!(chosen, Err(NoChoice::Full)) {
                // The place was promised room that has closed. The ledger must know before the ask lines up
                // again.
                open_selected(ledger, &roster, now);
            }
            let (endpoint, why) = chosen?;
            if ledger.claim(ticket, &endpoint) { Ok((endpoint, why)) } else { Err(NoChoice::Full) }
        })
    }

    /// A lease of `endpoint` has ended.
    pub(crate) fn give_back(&self, endpoint: &Endpoint, share: Share) {
        if !endpoint.tally.leave() {
            self.gate.with(|ledger| ledger.give_back(endpoint, share));
        }
    }

    pub(crate) fn choose(
        &self,
        roster: &Roster,
        ask: &Ask,
        tried: &[EndpointId],
        now: Moment,
    ) -> Result<(Arc<Endpoint>, Why), NoChoice> {
        // Whoever belongs to another endpoint is not sent to see how this one does.
        if roster.settings.breaker.is_some()
            && ask.wish.is_none()
            && let Some((endpoint, why)) = roster.probed(now, ask.purpose, tried)
        {
            return Ok((endpoint, why));
        }
        let clock = self.turn_clock.load(Ordering::Relaxed);
        // Alone it needs no luck either.
        let random = if roster.endpoints.len() > 1 { fastrand::u64(..) } else { 0 };
        let turn = Turn { random, hash: ask.hash, wish: ask.wish, clock };
        let mut choice = roster.choose(now, turn, ask.purpose, tried)?;
        // Two that come in the same instant may both see that a breaker lets one through.
        while roster.endpoints[choice.index].wants_probe(now)
            && !roster.endpoints[choice.index].take_probe(now)
        {
            choice = roster.choose(now, turn, ask.purpose, tried)?;
        }
        let endpoint = &roster.endpoints[choice.index];
        // Alone it has every turn.
        let in_turns = roster.settings.balance == Balance::RoundRobin && roster.endpoints.len() > 1;
        if in_turns && !choice.why.by_wish() {
            let candidate = endpoint.candidate(now, roster.settings.slow_start, false);
            let due = candidate.pass.max(clock);
            self.turn_clock.fetch_max(due, Ordering::Relaxed);
            endpoint.take_turn(due, stride(candidate.weight));
        }
        Ok((Arc::clone(endpoint), choice.why))
    }
}

/// What the keeper needs.
impl Upstream {
    /// Takes the answer for a configured name.
    pub(crate) fn resolved(&self, address: &Address, answer: Answer) {
        let left = self.change(|control, settings| {
            // A reload may have removed the name while the answer was on its way.
            if let Some(name) = control.names.get_mut(address) {
                name.take(self.name(), address, answer);
            }
            Arc::clone(settings)
        });
        self.told_of(left);
    }

    /// Groups stand for others than before.
    pub(crate) fn enlist_again(&self) {
        let left = self.change(|_, settings| Arc::clone(settings));
        self.told_of(left);
    }

    /// Takes a health check's result.
    pub(crate) fn checked(&self, endpoint: &Endpoint, result: Result<(), String>, settings: &HealthSettings) {
        let error = result.clone().err().unwrap_or_default();
        let (upstream, label) = (self.name(), endpoint.label());
        match endpoint.checked(result, settings.thresholds, Clock::now()) {
            None => return,
            Some(Verdict::Down) => tracing::warn!(upstream, endpoint = label, error, "endpoint is down"),
            Some(_) => tracing::info!(upstream, endpoint = label, "endpoint is up"),
        }
        self.refresh();
    }

    /// When the next ejected endpoint is let back in.
    pub(crate) fn next_return(&self) -> Option<Moment> {
        let now = Clock::now();
        let roster = self.roster.load();
        roster.endpoints.iter().filter_map(|endpoint| endpoint.next_return(now)).min()
    }

    /// Some endpoint's standing changed: who waits at the gate may have room now.
    pub(crate) fn refresh(&self) {
        if self.gate.is_governed() {
            self.gate.with(|ledger| open_selected(ledger, &self.roster.load(), Clock::now()));
        }
    }
}

impl Upstream {
    /// Changes what is known about names and settings by `edit`, and the roster with it. Returns who left.
    fn change(&self, edit: impl FnOnce(&mut Control, &Arc<Settings>) -> Arc<Settings>) -> Vec<Arc<Endpoint>> {
        let now = Clock::now();
        let mut control = self.control();
        // It changes under both locks only, so it stays what it is until we store another.
        let old = self.roster.load_full();
        let settings = edit(&mut control, &old.settings);
        let left = self.gate.with(|ledger| {
            let (endpoints, left) = control.enlist(&settings, &old.endpoints, now);
            let unresolved = control.names.values().any(|name| !name.asked);
            let roster = Roster { settings, endpoints, unresolved };
            self.govern(ledger, &control, &old, &roster);
            room::clear(ledger, &left);
            open_selected(ledger, &roster, now);
            self.roster.store(Arc::new(roster));
            left
        });
        self.changes.send_modify(|count| *count += 1);
        left
    }

    /// Brings the ledger in line with the new roster.
    fn govern(&self, ledger: &mut Ledger, control: &Control, old: &Roster, new: &Roster) {
        let is_in = |roster: &Roster, id| roster.endpoints.iter().any(|other| other.id == id);
        let was_governed = self.gate.is_governed();
        if !was_governed && !new.settings.has_caps() {
            return;
        }
        let Ledger { state, grants, .. } = ledger;
        let pool = new.settings.pool;
        state.resize(pool.size.map_or(u32::MAX, Into::into), pool.queue, grants);
        state.owe(&new.settings.dues, grants);
        state.limit(self.load.limit().unwrap_or(u32::MAX), grants);
        for endpoint in new.endpoints.iter().chain(&control.leaving) {
            if was_governed && is_in(old, endpoint.id) {
                state.set_cap(endpoint.id, endpoint.cap(), grants);
            } else if !was_governed || is_in(new, endpoint.id) {
                let (lent, idle) = (endpoint.tally.govern(), endpoint.shelf.govern());
                state.add(endpoint.id, endpoint.cap(), lent, idle);
            }
        }
        for endpoint in control.leaving.iter() {
            state.remove(endpoint.id);
        }
        self.gate.set_governed();
    }

    fn rule(&self, text: &str, drained: bool) -> Result<Vec<Arc<Endpoint>>, UnknownEndpoint> {
        let now = Clock::now();
        let mut control = self.control();
        let endpoints = self.endpoints();
        let called: Vec<_> = endpoints.iter().filter(|e| e.is_called(text)).cloned().collect();
        if called.is_empty() {
            let labels: Vec<&str> = endpoints.iter().map(|e| e.label()).collect();
            let known = if labels.is_empty() { "none at the moment".into() } else { labels.join(", ") };
            let (upstream, endpoint) = (self.name.to_string(), text.to_owned());
            return Err(UnknownEndpoint { upstream, endpoint, known });
        }
        control.drains.retain(|(other, _)| other != text);
        control.drains.push((text.to_owned(), drained));
        called.iter().for_each(|endpoint| endpoint.set_drained(drained, now));
        drop(control);
        self.refresh();
        Ok(called)
    }

    fn told_of(&self, left: Vec<Arc<Endpoint>>) -> Vec<Arc<Endpoint>> {
        for endpoint in &left {
            (self.on_leave)(endpoint);
        }
        left
    }

    #[allow(clippy::disallowed_types)] // see the field
    fn control(&self) -> std::sync::MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    /// The endpoints that `settings` and the names make: those of `old` that stay, and new ones. Also who
    /// left.
    fn enlist(
        &mut self,
        settings: &Settings,
        old: &[Arc<Endpoint>],
        now: Moment,
    ) -> (Vec<Arc<Endpoint>>, Vec<Arc<Endpoint>>) {
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::new();
        let far = || settings.dial.far.clone();
        for configured in &settings.endpoints {
            for addresses in self.addresses_of(&configured.address, settings.dial.far.as_ref()) {
                if endpoints.iter().any(|endpoint| endpoint.is(&configured.address, &addresses)) {
                    continue;
                }
                match old.iter().find(|endpoint| endpoint.is(&configured.address, &addresses)) {
                    Some(stays) => {
                        stays.obey(configured);
                        endpoints.push(Arc::clone(stays));
                    }
                    None => {
                        endpoints.push(self.enlist_new(configured, addresses, far(), !old.is_empty(), now))
                    }
                }
            }
        }
        let gone = |endpoint: &&Arc<Endpoint>| !endpoints.iter().any(|other| other.id == endpoint.id);
        let left: Vec<_> = old.iter().filter(gone).cloned().collect();
        left.iter().for_each(|endpoint| endpoint.leave(now));
        if settings.health.is_none() {
            endpoints.iter().for_each(|endpoint| endpoint.unchecked(now));
        }
        if settings.breaker.is_none() {
            endpoints.iter().for_each(|endpoint| endpoint.unbroken());
        }
        self.leaving.retain(|endpoint| endpoint.in_flight() > 0);
        self.leaving.extend(left.iter().cloned());
        (endpoints, left)
    }

    fn enlist_new(
        &mut self,
        settings: &EndpointSettings,
        addresses: Box<[EndpointAddr]>,
        far: Option<FarSites>,
        slowly: bool,
        now: Moment,
    ) -> Arc<Endpoint> {
        let birth = Birth { id: EndpointId::next(), addresses, far, slowly, now };
        let endpoint = Endpoint::new(settings, birth);
        let rule = self.drains.iter().rev().find(|(text, _)| endpoint.is_called(text));
        endpoint.set_drained(rule.is_some_and(|(_, drained)| *drained), now);
        Arc::new(endpoint)
    }

    /// Each item is one endpoint's addresses.
    fn addresses_of(&self, configured: &Address, far: Option<&FarSites>) -> Vec<Box<[EndpointAddr]>> {
        match configured {
            Address::Socket(socket) => vec![Box::new([EndpointAddr::Socket(*socket)])],
            Address::Unix(path) => vec![Box::new([EndpointAddr::Unix(path.as_path().into())])],
            Address::Agent(far) => vec![Box::new([EndpointAddr::Agent(Box::new(far.clone()))])],
            Address::Group(group) => far.map(|far| addresses_of(group, far)).unwrap_or_default(),
            Address::Name { port, .. } => {
                self.names.get(configured).map(|name| name.endpoints(*port)).unwrap_or_default()
            }
        }
    }
}

/// Tells the ledger which endpoints the balancer uses.
fn open_selected(ledger: &mut Ledger, roster: &Roster, now: Moment) {
    let open = roster.open(now);
    let what_for = |id| open.iter().find(|(other, _)| *other == id).map_or(Fit::NONE, |(_, fit)| *fit);
    ledger.state.open_for(what_for, &mut ledger.grants);
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.name).finish_non_exhaustive()
    }
}
