#![allow(clippy::disallowed_types)] // a test's list of what was told, locked for a push or a look

use std::sync::Mutex;

use tieline_base::Reason;
use tieline_testkit::{Dnsmasq, TcpServer};

use super::*;
use crate::{DnsSettings, Standing};

/// An upstream of names, which `dns` knows.
fn named(dns: &Dnsmasq, addresses: &[&str]) -> Settings {
    let endpoint = |text: &&str| EndpointSettings::new(text.parse().unwrap());
    let dns = DnsSettings { servers: vec![dns.address()], ..DnsSettings::default() };
    Settings { dns, ..Settings::new("db", addresses.iter().map(endpoint).collect()) }
}

fn labels(upstream: &Upstream) -> Vec<String> {
    let mut labels: Vec<_> = upstream.endpoints().iter().map(|e| e.label().to_owned()).collect();
    labels.sort();
    labels
}

#[tokio::test]
async fn a_name_is_followed_as_its_addresses_change() {
    let mut dns = Dnsmasq::start(&[("db.test", "127.0.0.2"), ("db.test", "127.0.0.3")]);
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let on_leave = Arc::new(move |e: &crate::Endpoint| telling.lock().unwrap().push(e.label().to_owned()));
    let upstream = Upstream::new(named(&dns, &["db.test:80"]), on_leave);
    assert!(labels(&upstream).is_empty());
    kept(&upstream, async {
        eventually(|| labels(&upstream) == ["db.test:80@127.0.0.2", "db.test:80@127.0.0.3"]).await;
        let stays = upstream.endpoints().into_iter().find(|e| e.is_called("127.0.0.3:80")).unwrap();
        dns.replace(&[("db.test", "127.0.0.3"), ("db.test", "127.0.0.4")]);
        eventually(|| labels(&upstream) == ["db.test:80@127.0.0.3", "db.test:80@127.0.0.4"]).await;
        assert_eq!(*told.lock().unwrap(), ["db.test:80@127.0.0.2"]);
        assert!(upstream.endpoints().iter().any(|e| Arc::ptr_eq(e, &stays)), "it was not disturbed");
    })
    .await;
}

#[tokio::test]
async fn a_resolver_that_fails_takes_nothing_away() {
    let mut dns = Dnsmasq::start(&[("db.test", "127.0.0.2")]);
    let upstream = upstream(named(&dns, &["db.test:80"]));
    kept(&upstream, async {
        eventually(|| labels(&upstream).len() == 1).await;
        dns.process().stop();
        eventually(|| upstream.status().names[0].error.is_some()).await;
        assert_eq!(labels(&upstream), ["db.test:80@127.0.0.2"]);
    })
    .await;
}

#[tokio::test]
async fn a_name_that_vanishes_keeps_its_last_addresses() {
    let mut dns = Dnsmasq::start(&[("db.test", "127.0.0.2")]);
    let upstream = upstream(named(&dns, &["db.test:80"]));
    kept(&upstream, async {
        eventually(|| labels(&upstream).len() == 1).await;
        dns.replace(&[]);
        eventually(|| upstream.status().names[0].error.is_some()).await;
        assert_eq!(labels(&upstream).len(), 1);
        dns.replace(&[("db.test", "127.0.0.9")]);
        eventually(|| labels(&upstream) == ["db.test:80@127.0.0.9"]).await;
        assert_eq!(upstream.status().names[0].error, None);
    })
    .await;
}

#[tokio::test]
async fn a_lease_waits_for_the_first_answer() {
    let server = TcpServer::echo();
    let dns = Dnsmasq::start(&[("db.test", "127.0.0.1")]);
    let name = format!("db.test:{}", server.address().port());
    let upstream = upstream(named(&dns, &[&name]));
    let mut early = Box::pin(lease(&upstream));
    assert!(has_to_wait(&mut early).await);
    let lease = kept(&upstream, early).await.unwrap();
    assert_eq!(peer_of(lease), server.address());
}

#[tokio::test]
async fn a_name_that_does_not_exist_makes_leases_fail_and_nothing_else() {
    let server = TcpServer::echo();
    let dns = Dnsmasq::start(&[]);
    let alone = upstream(named(&dns, &["nowhere.test:80"]));
    assert_eq!(kept(&alone, lease(&alone)).await.unwrap_err().reason, Reason::Unreachable);
    let beside = upstream(named(&dns, &["nowhere.test:80", &server.address().to_string()]));
    kept(&beside, lease(&beside)).await.unwrap();
}

#[tokio::test]
async fn two_families_are_one_endpoint_dialed_at_whichever_answers() {
    let server = TcpServer::echo(); // on IPv4 alone
    let dns = Dnsmasq::start(&[("db.test", "::1"), ("db.test", "127.0.0.1"), ("db.test", "127.0.0.2")]);
    let port = server.address().port();
    let upstream = upstream(named(&dns, &[&format!("db.test:{port}")]));
    kept(&upstream, async {
        let pair = format!("db.test:{port}@::1+127.0.0.1");
        eventually(|| labels(&upstream) == [format!("db.test:{port}@127.0.0.2"), pair.clone()]).await;
        upstream.drain_endpoint(&format!("127.0.0.2:{port}")).unwrap();
        let lease = lease(&upstream).await.unwrap();
        assert_eq!(lease.endpoint().label(), pair);
        assert_eq!(peer_of(lease), server.address());
    })
    .await;
}

#[tokio::test]
async fn localhost_needs_no_server() {
    let server = TcpServer::echo();
    let endpoint = format!("localhost:{}", server.address().port()).parse().unwrap();
    let upstream = upstream(Settings::new("db", vec![EndpointSettings::new(endpoint)]));
    let lease = kept(&upstream, lease(&upstream)).await.unwrap();
    assert_eq!(peer_of(lease), server.address());
}

#[tokio::test]
async fn a_drain_holds_when_a_name_gets_other_addresses() {
    let mut dns = Dnsmasq::start(&[("db.test", "127.0.0.2")]);
    let upstream = upstream(named(&dns, &["db.test:80"]));
    kept(&upstream, async {
        eventually(|| labels(&upstream).len() == 1).await;
        upstream.drain_endpoint("db.test:80").unwrap();
        dns.replace(&[("db.test", "127.0.0.3")]);
        eventually(|| labels(&upstream) == ["db.test:80@127.0.0.3"]).await;
        assert_eq!(upstream.status().endpoints[0].standing, Standing::Draining);
        upstream.enable_endpoint("db.test:80").unwrap();
        assert_eq!(upstream.status().endpoints[0].standing, Standing::Healthy);
    })
    .await;
}
