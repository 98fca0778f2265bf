use std::num::NonZeroU32;
use std::time::Duration;

use tieline_base::{Clock, Percent, Reason, Whose};
use tieline_testkit::{BlackHole, PATIENCE, Refusing, TcpServer};

use super::*;
use crate::{Balance, LeaseError, Loan, OutlierSettings, RetrySettings, Standing};

#[tokio::test]
async fn a_lease_connects_counts_and_gives_back() {
    let server = TcpServer::echo();
    let upstream = upstream(settings(&[server.address()]));
    let (lease, story) = lease_with_story(&upstream).await;
    let (lease, address) = (lease.unwrap(), server.address());
    assert_eq!(story, [format!("chosen {address}"), format!("connected {address}")]);
    assert_eq!(address_of(&lease), EndpointAddr::Socket(address));
    assert_eq!(upstream.status().endpoints[0].in_flight, 1);
    let (io, loan) = lease.split();
    drop(io);
    assert_eq!(upstream.status().endpoints[0].in_flight, 1, "the place outlives the connection");
    drop(loan);
    let status = &upstream.status().endpoints[0];
    assert_eq!((status.in_flight, status.connects, status.failures), (0, 1, 0));
}

#[tokio::test]
async fn a_refusal_is_followed_by_another_endpoint() {
    let (refusing, server) = (Refusing::start(), TcpServer::echo());
    let (bad, good) = (refusing.address(), server.address());
    let upstream = upstream(Settings { balance: Balance::RoundRobin, ..settings(&[bad, good]) });
    let (lease, story) = lease_with_story(&upstream).await;
    assert_eq!(address_of(&lease.unwrap()), EndpointAddr::Socket(good));
    let expected = [("chosen", bad), ("failed", bad), ("chosen", good), ("connected", good)];
    assert_eq!(story, expected.map(|(what, who)| format!("{what} {who}")));
    let status = upstream.status();
    assert_eq!((status.endpoints[0].failures, status.in_flight), (1, 0));
    assert!(status.endpoints[0].last_error.as_ref().unwrap().contains("refused"));
}

#[tokio::test]
async fn when_all_refuse_it_is_unreachable_and_says_what_the_last_one_said() {
    let refusing: Vec<_> = (0..5).map(|_| Refusing::start()).collect();
    let addresses: Vec<_> = refusing.iter().map(Refusing::address).collect();
    let upstream = upstream(settings(&addresses));
    let (lease, story) = lease_with_story(&upstream).await;
    let fault = lease.unwrap_err();
    assert_eq!((fault.reason, fault.whose), (Reason::Unreachable, Whose::Upstream));
    assert!(fault.source.unwrap().to_string().contains("refused"));
    let mut failed: Vec<_> = story.iter().filter(|line| line.starts_with("failed")).collect();
    assert_eq!(failed.len(), 3, "one attempt and two more");
    failed.dedup();
    assert_eq!(failed.len(), 3, "each at another endpoint");
    assert_eq!(upstream.status().in_flight, 0);
}

#[tokio::test]
async fn a_black_hole_leaves_time_for_the_next() {
    let (hole, server) = (BlackHole::start(), TcpServer::echo());
    let (addresses, connect) = ([hole.address(), server.address()], Duration::from_secs(8));
    let upstream = upstream(Settings { balance: Balance::RoundRobin, connect, ..settings(&addresses) });
    let begun = Clock::now();
    let lease = lease(&upstream).await.unwrap();
    assert_eq!(address_of(&lease), EndpointAddr::Socket(server.address()));
    assert!(Clock::now().since(begun) < PATIENCE);
}

#[tokio::test]
async fn black_holes_alone_are_a_timeout_within_the_budget() {
    let holes = [BlackHole::start(), BlackHole::start()];
    let connect = Duration::from_millis(400);
    let upstream = upstream(Settings { connect, ..settings(&holes.each_ref().map(BlackHole::address)) });
    let begun = Clock::now();
    let fault = lease(&upstream).await.unwrap_err();
    let took = Clock::now().since(begun);
    assert_eq!(fault.reason, Reason::TimeoutConnect);
    assert!(took >= connect / 2 && took < PATIENCE, "{took:?}");
}

