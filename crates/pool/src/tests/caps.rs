use std::cell::RefCell;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tieline_base::Reason;
use tieline_testkit::{Refusing, TcpServer};

use super::*;
use crate::{Balance, OutlierSettings, PoolSettings, Standing};

pub(super) fn pool(size: u32, queue: usize) -> PoolSettings {
    PoolSettings { size: NonZeroU32::new(size), queue, ..PoolSettings::default() }
}

#[tokio::test]
async fn the_line_is_served_oldest_first() {
    let server = TcpServer::echo();
    let upstream = upstream(Settings { pool: pool(1, 3), ..settings(&[server.address()]) });
    let first = lease(&upstream).await.unwrap();
    let served = RefCell::new(Vec::new());
    let wait = async |number: u32| {
        let (lease, story) = lease_with_story(&upstream).await;
        served.borrow_mut().push((number, story[0].clone()));
        drop(lease.unwrap());
    };
    let give_back = async {
        eventually(|| upstream.status().waiting == 3).await;
        drop(first);
    };
    tokio::join!(wait(0), wait(1), wait(2), give_back);
    let expected = [0, 1, 2].map(|number| (number, format!("queued behind {number}")));
    assert_eq!(served.into_inner(), expected);
}

#[tokio::test]
async fn a_full_line_refuses_at_once() {
    let server = TcpServer::echo();
    let upstream = upstream(Settings { pool: pool(1, 1), ..settings(&[server.address()]) });
    let _held = lease(&upstream).await.unwrap();
    let mut waiter = pin!(lease(&upstream));
    assert!(has_to_wait(&mut waiter).await);
    assert_eq!(lease(&upstream).await.unwrap_err().reason, Reason::LimitQueue);
}

#[tokio::test]
async fn a_wait_ends_at_its_deadline_and_leaves_the_line() {
    let server = TcpServer::echo();
    let acquire = Duration::from_millis(20);
    let upstream = upstream(Settings { pool: pool(1, 9), acquire, ..settings(&[server.address()]) });
    let held = lease(&upstream).await.unwrap();
    assert_eq!(lease(&upstream).await.unwrap_err().reason, Reason::TimeoutAcquire);
    assert_eq!(upstream.status().waiting, 0);
    drop(held);
    lease(&upstream).await.unwrap();
}

#[tokio::test]
async fn a_waiter_that_goes_away_leaves_its_turn_to_the_next() {
    let server = TcpServer::echo();
    let upstream = upstream(Settings { pool: pool(1, 9), ..settings(&[server.address()]) });
    let held = lease(&upstream).await.unwrap();
    let mut gone = Box::pin(lease(&upstream));
    let mut granted_and_gone = Box::pin(lease(&upstream));
    let mut patient = pin!(lease(&upstream));
    assert!(has_to_wait(&mut gone).await && has_to_wait(&mut granted_and_gone).await);
    assert!(has_to_wait(&mut patient).await);
    drop(gone);
    assert_eq!(upstream.status().waiting, 2);
    drop(held);
    assert_eq!(upstream.status().waiting, 1, "the second has its place, and does not know it yet");
    drop(granted_and_gone);
    patient.await.unwrap();
    assert_eq!((upstream.status().in_flight, upstream.status().waiting), (0, 0));
}

#[tokio::test]
async fn an_endpoints_cap_sends_to_the_other_and_then_waits() {
    let servers = [TcpServer::echo(), TcpServer::echo()];
    let mut settings = settings(&servers.each_ref().map(TcpServer::address));
    settings.endpoints.iter_mut().for_each(|endpoint| endpoint.cap = NonZeroU32::new(1));
    let upstream = upstream(settings);
    let (one, two) = (lease(&upstream).await.unwrap(), lease(&upstream).await.unwrap());
    assert_ne!(address_of(&one), address_of(&two));
    let mut third = pin!(lease(&upstream));
    assert!(has_to_wait(&mut third).await);
    let freed = address_of(&two);
    drop(two);
    assert_eq!(address_of(&third.await.unwrap()), freed);
}

#[tokio::test]
async fn a_cap_that_comes_with_a_reload_counts_the_leases_that_are_out() {
    let server = TcpServer::echo();
    let plain = settings(&[server.address()]);
    let upstream = upstream(plain.clone());
    let held = [lease(&upstream).await.unwrap(), lease(&upstream).await.unwrap()];
    upstream.apply(Settings { pool: pool(2, 9), ..plain.clone() });
    let mut third = Box::pin(lease(&upstream));
    assert!(has_to_wait(&mut third).await);
    drop(held);
    let third = third.await.unwrap();
    upstream.apply(plain);
    let more = [lease(&upstream).await.unwrap(), lease(&upstream).await.unwrap()];
    drop((third, more));
    assert_eq!(upstream.status().in_flight, 0);
}

