//! From listeners and upstreams of PostgreSQL to what its protocol obeys.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tieline_config as config;
use tieline_pool::Upstream;
use tieline_postgres::{
    Auth, Console, Encryption, Front, Lookup, LookupSettings, Match, Mode, Patience, Postgres, ReplicaReads,
    ServerLogin, Settings, Site, Target, UserSeats, Users, Wants,
};
use tokio::sync::Semaphore;

use crate::clusters::Clusters;
use crate::desk::Desk;
use crate::site::Ways;
use crate::trust::Trust;

/// How many clients may be logging in at a listener at once: what they cost before anything is known of them
/// is bounded by it.
const LOGINS_MAX: usize = 2_000;

/// What outlives configs: the seats of those who log in, by listener, and what is known of servers.
#[derive(Default)]
pub(crate) struct Seats {
    by_listener: HashMap<String, Arc<Semaphore>>,
    /// What was looked up, by listener.
    lookups: HashMap<String, Arc<Lookup>>,
    /// Where consoles ask.
    pub(crate) desk: Arc<Desk>,
    /// What is known of the servers of each upstream.
    pub(crate) clusters: Clusters,
}

impl Seats {
    fn of(&mut self, listener: &str) -> Arc<Semaphore> {
        let new = || Arc::new(Semaphore::new(LOGINS_MAX));
        self.by_listener.entry(listener.to_owned()).or_insert_with(new).clone()
    }
}

/// The protocol at `listener`.
pub(crate) fn postgres(
    listener: &config::Listener,
    routes: Vec<Ways<'_>>,
    live: &config::Live,
    trust: &Trust,
    seats: &mut Seats,
    upstreams: &Upstreams,
) -> Postgres {
    let front = Front {
        auth: match listener.auth {
            config::Auth::Scram => Auth::Scram,
            config::Auth::Md5 => Auth::Md5,
            config::Auth::Certificate => Auth::Certificate,
            config::Auth::Trust => Auth::Trust,
        },
        users: trust.users(),
        lookup: lookup(listener, live, trust, seats, upstreams),
        tls: trust.listener(&listener.name),
        tls_required: listener.tls_required,
        handshake: listener.timeouts.handshake,
        seats: seats.of(&listener.name),
    };
    let targets = routes.into_iter().filter_map(|ways| {
        let clients = config::Count::or(ways.written.connections, listener.limits.per_database);
        target(ways, clients, live, trust, &seats.clusters)
    });
    let named = |users: &[String]| users.iter().map(|user| user.as_str().into()).collect();
    let console = listener.console.as_ref();
    let console = console.map(|it| Console::new(named(&it.admins), named(&it.readers), seats.desk.clone()));
    let site = Site::new(targets.collect());
    let settings =
        Settings { front, seats: user_seats(listener, live), idle: listener.timeouts.idle, console };
    Postgres::new(site, settings)
}

/// How many clients may be logged in at `listener` as each user.
fn user_seats(listener: &config::Listener, live: &config::Live) -> UserSeats {
    let each = listener.limits.per_user;
    let named = live.users.iter().filter(|user| user.connections.is_some());
    let named = named.map(|user| (user.name.as_str().into(), config::Count::or(user.connections, each)));
    UserSeats { each, named: Arc::new(named.collect()) }
}

/// All upstreams, by name.
pub(crate) type Upstreams = BTreeMap<Arc<str>, Arc<Upstream>>;

/// Where users are looked up that the config does not name.
fn lookup(
    listener: &config::Listener,
    live: &config::Live,
    trust: &Trust,
    seats: &mut Seats,
    upstreams: &Upstreams,
) -> Option<Arc<Lookup>> {
    let before = seats.lookups.remove(&listener.name);
    let asked = listener.auth_query.as_ref()?;
    let described = live.upstream(&asked.upstream)?;
    let settings = LookupSettings {
        upstream: upstreams.get(asked.upstream.as_str())?.clone(),
        login: login(described, described.postgres.as_ref()?, trust),
        query: asked.query.as_str().into(),
        ttl: asked.ttl,
        connect: described.connect_timeout,
    };
    let lookup = Lookup::new(settings, before.as_ref())?;
    seats.lookups.insert(listener.name.clone(), lookup.clone());
    Some(lookup)
}

fn target(
    ways: Ways<'_>,
    clients: Option<u32>,
    live: &config::Live,
    trust: &Trust,
    clusters: &Clusters,
) -> Option<(Match, Arc<Target>)> {
    let Ways { written, shares, .. } = ways;
    // `check` has seen to it that there is one, and that it speaks PostgreSQL.
    let (_, route) = shares.into_iter().next()?;
    let upstream = live.upstream(written.upstreams().next()?)?;
    let servers = upstream.postgres.as_ref()?;
    let names = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
    let wanted = Match { databases: names(&written.logins.databases), users: names(&written.logins.users) };
    let target = Target {
        route,
        mode: match servers.mode {
            config::PoolMode::Session => Mode::Session,
            config::PoolMode::Transaction => Mode::Transaction,
            config::PoolMode::Statement => Mode::Statement,
        },
        resets: servers.reset == config::PoolReset::Always,
        wants: match written.role {
            None | Some(config::RouteRole::Primary) => Wants::Primary,
            Some(config::RouteRole::Replica) => Wants::Replica,
            Some(config::RouteRole::Any) => Wants::Any,
        },
        reads: match written.replica_reads {
            config::ReplicaReads::Off => None,
            reads => Some(ReplicaReads {
                statements: reads == config::ReplicaReads::Statements,
                own_writes: written.read_your_writes,
            }),
        },
        replication: written.replication,
        cluster: clusters.of(&upstream.name),
        login: login(upstream, servers, trust),
        clients,
        acquire: upstream.acquire_timeout,
        notice: servers.notice,
        connect: upstream.connect_timeout,
        patience: Patience {
            query: servers.patience.query,
            transaction: servers.patience.transaction,
            idle_in_transaction: servers.patience.idle_in_transaction,
            pinned: servers.patience.pinned,
        },
    };
    Some((wanted, Arc::new(target)))
}

/// As whom the servers of `upstream` are logged in to.
pub(crate) fn login(
    upstream: &config::Upstream,
    servers: &config::PostgresServers,
    trust: &Trust,
) -> ServerLogin {
    ServerLogin {
        database: servers.database.as_deref().map(Into::into),
        user: servers.user.as_deref().map(Into::into),
        password: servers.password_file.as_deref().and_then(|path| trust.password(path)),
        tls: encryption(upstream, trust),
    }
}

/// How they are spoken to under TLS.
fn encryption(upstream: &config::Upstream, trust: &Trust) -> Option<Encryption> {
    let direct = upstream.tls.as_ref().is_some_and(|tls| tls.direct);
    trust.upstream(&upstream.name).map(|tls| Encryption { tls, direct })
}

/// Nobody, until a config names somebody.
pub(crate) fn nobody() -> Arc<Users> {
    Arc::new(Users::new(HashMap::new(), &[0; 32]))
}
