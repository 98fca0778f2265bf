//! PgBouncer's settings as ours.

use std::path::PathBuf;
use std::time::Duration;

use tieline_base::{Secret, Verifier, format_duration};

use super::counts;
use super::globals::Globals;
use super::ini::{Setting, pairs};
use super::lookup;
use super::notes::Notes;
use super::secrets::{Known, Secrets};
use super::shares::shares;
use super::tls::{ServerTls, client_tls};
use super::write::{Config, Listener, Route, Upstream, User};
use crate::passwords;

/// What stands for "never" where a time has to be written.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);

/// How old a connection may be that is used once: any is older.
const ONCE: Duration = Duration::from_millis(1);

/// Where a database without a `host` is, as Debian's PgBouncer has it.
const SOCKETS: &str = "/var/run/postgresql";

/// What holds for every database that says nothing else.
struct Usual {
    mode: String,
    size: u32,
    idle: Duration,
    max_age: Duration,
    /// Servers are reset whenever they are given back.
    resets: bool,
    notice: Option<Option<Duration>>,
    connect: Option<Duration>,
    acquire: Duration,
    patience: Vec<(&'static str, Duration)>,
    /// What all users of a database may have together.
    most: Option<u32>,
    tls: ServerTls,
}

/// The config that does what `settings` say, as far as it can be done.
pub(super) fn import(settings: &[Setting], secrets: &mut Secrets, notes: &mut Notes) -> Config {
    let mut globals = Globals::of(settings);
    let mut listener = listener(&mut globals, notes);
    let asks = matches!(listener.auth.as_str(), "scram" | "md5");
    let wanted = if asks { lookup::wanted(&mut globals, settings, notes) } else { None };
    lookup::tell_others(settings, wanted.as_ref(), notes);
    let usual = usual(&mut globals, notes);
    let (mut routes, mut upstreams) = (Vec::new(), Vec::new());
    for setting in settings.iter().filter(|setting| setting.section == "databases") {
        let Some((route, upstream)) = database(setting, &usual, &upstreams, secrets, notes) else { continue };
        routes.push(route);
        upstreams.push(upstream);
    }
    for setting in settings {
        match setting.section.as_str() {
            "pgbouncer" | "databases" | "users" => {}
            "peers" => notes.tell(setting.line, "peers: not needed, one process uses every core".into()),
            other => notes.tell(setting.line, format!("[{other}] has no equivalent")),
        }
    }
    let shares = shares(&mut globals, settings, notes);
    globals.tell_the_rest(notes);
    let passes_through = upstreams.iter().any(|upstream: &Upstream| upstream.user.is_none());
    let named: Vec<_> =
        routes.iter().map(|route: &Route| route.database.clone()).zip(upstreams.iter()).collect();
    if let Some((lookup, upstream)) = wanted.and_then(|wanted| lookup::lookup(wanted, &named, secrets, notes))
    {
        listener.lookup = Some(lookup);
        upstreams.push(upstream);
    }
    let mut users = users(asks, passes_through, listener.auth == "md5", secrets, notes);
    counts::carry(settings, &mut users, &mut routes, notes);
    Config { listener, routes, upstreams, shares, users }
}

fn listener(globals: &mut Globals, notes: &mut Notes) -> Listener {
    let port = globals.text("listen_port", "6432");
    let mut bind = Vec::new();
    if let Some((addresses, line)) = globals.take("listen_addr") {
        for address in addresses.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            match address {
                "*" => bind.extend([format!("0.0.0.0:{port}"), format!("[::]:{port}")]),
                "localhost" => bind.push(format!("127.0.0.1:{port}")),
                address => match address.parse::<std::net::IpAddr>() {
                    Ok(std::net::IpAddr::V4(ip)) => bind.push(format!("{ip}:{port}")),
                    Ok(std::net::IpAddr::V6(ip)) => bind.push(format!("[{ip}]:{port}")),
                    Err(_) => notes.tell(line, format!("listen_addr: write the IP address of \"{address}\"")),
                },
            }
        }
    }
    if let Some((folder, line)) = globals.take("unix_socket_dir") {
        match folder.starts_with('/') {
            true => bind.push(format!("unix:{folder}/.s.PGSQL.{port}")),
            false => notes.tell(line, format!("unix_socket_dir = {folder}: write the folder's whole path")),
        }
    }
    let has_unix = bind.iter().any(|bind| bind.starts_with("unix:"));
    let unix_mode = if has_unix { globals.take("unix_socket_mode").map(|(mode, _)| mode) } else { None };
    if !has_unix {
        let what = "no unix_socket_dir: PgBouncer listens in /tmp, or where its package says; write that \
                    into `bind` if clients come by it";
        notes.tell(1, what.into());
    }
    if bind.is_empty() {
        bind.push(format!("127.0.0.1:{port}"));
        notes.tell(1, format!("it listens nowhere by listen_addr; 127.0.0.1:{port} is taken"));
    }
    let tls = client_tls(globals, notes);
    let is_local = bind
        .iter()
        .all(|bind| bind.starts_with("unix:") || bind.starts_with("127.") || bind.starts_with("[::1]"));
    let auth = auth(globals, is_local, tls.as_ref().is_some_and(|tls| tls.ca.is_some()), notes);
    let mut names = |key| {
        let names = globals.take(key).map(|(names, _)| names).unwrap_or_default();
        names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let (admins, readers) = (names("admin_users"), names("stats_users"));
    let idle = globals.seconds("client_idle_timeout", 0, notes).unwrap_or(FOR_EVER);
    let connections = globals.whole("max_client_conn", 100, notes).max(1);
    Listener {
        unix_mode,
        keepalive: keepalive(globals, notes),
        bind,
        auth,
        admins,
        readers,
        tls,
        connections,
        counts: counts::usual(globals, connections, notes),
        handshake: globals.seconds("client_login_timeout", 60, notes).unwrap_or(FOR_EVER),
        idle,
        lookup: None,
    }
}

/// After how much silence the kernel asks whether a client lives, if that is said; `None` of that: never.
fn keepalive(globals: &mut Globals, notes: &mut Notes) -> Option<Option<Duration>> {
    let said = globals.line_of("tcp_keepalive").is_some();
    let asks = globals.whole("tcp_keepalive", 1, notes) != 0;
    let idle = globals.line_of("tcp_keepidle").is_some();
    let after = globals.seconds("tcp_keepidle", 0, notes).filter(|_| idle);
    match (asks, after) {
        (false, _) => Some(None),
        (true, Some(after)) => Some(Some(after.max(Duration::from_secs(1)))),
        // What the system has by itself is two hours.
        (true, None) => (said || idle).then_some(Some(Duration::from_secs(7_200))),
    }
}

fn auth(globals: &mut Globals, is_local: bool, asks_certificates: bool, notes: &mut Notes) -> String {
    globals.take("auth_file");
    let (kind, line) = globals.take("auth_type").unwrap_or(("md5".into(), 1));
    match kind.as_str() {
        "scram-sha-256" => "scram",
        "md5" => "md5",
        "trust" if is_local => {
            let what = "auth_type = trust: whoever says a name is believed, whether auth_file has it or not";
            notes.tell(line, what.into());
            "trust"
        }
        "cert" if asks_certificates => "certificate",
        "plain" => {
            notes.tell(
                line,
                "auth_type = plain: passwords are never sent in the clear; \"scram\" is taken".into(),
            );
            "scram"
        }
        "trust" => {
            let what = "auth_type = trust is for clients of this machine alone; \"scram\" is taken";
            notes.tell(line, what.into());
            "scram"
        }
        other => {
            notes.tell(line, format!("auth_type = {other} has no equivalent; \"scram\" is taken"));
            "scram"
        }
    }
    .to_owned()
}

fn usual(globals: &mut Globals, notes: &mut Notes) -> Usual {
    if let Some(line) = globals.line_of("default_pool_size") {
        notes.tell(
            line,
            "default_pool_size counts for each user of a database there, for all of them here".into(),
        );
    }
    let patience = [
        ("query_timeout", "query"),
        ("transaction_timeout", "transaction"),
        ("idle_transaction_timeout", "idle_in_transaction"),
    ];
    let patience = patience.into_iter().filter_map(|(theirs, ours)| {
        globals.line_of(theirs)?;
        Some((ours, globals.seconds(theirs, 0, notes)?))
    });
    let patience = patience.collect();
    let notice = globals.line_of("query_wait_notify");
    let (mode, mode_line) = globals.take("pool_mode").unwrap_or(("session".into(), 1));
    let mode = pool_mode(&mode, mode_line, "session", notes);
    Usual {
        patience,
        notice: notice.map(|_| globals.seconds("query_wait_notify", 5, notes)),
        most: Some(globals.whole("max_db_connections", 0, notes)).filter(|most| *most > 0),
        mode,
        size: globals.whole("default_pool_size", 20, notes).max(1),
        idle: globals.seconds("server_idle_timeout", 600, notes).unwrap_or(FOR_EVER),
        max_age: globals.seconds("server_lifetime", 3_600, notes).unwrap_or(ONCE),
        resets: globals.whole("server_reset_query_always", 0, notes) != 0,
        connect: globals.seconds("server_connect_timeout", 15, notes),
        acquire: globals.seconds("query_wait_timeout", 120, notes).unwrap_or(FOR_EVER),
        tls: ServerTls::of(globals, notes),
    }
}

/// A pool's mode, or `usual` where there is none of that name.
fn pool_mode(text: &str, line: usize, usual: &str, notes: &mut Notes) -> String {
    let mode = text.to_ascii_lowercase();
    if ["session", "transaction", "statement"].contains(&mode.as_str()) {
        return mode;
    }
    notes.tell(line, format!("pool_mode = {text} is none; \"{usual}\" is taken"));
    usual.to_owned()
}

/// A line of `[databases]`: the route that takes its logins, and the upstream that it leads to.
fn database(
    setting: &Setting,
    usual: &Usual,
    others: &[Upstream],
    secrets: &mut Secrets,
    notes: &mut Notes,
) -> Option<(Route, Upstream)> {
    let line = setting.line;
    let Some(pairs) = pairs(&setting.value) else {
        notes.tell(line, format!("\"{}\" is no connect string", setting.value));
        return None;
    };
    let every = setting.key == "*";
    let given =
        |wanted: &str| pairs.iter().rev().find(|(key, _)| key == wanted).map(|(_, value)| value.clone());
    let (host, port) = (given("host"), given("port").unwrap_or_else(|| "5432".into()));
    let endpoints = endpoints(host.as_deref(), &port, line, notes);
    let user = given("user");
    if user.is_none() && given("password").is_some() {
        let name = &setting.key;
        notes.tell(line, format!("password= of database \"{name}\" means nothing without user="));
    }
    let password = given("password").map(Secret::new).or_else(|| secrets.password_of(user.as_deref()?));
    let mode = match given("pool_mode") {
        Some(mode) => pool_mode(&mode, line, &usual.mode, notes),
        None => usual.mode.clone(),
    };
    let mut number = |key: &str| {
        let text = given(key)?;
        let number = text.parse::<u32>().ok();
        if number.is_none() {
            notes.tell(
                line,
                format!("{key}={text} of database \"{}\" is no number, and left out", setting.key),
            );
        }
        number
    };
    let [size, limit, lifetime] = ["pool_size", "max_db_connections", "server_lifetime"].map(&mut number);
    let mut upstream = Upstream {
        name: name(&setting.key, others),
        tls: usual.tls.toml(&endpoints, line, notes),
        endpoints,
        database: given("dbname").filter(|name| every || *name != setting.key),
        password_file: password_file(user.as_deref(), password, line, secrets, notes),
        user,
        mode,
        size: size.filter(|size| *size > 0).unwrap_or(usual.size),
        idle: usual.idle,
        max_age: usual.max_age,
        resets: usual.resets,
        notice: usual.notice,
        connect: usual.connect,
        acquire: usual.acquire,
        patience: usual.patience.clone(),
    };
    if let Some(limit) = limit.or(usual.most).filter(|limit| *limit > 0) {
        upstream.size = upstream.size.min(limit);
    }
    if let Some(seconds) = lifetime {
        upstream.max_age = Duration::from_secs(seconds.into()).max(ONCE);
    }
    tell_the_rest(&pairs, setting, notes);
    let database = (!every).then(|| setting.key.clone());
    Some((Route { database, upstream: upstream.name.clone(), connections: None }, upstream))
}

/// What is carried over of a database's line, here or in a module of its own.
const TAKEN: [&str; 13] = [
    "auth_user",
    "auth_query",
    "auth_dbname",
    "host",
    "port",
    "dbname",
    "user",
    "password",
    "pool_mode",
    "pool_size",
    "max_db_connections",
    "max_db_client_connections",
    "server_lifetime",
];

/// Tells of what is not.
fn tell_the_rest(pairs: &[(String, String)], setting: &Setting, notes: &mut Notes) {
    for (key, value) in pairs.iter().filter(|(key, _)| !TAKEN.contains(&key.as_str())) {
        let what = format!("{key}={value} of database \"{}\": {}", setting.key, why(key));
        notes.tell(setting.line, what);
    }
}

/// What becomes of a key of a database's line that is not carried over.
fn why(key: &str) -> &'static str {
    match key {
        "min_pool_size" => "has no equivalent: connections are opened when they are needed",
        "reserve_pool" | "reserve_pool_size" => {
            "has no equivalent; give more important routes a higher `priority`"
        }
        "connect_query" => "has no equivalent; ALTER DATABASE ... SET does the same for settings",
        "client_encoding" | "datestyle" | "timezone" | "application_name" => {
            "has no equivalent; ALTER DATABASE ... SET does it, where clients set nothing else"
        }
        "load_balance_hosts" => "has no equivalent; see `balance` of the upstream",
        _ => "is not known, neither here nor to PgBouncer 1.25",
    }
}

