//! What the API and the metrics are told.

use std::num::NonZeroU32;
use std::time::Duration;

use tieline_base::Moment;

use crate::balance::{Balance, Standing};
use crate::endpoint::TrunkCounts;
use crate::load::LoadCounts;
use crate::said::Said;
use crate::share::Share;
use crate::upstream::Upstream;

/// An upstream at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: String,
    /// How leases are spread.
    pub balance: Balance,
    /// Its endpoints in the order of the config, then those that are leaving.
    pub endpoints: Vec<EndpointStatus>,
    /// Leases out, of all endpoints.
    pub in_flight: u32,
    /// Asks waiting for a place.
    pub waiting: usize,
    /// The most places that were wanted at once in the last half of a minute: taken, and waited for. `None`
    /// where nothing has a cap, and nobody counts.
    pub wanted: Option<u32>,
    /// The cap of the whole.
    pub size: Option<NonZeroU32>,
    /// How many may wait.
    pub queue: usize,
    /// Whether health is disregarded, because too few endpoints have it.
    pub panic: bool,
    /// Retries that the budget holds.
    pub retries_left: u64,
    /// How many may be in flight, if that is learned.
    pub limit: Option<u32>,
    /// Whether the least important are refused just now.
    pub shedding: bool,
    /// What was done about load since the start.
    pub counts: LoadCounts,
    /// Its names, and what came of resolving them.
    pub names: Vec<NameStatus>,
}

/// An endpoint at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointStatus {
    /// What people call it.
    pub label: String,
    /// Its address as configured.
    pub configured: String,
    /// Whether it is fit for new leases.
    pub standing: Standing,
    /// Since when it is (or is not).
    pub since: Moment,
    /// Whether it is gone from the config or from its name's addresses.
    pub leaving: bool,
    /// Leases out.
    pub in_flight: u32,
    /// Connections that wait, open, for the next lease.
    pub idle: usize,
    /// Connections that carry many leases at once.
    pub trunks: TrunkCounts,
    /// Connections made since it is known.
    pub connects: u64,
    /// Failures to connect, and connections that it broke.
    pub failures: u64,
    /// How long its first byte takes, peaks first; `None` if not known.
    pub latency: Option<Duration>,
    /// Its configured weight.
    pub weight: u32,
    /// Its tier.
    pub tier: u8,
    /// Its cap.
    pub cap: Option<NonZeroU32>,
    /// What its protocol says of it.
    pub said: Said,
    /// What went wrong last, whenever that was.
    pub last_error: Option<String>,
}

/// A configured name at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameStatus {
    /// The name and port, as configured.
    pub name: String,
    /// How many endpoints it stands for.
    pub endpoints: usize,
    /// Until when its records live, as the last answer had it.
    pub lives_until: Option<Moment>,
    /// Why it could not be resolved the last time; the old addresses stay in use.
    pub error: Option<String>,
}

impl Upstream {
    /// How many places `share` may have at once, if it has a limit of its own.
    pub fn cap_of(&self, share: Share) -> Option<u32> {
        self.roster().settings.dues.of(share).cap
    }
}

/// No endpoint of the upstream is called so.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("upstream \"{upstream}\" has no endpoint \"{endpoint}\"; it has {known}")]
pub struct UnknownEndpoint {
    /// The upstream.
    pub upstream: String,
    /// What was asked for.
    pub endpoint: String,
    /// What there is.
    pub known: String,
}
