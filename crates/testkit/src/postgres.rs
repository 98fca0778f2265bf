//! PostgreSQL.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::authority::Pair;
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
    settings: Vec<(String, String)>,
}

/// What a server is started with.
#[derive(Clone, Copy, Default)]
pub struct Cluster<'a> {
    /// More settings, as `[("max_connections", "20")]`.
    pub settings: &'a [(&'a str, &'a str)],
    /// Lines of `pg_hba.conf` for everybody but `postgres`, who is trusted; everybody is, if there are none.
    pub access: &'a [&'a str],
    /// The certificate that it shows; no TLS without.
    pub certificate: Option<&'a Pair>,
    /// Whose client certificates it takes.
    pub client_ca: Option<&'a Path>,
    /// SQL that it runs before `start` returns: users, databases, tables.
    pub sql: &'a [&'a str],
}

impl Cluster<'_> {
    /// Starts it.
    ///
    /// # Panics
    /// With the server's own words, if it does not start.
    #[track_caller]
    pub fn start(self) -> Postgres {
        let directory = own_directory();
        let cluster = directory.path().join("cluster");
        make_cluster(&cluster);
        let mut settings: Vec<(String, String)> = Vec::new();
        if !self.access.is_empty() {
            allow(&cluster, self.access);
        }
        if let Some(pair) = self.certificate {
            settings.push(("ssl".into(), "on".into()));
            settings.push(("ssl_cert_file".into(), hand_over(&pair.certificate, &cluster, "server.crt")));
            settings.push(("ssl_key_file".into(), hand_over(&pair.key, &cluster, "server.key")));
        }
        if let Some(ca) = self.client_ca {
            settings.push(("ssl_ca_file".into(), hand_over(ca, &cluster, "clients.crt")));
        }
        settings.extend(self.settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let postgres = Postgres::launch(directory, free_port(), settings);
        for sql in self.sql {
            postgres.query(sql);
        }
        postgres
    }
}

impl Postgres {
    /// Starts it.
    ///
    /// # Panics
    /// With the server's own words, if it does not start.
    #[track_caller]
    pub fn start() -> Postgres {
        Cluster::default().start()
    }

    /// Starts it with more settings, as `[("max_connections", "20")]`.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start_with(settings: &[(&str, &str)]) -> Postgres {
        Cluster { settings, ..Cluster::default() }.start()
    }

    /// Starts a replica of this server that streams from it, with more settings of its own.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn replica(&self, settings: &[(&str, &str)]) -> Postgres {
        Postgres::replica_of(self.address, settings)
    }

    /// Starts a replica of the server that is reached at `address`: it is copied and streams from there.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn replica_of(address: SocketAddr, settings: &[(&str, &str)]) -> Postgres {
        let directory = own_directory();
        let mut copy = as_account(&server_program("pg_basebackup"));
        copy.args(["-U", "postgres", "-R", "-X", "stream", "-c", "fast"]);
        copy.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
        finish(copy.arg("-D").arg(directory.path().join("cluster"))).expect("pg_basebackup");
        let settings: Vec<(String, String)> =
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Postgres::launch(directory, free_port(), settings)
    }

    /// Makes a replica a primary, and waits until it is one.
    ///
    /// # Panics
    /// If it is none, or does not become one.
    #[track_caller]
    pub fn promote(&self) {
        assert_eq!(self.query("select pg_promote(true, 60)"), "t");
    }

    /// Runs the server whose cluster lies in `directory`.
    #[track_caller]
    fn launch(directory: TempDir, port: u16, settings: Vec<(String, String)>) -> Postgres {
        let process = run(directory.path(), port, &settings);
        Postgres { process, address: loopback(port), directory, settings }
    }

    /// Starts it once more where it was, after it has ended: with the data and the settings that it had.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process = run(self.directory.path(), self.address.port(), &self.settings);
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

    /// A program of the server's, as `pg_receivewal`, as `postgres` at any address.
    pub fn tool(name: &str, at: SocketAddr) -> Command {
        connecting(&server_program(name), at)
    }

    /// Runs `pgbench` against any address.
    pub fn pgbench(&self, at: SocketAddr, arguments: &[&str]) -> Finished {
        finish(client("pgbench", at).args(arguments).arg("postgres"))
    }
}

