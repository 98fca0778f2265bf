//! What stands in listeners, routes and upstreams for PostgreSQL alone.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tieline_base::{Address, Bytes};

use crate::bind::BindAddress;
use crate::dues::{self, Due};
use crate::fields::{Fields, Taken};
use crate::files;
use crate::listener::Bind;
use crate::place::{Place, Spot};
use crate::problem::Problems;
use crate::protocol::Protocol;
use crate::route::Draft;
use crate::tls::ListenerTls;
use crate::upstream::Endpoint;
use crate::value::Value;
use crate::words::{Auth, Fallback, PoolMode, PoolReset, ReplicaReads, RouteRole, UpstreamProtocol};

/// The logins that a route takes: all that have one of both.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Logins {
    /// The databases that clients ask for; none: any.
    pub databases: Vec<String>,
    /// The users that they log in as; none: any.
    pub users: Vec<String>,
}

/// How many clients may be logged in at once, where that is said for one user or one route.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Count {
    /// Any number, whatever the listener says.
    Any,
    /// So many.
    Most(u32),
}

impl Count {
    /// What `own` says, or else the listener's `usual`; `None`: any number.
    pub fn or(own: Option<Count>, usual: Option<u32>) -> Option<u32> {
        match own {
            None => usual,
            Some(Count::Any) => None,
            Some(Count::Most(count)) => Some(count),
        }
    }

    pub(crate) fn read(fields: &mut Fields, name: &str) -> Option<Count> {
        Some(match fields.maybe::<Value>(name)? {
            Value::Whole(count) => Count::Most(u32::try_from(count).unwrap_or(u32::MAX)),
            _ => Count::Any,
        })
    }
}

/// How the servers of an upstream are logged in to and shared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostgresServers {
    /// What a server is lent for.
    pub mode: PoolMode,
    /// What is undone between two clients.
    pub reset: PoolReset,
    /// After how long a client that waits is told so; `None`: never.
    pub notice: Option<Duration>,
    /// The database that we ask for; none: the one that the client asks for.
    pub database: Option<String>,
    /// Whom we log in as; none: whom the client logged in as.
    pub user: Option<String>,
    /// The file of that user's password; none: we have no password.
    pub password_file: Option<PathBuf>,
    /// How long their clients may take.
    pub patience: Patience,
    /// How they are told apart.
    pub replicas: Replicas,
    /// What of them is due to whom.
    pub dues: Vec<Due>,
}

/// How servers that hold the same data are told apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replicas {
    /// Whom we log in as to ask; none: as who logs in for clients.
    pub user: Option<String>,
    /// The file of that user's password; none: it has none.
    pub password_file: Option<PathBuf>,
    /// From one question to the next.
    pub every: Duration,
    /// A replica whose data is older serves no reads.
    pub max_lag: Duration,
    /// One that lacks so many bytes of the log serves none either; `None`: no limit.
    pub max_lag_bytes: Option<Bytes>,
    /// What becomes of reads for which no replica is fit.
    pub fallback: Fallback,
}

/// How long clients that hold a server may take; `None`: for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Patience {
    /// For a query, its answer included.
    pub query: Option<Duration>,
    /// For a transaction.
    pub transaction: Option<Duration>,
    /// In the middle of a transaction, without a word.
    pub idle_in_transaction: Option<Duration>,
    /// Beyond it, without a word, because of what they left at the server.
    pub pinned: Option<Duration>,
}

impl Patience {
    /// Reads `timeouts` of an upstream, as far as they are about PostgreSQL alone.
    pub(crate) fn read(timeouts: &mut Fields) -> Self {
        Self {
            query: timeouts.maybe("query"),
            transaction: timeouts.maybe("transaction"),
            idle_in_transaction: timeouts.maybe("idle_in_transaction"),
            pinned: timeouts.maybe("pinned"),
        }
    }
}

