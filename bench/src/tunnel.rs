//! Far sites: what is measured, and what is promised.
//!
//! Tieline's agent beside rathole's client and `ssh -L`/`-R`, over the same road: the same machine, or two
//! network namespaces with an emulated path between them. Start with [`road`]; [`linkem`] is the path.

mod agents;
mod echo;
mod far;
mod linkem;
mod oracle;
mod peers;
mod programs;
mod road;
mod throughput;

use clap::ValueEnum;

use crate::arguments::Options;
use crate::promise::Promise;
use crate::table::Table;

pub(crate) use road::Peer;

/// One promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Scenario {
    /// Bytes a second of 1 and of 16 streams, on one machine
    Throughput,
    /// The p99 of an echo beside a bulk stream
    Echo,
    /// Bytes a second over 100 ms of round trip with 1 % of loss
    Far,
    /// Random bytes under a hash over a path that fails by a script
    Oracle,
    /// A scp of 1 GiB and a psql session over a path that is cut, without UDP, and gone for a while
    Programs,
    /// Idle agents: memory, CPU, and the storm when all are cut at once
    Agents,
}

impl Promise for Scenario {
    fn name(&self) -> &'static str {
        match self {
            Scenario::Throughput => "throughput",
            Scenario::Echo => "echo",
            Scenario::Far => "far",
            Scenario::Oracle => "oracle",
            Scenario::Programs => "programs",
            Scenario::Agents => "agents",
        }
    }

    fn promise(&self) -> &'static str {
        match self {
            Scenario::Throughput => "1 and 16 streams move no fewer bytes a second than rathole's with TLS",
            Scenario::Echo => "a bulk stream leaves an echo's p99 below twice what it is alone",
            Scenario::Far => "100 ms of round trip and 1 % of loss leave three times rathole's throughput",
            Scenario::Oracle => "no fault of the path costs a byte or a stream",
            Scenario::Programs => {
                "ten cuts, no more UDP and a hole of 30 s cost neither scp nor psql anything"
            }
            Scenario::Agents => {
                "an idle agent costs at most 100 KiB, 2,000 a tenth of a core; cut, they are back in 60 s"
            }
        }
    }

    fn run(&self, options: &Options) -> anyhow::Result<Vec<Table>> {
        match self {
            Scenario::Throughput => throughput::run(options),
            Scenario::Echo => echo::run(options),
            Scenario::Far => far::run(options),
            Scenario::Oracle => oracle::run(options),
            Scenario::Programs => programs::run(options),
            Scenario::Agents => agents::run(options),
        }
    }
}
