#![allow(clippy::disallowed_types)] // a test's list of what was told, locked for a push or a look

use std::num::NonZeroU32;
use std::sync::Mutex;

use tieline_testkit::TcpServer;

use super::*;
use crate::Standing;

#[tokio::test]
async fn what_stays_keeps_its_counters_and_what_goes_is_told() {
    let (staying, going, coming) = (TcpServer::echo(), TcpServer::echo(), TcpServer::echo());
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let upstream = Upstream::new(
        settings(&[staying.address(), going.address()]),
        Arc::new(move |endpoint| telling.lock().unwrap().push(endpoint.label().to_owned())),
    );
    let leases = [lease(&upstream).await.unwrap(), lease(&upstream).await.unwrap()];
    let (stays, goes): (Vec<_>, Vec<_>) =
        leases.into_iter().partition(|l| address_of(l) == EndpointAddr::Socket(staying.address()));
    let before = upstream.endpoints()[0].status(tieline_base::Clock::now());

    let mut next = settings(&[staying.address(), coming.address()]);
    next.endpoints[0].weight = NonZeroU32::new(7).unwrap();
    let left = upstream.apply(next);

    assert_eq!(left.len(), 1);
    assert_eq!(*told.lock().unwrap(), [going.address().to_string()]);
    let status = upstream.status();
    assert_eq!(status.endpoints[0].connects, before.connects);
    assert_eq!(status.endpoints[0].in_flight as usize, stays.len());
    assert_eq!(status.endpoints[0].weight, 7);
    assert_eq!(status.endpoints[1].label, coming.address().to_string());
    let leaving: Vec<_> = status.endpoints.iter().filter(|endpoint| endpoint.leaving).collect();
    assert_eq!(leaving.len(), usize::from(!goes.is_empty()), "shown as long as a lease of it is out");
    assert!(goes.iter().all(|lease| lease.endpoint().is_leaving()));
    drop((stays, goes));
    assert_eq!((upstream.status().in_flight, upstream.status().endpoints.len()), (0, 2));
    for _ in 0..6 {
        let address = address_of(&lease(&upstream).await.unwrap());
        assert_ne!(address, EndpointAddr::Socket(going.address()));
    }
}

#[tokio::test]
async fn a_drain_holds_across_reloads_until_it_is_lifted() {
    let servers = [TcpServer::echo(), TcpServer::echo()];
    let addresses = servers.each_ref().map(TcpServer::address);
    let upstream = upstream(settings(&addresses));
    let drained = addresses[0].to_string();
    assert_eq!(upstream.drain_endpoint(&drained).unwrap().len(), 1);
    upstream.apply(settings(&[addresses[1]]));
    upstream.apply(settings(&addresses));
    assert_eq!(upstream.status().endpoints[0].standing, Standing::Draining);
    for _ in 0..6 {
        assert_eq!(address_of(&lease(&upstream).await.unwrap()), EndpointAddr::Socket(addresses[1]));
    }
    upstream.enable_endpoint(&drained).unwrap();
    assert_eq!(upstream.status().endpoints[0].standing, Standing::Healthy);
}

#[tokio::test]
async fn an_unknown_endpoint_is_an_error_that_names_the_known() {
    let server = TcpServer::echo();
    let upstream = upstream(settings(&[server.address()]));
    let error = upstream.drain_endpoint("10.9.9.9:1").unwrap_err().to_string();
    assert!(error.contains("\"10.9.9.9:1\"") && error.contains(&server.address().to_string()), "{error}");
}

#[tokio::test]
async fn an_endpoint_named_twice_counts_once() {
    let server = TcpServer::echo();
    assert_eq!(upstream(settings(&[server.address(), server.address()])).endpoints().len(), 1);
}
