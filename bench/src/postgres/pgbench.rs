//! pgbench as the load, and what it saw.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tieline_testkit::{finish, program};

/// How pgbench sends its queries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    Simple,
    Extended,
    Prepared,
}

impl Manner {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Manner::Simple => "simple",
            Manner::Extended => "extended",
            Manner::Prepared => "prepared",
        }
    }
}

/// A load of `select abalance from pgbench_accounts where aid = :aid`.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) manner: Manner,
    pub(crate) clients: usize,
    /// Transactions of each client, if the load ends by them.
    pub(crate) transactions: usize,
    /// Else it ends after so many seconds.
    pub(crate) seconds: usize,
    /// Transactions a second of all clients; as fast as they can, if 0.
    pub(crate) rate: usize,
    pub(crate) tls: bool,
    pub(crate) reconnect: bool,
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
}

impl Default for Load<'_> {
    fn default() -> Self {
        Load {
            manner: Manner::Simple,
            clients: 1,
            transactions: 0,
            seconds: 0,
            rate: 0,
            tls: false,
            reconnect: false,
            user: "postgres",
            password: "",
        }
    }
}

impl Load<'_> {
    /// Runs it against `address`.
    pub(crate) fn run(&self, address: SocketAddr) -> anyhow::Result<Seen> {
        let directory = tempfile::tempdir()?;
        let done = finish(&mut self.command(address, Some(&directory)));
        if !done.success() {
            bail!("pgbench: {}", done.stderr.trim());
        }
        Seen::read(&done.stdout, &directory)
    }

    /// Runs it and keeps no times: writing them down costs its CPU too.
    pub(crate) fn run_unlogged(&self, address: SocketAddr) -> anyhow::Result<()> {
        let done = finish(&mut self.command(address, None));
        if !done.success()
            || done.stdout.contains("number of failed transactions: ") && !none_failed(&done.stdout)
        {
            bail!("pgbench: {} {}", done.stdout.trim(), done.stderr.trim());
        }
        Ok(())
    }

    fn command(&self, address: SocketAddr, log: Option<&TempDir>) -> Command {
        let mut command = Command::new(program("pgbench"));
        command.args(["-n", "-S", "-M", self.manner.name(), "-j", "1", "-U", self.user]);
        command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
        command.args(["-c", &self.clients.to_string()]);
        match self.seconds {
            0 => command.args(["-t", &self.transactions.to_string()]),
            seconds => command.args(["-T", &seconds.to_string()]),
        };
        if self.rate > 0 {
            command.args(["-R", &self.rate.to_string()]);
        }
        if self.reconnect {
            command.arg("-C");
        }
        if let Some(directory) = log {
            command.args(["-l", "--log-prefix"]).arg(directory.path().join("log"));
        }
        command.arg("postgres").env("PGSSLMODE", if self.tls { "require" } else { "disable" });
        command.env("PGPASSWORD", self.password);
        command
    }
}

/// What the load saw.
pub(crate) struct Seen {
    /// How long each transaction took, in milliseconds.
    pub(crate) took_ms: Vec<f64>,
    /// Transactions a second.
    pub(crate) rate: f64,
}

impl Seen {
    fn read(report: &str, directory: &TempDir) -> anyhow::Result<Seen> {
        if !none_failed(report) {
            bail!("transactions failed:\n{report}");
        }
        let rate =
            report.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        let mut took_ms = Vec::new();
        for log in std::fs::read_dir(directory.path())? {
            took_ms.extend(times(&std::fs::read_to_string(log?.path())?));
        }
        Ok(Seen { took_ms, rate: rate.with_context(|| format!("pgbench told no rate:\n{report}"))? })
    }
}

fn none_failed(report: &str) -> bool {
    report.lines().any(|line| line.starts_with("number of failed transactions: 0 "))
}

/// The third column of each line is the time of a transaction in microseconds.
fn times(log: &str) -> impl Iterator<Item = f64> {
    log.lines().filter_map(|line| Some(line.split(' ').nth(2)?.parse::<f64>().ok()? / 1e3))
}

#[cfg(test)]
mod tests {
    use super::{none_failed, times};

    #[test]
    fn reports_and_logs_are_read() {
        assert!(none_failed("x\nnumber of failed transactions: 0 (0.000%)\n"));
        assert!(!none_failed("number of failed transactions: 3 (0.100%)\n"));
        assert_eq!(
            times("0 1 412 0 1500000000 1\n3 2 1500 0 1500000000 2\n").collect::<Vec<_>>(),
            [0.412, 1.5]
        );
    }
}
