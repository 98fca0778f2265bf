//! One dialable member of an upstream, and all that is known about it.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tieline_base::{Address, EndpointAddr, FarGroup, FarService, Moment};
use tieline_transport::{DialOptions, FarSites};

use crate::balance::{Candidate, Standing, stable_key};
use crate::breaker::{Breaker, BreakerSettings, Change};
use crate::ewma::PeakEwma;
use crate::habit::Habit;
use crate::health::{Health, Thresholds, Verdict};
use crate::idle::Shelf;
use crate::outlier::{Census, Failure, Outlier, OutlierSettings};
use crate::purpose::Fit;
use crate::said::Said;
use crate::settings::EndpointSettings;
use crate::slow_start;
use crate::state::EndpointId;
use crate::status::EndpointStatus;
use crate::tally::Tally;
use crate::trunk::Trunk;

/// One dialable member of an upstream. Workers read and count without locks; it outlives its place in the
/// config for as long as a lease of it is out.
#[derive(Debug)]
pub struct Endpoint {
    pub(crate) id: EndpointId,
    configured: Address,
    addresses: Box<[EndpointAddr]>,
    /// Who reaches it, if an agent offers it.
    pub(crate) far: Option<FarSites>,
    label: Arc<str>,
    key: u64,
    pub(crate) tally: Tally,
    pub(crate) shelf: Shelf,
    weight: AtomicU32,
    tier: AtomicU8,
    /// 0 is no cap.
    cap: AtomicU32,
    /// Round-robin's next turn.
    pass: AtomicU64,
    latency: AtomicU64,
    connects: AtomicU64,
    failures: AtomicU64,
    drained: AtomicBool,
    /// Its agent is not there.
    pub(crate) away: AtomicBool,
    leaving: AtomicBool,
    /// What it is fit for, as [`Fit`] has it.
    pub(crate) fit: AtomicU8,
    /// By TLS it agreed to connections that carry one lease at a time.
    no_trunks: AtomicBool,
    unhealthy: AtomicBool,
    /// Moments in nanoseconds; 0 is never.
    ejected_until: AtomicU64,
    /// When its breaker lets one through; 0 while it is closed.
    shut_until: AtomicU64,
    warm_since: AtomicU64,
    pub(crate) standing_since: AtomicU64,
    /// For how long it leaves an idle connection open.
    pub(crate) habit: Habit,
    /// A lease failed since one last went well, so that the good ones need not lock to find out.
    has_failures: AtomicBool,
    // Held for a few instructions, after a failure or the first success behind one; never over an await.
    #[allow(clippy::disallowed_types)]
    trouble: std::sync::Mutex<Trouble>,
    /// What its protocol says of it, for those who look.
    #[allow(clippy::disallowed_types)]
    pub(crate) said: std::sync::Mutex<Said>,
    /// What of its trunks is still open, for those who look: each is on the list of its worker.
    #[allow(clippy::disallowed_types)]
    trunks: std::sync::Mutex<Vec<Weak<dyn Trunk>>>,
}

/// Connections that carry many leases at once, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TrunkCounts {
    /// Those that are open.
    pub open: usize,
    /// The leases that they carry.
    pub carried: usize,
}

#[derive(Debug, Default)]
struct Trouble {
    health: Health,
    outlier: Outlier,
    breaker: Breaker,
    last_error: Option<Box<str>>,
}

/// An endpoint at its start.
pub(crate) struct Birth {
    pub(crate) id: EndpointId,
    pub(crate) addresses: Box<[EndpointAddr]>,
    pub(crate) far: Option<FarSites>,
    /// Whether it warms up; the first ones of an upstream need not, since all are equally cold.
    pub(crate) slowly: bool,
    pub(crate) now: Moment,
}

impl Endpoint {
    pub(crate) fn new(settings: &EndpointSettings, birth: Birth) -> Self {
        let label = label(&settings.address, &birth.addresses);
        let warm_since = if birth.slowly { birth.now.0 } else { 0 };
        let endpoint = Endpoint {
            id: birth.id,
            configured: settings.address.clone(),
            key: stable_key(&label),
            addresses: birth.addresses,
            far: birth.far,
            label,
            tally: Tally::default(),
            shelf: Shelf::new(),
            weight: AtomicU32::new(0),
            tier: AtomicU8::new(0),
            cap: AtomicU32::new(0),
            pass: AtomicU64::new(0),
            latency: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            drained: AtomicBool::new(false),
            away: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            fit: AtomicU8::new(Fit::ALL.bits()),
            no_trunks: AtomicBool::new(false),
            unhealthy: AtomicBool::new(false),
            ejected_until: AtomicU64::new(0),
            shut_until: AtomicU64::new(0),
            warm_since: AtomicU64::new(warm_since),
            standing_since: AtomicU64::new(birth.now.0),
            habit: Habit::default(),
            has_failures: AtomicBool::new(false),
            trouble: Default::default(),
            said: Default::default(),
            trunks: Default::default(),
        };
        endpoint.obey(settings);
        endpoint.look_whether_there(birth.now);
        endpoint
    }