/// Where users are looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthQuery {
    /// The upstream that is asked: one of the config's, that names its database and its user.
    pub upstream: String,
    /// What is asked.
    pub query: String,
    /// How long an answer is believed.
    pub ttl: Duration,
    /// Where `upstream` stands.
    pub place: Place,
}

/// Who may use the console. There is one user at least.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Console {
    /// Those who may give orders.
    pub admins: Vec<String>,
    /// Those who may look.
    pub readers: Vec<String>,
}

/// What holds of a pool where nothing is written, because a server is a process with memory of its own, and
/// because sessions are worth keeping.
pub(crate) const POOL_SIZE: u32 = 20;
pub(crate) const POOL_IDLE: Duration = Duration::from_secs(600);
pub(crate) const ACQUIRE: Duration = Duration::from_secs(120);

/// Clients keep connections in pools of their own for as long as they live.
pub(crate) const CLIENT_IDLE: Duration = Duration::from_secs(24 * 3_600);

impl Logins {
    /// Whether it takes every login.
    pub fn is_any(&self) -> bool {
        self.databases.is_empty() && self.users.is_empty()
    }
}

/// The name of a database or a user as PostgreSQL takes it: it cuts off what is longer, and so would let two
/// names be one.
pub(crate) fn sql_name(text: &str) -> Result<String, String> {
    if (1..=63).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.into());
    }
    Err(format!(
        "\"{}\" is no name; a name has 1 to 63 bytes, none of them a control character",
        text.escape_debug()
    ))
}

/// Reads the logins of a route.
pub(crate) fn logins(fields: &mut Fields) -> Logins {
    let mut names = |key| fields.list(key).into_iter().map(|spot: Spot<String>| spot.value).collect();
    Logins { databases: names("database"), users: names("user") }
}

/// Reads what a route leaves to replicas; what means nothing there is told.
pub(crate) fn replica_reads(
    fields: &mut Fields,
    role: Option<RouteRole>,
    problems: &mut Problems,
) -> (ReplicaReads, bool) {
    let (place, own_place) = (fields.place_of("replica_reads"), fields.place_of("read_your_writes"));
    let own_written = fields.has("read_your_writes");
    let reads = fields.word("replica_reads", ReplicaReads::from_word).unwrap_or(ReplicaReads::Off);
    let own_writes = fields.value("read_your_writes");
    if let (true, Some(role @ (RouteRole::Replica | RouteRole::Any))) = (reads != ReplicaReads::Off, role) {
        let message = format!("`replica_reads` means nothing where role = \"{}\" leads", role.as_str());
        problems.error(place, message).hint("leave one of them out");
    }
    if own_written && reads == ReplicaReads::Off {
        let error = problems.error(own_place, "`read_your_writes` means nothing without `replica_reads`");
        error.hint("write replica_reads = \"transactions\"");
    }
    (reads, own_writes)
}

/// Tells of routes that take the same logins: the second would never get one.
pub(crate) fn tell_of_equals(drafts: &[Draft], problems: &mut Problems) {
    let mut takers: HashMap<(Option<&str>, Option<&str>), Place> = HashMap::new();
    for draft in drafts.iter().filter(|draft| draft.match_sound) {
        let (databases, users) = (each(&draft.route.logins.databases), each(&draft.route.logins.users));
        let logins = databases.iter().flat_map(|database| users.iter().map(|user| (*database, *user)));
        let taken = |login| Some((login, takers.get(&login)?));
        if let Some(((database, user), first)) = logins.clone().find_map(taken) {
            let what = match (database, user) {
                (None, None) => "every login".into(),
                (Some(database), None) => format!("logins to database \"{database}\""),
                (None, Some(user)) => format!("logins of user \"{user}\""),
                (Some(database), Some(user)) => {
                    format!("logins of user \"{user}\" to database \"{database}\"")
                }
            };
            let message = format!("the route in line {} takes {what} already", first.line);
            problems.error(draft.route.place, message).hint("tell them apart by `database` or `user`");
        }
        takers.extend(logins.map(|login| (login, draft.route.place)));
    }
}

