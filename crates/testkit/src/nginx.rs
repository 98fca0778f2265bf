//! nginx, as a peer to compare with and as an HTTP origin.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use tempfile::TempDir;

use crate::ports::{free_port, loopback};
use crate::process::{Launch, Process};
use crate::program::{is_root, program};

/// Where Debian's `libnginx-mod-stream` puts its module.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A running nginx, one worker, in the foreground.
pub struct Nginx {
    process: Process,
    _directory: TempDir,
}

impl Nginx {
    /// Runs `body` inside an `http { }` block; ready when `ready_at` accepts.
    ///
    /// # Panics
    /// With nginx's own words, if it does not start.
    #[track_caller]
    pub fn http(body: &str, ready_at: SocketAddr) -> Nginx {
        let blocks = format!("http {{ access_log off; {} {body} }}", temporary_paths());
        Nginx::with_config(&[], "", &blocks, ready_at)
    }

    /// Runs `body` inside a `stream { }` block.
    ///
    /// # Panics
    /// If it does not start, or the stream module is not installed.
    #[track_caller]
    pub fn stream(body: &str, ready_at: SocketAddr) -> Nginx {
        Nginx::stream_under(&[], body, ready_at)
    }

    /// [`Nginx::stream`] under a tool, as `["valgrind", "--tool=callgrind"]`.
    ///
    /// # Panics
    /// If it does not start, or the stream module is not installed.
    #[track_caller]
    pub fn stream_under(tool: &[&str], body: &str, ready_at: SocketAddr) -> Nginx {
        Nginx::with_config(tool, &stream_module(), &format!("stream {{ {body} }}"), ready_at)
    }

    /// Runs a configuration of `main` directives followed by `blocks`; `events { }` is ours.
    #[track_caller]
    fn with_config(tool: &[&str], main: &str, blocks: &str, ready_at: SocketAddr) -> Nginx {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let config = directory.path().join("nginx.conf");
        let events = "events { worker_connections 32768; }";
        let text = format!("{}{main}\n{events}\n{blocks}\n", preamble(directory.path()));
        std::fs::write(&config, text).expect("a fresh temporary directory is writable");
        let launch = Launch::under(tool, "nginx", program("nginx"), directory.path());
        let launch = launch.arg("-p").arg(directory.path()).arg("-c").arg(&config).args(["-e", "stderr"]);
        let process = launch.start(|| TcpStream::connect(ready_at).is_ok());
        Nginx { process, _directory: directory }
    }

    /// The master process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The master's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// The directive that loads the stream module.
///
/// # Panics
/// If it is not installed.
fn stream_module() -> String {
    assert!(Path::new(STREAM_MODULE).exists(), "libnginx-mod-stream is not installed; ./test installs it");
    format!("load_module {STREAM_MODULE};")
}

fn preamble(directory: &Path) -> String {
    // Workers of a root master run as nobody by default, who may not enter the temporary directory.
    let user = if is_root() { "user root;" } else { "" };
    let pid = directory.join("nginx.pid");
    format!(
        "daemon off; worker_processes 1; {user}\n\
         pid {};\nerror_log stderr error;\n",
        pid.display()
    )
}

/// nginx makes these at start, in places that only root may write unless told otherwise.
fn temporary_paths() -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    kinds.map(|kind| format!("{kind}_temp_path tmp_{kind};")).join(" ")
}

/// An HTTP origin that serves the files of a temporary directory.
pub struct HttpServer {
    _nginx: Nginx,
    address: SocketAddr,
    root: TempDir,
}

impl HttpServer {
    /// Starts it with nothing to serve.
    ///
    /// # Panics
    /// If nginx does not start.
    #[track_caller]
    pub fn start() -> HttpServer {
        let root = tempfile::tempdir().expect("the temporary directory is writable");
        let address = loopback(free_port());
        let body = format!("server {{ listen {address}; root {}; }}", root.path().display());
        HttpServer { _nginx: Nginx::http(&body, address), address, root }
    }

    /// Serves `content` as `/name`.
    pub fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.root.path().join(name), content).expect("our own directory is writable");
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::{HttpServer, Nginx};
    use crate::http::http_over_tcp;
    use crate::ports::{free_port, loopback};
    use crate::tcp::TcpServer;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    #[test]
    fn a_file_is_served_and_the_port_is_closed_after_drop() {
        let server = HttpServer::start();
        server.write("hello.txt", b"hello");
        let address = server.address();
        let answer = http_over_tcp(address, "GET", "/hello.txt", &[], b"").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        drop(server);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn a_stream_proxy_relays() {
        let (echo, address) = (TcpServer::echo(), loopback(free_port()));
        let body = format!("server {{ listen {address}; proxy_pass {}; }}", echo.address());
        let _nginx = Nginx::stream(&body, address);
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"ping").unwrap();
        let mut heard = [0; 4];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"ping");
    }

    #[test]
    #[should_panic(expected = "unknown directive \"frobnicate\"")]
    fn a_wrong_config_fails_with_nginxs_own_words() {
        Nginx::stream("frobnicate on;", loopback(free_port()));
    }
}
