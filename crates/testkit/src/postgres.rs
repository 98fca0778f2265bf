//! PostgreSQL.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::ports::{free_port, loopback};
use crate::process::{Launch, Process};
use crate::program::{Finished, finish, give_to, is_root, program};

/// The account that Debian's package makes; the server refuses to run as root.
const ACCOUNT: &str = "postgres";
/// One directory a major version, which are not in `PATH` on Debian.
const VERSIONS: &str = "/usr/lib/postgresql";

/// A PostgreSQL server with an empty cluster: superuser `postgres`, trusted on loopback and on its unix
/// socket.
pub struct Postgres {
    process: Process,
    address: SocketAddr,
    directory: TempDir,
}

impl Postgres {
    /// Starts it.
    ///
    /// # Panics
    /// With the server's own words, if it does not start.
    #[track_caller]
    pub fn start() -> Postgres {
        Postgres::start_with(&[])
    }

    /// Starts it with more settings, as `[("max_connections", "20")]`.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start_with(settings: &[(&str, &str)]) -> Postgres {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        give_to(ACCOUNT, directory.path());
        let cluster = directory.path().join("cluster");
        make_cluster(&cluster);
        let port = free_port();
        let launch = Launch::new("postgres", server_program("postgres"), directory.path()).user(ACCOUNT);
        let launch = launch.stopped_by(Signal::QUIT).arg("-D").arg(&cluster).arg("-k").arg(directory.path());
        // The data is thrown away with the test: nothing is worth an fsync.
        let ours =
            ["listen_addresses=127.0.0.1", "fsync=off", "synchronous_commit=off", "full_page_writes=off"];
        let theirs = settings.iter().map(|(key, value)| format!("{key}={value}"));
        let all = ours.map(str::to_owned).into_iter().chain([format!("port={port}")]).chain(theirs);
        let launch = launch.args(all.flat_map(|setting| ["-c".to_owned(), setting]));
        let ready = || is_ready(port);
        Postgres { process: launch.start(ready), address: loopback(port), directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory of its unix socket: a `host` for libpq.
    pub fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Runs SQL on the server itself and returns what `psql` prints: rows as lines, columns split by `|`.
    ///
    /// # Panics
    /// If the SQL fails.
    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        self.psql(self.address, "postgres", &["-c", sql]).expect(sql)
    }

    /// Runs `psql` as `postgres` against any address: this server's own, or that of a proxy before it.
    pub fn psql(&self, at: SocketAddr, database: &str, arguments: &[&str]) -> Finished {
        let mut command = client("psql", at);
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", database]).args(arguments);
        finish(&mut command)
    }

    /// Runs `pgbench` against any address.
    pub fn pgbench(&self, at: SocketAddr, arguments: &[&str]) -> Finished {
        finish(client("pgbench", at).args(arguments).arg("postgres"))
    }
}

fn client(name: &str, at: SocketAddr) -> Command {
    let mut command = Command::new(program(name));
    command.args(["-h", &at.ip().to_string(), "-p", &at.port().to_string(), "-U", "postgres"]);
    command.env("PGCONNECT_TIMEOUT", "10").env("PGSSLMODE", "disable");
    command
}

fn make_cluster(cluster: &Path) {
    let mut command = as_account(&server_program("initdb"));
    command.arg("-D").arg(cluster).args(["-U", "postgres", "-A", "trust", "-E", "UTF8"]);
    finish(command.args(["--locale", "C", "--no-sync", "--no-instructions"])).expect("initdb");
}

fn as_account(program_file: &Path) -> Command {
    if !is_root() {
        return Command::new(program_file);
    }
    let mut command = Command::new(program("setpriv"));
    command.args(["--reuid", ACCOUNT, "--regid", ACCOUNT, "--init-groups", "--"]).arg(program_file);
    command.current_dir("/"); // ours may be closed to that account
    command
}

/// The newest installed version's program, else the one in `PATH`.
fn server_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let mut numbers: Vec<u32> =
        versions.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    let files = numbers.iter().rev().map(|version| PathBuf::from(format!("{VERSIONS}/{version}/bin/{name}")));
    files.into_iter().find(|file| file.is_file()).unwrap_or_else(|| program(name))
}

/// Asks as a client would: the port accepts connections before the server serves them.
fn is_ready(port: u16) -> bool {
    finish(Command::new(program("pg_isready")).args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]))
        .success()
}

#[cfg(test)]
mod tests {
    use super::Postgres;
    use crate::usage;
    use crate::wait::{PATIENCE, wait_until};

    #[test]
    fn it_answers_over_both_sockets_obeys_its_settings_and_is_gone_after_drop() {
        let mut postgres = Postgres::start_with(&[("max_connections", "17")]);
        assert_eq!(postgres.query("show max_connections"), "17");
        let socket =
            format!("host={} port={}", postgres.socket_directory().display(), postgres.address().port());
        let over_unix =
            postgres.psql(postgres.address(), &socket, &["-c", "select inet_client_addr() is null"]);
        assert_eq!(over_unix.expect("select"), "t");
        let family = usage::tree(postgres.process().pid());
        drop(postgres);
        assert!(wait_until(PATIENCE, || !family.iter().any(usage::Member::is_alive)));
    }

    #[test]
    fn pgbench_runs() {
        let postgres = Postgres::start();
        postgres.pgbench(postgres.address(), &["-i", "-q"]).expect("pgbench -i");
        let report =
            postgres.pgbench(postgres.address(), &["-n", "-S", "-t", "10", "-c", "2"]).expect("pgbench");
        assert!(report.contains("20/20"), "{report}");
    }
}
