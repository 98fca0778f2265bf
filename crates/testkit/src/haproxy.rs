//! HAProxy, as a peer to compare with and as a sender of the PROXY protocol.

use std::net::{SocketAddr, TcpStream};

use tempfile::TempDir;

use crate::process::{Launch, Process};
use crate::program::program;

/// A running HAProxy in the foreground.
pub struct Haproxy {
    process: Process,
    _directory: TempDir,
}

impl Haproxy {
    /// Runs the whole configuration `config`; ready when `ready_at` accepts.
    ///
    /// # Panics
    /// With HAProxy's own words, if it does not start.
    #[track_caller]
    pub fn start(config: &str, ready_at: SocketAddr) -> Haproxy {
        Haproxy::start_under(&[], config, ready_at)
    }

    /// [`Haproxy::start`] under a tool, as `["valgrind", "--tool=callgrind"]`.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start_under(tool: &[&str], config: &str, ready_at: SocketAddr) -> Haproxy {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, format!("{}\n", config.trim_end()))
            .expect("a fresh temporary directory is writable");
        // -db: no daemon and no master process, so that there is one process to measure.
        let launch = Launch::under(tool, "haproxy", program("haproxy"), directory.path());
        let launch = launch.args(["-db", "-f"]).arg(&file);
        let process = launch.start(|| TcpStream::connect(ready_at).is_ok());
        Haproxy { process, _directory: directory }
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

#[cfg(test)]
mod tests {
    use super::Haproxy;
    use crate::ports::{free_port, loopback};
    use crate::tcp::TcpServer;
    use std::io::Read;
    use std::net::TcpStream;

    #[test]
    fn it_relays_and_is_gone_after_drop() {
        let (upstream, address) = (TcpServer::named("upstream"), loopback(free_port()));
        let timeouts = "timeout connect 5s\n timeout client 1m\n timeout server 1m";
        let server = format!("listen web\n bind {address}\n server one {}", upstream.address());
        let haproxy = Haproxy::start(&format!("defaults\n mode tcp\n {timeouts}\n{server}"), address);
        let mut heard = [0; 8];
        TcpStream::connect(address).unwrap().read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"upstream");
        drop(haproxy);
        assert!(TcpStream::connect(address).is_err());
    }
}
