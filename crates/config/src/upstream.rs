//! `[upstream.NAME]` as it is obeyed.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use tieline_base::{Address, Percent};

use crate::endpoint_url::{self, Dialed, Scheme};
use crate::fields::{Confined, Fields, Taken};
use crate::hash_by::HashBy;
use crate::place::{Place, Spot};
use crate::postgres::{self, PostgresServers};
use crate::problem::Problems;
use crate::tls::{self, UpstreamTls};
use crate::value::Value;
use crate::words::{
    BalanceWord, ConcurrencyWord, HttpVersion, PoolMode, PoolReset, ProxyProtocolOut, RetryOn, Role,
};

/// A set of endpoints that do the same work.
#[derive(Clone, PartialEq, Debug)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// Its members; one at least, all of different addresses.
    pub endpoints: Vec<Endpoint>,
    /// How one of them is chosen.
    pub balance: Balance,
    /// How they are asked whether they are well; `None`: they are not asked.
    pub health: Option<Health>,
    /// For connecting, all tries together.
    pub connect_timeout: Duration,
    /// For waiting until an endpoint has room.
    pub acquire_timeout: Duration,
    /// From the end of an HTTP request until its answer begins.
    pub first_byte_timeout: Duration,
    /// Between two pieces of an HTTP answer.
    pub gap_timeout: Duration,
    /// How many connections there may be.
    pub pool: Pool,
    /// When another endpoint is tried.
    pub retry: Retry,
    /// When a failing endpoint is left out.
    pub outlier: Outlier,
    /// When an endpoint of which too much fails is asked nothing; `None`: never.
    pub breaker: Option<Breaker>,
    /// When a second endpoint is asked too; `None`: never.
    pub hedge: Option<Hedge>,
    /// Whether how much may be in flight is learned.
    pub adaptive: bool,
    /// An endpoint that came up gets its full share only after so long.
    pub slow_start: Duration,
    /// When fewer endpoints than this are up, all are used.
    pub panic: Percent,
    /// The header that tells endpoints who the client is.
    pub proxy_protocol: ProxyProtocolOut,
    /// The version of HTTP that they are spoken to in.
    pub http_version: HttpVersion,
    /// How they are spoken to by TLS; none: without.
    pub tls: Option<UpstreamTls>,
    /// How its servers are logged in to, if they speak PostgreSQL.
    pub postgres: Option<PostgresServers>,
}

/// One member of an upstream.
#[derive(Clone, PartialEq, Debug)]
pub struct Endpoint {
    /// Whom to connect to; never port 0.
    pub address: Address,
    /// Where it stands.
    pub place: Place,
    /// Its share of the load: 1 to 1000.
    pub weight: u16,
    /// When it is used: 1 first, 8 last.
    pub tier: u8,
    /// How many connections it may be given at once; `None`: no limit.
    pub connections: Option<u32>,
    /// What a server of PostgreSQL is to the others.
    pub role: Role,
}

/// How an endpoint is chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Balance {
    /// The faster of two random ones.
    PeakEwma,
    /// The one with the fewest live connections for its weight.
    LeastRequests,
    /// Each in turn.
    RoundRobin,
    /// Any.
    Random,
    /// The same for the same client.
    Hash(HashBy),
}

/// How endpoints are asked whether they are well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// By what.
    pub check: HealthCheck,
    /// From one check to the next; at least 100 ms.
    pub every: Duration,
    /// For one check.
    pub timeout: Duration,
    /// So many good ones in a row, and one that was down is up; at least 1.
    pub rise: u32,
    /// So many bad ones in a row, and one that was up is down; at least 1.
    pub fall: u32,
}

/// By what an endpoint is judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HealthCheck {
    /// A TCP connection that succeeds.
    Tcp,
    /// An HTTP request for this path.
    Http(String),
    /// The health service of gRPC, asked for this service; empty for all.
    Grpc(String),
    /// The greeting of PostgreSQL.
    Postgres,
    /// The greeting of MySQL.
    Mysql,
    /// The answer of Redis to PING.
    Redis,
}

/// How many connections an upstream may be given, and how many clients may wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// All endpoints together, at once; `None`: no limit.
    pub size: Option<u32>,
    /// How many clients may wait for room.
    pub queue: u32,
    /// When the least important are refused at once: the mean wait; `None`: never.
    pub shed: Option<Duration>,
    /// One that was not used for so long is closed.
    pub idle: Duration,
    /// One that lived for so long is not used again. Users add their jitter.
    pub max_age: Duration,
}

