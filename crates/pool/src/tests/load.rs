use std::num::NonZeroU32;
use std::time::Duration;

use tieline_base::{Clock, Reason};
use tieline_testkit::TcpServer;

use super::*;
use crate::{BreakerSettings, HedgeSettings, LeaseError, OutlierSettings, PoolSettings, Standing, Tried};

fn breaking(servers: &[&TcpServer]) -> Settings {
    let requests = NonZeroU32::MIN.saturating_add(1);
    let open = Duration::from_secs(6);
    let breaker = Some(BreakerSettings { requests, open, ..BreakerSettings::default() });
    let addresses: Vec<_> = servers.iter().map(|server| server.address()).collect();
    Settings { breaker, outlier: None, ..settings(&addresses) }
}

#[tokio::test]
async fn an_open_breaker_refuses_and_then_lets_one_through_at_a_time() {
    let server = TcpServer::echo();
    let upstream = upstream(breaking(&[&server]));
    for _ in 0..2 {
        lease(&upstream).await.unwrap().split().1.upstream_failed(&"broken pipe");
    }
    let fault = lease(&upstream).await.unwrap_err();
    assert_eq!(fault.reason, Reason::RefusedBreaker);
    let source = fault.source.unwrap();
    let Some(LeaseError::BreakersOpen { after, .. }) = source.downcast_ref() else { panic!("{source}") };
    assert!(*after <= Duration::from_secs(6));
    assert_eq!(upstream.status().endpoints[0].standing, Standing::BreakerOpen);
    eventually(|| upstream.status().endpoints[0].standing == Standing::Healthy).await;
    let probe = lease(&upstream).await.unwrap();
    assert_eq!(lease(&upstream).await.unwrap_err().reason, Reason::RefusedBreaker, "one at a time");
    let now = Clock::now();
    probe.split().1.first_byte(now, now);
    let _both = [lease(&upstream).await.unwrap(), lease(&upstream).await.unwrap()];
    assert_eq!(upstream.status().counts.breaker_opened, 1);
}

#[tokio::test]
async fn the_others_do_the_work_of_one_whose_breaker_is_open() {
    let servers = [TcpServer::echo(), TcpServer::echo(), TcpServer::echo()];
    let upstream = upstream(Settings { panic: tieline_base::Percent(50), ..breaking(&servers.each_ref()) });
    let bad = EndpointAddr::Socket(servers[0].address());
    let mut opened = false;
    for _ in 0..60 {
        let lease = lease(&upstream).await.unwrap();
        assert!(!opened || address_of(&lease) != bad, "it is asked nothing while it is open");
        if address_of(&lease) == bad {
            lease.split().1.upstream_failed(&"broken pipe");
            opened = upstream.status().endpoints[0].standing == Standing::BreakerOpen;
            // Its probes are another test's.
            if opened {
                break;
            }
        }
    }
    // By its latency alone it may have been left before its breaker could open.
    let later: Vec<_> = [lease(&upstream).await.unwrap(), lease(&upstream).await.unwrap()].into();
    assert!(later.iter().all(|lease| address_of(lease) != bad));
}

#[tokio::test]
async fn a_failure_counts_as_a_slow_answer_and_patience_is_believed() {
    let server = TcpServer::echo();
    let upstream = upstream(Settings { outlier: None, ..settings(&[server.address()]) });
    let latency = || upstream.status().endpoints[0].latency.unwrap().as_secs_f64();
    let now = Clock::now();
    let loan = lease(&upstream).await.unwrap().split().1;
    loan.first_byte(now, now.after(Duration::from_millis(1)));
    assert!(latency() < 1.0);
    loan.turned_away(now, now, None, "answered 503");
    // It sinks by half in ten seconds.
    assert!((3.0..5.1).contains(&latency()), "{}", latency());
    loan.turned_away(now, now, Some(Duration::from_secs(20)), "answered 503");
    assert!((12.0..20.1).contains(&latency()), "{}", latency());
    loan.turned_away(now, now, Some(Duration::from_secs(86_400)), "answered 503");
    assert!((20.2..30.1).contains(&latency()), "{}", latency());
}

#[tokio::test]
async fn what_was_measured_before_a_rest_is_forgotten_after_it() {
    let servers = [TcpServer::echo(), TcpServer::echo()];
    let base = Duration::from_secs(2);
    let outlier = Some(OutlierSettings { consecutive: NonZeroU32::MIN, base, ..OutlierSettings::default() });
    let upstream = upstream(Settings { outlier, ..settings(&servers.each_ref().map(TcpServer::address)) });
    let lease = lease(&upstream).await.unwrap();
    let index = usize::from(address_of(&lease) != EndpointAddr::Socket(servers[0].address()));
    lease.split().1.upstream_failed(&"broken pipe");
    let endpoint = || upstream.status().endpoints[index].clone();
    assert!(endpoint().latency.is_some());
    eventually(|| endpoint().standing == Standing::Healthy && endpoint().latency.is_none()).await;
}

#[tokio::test]
async fn a_hedge_needs_another_endpoint_and_something_saved() {
    let servers = [TcpServer::echo(), TcpServer::echo()];
    let hedge = Some(HedgeSettings { percentile: 95, budget: tieline_base::Percent(50) });
    let upstream = upstream(Settings { hedge, ..settings(&servers.each_ref().map(TcpServer::address)) });
    let now = Clock::now();
    assert_eq!(upstream.hedge_after(now), None, "nothing is known yet");
    for _ in 0..100 {
        lease(&upstream).await.unwrap().split().1.first_byte(now, now.after(Duration::from_millis(8)));
    }
    let after = upstream.hedge_after(now).unwrap();
    assert!((0.008..0.0095).contains(&after.as_secs_f64()), "{after:?}");
    let mut tried = Tried::default();
    tried.add(&upstream.endpoints()[0]);
    assert!(upstream.grants_hedge(&tried, now));
    tried.add(&upstream.endpoints()[1]);
    assert!(!upstream.grants_hedge(&tried, now), "all were asked");
    tried = Tried::default();
    let granted = (0..50).filter(|_| upstream.grants_hedge(&tried, now)).count();
    assert_eq!(granted, 9, "ten may be saved up");
}

#[tokio::test]
async fn upgraded_connections_leave_room_under_a_learned_limit() {
    let server = TcpServer::echo();
    let size = NonZeroU32::new(2);
    let pool = PoolSettings { size: None, queue: 0, ..PoolSettings::default() };
    let adaptive = Settings { adaptive: true, pool, ..settings(&[server.address()]) };
    let upstream = upstream(Settings { pool: PoolSettings { size, ..pool }, ..adaptive });
    assert_eq!(upstream.status().limit, Some(2), "no more than the size of the pool");
    let (_io, tunnel) = lease(&upstream).await.unwrap().split();
    let _exemption = tunnel.exempt();
    let _other = lease(&upstream).await.unwrap();
    // Two are open, and the size is what bounds connections, upgraded or not.
    assert_eq!(lease(&upstream).await.unwrap_err().reason, Reason::LimitQueue);
}
