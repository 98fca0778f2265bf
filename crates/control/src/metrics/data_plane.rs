//! What the registry and the upstreams have counted.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tieline_base::{Reason, Stage};
use tieline_conn::Server;
use tieline_pool::{EndpointStatus, LoadCounts, Standing, UpstreamStatus};
use tieline_registry::{ListenerRow, MeterReading, Mirrored};

use super::series::Series;

/// Reads the data plane when it is asked to.
pub(super) struct DataPlane {
    server: Arc<Server>,
    shown_bytes: Lock<HashMap<(Box<str>, &'static str), u64>>,
}

/// Held for one scrape, by nobody but scrapes.
#[allow(clippy::disallowed_types)]
type Lock<T> = std::sync::Mutex<T>;

/// What lives at one listener.
#[derive(Clone, Copy, Default)]
struct Living {
    by_stage: [u64; Stage::ALL.len()],
    streams: [u64; Stage::ALL.len()],
    bytes_up: u64,
    bytes_down: u64,
}

impl DataPlane {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self { server, shown_bytes: Lock::default() }
    }
}

impl Collector for DataPlane {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let registry = self.server.registry();
        // The meters first, then the rows: one that ends in between is missing once, but never counted twice.
        let listeners: Vec<(Arc<ListenerRow>, MeterReading)> =
            registry.listeners().into_iter().map(|row| (row.clone(), row.meter.read())).collect();
        let living = self.living();
        let mut series = Series::new(&mut encoder);
        connections(&mut series, &listeners, &living)?;
        exchanges(&mut series, &listeners)?;
        streams(&mut series, &listeners, &living)?;
        self.bytes(&mut series, &listeners, &living)?;
        waits(&mut series, &self.server)?;
        mirrors(&mut series, &self.server)?;
        tallies(&mut series, &self.server)?;
        endpoints(&mut series, &self.server)
    }
}

impl DataPlane {
    fn living(&self) -> BTreeMap<Box<str>, Living> {
        let mut living: BTreeMap<Box<str>, Living> = BTreeMap::new();
        self.server.registry().each_live(|record| {
            let name = &record.listener().name;
            // A row's end is noted before its meter counts it, and so it is in one of the two at the most.
            if record.ended().is_some() {
                return;
            }
            if !living.contains_key(name) {
                living.insert(name.clone(), Living::default());
            }
            if let Some(sum) = living.get_mut(name) {
                if record.parent().is_some() {
                    // Its bytes are counted where they are carried.
                    sum.streams[record.stage() as usize] += 1;
                    return;
                }
                let (up, down) = record.bytes();
                sum.by_stage[record.stage() as usize] += 1;
                sum.bytes_up += up;
                sum.bytes_down += down;
            }
        });
        living
    }

    fn bytes(
        &self,
        series: &mut Series<'_, '_>,
        listeners: &[(Arc<ListenerRow>, MeterReading)],
        living: &BTreeMap<Box<str>, Living>,
    ) -> fmt::Result {
        let mut shown = self.shown_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut family = series.counter("tieline_bytes", "Bytes relayed: up from clients, down to them")?;
        for (row, meter) in listeners {
            let live = living.get(&row.name).copied().unwrap_or_default();
            let directions =
                [("up", meter.bytes_up + live.bytes_up), ("down", meter.bytes_down + live.bytes_down)];
            for (direction, bytes) in directions {
                // A row that was missed just now must not make a counter fall: that would read as a restart.
                let highest = shown.entry((row.name.clone(), direction)).or_default();
                *highest = bytes.max(*highest);
                family.add(&[("listener", &row.name), ("direction", direction)], *highest)?;
            }
        }
        Ok(())
    }
}

/// What the rules of the config have counted.
fn tallies(series: &mut Series<'_, '_>, server: &Server) -> fmt::Result {
    for family in server.registry().tallies().chunk_by(|one, other| one.name == other.name) {
        let mut counters = series.counter(family[0].name, family[0].help)?;
        for tally in family {
            let labels: Vec<_> = tally.labels.iter().map(|(label, value)| (*label, &**value)).collect();
            counters.add(&labels, tally.count())?;
        }
    }
    Ok(())
}

fn mirrors(series: &mut Series<'_, '_>, server: &Server) -> fmt::Result {
    let help = "Copies of requests to be sent to an upstream, by what became of them";
    let mut family = series.counter("tieline_mirrored_requests", help)?;
    for upstream in server.registry().upstreams() {
        let counts = upstream.mirrors();
        // Most upstreams get no copies.
        if counts.iter().all(|count| *count == 0) {
            continue;
        }
        for (outcome, count) in Mirrored::ALL.iter().zip(counts) {
            family.add(&[("upstream", &upstream.name), ("outcome", outcome.as_str())], count)?;
        }
    }
    Ok(())
}

