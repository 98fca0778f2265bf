//! An imported config as text.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use tieline_base::Verifier;

use super::counts::{self, Count};
use super::lookup::Lookup;
use super::pgbouncer::time;
use super::shares::Share;
use super::tls::ClientTls;

pub(super) struct Config {
    pub(super) listener: Listener,
    pub(super) routes: Vec<Route>,
    pub(super) upstreams: Vec<Upstream>,
    /// Those of each upstream.
    pub(super) shares: Vec<Share>,
    pub(super) users: Vec<User>,
}

pub(super) struct Listener {
    pub(super) bind: Vec<String>,
    pub(super) unix_mode: Option<String>,
    /// After how much silence the kernel asks, if that is said; `None` of that: never.
    pub(super) keepalive: Option<Option<Duration>>,
    pub(super) auth: String,
    pub(super) admins: Vec<String>,
    pub(super) readers: Vec<String>,
    pub(super) tls: Option<ClientTls>,
    pub(super) connections: u32,
    pub(super) counts: counts::Usual,
    pub(super) handshake: Duration,
    pub(super) idle: Duration,
    pub(super) lookup: Option<Lookup>,
}

pub(super) struct Route {
    /// `None`: whatever no other route takes.
    pub(super) database: Option<String>,
    pub(super) upstream: String,
    /// How many clients each of its databases may have, if that is said.
    pub(super) connections: Option<Count>,
}

pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) endpoints: Vec<String>,
    pub(super) database: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    /// As TOML.
    pub(super) tls: Option<String>,
    pub(super) mode: String,
    pub(super) size: u32,
    pub(super) idle: Duration,
    pub(super) max_age: Duration,
    pub(super) connect: Option<Duration>,
    pub(super) acquire: Duration,
    /// Servers are reset after every transaction.
    pub(super) resets: bool,
    /// After how long a client that waits is told so, if that is said; `None` of that: never.
    pub(super) notice: Option<Option<Duration>>,
    /// More of its times, each with its key.
    pub(super) patience: Vec<(&'static str, Duration)>,
}

pub(super) struct User {
    pub(super) name: String,
    pub(super) verifier: Option<Verifier>,
    pub(super) password_file: Option<PathBuf>,
    /// How many clients may be logged in as it, if that is said.
    pub(super) connections: Option<Count>,
}

/// `text` as TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quoted_path(path: &std::path::Path) -> String {
    quoted(&path.display().to_string())
}

/// The config that does what `file` says.
pub(super) fn toml(config: &Config, file: &str) -> String {
    // Nothing fails that is written into a text.
    let mut text = format!("# Imported from {}\n", file.replace(char::is_control, "?"));
    let _ = listener(&mut text, &config.listener);
    for Route { database, upstream, connections } in &config.routes {
        let _ = writeln!(text, "\n[[listener.postgres.route]]");
        if let Some(database) = database {
            let _ = writeln!(text, "database = {}", quoted(database));
        }
        let _ = writeln!(text, "upstream = {}\naccess = \"public\"", quoted(upstream));
        if let Some(count) = connections {
            let _ = writeln!(text, "connections = {}", counts::toml(*count));
        }
    }
    for one in &config.upstreams {
        let _ = upstream(&mut text, one);
        for one_share in &config.shares {
            let _ = share(&mut text, &one.name, one_share);
        }
    }
    for one in &config.users {
        let _ = user(&mut text, one);
    }
    text
}

