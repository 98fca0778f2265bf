//! The tables that the console shows, from the census.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tieline_base::{ClientAddr, Clock, Moment};
use tieline_pool::Upstream;
use tieline_wire::postgres::startup::Replication;

use super::answer::{Cell, Refused, Row};
use super::columns::Shown;
use super::session::PGBOUNCER;
use super::{Console, NAMES};
use super::{memory, names};
use crate::Postgres;
use crate::census::{
    self, Average, COUNTS, ClientRow, Count, Doing, Pool, ServerRow, Totals, clients, pools, servers,
};
use crate::fair::share_of;
use crate::listening;
use crate::site::{Mode, Target};

/// The rows of `shown`, at the listener called so.
///
/// # Errors
/// The server is not there to tell.
pub(super) fn rows(shown: Shown, console: &Console, listener: &str) -> Result<Vec<Row>, Refused> {
    if let Some(value) = shown.setting() {
        return Ok(vec![vec![Cell::text(value)]]);
    }
    Ok(match shown {
        Shown::Version => {
            let version = console.house.version();
            vec![vec![Cell::text(format!("PgBouncer {PGBOUNCER} (Tieline {version})"))]]
        }
        Shown::Pools => Census::take().pools(),
        Shown::Clients => Census::take().clients(),
        Shown::Servers => Census::take().servers(),
        Shown::Stats => {
            stats(|totals, average| [totals.map(Cell::Number), average.map(Cell::Number)].concat())
        }
        Shown::StatsTotals => stats(|totals, _| totals.map(Cell::Number).to_vec()),
        Shown::StatsAverages => stats(|_, average| average.map(Cell::Number).to_vec()),
        Shown::Totals => totals(),
        Shown::Databases => databases(console)?,
        Shown::Users => users(console)?,
        Shown::Config => {
            let setting = |it: super::Setting| {
                let default = it.default.map_or(Cell::Null, Cell::text);
                // All of them are read from the file, whenever it is read again.
                vec![Cell::text(it.key), Cell::text(it.value), default, Cell::text("yes")]
            };
            console.house.settings(listener).into_iter().map(setting).collect()
        }
        Shown::Lists => lists(console)?,
        Shown::Sockets => sockets(Census::take()),
        Shown::ActiveSockets => sockets(Census::take().active()),
        Shown::DnsHosts => names::hosts(console)?,
        Shown::DnsZones | Shown::Peers | Shown::PeerPools => Vec::new(),
        Shown::Mem => memory::memory(),
        Shown::State => state(),
        Shown::ClientEncoding | Shown::DateStyle | Shown::TimeZone | Shown::StandardStrings => Vec::new(),
    })
}

/// The census of one moment.
struct Census {
    clients: Vec<Arc<ClientRow>>,
    servers: Vec<Arc<ServerRow>>,
    /// Outside of all pools.
    listeners: Vec<Arc<ServerRow>>,
    pools: BTreeMap<u32, Arc<Pool>>,
    now: Moment,
}

/// What the clients of a pool do.
#[derive(Default)]
struct Clients {
    active: u64,
    waiting: u64,
    waited: Duration,
}

/// What its servers do.
#[derive(Default)]
struct Servers {
    active: u64,
    idle: u64,
    being_cancelled: u64,
}

impl Census {
    fn take() -> Self {
        let pools = pools().into_iter().map(|pool| (pool.id, pool)).collect();
        let listeners = census::listeners();
        Self { clients: clients(), servers: servers(), listeners, pools, now: Clock::now() }
    }