#[tokio::test]
async fn retries_stop_when_the_budget_is_spent() {
    let refusing = [Refusing::start(), Refusing::start()];
    let retry = RetrySettings { attempts: 1, budget: Percent(0), ..RetrySettings::default() };
    let addresses = refusing.each_ref().map(Refusing::address);
    let upstream = upstream(Settings { retry, outlier: None, ..settings(&addresses) });
    let begun = Clock::now();
    for _ in 0..200 {
        lease(&upstream).await.unwrap_err();
    }
    let free = 30 + 3 * (Clock::now().since(begun).as_secs() + 1);
    let attempts: u64 = upstream.status().endpoints.iter().map(|endpoint| endpoint.failures).sum();
    assert!((230..=200 + free).contains(&attempts), "{attempts}");
}

#[tokio::test]
async fn one_endpoint_alone_is_tried_again_and_may_come_back_meanwhile() {
    let refusing = Refusing::start();
    let address = refusing.address();
    let upstream = upstream(settings(&[address]));
    let mut server = None;
    let mut refusing = Some(refusing);
    let mut observe = |event: Event<'_>| {
        if let Event::Failed { .. } = event {
            drop(refusing.take());
            server.get_or_insert_with(|| TcpServer::echo_at(address));
        }
    };
    upstream.lease(&permit("db"), Ask::default(), &mut observe).await.unwrap();
    assert_eq!(server.unwrap().address(), address);
}

#[tokio::test]
async fn a_permit_for_another_upstream_opens_nothing() {
    let server = TcpServer::echo();
    let upstream = upstream(settings(&[server.address()]));
    let fault = upstream.lease(&permit("other"), Ask::default(), &mut |_| ()).await.unwrap_err();
    assert_eq!(fault.reason, Reason::Internal);
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn without_an_endpoint_it_is_unreachable_at_once() {
    let server = TcpServer::echo();
    let upstream = upstream(settings(&[server.address()]));
    upstream.drain_endpoint(&server.address().to_string()).unwrap();
    let fault = lease(&upstream).await.unwrap_err();
    assert_eq!(fault.reason, Reason::Unreachable);
    let error = fault.source.unwrap().downcast::<LeaseError>().unwrap();
    assert!(matches!(*error, LeaseError::NoEndpoint(_)));
}

#[tokio::test]
async fn an_endpoint_that_breaks_its_connections_rests_while_others_serve() {
    let servers = [TcpServer::echo(), TcpServer::echo()];
    let addresses = servers.each_ref().map(TcpServer::address);
    let outlier = OutlierSettings { consecutive: NonZeroU32::new(3).unwrap(), ..OutlierSettings::default() };
    let balance = Balance::RoundRobin;
    let upstream = upstream(Settings { outlier: Some(outlier), balance, ..settings(&addresses) });
    for _ in 0..6 {
        let lease = lease(&upstream).await.unwrap();
        let breaks = address_of(&lease) == EndpointAddr::Socket(addresses[0]);
        let lease_at = lease.connected_at();
        let (_io, loan) = lease.split();
        match breaks {
            true => loan.upstream_failed(&"connection reset"),
            false => loan.first_byte(lease_at, lease_at.after(Duration::from_millis(1))),
        }
    }
    let status = upstream.status();
    assert_eq!(status.endpoints[0].standing, Standing::Ejected);
    assert_eq!(status.endpoints[0].last_error.as_deref(), Some("connection reset"));
    assert_eq!(status.endpoints[1].standing, Standing::Healthy);
    assert!(status.endpoints[1].latency.is_some());
    for _ in 0..4 {
        assert_eq!(address_of(&lease(&upstream).await.unwrap()), EndpointAddr::Socket(addresses[1]));
    }
}

#[tokio::test]
async fn what_an_idle_connection_keeps_of_its_lease_is_small() {
    // The moment of connecting is told and let go; whom it counts for is kept.
    assert!(size_of::<(Io, Loan)>() <= 72, "{}", size_of::<(Io, Loan)>());
}

#[tokio::test]
async fn the_same_key_goes_to_the_same_endpoint() {
    let servers: Vec<_> = (0..4).map(|_| TcpServer::echo()).collect();
    let addresses: Vec<_> = servers.iter().map(TcpServer::address).collect();
    let upstream = upstream(Settings { balance: Balance::Hash, ..settings(&addresses) });
    let mut used = std::collections::HashSet::new();
    for hash in 0..32 {
        let mut of_key = std::collections::HashSet::new();
        for _ in 0..3 {
            let lease =
                upstream.lease(&permit("db"), Ask { hash, ..Ask::default() }, &mut |_| ()).await.unwrap();
            of_key.insert(address_of(&lease));
        }
        assert_eq!(of_key.len(), 1);
        used.extend(of_key);
    }
    assert_eq!(used.len(), 4, "and the keys are spread");
}