fn connections(
    series: &mut Series<'_, '_>,
    listeners: &[(Arc<ListenerRow>, MeterReading)],
    living: &BTreeMap<Box<str>, Living>,
) -> fmt::Result {
    let mut opened = series.counter("tieline_connections_opened", "Connections accepted")?;
    for (row, meter) in listeners {
        opened.add(&[("listener", &row.name)], meter.opened)?;
    }
    let mut closed = series.counter("tieline_connections_closed", "Connections ended, by the reason why")?;
    for (row, meter) in listeners {
        // All of them, also those that never were: `rate()` needs to see a series at 0 first.
        for (reason, count) in Reason::ALL.iter().zip(&meter.closed) {
            closed.add(&[("listener", &row.name), ("reason", reason.as_str())], *count)?;
        }
    }
    let mut live = series.gauge("tieline_connections", "Live connections, by the stage where they are")?;
    for (row, _) in listeners {
        let by_stage = living.get(&row.name).copied().unwrap_or_default().by_stage;
        for (stage, count) in Stage::ALL.iter().zip(by_stage) {
            live.add(&[("listener", &row.name), ("stage", stage.as_str())], count)?;
        }
    }
    let mut lifetime = series
        .histogram("tieline_connection_duration_seconds", "How long connections lived that have ended")?;
    for (row, meter) in listeners {
        lifetime.add(&[("listener", &row.name)], &meter.lifetime)?;
    }
    Ok(())
}

/// The listeners whose connections carry more than one exchange each.
fn exchanges(series: &mut Series<'_, '_>, listeners: &[(Arc<ListenerRow>, MeterReading)]) -> fmt::Result {
    let many = || listeners.iter().filter(|(row, _)| row.protocol == "http");
    let mut codes =
        series.counter("tieline_exchanges", "Requests that ended, by the class of their status")?;
    for (row, meter) in many() {
        let classes = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
        for (class, count) in classes.iter().zip(meter.exchanges) {
            codes.add(&[("listener", &row.name), ("code", class)], count)?;
        }
    }
    let mut took =
        series.histogram("tieline_exchange_duration_seconds", "How long requests took that ended")?;
    for (row, meter) in many() {
        took.add(&[("listener", &row.name)], &meter.exchange)?;
    }
    Ok(())
}

/// Those connections that carry many exchanges at once, each in a row of its own.
fn streams(
    series: &mut Series<'_, '_>,
    listeners: &[(Arc<ListenerRow>, MeterReading)],
    living: &BTreeMap<Box<str>, Living>,
) -> fmt::Result {
    let many = || listeners.iter().filter(|(row, _)| row.protocol == "http");
    let mut opened =
        series.counter("tieline_streams_opened", "Streams opened inside connections (HTTP/2)")?;
    for (row, meter) in many() {
        opened.add(&[("listener", &row.name)], meter.streams_opened)?;
    }
    let mut live = series.gauge("tieline_streams", "Live streams, by the stage where they are")?;
    for (row, _) in many() {
        let by_stage = living.get(&row.name).copied().unwrap_or_default().streams;
        for (stage, count) in Stage::ALL.iter().zip(by_stage) {
            live.add(&[("listener", &row.name), ("stage", stage.as_str())], count)?;
        }
    }
    Ok(())
}

fn waits(series: &mut Series<'_, '_>, server: &Server) -> fmt::Result {
    let upstreams = server.registry().upstreams();
    let waits: Vec<_> = upstreams.iter().map(|row| (&*row.name, row.waits())).collect();
    let mut acquire = series.histogram(
        "tieline_acquire_duration_seconds",
        "How long connections waited for an upstream connection, queue and every try included",
    )?;
    for (name, (acquired, _)) in &waits {
        acquire.add(&[("upstream", name)], acquired)?;
    }
    let mut connect =
        series.histogram("tieline_connect_duration_seconds", "How long successful connects took")?;
    for (name, (_, connected)) in &waits {
        connect.add(&[("upstream", name)], connected)?;
    }
    Ok(())
}

