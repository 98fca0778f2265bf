//! Routes whose requests several upstreams share.

use std::collections::BTreeMap;

use tieline_testkit::{HttpConversation, PATIENCE, TcpServer, wait_until};

use crate::origin::{Origin, raw};
use crate::site::{Site, config_of, request};
use crate::support::{await_finished, await_live, live};

/// A route to the upstreams `old` and `next` with these weights, and what else it says.
fn config(old: (&Origin, u32), next: (&Origin, u32), more: &str) -> String {
    let shares = format!(
        "upstream = [{{ name = \"old\", weight = {} }}, {{ name = \"next\", weight = {} }}]\n",
        old.1, next.1
    );
    let upstream =
        |name: &str, origin: &Origin| format!("[upstream.{name}]\nendpoints = [\"{}\"]\n", origin.address());
    let route = format!("[[listener.web.route]]\nname = \"shop\"\naccess = \"public\"\n{shares}{more}\n");
    config_of(&[route, upstream("old", old.0), upstream("next", next.0)].concat())
}

/// How often each answered when `count` requests with what `fields` makes were sent.
fn tally(
    client: &mut HttpConversation,
    count: usize,
    fields: impl Fn(usize) -> String,
) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for number in 0..count {
        *tally.entry(client.ask(&request("/", &[&fields(number)])).text()).or_default() += 1;
    }
    tally
}

#[test]
fn requests_are_shared_by_weight_and_shown_as_what_they_are() {
    let (old, next) = (Origin::saying("old"), Origin::saying("next"));
    let site = Site::start(&config((&old, 3), (&next, 1), ""));
    let mut client = site.connect();
    let tally = tally(&mut client, 400, |_| "X-A: b".into());
    // Binomial with p = 1/4: mean 100, deviation 8.7; seven of those are never seen.
    assert!((40..=160).contains(&tally["next"]), "{tally:?}");
    assert_eq!(tally["next"] + tally["old"], 400);
    let route = site.tieline.get("/api/v1/routes")[0].clone();
    assert_eq!((&route["upstream"], &route["shares"][1]["weight"]), (&"old".into(), &1.into()));
    for name in ["old", "next"] {
        let text = std::iter::repeat_with(|| client.ask(&request(&format!("/{name}"), &[])).text());
        assert!(text.take(1_000).any(|text| text == name));
        let lines = || {
            let log = std::fs::read_to_string(site.access_log()).unwrap_or_default();
            let of = |line: &&str| line.contains(&format!("\"upstream\":\"{name}\""));
            log.lines().filter(of).count()
        };
        assert!(wait_until(PATIENCE, || lines() > 0), "the log names the upstream that was chosen");
        assert_eq!(live(&site.tieline, &format!("upstream={name}")).len(), 1, "the table names it too");
    }
}

#[test]
fn what_is_equal_by_the_key_goes_to_the_same_upstream() {
    let (old, next) = (Origin::saying("old"), Origin::saying("next"));
    let site = Site::start(&config((&old, 1), (&next, 1), "split_by = \"cookie:sid\""));
    let mut client = site.connect();
    let mut seen = BTreeMap::new();
    for user in 0..40 {
        let tally = tally(&mut client, 5, |_| format!("Cookie: a=b; sid=u{user}"));
        assert_eq!(tally.len(), 1, "user {user}: {tally:?}");
        tally.into_keys().for_each(|name| *seen.entry(name).or_insert(0) += 1);
    }
    assert!(seen.values().all(|count| *count > 4) && seen.len() == 2, "{seen:?}");
    // Without the cookie it is the client's address that counts.
    assert_eq!(tally(&mut client, 20, |_| "X-A: b".into()).len(), 1);
}

#[test]
fn a_weight_of_zero_takes_an_upstream_out_of_use() {
    let (old, next) = (Origin::saying("old"), Origin::saying("next"));
    let site = Site::start(&config((&old, 1), (&next, 0), ""));
    assert_eq!(tally(&mut site.connect(), 50, |_| "X-A: b".into()).len(), 1);
    site.tieline.reload(&config((&old, 0), (&next, 1), ""));
    let mut client = site.connect();
    assert_eq!(client.ask(&request("/", &[])).text(), "next");
}

/// Says `name`, upgrades, and sends everything back.
fn echo() -> TcpServer {
    raw(|mut client| {
        let Some(_) = client.request()? else { return Ok(()) };
        client.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")?;
        while let Ok(byte) = client.take(1) {
            client.send(byte)?;
        }
        Ok(())
    })
}

#[test]
fn a_reload_ends_those_alone_whose_upstream_left_the_route() {
    let (old, next) = (echo(), echo());
    let config = |shares: &str| {
        let upstream = |name: &str, server: &TcpServer| {
            format!("[upstream.{name}]\nendpoints = [\"{}\"]\n", server.address())
        };
        let route =
            format!("[[listener.web.route]]\naccess = \"public\"\ngrace = \"0s\"\nupstream = {shares}\n");
        let kept = "[[listener.web.route]]\naccess = \"public\"\npath = \"/kept\"\nupstream = \"next\"\n";
        config_of(&[&route, kept, &upstream("old", &old), &upstream("next", &next)].concat())
    };
    let both = config("[{ name = \"old\" }, { name = \"next\" }]");
    let site = Site::start(&both);
    let socket = || {
        let mut client = site.connect();
        let asked = client.ask(&request("/", &["Connection: Upgrade", "Upgrade: x"]));
        assert_eq!(asked.status, 101);
        client
    };
    let mut sockets = Vec::new();
    assert!(wait_until(PATIENCE, || {
        sockets.push(socket());
        old.open() > 0 && next.open() > 0
    }));
    let (of_old, of_next) = (old.open(), next.open());
    await_live(&site.tieline, "upstream=old", of_old);
    // Another name, the same upstreams: whom it does not concern goes on.
    site.tieline.reload(&config("[{ name = \"next\", weight = 9 }, { name = \"old\" }]"));
    await_live(&site.tieline, "", of_old + of_next);
    site.tieline.reload(&config("\"old\""));
    await_finished(&site.tieline, "reason=revoked", of_next);
    assert_eq!(live(&site.tieline, "upstream=old").len(), of_old);
    assert!(wait_until(PATIENCE, || next.open() == 0));
}

#[test]
fn a_route_without_a_name_is_not_taken_for_another() {
    let echo = echo();
    let route = |path: &str, grace: &str| {
        let head = format!("[[listener.web.route]]\naccess = \"public\"\npath = \"{path}\"\n");
        format!("{head}grace = \"{grace}\"\nupstream = \"echo\"\n")
    };
    let upstream = format!("[upstream.echo]\nendpoints = [\"{}\"]\n", echo.address());
    let config = |routes: &[String]| config_of(&[routes.concat(), upstream.clone()].concat());
    // The first is called `echo`, the second `echo-2`; without the first the second is called `echo`.
    let site = Site::start(&config(&[route("/one", "0s"), route("/two", "0s")]));
    let upgraded = |path: &str| {
        let mut client = site.connect();
        assert_eq!(client.ask(&request(path, &["Connection: Upgrade", "Upgrade: x"])).status, 101);
        client
    };
    let (mut one, mut two) = (upgraded("/one"), upgraded("/two"));
    site.tieline.reload(&config(&[route("/two", "0s")]));
    await_finished(&site.tieline, "reason=revoked", 1);
    let _ = one.rest(); // in order or by a reset
    two.send("ping").unwrap();
    assert_eq!(two.take(4).unwrap(), b"ping");
}