    fn pools(&self) -> Vec<Row> {
        let (mut by_clients, mut by_servers) = (BTreeMap::new(), BTreeMap::new());
        for row in &self.clients {
            let clients: &mut Clients = by_clients.entry(row.pool()).or_default();
            match row.doing() {
                (Doing::Waiting, since) => {
                    clients.waiting += 1;
                    clients.waited = clients.waited.max(self.now.since(since));
                }
                // As PgBouncer counts them: who asks for nothing is no less there.
                (Doing::Active | Doing::Idle, _) => clients.active += 1,
            }
        }
        for row in &self.servers {
            let servers: &mut Servers = by_servers.entry(row.pool()).or_default();
            match row.client() {
                _ if row.is_being_cancelled() => servers.being_cancelled += 1,
                0 => servers.idle += 1,
                _ => servers.active += 1,
            }
        }
        let nobody = (Clients::default(), Servers::default());
        let mut pools: Vec<_> = self.pools.values().collect();
        pools.sort_by(|one, other| (&one.database, &one.user).cmp(&(&other.database, &other.user)));
        let row = |pool: &&Arc<Pool>| {
            let clients = by_clients.get(&pool.id).unwrap_or(&nobody.0);
            let servers = by_servers.get(&pool.id).unwrap_or(&nobody.1);
            let Servers { active, idle, being_cancelled } = *servers;
            let numbers = [
                clients.active,
                clients.waiting,
                // At most one request is on its way to each, over a connection of its own.
                being_cancelled,
                0,
                active,
                being_cancelled,
                being_cancelled,
                idle,
                0,
                0,
                pool.signing_in().into(),
                clients.waited.as_secs(),
                clients.waited.subsec_micros().into(),
            ];
            let mut row = vec![Cell::text(&*pool.database), Cell::text(&*pool.user)];
            row.extend(numbers.map(Cell::Number));
            row.extend([mode(pool.mode()), Cell::Null]);
            row
        };
        pools.iter().map(row).collect()
    }

    fn clients(&self) -> Vec<Row> {
        let remotes: BTreeMap<u64, u32> =
            self.servers.iter().map(|server| (server.id, server.process())).collect();
        let row = |client: &Arc<ClientRow>| {
            let (doing, since) = client.doing();
            let waited = if doing == Doing::Waiting { self.now.since(since) } else { Duration::ZERO };
            let peer = match client.record.sender() {
                ClientAddr::Socket(peer) => Some(peer),
                ClientAddr::Unix => None,
            };
            let server = client.server();
            let mut row = vec![
                Cell::text("C"),
                Cell::text(&*client.user),
                Cell::text(&*client.database),
                Cell::text(replication(client)),
                Cell::text(match doing {
                    Doing::Idle => "idle",
                    Doing::Waiting => "waiting",
                    Doing::Active => "active",
                }),
            ];
            row.extend(ends(peer, client.local));
            row.extend([
                Cell::text(time(client.record.opened())),
                Cell::text(time(client.record.moved_at())),
                Cell::Number(waited.as_secs()),
                Cell::Number(waited.subsec_micros().into()),
                Cell::Number(client.record.leaving().is_some().into()),
                Cell::text(format!("C-{}", client.id())),
                link('S', server),
                Cell::Number(remotes.get(&server).copied().unwrap_or(0).into()),
                Cell::text(&*client.tls),
                Cell::text(&*client.application),
                Cell::Number(client.prepared().into()),
                Cell::Number(client.id()),
            ]);
            row
        };
        self.clients.iter().map(row).collect()
    }

