//! What the origin is told of the client, and what the client cannot make it believe.

use tieline_testkit::{HttpConversation, HttpMessage, free_port, loopback};

use crate::origin::Origin;
use crate::site::{HTTP, Site, request};
use crate::support::OneRoute;

/// What the origin gets for a GET with these fields.
#[track_caller]
fn forwarded(origin: &Origin, client: &mut HttpConversation, fields: &[&str]) -> HttpMessage {
    assert_eq!(client.ask(&request("/", fields)).status, 200);
    origin.asked()
}

#[test]
fn forwarded_fields_are_ours_alone() {
    let origin = Origin::ok();
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    let asked = forwarded(
        &origin,
        &mut client,
        &[
            "X-Forwarded-For: evil",
            "x-forwarded-FOR: evil",
            "X_Forwarded_For: evil",
            "X-Forwarded_For: evil",
            "X-Forwarded-Proto: evil",
            "X-Forwarded-Host: evil",
            "X-Forwarded-Port: evil",
            "X-Real-IP: evil",
            "Forwarded: for=evil",
            "X-Request-Id: evil",
            "Proxy: evil",
            "Connection: X-Forwarded-For, X-Forwarded-Proto, X-Request-Id, X-Mine",
            "X-Mine: evil",
            "X-Other: kept",
        ],
    );
    assert!(!asked.head.contains("evil"), "{}", asked.head);
    let all = |name: &str| asked.all(name).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(all("x-forwarded-proto"), ["http"]);
    assert_eq!(all("x-forwarded-host"), ["shop.test"]);
    assert_eq!(all("x-other"), ["kept"]);
    assert_eq!(all("host"), ["shop.test"]);
    assert_eq!((all("x-request-id").len(), all("via").len()), (1, 1));
}

#[test]
fn no_other_spelling_and_no_other_proxy_s_word_passes() {
    let origin = Origin::ok();
    let site = Site::to(&[origin.address()]);
    // Servers that hand fields on as variables make one of many names: all that is no letter becomes `_`.
    let aliases =
        ["X.Forwarded.For", "x!real!ip", "X|Tieline|Identity", "x-tieline.identity", "Content.Length"];
    // What single products take for the client's address, or for the path that was meant.
    let words = [
        "True-Client-IP",
        "Client-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "CF-Connecting-IP",
        "Fastly-Client-IP",
        "X-Original-Forwarded-For",
        "X-Original-Host",
        "X-Original-URL",
        "X-Rewrite-URL",
    ];
    let fields: Vec<String> = aliases
        .iter()
        .chain(&words)
        .map(|name| format!("{name}: evil"))
        .chain(["X.Mine: kept".into()])
        .collect();
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let asked = forwarded(&origin, &mut site.connect(), &fields);
    assert!(!asked.head.contains("evil"), "{}", asked.head);
    assert_eq!(asked.header("x.mine"), Some("kept"));
    // Who is trusted may say so.
    let trusting = OneRoute { listener: "trusted_forwarders = [\"127.0.0.1/32\"]", ..HTTP };
    let site = Site::start(&trusting.to(&[origin.address()]));
    let asked = forwarded(&origin, &mut site.connect(), &fields);
    for name in words {
        assert_eq!(asked.header(name), Some("evil"), "{name}: {}", asked.head);
    }
    for name in aliases {
        assert_eq!(asked.header(name), None, "{name}: {}", asked.head);
    }
}

#[test]
fn fields_of_one_hop_end_at_this_one() {
    let origin = Origin::start(|_| {
        let fields = "Connection: keep-alive, X-Secret\r\nKeep-Alive: timeout=5\r\nX-Secret: s\r\n\
                      Alt-Svc: h3=\":443\"\r\nProxy-Authenticate: Basic\r\nX-Open: o\r\n";
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok").into_bytes()
    });
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    let fields = [
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "TE: gzip",
        "Upgrade: h2c",
        "HTTP2-Settings: AAAA",
        "Proxy-Authorization: Basic x",
        "Connection: Upgrade, HTTP2-Settings",
    ];
    let answer = client.ask(&request("/", &fields));
    let asked = origin.asked();
    for name in ["keep-alive", "proxy-connection", "te", "upgrade", "http2-settings", "proxy-authorization"] {
        assert_eq!(asked.header(name), None, "{name}: {}", asked.head);
    }
    for name in ["connection", "keep-alive", "x-secret", "alt-svc", "proxy-authenticate"] {
        assert_eq!(answer.header(name), None, "{name}: {}", answer.head);
    }
    assert_eq!(answer.header("x-open"), Some("o"));
}

#[test]
fn a_request_is_known_by_one_id_everywhere() {
    let origin = Origin::ok();
    let site = Site::to(&[origin.address()]);
    let mut client = site.connect();
    let ids: Vec<String> = (0..3)
        .map(|_| forwarded(&origin, &mut client, &[]).header("x-request-id").unwrap().to_owned())
        .collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
    let wrong = site.connect().ask("GET /../id HTTP/1.1\r\nHost: a\r\n\r\n");
    let id = wrong.header("x-request-id").unwrap();
    assert!(wrong.text().contains(id), "{}", wrong.text());
    assert_eq!(site.log_line("/../id")["request_id"], id);
}

#[test]
fn a_request_in_a_circle_is_stopped() {
    let there = loopback(free_port());
    let here = Site::to(&[there]);
    let bind = format!("bind = \"{there}\"");
    let _other = Site::start(&OneRoute { listener: &bind, ..HTTP }.to(&[here.address]));
    let answer = here.connect().ask(&request("/circle", &[]));
    assert_eq!(answer.status, 508);
    // It has passed here twice: the first time it was sent on.
    here.await_reason("/circle", "refused:loop");
}
