//! Limits in number and time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tieline_testkit::{HttpConversation, PATIENCE, wait_until};

use crate::origin::Origin;
use crate::site::{HTTP, Site, request};
use crate::support::{OneRoute, await_live, connect_from, reset};

fn site(route: &str, origin: &Origin) -> (Site, String) {
    let config = OneRoute { route, ..HTTP }.to(&[origin.address()]);
    (Site::start(&config), config)
}

/// How many of `count` requests, each on a connection of its own and all at once, are let through.
fn admitted(site: &Site, count: usize) -> usize {
    let mut clients: Vec<HttpConversation> = (0..count).map(|_| site.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(request("/", &[])).unwrap());
    let statuses = clients.iter_mut().map(|client| client.answer("GET").unwrap().status);
    statuses.filter(|status| *status == 200).count()
}

#[test]
fn a_rate_is_exact_for_all_workers_and_told_to_those_who_exceed_it() {
    let origin = Origin::ok();
    let (site, _) = site("rate = { rate = \"20/h\" }", &origin);
    assert_eq!(admitted(&site, 50), 20);
    let mut client = site.connect();
    let answer = client.ask(&request("/late", &[]));
    assert_eq!((answer.status, answer.header("connection")), (429, None), "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((170..=181).contains(&seconds), "{seconds}: one of twenty an hour is free every three minutes");
    assert_eq!(client.ask(&request("/later", &[])).status, 429, "on the same connection");
    assert_eq!(site.reason("/late"), "limit:rate");
    (0..20).for_each(|_| drop(origin.asked()));
    assert!(origin.is_unasked());
    let labels = "listener=\"web\",route=\"service\",limit=\"ip\"";
    assert_eq!(site.tieline.metric(&format!("tieline_limited_total{{{labels}}}")), 32.0);
    let story = site.tieline.cli(["show", &site.row_id(&client)]).expect("show");
    assert!(story.contains("more than 20/h by client, 20 at once"), "{story}");
}

#[test]
fn clients_are_counted_apart_and_by_what_they_say() {
    let origin = Origin::ok();
    let by_header = "{ per = \"header:X-Api-Key\", rate = \"2/h\" }";
    let (site, _) = site(&format!("rate = [{by_header}, {{ per = \"ip\", rate = \"5/h\" }}]"), &origin);
    let ask = |last: u8, key: &str| {
        let mut client = HttpConversation::over(connect_from([127, 0, 0, last], site.address));
        client.ask(&request("/", &[&format!("X-Api-Key: {key}")])).status
    };
    assert_eq!((ask(2, "a"), ask(2, "a"), ask(2, "a")), (200, 200, 429));
    assert_eq!((ask(3, "a"), ask(3, "b")), (429, 200), "a key is a key wherever it comes from");
    // What one of several refused was counted by none: 2 of client 2 were let through, and 3 are left.
    assert_eq!((ask(2, "c"), ask(2, "d"), ask(2, "e"), ask(2, "f")), (200, 200, 200, 429));
    assert_eq!(ask(4, "f"), 200);
}

#[test]
fn all_routes_of_a_listener_may_share_a_rate() {
    let origin = Origin::ok();
    let config =
        OneRoute { listener: "rate = { per = \"route\", rate = \"3/h\" }", ..HTTP }.to(&[origin.address()]);
    let other = "[[listener.web.route]]\nname = \"other\"\npath = \"/other\"\naccess = \"public\"\n\
                 respond = { status = 200, body = \"here\" }\n";
    let site = Site::start(&config.replace("[upstream", &format!("{other}[upstream")));
    let status = |target| site.connect().ask(&request(target, &[])).status;
    assert_eq!((status("/"), status("/other"), status("/"), status("/other")), (200, 200, 200, 429));
}

#[test]
fn a_reload_forgets_no_debt_unless_the_rate_changes() {
    let origin = Origin::ok();
    let (site, config) = site("rate = { rate = \"2/h\" }", &origin);
    assert_eq!(admitted(&site, 5), 2);
    site.tieline.reload(&config.replace("[upstream.service]", "[upstream.service]\nbalance = \"random\""));
    assert_eq!(admitted(&site, 5), 0);
    site.tieline.reload(&config.replace("2/h", "3/h"));
    assert_eq!(admitted(&site, 5), 3);
}

#[test]
fn so_many_requests_are_under_way_and_no_more() {
    let open = Arc::new(AtomicBool::new(false));
    let may_answer = open.clone();
    let origin = Origin::start(move |_| {
        assert!(wait_until(PATIENCE, || may_answer.load(Relaxed)));
        crate::origin::OK.into()
    });
    let (site, _) = site("concurrent = 2", &origin);
    let mut busy: Vec<HttpConversation> = (0..2).map(|_| site.connect()).collect();
    for client in &mut busy {
        client.send(request("/busy", &[])).unwrap();
    }
    await_live(&site.tieline, "stage=relay", 2);
    assert_eq!(site.connect().ask(&request("/third", &[])).status, 503);
    assert_eq!(site.reason("/third"), "limit:concurrent");
    // One gives up, the other is answered: both give their place back.
    reset(busy.pop().unwrap().stream().try_clone().unwrap());
    await_live(&site.tieline, "stage=relay", 1);
    open.store(true, Relaxed);
    assert_eq!(busy[0].answer("GET").unwrap().status, 200);
    // An answer is seen a moment before its place is free.
    assert!(wait_until(PATIENCE, || admitted(&site, 2) == 2));
}

#[test]
fn an_upgraded_connection_keeps_its_place() {
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let origin = Origin::start(move |asked| {
        if asked.header("upgrade").is_some() { switched.into() } else { crate::origin::OK.into() }
    });
    let (site, _) = site("concurrent = 1", &origin);
    let mut socket = site.connect();
    socket.send(request("/socket", &["Connection: Upgrade", "Upgrade: websocket"])).unwrap();
    assert_eq!(socket.any_answer("GET").unwrap().status, 101);
    assert_eq!(site.connect().ask(&request("/", &[])).status, 503);
    drop(socket);
    assert!(wait_until(PATIENCE, || site.connect().ask(&request("/", &[])).status == 200));
}