    /// What people call it: its address, and for a name, behind an `@`, the addresses that it stands for now.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The same, shared: for rows that name it without copying.
    pub fn shared_label(&self) -> Arc<str> {
        self.label.clone()
    }

    /// The same, to be compared and cloned.
    pub fn label_ref(&self) -> &Arc<str> {
        &self.label
    }

    /// A number that stands for its label, the same in every process: for those who want to come back to it.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Its address as configured.
    pub fn configured(&self) -> &Address {
        &self.configured
    }

    /// The name, or the IP address, that its certificate must bear.
    pub fn host(&self) -> String {
        match &self.configured {
            Address::Name { host, .. } => host.to_string(),
            Address::Socket(socket) => socket.ip().to_string(),
            Address::Unix(_) => "localhost".to_owned(),
            Address::Agent(FarService { service, .. }) | Address::Group(FarGroup { service, .. }) => {
                service.clone()
            }
        }
    }

    /// Where it is dialed, in the order of dialing; an IPv6 and an IPv4 address may be one endpoint.
    pub fn addresses(&self) -> &[EndpointAddr] {
        &self.addresses
    }

    /// What its addresses are dialed with, beside the leases.
    pub fn dial_options(&self) -> DialOptions {
        DialOptions { far: self.far.clone(), ..DialOptions::default() }
    }

    /// Whether people may mean it by `text`: its configured address, its label or one of its addresses.
    pub fn is_called(&self, text: &str) -> bool {
        *self.label == *text
            || self.configured.to_string() == text
            || self.addresses.iter().any(|address| address.to_string() == text)
    }

    /// It says that it closes a connection that was idle for so long: its last word counts.
    pub fn allows_idle(&self, at_most: Duration) {
        self.habit.says(at_most);
    }

    /// Leases out.
    pub fn in_flight(&self) -> u32 {
        self.tally.count()
    }

    /// Whether it is gone from the config or from the name's addresses, and only its last leases keep it.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Whether an operator takes it out of use.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// Whether it is known to want connections that carry one lease at a time, where it may choose.
    pub(crate) fn has_no_trunks(&self) -> bool {
        self.no_trunks.load(Ordering::Relaxed)
    }

    pub(crate) fn set_no_trunks(&self, none: bool) {
        self.no_trunks.store(none, Ordering::Relaxed);
    }

    /// Whether it is fit for new leases at `now`.
    pub fn standing(&self, now: Moment) -> Standing {
        if self.is_drained() || self.is_leaving() {
            Standing::Draining
        } else if now.0 < self.shut_until.load(Ordering::Relaxed) {
            Standing::BreakerOpen
        } else if self.away.load(Ordering::Relaxed) {
            Standing::Away
        } else if self.unhealthy.load(Ordering::Relaxed) {
            Standing::Unhealthy
        } else if now < self.ejected_until() {
            Standing::Ejected
        } else {
            Standing::Healthy
        }
    }

    /// Notes a trunk that was made to it.
    pub(crate) fn has_trunk(&self, trunk: &Arc<dyn Trunk>) {
        let mut trunks = self.trunks.lock().unwrap_or_else(PoisonError::into_inner);
        trunks.retain(|trunk| trunk.strong_count() > 0);
        trunks.push(Arc::downgrade(trunk));
    }

    fn trunks(&self) -> TrunkCounts {
        let mut counts = TrunkCounts::default();
        let trunks = self.trunks.lock().unwrap_or_else(PoisonError::into_inner);
        for trunk in trunks.iter().filter_map(Weak::upgrade) {
            let carried = trunk.carried();
            counts.carried += carried;
            // One that is over is open as long as it carries something.
            counts.open += usize::from(carried > 0 || !trunk.is_over());
        }
        counts
    }

    /// All that is known about it at `now`.
    pub fn status(&self, now: Moment) -> EndpointStatus {
        // Coming back from a rest is nobody's act, so it is read from the clock.
        let rest_over = Some(self.ejected_until()).filter(|until| *until <= now);
        EndpointStatus {
            label: self.label.to_string(),
            configured: self.configured.to_string(),
            standing: self.standing(now),
            since: Moment(self.standing_since.load(Ordering::Relaxed)).max(rest_over.unwrap_or_default()),
            leaving: self.is_leaving(),
            in_flight: self.in_flight(),
            idle: self.shelf.len(),
            trunks: self.trunks(),
            connects: self.connects.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            latency: self.latency(now),
            weight: self.weight.load(Ordering::Relaxed),
            tier: self.tier.load(Ordering::Relaxed),
            cap: NonZeroU32::new(self.cap.load(Ordering::Relaxed)),
            said: self.said(),
            last_error: self.trouble().last_error.clone().map(Into::into),
        }
    }