fn endpoints(series: &mut Series<'_, '_>, server: &Server) -> fmt::Result {
    let snapshot = server.snapshot();
    let statuses: Vec<UpstreamStatus> =
        snapshot.upstreams.values().map(|upstream| upstream.status()).collect();
    let each = || statuses.iter().flat_map(|status| enduring(status).map(move |endpoint| (status, endpoint)));

    let mut up = series.gauge("tieline_endpoint_up", "Whether an endpoint is fit for new connections")?;
    for (status, endpoint) in each() {
        let healthy = u64::from(endpoint.standing == Standing::Healthy);
        up.add(&[("upstream", &status.name), ("endpoint", &endpoint.label)], healthy)?;
    }
    let mut in_flight = series.gauge("tieline_endpoint_in_flight", "Live connections to an endpoint")?;
    for (status, endpoint) in each() {
        in_flight.add(
            &[("upstream", &status.name), ("endpoint", &endpoint.label)],
            u64::from(endpoint.in_flight),
        )?;
    }
    let shared = "Open connections to an endpoint that carry many requests at once, as those of HTTP/2 do";
    let mut trunks = series.gauge("tieline_endpoint_trunks", shared)?;
    for (status, endpoint) in each() {
        let labels = [("upstream", &*status.name), ("endpoint", &*endpoint.label)];
        trunks.add(&labels, endpoint.trunks.open as u64)?;
    }
    let mut streams =
        series.gauge("tieline_endpoint_streams", "Requests that an endpoint's shared connections carry")?;
    for (status, endpoint) in each() {
        let labels = [("upstream", &*status.name), ("endpoint", &*endpoint.label)];
        streams.add(&labels, endpoint.trunks.carried as u64)?;
    }
    let mut connects = series.counter("tieline_endpoint_connects", "Connections made to an endpoint")?;
    for (status, endpoint) in each() {
        connects.add(&[("upstream", &status.name), ("endpoint", &endpoint.label)], endpoint.connects)?;
    }
    let failures = "Failures to connect to an endpoint, and connections that it broke";
    let mut failed = series.counter("tieline_endpoint_connect_failures", failures)?;
    for (status, endpoint) in each() {
        failed.add(&[("upstream", &status.name), ("endpoint", &endpoint.label)], endpoint.failures)?;
    }
    roles(series, &statuses)?;
    let mut waiting =
        series.gauge("tieline_pool_waiting", "Connections that wait for a place at an upstream")?;
    for status in &statuses {
        waiting.add(&[("upstream", &status.name)], status.waiting as u64)?;
    }
    let most =
        "The most places of an upstream that were wanted at once in the last 30 s: taken, and waited for";
    let mut wanted = series.gauge("tieline_pool_wanted", most)?;
    for status in &statuses {
        if let Some(count) = status.wanted {
            wanted.add(&[("upstream", &status.name)], u64::from(count))?;
        }
    }
    load(series, &statuses)
}

/// What the protocols of endpoints find them to be.
fn roles(series: &mut Series<'_, '_>, statuses: &[UpstreamStatus]) -> fmt::Result {
    let each = || statuses.iter().flat_map(|status| enduring(status).map(move |endpoint| (status, endpoint)));
    let mut role =
        series.gauge("tieline_endpoint_role", "What an endpoint is to the others with the same data")?;
    for (status, endpoint) in each() {
        if let Some(is) = endpoint.said.role {
            role.add(&[("upstream", &status.name), ("endpoint", &endpoint.label), ("role", is)], 1u64)?;
        }
    }
    let mut lag = series.gauge("tieline_endpoint_lag_seconds", "How far a replica is behind its primary")?;
    for (status, endpoint) in each() {
        if let Some(behind) = endpoint.said.lag {
            let labels = [("upstream", &*status.name), ("endpoint", &*endpoint.label)];
            lag.add(&labels, behind.as_secs_f64())?;
        }
    }
    Ok(())
}

/// What is done about the load of upstreams.
fn load(series: &mut Series<'_, '_>, statuses: &[UpstreamStatus]) -> fmt::Result {
    let mut idle =
        series.gauge("tieline_endpoint_idle", "Connections to an endpoint that are open and unused")?;
    for (status, endpoint) in statuses.iter().flat_map(|it| enduring(it).map(move |endpoint| (it, endpoint)))
    {
        let labels = [("upstream", &*status.name), ("endpoint", &*endpoint.label)];
        idle.add(&labels, endpoint.idle as u64)?;
    }
    type Count = fn(&LoadCounts) -> u64;
    let counters: [(&str, &str, Count); 6] = [
        ("tieline_retries", "Further tries at another endpoint", |counts| counts.retries),
        ("tieline_retries_denied", "Further tries that the budget did not allow", |counts| {
            counts.retries_denied
        }),
        ("tieline_hedges", "Requests that a second endpoint was asked too", |counts| counts.hedges),
        ("tieline_hedges_won", "Requests that the second endpoint answered first", |counts| {
            counts.hedges_won
        }),
        ("tieline_shed", "Asks refused at once as others were more important", |counts| counts.shed),
        ("tieline_breaker_opened", "Breakers of endpoints that opened", |counts| counts.breaker_opened),
    ];
    for (name, help, count) in counters {
        let mut counter = series.counter(name, help)?;
        for status in statuses {
            counter.add(&[("upstream", &status.name)], count(&status.counts))?;
        }
    }
    let mut limit =
        series.gauge("tieline_concurrency_limit", "Requests that may be in flight, where it is learned")?;
    for status in statuses {
        if let Some(learned) = status.limit {
            limit.add(&[("upstream", &status.name)], u64::from(learned))?;
        }
    }
    Ok(())
}

/// The endpoints of an upstream, each label once: one that left and came back is there twice until the last
/// lease of its former self ends, and a series that is there twice makes Prometheus refuse the whole scrape.
fn enduring(status: &UpstreamStatus) -> impl Iterator<Item = &EndpointStatus> {
    let each = status.endpoints.iter().enumerate();
    let first = |index: usize, label: &str| {
        status.endpoints.iter().position(|other| other.label == label) == Some(index)
    };
    each.filter(move |(index, endpoint)| first(*index, &endpoint.label)).map(|(_, endpoint)| endpoint)
}

impl fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPlane").finish_non_exhaustive()
    }
}
