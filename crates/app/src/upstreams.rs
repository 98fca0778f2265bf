//! From an upstream of the config to what the pool and the protocols obey.

use std::num::NonZeroU32;
use std::time::Duration;

use tieline_config as config;
use tieline_http as http;
use tieline_pool::{
    Balance, BreakerSettings, DnsSettings, Due, Dues, EndpointSettings, HealthSettings, HedgeSettings,
    OutlierSettings, PoolSettings, RetrySettings, Settings, Thresholds, Trunking,
};
use tieline_postgres as postgres;
use tieline_transport::DialOptions;
use tieline_wire::greeting::Probe;

/// What the pool obeys; its TLS comes from what was read of the files.
pub(crate) fn settings(upstream: &config::Upstream, dns: &config::Dns) -> Settings {
    let endpoints = upstream.endpoints.iter().map(|endpoint| EndpointSettings {
        address: endpoint.address.clone(),
        weight: NonZeroU32::new(endpoint.weight.into()).unwrap_or(NonZeroU32::MIN),
        tier: endpoint.tier,
        cap: endpoint.connections.and_then(NonZeroU32::new),
    });
    Settings {
        name: upstream.name.clone(),
        endpoints: endpoints.collect(),
        balance: match &upstream.balance {
            config::Balance::PeakEwma => Balance::PeakEwma,
            config::Balance::LeastRequests => Balance::LeastRequests,
            config::Balance::RoundRobin => Balance::RoundRobin,
            config::Balance::Random => Balance::Random,
            config::Balance::Hash(_) => Balance::Hash,
        },
        panic: upstream.panic,
        slow_start: upstream.slow_start,
        health: upstream.health.as_ref().map(|health| HealthSettings {
            probe: probe(&health.check, &upstream.name),
            every: health.every,
            timeout: health.timeout,
            thresholds: Thresholds { rise: at_least_one(health.rise), fall: at_least_one(health.fall) },
        }),
        outlier: Some(OutlierSettings {
            consecutive: at_least_one(upstream.outlier.failures),
            base: upstream.outlier.eject,
            max: upstream.outlier.max,
        }),
        breaker: upstream.breaker.as_ref().map(|breaker| BreakerSettings {
            requests: at_least_one(breaker.requests),
            failures: breaker.failures,
            window: breaker.window,
            open: breaker.open,
            longest: breaker.longest,
        }),
        hedge: upstream
            .hedge
            .as_ref()
            .map(|hedge| HedgeSettings { percentile: hedge.percentile, budget: hedge.budget }),
        adaptive: upstream.adaptive,
        connect: upstream.connect_timeout,
        acquire: upstream.acquire_timeout,
        pool: PoolSettings {
            size: upstream.pool.size.and_then(NonZeroU32::new),
            queue: upstream.pool.queue as usize,
            shed: upstream.pool.shed,
            idle: upstream.pool.idle,
            max_age: Some(upstream.pool.max_age),
        },
        dues: dues(upstream),
        retry: RetrySettings {
            attempts: upstream.retry.attempts,
            connect: upstream.retry.on.contains(&config::RetryOn::Connect),
            budget: upstream.retry.budget,
        },
        dns: DnsSettings { servers: dns.servers.clone(), ttl_min: dns.min_ttl, ttl_max: dns.max_ttl },
        dial: DialOptions { keepalive: Some(UPSTREAM_KEEPALIVE), far: None },
        tls: None,
        trunks: match upstream.http_version {
            config::HttpVersion::One => None,
            config::HttpVersion::Two => Some(Trunking { trunks: &http::Http2, only: true }),
            config::HttpVersion::Auto => Some(Trunking { trunks: &http::Http2, only: false }),
        },
        // Such a server makes a process for each, which is worth nothing before it is logged in to.
        few_at_once: upstream.postgres.is_some(),
    }
}

/// What of its servers is due to whom.
fn dues(upstream: &config::Upstream) -> Dues {
    let mut dues = Dues::default();
    for written in upstream.postgres.iter().flat_map(|servers| &servers.dues) {
        let due = Due { weight: written.weight, floor: written.floor, cap: written.cap };
        if written.users.is_empty() {
            dues.others = due;
        }
        dues.named.extend(written.users.iter().map(|user| (postgres::share_of(user), due)));
    }
    dues
}

/// How long an upstream connection is silent before the kernel asks whether its peer lives: a host that lost
/// its power is noticed in minutes, not after the idle timeout.
const UPSTREAM_KEEPALIVE: Duration = Duration::from_secs(60);

fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

/// How an endpoint is asked whether it is well.
fn probe(check: &config::HealthCheck, upstream: &str) -> Probe {
    match check {
        config::HealthCheck::Tcp => Probe::Tcp,
        config::HealthCheck::Http(path) => Probe::Http { path: path.clone(), host: upstream.into() },
        config::HealthCheck::Grpc(service) => Probe::Grpc { service: service.clone(), host: upstream.into() },
        config::HealthCheck::Postgres => Probe::Postgres,
        config::HealthCheck::Mysql => Probe::MySql,
        config::HealthCheck::Redis => Probe::Redis,
    }
}

/// When a request is sent to another endpoint.
pub(crate) fn retry(upstream: &config::Upstream) -> http::Retry {
    let config::Retry { attempts, on, per_try, .. } = &upstream.retry;
    let statuses = on.iter().filter_map(|on| on.as_str().parse().ok());
    http::Retry {
        attempts: *attempts,
        on_reset: on.contains(&config::RetryOn::Reset),
        on_timeout: on.contains(&config::RetryOn::Timeout),
        on_status: statuses.collect(),
        per_try: *per_try,
        hedged: upstream.hedge.is_some(),
    }
}
