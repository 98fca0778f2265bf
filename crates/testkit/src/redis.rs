//! Redis.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::ports::{free_port, loopback};
use crate::process::{Launch, Process};
use crate::program::{Finished, finish, program};

/// A Redis server without persistence.
pub struct Redis {
    process: Process,
    address: SocketAddr,
    directory: TempDir,
}

impl Redis {
    /// Starts it.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start() -> Redis {
        Redis::start_with(&[])
    }

    /// Starts it with more settings, as `["requirepass", "secret"]`.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start_with(settings: &[(&str, &str)]) -> Redis {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let port = free_port();
        let launch = Launch::new("redis-server", program("redis-server"), directory.path());
        let launch = launch.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        let launch = launch.args(["--appendonly", "no", "--unixsocket", "redis.sock", "--dir", "."]);
        let settings = settings.iter().flat_map(|(key, value)| [format!("--{key}"), (*value).to_owned()]);
        let process = launch.args(settings).start(|| answers_ping(loopback(port)));
        Redis { process, address: loopback(port), directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Runs `redis-cli` against any address: this server's own, or that of a proxy before it.
    pub fn cli(&self, at: SocketAddr, arguments: &[&str]) -> Finished {
        let (host, port) = (at.ip().to_string(), at.port().to_string());
        finish(Command::new(program("redis-cli")).args(["-h", &host, "-p", &port]).args(arguments))
    }
}

/// Any reply to an inline PING will do: one that asks for a password is up, too.
fn answers_ping(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut first = [0];
    stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut first).is_ok()
        && matches!(first[0], b'+' | b'-')
}

#[cfg(test)]
mod tests {
    use super::Redis;
    use std::net::TcpStream;

    #[test]
    fn it_keeps_a_value_and_is_gone_after_drop() {
        let redis = Redis::start();
        let address = redis.address();
        assert_eq!(redis.cli(address, &["set", "k", "v"]).expect("set"), "OK");
        assert_eq!(redis.cli(address, &["get", "k"]).expect("get"), "v");
        assert!(redis.socket().exists());
        drop(redis);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn settings_are_obeyed() {
        let redis = Redis::start_with(&[("requirepass", "sesame")]);
        assert!(redis.cli(redis.address(), &["get", "k"]).stdout.contains("NOAUTH"));
        let asked = redis.cli(redis.address(), &["-a", "sesame", "--no-auth-warning", "ping"]);
        assert_eq!(asked.expect("ping"), "PONG");
    }
}