#[tokio::test]
async fn a_cap_that_comes_between_two_attempts_is_waited_for_and_given_up_cleanly() {
    let (server, refusing) = (TcpServer::echo(), Refusing::start());
    let addresses = [server.address(), refusing.address()];
    let plain = Settings { balance: Balance::RoundRobin, ..settings(&addresses) };
    let upstream = upstream(plain.clone());
    let held = lease(&upstream).await.unwrap();
    let mut observe = |event: Event<'_>| {
        if let Event::Failed { .. } = event {
            upstream.apply(Settings { pool: pool(1, 9), ..plain.clone() });
        }
    };
    let permit = permit("db");
    let mut second = Box::pin(upstream.lease(&permit, Ask::default(), &mut observe));
    tokio::select! {
        _ = &mut second => panic!("the only place is taken"),
        () = eventually(|| upstream.status().waiting == 1) => {}
    }
    drop(second);
    assert_eq!(upstream.status().waiting, 0);
    drop(held);
    assert_eq!(upstream.status().in_flight, 0);
    lease(&upstream).await.unwrap();
}

#[tokio::test]
async fn a_reload_that_raises_the_cap_serves_who_waits() {
    let server = TcpServer::echo();
    let upstream = upstream(Settings { pool: pool(1, 9), ..settings(&[server.address()]) });
    let _held = lease(&upstream).await.unwrap();
    let mut waiter = pin!(lease(&upstream));
    assert!(has_to_wait(&mut waiter).await);
    upstream.apply(Settings { pool: pool(2, 9), ..settings(&[server.address()]) });
    waiter.await.unwrap();
}

#[tokio::test]
async fn a_waiter_takes_an_endpoint_whose_rest_is_over() {
    let servers = [TcpServer::echo(), TcpServer::echo()];
    let base = Duration::from_secs(4);
    let outlier = OutlierSettings { consecutive: NonZeroU32::MIN, base, ..OutlierSettings::default() };
    let addresses = servers.each_ref().map(TcpServer::address);
    let mut settings = Settings { outlier: Some(outlier), ..settings(&addresses) };
    settings.endpoints.iter_mut().for_each(|endpoint| endpoint.cap = NonZeroU32::new(1));
    let upstream = upstream(settings);
    let (held, broken) = (lease(&upstream).await.unwrap(), lease(&upstream).await.unwrap());
    let resting = address_of(&broken);
    broken.split().1.upstream_failed(&"broken pipe");
    kept(&upstream, async {
        let mut waiter = pin!(lease(&upstream));
        assert!(has_to_wait(&mut waiter).await, "its place is free, but it rests");
        assert_eq!(upstream.status().endpoints.iter().filter(|e| e.standing == Standing::Ejected).count(), 1);
        assert_eq!(address_of(&waiter.await.unwrap()), resting);
    })
    .await;
    drop(held);
}

#[test]
fn the_cap_is_exact_across_workers() {
    const SIZE: u32 = 3;
    let server = TcpServer::echo();
    let upstream = upstream(Settings { pool: pool(SIZE, 1_000), ..settings(&[server.address()]) });
    let (held, most) = (AtomicU32::new(0), AtomicU32::new(0));
    let hold = async || {
        let lease = lease(&upstream).await.unwrap();
        most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        held.fetch_sub(1, Ordering::SeqCst);
        drop(lease);
    };
    let work = async || {
        for _ in 0..50 {
            tokio::join!(hold(), hold(), hold());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            scope.spawn(|| {
                let runtime = runtime;
                runtime.block_on(work());
            });
        }
    });
    assert_eq!(most.into_inner(), SIZE, "reached, and never passed");
    let status = upstream.status();
    assert_eq!((status.in_flight, status.waiting), (0, 0));
}

#[tokio::test]
async fn connections_are_made_a_few_at_a_time_and_one_that_rests_meanwhile_is_taken() {
    let server = TcpServer::echo();
    let acquire = Duration::from_millis(20);
    let few = Settings { few_at_once: true, pool: pool(9, 9), ..settings(&[server.address()]) };
    let upstream = upstream(few.clone());
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(lease(&upstream).await.unwrap());
    }
    upstream.apply(Settings { acquire, ..few.clone() });
    // Whoever waits before the door does so no longer than for a place.
    assert_eq!(lease(&upstream).await.unwrap_err().reason, Reason::TimeoutAcquire);
    assert_eq!(upstream.status().in_flight, 4);
    upstream.apply(few);
    let any = async || {
        let ask = Ask { reuse: crate::Reuse::Any, ..Ask::default() };
        upstream.lease(&permit("db"), ask, &mut |_| ()).await.unwrap()
    };
    let (mut fifth, mut sixth) = (Box::pin(any()), Box::pin(any()));
    assert!(has_to_wait(&mut fifth).await && has_to_wait(&mut sixth).await);
    drop(made[0].take_knock());
    let (io, loan, making) = fifth.await.into_parts();
    loan.park(io, making);
    assert!(sixth.await.is_reused());
    eventually(|| server.accepted() == 5).await;
}