fn endpoints(host: Option<&str>, port: &str, line: usize, notes: &mut Notes) -> Vec<String> {
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        notes.tell(line, format!("no host: the socket in {SOCKETS} is taken"));
        let port = port.parse().unwrap_or(5_432);
        return vec![format!("unix:{SOCKETS}/.s.PGSQL.{port}")];
    };
    let sound = |port: &&str| port.parse::<u16>().is_ok();
    if let Some(wrong) = port.split(',').map(str::trim).find(|port| !sound(port)) {
        notes.tell(line, format!("port={wrong} is no port; 5432 is taken"));
    }
    let ports = port.split(',').map(str::trim).map(|port| if sound(&port) { port } else { "5432" });
    let mut ports = ports.cycle();
    let mut endpoints: Vec<String> = Vec::new();
    for host in host.split(',').map(str::trim).filter(|host| !host.is_empty()) {
        let port = ports.next().unwrap_or("5432");
        let endpoint = match host {
            folder if folder.starts_with('/') => format!("unix:{folder}/.s.PGSQL.{port}"),
            ip if ip.contains(':') => format!("[{ip}]:{port}"),
            host => format!("{host}:{port}"),
        };
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    endpoints
}

fn password_file(
    user: Option<&str>,
    password: Option<Secret>,
    line: usize,
    secrets: &mut Secrets,
    notes: &mut Notes,
) -> Option<PathBuf> {
    let (user, password) = (user?, password?);
    let kept = secrets.keep(user, password);
    if kept.is_none() {
        let what = format!(
            "the password of \"{user}\" is left out; say --passwords FOLDER, or write it into a file that \
             `password_file` names"
        );
        notes.tell(line, what);
    }
    kept
}

