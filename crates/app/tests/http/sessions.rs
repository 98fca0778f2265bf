//! Clients that come back to the endpoint that served them.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use tieline_testkit::{HttpAnswer, HttpConversation, PATIENCE, wait_until};

use crate::origin::Origin;
use crate::site::{Site, config_of, request};

/// A route with sessions to these endpoints, with more lines for its upstream.
fn config(endpoints: &[SocketAddr], session: &str, upstream: &str) -> String {
    let route =
        format!("[[listener.web.route]]\naccess = \"public\"\nupstream = \"shop\"\nsession = {session}\n");
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    let upstream = format!("[upstream.shop]\nendpoints = [{}]\n{upstream}\n", endpoints.join(", "));
    config_of(&[route, upstream].concat())
}

const HOUR: &str = "{ cookie = \"sid\", ttl = \"1h\" }";

fn three() -> [Origin; 3] {
    [Origin::saying("a"), Origin::saying("b"), Origin::saying("c")]
}

fn addresses(origins: &[Origin]) -> Vec<SocketAddr> {
    origins.iter().map(Origin::address).collect()
}

/// The cookie that an answer sets, as a `Cookie` field.
fn cookie(answer: &HttpAnswer) -> Option<String> {
    let set = answer.header("set-cookie")?;
    Some(format!("Cookie: lang=de; {}; theme=dark", set.split(';').next().unwrap()))
}

fn ask(client: &mut HttpConversation, cookie: &str) -> HttpAnswer {
    client.ask(&request("/", &[cookie]))
}

/// Who answered the first request, and the cookie that leads back there.
#[track_caller]
fn begin(site: &Site) -> (String, String) {
    let first = ask(&mut site.connect(), "X-None: 1");
    (first.text(), cookie(&first).expect("a session begins with a cookie"))
}