    fn servers(&self) -> Vec<Row> {
        let names: BTreeMap<u64, &ClientRow> = self.clients.iter().map(|row| (row.id(), &**row)).collect();
        let row = |server: &Arc<ServerRow>, listens: bool| {
            let pool = self.pools.get(&server.pool());
            let holder = server.client();
            let state = match holder {
                _ if server.is_being_cancelled() => "being_canceled",
                0 if !listens => "idle",
                _ => "active",
            };
            let named = |name: fn(&Pool) -> &str| pool.map_or(Cell::Null, |pool| Cell::text(name(pool)));
            let mut row = vec![
                Cell::text("S"),
                named(|pool| &pool.user),
                named(|pool| &pool.database),
                Cell::text(names.get(&holder).map_or("none", |client| replication(client))),
                Cell::text(state),
            ];
            row.extend(ends(server.remote, server.local));
            row.extend([
                Cell::text(time(server.since)),
                Cell::text(time(server.lent())),
                Cell::Number(0),
                Cell::Number(0),
                Cell::Number(server.is_doomed().into()),
                Cell::text(format!("S-{}", server.id)),
                link('C', holder),
                Cell::Number(server.process().into()),
                Cell::text(if server.is_encrypted { "TLS" } else { "" }),
                match names.get(&holder) {
                    _ if listens => Cell::text(listening::APPLICATION),
                    Some(client) => Cell::text(&*client.application),
                    None => Cell::Null,
                },
                Cell::Number(server.prepared().into()),
                Cell::Number(server.id),
                Cell::text(&*server.endpoint),
            ]);
            row
        };
        let listeners = self.listeners.iter().map(|server| row(server, true));
        self.servers.iter().map(|server| row(server, false)).chain(listeners).collect()
    }
}

/// What `client` replicates, as PgBouncer says it.
fn replication(client: &ClientRow) -> &'static str {
    client.replication.map_or("none", Replication::as_str)
}

impl Census {
    /// Those of it who do something, or wait.
    fn active(mut self) -> Self {
        self.clients.retain(|client| client.doing().0 != Doing::Idle);
        self.servers.retain(|server| server.client() != 0 || server.is_being_cancelled());
        self
    }
}

/// Clients and servers of `census` in one table.
fn sockets(census: Census) -> Vec<Row> {
    let shared = Shown::Clients.columns().len();
    let (mut rows, servers) = (census.clients(), census.servers());
    rows.extend(servers);
    for row in &mut rows {
        row.truncate(shared);
        row.resize(Shown::Sockets.columns().len(), Cell::Number(0));
    }
    rows
}

fn mode(mode: Mode) -> Cell {
    Cell::text(match mode {
        Mode::Session => "session",
        Mode::Transaction => "transaction",
        Mode::Statement => "statement",
    })
}

/// An address and a port of each side.
fn ends(peer: Option<SocketAddr>, local: Option<SocketAddr>) -> [Cell; 4] {
    let address = |end: Option<SocketAddr>| Cell::text(end.map_or("unix".into(), |end| end.ip().to_string()));
    let port = |end: Option<SocketAddr>| Cell::Number(end.map_or(0, |end| end.port().into()));
    [address(peer), port(peer), address(local), port(local)]
}

/// Who is at the other end of a link; PgBouncer has addresses in memory there, and these lead nobody there.
fn link(kind: char, id: u64) -> Cell {
    Cell::text(if id == 0 { String::new() } else { format!("{kind}-{id}") })
}