    pub(crate) fn candidate(&self, now: Moment, slow_start: Duration, tried: bool) -> Candidate {
        let in_flight = self.in_flight();
        let up = now.since(Moment(self.warm_since.load(Ordering::Relaxed)).max(self.ejected_until()));
        Candidate {
            key: self.key,
            weight: f64::from(self.weight.load(Ordering::Relaxed)) * slow_start::share(up, slow_start),
            in_flight,
            latency: self.latency(now),
            pass: self.pass.load(Ordering::Relaxed),
            tier: self.tier.load(Ordering::Relaxed),
            standing: self.standing(now),
            room: in_flight < self.cap(),
            tried,
        }
    }

    /// The turn is used up: the next is `stride` after `due`.
    pub(crate) fn take_turn(&self, due: u64, stride: u64) {
        self.pass.fetch_max(due, Ordering::Relaxed);
        self.pass.fetch_add(stride, Ordering::Relaxed);
    }

    /// Takes over what a reload may change of an endpoint that stays.
    pub(crate) fn obey(&self, settings: &EndpointSettings) {
        self.weight.store(settings.weight.get(), Ordering::Relaxed);
        self.tier.store(settings.tier, Ordering::Relaxed);
        self.cap.store(settings.cap.map_or(0, NonZeroU32::get), Ordering::Relaxed);
    }

    pub(crate) fn cap(&self) -> u32 {
        NonZeroU32::new(self.cap.load(Ordering::Relaxed)).map_or(u32::MAX, NonZeroU32::get)
    }

    pub(crate) fn tier(&self) -> u8 {
        self.tier.load(Ordering::Relaxed)
    }

    pub(crate) fn ejected_until(&self) -> Moment {
        Moment(self.ejected_until.load(Ordering::Relaxed))
    }

    /// Whether it belongs to the same configured address and is dialed the same way.
    pub(crate) fn is(&self, configured: &Address, addresses: &[EndpointAddr]) -> bool {
        self.configured == *configured && *self.addresses == *addresses
    }

    pub(crate) fn leave(&self, now: Moment) {
        self.leaving.store(true, Ordering::Relaxed);
        self.standing_since.store(now.0, Ordering::Relaxed);
    }

    pub(crate) fn set_drained(&self, drained: bool, now: Moment) {
        if self.drained.swap(drained, Ordering::Relaxed) != drained {
            self.standing_since.store(now.0, Ordering::Relaxed);
            self.warm_since.store(now.0, Ordering::Relaxed);
        }
    }

    /// Takes a health check's result; says the new verdict if it changed.
    pub(crate) fn checked(
        &self,
        result: Result<(), String>,
        thresholds: Thresholds,
        now: Moment,
    ) -> Option<Verdict> {
        let mut trouble = self.trouble();
        let passed = result.is_ok();
        if let Err(error) = result {
            trouble.last_error = Some(error.into());
        }
        let was = trouble.health.verdict();
        let verdict = trouble.health.observe(passed, thresholds)?;
        self.unhealthy.store(verdict == Verdict::Down, Ordering::Relaxed);
        if verdict == Verdict::Up && was == Verdict::Down {
            self.latency.store(0, Ordering::Relaxed);
        }
        // The first good check confirms what was assumed; only a return from below is a change.
        if was != Verdict::Unknown || verdict == Verdict::Down {
            self.standing_since.store(now.0, Ordering::Relaxed);
            self.warm_since.store(now.0, Ordering::Relaxed);
        }
        Some(verdict)
    }

    /// Nobody checks it any more, so nothing is held against it.
    pub(crate) fn unchecked(&self, now: Moment) {
        self.trouble().health = Health::default();
        if self.unhealthy.swap(false, Ordering::Relaxed) {
            self.standing_since.store(now.0, Ordering::Relaxed);
        }
    }

    pub(crate) fn connected(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
        if self.has_failures.load(Ordering::Relaxed) {
            let mut trouble = self.trouble();
            trouble.outlier.connected();
            self.has_failures.store(trouble.outlier.has_failures(), Ordering::Relaxed);
        }
    }

