//! OpenSSH's server.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::ports::{free_port, loopback};
use crate::process::{Launch, Process};
use crate::program::{finish, is_root, program};

/// Where the server locks up its unprivileged half; it must exist.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

/// An SSH server with a host key and one authorized key of its own. Log in as the account that runs the
/// tests.
pub struct Sshd {
    process: Process,
    address: SocketAddr,
    directory: TempDir,
}

impl Sshd {
    /// Starts it.
    ///
    /// # Panics
    /// With the server's own words, if it does not start.
    #[track_caller]
    pub fn start() -> Sshd {
        Sshd::start_on(loopback(0).ip())
    }

    /// [`Sshd::start`] at another of this machine's addresses.
    ///
    /// # Panics
    /// With the server's own words, if it does not start.
    #[track_caller]
    pub fn start_on(ip: IpAddr) -> Sshd {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let address = SocketAddr::new(ip, free_port());
        make_keys(directory.path());
        let config = directory.path().join("sshd_config");
        write(&config, &configuration(directory.path(), address));
        if is_root() {
            fs::create_dir_all(PRIVILEGE_SEPARATION).expect("root may make the directory sshd asks for");
        }
        let launch =
            Launch::new("sshd", program("sshd"), directory.path()).args(["-D", "-e", "-f"]).arg(config);
        let process = launch.start(|| greets(address));
        Sshd { process, address, directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Options for `ssh`, `scp` and `sftp` that log in without asking, through `at`: this server's own
    /// address, or that of a proxy before it. They refuse any other server: the host key is pinned.
    pub fn client_options(&self, at: SocketAddr) -> Vec<String> {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let options = [
            format!("IdentityFile={}", path("client_key")),
            format!("UserKnownHostsFile={}", path("known_hosts")),
            "IdentitiesOnly=yes".into(),
            "StrictHostKeyChecking=yes".into(),
            "BatchMode=yes".into(),
            "ConnectTimeout=10".into(),
            "LogLevel=ERROR".into(),
            format!("HostName={}", at.ip()),
            format!("Port={}", at.port()),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".to_owned(), option]);
        ["-F".to_owned(), "/dev/null".to_owned()].into_iter().chain(options).collect()
    }

    /// `ssh` through `at`, ready for its remote command.
    pub fn ssh(&self, at: SocketAddr) -> Command {
        let mut command = Command::new(program("ssh"));
        command.args(self.client_options(at)).arg("server");
        command
    }

    /// `scp` through `at`, ready for its two files; the remote one is `server:/path`.
    pub fn scp(&self, at: SocketAddr) -> Command {
        let mut command = Command::new(program("scp"));
        command.arg("-q").args(self.client_options(at));
        command
    }
}

fn configuration(directory: &Path, address: SocketAddr) -> String {
    let path = |name: &str| directory.join(name).display().to_string();
    [
        format!("ListenAddress {address}"),
        format!("HostKey {}", path("host_key")),
        format!("AuthorizedKeysFile {}", path("client_key.pub")),
        format!("PidFile {}", path("sshd.pid")),
        // The temporary directory lies in a world-writable place, which the server would hold against the
        // key.
        "StrictModes no".into(),
        "UsePAM no".into(),
        "PasswordAuthentication no".into(),
        "PermitRootLogin prohibit-password".into(),
        "Subsystem sftp internal-sftp".into(),
        "PrintMotd no".into(),
        String::new(),
    ]
    .join("\n")
}

fn make_keys(directory: &Path) {
    for name in ["host_key", "client_key"] {
        let mut command = Command::new(program("ssh-keygen"));
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(directory.join(name));
        finish(&mut command).expect("ssh-keygen");
    }
    let host_key =
        fs::read_to_string(directory.join("host_key.pub")).expect("ssh-keygen has just written it");
    write(&directory.join("known_hosts"), &format!("* {host_key}"));
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).expect("a fresh temporary directory is writable");
}

/// RFC 4253 §4.2: the server speaks first.
fn greets(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut head = [0; 8];
    let timed = stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok();
    timed && stream.read_exact(&mut head).is_ok() && &head == b"SSH-2.0-"
}

#[cfg(test)]
mod tests {
    use super::Sshd;
    use crate::program::finish;
    use std::net::TcpStream;

    #[test]
    fn commands_run_files_are_copied_and_it_is_gone_after_drop() {
        let sshd = Sshd::start();
        let address = sshd.address();
        assert_eq!(finish(sshd.ssh(address).arg("echo far side")).expect("ssh"), "far side");
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        std::fs::write(&from, vec![7; 1 << 20]).unwrap();
        finish(sshd.scp(address).arg(&from).arg(format!("server:{}", to.display()))).expect("scp");
        assert_eq!(std::fs::read(to).unwrap(), vec![7; 1 << 20]);
        drop(sshd);
        assert!(TcpStream::connect(address).is_err());
    }
}
