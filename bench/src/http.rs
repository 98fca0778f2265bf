//! HTTP: what is measured, and what is promised.

mod bodies;
mod fickle;
mod floods;
mod guards;
mod h2;
mod h2_frames;
mod idle;
mod latency;
mod load;
mod message;
mod nuisance;
mod origin;
mod overload;
mod pace;
mod scene;
mod secure;
mod slower;
mod small;
mod sockets;
mod stale;
mod tls;
mod workers;

use clap::ValueEnum;

use crate::arguments::Options;
use crate::promise::Promise;
use crate::table::Table;

pub(crate) use nuisance::Nuisance;
pub(crate) use secure::{Secured, Trust};

/// One promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Scenario {
    /// CPU per small request
    Small,
    /// CPU per GiB of answers
    Bodies,
    /// Memory per idle connection
    Idle,
    /// Requests to a backend that closes connections at rest
    Stale,
    /// CPU per request and per handshake with TLS 1.3, and memory per idle connection
    Tls,
    /// CPU per request over HTTP/2
    H2,
    /// p99 at half of the peer's peak
    Latency,
    /// One worker and two
    Workers,
    /// WebSockets over reloads
    Sockets,
    /// Slow clients and floods: memory, and what others feel
    Floods,
    /// What guards cost, and what a refusal does
    Guards,
    /// One endpoint of four ten times slower
    Slower,
    /// Three times an endpoint's capacity, a part of it critical
    Overload,
}

impl Promise for Scenario {
    fn name(&self) -> &'static str {
        match self {
            Scenario::Small => "small",
            Scenario::Bodies => "bodies",
            Scenario::Idle => "idle",
            Scenario::Stale => "stale",
            Scenario::Tls => "tls",
            Scenario::H2 => "h2",
            Scenario::Latency => "latency",
            Scenario::Workers => "workers",
            Scenario::Sockets => "sockets",
            Scenario::Floods => "floods",
            Scenario::Guards => "guards",
            Scenario::Slower => "slower",
            Scenario::Overload => "overload",
        }
    }

    fn promise(&self) -> &'static str {
        match self {
            Scenario::Small => {
                "a small request costs at most 0.8 of the CPU it costs in HAProxy and in nginx"
            }
            Scenario::Bodies => "answers cost no more CPU than in the better of HAProxy and nginx",
            Scenario::Idle => "an idle connection costs at most 2 KiB",
            Scenario::Stale => "no request fails because the backend closed a connection at rest",
            Scenario::Tls => {
                "requests and handshakes cost no more CPU than in HAProxy, an idle connection at most 16 KiB"
            }
            Scenario::H2 => "a request over HTTP/2 costs no more CPU than in nginx",
            Scenario::Latency => "at half of a peer's peak the p99 is no worse than the peer's",
            Scenario::Workers => "two workers do 1.8 times the work of one, at no higher cost",
            Scenario::Sockets => "reloads of other routes drop no WebSocket",
            Scenario::Floods => {
                "60 s of a nuisance cost less than 64 MiB, and others' p99 stays below twice what it was"
            }
            Scenario::Guards => {
                "a guard costs a request at most 200 instructions, a refusal a tenth of a request's CPU"
            }
            Scenario::Slower => "one slow endpoint of four leaves the p99 below twice the healthy one",
            Scenario::Overload => "at three times the capacity 99 % of critical requests are answered",
        }
    }

    fn run(&self, options: &Options) -> anyhow::Result<Vec<Table>> {
        match self {
            Scenario::Small => small::run(options),
            Scenario::Bodies => bodies::run(options),
            Scenario::Idle => idle::run(options),
            Scenario::Stale => stale::run(options),
            Scenario::Tls => tls::run(options),
            Scenario::H2 => h2::run(options),
            Scenario::Latency => latency::run(options),
            Scenario::Workers => workers::run(options),
            Scenario::Sockets => sockets::run(options),
            Scenario::Floods => floods::run(options),
            Scenario::Guards => guards::run(options),
            Scenario::Slower => slower::run(options),
            Scenario::Overload => overload::run(options),
        }
    }
}
