//! What is decided about a request is decided about what is forwarded: a request and what becomes of it take
//! the same route.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tieline_base::ClientAddr;
use tieline_conn::{HashBy, Route};
use tieline_policy::{Access, Networks, Rule};
use tieline_registry::RouteRow;
use tieline_wire::http1::{Limits, Path, Room, match_form, parse_request};

use crate::forward::{self, Origin, Tell};
use crate::forwarders::speaking;
use crate::plan::{has_field, host_name};
use crate::rewrite::{PathPart, PathRewrite, Rewrite};
use crate::site::{Action, Ask, Match, PathMatch, Site, Target};

const LIMITS: Limits = Limits { line: 8_192, head: 32_768, fields: 100 };

fn target(name: &str) -> Arc<Target> {
    let row = RouteRow {
        name: name.into(),
        identity: name.into(),
        rule: "".into(),
        grace: Duration::ZERO,
        upstream: None,
    };
    let route = Route {
        row: Arc::new(row),
        rule: Rule::new(name, "u", "t.toml:1", Access::Public),
        upstream: None,
        priority: Default::default(),
        schedule: None,
        hash_by: HashBy::Nothing,
        bandwidth: None,
        announce: None,
    };
    Arc::new(Target {
        route: Arc::new(route),
        action: Action::Forward,
        guards: None,
        rewrite: None,
        session: None,
        mirror: None,
        retry: Default::default(),
        first_byte: Duration::ZERO,
        gap: Duration::ZERO,
    })
}

/// Routes that overlap in every respect.
fn site() -> Site {
    let path = |segments: &[Option<&str>], exact| PathMatch {
        segments: segments.iter().map(|segment| segment.map(Into::into)).collect(),
        exact,
    };
    let all = Match::default();
    let pair = |name: &str, value: Option<&str>| (name.to_owned(), value.map(Into::into));
    let matches = [
        all.clone(),
        Match { hosts: vec!["a.test".into()], ..all.clone() },
        Match { hosts: vec!["*.test".into()], ..all.clone() },
        Match { path: path(&[Some("a")], false), ..all.clone() },
        Match { path: path(&[Some("a"), None], false), ..all.clone() },
        Match { path: path(&[Some("a"), Some("b c")], true), ..all.clone() },
        Match { path: path(&[Some("a%2Fb")], false), ..all.clone() },
        Match { methods: vec!["POST".into()], ..all.clone() },
        Match { headers: vec![pair("x-a", Some("1"))], ..all.clone() },
        Match { headers: vec![pair("x-hop", None)], ..all.clone() },
        Match { headers: vec![pair("x_under", None)], ..all.clone() },
        Match { headers: vec![pair("x-forwarded-proto", Some("https"))], ..all.clone() },
        Match { query: vec![pair("q", Some("1 2"))], ..all },
    ];
    let named = matches.into_iter().enumerate();
    Site::new(named.map(|(number, matches)| (matches, target(&number.to_string()).into())).collect())
}

/// The route of `head`, by its name, and what is forwarded; `None` if it is refused.
fn way(site: &Site, head: &[u8], rewrite: Option<&Rewrite>) -> Option<(Option<String>, Vec<u8>)> {
    let mut room = Room::new();
    let request = parse_request(head, &LIMITS, &mut room).ok()?;
    Path::checked(request.target.path).ok()?;
    let sender = ClientAddr::from_socket("192.0.2.1:9".parse().unwrap());
    let speaking = speaking(&request.fields, sender, &Networks::default()).ok()?;
    let split = site.find(&Ask {
        host: &host_name(request.host),
        path: &match_form(request.target.path),
        query: request.target.query,
        method: request.method.as_str(),
        header: &|name, fits| has_field(&request, speaking.trusted, name, fits),
    });
    let origin = Origin {
        speaking: &speaking,
        sender,
        tell: Tell::Both,
        scheme: "http",
        host: request.host,
        request_id: b"id",
        identity: None,
        http2: false,
        node: "node",
        usual: None,
    };
    let mut forwarded = Vec::new();
    forward::request(&request, &origin, rewrite, &mut forwarded).ok()?;
    Some((split.map(|split| split.choose(0).route.row.name.to_string()), forwarded))
}

fn any_head() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b%20c", "b c", "%61", "a%2Fb", "..", "x", "", "%2e", "b;c"]);
    let path = prop::collection::vec(part, 0..4).prop_map(|parts| format!("/{}", parts.join("/")));
    let form = prop::sample::select(vec!["", "http://a.test", "https://B.Test:80", "HTTP://a.test/a?"]);
    let query = prop::sample::select(vec!["", "?q=1%202", "?q=1+2", "?a=b&q=1%202", "?"]);
    let method = prop::sample::select(vec!["GET", "POST", "get", "PUT"]);
    let host = prop::sample::select(vec!["a.test", "A.TEST:8080", "b.test", "c.b.test", "other"]);
    let line = prop::sample::select(vec![
        "x-a: 1",
        "X-A: 2",
        "x-hop: 1",
        "Connection: x-hop, x-a",
        "Connection: keep-alive",
        "X_Under: 1",
        "X-Forwarded-Proto: https",
        "Forwarded: proto=https",
        "Via: 1.1 other",
        "X-Request-Id: 7",
        "Upgrade: websocket",
        "Connection: upgrade",
        "TE: trailers",
        "Content-Length: 0",
    ]);
    let lines = prop::collection::vec(line, 0..6);
    (method, form, path, query, host, lines).prop_map(|(method, form, path, query, host, lines)| {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        format!("{method} {form}{path}{query} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_request_and_what_is_forwarded_of_it_take_the_same_route(head in any_head()) {
        let site = site();
        if let Some((route, forwarded)) = way(&site, head.as_bytes(), None) {
            let (again, twice) = way(&site, &forwarded, None).expect("what is forwarded can be read");
            prop_assert_eq!(route, again, "{}", String::from_utf8_lossy(&forwarded));
            let (third, _) = way(&site, &twice, None).expect("twice as well");
            prop_assert_eq!(third, way(&site, &forwarded, None).unwrap().0);
        }
    }

    /// With a rewrite it may take another; but it can be read, and has no dot segment and no encoded slash.
    #[test]
    fn what_is_rewritten_can_be_read(head in any_head(), matched in 0usize..3, at in 0usize..3) {
        let parts = vec![PathPart::Text("v2".into()), PathPart::Segment(at), PathPart::Rest];
        let rewrite = Rewrite {
            path: Some(PathRewrite { matched, parts }),
            host: Some("inner.test:81".into()),
            ..Rewrite::default()
        };
        let site = site();
        if let Some((_, forwarded)) = way(&site, head.as_bytes(), Some(&rewrite)) {
            let mut room = Room::new();
            let request = parse_request(&forwarded, &LIMITS, &mut room).expect("it can be read");
            prop_assert!(Path::checked(request.target.path).is_ok());
            prop_assert_eq!(request.host, "inner.test:81");
            prop_assert!(request.target.path == "*" || request.target.path.starts_with("/v2"));
        }
    }
}
