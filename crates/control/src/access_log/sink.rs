//! Where lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tieline_base::Clock;

/// Where the access log goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessLogTarget {
    /// Nowhere.
    Off,
    /// The standard output.
    Stdout,
    /// This file, appended to; made with mode 0640.
    File(PathBuf),
    /// The system's log, as facility local0: the daemon at this socket, or at the usual one.
    Syslog(Option<PathBuf>),
}

/// An open target.
#[derive(Debug)]
pub(super) enum Sink {
    Stdout,
    File(File),
    Syslog(Syslog),
}

impl Sink {
    /// Opens `target`; nothing for [`AccessLogTarget::Off`].
    pub(super) fn open(target: &AccessLogTarget) -> io::Result<Option<Sink>> {
        Ok(match target {
            AccessLogTarget::Off => None,
            AccessLogTarget::Stdout => Some(Sink::Stdout),
            AccessLogTarget::File(path) => Some(Sink::File(append_to(path)?)),
            AccessLogTarget::Syslog(path) => {
                Some(Sink::Syslog(Syslog::new(path.as_deref().unwrap_or(Path::new(SYSLOG)))))
            }
        })
    }

    /// Writes whole lines, each with its line break. Tells how many were lost.
    pub(super) fn write(&mut self, lines: &[u8]) -> u64 {
        let written = match self {
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines).and_then(|()| stdout.flush())
            }
            Sink::File(file) => file.write_all(lines),
            Sink::Syslog(syslog) => return syslog.write(lines),
        };
        // How much of them came out is not known; all are counted.
        if written.is_err() { count(lines) } else { 0 }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// How many lines `lines` holds.
fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

const SYSLOG: &str = "/dev/log";

/// RFC 5424 §6.2.1: local0 (16) × 8 + informational (6).
const PRIORITY: u8 = 16 * 8 + 6;

/// The system's log: one datagram a line.
#[derive(Debug)]
pub(super) struct Syslog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    fn new(path: &Path) -> Self {
        Self { path: path.into(), socket: None }
    }

    fn write(&mut self, lines: &[u8]) -> u64 {
        let lines = lines.split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| u64::from(!self.send(line.strip_suffix(b"\n").unwrap_or(line)))).sum()
    }

    /// Sends one line; tells whether it was taken. A daemon that was restarted has a new socket: one more
    /// try.
    fn send(&mut self, line: &[u8]) -> bool {
        let now = Timestamp::try_from(Clock::wall()).unwrap_or(Timestamp::UNIX_EPOCH);
        // RFC 5424 §6: version, time, host, app, process, message id and structured data; "-" is "none".
        let mut datagram =
            format!("<{PRIORITY}>1 {now:.3} - tieline {} access - ", std::process::id()).into_bytes();
        datagram.extend_from_slice(line);
        self.try_send(&datagram) || self.try_send(&datagram)
    }

    fn try_send(&mut self, datagram: &[u8]) -> bool {
        if self.socket.is_none() {
            self.socket = connect(&self.path).ok();
        }
        let sent = self.socket.as_ref().is_some_and(|socket| socket.send(datagram).is_ok());
        if !sent {
            self.socket = None;
        }
        sent
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    // A log daemon that hangs must cost lines, not the thread.
    socket.set_write_timeout(Some(SEND_MAX))?;
    Ok(socket)
}

const SEND_MAX: std::time::Duration = std::time::Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_appended_to_and_not_for_the_world() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        for line in [b"one\n", b"two\n"] {
            let mut sink = Sink::open(&AccessLogTarget::File(path.clone())).unwrap().unwrap();
            assert_eq!(sink.write(line), 0);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    }

    #[test]
    fn a_full_disk_costs_lines_and_says_how_many() {
        let mut sink = Sink::open(&AccessLogTarget::File("/dev/full".into())).unwrap().unwrap();
        assert_eq!(sink.write(b"one\ntwo\n"), 2);
    }

    #[test]
    fn syslog_gets_one_datagram_a_line_and_survives_its_daemons_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut syslog = Syslog::new(&path);
        assert_eq!(syslog.write(b"nobody\nlistens\n"), 2);
        for _restart in 0..2 {
            let daemon = UnixDatagram::bind(&path).unwrap();
            assert_eq!(syslog.write(b"{\"id\":1}\n{\"id\":2}\n"), 0);
            for id in 1..=2 {
                let mut buffer = [0; 256];
                let length = daemon.recv(&mut buffer).unwrap();
                let text = std::str::from_utf8(&buffer[..length]).unwrap();
                assert!(text.starts_with("<134>1 20"), "{text}");
                let end = format!("Z - tieline {} access - {{\"id\":{id}}}", std::process::id());
                assert!(text.ends_with(&end), "{text}");
            }
            drop(daemon);
            std::fs::remove_file(&path).unwrap();
        }
    }
}