/// When another endpoint is tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Retry {
    /// How many more after the first: 0 to 10.
    pub attempts: u32,
    /// After what.
    pub on: Vec<RetryOn>,
    /// After so long without an answer; `None`: only when the whole time is over.
    pub per_try: Option<Duration>,
    /// How many tries more at all, as a share of first tries.
    pub budget: Percent,
}

/// When the breaker of an endpoint opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Breaker {
    /// After so many requests; at least 1.
    pub requests: u32,
    /// Of which so many failed; at least 1 %.
    pub failures: Percent,
    /// Within so long.
    pub window: Duration,
    /// For so long, the first time.
    pub open: Duration,
    /// For so long at most; no less than that.
    pub longest: Duration,
}

/// When a second endpoint is asked too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hedge {
    /// When it takes longer than so many of each hundred: 50 to 99.
    pub percentile: u8,
    /// For so many of each hundred at most.
    pub budget: Percent,
}

/// When an endpoint whose connections fail is left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outlier {
    /// After so many failures in a row; at least 1.
    pub failures: u32,
    /// For so long, the first time.
    pub eject: Duration,
    /// How many may be left out at once, as a share of all.
    pub max: Percent,
}

/// What holds where nothing is written.
const ACQUIRE: Duration = Duration::from_secs(5);
const POOL_IDLE: Duration = Duration::from_secs(60);

/// An upstream as it stands in the file: it has not met the listeners that lead to it.
pub(crate) struct UpstreamDraft {
    pub(crate) upstream: Upstream,
    /// The keys that say something to some protocols alone.
    pub(crate) confined: Vec<Confined>,
}

/// Reads one upstream. `folder` is the config file's.
pub(crate) fn read(
    name: Spot<String>,
    mut fields: Fields,
    folder: &Path,
    problems: &mut Problems,
) -> UpstreamDraft {
    let place = name.place;
    let confined = fields.confined();
    let speaks_postgres = postgres::speaks_postgres(&mut fields);
    let mut pool = fields.table("pool");
    let shed_place = pool.place_of("shed");
    let (mode, reset) = (pool.word("mode", PoolMode::from_word), pool.word("reset", PoolReset::from_word));
    let notice = pool.maybe("notice");
    let pool = self::pool(pool, speaks_postgres);
    let mut timeouts = fields.table("timeouts");
    let patience = postgres::Patience::read(&mut timeouts);
    let (endpoints, schemes) = endpoints(&mut fields, pool.size, problems);
    let scheme = endpoint_url::scheme_of(&schemes, speaks_postgres, problems);
    // Passwords and data leave this machine: nobody in between may read them, or pose as the server.
    let leaves = speaks_postgres && !postgres::are_here(&endpoints);
    let usual_tls = (leaves || scheme == Some(Scheme::Https)).then_some(UpstreamTls::VERIFY_FULL);
    let (tls_written, tls_place) = (fields.has("tls"), fields.place_of("tls"));
    let tls = tls::of_upstream(&mut fields, &endpoints, usual_tls, folder, problems);
    if let Some(scheme) = scheme.filter(|scheme| tls_written && tls.is_some() != (*scheme == Scheme::Https)) {
        let message = format!("`tls` says otherwise than \"{}\" before the endpoints", scheme.prefix());
        problems.error(tls_place, message).hint("leave one of them out");
    }
    let lent = (mode, reset, notice, pool.size);
    let postgres = postgres::servers(&mut fields, lent, patience, speaks_postgres, folder, problems);
    let usual_acquire = if speaks_postgres { postgres::ACQUIRE } else { ACQUIRE };
    let http_version = http_version(&mut fields, tls.is_some(), problems);
    let upstream = Upstream {
        name: name.value,
        place,
        endpoints,
        balance: balance(&mut fields, problems),
        health: fields
            .table_if_written("health")
            .and_then(|health| self::health(health, http_version, problems)),
        connect_timeout: timeouts.value("connect"),
        acquire_timeout: timeouts.maybe("acquire").unwrap_or(usual_acquire),
        first_byte_timeout: timeouts.value("first_byte"),
        gap_timeout: timeouts.value("gap"),
        pool,
        retry: retry(fields.table("retry"), problems),
        outlier: outlier(fields.table("outlier")),
        breaker: fields.table_if_written("breaker").map(|breaker| self::breaker(breaker, problems)),
        hedge: fields.table_if_written("hedge").map(hedge),
        adaptive: fields.word("concurrency", ConcurrencyWord::from_word) == Some(ConcurrencyWord::Adaptive),
        slow_start: fields.value("slow_start"),
        panic: fields.value("panic"),
        proxy_protocol: fields
            .word("proxy_protocol", ProxyProtocolOut::from_word)
            .unwrap_or(ProxyProtocolOut::Off),
        http_version,
        tls,
        postgres,
    };
    timeouts.done();
    fields.done();
    let capped = upstream.pool.size.is_some() || upstream.endpoints.iter().any(|e| e.connections.is_some());
    if upstream.pool.shed.is_some() && !capped && !upstream.adaptive {
        let message = "`shed` means nothing where nobody waits: there is no limit to be waited for";
        let hint = "add a `size`, `connections` of endpoints, or concurrency = \"adaptive\"";
        problems.error(shed_place, message).hint(hint);
    }
    UpstreamDraft { upstream, confined }
}