/// Each of `names`, or one that stands for all where there are none.
fn each(names: &[String]) -> Vec<Option<&str>> {
    if names.is_empty() { vec![None] } else { names.iter().map(|name| Some(name.as_str())).collect() }
}

/// Reads `auth` of a listener; what cannot prove anybody there is told.
pub(crate) fn auth(
    fields: &mut Fields,
    protocol: Option<Protocol>,
    bind: &[Bind],
    tls: Option<&ListenerTls>,
    problems: &mut Problems,
) -> Auth {
    let (place, proxied) = (fields.place_of("auth"), fields.has("trusted"));
    let auth = fields.word("auth", Auth::from_word).unwrap_or(Auth::Scram);
    if protocol != Some(Protocol::Postgres) {
        return auth;
    }
    match auth {
        Auth::Certificate if !asks_for_certificates(tls) => {
            let message = "auth = \"certificate\" needs `client_ca`, which says whose certificates count";
            let hint = "write tls = { certificate = \"db.crt\", key = \"db.key\", client_ca = \"ca.pem\" }";
            problems.error(place, message).hint(hint);
        }
        Auth::Trust => tell_of_trust(place, bind, proxied, problems),
        _ => {}
    }
    auth
}

/// Reads `auth_query`; one that is never asked is told.
pub(crate) fn auth_query(fields: &mut Fields, auth: Auth, problems: &mut Problems) -> Option<AuthQuery> {
    let mut table = fields.table_if_written("auth_query")?;
    let place = table.place();
    let upstream = table.take::<String>("upstream");
    let (query, ttl) = (table.value::<String>("query"), table.value("ttl"));
    table.done();
    if !query.contains("$1") {
        let error = problems.error(place, "`query` does not ask for $1, the name that a client logs in by");
        error.hint("write `WHERE usename = $1`");
    }
    if !matches!(auth, Auth::Scram | Auth::Md5) {
        let message = "`auth_query` is of no use where clients are not asked for a password";
        problems.error(place, message).hint("write auth = \"scram\"");
    }
    let upstream = upstream?;
    Some(AuthQuery { upstream: upstream.value, query, ttl, place: upstream.place })
}

/// Reads `console`; one that would be anybody's is told.
pub(crate) fn console(fields: &mut Fields, auth: Auth, problems: &mut Problems) -> Option<Console> {
    let mut table = fields.table_if_written("console")?;
    let place = table.place();
    let mut names = |key| table.list(key).into_iter().map(|spot: Spot<String>| spot.value).collect();
    let console = Console { admins: names("admin"), readers: names("stats") };
    table.done();
    if console.admins.is_empty() && console.readers.is_empty() {
        problems.error(place, "`console` names nobody").hint("write console = { admin = \"ana\" }");
    } else if auth == Auth::Trust && !console.admins.is_empty() {
        let message = "everybody who reaches this listener may give orders at its console, as auth = \
                       \"trust\" believes them to be who they say";
        problems.warning(place, message).hint("write auth = \"scram\", or name users at `stats` alone");
    }
    Some(console)
}

fn asks_for_certificates(tls: Option<&ListenerTls>) -> bool {
    matches!(tls, Some(ListenerTls::Certificates(all)) if all.iter().any(|one| one.client.is_some()))
}

fn tell_of_trust(place: Place, bind: &[Bind], proxied: bool, problems: &mut Problems) {
    let hint = "write auth = \"scram\" and a [user.NAME] for each of them";
    if let Some(open) = bind.iter().find(|bind| bind.address.is_public()) {
        let message = format!(
            "auth = \"trust\" lets everybody who reaches {} be whoever they say; it is for loopback \
             addresses and unix sockets",
            written(&open.address)
        );
        problems.error(place, message).hint(hint);
    } else if proxied {
        let message = "auth = \"trust\" is for clients of this machine, and a PROXY header names others";
        problems.error(place, message).hint(hint);
    } else {
        let message = "auth = \"trust\" lets every program of this machine be whoever it says";
        problems.warning(place, message).hint(hint);
    }
}

