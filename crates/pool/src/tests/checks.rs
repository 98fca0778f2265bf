use std::num::NonZeroU32;

use tieline_testkit::{Refusing, TcpServer};
use tieline_wire::greeting::Probe;

use super::*;
use crate::{HealthSettings, Standing, Thresholds};

fn health(probe: Probe) -> Option<HealthSettings> {
    let two = NonZeroU32::new(2).unwrap();
    let (every, timeout) = (Duration::from_millis(10), Duration::from_secs(60));
    Some(HealthSettings { probe, every, timeout, thresholds: Thresholds { rise: two, fall: two } })
}

fn standing(upstream: &Upstream, index: usize) -> Standing {
    upstream.status().endpoints[index].standing
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_down_until_it_is_back() {
    let (server, refusing) = (TcpServer::echo(), Refusing::start());
    let addresses = [server.address(), refusing.address()];
    let upstream = upstream(Settings { health: health(Probe::Tcp), ..settings(&addresses) });
    kept(&upstream, async {
        eventually(|| standing(&upstream, 1) == Standing::Unhealthy).await;
        assert_eq!(standing(&upstream, 0), Standing::Healthy);
        drop(refusing);
        let _back = TcpServer::echo_at(addresses[1]);
        eventually(|| standing(&upstream, 1) == Standing::Healthy).await;
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_must_say_the_right_words() {
    let (good, bad) = (TcpServer::named("+PONG\r\n"), TcpServer::named("-LOADING the dataset\r\n"));
    let addresses = [good.address(), bad.address()];
    let upstream = upstream(Settings { health: health(Probe::Redis), ..settings(&addresses) });
    kept(&upstream, async {
        eventually(|| standing(&upstream, 1) == Standing::Unhealthy).await;
        eventually(|| good.accepted() > 2).await;
        assert_eq!(standing(&upstream, 0), Standing::Healthy);
        assert!(upstream.status().endpoints[1].last_error.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_mute_endpoint_delays_the_check_of_no_other() {
    let (mute, refusing) = (TcpServer::mute(), Refusing::start());
    let addresses = [mute.address(), refusing.address()];
    let upstream = upstream(Settings { health: health(Probe::Redis), ..settings(&addresses) });
    kept(&upstream, async {
        eventually(|| mute.accepted() == 1).await;
        eventually(|| standing(&upstream, 1) == Standing::Unhealthy).await;
        assert_eq!(
            (mute.accepted(), standing(&upstream, 0)),
            (1, Standing::Healthy),
            "its check still waits"
        );
    })
    .await;
}

#[tokio::test]
async fn a_check_that_times_out_is_a_bad_one() {
    let mute = TcpServer::mute();
    let health = health(Probe::Redis).map(|h| HealthSettings { timeout: Duration::from_millis(20), ..h });
    let upstream = upstream(Settings { health, ..settings(&[mute.address()]) });
    kept(&upstream, eventually(|| standing(&upstream, 0) == Standing::Unhealthy)).await;
    let error = upstream.status().endpoints[0].last_error.clone().unwrap();
    assert_eq!(error, "no answer to the check within 20ms");
}

#[tokio::test]
async fn a_reload_that_ends_the_checks_forgives_what_they_found() {
    let refusing = Refusing::start();
    let checked = Settings { health: health(Probe::Tcp), ..settings(&[refusing.address()]) };
    let upstream = upstream(checked.clone());
    kept(&upstream, async {
        eventually(|| standing(&upstream, 0) == Standing::Unhealthy).await;
        upstream.apply(settings(&[refusing.address()]));
        assert_eq!(standing(&upstream, 0), Standing::Healthy);
        upstream.apply(checked);
        eventually(|| standing(&upstream, 0) == Standing::Unhealthy).await;
    })
    .await;
}

#[tokio::test]
async fn the_keeper_ends_when_told() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = TcpServer::echo();
    let upstream = upstream(Settings { health: health(Probe::Tcp), ..settings(&[server.address()]) });
    let keep = Arc::clone(&upstream).keep(async { drop(stopped.await) });
    let tell = async {
        eventually(|| server.accepted() > 0).await;
        drop(stop);
    };
    tokio::join!(keep, tell);
    assert_eq!(Arc::strong_count(&upstream), 1, "nothing of it goes on");
}
