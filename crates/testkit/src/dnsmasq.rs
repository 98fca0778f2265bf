//! A DNS server whose records can change while it runs.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::ports::{free_port, loopback};
use crate::process::{Launch, Process};
use crate::program::{is_root, program};
use crate::wait::{PATIENCE, wait_until};

/// The file of records, in the form of `/etc/hosts`.
const RECORDS: &str = "records";
/// A name that is always known, to see that the server answers.
const READY: (&str, &str) = ("ready.testkit", "127.0.0.1");

/// A dnsmasq that knows only the hosts it is given; everything else does not exist. Answers may be kept for
/// 1 s.
pub struct Dnsmasq {
    process: Process,
    address: SocketAddr,
    directory: TempDir,
}

impl Dnsmasq {
    /// Starts it with records, as `[("db.test", "127.0.0.2")]`; a name may occur several times.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start(records: &[(&str, &str)]) -> Dnsmasq {
        let directory = tempfile::tempdir().expect("the temporary directory is writable");
        let address = loopback(free_port());
        write(&directory, records);
        let launch = Launch::new("dnsmasq", program("dnsmasq"), directory.path());
        let launch =
            launch.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
        let launch =
            launch.args(["--no-daemon", "--listen-address=127.0.0.1", "--bind-interfaces", "--local-ttl=1"]);
        let launch =
            launch.args([format!("--port={}", address.port()), "--pid-file=".into(), "--local=//".into()]);
        let launch = launch.arg(format!("--addn-hosts={}", directory.path().join(RECORDS).display()));
        // It reads the records again as this user, who must be able to enter the temporary directory.
        let launch = if is_root() { launch.arg("--user=root") } else { launch };
        let process = launch.start(|| lookup(address, READY.0).is_ok_and(|found| !found.is_empty()));
        Dnsmasq { process, address, directory }
    }

    /// Where it answers, over UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces all records; returns when the server answers with the new ones.
    ///
    /// # Panics
    /// If it does not in time.
    #[track_caller]
    pub fn replace(&mut self, records: &[(&str, &str)]) {
        let before: Vec<String> = self.names();
        write(&self.directory, records);
        self.process.signal(Signal::HUP);
        let named = |name: &str| {
            let addresses = records.iter().filter(|(other, _)| *other == name).map(|(_, address)| *address);
            sorted(
                addresses.filter_map(|address| address.parse::<Ipv4Addr>().ok()).map(IpAddr::from).collect(),
            )
        };
        let names: Vec<String> = before.into_iter().chain(self.names()).collect();
        let is_new = || names.iter().all(|name| self.lookup(name) == named(name));
        assert!(wait_until(PATIENCE, is_new), "dnsmasq keeps its old records:\n{}", self.process.log());
    }

    /// The IPv4 addresses that the server gives for `name`, in order; none if it is unknown.
    pub fn lookup(&self, name: &str) -> Vec<IpAddr> {
        Dnsmasq::lookup_at(self.address, name)
    }

    /// The same of whoever is asked at `server`; none, too, if there is no answer in time.
    pub fn lookup_at(server: SocketAddr, name: &str) -> Vec<IpAddr> {
        sorted(lookup(server, name).unwrap_or_default())
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn names(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join(RECORDS)).unwrap_or_default();
        let names = text.lines().filter_map(|line| line.split_once(' ')).map(|(_, name)| name.to_owned());
        names.filter(|name| name != READY.0).collect()
    }
}

fn write(directory: &TempDir, records: &[(&str, &str)]) {
    let lines = records.iter().chain([&READY]).map(|(name, address)| format!("{address} {name}\n"));
    fs::write(directory.path().join(RECORDS), lines.collect::<String>())
        .expect("our own directory is writable");
}

fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses
}

/// Asks for the A records of `name` (RFC 1035 §4).
fn lookup(server: SocketAddr, name: &str) -> io::Result<Vec<IpAddr>> {
    let socket = UdpSocket::bind(loopback(0))?;
    socket.set_read_timeout(Some(PATIENCE / 3))?;
    socket.connect(server)?;
    let question = question(name);
    socket.send(&question)?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    Ok(addresses(&answer[..length], question.len()).unwrap_or_default())
}

fn question(name: &str) -> Vec<u8> {
    // Header: id 1, recursion desired, one question.
    let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("a label has at most 63 bytes"));
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]); // root; type A; class IN
    message
}

/// The answers follow the question, each with a name of two bytes: a pointer back to it (RFC 1035 §4.1.4).
fn addresses(message: &[u8], mut at: usize) -> Option<Vec<IpAddr>> {
    let count = u16::from_be_bytes([*message.get(6)?, *message.get(7)?]);
    let mut found = Vec::new();
    for _ in 0..count {
        let kind = u16::from_be_bytes([*message.get(at + 2)?, *message.get(at + 3)?]);
        let length = usize::from(u16::from_be_bytes([*message.get(at + 10)?, *message.get(at + 11)?]));
        let content = message.get(at + 12..at + 12 + length)?;
        if let (1, Ok(octets)) = (kind, <[u8; 4]>::try_from(content)) {
            found.push(IpAddr::from(octets));
        }
        at += 12 + length;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::Dnsmasq;
    use std::net::IpAddr;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn records_are_answered_and_can_change() {
        let mut dns =
            Dnsmasq::start(&[("db.test", "127.0.0.2"), ("db.test", "127.0.0.3"), ("gone.test", "127.0.0.4")]);
        assert_eq!(dns.lookup("db.test"), [ip("127.0.0.2"), ip("127.0.0.3")]);
        assert!(dns.lookup("unknown.test").is_empty());
        dns.replace(&[("db.test", "127.0.0.9")]);
        assert_eq!(dns.lookup("db.test"), [ip("127.0.0.9")]);
        assert!(dns.lookup("gone.test").is_empty());
        let address = dns.address();
        drop(dns);
        assert!(super::lookup(address, "db.test").is_err());
    }
}