/// An endpoint's address, where it stands, and what stands before it.
type Spelled = (Address, Place, Option<Scheme>);

fn endpoints(
    fields: &mut Fields,
    size: Option<u32>,
    problems: &mut Problems,
) -> (Vec<Endpoint>, Vec<Spelled>) {
    let items: Vec<Spot<Value>> = fields.value("endpoints");
    let endpoints: Vec<_> = items.into_iter().filter_map(|item| endpoint(item, size, problems)).collect();
    let spelled = |(endpoint, scheme): &(Endpoint, _)| (endpoint.address.clone(), endpoint.place, *scheme);
    let schemes = endpoints.iter().map(spelled).collect();
    let endpoints: Vec<Endpoint> = endpoints.into_iter().map(|(endpoint, _)| endpoint).collect();
    let mut seen = HashMap::new();
    for endpoint in &endpoints {
        if let Some(first) = seen.insert(&endpoint.address, endpoint.place) {
            let first: Place = first;
            let message =
                format!("endpoint \"{}\" is listed twice, first in line {}", endpoint.address, first.line);
            problems.error(endpoint.place, message).hint("give one of them a `weight` instead");
        }
    }
    (endpoints, schemes)
}

fn endpoint(
    item: Spot<Value>,
    size: Option<u32>,
    problems: &mut Problems,
) -> Option<(Endpoint, Option<Scheme>)> {
    let mut fields = match item.value {
        Value::Dialed(Dialed { address, scheme }) => {
            let place = item.place;
            let (weight, tier, connections, role) = (1, 1, None, Role::Auto);
            return Some((Endpoint { address, place, weight, tier, connections, role }, scheme));
        }
        Value::Table(fields) => fields,
        _ => return None,
    };
    let connections_place = fields.place_of("connections");
    let dialed = fields.take::<Dialed>("address");
    let (weight, tier) = (fields.whole("weight").unwrap_or(1), fields.whole("tier").unwrap_or(1));
    let connections = fields.whole("connections");
    let role = fields.word("role", Role::from_word).unwrap_or(Role::Auto);
    fields.done();
    if let (Some(connections), Some(size)) = (connections, size)
        && connections > size
    {
        let message =
            format!("`connections` = {connections} is more than the `size` = {size} of the whole pool");
        problems.error(connections_place, message);
    }
    let Taken { value: Dialed { address, scheme }, place, .. } = dialed?;
    Some((Endpoint { address, place, weight, tier, connections, role }, scheme))
}

fn http_version(fields: &mut Fields, tls: bool, problems: &mut Problems) -> HttpVersion {
    let place = fields.place_of("http_version");
    let version = fields.word("http_version", HttpVersion::from_word).unwrap_or(HttpVersion::One);
    if version == HttpVersion::Auto && !tls {
        problems
            .error(
                place,
                "http_version = \"auto\" is agreed on by TLS, and the endpoints are spoken to without",
            )
            .hint("write http_version = \"2\" if all of them speak it, or add `tls`");
    }
    version
}

fn balance(fields: &mut Fields, problems: &mut Problems) -> Balance {
    let word = fields.word("balance", BalanceWord::from_word);
    let (place, hash_written) = (fields.place_of("hash_by"), fields.has("hash_by"));
    let hash_by = fields.value("hash_by");
    if hash_written && word.is_some_and(|word| word != BalanceWord::Hash) {
        problems.error(place, "`hash_by` means nothing without balance = \"hash\"");
    }
    match word {
        Some(BalanceWord::PeakEwma) | None => Balance::PeakEwma,
        Some(BalanceWord::LeastRequests) => Balance::LeastRequests,
        Some(BalanceWord::RoundRobin) => Balance::RoundRobin,
        Some(BalanceWord::Random) => Balance::Random,
        Some(BalanceWord::Hash) => Balance::Hash(hash_by),
    }
}

