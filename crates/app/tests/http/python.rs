//! Programs in another language beside the tests, with the packages of the distribution.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};

use tieline_testkit::{PATIENCE, free_port, loopback, wait_until};

/// The distribution's own, which has its packages.
const PYTHON: &str = "/usr/bin/python3";

/// The program in the file of this name, to be run with further arguments.
pub(crate) fn program(file: &str, mode: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http").join(file);
    let mut command = Command::new(PYTHON);
    command.arg(path).arg(mode);
    command
}

/// A server of it, ended with the test.
pub(crate) struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts `FILE server PORT`, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(file: &str) -> Server {
        let address = loopback(free_port());
        let mut command = program(file, "server");
        let process = command.arg(address.port().to_string()).spawn().expect("python3");
        let server = Server { process, address };
        assert!(wait_until(PATIENCE, || std::net::TcpStream::connect(address).is_ok()), "it listens");
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
