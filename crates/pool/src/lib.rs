//! Floor 3: leases of upstream connections.
//!
//! Owns the choice of an endpoint, its health, the exact caps and the line before them, second attempts and
//! DNS. Refuses to know routes, listeners, the config file and every protocol by name: a probe is bytes that
//! come from `wire`. Only a [`Permit`](tieline_policy::Permit) opens an upstream.
//!
//! The decisions are pure: [`balance`] (which endpoint), `state` (who has a place, who waits), `health`,
//! `outlier`, `slow_start`, `ewma`, `retry` and `addresses` know neither sockets nor clocks. Around them lie
//! [`Upstream`], which holds what all workers share, its `lease`, and its keeper. Start with
//! [`Upstream::lease`].

mod addresses;
mod age;
mod at_once;
pub mod balance;
mod breaker;
mod class;
mod demand;
mod endpoint;
mod ewma;
mod gate;
mod gradient;
mod habit;
mod hand_over;
mod health;
mod hedge;
mod idle;
mod keeper;
mod knock;
mod lease;
mod leasing;
mod line;
mod load;
mod loan;
mod name;
mod outlier;
mod place;
mod presence;
mod purpose;
mod retry;
mod room;
mod roster;
mod said;
mod settings;
mod share;
mod shed;
mod sleeper;
mod slow_start;
mod state;
mod status;
mod tally;
mod trunk;
mod upstream;

pub use at_once::{AtOnce, InLine};
pub use balance::{Balance, Standing, Why};
pub use breaker::BreakerSettings;
pub use endpoint::{Endpoint, TrunkCounts};
pub use health::Thresholds;
pub use hedge::HedgeSettings;
pub use idle::{Kept, Making, Reuse, tidy_idle};
pub use knock::{Knock, knock};
pub use lease::{Ask, Event, Lease, LeaseError};
pub use leasing::Leasing;
pub use load::{LoadCounts, Tried};
pub use loan::{Exemption, Loan};
pub use outlier::OutlierSettings;
pub use place::{Granted, Place};
pub use purpose::{Fit, Purpose};
pub use retry::backoff;
pub use said::Said;
pub use settings::{
    DnsSettings, EndpointSettings, HealthSettings, PoolSettings, RetrySettings, Secured, Settings,
};
pub use share::{Due, Dues, Share};
pub use status::{EndpointStatus, NameStatus, UnknownEndpoint, UpstreamStatus};
pub use trunk::{Beginning, Driver, Trunk, Trunking, Trunks};
pub use upstream::{OnLeave, Upstream};

#[cfg(test)]
mod tests;