fn listener(text: &mut String, listener: &Listener) -> std::fmt::Result {
    let bind: Vec<_> = listener.bind.iter().map(|bind| quoted(bind)).collect();
    writeln!(text, "\n[listener.postgres]\nbind = [{}]\nprotocol = \"postgres\"", bind.join(", "))?;
    writeln!(text, "auth = {}", quoted(&listener.auth))?;
    let console = [("admin", &listener.admins), ("stats", &listener.readers)];
    let console: Vec<_> = console.iter().filter(|(_, names)| !names.is_empty()).collect();
    if !console.is_empty() {
        let names = |names: &[String]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let console: Vec<_> = console.iter().map(|(key, who)| format!("{key} = [{}]", names(who))).collect();
        writeln!(text, "console = {{ {} }}", console.join(", "))?;
    }
    if let Some(Lookup { upstream, query }) = &listener.lookup {
        let query = query.as_ref().map(|query| format!(", query = {}", quoted(query))).unwrap_or_default();
        writeln!(text, "auth_query = {{ upstream = {}{query} }}", quoted(upstream))?;
    }
    if let Some(mode) = &listener.unix_mode {
        writeln!(text, "unix_mode = {}", quoted(mode))?;
    }
    if let Some(after) = listener.keepalive {
        writeln!(text, "keepalive = \"{}\"", after.map_or_else(|| "off".into(), time))?;
    }
    if let Some(tls) = &listener.tls {
        let ca = tls.ca.as_ref().map(|ca| format!(", client_ca = {}", quoted(ca))).unwrap_or_default();
        writeln!(
            text,
            "tls = {{ certificate = {}, key = {}{ca} }}",
            quoted(&tls.certificate),
            quoted(&tls.key)
        )?;
        if !tls.required {
            writeln!(text, "tls_required = false")?;
        }
    }
    let counts = [("per_user", listener.counts.per_user), ("per_database", listener.counts.per_database)];
    let counts = counts.iter().filter_map(|(key, count)| Some(format!(", {key} = {}", (*count)?)));
    writeln!(text, "limits = {{ connections = {}{} }}", listener.connections, counts.collect::<String>())?;
    let (handshake, idle) = (time(listener.handshake), time(listener.idle));
    writeln!(text, "timeouts = {{ handshake = \"{handshake}\", idle = \"{idle}\" }}")
}

fn upstream(text: &mut String, upstream: &Upstream) -> std::fmt::Result {
    let endpoints: Vec<_> = upstream.endpoints.iter().map(|endpoint| quoted(endpoint)).collect();
    writeln!(
        text,
        "\n[upstream.{}]\nprotocol = \"postgres\"\nendpoints = [{}]",
        upstream.name,
        endpoints.join(", ")
    )?;
    for (key, value) in [("database", &upstream.database), ("user", &upstream.user)] {
        if let Some(value) = value {
            writeln!(text, "{key} = {}", quoted(value))?;
        }
    }
    if let Some(path) = &upstream.password_file {
        writeln!(text, "password_file = {}", quoted_path(path))?;
    }
    if let Some(tls) = &upstream.tls {
        writeln!(text, "tls = {tls}")?;
    }
    let (idle, max_age) = (time(upstream.idle), time(upstream.max_age));
    writeln!(
        text,
        "pool = {{ mode = {}, size = {}, idle = \"{idle}\", max_age = \"{max_age}\"{}{} }}",
        quoted(&upstream.mode),
        upstream.size,
        if upstream.resets { ", reset = \"always\"" } else { "" },
        upstream.notice.map(notice).unwrap_or_default()
    )?;
    let connect = upstream.connect.map(|it| format!("connect = \"{}\", ", time(it))).unwrap_or_default();
    let more = upstream.patience.iter().map(|(key, within)| format!(", {key} = \"{}\"", time(*within)));
    let more = more.collect::<String>();
    writeln!(text, "timeouts = {{ {connect}acquire = \"{}\"{more} }}", time(upstream.acquire))
}

fn notice(after: Option<Duration>) -> String {
    format!(", notice = \"{}\"", after.map_or_else(|| "off".into(), time))
}

fn share(text: &mut String, upstream: &str, share: &Share) -> std::fmt::Result {
    writeln!(text, "\n[[upstream.{upstream}.share]]")?;
    if let Some(user) = &share.user {
        writeln!(text, "user = {}", quoted(user))?;
    }
    share.cap.map_or(Ok(()), |cap| writeln!(text, "cap = {cap}"))
}

fn user(text: &mut String, user: &User) -> std::fmt::Result {
    let name = if user.name.contains('.') { quoted(&user.name) } else { user.name.clone() };
    writeln!(text, "\n[user.{name}]")?;
    if let Some(verifier) = &user.verifier {
        writeln!(text, "verifier = {}", quoted(&verifier.to_text()))?;
    }
    if let Some(path) = &user.password_file {
        writeln!(text, "password_file = {}", quoted_path(path))?;
    }
    user.connections.map_or(Ok(()), |count| writeln!(text, "connections = {}", counts::toml(count)))
}
