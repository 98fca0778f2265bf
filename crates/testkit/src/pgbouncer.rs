//! PgBouncer, as a peer to compare with.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use tempfile::TempDir;

use crate::ports::{free_port, loopback};
use crate::process::{Launch, Process};
use crate::program::{give_to, program};

/// The account that PostgreSQL's package makes: it refuses to run as root too.
const ACCOUNT: &str = "postgres";

/// A running PgBouncer.
pub struct PgBouncer {
    process: Process,
    address: SocketAddr,
    _directory: TempDir,
}

impl PgBouncer {
    /// Runs it before `databases`, each a line of its `[databases]`, with `settings` for its `[pgbouncer]`.
    /// Whoever comes is trusted unless the settings say otherwise; `users` are the lines of its
    /// `userlist.txt`. The files of its TLS towards clients may be anybody's.
    ///
    /// # Panics
    /// With PgBouncer's own words, if it does not start.
    #[track_caller]
    pub fn start(databases: &[&str], settings: &[(&str, &str)], users: &[&str]) -> PgBouncer {
        PgBouncer::start_under(&[], databases, settings, users)
    }

    /// [`PgBouncer::start`] under a tool, as `["valgrind", "--tool=callgrind"]`.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start_under(
        tool: &[&str],
        databases: &[&str],
        settings: &[(&str, &str)],
        users: &[&str],
    ) -> PgBouncer {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        give_to(ACCOUNT, directory.path());
        let address = loopback(free_port());
        let config = write_config(directory.path(), address, databases, settings, users);
        let launch = Launch::under(tool, "pgbouncer", program("pgbouncer"), directory.path()).user(ACCOUNT);
        let process = launch.arg(config).start(|| TcpStream::connect(address).is_ok());
        PgBouncer { process, address, _directory: directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its one process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

fn write_config(
    directory: &Path,
    address: SocketAddr,
    databases: &[&str],
    settings: &[(&str, &str)],
    users: &[&str],
) -> std::path::PathBuf {
    let list = directory.join("userlist.txt");
    fs::write(&list, format!("{}\n", users.join("\n"))).expect("a fresh temporary directory is writable");
    let ours = [
        ("listen_addr", address.ip().to_string()),
        ("listen_port", address.port().to_string()),
        ("unix_socket_dir", String::new()),
        ("auth_type", "trust".to_owned()),
        ("auth_file", list.display().to_string()),
    ];
    let ours = ours.iter().filter(|(key, _)| !settings.iter().any(|(theirs, _)| theirs == key));
    let lines = ours.map(|(key, value)| format!("{key} = {value}\n"));
    let theirs = settings.iter().map(|(key, value)| {
        let value = if key.starts_with("client_tls_") && key.ends_with("_file") {
            hand_over(Path::new(value), directory, key)
        } else {
            (*value).to_owned()
        };
        format!("{key} = {value}\n")
    });
    let settings: String = lines.chain(theirs).collect();
    let file = directory.join("pgbouncer.ini");
    let text = format!("[databases]\n{}\n[pgbouncer]\n{settings}", databases.join("\n"));
    fs::write(&file, text).expect("a fresh temporary directory is writable");
    give_to(ACCOUNT, &list);
    give_to(ACCOUNT, &file);
    file
}

/// A copy of `file` that its account may read, in its own folder.
fn hand_over(file: &Path, directory: &Path, name: &str) -> String {
    let copy = directory.join(name);
    fs::copy(file, &copy).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    give_to(ACCOUNT, &copy);
    copy.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::PgBouncer;
    use crate::postgres::Postgres;

    #[test]
    fn it_pools_and_serves_its_console() {
        let postgres = Postgres::start();
        let database = format!("postgres = host=127.0.0.1 port={}", postgres.address().port());
        let settings = [("pool_mode", "transaction"), ("admin_users", "postgres")];
        let bouncer = PgBouncer::start(&[&database], &settings, &["\"postgres\" \"\""]);
        let ask = |database: &str, sql: &str| postgres.psql(bouncer.address(), database, &["-c", sql]);
        assert_eq!(ask("postgres", "select 6 * 7").expect("a query"), "42");
        assert!(ask("pgbouncer", "show pools").expect("its console").contains("postgres|postgres|"));
    }
}