#[test]
fn a_client_comes_back_to_its_endpoint() {
    let origins = three();
    let site = Site::start(&config(&addresses(&origins), HOUR, ""));
    let mut served = BTreeSet::new();
    for _ in 0..20 {
        let (name, cookie) = begin(&site);
        let mut client = site.connect();
        for _ in 0..5 {
            let answer = ask(&mut client, &cookie);
            assert_eq!((answer.text(), answer.header("set-cookie")), (name.clone(), None));
        }
        served.insert(name);
    }
    assert!(served.len() > 1, "all clients are at {served:?}");
    let first = ask(&mut site.connect(), "X-None: 1");
    let set = first.header("set-cookie").unwrap();
    assert!(set.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"), "{set}");
    for origin in &origins {
        assert!(!set.contains(&origin.address().port().to_string()), "{set}");
    }
}

#[test]
fn a_forged_cookie_is_none() {
    let origins = three();
    let site = Site::start(&config(&addresses(&origins), HOUR, ""));
    let (_, genuine) = begin(&site);
    let forged = genuine.replacen("sid=", "sid=A", 1);
    for cookie in ["Cookie: sid=", "Cookie: sid=127.0.0.1:80", forged.as_str()] {
        assert!(ask(&mut site.connect(), cookie).header("set-cookie").is_some(), "{cookie}");
    }
    // Beside a forged one the genuine one counts.
    let both = genuine.replacen("lang=de", "sid=evil", 1);
    assert_eq!(ask(&mut site.connect(), &both).header("set-cookie"), None);
}

#[test]
fn sessions_survive_reloads_restarts_and_a_change_of_keys() {
    let origins = three();
    let (of_three, of_two) = (addresses(&origins), addresses(&origins[..2]));
    let site = Site::start(&config(&of_three, HOUR, ""));
    let (name, cookie) = loop {
        let (name, cookie) = begin(&site);
        if name != "c" {
            break (name, cookie);
        }
    };
    let stays = |site: &Site| {
        let answer = ask(&mut site.connect(), &cookie);
        assert_eq!((answer.text(), answer.header("set-cookie")), (name.clone(), None));
    };
    site.tieline.reload(&config(&of_two, HOUR, "slow_start = \"1s\""));
    stays(&site);
    let path = site.tieline.data().join("session.keys");
    let keys = fs::read_to_string(&path).unwrap();
    // Another process with the same key, as behind a restart.
    let other = Site::start(&config(&of_two, "{ cookie = \"unused\" }", ""));
    fs::write(other.tieline.data().join("session.keys"), &keys).unwrap();
    other.tieline.reload(&config(&of_three, HOUR, ""));
    stays(&other);
    // A new key on top seals, and the old one still opens.
    fs::write(&path, format!("{}\n{keys}", "5a".repeat(32))).unwrap();
    site.tieline.reload(&config(&of_three, HOUR, "slow_start = \"2s\""));
    stays(&site);
    fs::write(&path, format!("{}\n", "5a".repeat(32))).unwrap();
    site.tieline.reload(&config(&of_three, HOUR, "slow_start = \"3s\""));
    assert!(ask(&mut site.connect(), &cookie).header("set-cookie").is_some());
}

#[test]
fn a_session_that_would_outlive_what_the_config_says_gets_a_new_cookie() {
    let origins = three();
    let of_three = addresses(&origins);
    let site = Site::start(&config(&of_three, "{ cookie = \"sid\" }", ""));
    let (name, for_ever) = begin(&site);
    site.tieline.reload(&config(&of_three, HOUR, ""));
    let answer = ask(&mut site.connect(), &for_ever);
    let set = answer.header("set-cookie").expect("one that ends");
    assert!(answer.text() == name && set.contains("; Max-Age=3600;"), "{set}");
    let hour = cookie(&answer).unwrap();
    assert_eq!(ask(&mut site.connect(), &hour).header("set-cookie"), None);
    site.tieline.reload(&config(&of_three, &HOUR.replace("1h", "10m"), ""));
    let answer = ask(&mut site.connect(), &hour);
    let set = answer.header("set-cookie").expect("one that ends sooner");
    assert!(answer.text() == name && set.contains("; Max-Age=600;"), "{set}");
}

#[test]
fn a_client_whose_endpoint_is_gone_gets_another() {
    let origins = three();
    let site = Site::start(&config(&addresses(&origins), HOUR, ""));
    let (name, cookie) = begin(&site);
    let left: Vec<_> =
        ["a", "b", "c"].iter().zip(addresses(&origins)).filter(|(it, _)| **it != name).collect();
    let left: Vec<SocketAddr> = left.into_iter().map(|(_, address)| address).collect();
    site.tieline.reload(&config(&left, HOUR, ""));
    let answer = ask(&mut site.connect(), &cookie);
    assert_ne!(answer.text(), name);
    let again = self::cookie(&answer).expect("a new cookie");
    let back = ask(&mut site.connect(), &again);
    assert_eq!((back.text(), back.header("set-cookie")), (answer.text(), None));
}

#[test]
fn a_client_whose_endpoint_is_down_gets_another() {
    let origins = three();
    let dead = tieline_testkit::Refusing::start();
    let mut endpoints = addresses(&origins[..1]);
    let site = Site::start(&config(&endpoints, HOUR, ""));
    let (_, cookie) = begin(&site);
    // The same label would lead back; the health check knows better.
    endpoints.push(origins[1].address());
    let check = "health = { http = \"/\", every = \"100ms\", timeout = \"5s\", rise = 1, fall = 1 }";
    site.tieline.reload(&config(&endpoints, HOUR, check));
    assert_eq!(ask(&mut site.connect(), &cookie).text(), "a");
    endpoints[0] = dead.address();
    site.tieline.reload(&config(&endpoints, HOUR, check));
    assert!(wait_until(PATIENCE, || {
        let answer = ask(&mut site.connect(), &cookie);
        answer.text() == "b" && answer.header("set-cookie").is_some()
    }));
}

#[test]
fn a_drained_endpoint_keeps_its_clients_and_gets_no_new_ones() {
    let origins = three();
    let addresses = addresses(&origins);
    let site = Site::start(&config(&addresses, HOUR, ""));
    let (name, cookie) = begin(&site);
    let at = ["a", "b", "c"].iter().position(|it| *it == name).unwrap();
    let drain = format!("/api/v1/upstreams/shop/endpoints/{}/drain", addresses[at]);
    assert_eq!(site.tieline.api("POST", &drain, &serde_json::json!({})).0, 200);
    for _ in 0..10 {
        let answer = ask(&mut site.connect(), &cookie);
        assert_eq!((answer.text(), answer.header("set-cookie")), (name.clone(), None));
        assert_ne!(begin(&site).0, name);
    }
}

#[test]
#[allow(clippy::disallowed_types, reason = "a receiver is one thread's, and a server of a test has several")]
fn a_full_endpoint_is_passed_over_once_and_keeps_the_session() {
    // The first request of each connection is answered when the test says so.
    let (release, waits) = std::sync::mpsc::channel::<()>();
    let (arrive, arrived) = std::sync::mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let slow = Origin::start(move |asked| {
        if asked.target() == "/slow" {
            let _ = arrive.send(());
            let _ = waits.lock().unwrap().recv_timeout(PATIENCE);
        }
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na".to_vec()
    });
    let other = Origin::saying("b");
    let endpoints = format!(
        "[upstream.shop]\nendpoints = [{{ address = \"{}\", connections = 1 }}, \"{}\"]\n",
        slow.address(),
        other.address()
    );
    let route =
        format!("[[listener.web.route]]\naccess = \"public\"\nupstream = \"shop\"\nsession = {HOUR}\n");
    let site = Site::with_routes(&[route, endpoints].concat());
    let cookie = loop {
        let (name, cookie) = begin(&site);
        if name == "a" {
            break cookie;
        }
    };
    // An answer is there a moment before its place is free.
    assert!(wait_until(PATIENCE, || site.tieline.get("/api/v1/pools")[0]["in_use"] == 0));
    let mut busy = site.connect();
    busy.send(request("/slow", &[&cookie])).unwrap();
    arrived.recv_timeout(PATIENCE).unwrap();
    let answer = ask(&mut site.connect(), &cookie);
    assert_eq!((answer.text().as_str(), answer.header("set-cookie")), ("b", None));
    release.send(()).unwrap();
    assert_eq!(busy.answer("GET").unwrap().text(), "a");
    let back = || ask(&mut site.connect(), &cookie).text() == "a";
    assert!(wait_until(PATIENCE, back), "it comes back once there is room");
}

#[test]
fn a_session_keeps_its_upstream_among_several() {
    let origins = three();
    let upstream =
        |name: &str, origin: &Origin| format!("[upstream.{name}]\nendpoints = [\"{}\"]\n", origin.address());
    let route = format!(
        "[[listener.web.route]]\naccess = \"public\"\n\
         upstream = [{{ name = \"old\" }}, {{ name = \"next\" }}]\n\
         session = {HOUR}\n"
    );
    let site =
        Site::with_routes(&[route, upstream("old", &origins[0]), upstream("next", &origins[1])].concat());
    for _ in 0..10 {
        let (name, cookie) = begin(&site);
        for _ in 0..5 {
            assert_eq!(ask(&mut site.connect(), &cookie).text(), name);
        }
    }
}

#[test]
fn hashes_of_cookies_and_headers_keep_clients_together_too() {
    let origins = three();
    let config = |by: &str| {
        let upstream = format!("balance = \"hash\"\nhash_by = \"{by}\"");
        config(&addresses(&origins), HOUR, &upstream).replace(&format!("session = {HOUR}\n"), "")
    };
    for (by, field) in [("header:x-user", "X-User: "), ("cookie:sid", "Cookie: a=b; sid=")] {
        let site = Site::start(&config(by));
        let mut served = BTreeSet::new();
        for user in 0..20 {
            let names: BTreeSet<String> =
                (0..4).map(|_| ask(&mut site.connect(), &format!("{field}u{user}")).text()).collect();
            assert_eq!(names.len(), 1, "{by}: user {user} is at {names:?}");
            served.extend(names);
        }
        assert_eq!(served.len(), 3, "{by}: all are at {served:?}");
    }
}
