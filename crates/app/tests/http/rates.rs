//! Limits in number and time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tieline_testkit::{HttpAnswer, HttpConversation, PATIENCE, TcpServer, free_port, loopback, wait_until};

use crate::origin::Origin;
use crate::site::{HTTP, Site, config_of, request};
use crate::support::{OneRoute, another_day, await_live, connect_from, reset};

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
    assert!((100..=181).contains(&seconds), "{seconds}: one of twenty an hour is free every three minutes");
    assert_eq!(client.ask(&request("/later", &[])).status, 429, "on the same connection");
    assert_eq!(site.reason("/late"), "limit:rate");
    (0..20).for_each(|_| drop(origin.asked()));
    assert!(origin.is_unasked());
    let labels = "listener=\"web\",route=\"service\",limit=\"ip\"";
    assert_eq!(site.tieline.metric(&format!("tieline_limited_total{{{labels}}}")), 32.0);
    let story = site.tieline.cli(["show", &site.row_id(&client)]).expect("show");
    assert!(story.contains("more than 20/h by client, 20 at once"), "{story}");
}

/// All values of a field, as one list.
fn told(answer: &HttpAnswer, name: &str) -> String {
    let fields = answer.head.lines().skip(1).filter_map(|line| line.split_once(": "));
    let values = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    values.collect::<Vec<_>>().join(", ")
}

#[test]
fn answers_tell_what_is_left_where_they_are_told_to() {
    let ours = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRateLimit: \"own\";r=9\r\n\r\nok";
    let origin = Origin::start(move |_| ours.into());
    let by_key = "{ per = \"header:X-Api-Key\", rate = \"100/h\", burst = 2, tell = true }";
    let quiet = "{ per = \"route\", rate = \"1000/h\" }";
    let by_client = "{ rate = \"60/m\", tell = true }";
    let (site, _) = site(&format!("rate = [{by_key}, {quiet}, {by_client}]"), &origin);
    let mut client = site.connect();
    let mut ask = || client.ask(&request("/", &["X-Api-Key: a"]));
    let policies = "\"header:x-api-key\";q=100;w=3600, \"ip-3\";q=60;w=60";
    let first = ask();
    assert_eq!((first.status, told(&first, "ratelimit-policy")), (200, policies.to_owned()));
    // Time goes on: a second has nothing to give back of the one, but may of the other.
    let left = told(&first, "ratelimit");
    assert!(left.starts_with("\"own\";r=9, \"header:x-api-key\";r=1;t=36, \"ip-3\";r=59;t=1"), "{left}");
    assert!(told(&ask(), "ratelimit").contains("\"header:x-api-key\";r=0;t="));
    let refused = ask();
    assert_eq!(refused.status, 429);
    let seconds = refused.header("retry-after").unwrap();
    let left = told(&refused, "ratelimit");
    assert!(left.starts_with("\"header:x-api-key\";r=0;t="), "{left} and {seconds}");
    assert_eq!(told(&refused, "ratelimit-policy"), "\"header:x-api-key\";q=100;w=3600");
}

#[test]
fn answers_of_the_route_itself_tell_it_too_and_others_do_not() {
    let route = |path: &str, tell: bool| {
        format!(
            "[[listener.web.route]]\npath = \"{path}\"\naccess = \"public\"\n\
             respond = {{ status = 200, body = \"here\" }}\n\
             rate = {{ per = \"route\", rate = \"5/h\", tell = {tell} }}\n"
        )
    };
    let site = Site::start(&config_of(&[route("/told", true), route("/untold", false)].concat()));
    let told =
        |target: &str| site.connect().ask(&request(target, &[])).header("ratelimit").map(str::to_owned);
    assert_eq!(told("/told").as_deref(), Some("\"route\";r=4;t=720"));
    assert_eq!(told("/untold"), None);
}

#[test]
fn answers_that_stand_for_an_upstream_s_tell_it_too() {
    let silent = TcpServer::sink();
    let nobody = loopback(free_port());
    let slow = "timeouts = { first_byte = \"300ms\" }";
    let rate = "rate = { rate = \"5/h\", tell = true }";
    let crowded = format!("{rate}\nconcurrent = 1");
    for (upstream, more, endpoint, status) in
        [("", rate, nobody, 502), (slow, rate, silent.address(), 504), ("", &*crowded, silent.address(), 503)]
    {
        let site = Site::start(&OneRoute { route: more, upstream, ..HTTP }.to(&[endpoint]));
        let mut first = site.connect();
        first.send(request("/", &[])).unwrap();
        let (answer, left) = if status == 503 {
            await_live(&site.tieline, "stage=relay", 1);
            (site.connect().ask(&request("/", &[])), 3)
        } else {
            (first.answer("GET").unwrap(), 4)
        };
        assert_eq!(answer.status, status, "{}", answer.text());
        let told = told(&answer, "ratelimit");
        assert!(told.starts_with(&format!("\"ip\";r={left};t=")), "{status}: {told}");
    }
    // What is too large is refused, and counted.
    let site =
        Site::start(&OneRoute { route: rate, listener: "limits = { body = \"4B\" }", ..HTTP }.to(&[nobody]));
    let mut client = site.connect();
    client.send("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    let answer = client.answer("POST").unwrap();
    assert_eq!((answer.status, &*told(&answer, "ratelimit")), (413, "\"ip\";r=4;t=720"));
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

#[test]
fn who_is_not_let_in_uses_up_nobody_s_rate() {
    let origin = Origin::ok();
    let route = "[[listener.web.route]]\nname = \"shop\"\nupstream = \"shop\"\n\
                 allow = { from = [\"127.0.0.1/32\"] }\nrate = { per = \"route\", rate = \"2/h\" }\n";
    let upstream = format!("[upstream.shop]\nendpoints = [\"{}\"]\n", origin.address());
    let site = Site::start(&config_of(&[route, &upstream].concat()));
    let mut stranger = HttpConversation::over(connect_from([127, 0, 0, 9], site.address));
    stranger.send(request("/", &[])).unwrap();
    assert_eq!(stranger.answer("GET").unwrap().status, 404);
    for _ in 0..4 {
        let mut stranger = HttpConversation::over(connect_from([127, 0, 0, 9], site.address));
        stranger.send(request("/", &[])).unwrap();
        assert_eq!(stranger.answer("GET").unwrap().status, 404, "whoever waits long enough learns no more");
    }
    assert_eq!(admitted(&site, 4), 2);
}

#[test]
fn a_route_that_is_closed_uses_up_nobody_s_rate() {
    let origin = Origin::ok();
    let at = |days: &str| {
        let route = format!("schedule = \"{days} 00:00-24:00\"\nrate = {{ rate = \"2/h\" }}");
        OneRoute { route: &route, ..HTTP }.to(&[origin.address()])
    };
    let site = Site::start(&at(another_day()));
    assert_eq!(admitted(&site, 4), 0);
    assert_eq!(site.reason("/"), "refused:schedule");
    site.tieline.reload(&at("Mon-Sun"));
    assert_eq!(admitted(&site, 4), 2);
}

#[test]
fn a_field_that_stands_twice_is_counted_by_both_its_values() {
    let origin = Origin::ok();
    let (site, _) = site("rate = { per = \"header:X-Api-Key\", rate = \"2/h\" }", &origin);
    let ask = |decoy: &str| {
        let fields = [format!("X-Api-Key: {decoy}"), "X-Api-Key: genuine".to_owned()];
        site.connect().ask(&request("/", &[&fields[0], &fields[1]])).status
    };
    assert_eq!((ask("a"), ask("b"), ask("c"), ask("d")), (200, 200, 429, 429));
}
