//! HTTP: what is measured, and what is promised.

mod bodies;
mod fickle;
mod idle;
mod load;
mod message;
mod origin;
mod small;
mod stale;

use clap::ValueEnum;

use crate::arguments::Options;
use crate::promise::Promise;
use crate::table::Table;

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
}

impl Promise for Scenario {
    fn name(&self) -> &'static str {
        match self {
            Scenario::Small => "small",
            Scenario::Bodies => "bodies",
            Scenario::Idle => "idle",
            Scenario::Stale => "stale",
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
        }
    }

    fn run(&self, options: &Options) -> anyhow::Result<Vec<Table>> {
        match self {
            Scenario::Small => small::run(options),
            Scenario::Bodies => bodies::run(options),
            Scenario::Idle => idle::run(options),
            Scenario::Stale => stale::run(options),
        }
    }
}
