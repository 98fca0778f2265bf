//! What an upstream is told to do. The config is mapped to this; nothing here reads files.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tieline_base::{Address, Percent};
use tieline_transport::DialOptions;
use tieline_transport::tls::ClientTls;
use tieline_wire::greeting::Probe;

use crate::balance::Balance;
use crate::breaker::BreakerSettings;
use crate::health::Thresholds;
use crate::hedge::HedgeSettings;
use crate::outlier::OutlierSettings;
use crate::share::Dues;
use crate::trunk::Trunking;

/// One upstream. [`Settings::new`] gives the defaults.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Its name; a permit must carry the same.
    pub name: String,
    /// Its endpoints, as configured. One that is named twice counts once.
    pub endpoints: Vec<EndpointSettings>,
    /// How leases are spread over them.
    pub balance: Balance,
    /// The healthy share below which a tier is left, and, if no tier has it, health is disregarded.
    pub panic: Percent,
    /// How long an endpoint that came up takes to get its full share; zero switches it off.
    pub slow_start: Duration,
    /// Active checks; `None` for none.
    pub health: Option<HealthSettings>,
    /// Ejection of endpoints whose leases fail; `None` for never.
    pub outlier: Option<OutlierSettings>,
    /// Breakers of endpoints of which too much fails; `None` for none.
    pub breaker: Option<BreakerSettings>,
    /// When a second endpoint is asked for what takes long; `None` for never.
    pub hedge: Option<HedgeSettings>,
    /// Whether how much may be in flight is learned from how long answers take.
    pub adaptive: bool,
    /// All the time that connecting may take, second attempts included.
    pub connect: Duration,
    /// How long to wait for a place under the caps.
    pub acquire: Duration,
    /// Caps of the whole.
    pub pool: PoolSettings,
    /// What of the places is due to whom.
    pub dues: Dues,
    /// Second attempts.
    pub retry: RetrySettings,
    /// How names are resolved.
    pub dns: DnsSettings,
    /// What every connection to an endpoint gets.
    pub dial: DialOptions,
    /// TLS towards the endpoints.
    pub tls: Option<Secured>,
    /// Whether leases share connections; `None`: each has one of its own while it lasts.
    pub trunks: Option<Trunking>,
    /// Whether connections to an endpoint are made a few at a time ([`Lease::take_knock`](crate::Lease)).
    pub few_at_once: bool,
}

/// TLS towards the endpoints of an upstream. Two are the same if they are one.
#[derive(Clone, Debug)]
pub struct Secured(pub Arc<ClientTls>);

impl PartialEq for Secured {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Settings {
    /// The upstream `name` of `endpoints`, all else at its default: peak-ewma, panic below 50 %, no slow
    /// start, no active checks, outliers ejected, 5 s to connect and 5 s to wait, no caps, two retries within
    /// 20 %.
    pub fn new(name: impl Into<String>, endpoints: Vec<EndpointSettings>) -> Self {
        Settings {
            name: name.into(),
            endpoints,
            balance: Balance::default(),
            panic: Percent(50),
            slow_start: Duration::ZERO,
            health: None,
            outlier: Some(OutlierSettings::default()),
            breaker: None,
            hedge: None,
            adaptive: false,
            connect: Duration::from_secs(5),
            acquire: Duration::from_secs(5),
            pool: PoolSettings::default(),
            dues: Dues::default(),
            retry: RetrySettings::default(),
            dns: DnsSettings::default(),
            dial: DialOptions::default(),
            tls: None,
            trunks: None,
            few_at_once: false,
        }
    }

    /// Whether anything here bounds how many leases are out.
    pub(crate) fn has_caps(&self) -> bool {
        self.adaptive
            || self.pool.size.is_some()
            || !self.dues.is_nothing()
            || self.endpoints.iter().any(|endpoint| endpoint.cap.is_some())
    }
}

/// One configured endpoint. A name may stand for several once it is resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSettings {
    /// Where it is.
    pub address: Address,
    /// Its share of the load, beside the others' weights.
    pub weight: NonZeroU32,
    /// Tier 0 is used before tier 1, and so on.
    pub tier: u8,
    /// Leases out at once at most; each address of a name has this cap for itself. `None` is no cap.
    pub cap: Option<NonZeroU32>,
}

impl EndpointSettings {
    /// `address`, of weight 1, in tier 0, without a cap.
    pub fn new(address: Address) -> Self {
        EndpointSettings { address, weight: NonZeroU32::MIN, tier: 0, cap: None }
    }
}

/// Active checks.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HealthSettings {
    /// What is said and what must be answered.
    pub probe: Probe,
    /// From one check's end to the next one's start, give or take a tenth.
    pub every: Duration,
    /// How long a check may take, connecting included.
    pub timeout: Duration,
    /// How many in a row change the verdict.
    pub thresholds: Thresholds,
}

/// Caps of the whole upstream, exact across all workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolSettings {
    /// Leases out at once at most; `None` is no cap.
    pub size: Option<NonZeroU32>,
    /// How many may wait for a place; those beyond are refused at once.
    pub queue: usize,
    /// When the mean wait for a place passes this, the least important are refused; `None` for never.
    pub shed: Option<Duration>,
    /// How long a connection may rest before it is closed; zero keeps none.
    pub idle: Duration,
    /// How old a connection may be that is lent once more.
    pub max_age: Option<Duration>,
}

impl Default for PoolSettings {
    /// No cap, and 1000 waiting where an endpoint has one; a minute's rest, an hour's life.
    fn default() -> Self {
        let (idle, max_age) = (Duration::from_secs(60), Some(Duration::from_secs(3_600)));
        PoolSettings { size: None, queue: 1000, shed: None, idle, max_age }
    }
}

/// Second attempts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetrySettings {
    /// How many more endpoints one ask may try.
    pub attempts: u32,
    /// Whether it may after a failure to connect.
    pub connect: bool,
    /// How many retries each 100 first attempts pay for; three a second are free.
    pub budget: Percent,
}

impl Default for RetrySettings {
    /// Two more, within 20 %.
    fn default() -> Self {
        RetrySettings { attempts: 2, connect: true, budget: Percent(20) }
    }
}

/// How names are resolved. The system's hosts file comes first in any case.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DnsSettings {
    /// Whom to ask; none means those of the system's `resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// A name is not asked for again sooner, however short its records live.
    pub ttl_min: Duration,
    /// A name is asked for again after so long, however long its records live.
    pub ttl_max: Duration,
}

impl Default for DnsSettings {
    /// The system's servers, every 1 s to 5 min.
    fn default() -> Self {
        let (ttl_min, ttl_max) = (Duration::from_secs(1), Duration::from_secs(300));
        DnsSettings { servers: Vec::new(), ttl_min, ttl_max }
    }
}