fn health(mut fields: Fields, version: HttpVersion, problems: &mut Problems) -> Option<Health> {
    let place = fields.place();
    let sound = fields.is_sound();
    let mut checks = Vec::new();
    for (name, check) in [
        ("tcp", HealthCheck::Tcp),
        ("postgres", HealthCheck::Postgres),
        ("mysql", HealthCheck::Mysql),
        ("redis", HealthCheck::Redis),
    ] {
        if fields.maybe(name) == Some(true) {
            checks.push((name, check));
        }
    }
    checks.extend(fields.maybe("http").map(|path| ("http", HealthCheck::Http(path))));
    checks.extend(fields.take::<String>("grpc").map(|service| {
        if version == HttpVersion::One {
            problems
                .error(service.place, "`grpc` is asked over HTTP/2, and http_version is \"1.1\"")
                .hint("write http_version = \"2\" in the upstream");
        }
        ("grpc", HealthCheck::Grpc(service.value))
    }));
    let (every, timeout) = (fields.value("every"), fields.value("timeout"));
    let (rise, fall) = (fields.whole("rise").unwrap_or(1), fields.whole("fall").unwrap_or(1));
    fields.done();
    if checks.len() > 1 {
        let names: Vec<_> = checks.iter().map(|(name, _)| format!("`{name}`")).collect();
        problems
            .error(place, format!("`health` asks in {} ways: {}", checks.len(), names.join(", ")))
            .hint("choose one");
    }
    if checks.is_empty() && sound {
        let error = problems.error(place, "`health` does not say how to ask");
        error.hint(
            "add one of tcp = true, http = \"/healthz\", grpc = \"\", postgres = true, mysql = true, \
             redis = true",
        );
    }
    let (_, check) = checks.into_iter().next()?;
    Some(Health { check, every, timeout, rise, fall })
}

fn pool(mut fields: Fields, speaks_postgres: bool) -> Pool {
    let usual_size = speaks_postgres.then_some(postgres::POOL_SIZE);
    let usual_idle = if speaks_postgres { postgres::POOL_IDLE } else { POOL_IDLE };
    let pool = Pool {
        size: fields.whole("size").or(usual_size),
        queue: fields.whole("queue").unwrap_or(0),
        shed: fields.maybe("shed"),
        idle: fields.maybe("idle").unwrap_or(usual_idle),
        max_age: fields.value("max_age"),
    };
    fields.done();
    pool
}

fn retry(mut fields: Fields, problems: &mut Problems) -> Retry {
    let per_try_place = fields.place_of("per_try");
    let on = match fields.take::<Vec<Spot<Value>>>("on") {
        None => vec![RetryOn::Connect, RetryOn::Reset],
        Some(written) => written.value.into_iter().filter_map(|item| retry_on(&item.value)).collect(),
    };
    let per_try = fields.maybe("per_try");
    let attempts = fields.whole("attempts").unwrap_or(0);
    if per_try.is_some() && attempts == 0 {
        problems.error(per_try_place, "`per_try` means nothing beside attempts = 0");
    }
    let retry = Retry { attempts, on, per_try, budget: fields.value("budget") };
    fields.done();
    retry
}

fn retry_on(value: &Value) -> Option<RetryOn> {
    match value {
        Value::Word(word) => RetryOn::from_word(word),
        _ => None,
    }
}

fn breaker(mut fields: Fields, problems: &mut Problems) -> Breaker {
    let (failures_place, longest_place) = (fields.place_of("failures"), fields.place_of("longest"));
    let breaker = Breaker {
        requests: fields.whole("requests").unwrap_or(1),
        failures: fields.value("failures"),
        window: fields.value("window"),
        open: fields.value("open"),
        longest: fields.value("longest"),
    };
    fields.done();
    if breaker.failures.0 == 0 {
        let error = problems.error(failures_place, "`failures` = 0% would open the breaker for good");
        error.hint("leave `breaker` out to have none");
    }
    if breaker.longest < breaker.open {
        problems.error(longest_place, "`longest` is shorter than `open`");
    }
    breaker
}

fn hedge(mut fields: Fields) -> Hedge {
    let hedge =
        Hedge { percentile: fields.whole("percentile").unwrap_or(95), budget: fields.value("budget") };
    fields.done();
    hedge
}

fn outlier(mut fields: Fields) -> Outlier {
    let outlier = Outlier {
        failures: fields.whole("failures").unwrap_or(1),
        eject: fields.value("eject"),
        max: fields.value("max"),
    };
    fields.done();
    outlier
}
