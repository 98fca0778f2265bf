use std::time::Duration;

use tieline_testkit::{PATIENCE, TcpServer, wait_until};

use super::*;
use crate::{Lease, PoolSettings, Reuse};

async fn lease_for(upstream: &Arc<Upstream>, name: &str, reuse: Reuse) -> Lease {
    let ask = Ask { reuse, ..Ask::default() };
    upstream.lease(&permit(name), ask, &mut |_| ()).await.unwrap()
}

fn park(lease: Lease) {
    let making = lease.making().clone();
    let (io, loan) = lease.split();
    loan.park(io, making);
}

#[tokio::test]
async fn a_parked_connection_is_lent_again_and_its_place_is_free_meanwhile() {
    let server = TcpServer::echo();
    let upstream = upstream(settings(&[server.address()]));
    park(lease_for(&upstream, "db", Reuse::Any).await);
    assert_eq!(upstream.status().endpoints[0].in_flight, 0);
    let again = lease_for(&upstream, "db", Reuse::Any).await;
    assert!(again.is_reused());
    assert_eq!(upstream.status().endpoints[0].in_flight, 1);
    let fresh = lease_for(&upstream, "db", Reuse::Never).await;
    assert!(!fresh.is_reused());
    assert!(wait_until(PATIENCE, || server.accepted() == 2));
}

#[tokio::test]
async fn a_connection_of_one_upstream_never_serves_another() {
    let server = TcpServer::echo();
    let one = upstream(settings(&[server.address()]));
    let endpoint = EndpointSettings::new(Address::Socket(server.address()));
    let other = upstream(Settings::new("other", vec![endpoint]));
    park(lease_for(&one, "db", Reuse::Any).await);
    assert!(!lease_for(&other, "other", Reuse::Any).await.is_reused());
}

#[tokio::test]
async fn a_connection_that_the_endpoint_closed_is_not_lent() {
    let server = TcpServer::echo();
    let upstream = upstream(settings(&[server.address()]));
    park(lease_for(&upstream, "db", Reuse::Any).await);
    assert!(wait_until(PATIENCE, || server.accepted() == 1));
    server.reset_all();
    // The poller hears of it the next time it is asked.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!lease_for(&upstream, "db", Reuse::Any).await.is_reused());
}

#[tokio::test]
async fn one_that_rested_too_long_is_not_lent() {
    let server = TcpServer::echo();
    let pool = PoolSettings { idle: Duration::from_millis(10), ..PoolSettings::default() };
    let upstream = upstream(Settings { pool, ..settings(&[server.address()]) });
    park(lease_for(&upstream, "db", Reuse::Any).await);
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert!(!lease_for(&upstream, "db", Reuse::Any).await.is_reused());
}

#[tokio::test]
async fn what_must_not_be_done_twice_gets_a_young_connection_or_a_new_one() {
    let server = TcpServer::echo();
    let upstream = upstream(settings(&[server.address()]));
    let lease = lease_for(&upstream, "db", Reuse::Any).await;
    lease.endpoint().allows_idle(Duration::from_millis(100));
    park(lease);
    tokio::time::sleep(Duration::from_millis(65)).await;
    assert!(
        !lease_for(&upstream, "db", Reuse::Young).await.is_reused(),
        "older than half of what is allowed"
    );
    assert!(lease_for(&upstream, "db", Reuse::Any).await.is_reused(), "younger than four fifths of it");
}