/// A name for the upstream of a database: its own, where that is one.
fn name(database: &str, others: &[Upstream]) -> String {
    let plain: String = database
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' })
        .take(48)
        .collect();
    let plain = plain.trim_start_matches(['-', '_']);
    let plain = if plain.is_empty() { "any" } else { plain };
    let numbered = |at: usize| if at == 1 { plain.to_owned() } else { format!("{plain}-{at}") };
    let free = |name: &String| others.iter().all(|other| other.name != *name);
    (1..).map(numbered).find(free).unwrap_or_default()
}

/// Who may log in, if anybody is asked for a password.
fn users(
    asks: bool,
    passes_through: bool,
    takes_md5: bool,
    secrets: &mut Secrets,
    notes: &mut Notes,
) -> Vec<User> {
    let file = secrets.file().to_owned();
    let mut users = Vec::new();
    for (name, known, line) in secrets.take_users() {
        if !asks {
            continue;
        }
        if !tieline_config::is_name(&name) {
            notes.tell_of(
                &file,
                line,
                format!("user \"{}\": its name cannot be that of a [user.NAME]", name.escape_debug()),
            );
            continue;
        }
        let (verifier, password_file) = match known {
            Known::Verifier(Verifier::Md5(_)) if !takes_md5 => {
                let what = format!(
                    "user \"{name}\" has an MD5 hash, which SCRAM cannot use; `tieline user password` makes \
                     a verifier"
                );
                notes.tell_of(&file, line, what);
                continue;
            }
            Known::Verifier(verifier) => (Some(verifier), None),
            // Servers may want the password itself, where clients log in there as themselves.
            Known::Password(password) if passes_through => match secrets.keep(&name, password.clone()) {
                Some(path) => (None, Some(path)),
                None => {
                    let what = format!(
                        "user \"{name}\": its password is left out, so servers that keep another verifier \
                         than ours refuse it; say --passwords FOLDER"
                    );
                    notes.tell_of(&file, line, what);
                    (
                        Some(passwords::verifier(
                            password.reveal().as_bytes(),
                            passwords::usual_iterations(),
                        )),
                        None,
                    )
                }
            },
            Known::Password(password) => {
                (Some(passwords::verifier(password.reveal().as_bytes(), passwords::usual_iterations())), None)
            }
        };
        users.push(User { name, verifier, password_file, connections: None });
    }
    users
}

/// A time as the config has it; parts below a millisecond are dropped.
pub(super) fn time(time: Duration) -> String {
    format_duration(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)))
}
