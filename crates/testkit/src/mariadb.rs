//! MariaDB.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::ports::{free_port, loopback};
use crate::process::{Launch, Process};
use crate::program::{Finished, finish, give_to, program};

/// The account that Debian's package makes; the server refuses to run as root.
const ACCOUNT: &str = "mysql";

/// A MariaDB server with an empty database `test` and the user `app`, password `app`, who may do everything.
pub struct MariaDb {
    process: Process,
    address: SocketAddr,
    directory: TempDir,
}

impl MariaDb {
    /// Starts it.
    ///
    /// # Panics
    /// With the server's own words, if it does not start.
    #[track_caller]
    pub fn start() -> MariaDb {
        MariaDb::start_with(&[])
    }

    /// Starts it with more settings, as `[("max-connections", "20")]`.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start_with(settings: &[(&str, &str)]) -> MariaDb {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        make_data(&directory);
        give_to(ACCOUNT, directory.path());
        let port = free_port();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let launch = Launch::new("mariadbd", program("mariadbd"), directory.path()).user(ACCOUNT);
        let launch = launch.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
        let launch =
            launch.args(["datadir", "socket", "pid-file"].map(|key| format!("--{key}={}", path(key))));
        let launch =
            launch.arg(format!("--port={port}")).arg(format!("--tmpdir={}", directory.path().display()));
        let launch = launch.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"]);
        let launch = launch.args(settings.iter().map(|(key, value)| format!("--{key}={value}")));
        let process = launch.start(|| greets(loopback(port)));
        let mariadb = MariaDb { process, address: loopback(port), directory };
        let app =
            "create user app@'%' identified by 'app'; grant all on *.* to app@'%'; create database test";
        finish(
            Command::new(program("mariadb")).arg("-uroot").arg(mariadb.socket_argument()).args(["-e", app]),
        )
        .expect("making the user app");
        mariadb
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Runs SQL as `app` on the server itself and returns the rows as lines, columns split by tabs.
    ///
    /// # Panics
    /// If the SQL fails.
    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        self.client(self.address, &["-e", sql]).expect(sql)
    }

    /// Runs the `mariadb` client as `app` against any address.
    pub fn client(&self, at: SocketAddr, arguments: &[&str]) -> Finished {
        let (host, port) = (format!("-h{}", at.ip()), format!("-P{}", at.port()));
        let login = ["--no-defaults", "-uapp", "-papp", &host, &port, "--connect-timeout=10", "-N", "-B"];
        finish(Command::new(program("mariadb")).args(login).args(arguments).arg("test"))
    }

    fn socket_argument(&self) -> String {
        format!("--socket={}", self.socket().display())
    }
}

/// Made as root, then handed to the account: the installer insists on changing owners itself when it is root.
fn make_data(directory: &TempDir) {
    let mut command = Command::new(program("mariadb-install-db"));
    command.arg("--no-defaults").arg(format!("--datadir={}", directory.path().join("datadir").display()));
    // Two that are set up at once remove each other's tables from a shared one.
    command.arg(format!("--tmpdir={}", directory.path().display()));
    command.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=4M"]);
    if crate::program::is_root() {
        command.arg(format!("--user={ACCOUNT}"));
    }
    give_to(ACCOUNT, directory.path());
    finish(&mut command).expect("mariadb-install-db");
}

/// Whether the server's greeting comes: sequence number 0, protocol version 10 (MySQL `HandshakeV10`).
fn greets(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut head = [0; 5];
    let timed = stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok();
    timed && stream.read_exact(&mut head).is_ok() && head[3..] == [0, 10]
}

#[cfg(test)]
mod tests {
    use super::MariaDb;
    use std::net::TcpStream;

    #[test]
    fn it_answers_obeys_its_settings_and_is_gone_after_drop() {
        let mariadb = MariaDb::start_with(&[("max-connections", "17")]);
        assert_eq!(mariadb.query("select @@max_connections"), "17");
        assert!(mariadb.socket().exists());
        let address = mariadb.address();
        drop(mariadb);
        assert!(TcpStream::connect(address).is_err());
    }
}