    /// It did what it is there for, and this is how long its first byte took.
    pub(crate) fn served(&self, after: Duration, now: Moment) {
        self.took(after, now);
        if self.has_failures.load(Ordering::Relaxed) && self.has_failures.swap(false, Ordering::Relaxed) {
            self.trouble().outlier.served();
        }
    }

    /// An answer took so long, or would have taken longer.
    pub(crate) fn took(&self, after: Duration, now: Moment) {
        let observe = |bits| Some(PeakEwma::from_bits(bits).observe(after, now).to_bits());
        // The closure never says no, so there is no failure to look at.
        let _ = self.latency.fetch_update(Ordering::Relaxed, Ordering::Relaxed, observe);
    }

    /// Takes a failure; says how long it rests if this ejects it. Without `settings` nothing ever is ejected.
    pub(crate) fn failed(
        &self,
        failure: Failure,
        error: &str,
        settings: Option<&OutlierSettings>,
        census: Census,
        now: Moment,
    ) -> Option<Duration> {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut trouble = self.trouble();
        trouble.last_error = Some(error.into());
        let rest = trouble.outlier.failed(failure, now, settings?, census);
        self.has_failures.store(trouble.outlier.has_failures(), Ordering::Relaxed);
        let rest = rest?;
        self.ejected_until.store(now.after(rest).0, Ordering::Relaxed);
        self.standing_since.store(now.0, Ordering::Relaxed);
        Some(rest)
    }

    /// Takes a result into its breaker; says what that changed.
    pub(crate) fn reported(&self, good: bool, settings: &BreakerSettings, now: Moment) -> Option<Change> {
        let mut trouble = self.trouble();
        let change = trouble.breaker.report(good, now, settings)?;
        self.shut_until.store(trouble.breaker.shut_until().map_or(0, |until| until.0), Ordering::Relaxed);
        self.standing_since.store(now.0, Ordering::Relaxed);
        if change == Change::Closed {
            // What it took while it failed says nothing of it now, but it must not be stormed.
            self.latency.store(0, Ordering::Relaxed);
            self.warm_since.store(now.0, Ordering::Relaxed);
        }
        Some(change)
    }

    /// Whether its breaker would let one through.
    pub(crate) fn wants_probe(&self, now: Moment) -> bool {
        let until = self.shut_until.load(Ordering::Relaxed);
        until != 0 && until <= now.0
    }

    /// Whether its breaker lets this one through.
    pub(crate) fn take_probe(&self, now: Moment) -> bool {
        let mut trouble = self.trouble();
        let taken = trouble.breaker.take_probe(now);
        self.shut_until.store(trouble.breaker.shut_until().map_or(0, |until| until.0), Ordering::Relaxed);
        taken
    }

    /// Nobody asks for a breaker any more.
    pub(crate) fn unbroken(&self) {
        if self.shut_until.swap(0, Ordering::Relaxed) != 0 {
            self.trouble().breaker = Breaker::default();
        }
    }

    /// When it comes back from its rest, or its breaker lets one through, if that is after `now`.
    pub(crate) fn next_return(&self, now: Moment) -> Option<Moment> {
        let shut = Moment(self.shut_until.load(Ordering::Relaxed));
        [self.ejected_until(), shut].into_iter().filter(|until| *until > now).min()
    }

    /// What was measured before it came back from a rest says nothing of it now.
    fn latency(&self, now: Moment) -> Option<Duration> {
        let latency = PeakEwma::from_bits(self.latency.load(Ordering::Relaxed));
        let back = self.ejected_until();
        let outdated = back.0 != 0 && back <= now && latency.is_older_than(now.since(back), now);
        if outdated { None } else { latency.at(now) }
    }

    #[allow(clippy::disallowed_types)] // see the field
    fn trouble(&self) -> std::sync::MutexGuard<'_, Trouble> {
        // What it holds is whole after every statement, so a holder that panicked left nothing half done.
        self.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// `10.0.0.5:80`; for a name `db.example.com:80@10.0.0.5`, for a pair of addresses
/// `db.example.com:80@fd00::5+10.0.0.5`.
fn label(configured: &Address, addresses: &[EndpointAddr]) -> Arc<str> {
    match (configured, addresses) {
        (Address::Name { .. }, _) => {}
        // What a group stands for is called as if it stood there itself.
        (Address::Group(_), [member]) => return member.to_string().into(),
        _ => return configured.to_string().into(),
    }
    let ip = |address: &EndpointAddr| match address {
        EndpointAddr::Socket(socket) => socket.ip().to_string(),
        EndpointAddr::Unix(path) => path.display().to_string(),
        EndpointAddr::Agent(far) => far.to_string(),
    };
    let ips: Vec<String> = addresses.iter().map(ip).collect();
    format!("{configured}@{}", ips.join("+")).into()
}
