//! `[server]` and `[admin]` as they are obeyed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fields::{Fields, Taken};
use crate::place::{Place, Spot};
use crate::problem::Problems;
use crate::value::Value;
use crate::words::{AccessLogWord, LogFormat, LogLevel};

/// What only a restart changes.
#[derive(Clone, PartialEq, Debug)]
pub struct Boot {
    /// `server.data`, from the config file's folder if it is relative.
    pub data: PathBuf,
    /// `server.workers`.
    pub workers: Workers,
    /// `server.log_format`.
    pub log_format: LogFormat,
    /// `admin.listen`; `None` is off.
    pub admin_listen: Option<SocketAddr>,
    /// Where `admin.listen` stands.
    pub admin_place: Place,
}

/// How many threads carry connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workers {
    /// One for each core.
    Auto,
    /// So many: 1 to 256.
    Count(u16),
}

/// The keys of `[server]` that a reload changes.
#[derive(Clone, PartialEq, Debug)]
pub struct Server {
    /// How long finished connections are kept.
    pub history: Duration,
    /// How many finished connections are kept at most.
    pub history_rows: usize,
    /// Where the access log goes.
    pub access_log: AccessLog,
    /// How much the server's own log says.
    pub log: LogLevel,
    /// How names are resolved.
    pub dns: Dns,
    /// `admin.hosts`, in lower case.
    pub admin_hosts: Vec<String>,
}

/// Where the access log goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// The standard output.
    Stdout,
    /// The system's log: the socket at this path, or the usual one.
    Syslog(Option<PathBuf>),
    /// This file, opened again on SIGHUP.
    File {
        /// Its path, from the config file's folder if it is relative.
        path: PathBuf,
        /// Where it is named.
        place: Place,
    },
}

/// How the names of endpoints are resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dns {
    /// The servers to ask, in this order; none: the system's.
    pub servers: Vec<SocketAddr>,
    /// The least time for which an answer is used.
    pub min_ttl: Duration,
    /// The longest time for which an answer is used; not below `min_ttl`.
    pub max_ttl: Duration,
}

/// Reads both blocks. `folder` is the config file's.
pub(crate) fn read(
    mut server: Fields,
    mut admin: Fields,
    folder: &Path,
    problems: &mut Problems,
) -> (Boot, Server) {
    let admin_place = admin.place();
    let (admin_listen, admin_place) = match admin.take::<Value>("listen") {
        Some(Taken { value: Value::Socket(socket), place, .. }) => (Some(socket), place),
        _ => (None, admin_place),
    };
    let hosts: Vec<Spot<String>> = admin.list("hosts");
    let admin_hosts = hosts.into_iter().map(|host| host.value.to_ascii_lowercase()).collect();
    admin.done();
    let boot = Boot {
        data: folder.join(server.value::<PathBuf>("data")),
        workers: workers(&mut server),
        log_format: server.word("log_format", LogFormat::from_word).unwrap_or(LogFormat::Text),
        admin_listen,
        admin_place,
    };
    let live = Server {
        history: server.value("history"),
        history_rows: server.whole("history_rows").unwrap_or(0),
        access_log: access_log(&mut server, folder),
        log: server.word("log", LogLevel::from_word).unwrap_or(LogLevel::Info),
        dns: dns(server.table("dns"), problems),
        admin_hosts,
    };
    server.done();
    (boot, live)
}

fn workers(server: &mut Fields) -> Workers {
    match server.maybe::<Value>("workers") {
        Some(Value::Whole(count)) => u16::try_from(count).map_or(Workers::Auto, Workers::Count),
        _ => Workers::Auto,
    }
}

fn access_log(server: &mut Fields, folder: &Path) -> AccessLog {
    match server.take::<Value>("access_log") {
        Some(Taken { value: Value::Path(path), place, .. }) => {
            AccessLog::File { path: folder.join(path), place }
        }
        Some(Taken { value: Value::Syslog(path), .. }) => AccessLog::Syslog(Some(folder.join(path.0))),
        Some(Taken { value: Value::Word(word), .. }) => match AccessLogWord::from_word(word) {
            Some(AccessLogWord::Off) => AccessLog::Off,
            Some(AccessLogWord::Syslog) => AccessLog::Syslog(None),
            Some(AccessLogWord::Stdout) | None => AccessLog::Stdout,
        },
        _ => AccessLog::Stdout,
    }
}

fn dns(mut dns: Fields, problems: &mut Problems) -> Dns {
    let servers: Vec<Spot<SocketAddr>> = dns.list("servers");
    let min_ttl = dns.take::<Duration>("min_ttl");
    let max_ttl = dns.take::<Duration>("max_ttl");
    dns.done();
    if let (Some(min), Some(max)) = (&min_ttl, &max_ttl)
        && min.value > max.value
    {
        let written = if min.written { min } else { max };
        problems.error(written.place, "`min_ttl` is longer than `max_ttl`");
    }
    Dns {
        servers: servers.into_iter().map(|server| server.value).collect(),
        min_ttl: min_ttl.map_or(Duration::ZERO, |ttl| ttl.value),
        max_ttl: max_ttl.map_or(Duration::ZERO, |ttl| ttl.value),
    }
}
