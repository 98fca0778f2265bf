//! What is measured, and what is promised.

pub(crate) mod beside;
pub(crate) mod bulk;
pub(crate) mod calls;
pub(crate) mod idle;
mod kill;
pub(crate) mod ls;
pub(crate) mod managed;
mod reload;
mod short;

use clap::ValueEnum;

use crate::arguments::Options;
use crate::promise::Promise;
use crate::table::Table;

/// One promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Scenario {
    /// CPU per GiB relayed
    Bulk,
    /// CPU per short connection
    Short,
    /// Memory per idle connection
    Idle,
    /// Live connections through 100 reloads, and one that removes their route
    Reload,
    /// Ending 5,000 connections by a filter
    Kill,
    /// Listing 20,000 connections
    Ls,
}

impl Promise for Scenario {
    fn name(&self) -> &'static str {
        match self {
            Scenario::Bulk => "bulk",
            Scenario::Short => "short",
            Scenario::Idle => "idle",
            Scenario::Reload => "reload",
            Scenario::Kill => "kill",
            Scenario::Ls => "ls",
        }
    }

    fn promise(&self) -> &'static str {
        match self {
            Scenario::Bulk => "relaying costs no more CPU than HAProxy's splice, and at most 0.7 of nginx's",
            Scenario::Short => "a short connection costs no more CPU than HAProxy's",
            Scenario::Idle => "an idle connection costs at most 2 KiB",
            Scenario::Reload => "a reload ends what it forbids and touches nothing else",
            Scenario::Kill => "5,000 connections are ended by a filter in less than 1 s",
            Scenario::Ls => "20,000 rows are listed in less than 200 ms, and the relay goes on",
        }
    }

    fn run(&self, arguments: &Options) -> anyhow::Result<Vec<Table>> {
        match self {
            Scenario::Bulk => bulk::run(arguments),
            Scenario::Short => short::run(arguments),
            Scenario::Idle => idle::run(arguments),
            Scenario::Reload => managed::only_with_tieline(arguments, reload::run),
            Scenario::Kill => managed::only_with_tieline(arguments, kill::run),
            Scenario::Ls => managed::only_with_tieline(arguments, ls::run),
        }
    }
}
