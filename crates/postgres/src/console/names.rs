//! The names of servers, and what they stand for.

use tieline_base::Clock;

use super::Console;
use super::answer::{Cell, Refused, Row};

/// What is known of the names of all upstreams.
///
/// # Errors
/// The server is not there to tell.
pub(super) fn hosts(console: &Console) -> Result<Vec<Row>, Refused> {
    let server = console.house.server().ok_or_else(|| Refused::new("the server is not ready yet"))?;
    let now = Clock::now();
    let mut rows: Vec<(String, String, u64)> = Vec::new();
    for upstream in server.snapshot().upstreams.values() {
        let endpoints = upstream.endpoints();
        for name in upstream.status().names {
            let stands_for =
                endpoints.iter().filter(|endpoint| endpoint.configured().to_string() == name.name);
            let addresses: Vec<String> = stands_for
                .flat_map(|endpoint| endpoint.addresses())
                .map(|address| address.to_string())
                .collect();
            let host = name.name.rsplit_once(':').map_or(&*name.name, |(host, _)| host);
            let ttl = name.lives_until.map_or(0, |until| until.since(now).as_secs());
            rows.push((host.to_owned(), addresses.join(","), ttl));
        }
    }
    rows.sort();
    // Several upstreams may follow the same name.
    rows.dedup_by(|one, other| (&one.0, &one.1) == (&other.0, &other.1));
    let row = |(host, addresses, ttl): (String, String, u64)| {
        vec![Cell::text(host), Cell::Number(ttl), Cell::text(addresses)]
    };
    Ok(rows.into_iter().map(row).collect())
}