fn written(address: &BindAddress) -> String {
    match address {
        BindAddress::Socket(socket) => socket.to_string(),
        BindAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Reads `protocol` of an upstream.
pub(crate) fn speaks_postgres(fields: &mut Fields) -> bool {
    fields.word("protocol", UpstreamProtocol::from_word) == Some(UpstreamProtocol::Postgres)
}

/// Reads what an upstream says of logins; `None` unless it `speaks_postgres`. `folder` is the config file's.
pub(crate) fn servers(
    fields: &mut Fields,
    (mode, reset, notice, size): (Option<PoolMode>, Option<PoolReset>, Option<Value>, Option<u32>),
    patience: Patience,
    speaks_postgres: bool,
    folder: &Path,
    problems: &mut Problems,
) -> Option<PostgresServers> {
    let database = fields.maybe("database");
    let hint = "write user = \"app\", or the password at [user.NAME]";
    let (user, password_file) = login(fields, hint, folder, problems);
    let (mode, reset) = (mode.unwrap_or(PoolMode::Transaction), reset.unwrap_or(PoolReset::Needed));
    let replicas = replicas(fields.table("replicas"), folder, problems);
    let dues = dues::read(fields, size, problems);
    let notice = match notice {
        Some(Value::Duration(after)) => Some(after),
        _ => None,
    };
    speaks_postgres.then_some(PostgresServers {
        mode,
        reset,
        notice,
        database,
        user,
        password_file,
        patience,
        replicas,
        dues,
    })
}

impl PostgresServers {
    /// Whom we log in as to ask servers what they are; `None` where nobody can ask.
    pub fn asker(&self) -> Option<&str> {
        self.replicas.user.as_deref().or(self.user.as_deref())
    }
}

/// Reads as whom servers are logged in to, and the file of that user's password; `hint` is what to do about
/// one without the other.
fn login(
    fields: &mut Fields,
    hint: &str,
    folder: &Path,
    problems: &mut Problems,
) -> (Option<String>, Option<PathBuf>) {
    let lacks_user = fields.lacks("user");
    let user = fields.maybe("user");
    let password_file = fields.take("password_file").map(|Taken { value, place, .. }| {
        if lacks_user {
            problems
                .error(place, "`password_file` means nothing without `user`, whose password it is")
                .hint(hint);
        }
        files::found("password_file", Spot { value, place }, folder, problems)
    });
    (user, password_file)
}

fn replicas(mut fields: Fields, folder: &Path, problems: &mut Problems) -> Replicas {
    let hint = "write user = \"watcher\" beside it";
    let (user, password_file) = login(&mut fields, hint, folder, problems);
    let replicas = Replicas {
        user,
        password_file,
        max_lag_bytes: fields.maybe("max_lag_bytes"),
        every: fields.value("every"),
        max_lag: fields.value("max_lag"),
        fallback: fields.word("fallback", Fallback::from_word).unwrap_or(Fallback::Primary),
    };
    fields.done();
    replicas
}

/// Whether all of `endpoints` are on this machine.
pub(crate) fn are_here(endpoints: &[Endpoint]) -> bool {
    endpoints.iter().all(|endpoint| match &endpoint.address {
        Address::Socket(socket) => socket.ip().is_loopback() || socket.ip() == Ipv4Addr::LOCALHOST,
        // RFC 6761 §6.3: localhost and the names below it are loopback addresses.
        Address::Name { host, .. } => host == "localhost" || host.ends_with(".localhost"),
        Address::Unix(_) => true,
        Address::Agent(_) | Address::Group(_) => false,
    })
}
