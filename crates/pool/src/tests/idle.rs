use std::num::NonZeroU32;
use std::time::Duration;

use tieline_testkit::{PATIENCE, TcpServer, wait_until};

use super::*;
use crate::{Lease, PoolSettings, Reuse};

async fn lease_for(upstream: &Arc<Upstream>, name: &str, reuse: Reuse) -> Lease {
    let ask = Ask { reuse, ..Ask::default() };
    upstream.lease(&permit(name), ask, &mut |_| ()).await.unwrap()
}

pub(super) fn park(lease: Lease) {
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
    assert!(wait_until(PATIENCE, || server.open() == 0));
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
    // Between half and four fifths of it there must be room for a machine that is busy otherwise.
    lease.endpoint().allows_idle(Duration::from_secs(12));
    park(lease);
    tokio::time::sleep(Duration::from_millis(6_050)).await;
    assert!(
        !lease_for(&upstream, "db", Reuse::Young).await.is_reused(),
        "older than half of what is allowed"
    );
    assert!(lease_for(&upstream, "db", Reuse::Any).await.is_reused(), "younger than four fifths of it");
}

fn capped(server: &TcpServer, cap: u32) -> Settings {
    let mut settings = settings(&[server.address()]);
    settings.endpoints[0].cap = std::num::NonZeroU32::new(cap);
    settings
}

/// Runs `work` on a thread and a runtime of its own, as a worker is.
fn on_another_worker<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let run =
            || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
        scope.spawn(run).join().unwrap()
    })
}

#[test]
fn at_the_cap_a_connection_that_rests_at_another_worker_is_lent_here() {
    let server = TcpServer::echo();
    let upstream = upstream(capped(&server, 1));
    // Workers live as long as the process: the other one's runtime must not end before its connection.
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.block_on(async { park(lease_for(&upstream, "db", Reuse::Any).await) });
    let echoed = on_another_worker(async {
        let lease = lease_for(&upstream, "db", Reuse::Any).await;
        assert!(lease.is_reused());
        let (mut io, _loan) = lease.split();
        let mut heard = [0; 2];
        tokio::io::AsyncWriteExt::write_all(&mut io, b"hi").await.unwrap();
        tokio::io::AsyncReadExt::read_exact(&mut io, &mut heard).await.unwrap();
        heard
    });
    assert_eq!((&echoed, server.accepted()), (b"hi", 1));
    let endpoint = &upstream.status().endpoints[0];
    assert_eq!((endpoint.in_flight, endpoint.idle), (0, 0));
}

#[test]
fn at_the_cap_one_that_rests_is_closed_for_an_ask_that_wants_its_own() {
    let server = TcpServer::echo();
    let upstream = upstream(capped(&server, 1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        park(lease_for(&upstream, "db", Reuse::Any).await);
        assert!(wait_until(PATIENCE, || server.open() == 1));
        let fresh = lease_for(&upstream, "db", Reuse::Never).await;
        assert!(!fresh.is_reused());
        assert!(wait_until(PATIENCE, || server.accepted() == 2 && server.open() == 1));
    });
}

#[test]
fn the_size_of_the_whole_counts_what_rests_at_other_endpoints() {
    let servers = [TcpServer::echo(), TcpServer::echo()];
    let size = std::num::NonZeroU32::new(1);
    let pool = PoolSettings { size, ..PoolSettings::default() };
    let addresses = servers.each_ref().map(TcpServer::address);
    let upstream = upstream(Settings { pool, balance: crate::Balance::RoundRobin, ..settings(&addresses) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for turn in 0..6 {
            park(lease_for(&upstream, "db", Reuse::Any).await);
            let open = || servers.iter().map(TcpServer::open).sum::<usize>();
            assert!(wait_until(PATIENCE, || open() == 1), "turn {turn}: {} are open", open());
        }
    });
}

#[test]
fn a_cap_that_comes_with_a_reload_counts_what_rests() {
    let server = TcpServer::echo();
    let plain = settings(&[server.address()]);
    let upstream = upstream(plain);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let three = [
            lease_for(&upstream, "db", Reuse::Any).await,
            lease_for(&upstream, "db", Reuse::Any).await,
            lease_for(&upstream, "db", Reuse::Any).await,
        ];
        three.into_iter().for_each(park);
        upstream.apply(capped(&server, 2));
        let held =
            [lease_for(&upstream, "db", Reuse::Never).await, lease_for(&upstream, "db", Reuse::Never).await];
        assert!(wait_until(PATIENCE, || server.open() == 2), "{} are open", server.open());
        drop(held);
    });
}

#[test]
fn where_an_endpoint_has_no_room_what_rests_with_another_worker_is_lent() {
    let server = TcpServer::echo();
    let pool = PoolSettings { size: NonZeroU32::new(20), ..PoolSettings::default() };
    let upstream = upstream(Settings { pool, ..settings(&[server.address()]) });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { park(lease_for(&upstream, "db", Reuse::Any).await) });
    on_another_worker(async {
        let lease = lease_for(&upstream, "db", Reuse::Any).await;
        assert!(!lease.is_reused(), "there is room, and it need not move");
        let other = lease_for(&upstream, "db", Reuse::Anywhere).await;
        assert!(other.is_reused());
        let new = lease_for(&upstream, "db", Reuse::Anywhere).await;
        assert!(!new.is_reused(), "where none rests it is tried");
    });
    assert_eq!((server.accepted(), upstream.status().endpoints[0].idle), (3, 0));
}

#[test]
fn workers_beyond_the_cores_share_boards_and_not_what_is_on_them() {
    let server = TcpServer::echo();
    let upstream = upstream(settings(&[server.address()]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let park_one = || runtime.block_on(async { park(lease_for(&upstream, "db", Reuse::Any).await) });
    park_one();
    // Each is another worker: in a round of them each board is somebody's, whoever else has come meanwhile.
    let workers = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..workers {
        on_another_worker(async {
            let lease = lease_for(&upstream, "db", Reuse::Any).await;
            assert!(!lease.is_reused(), "another worker's poller watches what rests");
            crate::tidy_idle();
        });
    }
    assert_eq!(upstream.status().endpoints[0].idle, 1, "and nobody else closes it");
    let again = runtime.block_on(lease_for(&upstream, "db", Reuse::Any));
    assert!(again.is_reused());
    drop(again);
    // Two who share a board look after theirs, each of them.
    park_one();
    for _ in 0..workers {
        on_another_worker(async {
            let pool = PoolSettings { idle: Duration::from_millis(1), ..PoolSettings::default() };
            upstream.apply(Settings { pool, ..settings(&[server.address()]) });
            park(lease_for(&upstream, "db", Reuse::Never).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
            crate::tidy_idle();
        });
    }
    assert_eq!(upstream.status().endpoints[0].idle, 1);
}
