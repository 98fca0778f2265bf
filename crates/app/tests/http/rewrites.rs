//! What routes change of requests and answers.

use tieline_testkit::{HttpAnswer, free_port, loopback};

use crate::origin::Origin;
use crate::site::{HTTP, Site, request};
use crate::support::OneRoute;

/// A route with these lines to an upstream at `origin`.
fn site(origin: &Origin, lines: &str) -> Site {
    let route = format!("[[listener.web.route]]\naccess = \"public\"\nupstream = \"shop\"\n{lines}\n");
    Site::with_routes(&format!("{route}[upstream.shop]\nendpoints = [\"{}\"]\n", origin.address()))
}

#[test]
fn paths_are_made_of_pieces_of_those_that_came() {
    let origin = Origin::ok();
    for (lines, cases) in [
        (
            "path = \"/api\"\nrewrite.strip_prefix = \"/api\"",
            &[("/api", "/"), ("/api/", "/"), ("/api/a%20b?q=/api", "/a%20b?q=/api")][..],
        ),
        (
            "path = \"/api/v1\"\nrewrite.strip_prefix = \"/api\"",
            &[("/api/v1", "/v1"), ("/%61pi/v1/x", "/v1/x")],
        ),
        (
            "path = \"/users/{id}\"\nrewrite.path = \"/people/{id}/{rest}\"",
            &[("/users/7", "/people/7"), ("/users/a%20b/posts/", "/people/a%20b/posts/")],
        ),
        ("rewrite.path = \"/v2/{rest}\"", &[("/", "/v2/"), ("/x?y", "/v2/x?y"), ("//x", "/v2//x")]),
        ("path = \"= /old\"\nrewrite.path = \"/new\"", &[("/old", "/new")]),
    ] {
        let site = site(&origin, lines);
        let mut client = site.connect();
        for (target, expected) in cases {
            assert_eq!(client.ask(&request(target, &[])).status, 200, "{lines}: {target}");
            assert_eq!(origin.asked().target(), *expected, "{lines}: {target}");
        }
    }
}

#[test]
fn no_path_becomes_the_name_of_a_host() {
    let origin = Origin::ok();
    let site = site(&origin, "path = \"/api\"\nrewrite.strip_prefix = \"/api\"");
    assert_eq!(site.connect().ask(&request("/api//evil.test/x", &[])).status, 400);
    assert_eq!(site.reason("/api//evil.test/x"), "protocol-error");
    assert!(origin.is_unasked());
}

#[test]
fn hosts_are_rewritten_and_the_one_that_was_asked_for_is_told() {
    let origin = Origin::ok();
    let site = site(&origin, "rewrite.host = \"shop.internal:8080\"");
    assert_eq!(site.connect().ask(&request("/", &[])).status, 200);
    let asked = origin.asked();
    assert_eq!(asked.all("host").collect::<Vec<_>>(), ["shop.internal:8080"]);
    assert_eq!(asked.header("x-forwarded-host"), Some("shop.test"));
}

#[test]
fn fields_of_requests_and_answers_are_set_added_and_removed() {
    let origin = Origin::start(|_| {
        let fields = "Server: origin\r\nX-Seen: origin\r\nX-Set: origin\r\nX-Set: twice\r\n";
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok").into_bytes()
    });
    let site = site(
        &origin,
        "request_headers = { set = { x-tenant = \"shop\" }, add = { x-seen = \"edge\" }, \
         remove = [\"X-Debug\"] }\n\
         response_headers = { set = { X-Set = \"edge\" }, add = { x-seen = \"edge\" }, \
         remove = [\"server\"] }",
    );
    let mut client = site.connect();
    let fields = ["X-Tenant: evil", "x-tenant: evil", "X-Seen: client", "x-debug: 1", "X-Kept: 1"];
    let answer: HttpAnswer = client.ask(&request("/", &fields));
    let asked = origin.asked();
    let all = |name: &str| asked.all(name).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(all("x-tenant"), ["shop"]);
    assert_eq!(all("x-seen"), ["client", "edge"]);
    assert_eq!(all("x-debug"), [""; 0]);
    assert_eq!(all("x-kept"), ["1"]);
    let lines = |name: &str| {
        let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|it| it.1).collect::<Vec<_>>()
    };
    assert_eq!(lines("x-set"), ["edge"]);
    assert_eq!(lines("x-seen"), ["origin", "edge"]);
    assert_eq!(lines("server"), [""; 0]);
    assert_eq!(client.ask(&request("/again", &[])).text(), "ok", "the connection goes on");
}

#[test]
fn errors_of_our_own_have_the_fields_of_the_route_that_failed_and_say_themselves_what_they_are() {
    let lines = "rate = { per = \"route\", rate = \"1/h\" }\n\
                 response_headers = { set = { Access-Control-Allow-Origin = \"*\", \
                 Cache-Control = \"public\", Content-Type = \"text/x-mine\" }, \
                 add = { Vary = \"Origin\" } }";
    let closed = "[[listener.web.route]]\npath = \"/closed\"\nupstream = \"service\"\n\
                  response_headers = { set = { X-Closed = \"1\" } }\n[upstream";
    let config = OneRoute { route: lines, upstream: "retry = { attempts = 0 }", ..HTTP }
        .to(&[loopback(free_port())])
        .replace("[upstream", closed);
    let site = Site::start(&config);
    for (target, status) in [("/unreachable", 502), ("/early", 429)] {
        let answer = site.connect().ask(&request(target, &[]));
        assert_eq!(answer.status, status, "{}", answer.head);
        for (name, value) in [
            ("access-control-allow-origin", "*"),
            ("vary", "Origin"),
            ("cache-control", "no-store"),
            ("content-type", "application/problem+json"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{target}: {}", answer.head);
        }
    }
    // A route that is not for them looks like none.
    assert_eq!(site.connect().ask(&request("/closed", &[])).header("x-closed"), None);
}

#[test]
fn answers_of_the_route_itself_have_its_fields_too() {
    let route = "[[listener.web.route]]\naccess = \"public\"\n\
        response_headers = { set = { strict-transport-security = \"max-age=31536000\" } }\n\
        redirect = { to = \"https://{host}{path}\" }\n";
    let answer = Site::with_routes(route).connect().ask(&request("/", &[]));
    assert_eq!((answer.status, answer.header("strict-transport-security")), (308, Some("max-age=31536000")));
}
