//! One name's addresses, asked for again as their records run out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RecordType;
use tieline_base::Address;
use tokio::time::sleep;

use crate::name::{Answer, v4_of, v6_of};
use crate::retry::backoff;
use crate::settings::DnsSettings;
use crate::upstream::Upstream;

/// The first wait after a failure, beside `ttl_min`; it doubles up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How long one of the configured servers may take for an answer; `resolv.conf` says it for the system's.
const PATIENCE: Duration = Duration::from_secs(2);

/// Follows the addresses of `address` for ever.
pub(super) async fn follow(upstream: Arc<Upstream>, address: Address, settings: Arc<DnsSettings>) {
    let Address::Name { host, .. } = &address else { return };
    let mut failures = 0;
    loop {
        let answer = resolve(host, &settings).await;
        failures = if answer.error().is_some() { failures + 1 } else { 0 };
        let pause = match answer.ttl {
            Some(ttl) if failures == 0 => ttl.clamp(settings.ttl_min, settings.ttl_max.max(settings.ttl_min)),
            _ => settings.ttl_min + backoff(failures, RETRY, RETRY_MAX, fastrand::u64(..)),
        };
        upstream.resolved(&address, answer);
        sleep(pause).await;
    }
}

/// Asks for both families at once. The resolver is made anew each time, so that it caches nothing and obeys a
/// changed hosts file or `resolv.conf`; names are asked for too seldom for this to cost anything.
async fn resolve(host: &str, settings: &DnsSettings) -> Answer {
    let resolver = match resolver(settings) {
        Ok(resolver) => resolver,
        Err(error) => return Answer { v6: Err(error.to_string()), v4: Err(error.to_string()), ttl: None },
    };
    let (v6, v4) =
        tokio::join!(family(&resolver, host, RecordType::AAAA), family(&resolver, host, RecordType::A));
    let ttl = [&v6, &v4].into_iter().flatten().filter_map(|(_, ttl)| *ttl).min();
    let v6 = v6.map(|(ips, _)| ips.into_iter().filter_map(v6_of).collect());
    let v4 = v4.map(|(ips, _)| ips.into_iter().filter_map(v4_of).collect());
    Answer { v6, v4, ttl }
}

fn resolver(settings: &DnsSettings) -> Result<TokioResolver, NetError> {
    let provider = TokioRuntimeProvider::default;
    let builder = if settings.servers.is_empty() {
        // Without a `resolv.conf` the hosts file and `localhost` still work.
        TokioResolver::builder_tokio()
            .unwrap_or_else(|_| TokioResolver::builder_with_config(asking(&[]), provider()))
    } else {
        let mut builder = TokioResolver::builder_with_config(asking(&settings.servers), provider());
        builder.options_mut().timeout = PATIENCE;
        builder
    };
    builder.build()
}

fn asking(servers: &[SocketAddr]) -> ResolverConfig {
    let at = |mut connection: ConnectionConfig, port| {
        connection.port = port;
        connection
    };
    let server = |server: &SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()]
            .map(|connection| at(connection, server.port()));
        NameServerConfig::new(server.ip(), true, connections.into())
    };
    ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect())
}

/// The addresses of one family, and how long the shortest-lived of their records lives. None is no error: a
/// name may have the other family alone.
async fn family(
    resolver: &TokioResolver,
    host: &str,
    kind: RecordType,
) -> Result<(Vec<IpAddr>, Option<Duration>), String> {
    match resolver.lookup(host, kind).await {
        Ok(lookup) => {
            let records = lookup.answers().iter();
            let ttl = records.clone().map(|record| Duration::from_secs(record.ttl.into())).min();
            Ok((records.filter_map(|record| record.data.ip_addr()).collect(), ttl))
        }
        Err(error) if error.is_nx_domain() => Err(format!("there is no name {host}")),
        Err(error) if error.is_no_records_found() => Ok((Vec::new(), None)),
        Err(error) => Err(error.to_string()),
    }
}