/// Runs the server whose cluster lies in `directory`.
#[track_caller]
fn run(directory: &Path, port: u16, settings: &[(String, String)]) -> Process {
    let launch = Launch::new("postgres", server_program("postgres"), directory).user(ACCOUNT);
    let launch = launch.stopped_by(Signal::QUIT).arg("-D").arg(directory.join("cluster"));
    let launch = launch.arg("-k").arg(directory);
    // The data is thrown away with the test: nothing is worth an fsync.
    let ours = ["listen_addresses=127.0.0.1", "fsync=off", "synchronous_commit=off", "full_page_writes=off"];
    let theirs = settings.iter().map(|(key, value)| format!("{key}={value}"));
    let all = ours.map(str::to_owned).into_iter().chain([format!("port={port}")]).chain(theirs);
    let launch = launch.args(all.flat_map(|setting| ["-c".to_owned(), setting]));
    launch.start(|| is_ready(port))
}

fn client(name: &str, at: SocketAddr) -> Command {
    connecting(&program(name), at)
}

fn connecting(program_file: &Path, at: SocketAddr) -> Command {
    let mut command = Command::new(program_file);
    command.args(["-h", &at.ip().to_string(), "-p", &at.port().to_string(), "-U", "postgres"]);
    command.env("PGCONNECT_TIMEOUT", "10").env("PGSSLMODE", "disable");
    command
}

/// A temporary directory that belongs to the server's account.
fn own_directory() -> TempDir {
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    give_to(ACCOUNT, directory.path());
    directory
}

/// Writes who may log in how: `postgres` always, and what `lines` say of the others.
fn allow(cluster: &Path, lines: &[&str]) {
    let ours = "local all all trust\nhost all postgres 127.0.0.1/32 trust\n\
        local replication postgres trust\nhost replication postgres 127.0.0.1/32 trust\n";
    let text = format!("{ours}{}\n", lines.join("\n"));
    fs::write(cluster.join("pg_hba.conf"), text).expect("we made that directory, or are root");
}

/// Copies a file into the cluster: the server takes a key only from a file of its own.
fn hand_over(file: &Path, cluster: &Path, name: &str) -> String {
    let copy = cluster.join(name);
    fs::copy(file, &copy).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).expect("the copy is ours");
    give_to(ACCOUNT, &copy);
    name.to_owned()
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
    use super::{Cluster, Postgres};
    use crate::authority::Authority;
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

    #[test]
    fn users_prove_themselves_as_the_access_file_says() {
        let authority = Authority::new();
        let postgres = Cluster {
            access: &["hostssl all ana all scram-sha-256", "host all bob all md5"],
            certificate: Some(&authority.server(&["localhost"])),
            sql: &[
                "create user ana password 'a'",
                "set password_encryption = md5; create user bob password 'b'",
            ],
            ..Cluster::default()
        }
        .start();
        let ask = |who: &str| {
            let login = format!("dbname=postgres {who}");
            postgres.psql(postgres.address(), &login, &["-c", "select current_user"])
        };
        assert_eq!(ask("user=ana password=a sslmode=require").expect("ana"), "ana");
        assert_eq!(ask("user=bob password=b sslmode=disable").expect("bob"), "bob");
        assert!(ask("user=ana password=a sslmode=disable").stderr.contains("no pg_hba.conf entry"));
        assert!(ask("user=bob password=a sslmode=disable").stderr.contains("password authentication failed"));
    }

    #[test]
    fn a_replica_follows_and_can_be_promoted() {
        let mut primary = Postgres::start_with(&[("max_wal_senders", "4")]);
        primary.query("create table t as select 7 as n");
        let replica = primary.replica(&[]);
        assert_eq!(replica.query("select pg_is_in_recovery()"), "t");
        primary.query("insert into t values (8)");
        assert!(wait_until(PATIENCE, || replica.query("select sum(n) from t") == "15"));
        primary.process().kill_all();
        replica.promote();
        replica.query("insert into t values (9)");
    }
}
