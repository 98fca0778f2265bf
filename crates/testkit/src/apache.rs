//! The Apache HTTP server, as an origin that reads requests in its own way.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use tempfile::TempDir;

use crate::ports::{free_port, loopback};
use crate::process::{Launch, Process};
use crate::program::{is_root, program};

/// Where Debian puts its modules.
const MODULES: &str = "/usr/lib/apache2/modules";

/// A running Apache in the foreground, which answers every request for a file that is there.
pub struct Apache {
    process: Process,
    address: SocketAddr,
    directory: TempDir,
}

impl Apache {
    /// Starts it with `body` inside its one server; every request is a line of [`Apache::access_log`], in
    /// the form `"%r" %>s`.
    ///
    /// # Panics
    /// With Apache's own words, if it does not start.
    #[track_caller]
    pub fn start(body: &str) -> Apache {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let address = loopback(free_port());
        let config = directory.path().join("apache.conf");
        fs::create_dir(directory.path().join("root")).expect("a fresh temporary directory is writable");
        fs::write(&config, text(directory.path(), address, body))
            .expect("a fresh temporary directory is writable");
        let launch = Launch::new("apache2", program("apache2"), directory.path());
        let launch = launch.args(["-D", "FOREGROUND", "-f"]).arg(&config);
        let process = launch.start(|| TcpStream::connect(address).is_ok());
        Apache { process, address, directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The lines of its access log so far.
    pub fn access_log(&self) -> Vec<String> {
        let log = fs::read(self.directory.path().join("access.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().map(str::to_owned).collect()
    }

    /// Its first process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn text(directory: &Path, address: SocketAddr, body: &str) -> String {
    let directory = directory.display();
    let modules = ["mpm_event", "authz_core", "headers", "rewrite"];
    let modules = modules.map(|name| format!("LoadModule {name}_module {MODULES}/mod_{name}.so\n")).concat();
    // Apache does not serve as root.
    let user = if is_root() { "User www-data\nGroup www-data" } else { "" };
    format!(
        "ServerRoot {directory}\nDefaultRuntimeDir {directory}\nPidFile apache.pid\nServerName localhost\n\
         {modules}{user}\nListen {address}\nErrorLog /dev/stderr\nDocumentRoot {directory}/root\n\
         StartServers 1\nServerLimit 1\nThreadsPerChild 64\nThreadLimit 64\nMaxRequestWorkers 64\n\
         AsyncRequestWorkerFactor 32\n\
         KeepAliveTimeout 300\nMaxKeepAliveRequests 0\n\
         LogFormat \"\\\"%r\\\" %>s\" line\nCustomLog access.log line\n{body}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::Apache;
    use crate::http::http_over_tcp;
    use crate::wait::{PATIENCE, wait_until};

    #[test]
    fn it_answers_and_writes_down_what_it_was_asked() {
        let apache = Apache::start("RewriteEngine on\nRewriteRule .* - [R=410]");
        let answer = http_over_tcp(apache.address(), "GET", "/tea", &[], b"").unwrap();
        assert_eq!(answer.status, 410);
        let logged = || apache.access_log() == ["\"GET /tea HTTP/1.1\" 410"];
        assert!(wait_until(PATIENCE, logged), "{:?}", apache.access_log());
    }
}
