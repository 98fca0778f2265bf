//! PostgreSQL: what is measured, and what is promised.

mod backend;
mod beside;
mod cost;
mod failover;
mod idle;
mod latency;
mod load;
mod logins;
mod noise;
mod pgbench;
mod pooler;
mod reload;
mod scram;
mod workers;

use clap::ValueEnum;

use crate::arguments::Options;
use crate::promise::Promise;
use crate::table::Table;

/// One promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Scenario {
    /// CPU per transaction
    Cost,
    /// CPU per login
    Reconnect,
    /// p99 at 500 clients over 10 servers
    Latency,
    /// Memory per idle client
    Idle,
    /// 500 logins at once beside running queries
    Logins,
    /// 400 clients of one user beside 10 of others
    Noise,
    /// One worker and two
    Workers,
    /// A primary that dies, and a replica that takes its place
    Failover,
    /// 100 reloads under load
    Reload,
}

impl Promise for Scenario {
    fn name(&self) -> &'static str {
        match self {
            Scenario::Cost => "cost",
            Scenario::Reconnect => "reconnect",
            Scenario::Latency => "latency",
            Scenario::Idle => "idle",
            Scenario::Logins => "logins",
            Scenario::Noise => "noise",
            Scenario::Workers => "workers",
            Scenario::Failover => "failover",
            Scenario::Reload => "reload",
        }
    }

    fn promise(&self) -> &'static str {
        match self {
            Scenario::Cost => "a transaction costs no more CPU than in PgBouncer",
            Scenario::Reconnect => "a login and a transaction, beside PgBouncer",
            Scenario::Latency => "500 clients over 10 servers: p99 at most 0.8 of PgBouncer's",
            Scenario::Idle => "an idle client costs at most 4 KiB, with TLS at most 20",
            Scenario::Logins => "500 logins at once delay the p99 of running queries by at most 5 ms",
            Scenario::Noise => "400 clients of one user leave the others' p99 below twice what it was",
            Scenario::Workers => "two workers do 1.8 times the work of one",
            Scenario::Failover => "clients that wait while a primary is replaced see no error",
            Scenario::Reload => "100 reloads under load: no error",
        }
    }

    fn run(&self, options: &Options) -> anyhow::Result<Vec<Table>> {
        match self {
            Scenario::Cost => cost::run(options),
            Scenario::Reconnect => cost::run_reconnecting(options),
            Scenario::Latency => latency::run(options),
            Scenario::Idle => idle::run(options),
            Scenario::Logins => logins::run(options),
            Scenario::Noise => noise::run(options),
            Scenario::Workers => workers::run(options),
            Scenario::Failover => failover::run(options),
            Scenario::Reload => reload::run(options),
        }
    }
}