fn time(moment: Moment) -> String {
    let time = Timestamp::try_from(Clock::wall_of(moment)).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Totals and averages of each database.
fn by_database() -> BTreeMap<Box<str>, (Totals, Average)> {
    let mut all: BTreeMap<Box<str>, (Totals, Average)> = BTreeMap::new();
    for pool in pools() {
        let (totals, average) = (pool.totals(), pool.average());
        let (sum, averages) = all.entry(pool.database.clone()).or_default();
        *averages = averages.and(sum, average, &totals);
        sum.iter_mut().zip(totals).for_each(|(sum, total)| *sum += total);
    }
    all
}

fn stats(cells: impl Fn(Totals, Totals) -> Vec<Cell>) -> Vec<Row> {
    let row = |(database, (totals, average)): (Box<str>, (Totals, Average))| {
        let mut row = vec![Cell::text(database)];
        row.extend(cells(in_microseconds(totals), average.0));
        row
    };
    by_database().into_iter().map(row).collect()
}

/// Times are counted in nanoseconds.
fn in_microseconds(mut totals: Totals) -> Totals {
    for time in [Count::InTransactions, Count::InQueries, Count::Waited] {
        totals[time as usize] /= 1_000;
    }
    totals
}

fn totals() -> Vec<Row> {
    let columns = Shown::Stats.columns();
    let (mut sum, mut averages) = (Totals::default(), Average::default());
    for (totals, average) in by_database().into_values() {
        averages = averages.and(&sum, average, &totals);
        sum.iter_mut().zip(totals).for_each(|(sum, total)| *sum += total);
    }
    let figures = in_microseconds(sum).into_iter().chain(averages.0);
    let names = columns.iter().skip(1).map(|column| column.name);
    names
        .zip(figures)
        .take(2 * COUNTS)
        .map(|(name, figure)| vec![Cell::text(name), Cell::Number(figure)])
        .collect()
}

/// Who was here, and what of the pools is theirs.
fn users(console: &Console) -> Result<Vec<Row>, Refused> {
    let (upstreams, listeners) = (upstreams(console)?, listeners(console)?);
    let mut held: BTreeMap<Box<str>, (u64, u64)> = BTreeMap::new();
    let names: BTreeMap<u32, Arc<Pool>> = pools().into_iter().map(|pool| (pool.id, pool)).collect();
    for pool in names.values() {
        held.entry(pool.user.clone()).or_default();
    }
    for row in clients().iter().filter(|row| !super::is_console(&row.database)) {
        held.entry(row.user.clone()).or_default().1 += 1;
    }
    for row in servers() {
        if let Some(pool) = names.get(&row.pool()) {
            held.entry(pool.user.clone()).or_default().0 += 1;
        }
    }
    let row = |(user, (servers, clients)): (Box<str>, (u64, u64))| {
        let number = Cell::Number;
        let caps = upstreams.iter().filter_map(|upstream| upstream.cap_of(share_of(&user)));
        let cap = caps.min().unwrap_or_default();
        // Of several listeners, the least.
        let seats = listeners.values().filter_map(|postgres| postgres.settings.seats.of(&user)).min();
        vec![
            Cell::text(user),
            Cell::Null,
            Cell::Null,
            Cell::Null,
            number(cap.into()),
            number(servers),
            number(seats.unwrap_or_default().into()),
            number(clients),
        ]
    };
    Ok(held.into_iter().map(row).collect())
}

/// Where the routes of the house lead.
fn upstreams(console: &Console) -> Result<Vec<Arc<Upstream>>, Refused> {
    let server = console.house.server().ok_or_else(|| Refused::new("the server is not ready yet"))?;
    Ok(server.snapshot().upstreams.values().cloned().collect())
}

/// The postgres listeners of the house, each with its protocol.
pub(super) fn listeners(console: &Console) -> Result<BTreeMap<Arc<str>, Arc<Postgres>>, Refused> {
    let server = console.house.server().ok_or_else(|| Refused::new("the server is not ready yet"))?;
    let snapshot = server.snapshot();
    let listeners = snapshot.listeners.iter().filter_map(|(name, listener)| {
        let protocol: Arc<dyn Any + Send + Sync> = listener.protocol.clone();
        Some((name.clone(), protocol.downcast::<Postgres>().ok()?))
    });
    Ok(listeners.collect())
}

fn databases(console: &Console) -> Result<Vec<Row>, Refused> {
    let (halted, census) = (census::halted(), Census::take());
    let of = |id: u32, name: &str| census.pools.get(&id).is_some_and(|pool| *pool.database == *name);
    let row = |name: &str, listener: &str, target: Option<&Target>| {
        let servers = census.servers.iter().filter(|row| of(row.pool(), name)).count() as u64;
        let clients = census.clients.iter().filter(|row| *row.database == *name).count() as u64;
        let upstream = target.and_then(|target| target.route.upstream.as_ref());
        let status = upstream.map(|upstream| upstream.status());
        let endpoint = upstream.and_then(|upstream| upstream.endpoints().into_iter().next());
        let (host, port) = endpoint.map_or((Cell::Null, 0), |it| place(it.label()));
        let wanted = status.as_ref().and_then(|status| status.wanted).unwrap_or_default();
        let size = status.and_then(|status| status.size).map_or(0, |size| u64::from(size.get()));
        let login = target.map(|target| &target.login);
        let own = login.and_then(|login| login.database.as_deref()).unwrap_or(name);
        let user = login.and_then(|login| login.user.as_deref());
        vec![
            Cell::text(name),
            host,
            Cell::Number(port),
            Cell::text(own),
            user.map_or(Cell::Null, Cell::text),
            Cell::Number(size),
            Cell::Number(0),
            Cell::Number(0),
            Cell::Null,
            target.map_or_else(|| mode(Mode::Statement), |target| mode(target.mode)),
            Cell::Null,
            Cell::Number(size),
            Cell::Number(servers),
            Cell::Number(target.and_then(|target| target.clients).unwrap_or_default().into()),
            Cell::Number(clients),
            Cell::Number(halted.is_paused(name).into()),
            Cell::Number(halted.is_disabled(name).into()),
            Cell::text(listener),
            target.map_or(Cell::Null, |target| Cell::text(&*target.route.row.name)),
            Cell::Number(wanted.into()),
        ]
    };
    let mut rows = Vec::new();
    for (listener, postgres) in listeners(console)? {
        // What a route for any database was asked for is known from who came.
        let mut names: Vec<Box<str>> = postgres.site.databases().map(Into::into).collect();
        let asked = census.clients.iter().filter(|row| *row.record.listener().name == *listener);
        names.extend(asked.map(|row| row.database.clone()));
        names.retain(|name| !super::is_console(name));
        names.sort();
        names.dedup();
        for name in names {
            let target = postgres.site.of_database(&name).map(|target| &**target);
            rows.push(row(&name, &listener, target));
        }
        rows.push(row(NAMES[1], &listener, None));
    }
    Ok(rows)
}

/// Host and port of an endpoint, as far as it has any.
fn place(label: &str) -> (Cell, u64) {
    // Behind it stand the addresses that a name stands for.
    let label = label.split_once('@').map_or(label, |(address, _)| address);
    match label.rsplit_once(':') {
        Some((host, port)) if !label.starts_with("unix:") => {
            (Cell::text(host), port.parse().unwrap_or_default())
        }
        _ => (Cell::text(label), 0),
    }
}

fn lists(console: &Console) -> Result<Vec<Row>, Refused> {
    let census = Census::take();
    let (mut databases, mut users) =
        (self::databases(console)?.len() as u64, self::users(console)?.len() as u64);
    databases = databases.max(1);
    users = users.max(1);
    let free = census.servers.iter().filter(|row| row.client() == 0).count() as u64;
    let server = console.house.server().ok_or_else(|| Refused::new("the server is not ready yet"))?;
    let mut names = 0;
    for upstream in server.snapshot().upstreams.values() {
        names += upstream.status().names.len() as u64;
    }
    let rows = [
        ("databases", databases),
        ("users", users),
        ("peers", 0),
        ("pools", census.pools.len() as u64),
        ("peer_pools", 0),
        ("free_clients", 0),
        ("used_clients", census.clients.len() as u64),
        ("login_clients", crate::login::logging_in()),
        ("free_servers", free),
        ("used_servers", census.servers.len() as u64 - free),
        ("dns_names", names),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ];
    Ok(rows.into_iter().map(|(name, count)| vec![Cell::text(name), Cell::Number(count)]).collect())
}

fn state() -> Vec<Row> {
    let halted = census::halted();
    let word = |is: bool| Cell::text(if is { "yes" } else { "no" });
    let all = halted.is_all();
    vec![
        vec![Cell::text("active"), word(!all)],
        vec![Cell::text("paused"), word(all)],
        vec![Cell::text("suspended"), word(false)],
    ]
}
